"""What holds for the store over Vault, over a real OpenBao server as well: in its root, and in a nested namespace.

The tests are those of Vault. Left out are what Vault alone has: see docs/operating.md.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.openbao_server import openbao_binary, running_openbao
from tests.fakes.vault_server import VaultServer
from tests.service.test_hashicorp_rights import (
    test_each_right_of_the_policy_is_needed,
    test_maintenance_has_no_other_right,
    test_makes_the_signing_key_under_its_own_policy,
    test_the_policy_gives_no_other_right,
)
from tests.service.test_hashicorp_store import (
    TestHashiCorpKeyMaintenance,
    TestHashiCorpStore,
    new_store,
    test_a_missing_mount_is_not_an_empty_one,
    test_a_revoked_token_is_replaced_unseen,
    test_a_sealed_server_is_sealed_and_comes_back,
    test_a_server_that_cannot_audit_is_unavailable,
    test_a_stopped_server_is_unavailable,
    test_a_token_from_a_file_is_read_anew,
    test_a_write_without_compare_and_set_is_refused,
    test_a_wrong_secret_id_is_denied_and_not_tried_in_a_row,
    test_check_refuses_a_mount_that_keeps_history,
    test_closing_revokes_the_token,
    test_short_lived_tokens_serve_without_a_gap,
)

__all__ = [
    "TestHashiCorpKeyMaintenance",
    "TestHashiCorpStore",
    "openbao_binary",
    "test_a_missing_mount_is_not_an_empty_one",
    "test_a_revoked_token_is_replaced_unseen",
    "test_a_sealed_server_is_sealed_and_comes_back",
    "test_a_server_that_cannot_audit_is_unavailable",
    "test_a_stopped_server_is_unavailable",
    "test_a_token_from_a_file_is_read_anew",
    "test_a_write_without_compare_and_set_is_refused",
    "test_a_wrong_secret_id_is_denied_and_not_tried_in_a_row",
    "test_check_refuses_a_mount_that_keeps_history",
    "test_closing_revokes_the_token",
    "test_each_right_of_the_policy_is_needed",
    "test_maintenance_has_no_other_right",
    "test_makes_the_signing_key_under_its_own_policy",
    "test_short_lived_tokens_serve_without_a_gap",
    "test_the_policy_gives_no_other_right",
]

PLACES = ["", "team/part"]


@pytest.fixture(scope="module", params=PLACES, ids=["root", "namespace"])
def vault_server(request: pytest.FixtureRequest, openbao_binary: str) -> Iterator[VaultServer]:
    with running_openbao(openbao_binary, request.param) as server:
        yield server


@pytest.fixture
def own_vault_server(openbao_binary: str) -> Iterator[VaultServer]:
    """To seal and stop: what only the root may ask for."""
    with running_openbao(openbao_binary) as server:
        yield server


async def test_namespaces_are_apart(openbao_binary: str, tmp_path: Path) -> None:
    """A token of one namespace opens nothing in another, under the same paths."""
    with running_openbao(openbao_binary, "team") as server:
        store = new_store(server, tmp_path)
        try:
            await store.write("organizations/acme/a", b"x", expected_revision=0)
            token = store._keeper._token
            here = server.ask("GET", "keyswitch/data/organizations/acme/a", token=token)
            assert here.status_code == 200
            root = VaultServer(server.url, server.root_token, server.folder, None, server.process)
            assert root.ask("GET", "keyswitch/data/organizations/acme/a", token=token).status_code == 403
            assert root.ask("GET", "keyswitch/data/organizations/acme/a").status_code == 404, "the operator sees none"
        finally:
            await store.close()
