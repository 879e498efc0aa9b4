"""The provider of the benchmark: prepared bytes on the OpenAI chat wire, with as little of its own as can be.

The model's name chooses the answer: `bench-unary`, `bench-unary-20ms`, `bench-paced`, `bench-burst`, `bench-open`. A
`mark-<n>` anywhere in the body makes it note when each token left and when the connection closed; `GET /notes`
returns the notes, on the monotonic clock that all processes of a machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from typing import Any, cast

import uvloop

TOKEN = "token "
TOKENS = 64
TEXT = TOKEN * TOKENS
# The finish and the usage are events too; [DONE] is not, because no peer passes it on.
EVENTS = TOKENS + 2
GAP_SECONDS = 0.020
# Open streams are to be many, not busy.
OPEN_GAP_SECONDS = 1.0
MARK = re.compile(rb"mark-(\d+)")
MODEL = re.compile(rb"bench-(?:unary-20ms|unary|paced|burst|open)")
MODELS = ("bench-unary", "bench-unary-20ms", "bench-paced", "bench-burst", "bench-open")
USAGE = {"prompt_tokens": 12, "completion_tokens": TOKENS, "total_tokens": 12 + TOKENS}


def _event(choices: list[dict[str, Any]], **more: object) -> bytes:
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "bench"}
    body = {**head, "system_fingerprint": "fp_bench", "choices": choices, **more}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def _http_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _whole() -> bytes:
    message = {"role": "assistant", "content": TEXT, "refusal": None}
    body = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "bench",
        "system_fingerprint": "fp_bench",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    text = json.dumps(body, separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    return head.encode() + text


WHOLE = _whole()
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DELTAS = [
    _http_chunk(_event([_choice({"content": TOKEN, **({"role": "assistant"} if n == 0 else {})})]))
    for n in range(TOKENS)
]
TAIL = b"".join(
    (
        _http_chunk(_event([_choice({}, "stop")])),
        _http_chunk(_event([], usage=USAGE)),
        _http_chunk(b"data: [DONE]\n\n"),
        b"0\r\n\r\n",
    )
)
BURST = STREAM_HEAD + b"".join(DELTAS) + TAIL


class Notes:
    """When tokens left and connections closed, by mark."""

    def __init__(self) -> None:
        self.sent: dict[str, list[float]] = {}
        self.closed: dict[str, float] = {}

    def take(self) -> bytes:
        text = json.dumps({"sent": self.sent, "closed": self.closed}).encode()
        self.sent, self.closed = {}, {}
        return text


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._buffer = b""
        self._pacing: asyncio.TimerHandle | None = None
        self._mark = ""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, but have their methods.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pacing is not None:
            self._pacing.cancel()
        if self._mark:
            self._notes.closed[self._mark] = time.monotonic()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            found = re.search(rb"content-length: *(\d+)", head)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < whole:
                return
            request, self._buffer = self._buffer[:whole], self._buffer[whole:]
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET /notes"):
            text = self._notes.take()
            self._transport.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text)
            return
        model, mark = MODEL.search(request), MARK.search(request)
        self._mark = mark[1].decode() if mark else ""
        if self._mark:
            self._notes.sent[self._mark] = []
        match model and model[0]:
            case b"bench-unary":
                self._transport.write(WHOLE)
            case b"bench-unary-20ms":
                asyncio.get_running_loop().call_later(GAP_SECONDS, self._transport.write, WHOLE)
            case b"bench-burst":
                self._transport.write(BURST)
            case b"bench-paced" | b"bench-open" as name:
                self._transport.write(STREAM_HEAD)
                self._pace(0, asyncio.get_running_loop().time(), endless=name == b"bench-open")
            case _:
                self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def _pace(self, index: int, due: float, *, endless: bool) -> None:
        if self._mark:
            self._notes.sent[self._mark].append(time.monotonic())
        self._transport.write(DELTAS[min(index, 1) if endless else index])
        if not endless and index + 1 == TOKENS:
            self._transport.write(TAIL)
            return
        # From the due time, not from now: pacing does not drift when the machine is busy.
        due += OPEN_GAP_SECONDS if endless else GAP_SECONDS
        self._pacing = asyncio.get_running_loop().call_at(due, lambda: self._pace(index + 1, due, endless=endless))


async def serve(port: int) -> None:
    """Serves until the process is ended."""
    notes = Notes()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(notes), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
