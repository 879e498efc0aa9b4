"""The report's arithmetic: which bar holds, and that an unmeasured one never does."""

from __future__ import annotations

import pytest

from tests.bench.load import Cost, Lateness, Samples
from tests.bench.names import CREDITS, DIRECT, KEYSWITCH, LITELLM, PIPE
from tests.bench.report import Figures, rows, write


def _figures(unary: float, paced: float, burst: float) -> Figures:
    micros = {"unary": unary, "paced": paced, "burst": burst}
    return Figures(costs={kind: [Cost(value / 1e6, 1.0, 1)] for kind, value in micros.items()})


@pytest.fixture
def measured() -> dict[str, Figures]:
    return {
        DIRECT: Figures(),
        PIPE: _figures(300, 100, 40),
        KEYSWITCH: _figures(480, 140, 8),
        CREDITS: Figures(costs={"unary": [Cost(810 / 1e6, 1.0, 1)]}),
        LITELLM: _figures(9600, 1000, 600),
    }


def test_ratios_are_judged_against_the_peers_of_the_run(measured: dict[str, Figures]) -> None:
    verdicts = [(row.bar_id, row.figure.split(" (")[0], row.held) for row in rows(measured)[:7]]
    assert verdicts == [
        ("F1", "1.60 ×", True),
        ("F1", "1/20.0", True),
        ("F1b", "2.70 ×", False),
        ("F2", "1.40 ×", False),
        ("F2", "1/7.1", False),
        ("F3", "8.0 µs", True),
        ("F3", "1/75.0", True),
    ]


def test_added_time_is_over_the_upstream_alone(measured: dict[str, Figures]) -> None:
    measured[DIRECT].unary_millis = [Samples([1.0, 1.5])]
    measured[KEYSWITCH].unary_millis = [Samples([2.0, 3.0]), Samples([3.4])]
    measured[DIRECT].lateness = [Lateness(Samples([1.0]), Samples([0.1]))]
    measured[KEYSWITCH].lateness = [Lateness(Samples([4.0]), Samples([0.2]))]
    added = {row.what: row.held for row in rows(measured) if row.bar_id == "F4"}
    assert list(added.values()) == [True, False, True]


def test_what_was_not_measured_has_no_verdict(measured: dict[str, Figures]) -> None:
    del measured[KEYSWITCH], measured[CREDITS]
    assert {row.verdict() for row in rows(measured)} == {"not measured"}
    assert "holds" not in write(measured)


def test_an_open_stream_is_judged_by_its_share(measured: dict[str, Figures]) -> None:
    measured[KEYSWITCH].open_streams = (100, 50 * 1024**2, 50 * 1024**2 + 100 * 61 * 1024, Samples([10.0]))
    held = {row.what: row.held for row in rows(measured) if row.bar_id == "F6"}
    assert list(held.values()) == [False, True]


def test_the_median_of_the_rounds_counts() -> None:
    figures = Figures(costs={"unary": [Cost(v / 1e6, 1.0, 1) for v in (100, 900, 110)]})
    assert figures.cost("unary") == pytest.approx(110)


def test_p99_of_few_values_is_the_largest() -> None:
    assert Samples([3.0, 1.0, 2.0]).p99() == 3.0
    assert Samples([float(n) for n in range(200)]).p99() == 198.0
