"""The last lines of a run over recordings: passed / all per dialect, those without a dialect here included."""

import json
from collections import defaultdict
from collections.abc import Mapping

import pytest

from tests.suites.dialect_suite import recordings_folder


def count_passed(reports: Mapping[str, bool], ids_by_dialect: Mapping[str, frozenset[str]]) -> list[str]:
    """One line per dialect: a recording has passed when it was tested, and no test of it failed."""
    lines = []
    for dialect, ids in sorted(ids_by_dialect.items()):
        passed = sum(reports.get(found, False) for found in ids)
        lines.append(f"{dialect}: {passed}/{len(ids)}")
    return lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints them where a run had recordings in it."""
    folder = recordings_folder()
    outcomes: dict[str, bool] = {}
    for kind in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(kind):
            if "/test_recordings_" in report.nodeid and report.nodeid.endswith("]"):
                recording = report.nodeid.partition("[")[2][:-1]
                outcomes[recording] = outcomes.get(recording, True) and kind == "passed"
    if folder is None or not outcomes:
        return
    by_dialect: dict[str, set[str]] = defaultdict(set)
    for case in json.loads((folder / "index.json").read_text())["cases"]:
        by_dialect[case["dialect"]].add(case["id"])
    terminalreporter.section("recordings: passed / all")
    for line in count_passed(outcomes, {dialect: frozenset(ids) for dialect, ids in by_dialect.items()}):
        terminalreporter.write_line(line)
