"""Fixtures of dialects: what is asked, the wire's request, the wire's answer, and what it must become.

A folder per case: `title.txt` (one line), `request.json` (`completion` in neutral words, the `wire` body that it must
become, its `warnings`), `response.sse`, `response.ndjson` or `response.json` (raw bytes) or `response.aws` (a line per
message of AWS's event stream: its type, "!" before it where it is an exception, and its payload), `expected.json` (the
folded answer or a fault).
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router_service.core.content import (
    CacheTtl,
    Citation,
    Media,
    MediaDetail,
    Message,
    Part,
    PartKind,
    ProviderBlock,
    ProviderState,
    Reasoning,
    Role,
    Span,
    Text,
    ToolCall,
    ToolResult,
)
from router_service.core.fold import Answer
from router_service.core.request import (
    Completion,
    FunctionTool,
    JsonFormat,
    JsonSchemaFormat,
    ReasoningEffort,
    ReasoningSettings,
    ResponseFormat,
    Sampling,
    Settings,
    TextFormat,
    ToolChoice,
    ToolMode,
)
from tests.suites.aws_messages import event
from tests.suites.dialect_suite import PROVIDER, Outcome

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dialects"


@dataclass(frozen=True)
class Fixture:
    """One case."""

    name: str
    title: str
    request: dict[str, Any]
    body: bytes
    is_stream: bool
    expected: dict[str, Any]


def fixtures(dialect: str) -> list[Fixture]:
    """All cases of a dialect."""
    return [_load(folder) for folder in sorted((FIXTURES / dialect).iterdir()) if folder.is_dir()]


def _load(folder: Path) -> Fixture:
    files = [path for path in folder.iterdir() if path.name.startswith("response.")]
    assert len(files) == 1, folder
    return Fixture(
        name=folder.name,
        title=(folder / "title.txt").read_text().strip(),
        request=json.loads((folder / "request.json").read_text()),
        body=_event_stream(files[0]) if files[0].suffix == ".aws" else files[0].read_bytes(),
        is_stream=files[0].suffix != ".json",
        expected=json.loads((folder / "expected.json").read_text()),
    )


def _event_stream(path: Path) -> bytes:
    found = []
    for line in path.read_bytes().splitlines():
        name, _, payload = line.decode().partition(" ")
        kind = "exception" if name.startswith("!") else "event"
        found.append(event(name.lstrip("!"), payload.encode(), kind))
    return b"".join(found)


# -- neutral JSON to values ------------------------------------------------------------------------------------------


def completion_of(data: dict[str, Any], dialect: str) -> Completion:
    """The completion that a case asks for."""
    settings = data.get("settings", {})
    reasoning = settings.get("reasoning")
    choice = data.get("tool_choice")
    return Completion(
        model=data.get("model", "some-model"),
        provider=PROVIDER,
        messages=tuple(_message(message, dialect) for message in data["messages"]),
        stream=data.get("stream", True),
        tools=tuple(FunctionTool(**tool) for tool in data.get("tools", ())),
        tool_choice=_tool_choice(choice) if choice else None,
        parallel_tool_calls=data.get("parallel_tool_calls"),
        response_format=_format(data.get("response_format")),
        settings=Settings(
            sampling=_sampling(settings.get("sampling", {})),
            max_output_tokens=settings.get("max_output_tokens"),
            reasoning=_reasoning(reasoning) if reasoning else None,
        ),
        options=tuple(data.get("options", ())),
    )


def _message(data: dict[str, Any], dialect: str) -> Message:
    return Message(Role(data["role"]), tuple(_part(part, dialect) for part in data["parts"]))


def _part(data: dict[str, Any], dialect: str) -> Part:
    state = data.get("state")
    return Part(
        kind_of(data, dialect),
        cache_breakpoint=CacheTtl(data["cache"]) if "cache" in data else None,
        provider_state=ProviderState(
            data.get("state_dialect", dialect), data.get("state_provider", PROVIDER), json.dumps(state).encode()
        )
        if state is not None
        else None,
    )


def kind_of(data: dict[str, Any], dialect: str) -> PartKind:
    """A part's kind from its JSON."""
    if "text" in data:
        return Text(data["text"])
    if "reasoning" in data:
        return Reasoning(data["reasoning"])
    if "tool_call" in data:
        return ToolCall(**data["tool_call"])
    if "media" in data:
        return _media(data["media"])
    if "provider" in data:
        block = data["provider"]
        return ProviderBlock(block.get("dialect", dialect), block["kind"], block["json"])
    result = data["tool_result"]
    content = [kind_of(piece, dialect) for piece in result["content"]]
    kept = tuple(piece for piece in content if isinstance(piece, Text | Media | ProviderBlock))
    return ToolResult(result["id"], kept, result.get("is_error", False))


def _media(data: dict[str, Any]) -> Media:
    return Media(
        media_type=data["media_type"],
        data=base64.b64decode(data["data"]) if "data" in data else None,
        uri=data.get("uri", ""),
        filename=data.get("filename", ""),
        detail=MediaDetail(data["detail"]) if "detail" in data else None,
        enable_citations=data.get("enable_citations", False),
    )


def _tool_choice(data: dict[str, Any]) -> ToolChoice:
    return ToolChoice(ToolMode(data.get("mode", "auto")), data.get("tool_name", ""))


def _format(data: dict[str, Any] | None) -> ResponseFormat:
    if data is None:
        return TextFormat()
    return JsonSchemaFormat(**data["json_schema"]) if "json_schema" in data else JsonFormat()


def _sampling(data: dict[str, Any]) -> Sampling:
    return Sampling(**{**data, "stop_sequences": tuple(data.get("stop_sequences", ()))})


def _reasoning(data: dict[str, Any]) -> ReasoningSettings:
    effort = data.get("effort")
    return ReasoningSettings(
        ReasoningEffort(effort) if effort else None, data.get("budget_tokens"), data.get("include_thoughts")
    )


# -- values to neutral JSON ------------------------------------------------------------------------------------------


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """What a body became, as `expected.json` says it."""
    if outcome.answer is None:
        assert outcome.reason is not None
        return {"fault": outcome.reason.value, "metadata": outcome.metadata}
    return _answer_json(outcome.answer)


def _answer_json(answer: Answer) -> dict[str, Any]:
    assert answer.finish is not None
    found: dict[str, Any] = {"parts": [_part_json(part) for part in answer.parts]}
    if answer.usage is not None:
        usage = {name: getattr(answer.usage, name) for name in answer.usage.__slots__}
        usage["tool_requests"] = {found.tool: found.request_count for found in answer.usage.tool_requests} or None
        found["usage"] = {name: value for name, value in usage.items() if value is not None}
    if answer.charged_usd_nanos is not None:
        found["charged_usd_nanos"] = answer.charged_usd_nanos
    identity = answer.identity
    found["identity"] = [identity.request_id, identity.model, identity.backend]
    found["finish"] = [answer.finish.reason.value, answer.finish.provider_reason]
    return found


def _part_json(part: Part) -> dict[str, Any]:
    found = _kind_json(part.kind)
    if part.provider_state is not None:
        found["state"] = json.loads(part.provider_state.data)
    return found


def _kind_json(kind: PartKind) -> dict[str, Any]:
    match kind:
        case Text():
            citations = [_citation_json(citation) for citation in kind.citations]
            return {"text": kind.text, **({"citations": citations} if citations else {})}
        case Reasoning():
            return {"reasoning": kind.text}
        case ToolCall():
            return {"tool_call": {"id": kind.id, "name": kind.name, "arguments_json": kind.arguments_json}}
        case Media():
            source = {"uri": kind.uri} if kind.data is None else {"data": base64.b64encode(kind.data).decode()}
            return {"media": {"media_type": kind.media_type, **source}}
        case ProviderBlock():
            return {"provider": {"kind": kind.kind, "json": kind.json}}
        case ToolResult():
            raise AssertionError("an answer holds no tool result")


def _citation_json(citation: Citation) -> dict[str, Any]:
    found = {name: getattr(citation, name) for name in citation.__slots__}
    for name in ("source_span", "text_span"):
        if isinstance(found[name], Span):
            found[name] = [found[name].unit.value, found[name].start, found[name].end]
    return {name: value for name, value in found.items() if value is not None and value != ""}
