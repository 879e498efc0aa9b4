"""Promise 15: a Vault that refuses at random. No call fails that was not refused itself, and logins stay few."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.fakes.vault_server import VaultServer
from tests.security.promises import count, tried
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.hvac_session import REQUEST_ID_HEADER
from vault_service.store.store import Denied, StoreError
from vault_service.store.token_keeper import _MOST_LOGINS_AT_ONCE, _SECONDS_PER_LOGIN
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings

SHARE = 0.1
WORDS = ("permission denied", "invalid token")  # a policy that says no; a token that nobody knows
LOGIN = "/v1/auth/approle/login"


@dataclass
class Refusals:
    """A way to a real server that answers 403 to a share of all requests, also of renewals and logins. Two logins in
    a row are not refused, which is what a Vault that is out of order for longer does: then a token may well end."""

    target: str
    chance: random.Random
    share: float = SHARE
    refused_ids: set[str] = field(default_factory=set)
    refused: int = 0
    logins: int = 0
    renewals: int = 0
    was_login_refused: bool = False

    def must_refuse(self, request: web.Request) -> bool:
        refuses = self.chance.random() < self.share
        if request.path == LOGIN:
            refuses = refuses and not self.was_login_refused
            self.was_login_refused = refuses
            self.logins += not refuses  # one that was refused is tried again, which the service does not count
        self.renewals += request.path.endswith("/renew-self")
        return refuses

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.must_refuse(request):
            self.refused += 1
            self.refused_ids.add(request.headers.get(REQUEST_ID_HEADER, ""))
            return web.json_response({"errors": [self.chance.choice(WORDS)]}, status=403)
        headers = {name: value for name, value in request.headers.items() if name.startswith("X-")}
        async with self.session.request(
            request.method, self.target + request.path_qs, data=body, headers=headers
        ) as found:
            return web.Response(body=await found.read(), status=found.status, content_type="application/json")

    session: aiohttp.ClientSession = field(init=False)


@asynccontextmanager
async def refusing_way_to(server: VaultServer, chance: random.Random) -> AsyncIterator[tuple[Refusals, str]]:
    way = Refusals(server.url, chance)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", way.answer)
    runner = web.AppRunner(application)
    async with aiohttp.ClientSession() as way.session:
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield way, f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@pytest.mark.vault
@pytest.mark.timeout(count(300, 900))
async def test_random_refusals_leave_no_gap_and_cause_no_storm_of_logins(
    vault_server: VaultServer, tmp_path: Path
) -> None:
    """Tokens of 20 s that may become 60 s old. A call that was refused may fail, as Vault's word is final for it; a
    call that was not refused itself never does, whatever became of renewals and logins."""
    role, run = f"refused-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    vault_server.make_role(role, ttl="20s", max_ttl="60s")
    files = AppRoleFiles(*vault_server.write_credentials(tmp_path, role))
    instances, seconds = count(2, 10), count(8, 600)
    loop, failed, calls = asyncio.get_running_loop(), set[str](), 0
    async with refusing_way_to(vault_server, random.Random(15)) as (way, url):
        stores = [HashiCorpStore(VaultSettings(url, files)) for _ in range(instances)]
        for store in stores:
            await first_login(store)
        end = loop.time() + seconds

        async def use(store: HashiCorpStore) -> None:
            nonlocal calls
            while loop.time() < end:
                calls += 1
                request_id = f"{run}-{calls}"
                try:
                    await store.read("a", request_id=request_id)
                except StoreError:
                    failed.add(request_id)
                await asyncio.sleep(0.02)

        await asyncio.gather(*(use(store) for store in stores))
        way.share = 0.0
        for store in stores:
            await store.read("a")
        await asyncio.gather(*(store.close() for store in stores))
    assert way.refused > 10
    assert failed <= way.refused_ids, "no gap: only calls that were refused themselves may fail"
    most = instances * (_MOST_LOGINS_AT_ONCE + seconds / _SECONDS_PER_LOGIN + 1)
    assert way.logins <= most
    records = [record for record in vault_server.audit_records(run) if record["type"] == "response"]
    assert records
    assert [record for record in records if record.get("error")] == [], "no token that had ended was ever used"
    tried(
        15,
        f"a Vault that refuses {SHARE:.0%} of all requests at random, renewals and logins among them",
        seconds=seconds,
        instances=instances,
        calls=calls,
        refused=way.refused,
        failed_that_were_refused=len(failed),
        failed_that_were_not=0,
        logins=way.logins,
        renewals=way.renewals,
    )


async def first_login(store: HashiCorpStore) -> None:
    """Before the first login there is no token to go on with."""
    async with asyncio.timeout(30):
        while True:
            try:
                await store.read("a")
            except StoreError:
                await asyncio.sleep(0.2)
            else:
                return


@pytest.mark.vault
@pytest.mark.timeout(300)
async def test_a_vault_that_calls_every_token_dead_gets_few_logins(vault_server: VaultServer, tmp_path: Path) -> None:
    files = AppRoleFiles(*vault_server.write_credentials(tmp_path))
    loop, refused = asyncio.get_running_loop(), 0
    calls = count(200, 5_000)
    async with refusing_way_to(vault_server, AlwaysDead()) as (way, url):
        way.share = 0.0
        store = HashiCorpStore(VaultSettings(url, files))
        await store.read("a")
        began, before = loop.time(), way.logins
        way.share, way.was_login_refused = 1.0, True

        async def use() -> None:
            nonlocal refused
            for _ in range(calls // 8):
                way.was_login_refused = True  # logins are let through; what they give is called dead
                try:
                    await store.read("a")
                except (Denied, StoreError):
                    refused += 1

        await asyncio.gather(*(use() for _ in range(8)))
        logins, lasted = way.logins - before, loop.time() - began
        way.share = 0.0
        await first_login(store)
        await store.close()
    assert refused >= calls // 8 * 8
    assert logins <= _MOST_LOGINS_AT_ONCE + lasted / _SECONDS_PER_LOGIN + 1
    tried(15, "a Vault that calls every token dead", calls=refused, logins=logins)


class AlwaysDead(random.Random):
    """Always chooses the refusal that says a token is dead."""

    def choice(self, seq: object) -> str:  # type: ignore[override] # what it chooses from is known
        return WORDS[1]
