# SPDX-License-Identifier: Apache-2.0
"""A run or a sweep as a text table and as one HTML file without anything from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from manymind.load.plots import Line, chart
from manymind.load.statistics import METRICS

_CURVE_POINTS = 100
_NAMES = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "gap between pieces",
    "e2e": "whole answer",
}
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--paper:#fff;--rule:#d9dee6}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--paper:#151a21;--rule:#353d49}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:1000px;margin:2rem auto;padding:0 1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--rule)}
td{white-space:nowrap}th:first-child,td:first-child{text-align:left}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:1.5rem}
svg{width:100%;font-size:11px}svg text{fill:currentColor}
svg .title{font-size:14px;font-weight:600}
.grid{stroke:var(--rule)}.line{fill:none;stroke-width:2}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;padding:0;margin:0;
font-size:12px}
.legend span{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
"""


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        name: what distinguishes it, such as "concurrency 8".
        load: its number on the axis of loads.
        result: of ``statistics.summary``.
        samples: of ``statistics.samples``.
    """

    name: str
    load: float
    result: dict[str, Any]
    samples: dict[str, list[float]]


def as_text(points: Sequence[Point]) -> str:
    """A block per run."""
    return "\n\n".join(_block(point) for point in points)


def _block(point: Point) -> str:
    result = point.result
    lines = [
        f"{point.name}: {result['completed']} completed, {result['refused']} refused, "
        f"{result['failed']} failed in {result['seconds']:.2f} s",
        f"requests/s {result['requests_per_second']:9.2f}   goodput/s "
        f"{result['goodput_per_second']:9.2f} ({result['good_share']:.0%})   "
        f"most in flight {result['most_in_flight']}",
        f"output tokens/s {result['output_tokens_per_second']:9.1f}   total tokens/s "
        f"{result['total_tokens_per_second']:9.1f}   prompt tokens {result['prompt_tokens']} "
        f"({result['cached_tokens']} cached)",
    ]
    for name in METRICS:
        found = result[f"{name}_ms"]
        if found is not None:
            cells = "  ".join(f"{key} {value:9.2f}" for key, value in found.items())
            lines.append(f"{name.upper():4} ms  {cells}")
    lines += [f"error ({count}x): {error}" for error, count in result["errors"]]
    return "\n".join(lines)


def as_html(title: str, settings: dict[str, Any], axis: str, points: Sequence[Point]) -> str:
    """The report; ``axis`` names the loads."""
    ordered = sorted(points, key=lambda point: point.load)
    charts = _sweep_charts(axis, ordered) if len(points) > 1 else []
    charts += [_distribution(name, ordered) for name in METRICS]
    figures = "".join(f"<figure>{item}</figure>" for item in charts)
    shown = escape(json.dumps(settings, indent=2, default=str))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}figure{{margin:0}}</style></head><body>"
        f"<h1>{escape(title)}</h1>{_table(points)}"
        f'<div class="charts">{figures}</div><h2>Settings</h2><pre>{shown}</pre></body></html>\n'
    )


def _table(points: Sequence[Point]) -> str:
    head = ["run", "completed", "refused", "failed", "requests/s", "goodput/s", "tokens/s"]
    head += [f"{name.upper()} {part} ms" for name in METRICS for part in ("p50", "p99")]
    rows = []
    for point in points:
        result = point.result
        cells = [point.name, *(str(result[name]) for name in ("completed", "refused", "failed"))]
        rates = ("requests_per_second", "goodput_per_second", "output_tokens_per_second")
        cells += [f"{result[name]:.2f}" for name in rates]
        for name in METRICS:
            found = result[f"{name}_ms"]
            cells += [f"{found[part]:.1f}" if found else "-" for part in ("p50", "p99")]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _sweep_charts(axis: str, points: Sequence[Point]) -> list[str]:
    def curve(name: str, key: str) -> Line:
        return Line(name, [(point.load, point.result[key]) for point in points])

    rates = [curve("completed", "requests_per_second"), curve("good", "goodput_per_second")]
    charts = [
        chart("Throughput", axis, "requests/s", rates),
        chart("Tokens", axis, "output tokens/s", [curve("output", "output_tokens_per_second")]),
    ]
    for name in ("ttft", "tpot", "e2e"):
        lines = []
        for part in ("p50", "p90", "p99"):
            rows = [(point.load, point.result[f"{name}_ms"]) for point in points]
            lines.append(Line(part, [(load, row[part]) for load, row in rows if row]))
        charts.append(chart(f"{name.upper()}: {_NAMES[name]}", axis, "ms", lines))
    return charts


def _distribution(name: str, points: Sequence[Point]) -> str:
    lines = [Line(point.name, _shares(point.samples[name]), marks=False) for point in points]
    title = f"{name.upper()}: {_NAMES[name]}, distribution"
    return chart(title, "ms", "% of samples", [line for line in lines if line.points])


def _shares(ordered: Sequence[float]) -> list[tuple[float, float]]:
    """The distribution function at no more points than can be seen."""
    count = len(ordered)
    ranks = sorted({max(1, round(i * count / _CURVE_POINTS)) for i in range(_CURVE_POINTS + 1)})
    return [(ordered[rank - 1], 100 * rank / count) for rank in ranks] if count else []
