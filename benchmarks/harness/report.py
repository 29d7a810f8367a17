# SPDX-License-Identifier: Apache-2.0
"""Medians, spreads, ratios and the markdown table of a comparison."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from harness.workloads import PEAK_MEMORY_WORKLOAD, WORKLOADS

_MIB = 1024 * 1024


@dataclass
class Series:
    """All counted rounds of one engine on one workload."""

    workload: str
    engine: str
    samples: list[float] = field(default_factory=list)
    peak_rss_bytes: list[int] = field(default_factory=list)
    interference: list[float] = field(default_factory=list)
    engine_version: str = ""
    settings: str = ""
    error: str = ""

    @property
    def median(self) -> float:
        """Median over the rounds, in the workload's unit."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the range over the median: 0.1 means that all rounds lie within about 10 %."""
        return (max(self.samples) - min(self.samples)) / 2 / self.median


@dataclass(frozen=True)
class _Row:
    title: str
    higher_is_better: bool
    cells: dict[str, str]
    values: dict[str, float]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _row(workload: str, of_engine: dict[str, Series]) -> _Row:
    spec = WORKLOADS[workload]
    cells, values = {}, {}
    for engine, series in of_engine.items():
        if series.samples:
            values[engine] = series.median
            cells[engine] = f"{_number(series.median)} ± {series.spread:.0%}"
        else:
            cells[engine] = "refused"
    return _Row(f"{spec.title}, {spec.unit}", spec.higher_is_better, cells, values)


def _memory_row(of_engine: dict[str, Series]) -> _Row:
    values = {
        engine: statistics.median(series.peak_rss_bytes) / _MIB
        for engine, series in of_engine.items()
        if series.samples
    }
    cells = {engine: _number(value) for engine, value in values.items()}
    return _Row("peak memory at batch 1, MiB", False, cells, values)


def _ratio(row: _Row, subject: str, peer: str) -> str:
    """How many times better `subject` is: above 1 is in its favour, whatever the unit."""
    if subject not in row.values or peer not in row.values:
        return ""
    ratio = row.values[subject] / row.values[peer]
    return f"{ratio if row.higher_is_better else 1 / ratio:.2f}x"


def markdown(all_series: list[Series], engines: list[str], subject: str) -> str:
    """A row per workload, a column per engine, then how far `subject` is ahead of each peer."""
    by_workload: dict[str, dict[str, Series]] = {}
    for series in all_series:
        by_workload.setdefault(series.workload, {})[series.engine] = series
    rows = [_row(workload, of_engine) for workload, of_engine in by_workload.items()]
    if PEAK_MEMORY_WORKLOAD in by_workload:
        rows.append(_memory_row(by_workload[PEAK_MEMORY_WORKLOAD]))
    peers = [engine for engine in engines if engine != subject] if subject in engines else []
    head = ["", *engines, *(f"vs {peer}" for peer in peers)]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for row in rows:
        cells = [row.cells.get(engine, "") for engine in engines]
        cells += [_ratio(row, subject, peer) for peer in peers]
        lines.append("| " + " | ".join([row.title, *cells]) + " |")
    notes = {f"{s.engine}, {s.workload}: {s.error}" for s in all_series if s.error}
    return "\n".join([*lines, *(f"\n{note}" for note in sorted(notes))])
