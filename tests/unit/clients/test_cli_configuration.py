"""The commands for applications, overrides and organizations, against scripted services."""

from keyswitch.router.v1 import (
    application_service_pb2,
    configuration_pb2,
    organization_service_pb2,
    override_service_pb2,
    payer_pb2,
)

from tests.unit.clients.cli_terminal import OPERATOR, Terminal

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
    terminal.run("applications", "set", "claude", "--payer", "credits", "--no-byok", "--override-file")
    update = services.asked("UpdateApplication")
    assert list(update.update_mask.paths) == ["is_byok_supported", "payers"]
    assert (update.application.is_byok_supported, update.override_file) == (False, True)
    terminal.run("applications", "set", "new", "--model", "sonnet", "--native-provider", "anthropic")
    create = services.asked("CreateApplication")
    assert (create.application_id, create.application.native_provider) == ("new", "providers/anthropic")
    terminal.run("applications", "bind", "claude", "main")
    binding = services.asked("BindCredential").binding
    assert binding.credential == "organizations/demo/credentials/main"
    assert terminal.run("applications", "delete", "claude").exit_code == 2
    assert terminal.run("applications", "delete", "claude", "--yes").exit_code == 0


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
