"""Canaries: made-up secrets, every form in which one could get out, and the search for all of them.

A search looks for pieces of a canary's random part, not for the whole: what was cut, lower-cased or stripped of its
awkward characters is found as well. The pieces leave out the first and the last characters, which a fingerprint shows.
"""

import base64
import json
import secrets
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PIECE_CHARACTERS = 12
EDGE_CHARACTERS = 5
AWKWARD = "+/=_-.&%<>{}\\~$"

Encode = Callable[[str], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Canary:
    """A secret and what it stands for. `core` is its random part."""

    name: str
    value: str = field(repr=False)
    core: tuple[str, ...] = field(repr=False)


def make_key(name: str, prefix: str = "sk-") -> Canary:
    """A provider's key with a shape that is common and characters that are awkward to carry."""
    first, second = (secrets.token_hex(12) + secrets.token_urlsafe(3).replace("_", "A") for _ in range(2))
    first, second = (_mix(text) for text in (first, second))
    return Canary(name, f"{prefix}{first}{AWKWARD}{second}", (first, second))


def token_canary(name: str, token: str) -> Canary:
    """A caller's token. Its header says nothing, its claims are known to many; the signature is what must not show."""
    return Canary(name, token, (token.rpartition(".")[2],))


def _mix(text: str) -> str:
    return "".join(one.upper() if secrets.randbits(1) else one for one in text if one.isalnum())


def pieces(canary: Canary) -> tuple[str, ...]:
    """The parts of a canary that are looked for."""
    found: list[str] = []
    for core in canary.core:
        inner = core[EDGE_CHARACTERS : len(core) - EDGE_CHARACTERS]
        found += [inner[:PIECE_CHARACTERS], inner[-PIECE_CHARACTERS:]]
    return tuple(dict.fromkeys(found))


def _base64_of(encode: Callable[[bytes], bytes], piece: bytes) -> Iterable[str]:
    """The three ways in which a piece can stand inside a longer text; what its neighbours decide is left out."""
    for offset in range(3):
        encoded = encode(b"\0" * offset + piece).decode().rstrip("=")
        first = -(-offset * 8 // 6)
        last = (offset + len(piece)) * 8 // 6
        yield encoded[first:last]


FORMS: Mapping[str, Encode] = {
    "raw": lambda text: [text],
    "lower case": lambda text: [text.lower()],
    "upper case": lambda text: [text.upper()],
    "reversed": lambda text: [text[::-1]],
    "base64": lambda text: _base64_of(base64.b64encode, text.encode()),
    "base64url": lambda text: _base64_of(base64.urlsafe_b64encode, text.encode()),
    "hex": lambda text: [text.encode().hex()],
    "HEX": lambda text: [text.encode().hex().upper()],
    "url": lambda text: ["".join(f"%{byte:02x}" for byte in text.encode())],
    "URL": lambda text: ["".join(f"%{byte:02X}" for byte in text.encode())],
    "json": lambda text: ["".join(f"\\u{ord(one):04x}" for one in text)],
    "JSON": lambda text: ["".join(f"\\u{ord(one):04X}" for one in text)],
}


def whole_forms(value: str) -> Mapping[str, bytes]:
    """The whole secret in each form, as a careless program would have written it."""
    return {
        "raw": value.encode(),
        "lower case": value.lower().encode(),
        "upper case": value.upper().encode(),
        "reversed": value[::-1].encode(),
        "base64": base64.b64encode(value.encode()),
        "base64 of a longer text": base64.b64encode(f"x{value}".encode()),
        "base64 of a still longer text": base64.b64encode(f"xy{value}".encode()),
        "base64url": base64.urlsafe_b64encode(f"Bearer {value}".encode()),
        "hex": value.encode().hex().encode(),
        "HEX": value.encode().hex().upper().encode(),
        "url": urllib.parse.quote(value, safe="").encode(),
        "URL": "".join(f"%{byte:02X}" for byte in value.encode()).encode(),
        "json": json.dumps(value).encode(),
        "JSON": "".join(f"\\u{ord(one):04X}" for one in value).encode(),
        "repr": repr(value.encode()).encode(),
        "cut": value[: len(value) // 2].encode(),
    }


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a canary was found. Names no part of it."""

    sink: str
    canary: str
    form: str

    def __str__(self) -> str:
        return f"{self.canary} in {self.sink} ({self.form})"


@dataclass(slots=True)
class Scanner:
    """Looks for canaries in sinks and keeps count, so that a search of nothing shows."""

    canaries: list[Canary] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    sinks: dict[str, int] = field(default_factory=dict)
    bytes_scanned: int = 0
    _needles: list[tuple[bytes, str, str]] = field(default_factory=list, repr=False)
    _values: dict[str, bytes] = field(default_factory=dict, repr=False)

    def add(self, *canaries: Canary) -> None:
        """Looks for these as well, from now on."""
        for canary in canaries:
            self.canaries.append(canary)
            self._values[canary.name] = canary.value.encode()
            found = {
                needle.encode(): form
                for form, encode in reversed(list(FORMS.items()))
                for piece in pieces(canary)
                for needle in encode(piece)
            }
            self._needles += [(needle, canary.name, form) for needle, form in found.items()]

    def add_key(self, name: str, value: bytes) -> None:
        """Looks for a key of bytes, which no text is, as well."""
        self._values[name] = value
        for piece in (value[:PIECE_CHARACTERS], value[-PIECE_CHARACTERS:]):
            hexed, reverse = piece.hex(), piece[::-1]
            forms = {"raw": piece, "reversed": reverse, "hex": hexed.encode(), "HEX": hexed.upper().encode()}
            self._needles += [(needle, name, form) for form, needle in forms.items()]
            for form, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
                self._needles += [(needle.encode(), name, form) for needle in _base64_of(encode, piece)]

    def scan(self, kind: str, sink: str, data: bytes) -> list[Hit]:
        """Searches one sink; `kind` is what is counted."""
        self.sinks[kind] = self.sinks.get(kind, 0) + 1
        self.bytes_scanned += len(data)
        found = [
            hit
            for hit in dict.fromkeys(Hit(sink, name, form) for needle, name, form in self._needles if needle in data)
            if hit not in self.hits
        ]
        self.hits += found
        return found

    def scan_files(self, kind: str, folder: Path, rightful: Mapping[str, str]) -> None:
        """Searches every file below a folder, hidden ones and their names included.

        `rightful` names the files that hold a caller's token by purpose, each with the canary that it may hold.
        """
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            self.scan(f"{kind} names", f"{kind}: a file's name", name.encode())
            if not path.is_file():
                continue
            data = path.read_bytes()
            if name in rightful:
                data = data.replace(self._values[rightful[name]], b"")
            self.scan(kind, f"{kind}: {name}", data)

    def scan_process(self, name: str, process_id: int, rightful: str = "") -> None:
        """Searches what the system shows of a process. Root may read it although the process is not dumpable.

        `rightful` is a secret that the operator put into its environment.
        """
        for file in ("environ", "cmdline"):
            data = Path(f"/proc/{process_id}/{file}").read_bytes()
            assert data, f"/proc/{process_id}/{file} of {name} shows nothing: it cannot be searched"
            self.scan("/proc", f"/proc of {name}: {file}", data.replace(rightful.encode(), b"") if rightful else data)

    def report(self) -> str:
        """The counts, for people."""
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(self.sinks.items()))
        return (
            f"{len(self._values)} canaries, {len(self._needles)} needles; {counted}; {self.bytes_scanned:,} bytes; "
            f"{len(self.hits)} hits"
        )
