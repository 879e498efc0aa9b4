"""The opaque state of this dialect: what must go back with a part, and where ours has no field for it.

- of reasoning: its whole item, as it came;
- of a text: its message's id and phase, its raw annotations, and whether it was a refusal;
- of a tool call: its id and namespace;
- of an image that the model made: its item without the bytes, which the part itself has.

The provider pairs a message or a call by id with the reasoning before it, and refuses the one without the other. So
each remembers whose it is (`reasoning`), and its id goes back only behind that.

State comes back from the caller, who may have changed it: it is parsed before it goes into a request.
"""

import msgspec

from router_service.dialects.reading import read_object


class State(msgspec.Struct, omit_defaults=True):
    """What goes back with a text or a tool call."""

    id: str = ""
    reasoning: str = ""
    phase: str = ""
    namespace: str = ""
    is_refusal: bool = False
    annotations: list[msgspec.Raw] = []


class _ReasoningItem(msgspec.Struct, tag="reasoning"):
    id: str | None = None
    encrypted_content: str | None = None
    content: list[msgspec.Raw] | None = None


class _ImageItem(msgspec.Struct, tag="image_generation_call"):
    id: str | None = None


_read_state = msgspec.json.Decoder(State)
_read_reasoning = msgspec.json.Decoder(_ReasoningItem)
_read_image = msgspec.json.Decoder(_ImageItem)


def write_state(state: State) -> bytes | None:
    """The state of a text or a call; None when nothing must go back."""
    return msgspec.json.encode(state) if state != State() else None


def read_state(data: bytes | None) -> State:
    """The state that came back; empty where there is none or it is none of ours."""
    try:
        found = _read_state.decode(data or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return State()
    found.annotations = [raw for raw in found.annotations if read_object(raw) is not None]
    return found


def reasoning_state(item: msgspec.Raw, *, is_stored: bool) -> bytes | None:
    """The state of reasoning. An item that holds only an id says nothing to a provider that did not store it."""
    try:
        found = _read_reasoning.decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not found.encrypted_content and not found.content and not (is_stored and found.id):
        return None
    return _without(item, None)


def reasoning_item(state: bytes) -> tuple[str, msgspec.Raw] | None:
    """The id and the item that a state of reasoning stands for; None when it is none of ours."""
    try:
        found = _read_reasoning.decode(state)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.id or "", msgspec.Raw(state)


def image_state(item: msgspec.Raw) -> bytes:
    """The state of an image that the model made."""
    return _without(item, "result")


def image_item(state: bytes | None) -> dict[str, object] | None:
    """The item of an image, its bytes not yet in it; None when the state is none of ours."""
    try:
        _read_image.decode(state or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return dict(read_object(state or b"") or {})


def _without(item: msgspec.Raw, key: str | None) -> bytes:
    """An item without one field, and without the empty ones: the provider writes nulls that it does not read."""
    fields = read_object(item) or {}
    return msgspec.json.encode({name: raw for name, raw in fields.items() if name != key and bytes(raw) != b"null"})
