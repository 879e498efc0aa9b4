"""Fixtures of the tests that run whole services or real servers."""

from tests.fakes.fault_proxy import fault_proxy
from tests.fakes.patient_disk import patient_disk
from tests.fakes.vault_server import own_vault_server, vault_binary, vault_server

__all__ = ["fault_proxy", "own_vault_server", "patient_disk", "vault_binary", "vault_server"]
