"""`python -m tests.fuzz SECONDS`: atheris drives every framer and decoder with bytes that grow out of the recordings.

A Fault is what broken bytes are for. Anything else that a decoder raises, an input that takes over ten seconds, and
more than 2 GiB of memory end the run with a failure, and libFuzzer leaves the input beside it.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["router_service.framing", "router_service.dialects"]):
    from router_service.core.faults import Fault
    from router_service.dialects.registry import DIALECTS
    from tests.suites.dialect_suite import decode, decode_body, texts_of

from tests.suites.dialect_fixtures import fixtures
from tests.suites.dialect_suite import recordings

NAMES = sorted(DIALECTS)
MOST_CORPUS_BYTES = 64 * 1024


def read(data: bytes) -> None:
    """Reads bytes as one dialect's answer: the first byte says whose, the second where they are cut."""
    if len(data) < 2:
        return
    dialect, cut, body = DIALECTS[NAMES[data[0] % len(NAMES)]], 1 + data[1], data[2:]
    pieces = [body[at : at + cut] for at in range(0, len(body), cut)]
    for way in (lambda: decode(dialect, pieces), lambda: decode_body(dialect, body)):
        try:
            events = way()  # type: ignore[no-untyped-call] # a lambda has no annotation
        except Fault:
            continue
        for text in texts_of(events):
            text.encode()  # whole code points
    dialect.decode_error(400 + data[1], {}, body)


def write_corpus(folder: Path) -> int:
    """What the fuzzer begins with."""
    bodies = [(name, case.body) for name in NAMES for case in fixtures(name)]
    bodies += [(name, one.body) for name in NAMES for one in recordings(name.replace("_", "-"))]
    small = [(NAMES.index(name), body) for name, body in bodies if len(body) <= MOST_CORPUS_BYTES]
    for number, (index, body) in enumerate(small):
        (folder / str(number)).write_bytes(bytes([index, 80]) + body)
    return len(small)


def main() -> None:
    """Fuzzes for so many seconds."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as folder:
        print(f"{write_corpus(Path(folder))} bodies to begin with, {', '.join(NAMES)}")
        options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=65536", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", folder], read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
