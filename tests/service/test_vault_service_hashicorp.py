"""The credential service over a real Vault server: the same way of a key, and the join of the two audit logs."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.fakes.relay import Relay
from tests.fakes.vault_server import VaultServer, free_port
from tests.service.vault_harness import ACME, ADA, KEY, MAIN, make_home, make_test_config, running_vault
from vault_service.app import serve
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings

pytestmark = pytest.mark.vault


async def test_every_request_to_vault_is_named_in_our_records(vault_server: VaultServer, tmp_path: Path) -> None:
    files = AppRoleFiles(*vault_server.write_credentials(tmp_path))
    store = HashiCorpStore(VaultSettings(vault_server.url, files, ca_file=vault_server.ca_file))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    async with running_vault(home, store=store) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        await vault.ready(admin)
        lease = await vault.take(f"{MAIN}/versions/active", ada.token)
        assert vault.router.open(lease).api_key == KEY
        records = [json.loads(line) for line in vault.audit_bytes().splitlines()]
    (outcome,) = [record for record in records if record["name"] == lease.audit_record]
    known = {
        record["request"]["id"]: record["request"] for record in vault_server.audit_records() if "request" in record
    }
    ids = outcome["vaultRequestIds"]
    assert any("decrypt" in known[one]["path"] for one in ids)
    assert all(one in known for one in ids)
    headers = {known[one]["headers"]["x-keyswitch-request-id"][0] for one in ids}
    assert len(headers) == 1, "all requests of one call carry the same id"
    assert KEY not in vault_server.audit_log.read_text(encoding="utf-8")


async def test_a_service_that_starts_before_its_vault_serves_once_it_is_there(
    vault_server: VaultServer, tmp_path: Path
) -> None:
    files = AppRoleFiles(*vault_server.write_credentials(tmp_path))
    start, _, target = vault_server.url.rpartition(":")
    relay, port = Relay(int(target)), free_port()
    store = HashiCorpStore(VaultSettings(f"{start}:{port}", files, ca_file=vault_server.ca_file))
    home = make_home(tmp_path / "home")
    service = await serve(make_test_config(home, chain="late", health_interval_seconds=0.02), store=store)
    was_serving = service.is_serving
    server = await asyncio.start_server(relay.accept, "127.0.0.1", port)
    try:
        async with asyncio.timeout(20):
            while not service.is_serving:
                await asyncio.sleep(0.02)
    finally:
        await service.stop(grace_seconds=0)
        server.close()
        relay.close()
    assert not was_serving
