"""What GetKeyStatus says of each provider and application is what a call then uses: saved, shared or none."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from keyswitch.router.v1 import credential_test_service_pb2, credential_test_service_pb2_grpc, payer_pb2

from tests.service.router_answers import Json, answer
from tests.service.router_harness import ADA, CHAT, DEMO, Caller, Stack, make_call, running_stack

PB = credential_test_service_pb2
OWN, MAIN, SHARED = f"{ADA}/credentials/own", f"{DEMO}/credentials/main", "deployment/credentials/first"
BATCH = f"{DEMO}/applications/batch"


def configure(made: Json) -> None:
    """An application that own keys of users do not pay for."""
    applications = made["organizations"]["demo"]["applications"]
    applications["batch"] = {**applications["chat"], "payers": ["ORGANIZATION_KEY", "SHARED_KEY"]}


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, configuration=configure) as running:
        yield running


async def ask(caller: Caller, application: str = CHAT, provider: str = "first") -> Any:
    """The one status of a provider for an application."""
    stub: Any = credential_test_service_pb2_grpc.CredentialTestServiceStub(caller.channel)
    request = PB.GetKeyStatusRequest(application=application, provider=f"providers/{provider}")
    (status,) = (await caller.call(stub.GetKeyStatus, request)).statuses
    assert (status.application, status.provider) == (application, f"providers/{provider}")
    return status


async def check(stack: Stack, caller: Caller, state: int, credential: str = "", *, application: str = CHAT) -> None:
    """Asks, and calls: the receipt names the payer that was said."""
    status = await ask(caller, application)
    assert (status.state, status.credential) == (state, credential)
    stack.first.script(answer())
    found = await caller.stream(make_call(application=application))
    if state == PB.KEY_STATE_NONE:
        assert status.payer == payer_pb2.PAYER_UNSPECIFIED
        assert found.refused.reason == "NO_USABLE_CREDENTIAL"
        stack.first.scripts.clear()
    else:
        assert found.receipt.attempts[0].payer == status.payer


async def test_what_is_said_is_what_a_call_uses(stack: Stack) -> None:
    person = await stack.issue("MEMBER", user=ADA)
    await check(stack, person, PB.KEY_STATE_NONE)
    await stack.save_key(SHARED)
    await check(stack, person, PB.KEY_STATE_SHARED)
    await stack.save_key(MAIN)
    await check(stack, person, PB.KEY_STATE_SAVED, MAIN)
    await stack.save_key(OWN)
    await check(stack, person, PB.KEY_STATE_SAVED, OWN)
    await check(stack, person, PB.KEY_STATE_SAVED, MAIN, application=BATCH)
    assert (await ask(person, provider="second")).state == PB.KEY_STATE_NONE
    await stack.revoke(OWN)
    await check(stack, person, PB.KEY_STATE_SAVED, MAIN)
    await stack.delete_key(MAIN)
    await check(stack, person, PB.KEY_STATE_SHARED)
    await stack.revoke(SHARED)
    await check(stack, person, PB.KEY_STATE_NONE)


async def test_a_saved_key_that_is_switched_off_is_told_and_not_used(stack: Stack) -> None:
    person = await stack.issue("MEMBER", user=ADA)
    await stack.save_key(OWN)
    await stack.save_key(SHARED)
    stack.reconfigure(lambda file: file["deployment"].update(byok_enabled=False))
    assert (await ask(person)).is_saved_key_ignored
    await check(stack, person, PB.KEY_STATE_SHARED)


async def test_another_organization_hears_nothing_of_it(stack: Stack) -> None:
    await stack.save_key(MAIN)
    await stack.save_key(OWN)
    eve = await stack.issue("MEMBER", parent="organizations/other", user="organizations/other/users/eve")
    status = await ask(eve, "organizations/other/applications/chat")
    assert (status.state, status.credential, status.is_saved_key_ignored) == (PB.KEY_STATE_NONE, "", False)


async def test_all_are_listed_by_application_then_provider(stack: Stack) -> None:
    await stack.save_key(SHARED)
    await stack.save_key(MAIN)
    person = await stack.issue("MEMBER", user=ADA)
    stub: Any = credential_test_service_pb2_grpc.CredentialTestServiceStub(person.channel)
    statuses = (await person.call(stub.GetKeyStatus, PB.GetKeyStatusRequest())).statuses
    names = [(status.application, status.provider) for status in statuses]
    assert names == sorted(names)
    assert {CHAT, BATCH} <= {application for application, _ in names}
    saved = {status.application for status in statuses if status.state == PB.KEY_STATE_SAVED}
    assert {CHAT, BATCH} <= saved
    assert all(status.provider == "providers/first" for status in statuses if status.state == PB.KEY_STATE_SAVED)
