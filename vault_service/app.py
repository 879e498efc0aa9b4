"""Builds the service and runs it. The only module that makes objects of the others."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.chain import ChainBroken
from vault_service.audit.notary import Notary
from vault_service.audit.recorder import SERVICE, Recorder
from vault_service.audit.refusals import Refusals
from vault_service.audit.retention import Retention
from vault_service.audit.sink import Files, Sink
from vault_service.bootstrap import issue_operator_token, take_fixed_credentials
from vault_service.config import Config
from vault_service.core.changes import ChangeLog
from vault_service.core.credentials import Credentials
from vault_service.core.denials import Denials
from vault_service.core.faults import Fault
from vault_service.core.fixed import FixedCredentials, OtherwiseStored
from vault_service.core.issuance import Issuance
from vault_service.core.leases import LastUses, Leases
from vault_service.core.policies import Policies
from vault_service.core.recollection import ForgettingStore, RecollectingStore, Recollection
from vault_service.core.refusal_limit import RefusalLimit
from vault_service.core.tokens import Verifier
from vault_service.external import Issuers, fetch_document
from vault_service.external_callers import make_reader
from vault_service.leasing import LeasePolicy, Leasing
from vault_service.minting.egress import Egress
from vault_service.minting.endpoints import TokenEndpoints
from vault_service.minting.minter import Minter
from vault_service.observe.complaints import Complaints
from vault_service.observe.metrics import Metrics
from vault_service.prerequisites import (
    CannotStart,
    open_sink,
    open_store,
    read_certificates,
    read_issuers,
    read_workloads,
)
from vault_service.store.store import Purpose, Store, StoreError
from vault_service.transport.audit_servicer import AuditServicer
from vault_service.transport.credential_servicer import CredentialServicer
from vault_service.transport.http import HttpServer
from vault_service.transport.interceptors.completion import CompletionInterceptor
from vault_service.transport.interceptors.deadline import DeadlineInterceptor
from vault_service.transport.interceptors.faults import FaultsInterceptor
from vault_service.transport.interceptors.identity import CallerIdentityInterceptor, CertificateIdentityInterceptor
from vault_service.transport.interceptors.records import RecordsInterceptor
from vault_service.transport.interceptors.size import SizeInterceptor
from vault_service.transport.lease_servicer import LeaseServicer
from vault_service.transport.server import Listener, ListenerLimits, make_lease_listener, make_management_listener
from vault_service.transport.tls import Certificates, ReadAuthorities
from vault_service.transport.token_servicer import TokenServicer
from vault_service.workloads import Workloads

_log = structlog.stdlib.get_logger("vault_service.app")
_STORE_CHECK_SECONDS, _BOOTSTRAP_SECONDS, _LAST_SIGNATURE_SECONDS = 1.0, 10.0, 2.0

Clock = Callable[[], float]


def make_lease_id() -> str:
    """Gives 128 random bits in base64url: 22 characters."""
    return secrets.token_urlsafe(16)


@dataclass(slots=True)
class _Parts:
    """What the running service consists of."""

    config: Config
    store: Store
    sink: Sink
    recorder: Recorder
    changes: ChangeLog
    denials: Denials
    notary: Notary
    refusals: Refusals
    minter: Minter
    issuance: Issuance
    fixed: FixedCredentials
    metrics: Metrics
    completion: CompletionInterceptor
    workloads: Workloads
    management: Listener
    lease: Listener
    clock: Clock


class RunningService:
    """A service whose ports are bound. `stop` drains it; it is to be awaited exactly as `serve` was."""

    def __init__(self, parts: _Parts, *, management_port: int, lease_port: int, certificate_port: int) -> None:
        self._parts = parts
        self.management_port = management_port
        self.lease_port = lease_port
        self.certificate_port = certificate_port  # 0 where callers come with tokens only
        self.is_serving = False
        self.http = HttpServer(parts.metrics, lambda: self.is_serving)
        self._is_bootstrapped = False
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._complaints = Complaints(_log.warning, clock=parts.clock)

    @property
    def config(self) -> Config:
        """What it runs with."""
        return self._parts.config

    @property
    def http_port(self) -> int:
        """The port of probes and metrics; 0 where none is served."""
        return self.http.port

    async def start(self) -> None:
        """Lets callers in."""
        parts = self._parts
        await self._check()
        await parts.management.server.start()
        await parts.lease.server.start()
        if parts.config.http_address:
            await self.http.start(*_host_and_port(parts.config.http_address))
        self._tasks = [
            asyncio.create_task(self._watch_health()),
            asyncio.create_task(
                parts.changes.poll(
                    parts.config.leases.change_poll_seconds,
                    lambda error: self._complaints.note("change_log_not_read", error),
                    lambda: self._complaints.forget("change_log_not_read"),
                )
            ),
            asyncio.create_task(parts.denials.run(parts.config.denial_retry_seconds, _log_dropped_denial)),
            asyncio.create_task(parts.refusals.run(_log_uncounted)),
            asyncio.create_task(parts.notary.run(parts.config.audit.checkpoint_seconds, _log_unsigned)),
        ]
        if parts.config.audit.retention_seconds is not None:
            retention = Retention(
                parts.sink,
                parts.recorder,
                parts.notary,
                keep_seconds=parts.config.audit.retention_seconds,
                clock=parts.clock,
            )
            self._tasks.append(asyncio.create_task(retention.run(_log_retention_error)))

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Says NOT_SERVING, lets calls end within the grace, writes the last record, lets go of everything."""
        if self._is_stopping:
            return
        self._is_stopping = True
        parts = self._parts
        grace = parts.config.drain_seconds if grace_seconds is None else grace_seconds
        await self._set_serving(False)
        await parts.changes.close()
        parts.sink.drain()
        await asyncio.gather(parts.management.server.stop(grace), parts.lease.server.stop(grace))
        await parts.completion.wait(grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await parts.minter.close()
        if parts.denials.names:
            _log.critical("local_revocations_lost", names=parts.denials.names)
        await self.http.stop()
        with contextlib.suppress(Fault):
            await parts.refusals.flush()
            await parts.recorder.note(SERVICE, audit_pb2.AUDIT_ACTION_STOP, f"chains/{parts.sink.chain}")
        await self._sign_last()
        await parts.sink.close()
        await parts.store.close()

    async def _sign_last(self) -> None:
        try:
            async with asyncio.timeout(_LAST_SIGNATURE_SECONDS):
                await self._parts.notary.sign()
        except (StoreError, OSError, ValueError, TimeoutError) as error:
            _log_unsigned(error)

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(self._parts.config.health_interval_seconds)
            try:
                await self._check()
            except Exception as error:  # noqa: BLE001 - a check that died would leave the last word standing
                _log.error("health_check_failed", error_type=type(error).__name__)
                await self._set_serving(False)

    async def _check(self) -> None:
        parts = self._parts
        is_store_ready = await self._is_store_ready()
        await self._set_serving(is_store_ready and parts.sink.closed_cause is None and not self._is_stopping)

    async def _is_store_ready(self) -> bool:
        parts = self._parts
        try:
            async with asyncio.timeout(_STORE_CHECK_SECONDS):
                await parts.store.check()
            if not self._is_bootstrapped:
                async with asyncio.timeout(_BOOTSTRAP_SECONDS):
                    await self._bootstrap()
        except (StoreError, Fault, TimeoutError) as error:
            self._complaints.note("store_not_ready", error)
            return False
        self._complaints.forget("store_not_ready")
        return True

    async def _bootstrap(self) -> None:
        parts = self._parts
        try:
            await parts.notary.check_witness()
        except ChainBroken as broken:
            parts.sink.refuse("witnessed")
            _log.critical("audit_chain_broken", problem=str(broken))
        if parts.config.audit.rotate_key:
            await parts.store.rotate_signing_key(purpose=Purpose.AUDIT)
        await parts.changes.refresh()
        was_issued = await issue_operator_token(
            parts.store,
            parts.issuance,
            parts.recorder,
            parts.config.operator_token_file,
            lifetime_seconds=parts.config.operator_token_seconds,
            reissue=parts.config.reissue_operator_token,
            clock=parts.clock,
        )
        try:
            await take_fixed_credentials(parts.fixed, parts.recorder)
        except OtherwiseStored as error:
            _log.critical("fixed_credential_not_taken", problem=str(error))
            raise CannotStart(str(error)) from None
        self._is_bootstrapped = True
        if was_issued:
            _log.info("operator_token_written", file=str(parts.config.operator_token_file))

    async def _set_serving(self, is_serving: bool) -> None:
        parts = self._parts
        if is_serving != self.is_serving:
            _log.info("serving" if is_serving else "not_serving", audit_cause=parts.sink.closed_cause)
        self.is_serving = is_serving
        await parts.management.health.set_serving(is_serving)
        await parts.lease.health.set_serving(is_serving)
        parts.metrics.set_state(
            is_serving=is_serving, revision=parts.changes.revision, audit_record=parts.sink.position.number
        )


async def serve(
    config: Config,
    *,
    store: Store | None = None,
    clock: Clock = time.time,
    monotonic: Clock = time.monotonic,
    files: Files | None = None,
    new_id: Callable[[], str] = make_lease_id,
) -> RunningService:
    """Starts a service and gives it when its ports are bound. A port 0 in the configuration is chosen by the system.

    A store that is given is closed with the service, like one that was made here.
    """
    config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificates = read_certificates(config)
    opened = store or await open_store(config)
    sink: Sink | None = None
    running: RunningService | None = None
    try:
        sink = open_sink(config, clock=clock, files=files)
        parts = _build(config, opened, sink, certificates, clock=clock, monotonic=monotonic, new_id=new_id)
        await _check_chain(parts.notary)
        cut = f"an incomplete last line of {sink.cut_bytes} bytes was cut" if sink.cut_bytes else ""
        await parts.recorder.note(SERVICE, audit_pb2.AUDIT_ACTION_START, f"chains/{sink.chain}", note=cut)
        running = RunningService(
            parts,
            management_port=_bind(parts.management, config.management_address, certificates, None),
            lease_port=_bind(parts.lease, config.lease_address, certificates, certificates.own_authority),
            certificate_port=_bind(
                parts.management, config.certificate_address, certificates, lambda: parts.workloads.bundle
            ),
        )
        await running.start()
    except BaseException:  # also a cancelled start: what it opened is closed
        if running is not None:
            await running.stop(grace_seconds=0)
            raise
        if sink is not None:
            await sink.close()
        await opened.close()
        raise
    _log.info("started", management_port=running.management_port, lease_port=running.lease_port, store=config.store)
    return running


async def _check_chain(notary: Notary) -> None:
    """Holds the chain against its checkpoints; the store's copy, where the store is away now, is asked for later."""
    try:
        await notary.check_local()
        with contextlib.suppress(StoreError):
            await notary.check_witness()
    except ChainBroken as broken:
        raise CannotStart(str(broken)) from None


def _build(
    config: Config,
    store: Store,
    sink: Sink,
    certificates: Certificates,
    *,
    clock: Clock,
    monotonic: Clock,
    new_id: Callable[[], str],
) -> _Parts:
    metrics = Metrics()
    recorder = Recorder(sink, last_request_ids=store.last_request_ids)
    changes = ChangeLog(store, clock=clock, monotonic=monotonic, fresh_seconds=config.leases.change_fresh_seconds)
    memory = Recollection(changes, monotonic=monotonic, seconds=config.leases.remember_seconds)
    policies = Policies(store, changes, deployment_default=config.user_credentials_enabled)
    credentials = Credentials(ForgettingStore(store, memory), changes, policies, clock=clock)
    fixed = FixedCredentials(config.fixed, store, credentials, new_id=new_id)
    lately = Credentials(RecollectingStore(store, memory), changes, policies, clock=clock)
    issuers = Issuers(read_issuers(config), clock, fetch_document)
    workloads = read_workloads(config, clock)
    read_external = make_reader(issuers, workloads)
    verifier = Verifier(store, changes, issuer=config.deployment, clock=clock, read_external=read_external)
    issuance = Issuance(store, changes, issuer=config.deployment, clock=clock, new_id=new_id)
    leases, last_uses, denials = Leases(clock), LastUses(), Denials()
    policy = _make_lease_policy(config, certificates)
    endpoints = TokenEndpoints(config.token_endpoints)
    minter = Minter(
        credentials,
        lately,
        memory,
        store,
        leases,
        recorder,
        Egress(endpoints),
        clock=clock,
        sleep=asyncio.sleep,
        new_id=new_id,
        on_minted=metrics.count_mint,
    )
    leasing = Leasing(
        lately,
        policies,
        changes,
        verifier,
        leases,
        policy,
        denials=denials,
        clock=clock,
        minter=minter,
        memory=memory,
    )
    notary = Notary(sink, store, clock=clock, on_signed=metrics.set_signed)
    tokens = TokenServicer(issuance, store, recorder)
    limits = ListenerLimits(config.max_message_bytes, config.max_connection_age_seconds, config.drain_seconds)
    faults, size = FaultsInterceptor(metrics), SizeInterceptor(config.max_message_bytes)
    refusals = Refusals(recorder, monotonic=monotonic)
    records = RecordsInterceptor(recorder, refusals, RefusalLimit(monotonic))
    completion = CompletionInterceptor()
    management = make_management_listener(
        [faults, records, DeadlineInterceptor(), CallerIdentityInterceptor(verifier, workloads), size, completion],
        CredentialServicer(credentials, policies, recorder, last_uses, denials, endpoints, fixed),
        tokens,
        AuditServicer(config.audit_folder, recorder, sink, notary),
        limits,
    )
    lease_servicer = LeaseServicer(
        leasing,
        credentials,
        policies,
        changes,
        recorder,
        leases,
        last_uses,
        metrics,
        clock=clock,
        new_id=new_id,
        heartbeat_seconds=config.leases.heartbeat_seconds,
    )
    identity = CertificateIdentityInterceptor(config.leases.allowed_identities)
    lease = make_lease_listener(
        [faults, records, identity, DeadlineInterceptor(), size, completion], lease_servicer, tokens, limits
    )
    return _Parts(
        config,
        store,
        sink,
        recorder,
        changes,
        denials,
        notary,
        refusals,
        minter,
        issuance,
        fixed,
        metrics,
        completion,
        workloads,
        management,
        lease,
        clock,
    )


def _make_lease_policy(config: Config, certificates: Certificates) -> LeasePolicy:
    return LeasePolicy(
        ttl_seconds=config.leases.ttl_seconds,
        require_caller_proof=config.leases.require_caller_proof,
        allowed_identities=config.leases.allowed_identities,
        authorities=lambda: certificates.authorities,
    )


def _bind(listener: Listener, address: str, certificates: Certificates, clients: ReadAuthorities | None) -> int:
    if not address:
        return 0
    try:
        return listener.server.add_secure_port(address, certificates.credentials(clients))
    except RuntimeError:
        raise CannotStart(f"{address} cannot be listened on; is another instance running?") from None


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _log_uncounted(error: Exception) -> None:
    _log.warning("refusals_not_recorded", error_type=type(error).__name__)


def _log_unsigned(error: Exception) -> None:
    _log.warning("audit_checkpoint_not_signed", error_type=type(error).__name__)


def _log_retention_error(error: Exception) -> None:
    _log.warning("audit_segments_not_removed", error_type=type(error).__name__)


def _log_dropped_denial(name: str, fault: Fault) -> None:
    _log.warning("local_revocation_not_written", name=name, reason=fault.reason.value)
