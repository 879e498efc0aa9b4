"""Prints the report of the promises after the tests of this folder."""

import pytest

from tests.fakes.fault_proxy import fault_proxy
from tests.fakes.patient_disk import patient_disk
from tests.fakes.vault_server import own_vault_server, vault_binary, vault_server
from tests.security.promises import report

__all__ = ["fault_proxy", "own_vault_server", "patient_disk", "vault_binary", "vault_server"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A hook of pytest."""
    lines = list(report())
    if lines:
        terminalreporter.write_sep("=", "promises: what was tried and found")
        for line in lines:
            terminalreporter.write_line(line)
