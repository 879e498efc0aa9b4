"""A revoked token is refused by every router and the credential service in time, though each had verified it before."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import jwt
from grpc import StatusCode
from keyswitch.vault.v1 import credential_service_pb2, token_service_pb2

from tests.security.promises import count, is_thorough, tried
from tests.service.router_answers import answer
from tests.service.router_harness import ADA, DEMO, Caller, Refused, running_stack
from tests.service.two_routers import second_router
from tests.service.vault_harness import Client
from tests.service.vault_harness import Refused as VaultRefused

MAIN = f"{DEMO}/credentials/main"
MOST_SECONDS = 2.0
REVOKED = (StatusCode.UNAUTHENTICATED, {"cause": "token_revoked"})


async def refusal_of(call: Callable[[], Awaitable[Any]]) -> Refused | VaultRefused | None:
    """How a call is refused; None where it is answered."""
    try:
        await call()
    except (Refused, VaultRefused) as refused:
        return refused
    return None


async def seconds_until_refused(call: Callable[[], Awaitable[Any]]) -> float:
    """How long calls are still let in; the refusal must be that the token was revoked."""
    begun = time.monotonic()
    async with asyncio.timeout(10 * MOST_SECONDS):
        while (refused := await refusal_of(call)) is None:
            pass
    seconds = time.monotonic() - begun
    assert (refused.code, refused.metadata) == REVOKED
    return seconds


async def stream(caller: Caller) -> None:
    """Calls; a refusal is raised."""
    found = await caller.stream()
    if found.error is not None:
        raise found.error


async def get(client: Client) -> None:
    """Reads a credential at the credential service."""
    request = credential_service_pb2.GetCredentialRequest(name=MAIN)
    await client.call(client.credentials.GetCredential, request)


async def test_a_revoked_token_is_refused_everywhere(tmp_path: Path) -> None:
    rounds, slowest = count(2, 20), 0.0
    async with running_stack(tmp_path) as stack:
        await stack.save_key(MAIN)
        stack.first.script(*[answer()] * 100_000)
        operator = stack.vault.operator
        for _ in range(rounds):
            stack.member = await stack.issue("MEMBER", user=ADA)
            client = operator.with_token(stack.member.token)
            async with second_router(stack, tmp_path) as (other, _):
                calls = (partial(stream, stack.member), partial(stream, other), partial(get, client))
                for call in calls:
                    await call()
                token_id = jwt.decode(stack.member.token, options={"verify_signature": False})["jti"]
                request = token_service_pb2.RevokeTokenRequest(name=f"{DEMO}/tokens/{token_id}")
                await operator.call(operator.tokens.RevokeToken, request)
                slowest = max(slowest, *await asyncio.gather(*(seconds_until_refused(call) for call in calls)))
            async with second_router(stack, tmp_path) as (restarted, _):
                assert await refused_at_once(restarted)
    assert slowest <= MOST_SECONDS or not is_thorough()
    tried(
        12,
        "tokens revoked at two routers and the credential service, and at a router that starts anew",
        tokens=rounds,
        seconds_max=round(slowest, 3),
    )


async def refused_at_once(caller: Caller) -> bool:
    """Whether the first call is refused because the token was revoked."""
    found = (await caller.stream()).refused
    return (found.code, found.metadata) == REVOKED
