"""What the benchmark says: the raw figures of each peer and, for each bar, whether it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median

from tests.bench.load import Cost, Lateness, Samples, pooled
from tests.bench.names import CREDITS, DIRECT, KEYSWITCH, LITELLM, PIPE

COST_TITLES = {
    "unary": "CPU per unary request",
    "paced": "CPU per event, paced 20 ms",
    "burst": "CPU per event, burst",
}


@dataclass
class Figures:
    """Everything that was measured of one peer, one entry per round."""

    costs: dict[str, list[Cost]] = field(default_factory=dict)
    unary_millis: list[Samples] = field(default_factory=list)
    lateness: list[Lateness] = field(default_factory=list)
    cancels_millis: list[Samples] = field(default_factory=list)
    slow_rates: list[float] = field(default_factory=list)
    rss_idle_bytes: int = 0
    rss_after_bytes: int = 0
    start_seconds: list[float] = field(default_factory=list)
    start_all_seconds: list[float] = field(default_factory=list)
    import_seconds: list[float] = field(default_factory=list)
    open_streams: tuple[int, int, int, Samples] | None = None

    def cost(self, kind: str) -> float | None:
        """Median of the rounds, in microseconds."""
        costs = self.costs.get(kind)
        return median(cost.micros_per_unit for cost in costs) if costs else None

    def first(self) -> Samples:
        return pooled(late.first for late in self.lateness)

    def token(self) -> Samples:
        return pooled(late.token for late in self.lateness)

    def unary(self) -> Samples:
        return pooled(self.unary_millis)


@dataclass(frozen=True)
class Row:
    """One bar; `held` is None where what it needs was not measured."""

    bar_id: str
    what: str
    bar: str
    figure: str
    held: bool | None

    def verdict(self) -> str:
        return {True: "holds", False: "falls short", None: "not measured"}[self.held]


def _micros(value: float | None) -> str:
    return "—" if value is None else f"{value:,.0f} µs" if value >= 100 else f"{value:.1f} µs"


def _credits_row(all_figures: Mapping[str, Figures]) -> Row:
    own, pipe = (all_figures[name].cost("unary") if name in all_figures else None for name in (CREDITS, PIPE))
    return _over_pipe("F1b", "the same, credits, on PostgreSQL and Redis", 2.6, own, pipe)


def _cost_rows(all_figures: Mapping[str, Figures]) -> Iterator[Row]:
    bars: tuple[tuple[str, str, float | None, float | None, int], ...] = (
        ("F1", "unary", 1.6, None, 12),
        ("F2", "paced", 1.3, None, 8),
        ("F3", "burst", None, 8.0, 50),
    )
    for bar_id, kind, pipe_ratio, absolute, litellm_part in bars:
        own, pipe, litellm = (
            all_figures[name].cost(kind) if name in all_figures else None for name in (KEYSWITCH, PIPE, LITELLM)
        )
        what = COST_TITLES[kind]
        if pipe_ratio is not None:
            yield _over_pipe(bar_id, what, pipe_ratio, own, pipe)
        if absolute is not None:
            yield Row(bar_id, what, f"≤ {absolute:.0f} µs", _micros(own), None if own is None else own <= absolute)
        part = litellm / own if own and litellm is not None else None
        figure = "—" if part is None else f"1/{part:.1f} ({_micros(own)} / {_micros(litellm)})"
        held = None if part is None else part >= litellm_part
        yield Row(bar_id, what, f"≤ 1/{litellm_part} of LiteLLM", figure, held)
        if bar_id == "F1":
            yield _credits_row(all_figures)


def _over_pipe(bar_id: str, what: str, bar: float, own: float | None, pipe: float | None) -> Row:
    ratio = own / pipe if own is not None and pipe else None
    figure = "—" if ratio is None else f"{ratio:.2f} × ({_micros(own)} / {_micros(pipe)})"
    return Row(bar_id, what, f"≤ {bar} × bare pipe", figure, None if ratio is None else ratio <= bar)


def _added(bar_id: str, what: str, bar_millis: float, own: Samples, direct: Samples) -> Row:
    if not own.values or not direct.values:
        return Row(bar_id, what, f"≤ {bar_millis} ms", "—", None)
    added = own.p99() - direct.p99()
    figure = f"{added:.2f} ms ({own.p99():.2f} − {direct.p99():.2f})"
    return Row(bar_id, what, f"≤ {bar_millis} ms", figure, added <= bar_millis)


def _bound(bar_id: str, what: str, bar: str, value: float | None, limit: float, unit: str) -> Row:
    if value is None:
        return Row(bar_id, what, bar, "—", None)
    return Row(bar_id, what, bar, f"{value:.2f} {unit}", value <= limit)


def rows(all_figures: Mapping[str, Figures]) -> list[Row]:
    """One row per bar, in the order of their ids."""
    own, direct = all_figures.get(KEYSWITCH, Figures()), all_figures.get(DIRECT, Figures())
    cancels = pooled(own.cancels_millis)
    start = median(own.start_seconds) if own.start_seconds else None
    start_all = median(own.start_all_seconds) if own.start_all_seconds else None
    imported = median(own.import_seconds) if own.import_seconds else None
    found = [
        *_cost_rows(all_figures),
        _added("F4", "added p99, unary, one at a time", 2, own.unary(), direct.unary()),
        _added("F4", "added time to first token p99", 2, own.first(), direct.first()),
        _added("F4", "added per-token p99", 0.2, own.token(), direct.token()),
    ]
    if own.open_streams is not None:
        count, before, held, first = own.open_streams
        each = (held - before) / count / 1024
        found.append(_bound("F6", f"{count} open streams, each", "≤ 60 KB", each, 60, "KB"))
        found.append(_bound("F6", "first token of the next p99", "≤ 50 ms", first.p99(), 50, "ms"))
    cancel = cancels.p99() if cancels.values else None
    found.append(_bound("F10", "cancel → upstream closed p99", "≤ 50 ms", cancel, 50, "ms"))
    found.append(_bound("F11", "cold start to first completion, router", "≤ 2 s", start, 2, "s"))
    found.append(_bound("F11", "the same, both services started at once", "≤ 2 s", start_all, 2, "s"))
    found.append(_bound("F11", "import", "≤ 0.8 s", imported, 0.8, "s"))
    return found


def _table(lines: list[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join((padded[0], rule, *padded[1:]))


def _raw(name: str, figures: Figures, direct: Figures) -> tuple[str, ...]:
    def late(samples: Samples, base: Samples) -> str:
        return f"{samples.median() - base.median():.2f} ms" if samples.values and base.values else "—"

    rate = f"{median(figures.slow_rates):,.0f}" if figures.slow_rates else "—"
    rss = (
        f"{figures.rss_idle_bytes / 1e6:.0f} / {figures.rss_after_bytes / 1e6:.0f} MB"
        if figures.rss_idle_bytes
        else "—"
    )
    costs = (_micros(figures.cost(kind)) for kind in COST_TITLES)
    return (name, *costs, late(figures.unary(), direct.unary()), late(figures.first(), direct.first()), rate, rss)


def write(all_figures: Mapping[str, Figures]) -> str:
    """The two tables as Markdown."""
    direct = all_figures.get(DIRECT, Figures())
    titles = ("peer", *COST_TITLES.values(), "added p50, unary", "added TTFT p50", "req/s at 20 ms", "RSS idle / after")
    raw = [titles, *(_raw(name, figures, direct) for name, figures in all_figures.items())]
    verdicts: list[tuple[str, ...]] = [("id", "what", "bar", "measured", "verdict")]
    verdicts.extend((row.bar_id, row.what, row.bar, row.figure, row.verdict()) for row in rows(all_figures))
    return f"{_table(raw)}\n\n{_table(verdicts)}"
