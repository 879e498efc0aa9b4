"""The opaque state of this dialect: what must go back with a part, and where in the part it was.

- `thoughtSignature` and `id` of a function call, of media, or of a text that came as one piece;
- `pieces` of a text in which only some pieces were signed: the provider asks not to join signed text with unsigned,
  so each piece keeps its length in code points and goes back by itself.

State comes back from the caller, who may have changed it: it is parsed before it goes into a request.
"""

import msgspec


class Piece(msgspec.Struct, omit_defaults=True, rename="camel"):
    """A run of text with one signature or with none."""

    chars: int
    thought_signature: str = ""


class State(msgspec.Struct, omit_defaults=True, rename="camel"):
    """What goes back with a part."""

    thought_signature: str = ""
    id: str = ""
    pieces: list[Piece] = []


_read_state = msgspec.json.Decoder(State)


def write_state(*, signature: str | None = None, call_id: str | None = None) -> bytes | None:
    """The state of a part that came whole; None when nothing must go back."""
    if not signature and not call_id:
        return None
    return msgspec.json.encode(State(thought_signature=signature or "", id=call_id or ""))


def read_state(data: bytes) -> State | None:
    """The state that came back; None when it is none of this dialect's."""
    try:
        return _read_state.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class SignedText:
    """Which pieces of the open text or reasoning were signed."""

    __slots__ = ("_pieces", "_unsigned_chars")

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._unsigned_chars = 0

    def add(self, text: str) -> None:
        """More text without a signature."""
        self._unsigned_chars += len(text)

    def sign(self, text: str, signature: str) -> None:
        """A piece with a signature of its own; it may have no text."""
        if self._unsigned_chars:
            self._pieces.append(Piece(self._unsigned_chars))
            self._unsigned_chars = 0
        self._pieces.append(Piece(len(text), signature))

    def take(self) -> bytes | None:
        """The state of the text that ends; from here on it is counted anew."""
        pieces, rest = self._pieces, self._unsigned_chars
        self._unsigned_chars = 0
        if not pieces:
            return None
        self._pieces = []
        if rest:
            pieces.append(Piece(rest))
        if len(pieces) == 1:
            return write_state(signature=pieces[0].thought_signature)
        return msgspec.json.encode(State(pieces=pieces))


def split_text(text: str, state: State) -> list[tuple[str, str]]:
    """The pieces that go back, each with its signature. A text that was edited goes back whole, with the last one."""
    if not state.pieces or any(piece.chars < 0 for piece in state.pieces):
        return [(text, state.thought_signature)]
    if sum(piece.chars for piece in state.pieces) != len(text):
        return [(text, next((p.thought_signature for p in reversed(state.pieces) if p.thought_signature), ""))]
    found: list[tuple[str, str]] = []
    at = 0
    for piece in state.pieces:
        found.append((text[at : at + piece.chars], piece.thought_signature))
        at += piece.chars
    return found
