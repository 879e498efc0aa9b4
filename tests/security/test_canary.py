"""No provider key and no caller's token gets out (promise 1): every method, every failure, every log level, every sink.

The services run as processes, as a deployment does. What they answer, print, write and show is searched for every
canary in every form; test_canary_scanner.py proves that the search finds what is there.
"""

import asyncio
import os
import signal
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from keyswitch.router.v1 import completion_service_pb2, credential_test_service_pb2
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2, token_service_pb2

from deploy.local.stack import ORGANIZATION, USER
from tests.fakes.scripted_upstream import Action, Pause, Send, chunk, head
from tests.security import canary_upstream as answers
from tests.security.canary import Canary, token_canary
from tests.security.canary_calls import METHODS, find_method, misplaced
from tests.security.canary_deployment import CHAT, CLAUDE, REFUSED, Watched, watched_deployment
from tests.security.canary_requests import (
    OWN,
    Step,
    audit_steps,
    credential_steps,
    ending_steps,
    lease_steps,
    router_steps,
    token_steps,
)
from tests.security.canary_router_requests import configuration_ends, configuration_steps, money_steps, plan_steps
from tests.security.promises import tried
from tests.service.vault_harness import Router

NEVER_REFUSED = {find_method("GetSigningKeys")}
"""Public keys for everybody: it has no refusal of its own. It is driven while the service is away."""

STRANGERS = {"CALLER_UNKNOWN", "AUTHENTICATION_LIMITED"}
"""What a token that is void is told; the latter where many were refused just before."""

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("log_level", ["debug", "info"])
async def test_no_secret_gets_out(log_level: str, tmp_path: Path) -> None:
    async with watched_deployment(tmp_path, log_level) as watched:
        await drive_all_methods(watched)
        await drive_hostile_provider(watched)
        await drive_refused_keys(watched)
        await drive_cancelled_and_revoked(watched)
        await watched.search_everything()
        await drive_damaged_store(watched)
        await drive_absent_credential_service(watched)
        await drive_killed_router(watched)
        await watched.search_everything()
        await watched.stack.stop()
        watched.search_files()
    scanner, calls = watched.scanner, watched.calls
    print(
        f"\ncanary test, log level {log_level}: {len(calls.succeeded)} of {len(METHODS)} methods answered, "
        f"{len(calls.failed)} refused; {sum(calls.succeeded.values())} calls answered, "
        f"{sum(calls.failed.values())} failures provoked; {len(watched.upstream.received)} requests reached the "
        f"provider; {scanner.report()}"
    )
    assert not scanner.hits, "\n".join(sorted({str(hit) for hit in scanner.hits}))
    assert set(calls.succeeded) == set(METHODS), "every method was driven to an answer"
    assert set(calls.failed) | NEVER_REFUSED >= set(METHODS), "every method was driven to a failure"
    assert sent_keys(watched) == {"ada's key", "the organization's key", "the deployment's key"}
    calls_made, failures = sum(calls.succeeded.values()), sum(calls.failed.values())
    tried(1, "canary keys over every method and failure", calls=calls_made, failures=failures, hits=0)


async def run(watched: Watched, step: Step) -> None:
    """A step that succeeds."""
    watched.upstream.scripts.clear()
    watched.upstream.script(*step.scripts)
    token = watched.tokens[step.caller] if step.caller else ""
    outcome = await watched.calls.call(step.method, step.request, token, most_answers=step.most_answers)
    assert outcome.is_ok or outcome.answers, f"{step.method}: {outcome.code} {outcome.reason}"


async def fail(watched: Watched, method: str, request: Message, token: str, *scripts: list[Action]) -> str:
    """A call whose end does not matter here, only that nothing gets out; gives its reason."""
    watched.upstream.scripts.clear()
    watched.upstream.script(*scripts)
    most_answers = 1 if method == "TailAuditRecords" else 10_000  # it says where it stands, and then waits
    return (await watched.calls.call(method, request, token, most_answers=most_answers)).reason


async def drive_all_methods(watched: Watched) -> None:
    """Each method right; before that, with a key in each of its fields, and from callers who may not."""
    create = next(credential_steps(watched))
    await misuse(watched, create)
    await fail(watched, create.method, create.request, watched.tokens["auditor"])
    await run(watched, create)
    leases = await lease_steps(watched)
    steps = [
        *list(credential_steps(watched))[1:],
        *router_steps(watched),
        *plan_steps(watched),
        *configuration_steps(watched),
        *money_steps(),
        *token_steps(),
        *audit_steps(),
        *leases,
    ]
    endings = [*configuration_ends(), *ending_steps()]
    for step in (*steps, *endings):
        await misuse(watched, step)
    for step in configuration_ends():  # what was made where the key stood in a field that is not read
        await fail(watched, step.method, step.request, watched.tokens[step.caller])
    for step in steps:
        await run(watched, step)
    await revoke_token(watched)
    for step in endings:
        await run(watched, step)


async def misuse(watched: Watched, step: Step) -> None:
    """A key, and a token, where they do not belong; and callers who prove nothing or the wrong thing."""
    own = watched.tokens[step.caller] if step.caller else ""
    for secret in (watched.wrong_key.value, f"{watched.wrong_key.value}\r\nx: y", watched.tokens["admin"]):
        for path, request in misplaced(step.request, secret):
            if path not in ("secret_material.api_key", "caller_proof"):
                await fail(watched, step.method, request, own)
    if find_method(step.method) in NEVER_REFUSED:
        return
    is_lease_plane = "LeaseService" in find_method(step.method)
    for token in ("", watched.wrong_key.value, own[:-4] + "AAAA", own.replace(".", "")):
        if not is_lease_plane:
            await fail(watched, step.method, step.request, token)
    if is_lease_plane:
        await fail_at_the_door(watched, step)
    await watched.calls.call_raw(
        find_method(step.method), watched.wrong_key.value.encode(), (("authorization", f"Bearer {own}"),)
    )


async def fail_at_the_door(watched: Watched, step: Step) -> None:
    """The lease plane: without a deadline, and with a certificate that is not the router's."""
    await watched.calls.call(step.method, step.request, timeout_seconds=None, most_answers=2)
    home = watched.stack.home
    ca, key, own = (home / name for name in ("ca.pem", "vault-key.pem", "vault.pem"))
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), own.read_bytes())
    target = f"127.0.0.1:{watched.stack.ports.lease}"
    async with grpc.aio.secure_channel(target, credentials, [("grpc.enable_http_proxy", 0)]) as channel:
        outcome = await watched.calls.call(step.method, step.request, channel=channel)
    assert not outcome.is_ok


async def revoke_token(watched: Watched) -> None:
    """A token that is void is a secret all the same."""
    token = token_service_pb2.Token(display_name="void", roles=[token_service_pb2.CALLER_ROLE_ADMIN])
    request = token_service_pb2.IssueTokenRequest(parent=ORGANIZATION, token=token)
    issued = (await watched.calls.call("IssueToken", request, watched.tokens["admin"])).answers[0]
    assert isinstance(issued, token_service_pb2.IssueTokenResponse)
    watched.scanner.add(token_canary("a revoked token", issued.bearer_token))
    revoke = Step("RevokeToken", token_service_pb2.RevokeTokenRequest(name=issued.token.name))
    await misuse(watched, revoke)
    await run(watched, revoke)
    listing = credential_service_pb2.ListCredentialsRequest(parent=ORGANIZATION)
    assert await fail(watched, "ListCredentials", listing, issued.bearer_token) in STRANGERS


async def drive_hostile_provider(watched: Watched) -> None:
    """Everything that a provider can say, with the key that it was sent in it."""
    for model, key in ((CHAT, watched.user_key), (CLAUDE, watched.organization_key)):
        for status in answers.STATUSES:
            await complete(watched, model, answers.echo_error(status, key.value))
        for _, script in (*answers.echo_bodies(key.value), *answers.broken_streams(key.value)):
            await complete(watched, model, script)
        for secret in (key.value, f"Bearer {key.value}", key.value[:64], key.value.lower()):
            marked = (answers.openai_stream(secret), answers.openai_body(secret), answers.anthropic_stream(secret))
            for script in marked:
                await complete(watched, model, script)
    for payer in ("SHARED_KEY", "CREDITS"):
        for script in (answers.echo_error(401, watched.shared_key.value), answers.openai_stream()):
            await complete(watched, CHAT, script, payer)
    await complete(watched, REFUSED, [])
    await drive_key_tests(watched)


async def complete(watched: Watched, model: str, script: list[Action], payer: str = "") -> None:
    """One completion of either kind, and its receipt, which keeps what the provider said of itself."""
    call = watched.call_for(model, payer)
    token = watched.tokens["member"]
    streamed = completion_service_pb2.StreamCompleteRequest(call=call)
    whole = completion_service_pb2.CompleteRequest(call=call)
    for method, request in (("StreamComplete", streamed), ("Complete", whole)):
        count = len(watched.upstream.received)
        await fail(watched, method, request, token, script)
        if script and len(watched.upstream.received) == count:  # the key rests after what was said of it before
            await watched.renew(payer, model)
            async with asyncio.timeout(20):
                while len(watched.upstream.received) == count:  # until the router knows of the new version
                    await fail(watched, method, request, token, script)


async def drive_key_tests(watched: Watched) -> None:
    """A test shows what the provider says of a key; the provider says the key."""
    key, token = watched.user_key.value, watched.tokens["member"]
    for model in ("", CHAT):
        request = credential_test_service_pb2.TestCredentialRequest(credential_version=f"{OWN}/versions/1", model=model)
        for script in (
            *(answers.echo_error(status, key) for status in answers.STATUSES),
            *(script for _, script in answers.echo_bodies(key)),
            answers.model_list("chat", key, f"x{key}"),
        ):
            await fail(watched, "TestCredential", request, token, script, script)
        await fail(watched, "TestCredential", request, token, answers.model_list("chat"), answers.openai_body(key))


async def drive_refused_keys(watched: Watched) -> None:
    """Keys that cannot be: refused, and repeated nowhere."""
    key, token = watched.wrong_key.value, watched.tokens["admin"]
    parent = f"{ORGANIZATION}/credentials/claude"
    for text in (f"{key}\n", f" {key}", f'"{key}"', f"{key}\r\nHost: x", f"{key}é", key * 128, key[:7]):
        material = credential_pb2.SecretMaterial(api_key=text)
        request = credential_service_pb2.AddCredentialVersionRequest(parent=parent, secret_material=material)
        assert await fail(watched, "AddCredentialVersion", request, token) == "INVALID_SECRET"
    material = credential_pb2.SecretMaterial(api_key=key)
    request = credential_service_pb2.AddCredentialVersionRequest(parent=parent, secret_material=material)
    for caller in ("member", "auditor"):
        await fail(watched, "AddCredentialVersion", request, watched.tokens[caller])


async def drive_cancelled_and_revoked(watched: Watched) -> None:
    """A caller that leaves in the middle, and a key that is revoked in the middle."""
    revoke = credential_service_pb2.DisableCredentialRequest(
        name=OWN, revocation=credential_service_pb2.Revocation(kill_in_flight=True)
    )
    enable = credential_service_pb2.EnableCredentialRequest(name=OWN)
    request = completion_service_pb2.StreamCompleteRequest(call=watched.call_for())
    await watched.renew("", CHAT)
    token, opened = watched.tokens["member"], [Send(head()), Send(chunk(answers.openai_chunk("Hello")))]
    never = asyncio.Event()
    watched.upstream.scripts.clear()
    watched.upstream.script([*opened, Pause(never)])
    assert (await watched.calls.call("StreamComplete", request, token, most_answers=1)).answers
    count = len(watched.upstream.received)
    watched.upstream.script([*opened, Pause(never)])
    streaming = asyncio.create_task(watched.calls.call("StreamComplete", request, token))
    async with asyncio.timeout(20):
        await watched.upstream.wait_for_requests(count + 1)
    assert (await watched.calls.call("DisableCredential", revoke, token)).is_ok
    outcome = await streaming
    assert not outcome.is_ok, "a revocation cuts the stream"
    assert (await watched.calls.call("EnableCredential", enable, token)).is_ok


async def drive_damaged_store(watched: Watched) -> None:
    """A fault that no code expects, in the middle of a lease: the store's documents are not what they were."""
    await end(watched, "vault", signal.SIGKILL)
    (database,) = (watched.stack.home / "vault").glob("*.db")
    with closing(sqlite3.connect(database)) as connection, connection:
        changed = connection.execute("UPDATE document SET value = zeroblob(200) WHERE path LIKE '%/own'")
        assert changed.rowcount
    await start(watched, "vault")
    router = Router(watched.stack.home)
    lease = router.request(f"{OWN}/versions/1", watched.tokens["member"], origin=watched.origin, principal=USER)
    assert await fail(watched, "LeaseCredential", lease, "") == "INTERNAL"
    await fail(watched, "GetCredential", credential_service_pb2.GetCredentialRequest(name=OWN), watched.tokens["admin"])
    request = completion_service_pb2.StreamCompleteRequest(call=watched.call_for(CHAT))
    await fail(watched, "StreamComplete", request, watched.tokens["member"], answers.openai_stream())


async def drive_absent_credential_service(watched: Watched) -> None:
    """The credential service stops: what it says itself, and what the router says of it."""
    await end(watched, "vault", signal.SIGTERM)
    for step in (
        *router_steps(watched),
        *plan_steps(watched),
        *configuration_steps(watched),
        *money_steps(),
        *token_steps(),
        *audit_steps(),
        *list(credential_steps(watched))[1:],
        *ending_steps(),
    ):
        token = watched.tokens[step.caller] if step.caller else ""
        await fail(watched, step.method, step.request, token, *step.scripts)
    await watched.search_everything()
    await start(watched, "vault")


async def drive_killed_router(watched: Watched) -> None:
    """The router dies without a word, in the middle of an answer; what it leaves behind is searched."""
    request = completion_service_pb2.StreamCompleteRequest(call=watched.call_for(CLAUDE))
    token = watched.tokens["admin"]  # ada's own key is damaged by now
    async with asyncio.timeout(20):
        while await fail(watched, "StreamComplete", request, token, answers.anthropic_stream()):
            pass  # each refusal is a call of its own, which is the waiting for the credential service
    count = len(watched.upstream.received)
    watched.upstream.scripts.clear()
    watched.upstream.script([Send(head()), Pause(asyncio.Event())])
    streaming = asyncio.create_task(watched.calls.call("StreamComplete", request, token))
    async with asyncio.timeout(20):
        await watched.upstream.wait_for_requests(count + 1)
    await end(watched, "router", signal.SIGKILL)
    assert (await streaming).code is grpc.StatusCode.UNAVAILABLE
    watched.search_files()
    await start(watched, "router")
    assert await fail(watched, "StreamComplete", request, token, answers.anthropic_stream()) == ""


async def end(watched: Watched, name: str, number: signal.Signals) -> None:
    """Ends one of the processes."""
    process = watched.stack.processes.pop(name)
    os.kill(process.pid, number)
    await asyncio.to_thread(process.wait, 20)


async def start(watched: Watched, name: str) -> None:
    """Starts one of them again."""
    targets = {"vault": watched.stack.vault_target, "router": watched.stack.router_target}
    watched.stack.start_process(name, f"{name}_service")
    await watched.stack.wait_until_serving(name, targets[name])


def sent_keys(watched: Watched) -> set[str]:
    """Which keys the provider was sent: the proof that the canaries were in use."""
    keys: Iterable[Canary] = (watched.user_key, watched.organization_key, watched.shared_key, watched.wrong_key)
    sent = [value for request in watched.upstream.received for value in request.headers.values()]
    return {key.name for key in keys if any(key.value in value for value in sent)}
