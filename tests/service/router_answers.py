"""What scripted providers answer, and the configuration that the tests of the router begin with."""

import json
from collections.abc import Sequence
from typing import Any

from tests.fakes.scripted_upstream import Action, Cut, Send, chunk, head, stream

PRICE = {"input_usd_per_million": "1.00", "output_usd_per_million": "4.00", "checked": "2026-11-21"}
MARKUP_BASIS_POINTS = 500
USAGE = (100, 50)  # what the scripted answers say that they used

Json = dict[str, Any]


def answer_events(*texts: str, usage: tuple[int, int] | None = USAGE, finish: str = "stop") -> list[bytes]:
    """The events of an answer in the dialect openai_chat, as SSE."""
    chunks: list[Json] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    ]
    chunks += [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage is not None:
        counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        chunks.append({"choices": [], "usage": counts})
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "echo-1"}
    return [b"data: " + json.dumps({**common, **one}).encode() + b"\n\n" for one in chunks] + [b"data: [DONE]\n\n"]


def answer(*texts: str, usage: tuple[int, int] | None = USAGE) -> list[Action]:
    """The script of a whole answer in the dialect openai_chat."""
    return stream(*answer_events(*(texts or ("Hello", " world")), usage=usage))


def whole_answer(text: str = "Hello world", usage: tuple[int, int] = USAGE) -> bytes:
    """The body of an answer in the dialect openai_chat that is not streamed."""
    message = {"role": "assistant", "content": text}
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "echo-1"}
    return json.dumps({**body, "choices": [choice], "usage": counts}).encode()


def anthropic_events(*texts: str) -> list[bytes]:
    """The events of an answer in the dialect anthropic_messages, as SSE."""
    usage = {"input_tokens": USAGE[0], "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-1", "content": []}
    events: list[Json] = [
        {"type": "message_start", "message": {**message, "usage": usage, "stop_reason": None, "stop_sequence": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": USAGE[1]},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def cut_after(events: Sequence[bytes], count: int) -> list[Action]:
    """The script of an answer whose connection closes after so many events."""
    return [Send(head()), *(Send(chunk(event)) for event in events[:count]), Cut()]


def make_configuration(first_port: int, second_port: int) -> Json:
    """Two OpenAI-like providers and an Anthropic-like one; every payer allowed, nothing moves the bill."""

    def provider(port: int, dialect: str = "openai_chat", auth: str = "bearer", path: str = "/v1") -> Json:
        return {
            "dialect": dialect,
            "base_url": f"http://127.0.0.1:{port}{path}",
            "auth": auth,
            "allowed_private_networks": ["127.0.0.1/32"],
        }

    def endpoint(name: str, model: str = "echo") -> Json:
        return {"provider": name, "upstream_model": model}

    application = {
        "payers": ["USER_KEY", "ORGANIZATION_KEY", "SHARED_KEY", "CREDITS"],
        "default_model": "test/echo",
        "allowed_models": ["test/*"],
    }
    return {
        "deployment": {"name": "keyswitch", "default_model": "test/echo", "byok_enabled": True},
        "organizations": {
            "demo": {
                "markup_basis_points": MARKUP_BASIS_POINTS,
                "users": ["ada", "bob"],
                "applications": {"chat": application},
            },
            "other": {"users": ["eve"], "applications": {"chat": dict(application)}},
        },
        "providers": {
            "first": provider(first_port),
            "second": provider(second_port),
            "claude": provider(second_port, "anthropic_messages", "x-api-key", ""),
        },
        "models": {
            "test/echo": {"aliases": ["echo"], "endpoints": [endpoint("first")], "price": PRICE},
            "test/both": {"endpoints": [endpoint("first", "both"), endpoint("second", "both")], "price": PRICE},
            "test/other": {"endpoints": [endpoint("second", "other")], "price": PRICE},
            "test/claude": {"endpoints": [endpoint("claude", "claude-1")], "price": PRICE},
            "test/unpriced": {"endpoints": [endpoint("first", "unpriced")]},
            "else/hidden": {"endpoints": [endpoint("first", "hidden")], "price": PRICE},
        },
        "deployment_credentials": {
            "first": {"provider": "first", "payers": ["SHARED_KEY", "CREDITS"]},
            "second": {"provider": "second", "payers": ["SHARED_KEY", "CREDITS"]},
        },
    }
