"""A real OpenBao server for tests, set up as the Vault server is, in its root or in a namespace."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.vault_server import (
    REPOSITORY,
    VaultServer,
    find_binary,
    running_server,
    set_up_namespace,
)

BUILD_SCRIPT = REPOSITORY / "tests" / "tools" / "openbao" / "build"
SETTINGS = "unsafe_allow_api_audit_creation = true\n"
"""Where an operator writes the audit device into the server's own configuration, a test asks for it as Vault's does."""


@contextmanager
def running_openbao(binary: str, namespace: str = "") -> Iterator[VaultServer]:
    """Starts a server; what is asked of it is asked in the namespace, which may have others above it."""
    with running_server(binary, settings=SETTINGS) as root:
        server = root
        for part in namespace.split("/") if namespace else ():
            server.require("POST", f"sys/namespaces/{part}")
            server = dataclasses.replace(server, namespace=f"{server.namespace}/{part}".removeprefix("/"))
        if namespace:
            set_up_namespace(server)
        yield server


@pytest.fixture(scope="session")
def openbao_binary() -> str:
    """Skips where there is none: it comes as a package for one kind of machine."""
    try:
        return find_binary(script=BUILD_SCRIPT)
    except AssertionError as problem:
        pytest.skip(f"NOTHING WAS TESTED AGAINST OPENBAO: {problem}")
