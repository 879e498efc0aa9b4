"""How chains are named."""

from pathlib import Path

from vault_service.audit.chain_name import keep_chain_name, keep_maintenance_name


def test_an_instance_and_maintenance_each_keep_a_name(tmp_path: Path) -> None:
    assert keep_maintenance_name(tmp_path, lambda: "1") == "maintenance-1"
    (tmp_path / "maintenance-1").mkdir()
    assert keep_chain_name(tmp_path, lambda: "vault-2") == "vault-2", "the other's chain is not gone on with"
    (tmp_path / "vault-2").mkdir()
    assert keep_maintenance_name(tmp_path, lambda: "3") == "maintenance-1"
    assert keep_chain_name(tmp_path, lambda: "vault-4") == "vault-2"


def test_a_chain_that_is_there_is_gone_on_with(tmp_path: Path) -> None:
    for name in ("maintenance", "vault-0"):
        (tmp_path / name).mkdir()
    assert keep_maintenance_name(tmp_path, lambda: "1") == "maintenance"
    assert keep_chain_name(tmp_path, lambda: "vault-1") == "vault-0"
