"""A story: an organization with coding agents, its models and defaults, keys per agent, and credits without them."""

from typing import Any

from keyswitch.router.v1 import application_service_pb2 as applications
from keyswitch.router.v1 import credential_test_service_pb2 as tests_pb2
from keyswitch.router.v1 import error_reason_pb2, payer_pb2, routing_service_pb2

from tests.fakes.scripted_upstream import stream
from tests.service.configuration_harness import Desk, desks
from tests.service.router_answers import PRICE, Json, anthropic_events
from tests.service.router_harness import ADA, DEMO, Stack, make_call, running_stack

AGENTS: dict[str, Json] = {
    "claude": {"default_model": "agents/claude-sonnet-4.6", "native_provider": "claude"},
    "codex": {"default_model": "agents/gpt-5.4", "native_provider": "first"},
    "gemini": {"default_model": "agents/auto-gemini-3", "native_provider": "second"},
    "opencode": {"default_model": "agents/gemini-3.1-pro", "byok_supported": False},
}
MODELS = {
    "agents/claude-sonnet-4.6": "claude",
    "agents/claude-opus-4.6": "claude",
    "agents/gpt-5.4": "first",
    "agents/gpt-5.3-codex": "first",
    "agents/auto-gemini-3": "second",
    "agents/gemini-3.1-pro": "second",
}
ALLOWED = {
    "claude": ["agents/*"],
    "codex": ["agents/gpt-*"],
    "gemini": ["agents/auto-gemini-3"],
    "opencode": ["agents/*"],
}


def agents(configuration: Json) -> None:
    """The organization of the story, in the file."""
    for model, provider in MODELS.items():
        endpoint = {"provider": provider, "upstream_model": model.partition("/")[2]}
        configuration["models"][model] = {"endpoints": [endpoint], "price": PRICE}
    applications_made = configuration["organizations"]["demo"]["applications"]
    for name, entry in AGENTS.items():
        applications_made[name] = {
            "payers": ["ORGANIZATION_KEY", "CREDITS"], "allowed_models": ALLOWED[name], **entry,
        }  # fmt: skip
    configuration["deployment_credentials"]["claude"] = {"provider": "claude", "payers": ["CREDITS"]}


async def would(desk: Desk, agent: str, model: str = "") -> Any:
    call = make_call(model=model, application=f"{DEMO}/applications/{agent}")
    told = await desk(routing_service_pb2.ExplainRouteRequest(call=call))
    return told.candidates[0].resolution if told.candidates else told


async def state(stack: Stack, desk: Desk, agent: str) -> int:
    request = tests_pb2.GetKeyStatusRequest(application=f"{DEMO}/applications/{agent}", provider="providers/claude")
    (status,) = (await desk(request)).statuses
    return int(status.state)


async def test_an_organization_with_executors(tmp_path: Any) -> None:
    async with running_stack(tmp_path, configuration=agents) as stack:
        who = await desks(stack)
        for provider in ("first", "second", "claude"):
            await stack.save_key(f"deployment/credentials/{provider}", provider=provider)
        await stack.add_credits(10**12)
        member = Desk(await stack.issue("MEMBER", user=ADA), stack.channel)
        for agent, entry in AGENTS.items():  # without own keys: each agent's default, on credits
            found = await would(member, agent)
            assert (found.model, found.payer) == (entry["default_model"], payer_pb2.PAYER_CREDITS)
        assert (await would(member, "claude", "agents/gpt-5.4")).payer == payer_pb2.PAYER_CREDITS
        refused = await member.refused(
            routing_service_pb2.ExplainRouteRequest(
                call=make_call(model="agents/claude-opus-4.6", application=f"{DEMO}/applications/codex")
            )
        )
        assert refused.reason == "MODEL_NOT_ALLOWED"

        await stack.save_key(f"{DEMO}/credentials/anthropic", provider="claude")
        binding = applications.CredentialBinding(
            payer=payer_pb2.PAYER_ORGANIZATION_KEY, credential=f"{DEMO}/credentials/anthropic"
        )
        bind = applications.BindCredentialRequest(
            application=f"{DEMO}/applications/claude", binding=binding, override_file=True
        )
        assert (await member.refused(bind)).reason == "CALLER_NOT_ALLOWED"
        await who["admin"](bind)
        stack.second.script(stream(*anthropic_events("Hello")))
        before = (await stack.router.ledger.balance("demo")).balance_nanos
        done = await member.caller.stream(make_call(application=f"{DEMO}/applications/claude"))
        assert done.receipt.attempts[0].payer == payer_pb2.PAYER_ORGANIZATION_KEY
        assert done.receipt.cost.charged_usd_nanos == 0
        await stack.rest()
        assert (await stack.router.ledger.balance("demo")).balance_nanos == before
        other = await would(member, "claude", "agents/gpt-5.4")
        assert other.failure_reason == error_reason_pb2.ERROR_REASON_MODEL_NOT_ALLOWED_WITH_OWN_KEY
        assert (await would(member, "opencode")).payer == payer_pb2.PAYER_CREDITS
        assert await state(stack, member, "claude") == tests_pb2.KEY_STATE_SAVED
        assert await state(stack, member, "opencode") == tests_pb2.KEY_STATE_SHARED

        await stack.delete_key(f"{DEMO}/credentials/anthropic")
        unbind = applications.UnbindCredentialRequest(
            application=f"{DEMO}/applications/claude", payer=payer_pb2.PAYER_ORGANIZATION_KEY
        )
        assert (await would(member, "claude")).payer == payer_pb2.PAYER_CREDITS  # the very next call
        await who["admin"](unbind)
        assert (await would(member, "claude")).payer == payer_pb2.PAYER_CREDITS
        assert await state(stack, member, "claude") == tests_pb2.KEY_STATE_SHARED
