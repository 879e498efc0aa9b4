"""The store over a real Vault server that nobody has initialised. Vault itself says of it that it is sealed."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.fakes.vault_server import running_uninitialised
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.store import Uninitialised
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings


@pytest.mark.vault
async def test_a_server_that_was_never_initialised_says_so(vault_binary: str, tmp_path: Path) -> None:
    files = tmp_path / "role-id", tmp_path / "secret-id"
    for file in files:
        file.touch(mode=0o600)
        file.write_text("any")
    with running_uninitialised(vault_binary) as server:
        store = HashiCorpStore(VaultSettings(server.url, AppRoleFiles(*files)))
        calls: list[Callable[[], Awaitable[object]]] = [
            store.check,
            lambda: store.read("a"),
            lambda: store.write("a", b"x", expected_revision=0),
            lambda: store.unseal("deployment", b"vault:v1:AAAA", context="c"),
        ]
        for call in calls:
            with pytest.raises(Uninitialised):
                await call()
        await store.close()
