"""A subscription from end to end: a grant's token reaches the provider, is renewed when rejected, and rests on 429."""

import dataclasses
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from keyswitch.router.v1 import credential_test_service_pb2, credential_test_service_pb2_grpc, payer_pb2
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2, credential_test_pb2

from tests.fakes.oauth_server import OauthServer, running_oauth_server
from tests.fakes.scripted_upstream import Action, respond, stream
from tests.service.router_answers import Json, answer, anthropic_events
from tests.service.router_harness import DEMO, Stack, make_call, running_stack
from tests.service.vault_harness import Refused

CREDENTIAL = f"{DEMO}/credentials/plan"
CLIENT = {
    "client_id": "subscription",
    "token_endpoint_auth_method": "none",
    "grant_types": ["authorization_code", "refresh_token"],
    "redirect_uris": ["http://127.0.0.1/callback"],
    "application_type": "native",
}


@pytest.fixture(scope="module")
def oauth() -> Iterator[OauthServer]:
    with running_oauth_server(clients=[CLIENT]) as server:
        yield server


def configure(made: Json) -> None:
    """The subscription first; where it is used up, credits over another provider, for that one cause alone."""
    application = made["organizations"]["demo"]["applications"]["chat"]
    application.update(payers=["ORGANIZATION_KEY", "CREDITS"], payer_failover_on=["RATE_LIMITED"])
    application["default_model"] = "test/claude"
    made["models"]["test/claude"]["endpoints"].append({"provider": "first", "upstream_model": "claude-1"})


@pytest.fixture
async def stack(tmp_path: Path, oauth: OauthServer) -> AsyncIterator[Stack]:
    changes = {"token_endpoints": frozenset({oauth.url})}
    async with running_stack(tmp_path, configuration=configure, vault_changes=changes) as running:
        await running.save_key("deployment/credentials/first")
        await running.add_credits(10**9)
        await save_grant(running, oauth)
        yield running


async def save_grant(stack: Stack, oauth: OauthServer, refresh_token: str = "", *, is_active: bool = True) -> None:
    admin, origin = stack.admin, stack.router.configuration.current.providers["claude"].base_url.origin
    made = credential_pb2.Credential(
        provider="providers/claude", kind=credential_pb2.CREDENTIAL_KIND_OAUTH, allowed_origins=[origin]
    )
    if not refresh_token:
        create = credential_service_pb2.CreateCredentialRequest(parent=DEMO, credential_id="plan", credential=made)
        await admin.call(admin.credentials.CreateCredential, create)
    grant = credential_pb2.OauthGrant(
        refresh_token=refresh_token or oauth.grant("subscription"),
        token_endpoint=f"{oauth.url}/token",
        client_id="subscription",
    )
    add = credential_service_pb2.AddCredentialVersionRequest(
        parent=CREDENTIAL, secret_material=credential_pb2.SecretMaterial(oauth=grant)
    )
    version = (await admin.call(admin.credentials.AddCredentialVersion, add)).credential_version
    if is_active:
        await stack.vault.activate(admin, version.name)
    await stack.settle()


def claude(*texts: str) -> list[Action]:
    return stream(*anthropic_events(*texts))


async def test_the_token_travels_as_a_bearer_token_whatever_keys_do(stack: Stack) -> None:
    stack.second.script(claude("on the plan"))
    found = await stack.member.stream(make_call())
    assert found.text == "on the plan"
    headers = stack.second.received[0].headers
    token = headers["authorization"].removeprefix("Bearer ")
    assert token
    assert "x-api-key" not in headers
    attempt = found.receipt.attempts[0]
    assert attempt.payer == payer_pb2.PAYER_ORGANIZATION_KEY
    assert attempt.credential_version == f"{CREDENTIAL}/versions/1"
    assert not [one for one in found.messages if token in str(one)]


async def test_a_rejected_token_is_renewed_once_without_the_caller_seeing_it(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vault_service.minting.minter.FORCED_RENEWAL_PAUSE_SECONDS", 0.0)
    stack.second.script(
        respond(b'{"type":"error","error":{"type":"authentication_error","message":"expired"}}', status=401),
        claude("renewed"),
    )
    found = await stack.member.stream(make_call())
    assert found.text == "renewed"
    tokens = [one.headers["authorization"] for one in stack.second.received]
    assert len(set(tokens)) == 2


@pytest.mark.parametrize("moves", [False, True])
async def test_a_grant_that_is_no_more_is_a_rejected_key_and_no_outage(
    stack: Stack, oauth: OauthServer, moves: bool
) -> None:
    def move(made: Json) -> None:
        made["organizations"]["demo"]["applications"]["chat"]["payer_failover_on"] = ["CREDENTIAL_REJECTED"]

    if moves:
        stack.reconfigure(move)
    await save_grant(stack, oauth, "made-up-refresh-token-CANARY")
    asked = oauth.counts().get("refresh_token 400", 0)
    stack.first.script(answer("on credits"))
    found = await stack.member.stream(make_call())
    assert oauth.counts()["refresh_token 400"] - asked == 1, "a call asks once"
    assert stack.second.received == []
    assert "CANARY" not in str(found)
    if moves:
        assert found.text == "on credits"
        return
    assert found.error is not None
    assert found.error.reason == "UPSTREAM_CREDENTIAL_REJECTED"
    assert found.error.metadata["credential"] == CREDENTIAL
    assert found.error.metadata["cause"] == "invalid_grant"
    assert "Its owner should test or replace it." in found.error.message
    assert stack.first.received == []


async def test_a_grant_that_is_no_more_fails_its_test(stack: Stack, oauth: OauthServer) -> None:
    await save_grant(stack, oauth, "made-up-refresh-token-CANARY", is_active=False)
    version = f"{CREDENTIAL}/versions/2"
    tests: Any = credential_test_service_pb2_grpc.CredentialTestServiceStub(stack.channel)
    request = credential_test_service_pb2.TestCredentialRequest(credential_version=version)
    found = await stack.member.call(tests.TestCredential, request)
    assert found.outcome == credential_test_pb2.CREDENTIAL_TEST_OUTCOME_INVALID_KEY
    assert "its endpoint says invalid_grant" in found.message
    assert stack.second.received == []
    get = credential_service_pb2.GetCredentialVersionRequest(name=version)
    kept = (await stack.admin.call(stack.admin.credentials.GetCredentialVersion, get)).credential_version
    assert kept.last_test.outcome == credential_test_pb2.CREDENTIAL_TEST_OUTCOME_INVALID_KEY
    with pytest.raises(Refused) as refused:
        await stack.vault.activate(stack.admin, version, force=False)
    assert refused.value.reason == "ERROR_REASON_TEST_REQUIRED"


USED_UP = b'{"type":"error","error":{"type":"rate_limit_error","message":"usage limit reached"}}'


def set_clock(stack: Stack) -> list[float]:
    now = [time.time()]
    engine = stack.router.engine
    engine.edges = dataclasses.replace(engine.edges, clock=lambda: now[0])
    engine.edges.admission._clock = lambda: now[0]
    return now


async def test_a_used_up_plan_falls_back_and_returns_by_itself(stack: Stack) -> None:
    now = set_clock(stack)
    stack.second.script(respond(USED_UP, status=429, retry_after="1800"), claude("back on the plan"))
    stack.first.script(answer("on credits"), answer("on credits"))
    for turn in range(2):
        found = await stack.member.stream(make_call())
        assert found.text == "on credits"
        assert found.receipt.attempts[-1].payer == payer_pb2.PAYER_CREDITS
        assert len(found.receipt.attempts) == (2 if turn == 0 else 1)
    assert len(stack.second.received) == 1, "the plan is left alone until its reset"
    now[0] += 1801
    found = await stack.member.stream(make_call())
    assert found.text == "back on the plan"
    assert found.receipt.attempts[0].payer == payer_pb2.PAYER_ORGANIZATION_KEY


def report_at_the_origin(made: Json) -> None:
    made["providers"]["claude"]["errors"] = {
        "reset_report": {
            "path": "/usage",
            "is_from_origin": True,
            "windows": ["windows.*"],
            "used_up": [{"name": "left", "at_most": 0}],
            "resets": ["reset"],
        }
    }


async def test_the_time_that_the_provider_reports_outranks_its_headers(stack: Stack) -> None:
    stack.reconfigure(report_at_the_origin)
    now = set_clock(stack)
    windows = [{"left": 0, "reset": int(now[0]) + 7000}, {"left": 3, "reset": int(now[0]) + 90000}]
    stack.second.script(
        respond(USED_UP, status=429, retry_after="60"),
        respond(json.dumps({"windows": windows}).encode()),
        claude("back on the plan"),
    )
    stack.first.script(answer("on credits"), answer("on credits"))
    assert (await stack.member.stream(make_call())).text == "on credits"
    asked, report = stack.second.received
    assert (report.method, report.path) == ("GET", "/usage")
    assert report.headers["authorization"] == asked.headers["authorization"]
    now[0] += 6990
    assert (await stack.member.stream(make_call())).text == "on credits"
    now[0] += 20
    assert (await stack.member.stream(make_call())).text == "back on the plan"


@pytest.mark.parametrize("report", [respond(b"<html>"), respond(b"{}", status=500)], ids=["odd", "500"])
async def test_without_a_report_the_default_of_a_plan_holds(stack: Stack, report: list[Action]) -> None:
    stack.reconfigure(report_at_the_origin)
    now = set_clock(stack)
    stack.second.script(respond(USED_UP, status=429), report, claude("back"))
    stack.first.script(answer("on credits"))
    assert (await stack.member.stream(make_call())).text == "on credits"
    assert [request.path for request in stack.second.received][1:] == ["/usage"]
    rest = next(iter(stack.router.engine.edges.admission.board.current.values()))
    assert rest.until <= now[0] + 301
    now[0] += 301
    assert (await stack.member.stream(make_call())).text == "back"
