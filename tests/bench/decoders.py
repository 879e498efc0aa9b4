"""`python -m tests.bench.decoders`: what framing and decoding cost per event, by dialect, over the recorded streams."""

import statistics
import time

from router_service.core.faults import Fault
from router_service.dialects.base import Dialect
from router_service.dialects.registry import DIALECTS
from tests.suites.dialect_suite import QUIRKS, framer_of, is_whole_json, recordings

ROUNDS = 15
PIECE_BYTES = 16 * 1024  # about what a read of a socket gives


def read_once(dialect: Dialect, body: bytes) -> tuple[int, int]:
    """Reads a body to its end: how many frames and how many events it had."""
    framer, decoder = framer_of(dialect), dialect.decoder(QUIRKS)
    frames = events = 0
    for at in range(0, len(body), PIECE_BYTES):
        for frame in framer.feed(body[at : at + PIECE_BYTES]):
            frames += 1
            events += len(decoder.feed(frame))
    for frame in framer.close():
        frames += 1
        events += len(decoder.feed(frame))
    events += len(decoder.close())
    return frames, events


def sound_streams(dialect: Dialect) -> list[bytes]:
    """The recorded streams of a dialect that are whole answers."""
    found = []
    for recording in recordings(dialect.name.replace("_", "-")):
        if recording.status != 200 or is_whole_json(recording.body, dialect.framing):
            continue
        try:
            read_once(dialect, recording.body)
        except Fault:
            continue
        found.append(recording.body)
    return found


def measure(dialect: Dialect, bodies: list[bytes]) -> tuple[int, float, float]:
    """All frames of the bodies, and the median CPU microseconds per frame and per event."""
    frames = events = 0
    seconds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        counted = [read_once(dialect, body) for body in bodies]
        seconds.append(time.process_time() - started)
        frames, events = sum(one[0] for one in counted), sum(one[1] for one in counted)
    median = statistics.median(seconds) * 1e6
    return frames, median / frames, median / events


def main() -> None:
    """Prints a row per dialect."""
    print("| dialect | streams | frames | µs per frame | µs per event |")
    print("|---|---|---|---|---|")
    for name, dialect in DIALECTS.items():
        bodies = sound_streams(dialect)
        if not bodies:
            print(f"| {name} | 0 | not measured | not measured | not measured |")
            continue
        frames, per_frame, per_event = measure(dialect, bodies)
        print(f"| {name} | {len(bodies)} | {frames} | {per_frame:.1f} | {per_event:.1f} |")


if __name__ == "__main__":
    main()
