"""An answer goes back in the next request: to its own provider with its state, to a stranger without it."""

import json
from typing import Any

import pytest

from router_service.core.content import Media, Message, Part, ProviderBlock, Reasoning, Role, Text, ToolCall, ToolResult
from router_service.core.request import Completion, WarningReason
from router_service.dialects.base import Dialect, Encoded, Quirks
from router_service.dialects.registry import DIALECTS
from tests.suites.dialect_fixtures import fixtures
from tests.suites.dialect_suite import PROVIDER, Outcome, recordings, run
from tests.unit.dialects.test_wire_types import validate

FOLDERS = {
    "openai_chat": "openai-chat",
    "openai_responses": "openai-responses",
    "anthropic_messages": "anthropic-messages",
    "gemini": "gemini",
    "bedrock_converse": "bedrock-converse",
    "ollama_chat": "ollama-chat",
}
SEALS = ("signature", "thoughtSignature", "encrypted_content")
QUIRKS = Quirks(is_router_like=True, replay_reasoning_field="reasoning_content")


def bodies(name: str) -> list[bytes]:
    return [case.body for case in fixtures(name)] + [
        found.body for found in recordings(FOLDERS[name]) if found.status == 200
    ]


def outcomes(name: str) -> list[Outcome]:
    found = [run(DIALECTS[name], body, quirks=QUIRKS) for body in bodies(name)]
    return [outcome for outcome in found if outcome.answer is not None and outcome.answer.parts]


def has_whole_arguments(part: Part) -> bool:
    """A limit may cut a tool call; such a call cannot go back."""
    try:
        return not isinstance(part.kind, ToolCall) or isinstance(json.loads(part.kind.arguments_json), dict)
    except ValueError:
        return False


def send_back(dialect: Dialect, parts: tuple[Part, ...], provider: str) -> Encoded:
    calls = [part.kind for part in parts if isinstance(part.kind, ToolCall)]
    results = tuple(Part(ToolResult(call.id, (Text("done"),))) for call in calls)
    messages = [Message(Role.USER, (Part(Text("Hi")),)), Message(Role.ASSISTANT, parts)]
    if results:
        messages.append(Message(Role.TOOL, results))
    messages.append(Message(Role.USER, (Part(Text("Go on.")),)))
    return dialect.encode(Completion(model="m", provider=provider, messages=tuple(messages)), QUIRKS)


@pytest.mark.parametrize("name", DIALECTS)
def test_every_answer_goes_back_to_where_it_came_from(name: str) -> None:
    count = 0
    for outcome in outcomes(name):
        assert outcome.answer is not None
        parts = tuple(part for part in outcome.answer.parts if has_whole_arguments(part))
        encoded = send_back(DIALECTS[name], parts, PROVIDER)
        dropped = [notice.field for notice in encoded.warnings if notice.reason is WarningReason.CONTENT_DROPPED]
        assert not dropped or (name == "bedrock_converse" and all(path.endswith(".media") for path in dropped))
        wire = json.loads(encoded.body)
        if name == "openai_responses":
            check_items(parts, wire["input"])
            count += 1
            continue
        turns = wire["contents"] if name == "gemini" else wire["messages"]
        (written,) = [turn for turn in turns if turn["role"] in {"assistant", "model"}] or [{}]
        check_state(name, parts, written)
        if name == "anthropic_messages":
            check_anthropic_blocks(parts, written.get("content", []))
        count += 1
    assert count >= 5  # our own cases alone; the recordings add to them


def check_state(name: str, parts: tuple[Part, ...], written: dict[str, Any]) -> None:
    """What the state holds is somewhere in the message, unmodified."""
    for part in parts:
        if part.provider_state is None:
            continue
        state = json.loads(part.provider_state.data)
        if name == "gemini":
            signed = [found.get("thoughtSignature") for found in written["parts"]]
            pieces = state.get("pieces", [state])
            assert all(piece["thoughtSignature"] in signed for piece in pieces if "thoughtSignature" in piece)
        elif name == "openai_chat":
            for key in ("reasoning_details", "extra_content"):
                if key in state and isinstance(part.kind, Reasoning):
                    assert all(detail in written[key] for detail in state[key])
        elif name == "bedrock_converse":
            blocks = [block.get("reasoningContent") or block.get("citationsContent") for block in written["content"]]
            assert any(block and state.items() <= block.items() for block in blocks)
        elif isinstance(part.kind, Reasoning):
            assert state in written["content"]
        else:
            assert any(block.get("citations") == state["citations"] for block in written["content"])


def check_items(parts: tuple[Part, ...], items: list[dict[str, Any]]) -> None:
    """Reasoning, images and the provider's own items go back as they came, all in their order and with their ids."""
    wanted: list[tuple[str, Any]] = []
    for part in parts:
        state = json.loads(part.provider_state.data) if part.provider_state else {}
        match part.kind:
            case Reasoning() if state:
                wanted.append(("reasoning", state))
            case ToolCall(id=call_id):
                wanted.append(("function_call", call_id))
            case Media():
                wanted.append((state["type"], state["id"]))
            case ProviderBlock(kind=kind, json=block):
                wanted.append((kind, json.loads(block)))
            case _:
                pass
    found: list[tuple[str, Any]] = []
    for item in items:
        kind = item.get("type", "message")
        if kind not in {"message", "function_call_output"}:
            by_kind = {"function_call": item.get("call_id"), "image_generation_call": item.get("id")}
            is_whole = kind not in by_kind or "..." in item.get("result", "")  # an image that the recording cut
            found.append((kind, item if is_whole else by_kind[kind]))
    assert found == wanted
    back = [part.kind.text for part in parts if isinstance(part.kind, Text) and part.kind.text]
    texts = [item["content"] for item in items if item.get("role") == "assistant"]
    flat = [piece for text in texts for piece in ([text] if isinstance(text, str) else text)]
    sent = [piece if isinstance(piece, str) else piece.get("text") or piece.get("refusal") for piece in flat]
    assert [text for text in sent if text] == back


def check_anthropic_blocks(parts: tuple[Part, ...], blocks: list[dict[str, Any]]) -> None:
    """Blocks go back in their order, the provider's own byte for byte in meaning."""
    own = [json.loads(part.kind.json) for part in parts if isinstance(part.kind, ProviderBlock)]
    known = {"text", "thinking", "redacted_thinking", "tool_use"}
    assert [block for block in blocks if block["type"] not in known] == own


@pytest.mark.parametrize("name", DIALECTS)
def test_a_stranger_gets_the_words_but_not_the_state(name: str) -> None:
    other = DIALECTS["anthropic_messages" if name == "openai_chat" else "openai_chat"]
    for outcome in outcomes(name):
        assert outcome.answer is not None
        parts = tuple(part for part in outcome.answer.parts if has_whole_arguments(part))
        for dialect, provider in ((other, PROVIDER), (DIALECTS[name], "providers/stranger")):
            encoded = send_back(dialect, parts, provider)
            dropped = [notice.field for notice in encoded.warnings if notice.reason is WarningReason.CONTENT_DROPPED]
            with_state = [number for number, part in enumerate(parts) if part.provider_state is not None]
            for number in with_state:
                if dialect is other and isinstance(parts[number].kind, Media):
                    continue  # the other wires know no state of media and take or drop them as a whole
                assert f"messages[1].parts[{number}].provider_state" in dropped
            for part in parts:
                if part.provider_state is not None and isinstance(part.kind, Reasoning):
                    state = json.loads(part.provider_state.data)
                    signature = next((state[name] for name in SEALS if name in state), "")
                    assert not signature or signature.encode() not in encoded.body


def test_what_goes_back_fits_the_sdks_types() -> None:
    """Only Anthropic's own blocks: the other wire carries what its SDK does not know."""
    for case in fixtures("anthropic_messages"):
        outcome = run(DIALECTS["anthropic_messages"], case.body)
        if outcome.answer is not None:
            encoded = send_back(DIALECTS["anthropic_messages"], outcome.answer.parts, PROVIDER)
            validate("anthropic_messages", json.loads(encoded.body))


@pytest.mark.parametrize("name", ["gemini", "openai_responses"])
def test_the_sdk_takes_back_what_its_provider_said(name: str) -> None:
    for case in fixtures(name):
        outcome = run(DIALECTS[name], case.body)
        if outcome.answer is not None:
            parts = tuple(part for part in outcome.answer.parts if has_whole_arguments(part))
            encoded = send_back(DIALECTS[name], parts, PROVIDER)
            validate(name, json.loads(encoded.body))


PAIRS = [(source, target) for source in DIALECTS for target in DIALECTS if source != target]


def sendable(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Without what a wire refuses with a reason: media that the model made, and calls that a limit cut."""
    return tuple(part for part in parts if not isinstance(part.kind, Media) and has_whole_arguments(part))


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=str)
def test_a_conversation_moves_to_every_other_wire(source: str, target: str) -> None:
    """The words, the calls and their results go over; foreign state does not; the vendor's own types take the rest."""
    moved = 0
    for outcome in outcomes(source):
        assert outcome.answer is not None
        parts = sendable(outcome.answer.parts)
        encoded = send_back(DIALECTS[target], parts, "providers/another")
        wire = json.loads(encoded.body)
        validate(target, {"stream": True, **wire} if target in {"openai_chat", "openai_responses"} else wire)
        text = encoded.body.decode()
        for part in parts:
            match part.kind:
                case Text(text=said) if said.strip():
                    assert json.dumps(said, ensure_ascii=False)[1:-1] in text
                case ToolCall(name=name):
                    assert json.dumps(name) in text
                case _:
                    pass
            if part.provider_state is not None:
                state = json.loads(part.provider_state.data)
                seals = [state[name] for name in SEALS if isinstance(state.get(name), str)]
                assert not [seal for seal in seals if len(seal) > 16 and seal in text]
        moved += 1
    assert moved >= 5
