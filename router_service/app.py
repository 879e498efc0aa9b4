"""The one place that builds objects: a running router from its settings."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import grpc
import structlog
from aiohttp import web
from keyswitch.vault.v1 import token_service_pb2
from prometheus_client import CollectorRegistry

from router_service.admission import Admission
from router_service.catalog.catalog import Snapshot
from router_service.catalog.problems import ConfigurationError
from router_service.catalog.reload import Configuration
from router_service.config import MEMORY, Config
from router_service.core.database import Database
from router_service.core.faults import Fault
from router_service.core.refusal_limit import RefusalLimit
from router_service.credentials.certificate import Certificate, read_certificate
from router_service.credentials.client import Credentials, channel_credentials, open_channel
from router_service.credentials.links import Open
from router_service.credentials.recipient import Recipient
from router_service.edges import Edges
from router_service.engine import Engine
from router_service.external import Issuers, fetch_document, read_settings
from router_service.ledger.ledger import Ledger
from router_service.ledger.sql_ledger import open_ledger
from router_service.ledger_watch import LedgerWatch
from router_service.observe.allocator import give_back
from router_service.observe.metrics import Metrics
from router_service.patient_start import Opened, open_patiently
from router_service.prober import Prober
from router_service.state.documents import DocumentStore
from router_service.state.limits import Limits
from router_service.state.memory import MemoryLimits
from router_service.state.open_documents import open_documents
from router_service.state.shared import SharedLimits
from router_service.transport.application_servicer import ApplicationServicer
from router_service.transport.budget_servicer import BudgetServicer
from router_service.transport.catalog_servicers import ModelServicer
from router_service.transport.completion_servicer import CompletionServicer
from router_service.transport.configuration_servicer import ConfigurationServicer
from router_service.transport.credential_test_servicer import CredentialTestServicer
from router_service.transport.editor import Editor
from router_service.transport.embedding_servicer import EmbeddingServicer
from router_service.transport.handshakes import Shown, listener_credentials
from router_service.transport.http import serve_http
from router_service.transport.interceptors.certificates import Callers
from router_service.transport.interceptors.identity import IdentityInterceptor
from router_service.transport.interceptors.tokens import Verifier
from router_service.transport.model_options import Discovery
from router_service.transport.organization_servicer import OrganizationServicer
from router_service.transport.override_servicer import OverrideServicer
from router_service.transport.provider_servicer import ProviderServicer
from router_service.transport.routing_servicer import RoutingServicer
from router_service.transport.server import Health, Servicers, build_server
from router_service.transport.usage_servicer import UsageServicer
from router_service.upstream.aiohttp_client import AiohttpUpstream
from router_service.upstream.client import Upstream
from router_service.upstream.reset_times import ask_reset_seconds
from router_service.workloads import Workloads

STORE_POLL_SECONDS = 0.5
"""How often a router looks whether another one has stored a change."""

MEMORY_LOOK_SECONDS = 30.0
"""How often unused memory is given back to the system."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RunningRouter:
    """A router that listens. `stop` drains: health first, then what is in flight, then the rest."""

    config: Config
    configuration: Configuration
    documents: DocumentStore
    editor: Editor
    engine: Engine
    credentials: Credentials
    ledger: Ledger
    upstream: Upstream
    limits: Limits
    prober: Prober
    server: grpc.aio.Server
    health: Health
    port: int
    certificate_port: int
    http: web.AppRunner
    http_port: int
    certificate: Certificate
    workloads: Workloads
    refusal_limit: RefusalLimit
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    is_draining: bool = False
    is_configuration_away: bool = False

    def is_ready(self) -> bool:
        """Whether calls can be served."""
        return not self.is_draining and self.credentials.is_fresh

    async def follow(self) -> None:
        """Keeps what health says true, and the configuration as new as its file."""
        self._tasks.append(asyncio.create_task(self._follow_health()))
        watch = LedgerWatch(self.ledger, self.engine.edges.metrics)
        self._tasks.append(asyncio.create_task(watch.run(self.config.ledger_sweep_seconds)))
        admission = self.engine.edges.admission
        for work in (admission.board.follow, admission.slots.follow, self.prober.follow):
            self._tasks.append(asyncio.create_task(work(asyncio.sleep)))
        if self.config.reload_interval_seconds > 0:
            self._tasks.append(asyncio.create_task(self._follow_configuration()))
            self._tasks.append(asyncio.create_task(self._follow_certificate()))
        self._tasks.append(asyncio.create_task(self._follow_documents()))
        self._tasks.append(asyncio.create_task(_follow_memory()))

    async def _follow_health(self) -> None:
        was_serving: bool | None = None
        while True:
            is_serving = self.is_ready()
            if is_serving is not was_serving:
                await self.health.set(is_serving=is_serving)
                was_serving = is_serving
            await asyncio.sleep(0.1)

    async def _follow_configuration(self) -> None:
        while True:
            await asyncio.sleep(self.config.reload_interval_seconds)
            self.reload()

    async def _follow_certificate(self) -> None:
        while True:
            await asyncio.sleep(self.config.reload_interval_seconds)
            await self.renew_certificate()

    async def renew_certificate(self) -> bool:
        """Goes over to the certificate in the files, towards the credential service; one that does not do is logged."""
        try:
            found = _read_certificate(self.config)
            if found == self.certificate:
                return False
            await self.credentials.renew(*_ways(self.config, found), self.config.drain_seconds)
        except (OSError, ValueError, Fault) as error:
            log.warning("certificate_not_replaced", error_type=type(error).__name__)
            return False
        self.certificate = found
        log.info("certificate_replaced")
        return True

    async def _follow_documents(self) -> None:
        while True:
            await asyncio.sleep(STORE_POLL_SECONDS)
            await self.look_at_documents()

    async def look_at_documents(self) -> None:
        """Takes what other routers have stored; while the store is away, the last configuration stays in force."""
        before, was_away = self.configuration.left_out, self.is_configuration_away
        try:
            if await self.editor.refresh():
                log.info("configuration_reloaded", revision=self.configuration.current.revision)
            self.is_configuration_away = False
        except (Fault, ConfigurationError):
            self.is_configuration_away = True
        self.engine.edges.metrics.configuration_away(is_away=self.is_configuration_away)
        if self.is_configuration_away is not was_away:
            event = "configuration_store_away" if self.is_configuration_away else "configuration_store_back"
            log.warning(event, kept=self.configuration.current.revision)
        if self.configuration.left_out != before:
            _tell_left_out(self.configuration)

    def reload(self) -> None:
        """Takes the configuration file as it is now; a broken one leaves the last good one in force."""
        before = self.configuration.problems
        if self.configuration.reload():
            log.info("configuration_reloaded", revision=self.configuration.current.revision)
        elif self.configuration.problems and self.configuration.problems != before:
            problems = [str(problem) for problem in self.configuration.problems[:10]]
            log.error("configuration_broken", problems=problems, kept=self.configuration.current.revision)

    async def stop(self) -> None:
        """Ends in order. Calls in flight have `drain_seconds` to end by themselves."""
        self.is_draining = True
        await self.health.set(is_serving=False)
        await self.server.stop(self.config.drain_seconds)
        for task in self._tasks:
            await _end(task)
        await self.engine.afterwork.close()
        await self.engine.edges.admission.close()
        await self.credentials.stop()
        await self.upstream.close()
        await self.ledger.close()
        await self.documents.close()
        await self.http.cleanup()


async def serve(
    config: Config,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    upstream: Upstream | None = None,
) -> RunningRouter:
    """Starts a router; it listens when this returns. Raises ConfigurationError, OSError and RuntimeError."""
    configuration = Configuration(config.configuration)
    certificate = _demand_certificate(config)
    ledger, documents = await _open_databases(config, clock, monotonic)
    editor = Editor(configuration, documents)
    await editor.refresh()
    _tell_left_out(configuration)
    registry = CollectorRegistry()
    ways, recipient = _ways(config, certificate)

    def snapshot() -> Snapshot:
        return configuration.current

    async def fetch_keys() -> token_service_pb2.GetSigningKeysResponse:
        return await credentials.signing_keys()

    issuers = Issuers(read_settings(config.issuers_file), clock, fetch_document)
    workloads = Workloads(config.workloads_file, clock, lambda: log.warning("workloads_not_replaced"))
    verifier = Verifier(lambda: snapshot().deployment, fetch_keys, clock, issuers)
    credentials = Credentials(
        ways,
        recipient,
        clock=clock,
        monotonic=monotonic,
        disconnect_grace_seconds=config.disconnect_grace_seconds,
        call_seconds=config.lease_timeout_seconds,
        on_token_revoked=verifier.revoke,
    )
    upstream = upstream or AiohttpUpstream(own_listeners=_own_listeners(config))
    spread = secrets.SystemRandom().random
    metrics = Metrics(registry)
    limits = _open_limits(config, monotonic, metrics)
    admission = Admission(limits, metrics, clock, partial(ask_reset_seconds, upstream))
    prober = Prober(admission.board, limits, upstream, snapshot, monotonic)
    engine = Engine(
        Edges(
            credentials,
            ledger,
            upstream,
            metrics,
            admission,
            clock,
            asyncio.sleep,
            spread,
            is_recorded_first=config.ledger_away == "refuse",
        )
    )
    servicers = Servicers(
        CompletionServicer(engine, snapshot, _new_id),
        EmbeddingServicer(engine, snapshot, _new_id),
        CredentialTestServicer(snapshot, credentials, upstream, clock=clock, new_id=_new_id),
        ModelServicer(
            snapshot,
            editor,
            credentials,
            clock,
            Discovery(snapshot, credentials, upstream, clock=clock, new_id=_new_id),
        ),
        ProviderServicer(snapshot, editor, prober.probe),
        UsageServicer(engine, ledger),
        BudgetServicer(ledger, snapshot, clock, _new_id),
        RoutingServicer(snapshot, credentials, clock, spread, lambda: admission.board.current),
        ApplicationServicer(snapshot, editor, credentials),
        OverrideServicer(snapshot, editor),
        OrganizationServicer(snapshot, editor, credentials),
        ConfigurationServicer(snapshot, editor),
    )
    refusal_limit = RefusalLimit(monotonic)
    server, health = build_server(
        servicers,
        IdentityInterceptor(Callers(verifier, workloads), credentials.refusals, refusal_limit),
        new_incident=_new_id,
        most_request_bytes=config.max_message_bytes,
        most_transport_bytes=config.max_transport_message_bytes,
        max_connection_age_seconds=config.max_connection_age_seconds,
    )
    port = server.add_secure_port(str(config.listen), _server_credentials(config, None))
    certificate_port = 0
    if config.certificate_listen is not None:
        secured = _server_credentials(config, lambda: workloads.bundle)
        certificate_port = server.add_secure_port(str(config.certificate_listen), secured)
    running: RunningRouter | None = None
    http, http_port = await serve_http(
        config.http_listen.host,
        config.http_listen.port,
        registry,
        lambda: running is not None and running.is_ready(),
        lambda: _find_away(running, limits),
    )
    credentials.start()
    await server.start()
    running = RunningRouter(
        config,
        configuration,
        documents,
        editor,
        engine,
        credentials,
        ledger,
        upstream,
        limits,
        prober,
        server,
        health,
        port,
        certificate_port,
        http,
        http_port,
        certificate,
        workloads,
        refusal_limit,
    )
    await running.follow()
    log.info("listening", grpc=port, http=http_port, revision=configuration.current.revision)
    return running


async def _follow_memory() -> None:
    while True:
        await asyncio.sleep(MEMORY_LOOK_SECONDS)
        await asyncio.to_thread(give_back)


async def _open_databases(
    config: Config, clock: Callable[[], float], monotonic: Callable[[], float]
) -> tuple[Ledger, DocumentStore]:
    """The ledger and the store of the configuration; PostgreSQL may still be starting."""

    async def keep_trying(opens: Callable[[], Awaitable[Opened]], database: Database) -> Opened:
        return await open_patiently(opens, database, config.database_wait_seconds, monotonic, asyncio.sleep)

    ledger = await keep_trying(partial(open_ledger, config.database, clock, outbox=config.outbox), config.database)
    try:
        documents = await keep_trying(partial(open_documents, config.configuration_store), config.configuration_store)
    except BaseException:  # also a start that is given up: the ledger's file and threads are let go of
        await ledger.close()
        raise
    return ledger, documents


async def _end(task: asyncio.Task[None]) -> None:
    """Cancels it until it is over: a library may lose a cancel."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        log.error("task_failed", error_type=type(failure).__name__)


def _tell_left_out(configuration: Configuration) -> None:
    for problem in configuration.left_out:
        log.error("stored_document_left_out", problem=str(problem))


def _find_away(running: RunningRouter | None, limits: Limits) -> list[str]:
    """The stores that are out of reach, for people."""
    states = (
        ("the ledger", running is not None and not running.ledger.is_available),
        ("limits", isinstance(limits, SharedLimits) and limits.is_away),
        ("the configuration", running is not None and running.is_configuration_away),
    )
    return [name for name, is_away in states if is_away]


def _open_limits(config: Config, monotonic: Callable[[], float], metrics: Metrics) -> Limits:
    if config.limits == MEMORY:
        return MemoryLimits(monotonic)
    from router_service.state.redis_store import RedisLimits  # its client is an eighth of what a start imports

    store = RedisLimits(config.limits)
    return SharedLimits(store, config.limits_when_away, config.routers, monotonic, metrics.limits_away)


def _read_certificate(config: Config) -> Certificate:
    return read_certificate(config.authority, config.certificate, config.private_key)


def _demand_certificate(config: Config) -> Certificate:
    """The one to start with. Raises RuntimeError, which says what to mend."""
    try:
        return _read_certificate(config)
    except FileNotFoundError as error:
        made = f"python -m vault_service.devca --home {config.home}"
        text = f"{error.filename} is missing; name yours with KEYSWITCH_TLS_*, or for development `{made}` makes it"
    except (OSError, ValueError):
        text = (
            f"{config.certificate} and {config.private_key} are no readable pair, or {config.authority} is no "
            "certificate; look at KEYSWITCH_TLS_*"
        )
    raise RuntimeError(text)


def _ways(config: Config, certificate: Certificate) -> tuple[list[Open], Recipient]:
    secured = channel_credentials(certificate.authority, certificate.chain, certificate.key)
    ways: list[Open] = [partial(open_channel, str(target), secured) for target in config.lease_targets]
    return ways, Recipient(certificate.chain, certificate.key)


def _server_credentials(config: Config, clients: Callable[[], bytes] | None) -> grpc.ServerCredentials:
    """The listener's certificate, read anew for new connections; files that do not load leave the last good one.

    `clients` gives the authorities of those who must show a certificate; None asks nobody for one.
    """

    good = _read_certificate(config)

    def read() -> Shown:
        nonlocal good
        try:
            good = _read_certificate(config)
        except (OSError, ValueError):
            log.warning("certificate_not_replaced")
        return Shown(good.chain, good.key, None if clients is None else clients())

    return listener_credentials(read)


def _new_id() -> str:
    return secrets.token_hex(16)  # no id begins with a dash, which command lines would take for an option


def _own_listeners(config: Config) -> list[tuple[str, int]]:
    listeners = [config.listen, config.certificate_listen, config.http_listen, *config.lease_targets]
    return [(address.host, address.port) for address in listeners if address is not None]
