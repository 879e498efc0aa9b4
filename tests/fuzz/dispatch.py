"""What the fuzzers of several targets share: the first byte says which of them reads the others."""

import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import atheris

Targets = Mapping[Callable[[bytes], None], tuple[type[Exception], ...]]
"""What reads bytes, and the errors that it may raise."""


def fuzz(targets: Targets, seeds: Iterable[bytes], *, most_bytes: int) -> None:
    """Fuzzes for as many seconds as the command's argument says."""
    pairs = list(targets.items())

    def read(data: bytes) -> None:
        if not data:
            return
        target, allowed = pairs[data[0] % len(pairs)]
        try:
            target(data[1:])
        except allowed:
            return

    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as folder:
        for at, seed in enumerate(seeds):
            for number in range(len(pairs)):
                (Path(folder) / f"{number}-{at}").write_bytes(bytes([number]) + seed)
        options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", f"-max_len={most_bytes}"]
        atheris.Setup([sys.argv[0], *options, "-verbosity=0", "-print_final_stats=1", folder], read)
        atheris.Fuzz()
