"""A router and a credential service in this process, real TLS between them, and providers that a test scripts."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from keyswitch.router.v1 import (
    budget_service_pb2_grpc,
    completion_pb2,
    completion_service_pb2,
    completion_service_pb2_grpc,
    content_pb2,
    receipt_pb2,
    route_policy_pb2,
    stream_pb2,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2, token_service_pb2

from router_service.app import RunningRouter, serve
from router_service.config import Address, Addresses, Config
from router_service.core.receipt import Receipt, ReceiptState
from tests.fakes.scripted_upstream import ScriptedUpstream, scripted_upstream
from tests.service.router_answers import Json, make_configuration
from tests.service.vault_harness import Client, Vault, make_home, running_vault
from vault_service.store.memory import MemoryStore

TIMEOUT_SECONDS = 20.0
DEMO = "organizations/demo"
ADA = "organizations/demo/users/ada"
CHAT = "organizations/demo/applications/chat"
DOMAIN = "router.keyswitch.dev"


@dataclass(frozen=True)
class Refused(Exception):
    """An error status of the router, taken apart."""

    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str]
    message: str
    fields: tuple[str, ...]
    receipt: receipt_pb2.Receipt | None
    retry_seconds: float | None
    has_quota_failure: bool
    size_bytes: int


def read_error(error: grpc.aio.AioRpcError) -> Refused:
    """Takes a status apart, and insists on exactly one ErrorInfo of the router's domain and on less than 4 KiB."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # takes anything with trailing metadata
    assert status is not None, f"no details: {error.code()} {error.details()}"
    infos: list[error_details_pb2.ErrorInfo] = []
    fields: list[str] = []
    receipts: list[receipt_pb2.Receipt] = []
    retry_seconds = None
    has_quota_failure = False
    for one in status.details:
        info, bad, receipt = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), receipt_pb2.Receipt()
        retry = error_details_pb2.RetryInfo()
        if one.Unpack(info):
            infos.append(info)
        elif one.Unpack(bad):
            fields += [violation.field for violation in bad.field_violations]
        elif one.Unpack(receipt):
            receipts.append(receipt)
        elif one.Unpack(retry):
            retry_seconds = retry.retry_delay.ToNanoseconds() / 1e9
        elif one.Is(error_details_pb2.QuotaFailure.DESCRIPTOR):
            has_quota_failure = True
    assert len(infos) == 1
    assert infos[0].domain == DOMAIN
    assert len(receipts) <= 1
    assert status.ByteSize() < 4096
    return Refused(
        error.code(),
        infos[0].reason.removeprefix("ERROR_REASON_"),
        dict(infos[0].metadata),
        error.details() or "",
        tuple(fields),
        receipts[0] if receipts else None,
        retry_seconds,
        has_quota_failure,
        status.ByteSize(),
    )


@dataclass
class Answer:
    """What a stream brought: its messages, and the status that ended it unless that was OK."""

    messages: list[completion_service_pb2.StreamCompleteResponse] = field(default_factory=list)
    error: Refused | None = None
    response_id: str = ""

    @property
    def events(self) -> list[stream_pb2.StreamEvent]:
        """All events, in order."""
        return [event for message in self.messages for event in message.events]

    @property
    def kinds(self) -> list[str]:
        """The kinds of the events."""
        return [event.WhichOneof("event") or "" for event in self.events]

    @property
    def text(self) -> str:
        """The text of the answer."""
        return "".join(event.part_delta.text.text for event in self.events)

    @property
    def receipt(self) -> receipt_pb2.Receipt:
        """The receipt of an answer that is whole."""
        assert self.error is None, self.error
        return self.events[-1].response_ended.receipt

    @property
    def refused(self) -> Refused:
        """The error, which there must be."""
        assert self.error is not None, "the call was answered"
        return self.error

    def check(self) -> None:
        """Insists on the grammar of stream.proto."""
        assert [event.sequence for event in self.events] == list(range(1, len(self.events) + 1))
        assert all(message.events for message in self.messages)
        kinds = self.kinds
        while kinds and kinds[0] == "attempt_failed":
            kinds.pop(0)
        if kinds:
            assert kinds[0] == "response_started"
            assert kinds.count("response_started") == 1
        assert "attempt_failed" not in kinds
        assert kinds.count("response_ended") == (1 if self.error is None else 0)
        assert self.error is not None or kinds[-1] == "response_ended"
        started: list[int] = []
        open_parts: set[int] = set()
        for event in self.events:
            match event.WhichOneof("event"):
                case "part_started":
                    assert event.part_started.index == len(started)
                    started.append(event.part_started.index)
                    open_parts.add(event.part_started.index)
                case "part_delta":
                    assert event.part_delta.index in open_parts
                case "part_ended":
                    open_parts.remove(event.part_ended.index)
                case _:
                    pass
        assert self.error is not None or not open_parts


def make_call(text: str = "hi", *, model: str = "", **fields: Any) -> completion_pb2.CompletionCall:
    """A call that is right in everything but what is given."""
    message = content_pb2.Message(
        role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text=content_pb2.TextPart(text=text))]
    )
    spec = completion_pb2.CompletionSpec(model=model, messages=[message])
    return completion_pb2.CompletionCall(**{"spec": spec, **fields})


def make_policy(**fields: Any) -> route_policy_pb2.RoutePolicy:
    """A route policy; time-outs are given in seconds as floats."""
    policy = route_policy_pb2.RoutePolicy()
    for name in ("first_content_timeout", "idle_timeout", "max_queue_wait"):
        if name in fields:
            getattr(policy, name).FromNanoseconds(int(fields.pop(name) * 1e9))
    policy.MergeFrom(route_policy_pb2.RoutePolicy(**fields))
    return policy


class Caller:
    """Stubs over one channel, with one token."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self.channel = channel
        self.token = token
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.completions: Any = completion_service_pb2_grpc.CompletionServiceStub(channel)
        self.usage: Any = usage_service_pb2_grpc.UsageServiceStub(channel)
        self.budgets: Any = budget_service_pb2_grpc.BudgetServiceStub(channel)

    async def call(self, method: Callable[..., Any], request: Any, **options: Any) -> Any:
        """Calls a unary method; a refusal comes as `Refused`."""
        try:
            return await method(request, **{"metadata": self.metadata, "timeout": TIMEOUT_SECONDS, **options})
        except grpc.aio.AioRpcError as error:
            raise read_error(error) from None

    async def complete(self, call: completion_pb2.CompletionCall | None = None, **options: Any) -> Any:
        """Completes once."""
        request = completion_service_pb2.CompleteRequest(call=make_call() if call is None else call)
        return await self.call(self.completions.Complete, request, **options)

    def open(
        self,
        call: completion_pb2.CompletionCall | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        min_flush_seconds: float = 0.0,
    ) -> Any:
        """Begins a stream."""
        request = completion_service_pb2.StreamCompleteRequest(call=make_call() if call is None else call)
        if min_flush_seconds:
            request.stream_options.min_flush_interval.FromNanoseconds(int(min_flush_seconds * 1e9))
        return self.completions.StreamComplete(request, metadata=self.metadata, timeout=timeout)

    async def stream(self, call: completion_pb2.CompletionCall | None = None, **options: Any) -> Answer:
        """Streams to the end and insists on the grammar."""
        opened = self.open(call, **options)
        found = await follow(opened)
        found.check()
        return found

    async def receipt(self, response_id: str = "", request_id: str = "") -> receipt_pb2.Receipt:
        """The whole receipt of a call."""
        request = usage_service_pb2.GetReceiptRequest(response_id=response_id, request_id=request_id)
        found: receipt_pb2.Receipt = (await self.call(self.usage.GetReceipt, request)).receipt
        return found


async def follow(opened: Any) -> Answer:
    """Reads a stream to its end."""
    found = Answer()
    try:
        while (message := await opened.read()) is not grpc.aio.EOF:
            found.messages.append(message)
    except grpc.aio.AioRpcError as error:
        found.error = read_error(error)
    found.response_id = await read_response_id(opened)
    return found


async def read_response_id(opened: Any) -> str:
    """The id that the initial metadata names; empty where the call was refused before it had one."""
    metadata = await opened.initial_metadata() or ()
    return str(dict(metadata).get("keyswitch-response-id", ""))


class Signal:
    """Something that grows and can be waited for."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def notify(self) -> None:
        """Wakes who waits."""
        task = asyncio.ensure_future(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Returns when the condition holds."""
        async with asyncio.timeout(TIMEOUT_SECONDS), self._changed:
            await self._changed.wait_for(condition)


@dataclass
class Stack:
    """What a test holds."""

    router: RunningRouter
    vault: Vault
    first: ScriptedUpstream
    second: ScriptedUpstream
    channel: grpc.aio.Channel
    home: Path
    member: Caller = field(init=False)
    admin: Client = field(init=False)
    sleeps: list[float] = field(default_factory=list)
    spread: float = 0.5
    heard: Signal = field(default_factory=Signal)
    ended: Signal = field(default_factory=Signal)
    receipts: list[Receipt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._inject_time()
        self._watch_changes()
        self._watch_receipts()

    def _inject_time(self) -> None:
        async def sleep(seconds: float) -> None:
            self.sleeps.append(seconds)

        engine = self.router.engine
        engine.edges = dataclasses.replace(engine.edges, sleep=sleep, spread=lambda: self.spread)

    def _watch_changes(self) -> None:
        credentials: Any = self.router.credentials
        apply = credentials._apply

        def applied(message: Any) -> None:
            apply(message)
            self.heard.notify()

        credentials._apply = applied

    def _watch_receipts(self) -> None:
        ledger: Any = self.router.ledger
        record_soon = ledger.record_soon

        def recorded(receipt: Receipt) -> bool:
            self.receipts.append(receipt)
            self.ended.notify()
            return bool(record_soon(receipt))

        ledger.record_soon = recorded

    def caller(self, token: str) -> Caller:
        """Another caller over the same channel."""
        return Caller(self.channel, token)

    async def issue(self, *roles: str, parent: str = DEMO, **fields: Any) -> Caller:
        """A caller with a fresh token."""
        return self.caller((await self.vault.issue(parent, *roles, **fields)).token)

    def end_leases(self) -> None:
        """What is leased has run out, so the next call asks for a lease; one that is on its way stays good."""
        leases: Any = self.router.credentials.leases
        leases._held.clear()

    async def settle(self) -> None:
        """Returns when the router has heard of every change that the credential service made."""
        parts: Any = self.vault.service._parts
        revision = parts.changes.revision
        credentials: Any = self.router.credentials
        await self.heard.wait_for(lambda: credentials._revision >= revision)

    async def save_key(self, name: str, key: str = "", *, provider: str = "first") -> str:
        """Makes a credential with an active key; gives the version's name."""
        parent, _, credential_id = name.rpartition("/credentials/")
        client = self.vault.operator if parent == "deployment" else self.admin
        base_url = self.router.configuration.current.providers[provider].base_url
        request = credential_service_pb2.CreateCredentialRequest(
            parent=parent,
            credential_id=credential_id,
            credential=credential_pb2.Credential(
                provider=f"providers/{provider}",
                kind=credential_pb2.CREDENTIAL_KIND_API_KEY,
                allowed_origins=[base_url.origin],
            ),
        )
        await client.call(client.credentials.CreateCredential, request)
        return await self.rotate_key(name, key or f"sk-{credential_id}-0123456789")

    async def rotate_key(self, name: str, key: str, *, activate: bool = True) -> str:
        """Adds a version and activates it."""
        client = self.vault.operator if name.startswith("deployment/") else self.admin
        version = await self.vault.add(client, name, key)
        if activate:
            await self.vault.activate(client, version.name)
        await self.settle()
        return str(version.name)

    async def revoke(self, name: str, *, kill_in_flight: bool = False) -> None:
        """Disables a credential."""
        revocation = credential_service_pb2.Revocation(kill_in_flight=kill_in_flight)
        request = credential_service_pb2.DisableCredentialRequest(name=name, revocation=revocation)
        client = self.vault.operator if name.startswith("deployment/") else self.admin
        await client.call(client.credentials.DisableCredential, request)
        await self.settle()

    async def delete_key(self, name: str) -> None:
        """Deletes a credential."""
        client = self.vault.operator if name.startswith("deployment/") else self.admin
        request = credential_service_pb2.DeleteCredentialRequest(name=name)
        await client.call(client.credentials.DeleteCredential, request)
        await self.settle()

    async def add_credits(self, amount_nanos: int, organization: str = "demo") -> None:
        """Gives an organization credits."""
        number = (await self.router.ledger.balance(organization)).balance_nanos & 0xFFFF_FFFF_FFFF
        request_id = f"00000000-0000-4000-8000-{number:012x}"
        await self.router.ledger.add_credits(organization, amount_nanos, request_id, "test", 0.0)

    async def rest(self) -> None:
        """Returns when what outlives the calls is done: settling, draining, receipts."""
        engine: Any = self.router.engine
        await engine.afterwork.rest()
        await self.router.ledger.flush()

    async def wait_for_end(self, state: ReceiptState, count: int = 1) -> Receipt:
        """The receipt of a call that ended in this state, as soon as there are so many."""

        def found() -> list[Receipt]:
            return [receipt for receipt in self.receipts if receipt.state is state]

        await self.ended.wait_for(lambda: len(found()) >= count)
        return found()[-1]

    def reconfigure(self, change: Callable[[Json], None]) -> None:
        """Changes the configuration file and has it read."""
        path = self.router.config.configuration
        configuration = json.loads(path.read_text())
        change(configuration)
        path.write_text(json.dumps(configuration))
        assert self.router.configuration.reload(), self.router.configuration.problems


@asynccontextmanager
async def running_stack(
    home: Path,
    *,
    configuration: Callable[[Json], None] = lambda _: None,
    vault_changes: Json | None = None,
    **config: Any,
) -> AsyncIterator[Stack]:
    """Runs everything in `home`; `configuration` changes what make_configuration gives."""
    async with AsyncExitStack() as stack:
        if not (home / "ca.pem").exists():
            make_home(home)
        first = await stack.enter_async_context(scripted_upstream())
        second = await stack.enter_async_context(scripted_upstream())
        made = make_configuration(first.port, second.port)
        configuration(made)
        (home / "keyswitch.yaml").write_text(json.dumps(made))  # JSON is YAML
        changes = {"store": MemoryStore(), **(vault_changes or {})}
        vault = await stack.enter_async_context(running_vault(home, **changes))
        router = await serve(
            dataclasses.replace(
                Config.below(home),
                **{
                    "listen": Address("127.0.0.1", 0),
                    "http_listen": Address("127.0.0.1", 0),
                    "lease_targets": Addresses([Address("localhost", vault.service.lease_port)]),
                    "drain_seconds": 0.2,
                    "reload_interval_seconds": 0.0,
                    **config,
                },
            )
        )
        stack.push_async_callback(router.stop)
        authority = grpc.ssl_channel_credentials((home / "ca.pem").read_bytes())
        options = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
        channel = grpc.aio.secure_channel(f"localhost:{router.port}", authority, options=options)
        await stack.enter_async_context(channel)
        made_stack = Stack(router, vault, first, second, channel, home)
        made_stack.admin = await vault.issue(DEMO, "ADMIN")
        made_stack.member = await made_stack.issue("MEMBER", user=ADA, application=CHAT)
        await router.credentials.connected.wait()
        yield made_stack


def copy_certificates(source: Path, home: Path) -> Path:
    """A home with certificates made before."""
    home.mkdir(exist_ok=True)
    for path in source.glob("*.pem"):
        shutil.copy(path, home / path.name)
    return home


def revoke_token_request(name: str) -> token_service_pb2.RevokeTokenRequest:
    """The request that revokes a token."""
    return token_service_pb2.RevokeTokenRequest(name=name)


def state_name(receipt: receipt_pb2.Receipt) -> str:
    """The state of a receipt, without the prefix."""
    return receipt_pb2.ReceiptState.Name(receipt.state).removeprefix("RECEIPT_STATE_")
