"""The contract against the code: every reason has its example and its law, every method is served."""

import importlib
import json
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import grpc
import keyswitch.router.v1
import keyswitch.vault.v1
import pytest
from keyswitch.router.v1 import error_reason_pb2 as router_reasons
from keyswitch.vault.v1 import error_reason_pb2 as vault_reasons

from router_service.core import faults as router_faults
from router_service.transport import server as router_server
from router_service.transport import status as router_status
from router_service.transport.application_servicer import ApplicationServicer
from router_service.transport.budget_servicer import BudgetServicer
from router_service.transport.catalog_servicers import ModelServicer
from router_service.transport.completion_servicer import CompletionServicer
from router_service.transport.configuration_servicer import ConfigurationServicer
from router_service.transport.credential_test_servicer import CredentialTestServicer
from router_service.transport.embedding_servicer import EmbeddingServicer
from router_service.transport.interceptors.identity import IdentityInterceptor
from router_service.transport.organization_servicer import OrganizationServicer
from router_service.transport.override_servicer import OverrideServicer
from router_service.transport.provider_servicer import ProviderServicer
from router_service.transport.routing_servicer import RoutingServicer
from router_service.transport.usage_servicer import UsageServicer
from vault_service.core import faults as vault_faults
from vault_service.transport import server as vault_server
from vault_service.transport.audit_servicer import AuditServicer
from vault_service.transport.credential_servicer import CredentialServicer
from vault_service.transport.lease_servicer import LeaseServicer
from vault_service.transport.token_servicer import TokenServicer

PROTOS = Path(__file__).resolve().parents[2] / "protos"
UNSPECIFIED = "ERROR_REASON_UNSPECIFIED"
PACKAGES = {
    "router": (router_reasons.ErrorReason, router_status.DOMAIN),
    "vault": (vault_reasons.ErrorReason, vault_faults.DOMAIN),
}
REASONS = [
    (package, name)
    for package, (reasons, _) in PACKAGES.items()
    for name in reasons.keys()  # noqa: SIM118 # a generated enum wrapper has keys() and no iteration over names
    if name != UNSPECIFIED
]

Servicer = TypeVar("Servicer")


def comments(package: str) -> Mapping[str, str]:
    """The comment before each value of a package's ErrorReason."""
    found: dict[str, str] = {}
    lines: list[str] = []
    for line in (PROTOS / "keyswitch" / package / "v1" / "error_reason.proto").read_text().splitlines():
        text = line.strip()
        value = re.match(r"(ERROR_REASON_\w+) = \d+;", text)
        if value:
            found[value[1]] = "\n".join(lines)
        lines = [*lines, text.removeprefix("//").strip()] if text.startswith("//") else []
    return found


def services(package: ModuleType) -> Mapping[str, frozenset[str]]:
    """The methods of each service that a package of the contract defines."""
    found: dict[str, frozenset[str]] = {}
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"{package.__name__}.{module.name}").DESCRIPTOR
            for service in file.services_by_name.values():
                found[service.full_name] = frozenset(service.methods_by_name)
    return found


class RecordingServer:
    """Looks to generated code like a server, and remembers the methods that do something."""

    def __init__(self) -> None:
        self.methods: dict[str, set[str]] = defaultdict(set)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """What generated code calls."""
        for method, handler in handlers.items():
            behaviour = handler.unary_unary or handler.unary_stream or handler.stream_stream
            if not behaviour.__func__.__module__.endswith("_pb2_grpc"):  # there every method is UNIMPLEMENTED
                self.methods[service].add(method)

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """The same again, for older servers."""


def blank(servicer: type[Servicer]) -> Servicer:
    """A servicer that can be registered and not called."""
    return servicer.__new__(servicer)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[RecordingServer]:
    """The servers that are made in the test."""
    made: list[RecordingServer] = []

    def make(**_: object) -> RecordingServer:
        made.append(RecordingServer())
        return made[-1]

    monkeypatch.setattr(grpc.aio, "server", make)
    return made


@pytest.mark.parametrize(("package", "name"), REASONS)
def test_a_reason_has_an_example_of_itself(package: str, name: str) -> None:
    comment = comments(package)[name]
    example = json.loads(comment[comment.index("{") :])
    assert set(example) == {"reason", "domain", "metadata"}
    assert (example["reason"], example["domain"]) == (name, PACKAGES[package][1])
    assert all(isinstance(value, str) for value in example["metadata"].values())
    assert all(re.fullmatch(r"[a-z][A-Za-z]*", key) for key in example["metadata"])


@pytest.mark.parametrize(("package", "name"), REASONS)
def test_the_comment_of_a_reason_names_the_status_that_is_sent(package: str, name: str) -> None:
    if package == "router":
        code = router_faults.LAWS[router_faults.Reason(name.removeprefix("ERROR_REASON_"))].code.name
    else:
        code = vault_faults.TABLE[vault_faults.Reason(name)].code.name
    said = re.search(r"Status\s+([A-Z_]+)", comments(package)[name])
    assert said is not None
    assert said[1] == code


def test_the_router_knows_the_reasons_of_the_contract() -> None:
    named = {f"ERROR_REASON_{reason.value}" for reason in router_faults.Reason}
    assert named == set(router_reasons.ErrorReason.keys()) - {UNSPECIFIED}
    assert set(router_faults.LAWS) == set(router_faults.Reason)


def test_the_credential_service_knows_the_reasons_of_the_contract() -> None:
    assert {reason.value for reason in vault_faults.Reason} == set(vault_reasons.ErrorReason.keys()) - {UNSPECIFIED}
    assert set(vault_faults.TABLE) == set(vault_faults.Reason)


def test_the_router_serves_every_method_of_its_services(recorded: list[RecordingServer]) -> None:
    servicers = router_server.Servicers(
        blank(CompletionServicer),
        blank(EmbeddingServicer),
        blank(CredentialTestServicer),
        blank(ModelServicer),
        blank(ProviderServicer),
        blank(UsageServicer),
        blank(BudgetServicer),
        blank(RoutingServicer),
        blank(ApplicationServicer),
        blank(OverrideServicer),
        blank(OrganizationServicer),
        blank(ConfigurationServicer),
    )
    router_server.build_server(
        servicers,
        blank(IdentityInterceptor),
        new_incident=str,
        most_request_bytes=1,
        most_transport_bytes=1,
        max_connection_age_seconds=1.0,
    )
    expected = services(keyswitch.router.v1)
    served = {name: frozenset(recorded[0].methods[name]) for name in expected}
    assert served == expected
    assert set(router_server.SERVICES) == set(expected)


def test_the_credential_service_serves_every_method_of_its_services(recorded: list[RecordingServer]) -> None:
    limits = vault_server.ListenerLimits(1, 1.0, 1.0)
    tokens = blank(TokenServicer)
    vault_server.make_management_listener([], blank(CredentialServicer), tokens, blank(AuditServicer), limits)
    vault_server.make_lease_listener([], blank(LeaseServicer), tokens, limits)
    expected = services(keyswitch.vault.v1)
    served = {name: frozenset(method for one in recorded for method in one.methods[name]) for name in expected}
    assert served == expected
