"""Promise 19: what was acknowledged is there after a kill, however often and whenever it comes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.promises import count, tried

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(count(400, 1700))
def test_what_was_acknowledged_outlives_every_kill(tmp_path: Path) -> None:
    kills = count(25, 1_000)
    command = [sys.executable, "-m", "tests.security.crash_loop", str(tmp_path), str(kills), "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["missing"] == []
    acknowledged = said["acknowledged"]
    for kind in ("put", "rotate", "token", "token revoked", "organization", "credits"):
        assert acknowledged[kind] > 0, kind
    counts = {kind.replace(" ", "_"): number for kind, number in acknowledged.items()}
    tried(19, "kill -9 of writers to the embedded store, ledger and configuration", kills=kills, missing=0, **counts)
