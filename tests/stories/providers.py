"""The providers of the stories: every one below a path of one scripted upstream, answering on its own wire."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from router_service.catalog.defaults import load_built_in
from tests.fakes.scripted_upstream import Action, Received, ScriptedUpstream, respond, stream
from tests.service.router_answers import Json

Usage = tuple[int, int]  # tokens of input and output
USAGE: Usage = (1200, 300)
LISTED = {
    "anthropic": ("claude-sonnet-4-6", "claude-opus-4-6", "claude-opus-4-7"),
    "openai": ("gpt-5.4", "gpt-5.3-codex"),
    "gemini": ("gemini-3.1-pro-preview", "gemini-3-flash-preview"),
    "openrouter": ("moonshotai/kimi-k2.5", "z-ai/glm-5", "minimax/minimax-m2.7", "anthropic/claude-sonnet-4.5"),
    "zai-coding": ("glm-5.1", "glm-5"),
    "proxy": ("code-large", "code-small"),
}


@dataclass(frozen=True)
class Asked:
    """A request as a provider got it."""

    provider: str
    path: str
    key: str
    body: Json


@dataclass
class Providers:
    """What the test scripts, and what came."""

    upstream: ScriptedUpstream
    scripts: defaultdict[str, deque[list[Action]]] = field(default_factory=lambda: defaultdict(deque))
    rejected: dict[str, tuple[int, Json]] = field(default_factory=dict)  # by key
    tests: list[Asked] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    usage: Usage = USAGE  # what answers report

    def __post_init__(self) -> None:
        self.upstream.choose = self._choose

    @property
    def last(self) -> Asked:
        """The call that came last."""
        return self.asked[-1]

    async def wait_for(self, count: int) -> None:
        """Returns when so many calls have come, besides tests of keys."""
        seen = len(self.upstream.received)
        while len(self.asked) < count:
            await self.upstream.wait_for_requests(seen + 1)
            seen = len(self.upstream.received)

    def _choose(self, request: Received) -> list[Action]:
        _, provider, path = request.path.split("/", 2)
        body = json.loads(request.body) if request.body else {}
        asked = Asked(provider, f"/{path}", _key(request), body)
        (self.asked if body else self.tests).append(asked)
        if asked.key in self.rejected:
            status, answer = self.rejected[asked.key]
            return respond(json.dumps(answer).encode(), status=status)
        if self.scripts[provider]:
            return self.scripts[provider].popleft()
        return answer_to(asked, self.usage) if body else respond(json.dumps(_listing(provider, path)).encode())


def _key(request: Received) -> str:
    headers = request.headers
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or headers["authorization"].removeprefix("Bearer ")


def _listing(provider: str, path: str) -> Json:
    if path.endswith("/key"):
        return {"data": {"limit_remaining": None}}
    if path.endswith("/balance"):
        return {"data": {"available_balance": 50}}
    if provider == "gemini":
        return {"models": [{"name": f"models/{one}"} for one in LISTED[provider]]}
    return {"object": "list", "data": [{"id": one, "object": "model"} for one in LISTED[provider]], "has_more": False}


def answer_to(asked: Asked, usage: Usage = USAGE, **reported: Any) -> list[Action]:
    """An answer on the wire that the path is of; OpenRouter's reports more than tokens."""
    model = asked.body.get("model") or asked.path.rpartition("/")[2].partition(":")[0]
    text = f"An answer of {model}, made up: no model ran."
    if not asked.body.get("stream") and "GenerateContent" not in asked.path:
        return respond(json.dumps(_whole(asked, model, text, usage)).encode())
    if asked.path.endswith("/messages"):
        return stream(*_anthropic(model, text, usage))
    if asked.path.endswith("/responses"):
        return stream(*_responses(model, text, usage))
    if "GenerateContent" in asked.path:
        return stream(*_gemini(model, text, usage))
    return stream(*_chat(model, text, usage, reported))


def _whole(asked: Asked, model: str, text: str, usage: Usage) -> Json:
    """An answer that is not streamed: what tests of keys ask for."""
    if asked.path.endswith("/messages"):
        counts = {"input_tokens": usage[0], "output_tokens": usage[1]}
        content = [{"type": "text", "text": text}]
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": content,
                "stop_reason": "end_turn", "usage": counts}  # fmt: skip
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice],
            "usage": counts}  # fmt: skip


def _events(*events: Json, is_named: bool = False) -> list[bytes]:
    return [
        (f"event: {one['type']}\n" if is_named else "").encode() + b"data: " + json.dumps(one).encode() + b"\n\n"
        for one in events
    ]


def _chat(model: str, text: str, usage: Usage, reported: Json) -> list[bytes]:
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage), **reported}
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    delta = {"role": "assistant", "content": text}
    return [
        *_events(
            {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
            {**common, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {**common, "choices": [], "usage": counts},
        ),
        b"data: [DONE]\n\n",
    ]


def _anthropic(model: str, text: str, usage: Usage) -> list[bytes]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": []}
    begun = {**message, "usage": {"input_tokens": usage[0], "output_tokens": 1}, "stop_reason": None}
    return _events(
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": usage[1]}},
        {"type": "message_stop"},
        is_named=True,
    )


def _responses(model: str, text: str, usage: Usage) -> list[bytes]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    item = {"id": "msg_0", "type": "message", "status": "completed", "role": "assistant", "content": content}
    common = {"id": "resp_1", "object": "response", "model": model, "store": False, "error": None}
    counts = {"input_tokens": usage[0], "output_tokens": usage[1], "total_tokens": sum(usage)}
    ended = {**common, "status": "completed", "output": [item], "usage": counts}
    return _events(
        {"type": "response.created", "response": {**common, "status": "in_progress", "output": []}},
        {"type": "response.completed", "response": ended},
    )


def _gemini(model: str, text: str, usage: Usage) -> list[bytes]:
    content = {"role": "model", "parts": [{"text": text}]}
    counts = {"promptTokenCount": usage[0], "candidatesTokenCount": usage[1], "totalTokenCount": sum(usage)}
    candidate = {"content": content, "finishReason": "STOP", "index": 0}
    return _events({"candidates": [candidate], "usageMetadata": counts, "modelVersion": model, "responseId": "r1"})


def lead_to(port: int, names: Sequence[str], configured: Json) -> None:
    """Leads providers to the upstream, whether built in or configured; their prices stay those of the vendors."""
    known = load_built_in().providers
    for name in names:
        entry = configured.setdefault(name, {})
        base_url = entry.get("base_url") or known[name]["base_url"]
        entry["base_url"] = f"http://127.0.0.1:{port}/{name}{_path(base_url)}"
        entry["allowed_private_networks"] = ["127.0.0.1/32"]
        if name in known:
            entry["price_provider"] = known[name].get("price_provider", "")


def _path(base_url: str) -> str:
    return "/".join(["", *base_url.split("/")[3:]]).rstrip("/")
