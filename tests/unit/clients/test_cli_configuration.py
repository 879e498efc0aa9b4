"""The commands for applications, overrides and organizations, against scripted services."""

from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2
from keyswitch.router.v1 import (
    application_service_pb2,
    configuration_pb2,
    organization_service_pb2,
    override_service_pb2,
    payer_pb2,
)

from tests.unit.clients.cli_terminal import OPERATOR, Terminal
from tests.unit.clients.scripted_router import rich_status

CLAUDE = application_service_pb2.Application(
    name="organizations/demo/applications/claude",
    default_model="anthropic/claude-sonnet-4.6",
    payers=[payer_pb2.PAYER_ORGANIZATION_KEY, payer_pb2.PAYER_CREDITS],
    native_provider="providers/anthropic",
    source=configuration_pb2.CONFIGURATION_SOURCE_STORED_OVER_FILE,
)


def test_applications(terminal: Terminal) -> None:
    services = terminal.services
    services.answers |= {
        "ListApplications": application_service_pb2.ListApplicationsResponse(applications=[CLAUDE]),
        "UpdateApplication": application_service_pb2.UpdateApplicationResponse(application=CLAUDE),
        "CreateApplication": application_service_pb2.CreateApplicationResponse(application=CLAUDE),
        "GetApplication": application_service_pb2.GetApplicationResponse(application=CLAUDE),
        "BindCredential": application_service_pb2.BindCredentialResponse(application=CLAUDE),
        "DeleteApplication": application_service_pb2.DeleteApplicationResponse(),
    }
    listed = terminal.run("applications", "list")
    assert "ORGANIZATION_KEY, CREDITS" in listed.stdout
    assert "stored over file" in listed.stdout
    services.requests.clear()
    terminal.run("applications", "set", "claude", "--payer", "credits", "--no-byok", "--override-file")
    assert [name for name, _ in services.requests] == ["GetApplication", "UpdateApplication", "GetApplication"]
    update = services.asked("UpdateApplication")
    assert list(update.update_mask.paths) == ["is_byok_supported", "payers"]
    assert (update.application.is_byok_supported, update.override_file) == (False, True)
    services.answers["GetApplication"] = rich_status(code_pb2.NOT_FOUND, "none", "ERROR_REASON_RESOURCE_NOT_FOUND")
    terminal.run("applications", "set", "new", "--model", "sonnet", "--native-provider", "anthropic")
    create = services.asked("CreateApplication")
    assert (create.application_id, create.application.native_provider) == ("new", "providers/anthropic")
    terminal.run("applications", "bind", "claude", "main")
    binding = services.asked("BindCredential").binding
    assert binding.credential == "organizations/demo/credentials/main"
    assert terminal.run("applications", "delete", "claude").exit_code == 2
    assert terminal.run("applications", "delete", "claude", "--yes").exit_code == 0


def test_an_application_that_cannot_be_read_is_not_made(terminal: Terminal) -> None:
    terminal.services.answers["GetApplication"] = rich_status(
        code_pb2.PERMISSION_DENIED, "no", "ERROR_REASON_CALLER_NOT_ALLOWED"
    )
    assert terminal.run("applications", "set", "claude", "--model", "sonnet").exit_code == 3
    assert [name for name, _ in terminal.services.requests] == ["GetApplication"]


def test_limits(terminal: Terminal) -> None:
    limits = configuration_pb2.RateLimits(requests_per_minute=600, tokens_per_minute=2_000_000)
    policy = organization_service_pb2.OrganizationPolicy(limits=limits)
    one = application_service_pb2.Application(
        name=CLAUDE.name, limits=limits, max_queue_wait=Duration(nanos=500_000_000)
    )
    services = terminal.services
    services.answers |= {
        "GetOrganizationPolicy": organization_service_pb2.GetOrganizationPolicyResponse(policy=policy),
        "SetOrganizationPolicy": organization_service_pb2.SetOrganizationPolicyResponse(policy=policy),
        "UpdateApplication": application_service_pb2.UpdateApplicationResponse(application=one),
        "GetApplication": application_service_pb2.GetApplicationResponse(application=one),
    }
    shown = terminal.run(
        "-o", "demo", "organizations", "policy", "--limits", "requests=600, tokens=2000000", "--user-limits",
        "requests=60", "--token-limits", "", token=OPERATOR,
    )  # fmt: skip
    request = services.asked("SetOrganizationPolicy")
    assert list(request.update_mask.paths) == ["limits", "user_limits", "token_limits"]
    assert request.policy.limits == limits
    assert request.policy.user_limits == configuration_pb2.RateLimits(requests_per_minute=60)
    assert not request.policy.HasField("token_limits")
    assert "600 requests a minute, 2,000,000 tokens a minute" in shown.stdout
    shown = terminal.run("applications", "update", "claude", "--limits", "tokens=9", "--max-queue-wait", "0.25")
    request = services.asked("UpdateApplication")
    assert list(request.update_mask.paths) == ["limits", "max_queue_wait"]
    assert request.application.limits == configuration_pb2.RateLimits(tokens_per_minute=9)
    assert request.application.max_queue_wait == Duration(nanos=250_000_000)
    assert "0.50 s" in shown.stdout
    services.requests.clear()
    terminal.run("applications", "set", "claude", "--limits", "", "--max-queue-wait", "")
    request = services.asked("UpdateApplication")
    assert list(request.update_mask.paths) == ["limits", "max_queue_wait"]
    assert not request.application.HasField("limits")
    assert not request.application.HasField("max_queue_wait")
    services.requests.clear()
    for wrong in ("600", "requests=-1", "requests=many", "calls=4", "requests=1e3", "requests=1,"):
        assert terminal.run("applications", "set", "claude", "--limits", wrong).exit_code == 2, wrong
    for wrong in ("soon", "-1", "nan", "1e3", "2 s"):
        assert terminal.run("applications", "set", "claude", f"--max-queue-wait={wrong}").exit_code == 2, wrong
    assert services.requests == []


def test_overrides(terminal: Terminal) -> None:
    answer = override_service_pb2.Override(name="organizations/demo/users/ada/overrides/root", model="sonnet")
    terminal.services.answers |= {
        "SetOverride": override_service_pb2.SetOverrideResponse(override=answer),
        "ListOverrides": override_service_pb2.ListOverridesResponse(overrides=[answer]),
        "ClearOverride": override_service_pb2.ClearOverrideResponse(),
    }
    terminal.run("overrides", "set", "root", "sonnet")
    assert terminal.services.asked("SetOverride").override.name == answer.name
    listed = terminal.run("overrides", "list", "--organization-wide")
    assert terminal.services.asked("ListOverrides").parent == "organizations/demo"
    assert "root" in listed.stdout
    assert "do not count here" in listed.stderr
    terminal.run("overrides", "clear", "title", "-a", "chat")
    assert terminal.services.asked("ClearOverride").name == "organizations/demo/applications/chat/overrides/title"


def test_organizations(terminal: Terminal) -> None:
    policy = organization_service_pb2.OrganizationPolicy(markup_basis_points=1250, is_user_key_enabled=True)
    terminal.services.answers |= {
        "GetOrganizationPolicy": organization_service_pb2.GetOrganizationPolicyResponse(policy=policy),
        "SetOrganizationPolicy": organization_service_pb2.SetOrganizationPolicyResponse(policy=policy),
        "CreateOrganization": organization_service_pb2.CreateOrganizationResponse(),
        "GetOrganization": organization_service_pb2.GetOrganizationResponse(),
    }
    done = terminal.run("-o", "demo", "organizations", "policy", "--markup", "1250", token=OPERATOR)
    request = terminal.services.asked("SetOrganizationPolicy")
    assert request.policy.name == "organizations/demo/policy"
    assert list(request.update_mask.paths) == ["markup_basis_points"]
    assert "12.5 %" in done.stdout
    terminal.run("organizations", "create", "acme", "--user", "eva", token=OPERATOR)
    assert list(terminal.services.asked("CreateOrganization").organization.users) == ["eva"]
