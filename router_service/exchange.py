"""One attempt: a request to one provider and the answer back, event by event, up to and over the commit point.

Events are held until the provider's first content. What fails before raises a Fault and nothing was seen of it; what
fails after is marked as committed, and no other model's words are spliced in.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from router_service.core.events import (
    ArgumentsDelta,
    CitationDelta,
    Event,
    Finished,
    Identified,
    MediaDelta,
    MediaStart,
    PartStarted,
    ProviderDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallStart,
    UsageUpdated,
)
from router_service.core.faults import Fault, Reason, violation
from router_service.core.grammar import Grammar
from router_service.core.outcome import Output
from router_service.core.secret import Hiding
from router_service.dialects.base import BodyFrame, Decoder, Dialect, Frame, Framing
from router_service.dialects.error_rules import ErrorGuide, classify
from router_service.framing.framer import Framer, open_framer
from router_service.record import AttemptRecord
from router_service.upstream.client import Upstream, UpstreamRequest, UpstreamResponse

HELD_BYTES = 64 * 1024
CONNECT_SECONDS = 10.0
MOST_ERROR_BYTES = 256 * 1024
MOST_BODY_BYTES = 32 * 1024 * 1024
DRAIN_SECONDS = 0.5
NEVER_CONNECTED = frozenset({"refused", "dns", "tls", "address_refused"})
"""Causes after which it is certain that not one byte of the request was sent."""


class CallerGone(Exception):
    """The caller left, and the cancel that says so is still on its way."""


class Sink(Protocol):
    """Where the events of a call go. Waiting in `send` is how a slow reader slows the upstream."""

    async def send(self, outputs: Sequence[Output]) -> None:
        """Delivers, in order. Raises CallerGone."""
        ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The shapes of a time-out, in seconds."""

    first_content: float
    idle: float
    whole: float | None = None  # the attempt from its start to its end


def _abort_nothing() -> None:
    pass


class Watchdog:
    """One timer for a whole attempt. `expect` sets when the upstream must have spoken, `rest` stops the clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, abort: Callable[[], None]) -> None:
        self._loop = loop
        self._abort = abort
        self._deadline: float | None = None
        self._kind = ""
        self._timer: asyncio.TimerHandle | None = None
        self._bound: asyncio.TimerHandle | None = None
        self.fault: Fault | None = None

    def expect(self, deadline: float, kind: str) -> None:
        """The upstream must speak before the deadline (of the loop's clock)."""
        self._deadline = deadline
        self._kind = kind
        if self._timer is None or self._timer.when() > deadline:
            self._arm(deadline)

    def bound(self, deadline: float) -> None:
        """The whole attempt must be over before the deadline, whoever speaks."""
        message = "The provider did not end its answer in time; the operator can allow its attempts more time."
        fault = Fault(Reason.UPSTREAM_TIMEOUT, message, metadata={"timeout": "whole"})
        self._bound = self._loop.call_at(deadline, self.cut, fault)

    def rest(self) -> None:
        """The upstream spoke; until the next `expect` it is not its turn."""
        self._deadline = None

    def cut(self, fault: Fault) -> None:
        """Ends the attempt now, for a reason of our own."""
        if self.fault is None:
            self.fault = fault
            self._abort()

    def stop(self) -> None:
        """The attempt is over, and is no longer held by the watch over it."""
        self._abort = _abort_nothing
        if self._bound is not None:
            self._bound.cancel()
            self._bound = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._arm(self._deadline)
            return
        what = "begin its answer" if self._kind == "firstContent" else "go on with its answer"
        message = f"The provider did not {what} in time; try again, or allow it more time."
        self.cut(Fault(Reason.UPSTREAM_TIMEOUT, message, metadata={"timeout": self._kind}))


@dataclass(slots=True)
class Exchange:
    """One attempt. `commit` gives what goes out before the provider's first event."""

    upstream: Upstream
    dialect: Dialect
    framing: Framing
    decoder: Decoder
    request: UpstreamRequest
    record: AttemptRecord
    timeouts: Timeouts
    sink: Sink
    commit: Callable[[], Output]
    clock: Callable[[], float]
    spawn: Callable[[UpstreamResponse], None]
    hide: Hiding
    errors: ErrorGuide = ErrorGuide()
    min_flush_seconds: float = 0.0
    is_committed: bool = False
    finished: Finished | None = None
    tail: list[Output] = field(default_factory=list)
    watchdog: Watchdog = field(init=False)
    _response: UpstreamResponse | None = field(init=False, default=None)
    _held: list[Output] = field(init=False, default_factory=list)
    _held_bytes: int = field(init=False, default=0)
    _grammar: Grammar = field(init=False, default_factory=Grammar)
    _flushed: float = field(init=False, default=float("-inf"))
    _is_read_whole: bool = field(init=False, default=False)
    _flushed_bytes: int = field(init=False, default=0)
    _sender: "asyncio.Task[object] | None" = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(asyncio.get_running_loop(), self._abort)

    def _abort(self) -> None:
        if self._response is not None:
            self._response.abort()
        elif self._sender is not None:
            self._sender.cancel()

    async def run(self) -> None:
        """Sends and follows the answer to its end; `tail` then holds what is still to be delivered. Raises Fault."""
        try:
            await self._run()
        except Fault as fault:
            # An abort of ours surfaces as a broken read; what counts is why we aborted.
            raise self.watchdog.fault or classify(fault, self.errors, self._headers()) from None
        finally:
            self.watchdog.stop()
            response = self._response
            if response is not None:
                if self.finished is not None and self.watchdog.fault is None:
                    await self._let_go(response)
                else:
                    response.abort()

    async def _let_go(self, response: UpstreamResponse) -> None:
        """Leaves the connection for another call, at once where nothing can trail the answer."""
        if self._is_read_whole:
            await response.close()
        else:
            self.spawn(response)

    async def _run(self) -> None:
        self.record.was_sent = True
        started = self.watchdog_time()
        if self.timeouts.whole is not None:
            self.watchdog.bound(started + self.timeouts.whole)
        self._response = response = await self._send()
        if self.watchdog.fault is not None:
            raise self.watchdog.fault
        first_deadline = started + self.timeouts.first_content
        self.watchdog.expect(first_deadline, "firstContent")
        status = response.status
        if status != 200:
            await self._refused(response, status)
        decoder = self.decoder
        framer = open_framer(self.framing, response.headers.get("content-type", ""))
        if framer is None:
            await self._decode_body(response, decoder)
        else:
            self.record.is_begun = True
            await self._follow(response, framer, decoder, first_deadline)
        if self.finished is None:
            raise violation("truncated", "The provider's answer ended before it was complete.")

    async def _send(self) -> UpstreamResponse:
        """Waits for the head. A cut of ours ends the wait as a cancel of the caller would, and is told apart here."""
        sender = self._sender = asyncio.current_task()
        try:
            return await self.upstream.send(
                self.request,
                connect_timeout_seconds=CONNECT_SECONDS,
                response_timeout_seconds=self.timeouts.first_content,
            )
        except Fault as fault:
            self.record.was_sent = fault.metadata.get("cause") not in NEVER_CONNECTED
            raise
        except asyncio.CancelledError:
            if self.watchdog.fault is None or sender is None or sender.uncancel() > 0:
                raise
            raise self.watchdog.fault from None
        finally:
            self._sender = None

    def watchdog_time(self) -> float:
        """The clock of the time-outs."""
        return asyncio.get_running_loop().time()

    async def _refused(self, response: UpstreamResponse, status: int) -> None:
        if 300 <= status < 400 or status < 200:
            raise violation(
                "redirect", "The provider answered with a redirect, which is not followed; mend its base URL."
            )
        if status < 300:
            raise violation("status", "The provider answered with a status that no completion has.")
        body = await response.read_all(MOST_ERROR_BYTES)
        self.record.was_refused = True
        raise self.dialect.decode_error(status, self._headers(), self.hide(body))

    def _headers(self) -> dict[str, str]:
        """The answer's headers without the key."""
        response = self._response
        return {name: self.hide.text(value) for name, value in response.headers.items()} if response else {}

    async def _decode_body(self, response: UpstreamResponse, decoder: Decoder) -> None:
        frame = BodyFrame(await response.read_all(MOST_BODY_BYTES), self._headers())
        self._is_read_whole = True
        self.watchdog.rest()
        await self._decode(decoder, (frame,), is_end=True)

    async def _follow(
        self, response: UpstreamResponse, framer: Framer, decoder: Decoder, first_deadline: float
    ) -> None:
        loop = asyncio.get_running_loop()
        watchdog = self.watchdog
        while self.finished is None:
            if self.is_committed:
                watchdog.expect(loop.time() + self.timeouts.idle, "idle")
            else:
                watchdog.expect(first_deadline, "firstContent")
            chunk = await (self._read_flushing(response) if self._held and self.is_committed else response.read_chunk())
            watchdog.rest()
            if not chunk:
                await self._decode(decoder, framer.close(), is_end=True)
                return
            await self._decode(decoder, framer.feed(chunk), is_end=False)

    async def _read_flushing(self, response: UpstreamResponse) -> bytes:
        """Reads while events wait for `min_flush_seconds`: they go out in time although nothing more arrives."""
        reading = asyncio.ensure_future(response.read_chunk())
        try:
            remaining = self._flushed + self.min_flush_seconds - self.watchdog_time()
            await asyncio.wait({reading}, timeout=max(0.0, remaining))
            if not reading.done():
                out, self._held = self._held, []
                self._flushed = self.watchdog_time()
                self._flushed_bytes = self.record.output_bytes
                self.watchdog.rest()  # a slow reader is not the provider's silence
                await self.sink.send(out)
                self.watchdog.expect(self.watchdog_time() + self.timeouts.idle, "idle")
            return await reading
        finally:
            reading.cancel()

    async def _decode(self, decoder: Decoder, frames: Iterable[Frame], *, is_end: bool) -> None:
        """Decodes, and delivers also what stood before a fault in the same read: how bytes were cut changes nothing."""
        events: list[Event] = []
        fault: Fault | None = None
        try:
            for frame in frames:
                data = self.hide(frame.data)
                events += decoder.feed(frame if data is frame.data else replace(frame, data=data))
            if is_end:
                events += decoder.close()
        except Fault as found:
            fault = found
        await self._take(events)
        if fault is not None:
            # A stream that was opened only to say so; not one that broke off, or that nobody can read.
            is_said = fault.reason is not Reason.UPSTREAM_PROTOCOL_VIOLATION
            self.record.was_refused = is_said and not self.is_committed and self.record.usage is None
            raise fault

    async def _take(self, events: Sequence[Event]) -> None:
        """Checks events, keeps the books, and sends what may be sent."""
        out = self._held
        has_content = False
        check = self._grammar.check
        record = self.record
        for event in events:
            check(event)
            kind = type(event)
            if kind is TextDelta or kind is ReasoningDelta:
                size = len(event.text)  # type: ignore[union-attr]
                record.output_bytes += size
                has_content = has_content or size > 0
                out.append(event)  # type: ignore[arg-type]
            elif isinstance(event, UsageUpdated):
                self._note_usage(event)
                out.append(event)
            elif isinstance(event, Identified):
                self._note_identity(event)
            elif isinstance(event, Finished):
                self.finished = event
                record.is_finished = True
                has_content = True
            else:
                record.output_bytes += _size(event)
                has_content = has_content or _is_content(event)
                out.append(event)
        await self._deliver(has_content=has_content)

    async def _deliver(self, *, has_content: bool) -> None:
        out = self._held
        if not self.is_committed:
            self._held_bytes = self.record.output_bytes
            if not has_content and self._held_bytes <= HELD_BYTES and len(out) <= 1024:
                return
            self.is_committed = True
            self.record.first_content_time = self.clock()
            out.insert(0, self.commit())
        if self.finished is not None:
            self.tail = out
            return
        if out:
            if self.min_flush_seconds:
                now = self.watchdog_time()
                waiting_bytes = self.record.output_bytes - self._flushed_bytes
                if now - self._flushed < self.min_flush_seconds and waiting_bytes <= HELD_BYTES:
                    return
                self._flushed, self._flushed_bytes = now, self.record.output_bytes
            self._held = []
            await self.sink.send(out)

    def _note_usage(self, event: UsageUpdated) -> None:
        self.record.usage = event.usage
        if event.json:
            self.record.usage_json = event.json
        if event.charged_usd_nanos is not None:
            self.record.upstream_charged_nanos = event.charged_usd_nanos

    def _note_identity(self, event: Identified) -> None:
        known = self.record.identity
        self.record.identity = Identified(
            event.request_id or known.request_id, event.model or known.model, event.backend or known.backend
        )


async def drain(response: UpstreamResponse) -> None:
    """Reads what trails an answer (a last chunk mark), so that its connection can serve another call."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while await response.read_chunk():
                pass
    except (Fault, TimeoutError):
        response.abort()
    await response.close()


def _is_content(event: Event) -> bool:
    match event:
        case ArgumentsDelta() | ProviderDelta():
            return bool(event.json)
        case MediaDelta() | CitationDelta():
            return True
        case PartStarted(start=ToolCallStart() | MediaStart()):
            return True
        case _:
            return False


def _size(event: Event) -> int:
    match event:
        case ArgumentsDelta() | ProviderDelta():
            return len(event.json)
        case MediaDelta():
            return len(event.data)
        case _:
            return 0
