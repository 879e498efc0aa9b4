"""An exception at any await point of any method: INTERNAL with an incident's id to the caller, no text in any log."""

import asyncio
import gc
import io
import logging
import secrets
import uuid
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from router_service.observe import logs as router_logs
from router_service.transport.interceptors.faults import FaultsInterceptor as RouterFaults
from tests.security.canary import Canary
from tests.security.canary_calls import METHODS, Outcome, find_method
from tests.security.canary_requests import Step
from tests.security.in_process import renamed, running_in_process
from tests.security.promises import count, tried
from vault_service.observe import logs as vault_logs
from vault_service.transport.interceptors.faults import FaultsInterceptor as VaultFaults

MOST_POINTS = 1_000
LOOPS = {"ExportAuditRecords": 30}  # as many await points as records: so many of them are tried
UUID_CHARACTERS = 36
QUICK_POINTS = 8  # `make security` tries all
MAKES = {  # what is made anew for each attempt, as an attempt that fails late has made it already
    "CreateCredential": ("spare", "credential_id"),
    "CreateApplication": ("extra", "application_id"),
    "CreateProvider": ("lab", "provider_id"),
    "CreateBudget": ("cap", "budget_id"),
    "CreateOrganization": ("newcomer", "organization_id"),
    "CreateModelEntry": ("lab/x", "model"),
}
UNMAKES = {
    "DeleteCredential": ("CreateCredential",),
    "DeleteApplication": ("CreateApplication",),
    "DeleteProvider": ("CreateProvider",),
    "DeleteBudget": ("CreateBudget",),
    "DeleteOrganization": ("CreateOrganization",),
    "DeleteModelEntry": ("CreateModelEntry",),
    "ClearOverride": ("SetOverride",),
    "DestroyCredentialVersion": ("CreateCredential", "AddCredentialVersion"),
    "DisableCredentialVersion": ("CreateCredential", "AddCredentialVersion", "ActivateCredentialVersion"),
}
LEFT = "call that its caller has left with what it wanted"
GOES_ON: dict[str, str] = {}
"""Methods that answer although a part of their work failed, each with the reason why they may."""


@dataclass
class Probe:
    """Throws once, at the await point of this number, in whichever task of the call comes there."""

    at: int
    error: Exception
    points: int = 0
    is_over: bool = False
    thrown: list[str] = field(default_factory=list)

    def is_now(self, coroutine: Any) -> bool:
        """Counts an await point; whether it is the one. What grpc itself waits for it has handed on already."""
        if self.is_over or self.thrown or _waits_in_grpc(coroutine):
            return False
        self.points += 1
        return self.points == self.at + 1


def _waits_in_grpc(coroutine: Any) -> bool:
    while coroutine is not None:
        if type(coroutine).__module__.startswith("_cython"):
            return True
        coroutine = getattr(coroutine, "cr_await", None)
    return False


_PROBE: ContextVar[Probe | None] = ContextVar("probe", default=None)


class Driven(Coroutine[Any, Any, Any]):
    """Runs a coroutine step by step; where it waits, the probe may throw instead."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], probe: Probe, place: str) -> None:
        self._coroutine = coroutine
        self._probe = probe
        self._place = place

    def send(self, value: Any) -> Any:
        return self._pass(self._coroutine.send(value))

    def throw(self, *error: Any) -> Any:
        return self._pass(self._coroutine.throw(*error))

    def close(self) -> None:
        self._coroutine.close()

    def _pass(self, waited: Any) -> Any:
        if not self._probe.is_now(self._coroutine):
            return waited
        self._probe.thrown.append(self._place)
        return self._coroutine.throw(self._probe.error)

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            waited = self.send(None)
            while True:
                try:
                    value = yield waited
                except BaseException as error:  # noqa: BLE001 # handed on to whom it is for
                    waited = self.throw(error)
                else:
                    waited = self.send(value)
        except StopIteration as stop:
            return stop.value
        finally:
            self.close()


def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, context: Any = None) -> asyncio.Task[Any]:
    """What a call starts beside itself is probed with it."""
    probe = _PROBE.get()
    if probe is not None and not probe.is_over and asyncio.iscoroutine(coroutine):
        coroutine = Driven(coroutine, probe, "task")
    return asyncio.Task(coroutine, loop=loop, context=context)


@dataclass
class Instrument:
    """The probe of the call that comes next, if it is of this method."""

    method: str = ""
    probe: Probe | None = None

    def around(self, behaviour: Any, method: str = "") -> Any:
        """A behaviour that is probed when it is its turn. A router's wrapper does not know its method's name."""

        async def run(request: Any, context: Any) -> Any:
            probe = self.probe
            if probe is None or (method and method != f"/{self.method}"):
                return await behaviour(request, context)
            self.probe = None
            _PROBE.set(probe)
            return await Driven(behaviour(request, context), probe, "call")

        return run


@pytest.fixture
def instrument(monkeypatch: pytest.MonkeyPatch) -> Instrument:
    made = Instrument()
    vault_around: Callable[..., Any] = VaultFaults.around
    router_guarded: Callable[..., Any] = RouterFaults._guarded
    monkeypatch.setattr(
        VaultFaults,
        "around",
        lambda self, method, behaviour: vault_around(self, method, made.around(behaviour, method)),
    )
    monkeypatch.setattr(RouterFaults, "_guarded", lambda self, behaviour: router_guarded(self, made.around(behaviour)))
    return made


@pytest.fixture
async def probed_tasks() -> Any:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(make_task)
    yield
    loop.set_task_factory(before)


@pytest.fixture
def logged(service: str) -> Iterator[io.StringIO]:
    """Everything that a process of the service would have logged, by its own set-up."""
    stream = io.StringIO()
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    if service == "vault":
        vault_logs.configure_logs(stream, logging.DEBUG)
    else:
        router_logs.set_up("debug", stream)
    structlog.configure(cache_logger_on_first_use=False)
    yield stream
    root.handlers[:], root.level = handlers, level
    structlog.configure(**config)


def fresh(step: Step, number: int) -> Step:
    """The same request for something that no earlier attempt has made or used."""
    request = step.request
    if step.method in MAKES:
        name, field_name = MAKES[step.method]
        request = renamed(request, {})
        setattr(request, field_name, f"{name}{number}")
    else:
        request = renamed(request, {})
    holder: Any
    for holder in (request, getattr(request, "call", None)):
        is_uuid = len(getattr(holder, "request_id", "")) == UUID_CHARACTERS
        if is_uuid and step.method != "GetReceipt":
            holder.request_id = str(uuid.uuid4())
    return replace(step, request=request)


@pytest.mark.parametrize("service", ["vault", "router"])
@pytest.mark.timeout(600)
async def test_an_exception_at_every_await_point(
    tmp_path: Path, service: str, instrument: Instrument, probed_tasks: None, logged: io.StringIO
) -> None:
    text = f"sk-canary-{secrets.token_hex(24)}"
    canary = Canary("the exception's text", text, (text.removeprefix("sk-canary-"),))
    outcomes: dict[str, list[tuple[str, Outcome]]] = {}
    async with running_in_process(tmp_path) as both:
        both.watched.scanner.add(canary)
        steps = await both.steps()
        by_method = {step.method: step for step in steps}
        for step in steps:
            full = find_method(step.method)
            await both.run(step)
            if not full.startswith(f"keyswitch.{service}."):
                continue
            found = outcomes.setdefault(full, [])
            most = min(LOOPS.get(step.method, MOST_POINTS), count(QUICK_POINTS, MOST_POINTS))
            for number in range(most):
                for made in UNMAKES.get(step.method, ()):
                    await both.run(by_method[made])
                probe = Probe(number, RuntimeError(text))
                instrument.method, instrument.probe = full, probe
                outcome = await both.run(fresh(step, number))
                probe.is_over = True
                if not probe.thrown:
                    break
                is_left = outcome.code is grpc.StatusCode.CANCELLED and len(outcome.answers) == step.most_answers
                found.append((probe.thrown[0] if not is_left else LEFT, outcome))
            assert len(found) < MOST_POINTS, f"{full} has more await points than are tried"
            for made in UNMAKES.get(step.method, ()):
                await both.run(by_method[made])
            if step.method.startswith("Delete"):
                await both.run(step)
        gc.collect()  # exceptions of tasks that nobody waited for are logged then
        hits = both.watched.scanner.hits
    assert not hits, "\n".join(map(str, hits))
    assert canary.core[0][:12] not in logged.getvalue()
    assert "incident" in logged.getvalue()
    check(outcomes, service)


def check(outcomes: dict[str, list[tuple[str, Outcome]]], service: str) -> None:
    """What is thrown in the call itself is INTERNAL; what is thrown beside it at least no text of its own."""
    methods = {name for name in METHODS if name.startswith(f"keyswitch.{service}.")}
    assert set(outcomes) == methods
    wrong = [
        f"{name}, point {number} in the {place}: {outcome.code} {outcome.reason}"
        for name, found in outcomes.items()
        for number, (place, outcome) in enumerate(found)
        if place == "call" and outcome.reason != "INTERNAL" and name.rpartition("/")[2] not in GOES_ON
    ]
    assert not wrong, "\n".join(wrong)
    points = [place for found in outcomes.values() for place, _ in found]
    internal = sum(outcome.reason == "INTERNAL" for found in outcomes.values() for _, outcome in found)
    tried(
        2,
        f"an exception with a canary at each await point of the {service} service",
        methods=sum(bool(found) for found in outcomes.values()),
        await_points=len(points),
        in_tasks_of_the_call=points.count("task"),
        answered_internal=internal,
    )
