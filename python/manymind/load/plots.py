# SPDX-License-Identifier: Apache-2.0
"""Line charts as SVG text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00", "#555555")
_WIDTH, _HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 30, 40


@dataclass(frozen=True)
class Line:
    """Points of one curve."""

    name: str
    points: Sequence[tuple[float, float]]
    marks: bool = True


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(scale * power for scale in (1, 2, 5, 10) if scale * power >= raw)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def chart(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> str:
    """A chart whose axes begin at zero."""
    points = [point for line in lines for point in line.points]
    x = _Axis(0.0, max((p[0] for p in points), default=0.0) or 1.0, _LEFT, _WIDTH - _RIGHT)
    top = 1.05 * max((p[1] for p in points), default=0.0)
    y = _Axis(0.0, top or 1.0, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text class="title" x="{_LEFT}" y="18">{escape(title)}</text>',
        *_grid(x, y),
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
        f'<text transform="translate(13 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>',
    ]
    for index, line in enumerate(lines):
        parts += _curve(line, COLOURS[index % len(COLOURS)], x, y)
    return "".join(parts) + "</svg>" + _legend(lines)


def _grid(x: _Axis, y: _Axis) -> list[str]:
    parts = []
    for value in y.ticks():
        at = y.at(value)
        parts.append(f'<path class="grid" d="M{x.start} {at:.1f}H{x.end}"/>')
        parts.append(f'<text x="{x.start - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in x.ticks():
        parts.append(
            f'<text x="{x.at(value):.1f}" y="{y.start + 15}" text-anchor="middle">{value:g}</text>'
        )
    return parts


def _curve(line: Line, colour: str, x: _Axis, y: _Axis) -> list[str]:
    places = [(x.at(a), y.at(b)) for a, b in line.points]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    parts = [f'<path class="line" stroke="{colour}" d="M{path}"/>'] if places else []
    if line.marks:
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places]
    return parts


def _legend(lines: Sequence[Line]) -> str:
    items = "".join(
        f'<li><span style="background:{COLOURS[index % len(COLOURS)]}"></span>'
        f"{escape(line.name)}</li>"
        for index, line in enumerate(lines)
    )
    return f'<ul class="legend">{items}</ul>'
