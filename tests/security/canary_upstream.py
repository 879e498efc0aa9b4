"""What a hostile or careless provider answers: everything that it can say, with the key that it was sent in it."""

import json
from collections.abc import Iterator
from typing import Any

from tests.fakes.scripted_upstream import (
    LAST_CHUNK,
    Action,
    Cut,
    Reset,
    Send,
    chunk,
    head,
    respond,
    stream,
)

STATUSES = (301, 400, 401, 402, 403, 404, 413, 422, 429, 500, 503, 529)


ECHOING_HEADERS = (
    *("authorization", "x_api_key", "x_request_id", "request_id", "retry_after", "x_should_retry", "location"),
    *("set_cookie", "www_authenticate", "openai_organization", "x_ratelimit_reset_requests", "server"),
)


def _headers(key: str) -> Any:
    """Headers that a router reads, and the very header that the key came in; none without a key."""
    return dict.fromkeys(ECHOING_HEADERS, key) if key else {}


def echo_error(status: int, key: str) -> list[Action]:
    """An error status; code, type, message and every header repeat the key."""
    body = {"error": {"message": f"Incorrect API key provided: {key}.", "type": key, "code": key, "param": key}}
    return respond(json.dumps(body).encode(), status=status, **_headers(key))


def echo_bodies(key: str) -> Iterator[tuple[str, list[Action]]]:
    """Errors in other shapes."""
    shapes: dict[str, object] = {
        "anthropic": {"type": "error", "error": {"type": key, "message": key}, "request_id": key},
        "flat": {"code": key, "message": key, "type": key},
        "list": [{"error": {"code": key, "status": key}}],
        "minimax": {"base_resp": {"status_code": key, "status_msg": key}},
        "text": key,
    }
    for name, shape in shapes.items():
        yield name, respond(json.dumps(shape).encode(), status=400)
        yield f"{name} with status 200", respond(json.dumps(shape).encode())
    yield "html", respond(f"<html>{key}</html>".encode(), status=502, content_type="text/html")
    yield "not JSON", respond(f'{{"error": "{key}'.encode(), status=400)


def _event(value: object, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


def openai_chunk(text: str, finish: str | None = None, mark: str = "") -> bytes:
    """A chunk of a stream; `mark` goes wherever a provider says something about itself."""
    value: dict[str, object] = {
        "id": mark or "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": mark or "chat",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}],
    }
    if mark:
        value |= {"provider": mark, "system_fingerprint": mark, "service_tier": mark}
    return _event(value)


def openai_usage(mark: str = "") -> bytes:
    """The report of usage."""
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5} | ({"note": mark} if mark else {})
    return _event({"id": mark or "chatcmpl-1", "model": mark or "chat", "choices": [], "usage": usage})


DONE = b"data: [DONE]\n\n"


def openai_stream(mark: str = "") -> list[Action]:
    """A whole answer."""
    return stream(openai_chunk("Hello", mark=mark), openai_chunk("", mark or "stop", mark), openai_usage(mark), DONE)


def openai_body(mark: str = "") -> list[Action]:
    """The same as one body."""
    body = {
        "id": mark or "chatcmpl-1",
        "model": mark or "chat",
        "provider": mark,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": mark or "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "note": mark},
    }
    return respond(json.dumps(body).encode(), **_headers(mark))


def anthropic_stream(mark: str = "") -> list[Action]:
    """A whole answer on the other wire."""
    usage = {"input_tokens": 3, "output_tokens": 2} | ({"service_tier": mark} if mark else {})
    started: dict[str, object] = {
        "id": mark or "msg_1",
        "type": "message",
        "role": "assistant",
        "model": mark or "claude",
        "content": [],
        "stop_reason": None,
        "usage": usage,
    }
    block = {"type": "text", "text": ""}
    return stream(
        _event({"type": "message_start", "message": started}, "message_start"),
        _event({"type": "content_block_start", "index": 0, "content_block": block}, "content_block_start"),
        _event(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
            "content_block_delta",
        ),
        _event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
        _event(
            {"type": "message_delta", "delta": {"stop_reason": mark or "end_turn"}, "usage": usage}, "message_delta"
        ),
        _event({"type": "message_stop"}, "message_stop"),
    )


def broken_streams(key: str) -> Iterator[tuple[str, list[Action]]]:
    """Answers that begin and go wrong, with the key in what goes wrong."""
    fault = {"error": {"message": f"bad key {key}", "type": key, "code": key}}
    opened = [Send(head()), Send(chunk(openai_chunk("Hello")))]
    yield "error before content", stream(_event(fault))
    yield "error after content", [*opened, Send(chunk(_event(fault))), Send(LAST_CHUNK)]
    yield "anthropic error event", stream(_event({"type": "error", "error": {"type": key, "message": key}}, "error"))
    yield "cut after content", [*opened, Cut()]
    yield "reset after content", [*opened, Reset()]
    yield "cut before content", [Send(head()), Cut()]
    yield "cut in the head", [Send(f"HTTP/1.1 200 OK\r\nx-echo: {key}".encode()), Cut()]
    yield "no HTTP at all", [Send(f"{key}\r\n\r\n".encode()), Cut()]
    yield "wrong length", [Send(head(200, "application/json", content_length=99_999) + key.encode()), Cut()]
    yield "not JSON", stream(f"data: {{{key}\n\n".encode())
    yield "failure as finish_reason", stream(openai_chunk("", "error", key), DONE)
    yield "unknown finish_reason", stream(openai_chunk("Hello", key), DONE)
    yield "compressed", [Send(head(200, content_encoding="gzip")), Send(chunk(key.encode())), Send(LAST_CHUNK)]
    yield "odd content type", [Send(head(200, "text/plain; x=1", x_echo=key)), Send(chunk(key.encode())),
                               Send(LAST_CHUNK)]  # fmt: skip


def model_list(*ids: str) -> list[Action]:
    """What a key test asks for."""
    return respond(json.dumps({"object": "list", "data": [{"id": one, "object": "model"} for one in ids]}).encode())
