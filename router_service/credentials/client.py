"""The router's side of the credential service: what is leased, and the watch that keeps it honest."""

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import grpc
import structlog
from keyswitch.vault.v1 import (
    credential_pb2,
    credential_test_pb2,
    lease_pb2,
    lease_service_pb2,
    token_service_pb2,
)
from keyswitch.vault.v1 import (
    error_reason_pb2 as vault_reasons,
)

from router_service.core.caller import Caller, Credential, Holdings, KeyTest
from router_service.core.faults import Fault
from router_service.credentials.errors import BLIND, LeaseRefused, fault_of, is_blindness, unavailable
from router_service.credentials.leases import Lease, Leases
from router_service.credentials.links import Link, Open, Term, TermOver
from router_service.credentials.owners import Owned, Owners
from router_service.credentials.recipient import Recipient
from router_service.credentials.refusals import Refusals
from router_service.credentials.uses import RefusedUses, UsePurpose, Uses

RECONNECT_SECONDS = 0.2
SILENCE_SECONDS = 1.5
"""The service speaks twice a second; a watch that is silent for longer is half dead and is begun anew.

It is less than the disconnect grace, so that another instance can be asked before the grace is over.
"""

_SHORTEST_SECONDS = 0.001

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Credentials:
    """Leases, lists and reports. Fails closed: without a fresh word from the watch nothing is leased or reused.

    Of several instances of the service one is used; when its watch breaks off or falls silent, everything goes to the
    next one, and what was asked and not answered is asked there. They share the change log and its revisions, so
    nothing is missed on the way.
    """

    def __init__(
        self,
        ways: Sequence[Open],
        recipient: Recipient,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        disconnect_grace_seconds: float,
        call_seconds: float,
        on_token_revoked: Callable[[str, float], None],
    ) -> None:
        self._links = deque(Link.over(way, recipient) for way in ways)
        self._term = Term(self._links[0])
        self._clock = clock
        self._monotonic = monotonic
        self._grace_seconds = disconnect_grace_seconds
        self._call_seconds = call_seconds
        self._on_token_revoked = on_token_revoked
        self._owners = Owners()
        self.leases = Leases(clock)
        self.uses = Uses(self._send_uses, lambda count: log.error("uses_lost", count=count))
        self.refusals = Refusals(self._send_refusals)
        self._revision = 0
        self._heard = float("-inf")
        self._blind_in_a_row = 0
        self._told_lost = ""
        self._watch: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.connected = asyncio.Event()

    def start(self) -> None:
        """Begins to watch and to report."""
        self._watch = asyncio.create_task(self._watch_changes())
        self.uses.start()
        self.refusals.start()

    async def stop(self) -> None:
        """Reports what is left and closes the channel."""
        self._is_stopping = True
        await self.uses.stop()
        await self.refusals.stop()
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        for link in self._links:
            await link.channel.close()

    async def renew(self, ways: Sequence[Open], recipient: Recipient, drain_seconds: float) -> None:
        """Goes over to another certificate, once a watch has spoken with it; else the old one stays, and Fault says so.

        Calls that run end on the connection on which they began.
        """
        links = deque(Link.over(way, recipient) for way in ways)
        for _ in range(len(links)):
            if await self._speaks(links[0]):
                break
            links.rotate(-1)
        else:
            for link in links:
                await link.channel.close()
            raise unavailable("The new certificate is not let in.", {"cause": "certificate"})
        old, self._links = self._links, links
        self._term = Term(self._link)
        old_watch, self._watch = self._watch, asyncio.create_task(self._watch_changes())
        if old_watch is not None:
            old_watch.cancel()
            with suppress(asyncio.CancelledError):
                await old_watch
        await asyncio.gather(*(link.channel.close(drain_seconds) for link in old))

    async def _speaks(self, link: Link) -> bool:
        call = link.stub.WatchCredentialChanges(self._watch_request())
        try:
            async with asyncio.timeout(self._call_seconds):
                return isinstance(await call.read(), lease_service_pb2.WatchCredentialChangesResponse)
        except (grpc.aio.AioRpcError, TimeoutError):
            return False
        finally:
            call.cancel()

    @property
    def _link(self) -> Link:
        return self._links[0]

    def _watch_request(self) -> lease_service_pb2.WatchCredentialChangesRequest:
        return lease_service_pb2.WatchCredentialChangesRequest(after_revision=self._revision)

    @property
    def is_fresh(self) -> bool:
        """Whether the watch spoke within the disconnect grace, or every instance said that it cannot reach Vault."""
        return self._monotonic() - self._heard <= self._grace_seconds

    def _demand_fresh(self) -> None:
        if not self.is_fresh:
            raise _disconnected()

    async def _ask(self, ask: Callable[[Link, float], Awaitable[T]], *, is_watched: bool = True) -> T:
        """What the instance in use answers, or the next one when that one falls silent or breaks off meanwhile.

        Nothing that depends on changes is asked of an instance before its watch has spoken: it may know less than was
        heard from the one before, and a lease that it gave then would not be taken back.
        """
        end = self._monotonic() + self._call_seconds
        while True:
            if is_watched:
                await self._await_watch(end)
            term = self._term
            try:
                return await term.run(ask(term.link, max(end - self._monotonic(), _SHORTEST_SECONDS)))
            except TermOver:
                if self._monotonic() >= end:
                    raise _disconnected() from None
            except grpc.aio.UsageError:
                if term is self._term:
                    raise
                # What waited to be sent when the certificate was renewed: its connection was closed before it began.

    async def _await_watch(self, end: float) -> None:
        """Returns when the watch speaks. Raises once it was silent for the grace, or when the time is up.

        Where all instances say that they cannot reach Vault there is nothing to wait for.
        """
        while not self.connected.is_set():
            if self._is_vault_away:
                raise _vault_away()
            left = min(end, self._heard + self._grace_seconds) - self._monotonic()
            if left <= 0:
                raise _disconnected()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.connected.wait()

    async def signing_keys(self) -> token_service_pb2.GetSigningKeysResponse:
        """The public keys that verify callers' tokens."""
        request = token_service_pb2.GetSigningKeysRequest()
        try:
            return await self._ask(
                lambda link, seconds: link.tokens.GetSigningKeys(request, timeout=seconds), is_watched=False
            )
        except grpc.aio.AioRpcError as error:
            metadata = {"cause": error.code().name}
            raise unavailable(
                "The credential service is out of reach, so tokens cannot be verified.", metadata
            ) from None

    async def holdings(self, caller: Caller, user: str) -> Holdings:
        """What the user, the organization and the deployment have, for a plan."""

        async def load(owner: str) -> Owned:
            return await self._list(owner, caller)

        async def owned(owner: str) -> Owned:
            return await self._owners.get(owner, caller.token_id, load)

        self._demand_fresh()
        deployment = await owned("deployment")
        organization = await owned(caller.organization) if caller.organization else None
        personal = await owned(user) if user else None
        narrowest = personal or organization or deployment
        return Holdings(
            personal.credentials if personal else (),
            organization.credentials if organization else (),
            deployment.credentials,
            narrowest.user_credentials_enabled,
        )

    async def list_owner(self, owner: str, caller: Caller) -> tuple[Credential, ...]:
        """What one owner has now, asked afresh."""
        return (await self._list(owner, caller)).credentials

    async def _list(self, owner: str, caller: Caller) -> Owned:
        credentials: list[Credential] = []
        page_token = ""
        while True:
            request = lease_service_pb2.ListLeasableRequest(
                parent=owner, page_size=1000, page_token=page_token, caller_proof=caller.proof.reveal()
            )
            try:
                page = await self._ask(functools.partial(_list_page, request))
            except grpc.aio.AioRpcError as error:
                raise fault_of(error, owner) from None
            credentials += [_credential(item) for item in page.credentials]
            page_token = page.next_page_token
            if not page_token:
                return Owned(tuple(credentials), page.user_credentials_enabled)

    def forget(self, credential: str) -> None:
        """The credential is not what it was thought to be: list its owner anew, lease it anew."""
        self._owners.forget(_owner(credential))
        self.leases.drop_credential(credential)

    async def lease(
        self,
        credential: str,
        *,
        origin: str,
        caller: Caller,
        principal: str,
        request_id: str,
        purpose: UsePurpose,
        rejected_lease_id: str = "",
    ) -> Lease:
        """The secret of the active version, from the cache or freshly leased. Raises Fault or StaleCredential.

        What is in hand is used whatever it was taken for: each use says what it was for.
        """
        self._demand_fresh()

        async def load() -> Lease:
            return await self.lease_version(
                f"{credential}/versions/active",
                origin=origin,
                caller=caller,
                principal=principal,
                request_id=request_id,
                purpose=purpose,
                rejected_lease_id=rejected_lease_id,
            )

        held = self.leases.held(credential, origin)
        lease = held if held is not None else await self.leases.get(credential, origin, caller.token_id, load)
        self._demand_fresh()
        return lease

    async def lease_version(
        self,
        name: str,
        *,
        origin: str,
        caller: Caller,
        principal: str,
        request_id: str,
        purpose: UsePurpose,
        rejected_lease_id: str = "",
    ) -> Lease:
        """Leases one version, past the cache."""

        async def ask(link: Link, seconds: float) -> tuple[lease_service_pb2.LeaseCredentialResponse, Recipient]:
            request = lease_service_pb2.LeaseCredentialRequest(
                name=name,
                purpose=purpose.value,
                request_id=request_id,
                principal=principal,
                caller_proof=caller.proof.reveal(),
                origin=origin,
                rejected_lease_id=rejected_lease_id,
            )
            return await link.leases.ask(request, seconds), link.recipient

        credential = name.partition("/versions/")[0]
        try:
            answer, recipient = await self._ask(ask)
        except (grpc.aio.AioRpcError, LeaseRefused, TimeoutError) as error:
            raise fault_of(error, credential) from None
        secret = recipient.open(answer, name, origin)
        return Lease(answer.lease_id, credential, answer.credential_version, origin, answer.expire_time.seconds, secret)

    async def report_test(self, lease_id: str, test: credential_test_pb2.CredentialTest) -> None:
        """Keeps the outcome of a test with the version."""
        request = lease_service_pb2.ReportTestRequest(lease_id=lease_id, test=test)
        term = self._term  # only the instance that gave the lease knows it
        try:
            await term.run(term.link.stub.ReportTest(request, timeout=self._call_seconds))
        except grpc.aio.AioRpcError as error:
            raise fault_of(error, test.credential_version) from None
        except TermOver:
            raise _disconnected() from None

    async def _send_uses(self, uses: list[lease_pb2.CredentialUse]) -> None:
        request = lease_service_pb2.ReportUsesRequest(uses=uses)
        try:
            await self._ask(lambda link, seconds: link.stub.ReportUses(request, timeout=seconds))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise RefusedUses from None
            log.warning("uses_not_reported", code=error.code().name, count=len(uses))
            raise

    async def _send_refusals(self, refusals: list[lease_service_pb2.CallerRefusals]) -> None:
        request = lease_service_pb2.ReportRefusalsRequest(refusals=refusals)
        await self._link.stub.ReportRefusals(request, timeout=self._call_seconds)

    async def _watch_changes(self) -> None:
        while not self._is_stopping:
            term = self._term
            call = term.link.stub.WatchCredentialChanges(self._watch_request())
            is_silent = is_blind = has_spoken = False
            try:
                while True:
                    async with asyncio.timeout(
                        SILENCE_SECONDS
                    ) as term.patience:  # wait_for may swallow a cancel in Python 3.11
                        message = await call.read()
                    if not isinstance(message, lease_service_pb2.WatchCredentialChangesResponse):
                        break  # the end of the stream
                    self._apply(message)
                    has_spoken = True
            except grpc.aio.AioRpcError as error:
                self._tell_lost(error.code().name)
                is_blind = is_blindness(error)
            except TimeoutError:
                log.warning("watch_silent")
                is_silent = True
            except Exception as error:  # without a watch nothing is leased ever again: begin anew
                log.error("watch_failed", exc_info=error)
                self._revision = 0
            finally:
                call.cancel()
                self.connected.clear()
            # Not where the watch is cancelled: then the links are new, and what was asked ends on the old ones.
            self._note_blindness(is_blind)
            term.is_over.set()
            self._links.popleft()
            self._links.append(term.link.renewed() if is_silent else term.link)
            self._term = Term(self._link)
            if is_silent:
                await term.link.channel.close()
            if not has_spoken or len(self._links) == 1:
                await asyncio.sleep(RECONNECT_SECONDS)

    @property
    def _is_vault_away(self) -> bool:
        return self._blind_in_a_row >= len(self._links)

    def _note_blindness(self, is_blind: bool) -> None:
        """An instance that cannot read the changes says so. Where all of them do, none can take a revocation either, so
        what is in hand stays true: it may be used until it ends by itself."""
        self._blind_in_a_row = self._blind_in_a_row + 1 if is_blind else 0
        if self._is_vault_away:
            self._heard = self._monotonic()

    def _tell_lost(self, code: str) -> None:
        """Once for each cause until an instance speaks again: they are tried five times a second."""
        if code != self._told_lost:
            log.warning("watch_lost", code=code)
        self._told_lost = code

    def _apply(self, message: lease_service_pb2.WatchCredentialChangesResponse) -> None:
        if message.is_reset:
            self.leases.drop_all()
            self._owners.forget_below("deployment")
        for change in message.changes:
            self._apply_change(change)
        self.leases.sweep()
        self._revision = message.revision
        self._heard = self._monotonic()
        self._blind_in_a_row, self._told_lost = 0, ""
        self.connected.set()

    def _apply_change(self, change: lease_service_pb2.CredentialChange) -> None:
        match change.WhichOneof("change"):
            case "credential":
                self._apply_update(change.credential)
            case "owner_revocation":
                owner = change.owner_revocation.owner
                self._owners.forget_below(owner)
                self.leases.drop_below(owner)
                if change.owner_revocation.kill_in_flight:
                    self.leases.kill(owner)
            case "token_revocation":
                revocation = change.token_revocation
                self._on_token_revoked(revocation.token_id, revocation.expire_time.seconds)
            case "credential_policy":
                self._owners.forget_below(change.credential_policy.owner)
            case _:
                self.leases.drop_all()
                self._owners.forget_below("deployment")

    def _apply_update(self, update: lease_service_pb2.CredentialUpdate) -> None:
        self._owners.forget(_owner(update.credential))
        if update.type != lease_service_pb2.CREDENTIAL_CHANGE_TYPE_UPDATED:
            self.leases.drop_credential(update.credential)
        if update.kill_in_flight:
            self.leases.kill(update.credential_version or update.credential)


def channel_credentials(ca_pem: bytes, certificate_pem: bytes, key_pem: bytes) -> grpc.ChannelCredentials:
    """mTLS with the deployment's own authority."""
    return grpc.ssl_channel_credentials(ca_pem, key_pem, certificate_pem)


def open_channel(target: str, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    """The channel to the lease listener; no proxy of the environment is used. A dead peer is found by its silence."""
    options: Sequence[tuple[str, int]] = (
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 500),  # gRPC takes it as the time in which TCP and TLS must be through, too
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.use_local_subchannel_pool", 1),  # else a new channel would share the silent connection of the old one
    )
    return grpc.aio.secure_channel(target, credentials, options=options)


def _disconnected() -> Fault:
    message = "The credential service is out of reach, so no key may be used; it is not about your key."
    return unavailable(message, {"cause": "disconnected"})


def _vault_away() -> Fault:
    message = "The credential service cannot reach its store, so no key can be fetched now; it is not about your key."
    return unavailable(message, {"vaultReason": vault_reasons.ErrorReason.Name(BLIND)})


async def _list_page(
    request: lease_service_pb2.ListLeasableRequest, link: Link, seconds: float
) -> lease_service_pb2.ListLeasableResponse:
    return await link.stub.ListLeasable(request, timeout=seconds)


def _owner(credential: str) -> str:
    return credential.partition("/credentials/")[0]


def _last_test(test: credential_test_pb2.CredentialTest) -> KeyTest:
    return KeyTest(test.credential_version, test.outcome, test.test_time.seconds + test.test_time.nanos / 1e9)


def _credential(item: credential_pb2.Credential) -> Credential:
    return Credential(
        name=item.name,
        provider=item.provider,
        plan=item.plan,
        allowed_origins=tuple(item.allowed_origins),
        is_enabled=item.state == credential_pb2.CREDENTIAL_STATE_ENABLED,
        active_version=item.active_version,
        expire_time=item.expire_time.seconds if item.HasField("expire_time") else None,
        last_test=_last_test(item.last_test) if item.HasField("last_test") else None,
        max_concurrent_requests=item.max_concurrent_requests if item.HasField("max_concurrent_requests") else None,
    )
