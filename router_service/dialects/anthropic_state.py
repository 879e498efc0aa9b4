"""The opaque state of this dialect: the block that goes back, or the part of it that ours has no field for.

State comes back from the caller, who may have changed it. So it is parsed and written anew, and only the kinds of
block that this dialect writes as state are accepted.
"""

import msgspec

from router_service.dialects.reading import read_object


class _Thinking(msgspec.Struct, tag="thinking"):
    thinking: str
    signature: str


class _Redacted(msgspec.Struct, tag="redacted_thinking"):
    data: str


class _Citations(msgspec.Struct):
    citations: list[msgspec.Raw]


_read_reasoning = msgspec.json.Decoder(_Thinking | _Redacted)
_read_citations = msgspec.json.Decoder(_Citations)


def thinking_state(text: str, signature: str) -> bytes | None:
    """The state of thinking; unsigned thinking cannot go back and has none."""
    return msgspec.json.encode(_Thinking(text, signature)) if signature else None


def redacted_state(data: str) -> bytes:
    """The state of thinking that the provider withheld."""
    return msgspec.json.encode(_Redacted(data))


def citations_state(citations: list[msgspec.Raw]) -> bytes | None:
    """The state of a text with sources."""
    return msgspec.json.encode(_Citations(citations)) if citations else None


def reasoning_block(state: bytes) -> msgspec.Raw | None:
    """The block that a state of reasoning stands for; None when it is none of ours."""
    try:
        return msgspec.Raw(msgspec.json.encode(_read_reasoning.decode(state)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def citations_of(state: bytes) -> list[msgspec.Raw]:
    """The raw citations of a text; empty when there are none."""
    try:
        found = _read_citations.decode(state).citations
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [raw for raw in found if read_object(raw) is not None]
