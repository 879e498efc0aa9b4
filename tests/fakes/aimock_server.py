"""Someone else's mock of model providers, run as an upstream: its author read the wires without us."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "tools" / "aimock"
SCRIPT = FOLDER / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
_LISTENS = "listening on "


@contextmanager
def running_aimock(fixtures: Sequence[dict[str, Any]], home: Path) -> Iterator[str]:
    """Runs a server that answers as the fixtures say, and refuses what none of them is for; gives its origin."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise AssertionError("Node.js with npm is needed for the mock of model providers; install it")
    if not SCRIPT.is_file():
        subprocess.run([npm, "ci", "--silent"], cwd=FOLDER, check=True, timeout=110)
    path = home / "aimock.json"
    path.write_text(json.dumps({"fixtures": list(fixtures)}), encoding="utf-8")
    options = ["--port", "0", "--fixtures", str(path), "--strict", "--validate-on-load", "--log-level", "info"]
    process = subprocess.Popen(
        [node, str(SCRIPT), *options], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        while line and _LISTENS not in line:
            line = process.stdout.readline()
        if not line:
            raise AssertionError("the mock ended at once; run its cli.js by hand")
        yield line.rpartition(_LISTENS)[2].strip()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
