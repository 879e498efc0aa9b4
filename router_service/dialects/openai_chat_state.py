"""The opaque state of this dialect: a JSON object whose keys are the wire's own fields.

- `reasoning_details` (OpenRouter): the array, its streamed pieces joined, to be sent back unmodified;
- `reasoning_content` or `reasoning`: the text, for servers that want it back even where the caller hides it;
- `extra_content` (Gemini): a thought signature, of the message or of a tool call.

State comes back from the caller, who may have changed it: it is parsed before it goes into a request.
"""

import msgspec

from router_service.dialects.reading import NO_RAW, read_any, read_object

_JOINED = ("text", "summary", "data")


class ReasoningDetails:
    """The reasoning details of the part that is open."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: list[dict[str, object]] = []

    @property
    def has_news(self) -> bool:
        """Whether something came that no part has taken with it."""
        return bool(self._items)

    def add(self, pieces: list[msgspec.Raw]) -> None:
        """Takes the pieces of one chunk. A piece of the same kind and number as the last one continues it."""
        for raw in pieces:
            piece = read_any(raw)
            if not isinstance(piece, dict):
                continue
            last = self._items[-1] if self._items else None
            if last is None or not _continues(last, piece):
                self._items.append(piece)
                continue
            for name, value in piece.items():
                old = last.get(name)
                if name in _JOINED and isinstance(value, str):
                    last[name] = old + value if isinstance(old, str) else value
                elif value is not None:
                    last[name] = value

    @staticmethod
    def text_of(pieces: list[msgspec.Raw]) -> str:
        """The readable text in some pieces, for servers that repeat it nowhere else."""
        found = []
        for raw in pieces:
            piece = read_any(raw)
            if isinstance(piece, dict):
                text = piece.get("text") or piece.get("summary")
                found.append(text if isinstance(text, str) else "")
        return "".join(found)

    def take(self) -> list[dict[str, object]]:
        """All details so far; from here on they are counted anew."""
        items, self._items = self._items, []
        return items


def _continues(last: dict[str, object], piece: dict[str, object]) -> bool:
    if last.get("type") != piece.get("type") or last.get("index") != piece.get("index"):
        return False
    if piece.get("type") == "reasoning.encrypted":
        return False  # each is whole
    return piece.get("id") in {None, last.get("id")} or last.get("id") is None


def reasoning_state(details: list[dict[str, object]], text: str, replay_field: str, extra: msgspec.Raw) -> bytes | None:
    """The state of a reasoning part."""
    state: dict[str, object] = {}
    if details:
        state["reasoning_details"] = details
    if replay_field and text:
        state[replay_field] = text
    if extra is not NO_RAW:
        state["extra_content"] = extra
    return msgspec.json.encode(state) if state else None


def value_state(name: str, raw: msgspec.Raw) -> bytes:
    """A state of one field, its value as it came."""
    return msgspec.json.encode({name: raw})


def read_state(data: bytes) -> dict[str, msgspec.Raw]:
    """The fields of a state that came back; empty when it is not one of this dialect."""
    return read_object(data) or {}
