"""The credential service over a real Vault server: the same way of a key, and the join of the two audit logs."""

import json
from pathlib import Path

import pytest

from tests.fakes.vault_server import VaultServer
from tests.service.vault_harness import ACME, ADA, KEY, MAIN, running_vault
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
