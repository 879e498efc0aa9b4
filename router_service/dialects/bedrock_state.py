"""The opaque state of this dialect: the reasoning that goes back, or the sources of a text.

State comes back from the caller, who may have changed it. So it is parsed and written anew, and only what this dialect
writes as state is accepted.
"""

import base64
import binascii

import msgspec

from router_service.dialects.reading import read_object


class _ReasoningText(msgspec.Struct):
    text: str
    signature: str


class _Reasoning(msgspec.Struct, rename="camel", omit_defaults=True):
    reasoning_text: _ReasoningText | None = None
    redacted_content: str = ""


class _Citations(msgspec.Struct):
    citations: list[msgspec.Raw]


_read_reasoning = msgspec.json.Decoder(_Reasoning)
_read_citations = msgspec.json.Decoder(_Citations)


def reasoning_state(text: str, signature: str, redacted: bytes) -> bytes | None:
    """The state of reasoning. Unsigned reasoning has none: Claude refuses it, and the others do not ask for it."""
    if redacted:
        return msgspec.json.encode(_Reasoning(redacted_content=base64.b64encode(redacted).decode("ascii")))
    return msgspec.json.encode(_Reasoning(_ReasoningText(text, signature))) if signature else None


def citations_state(citations: list[msgspec.Raw]) -> bytes | None:
    """The state of a text with sources."""
    return msgspec.json.encode(_Citations(citations)) if citations else None


def reasoning_block(state: bytes) -> msgspec.Raw | None:
    """What goes back for a state of reasoning; None when it is none of ours."""
    try:
        found = _read_reasoning.decode(state)
        base64.b64decode(found.redacted_content, validate=True)
    except (msgspec.DecodeError, UnicodeError, RecursionError, binascii.Error, ValueError):
        return None
    if (found.reasoning_text is None) is (not found.redacted_content):
        return None
    return msgspec.Raw(msgspec.json.encode(found))


def citations_of(state: bytes) -> list[msgspec.Raw]:
    """The raw citations of a text; empty when there are none."""
    try:
        found = _read_citations.decode(state).citations
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [raw for raw in found if read_object(raw) is not None]
