"""Draws charts as SVG text: scales, axes, lines, marks, labels. Colours are classes, which style.py gives their values.

A chart is 400 wide, so that its letters are readable on a telephone, where it is drawn at about that width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edge_far.report.page.markup import escaped

__all__ = ["HEIGHT", "WIDTH", "Chart", "Scale", "drawing", "spread", "ticks", "unit_text"]

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 28, 36
MOST_POINTS = 300

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """From values to places, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value; what lies outside is drawn at the edge."""
        low, high, value = (self._of(each) for each in (self.low, self.high, value))
        share = 0.5 if high <= low else (value - low) / (high - low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def _of(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.logarithmic else value


@dataclass
class Chart:
    """A chart under construction: marks are added in the order in which they lie over one another."""

    x: Scale
    y: Scale
    height: float = HEIGHT
    parts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, x: tuple[float, float], y: tuple[float, float], *, log_x: bool = False, log_y: bool = False) -> Chart:
        """Return an empty chart for these ranges of values."""
        return cls(Scale(*x, LEFT, WIDTH - RIGHT, log_x), Scale(*y, HEIGHT - BOTTOM, TOP, log_y))

    def axes(self, x_title: str, y_title: str, x_ticks: Sequence[float] = (), told: str = "") -> None:
        """Draw the grid, the values beside it, and what is counted; in percent where the format `told` has it so."""
        for value in ticks(self.y.low, self.y.high, logarithmic=self.y.logarithmic):
            place = self.y(value)
            self.parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>'
            )
            shown = f"{unit_text(round(100 * value, 9))} %" if told.endswith("%") else unit_text(value)
            self.text(LEFT - 6, place + 4, shown, "tick", anchor="end")
        for value in x_ticks or ticks(self.x.low, self.x.high, 6, logarithmic=self.x.logarithmic):
            self.text(self.x(value), self.y.start + 15, unit_text(value), "tick", anchor="middle")
        self.text(WIDTH - RIGHT, self.y.start + 31, x_title, "tick", anchor="end")
        self.text(LEFT, 13, f"↑ {y_title}", "tick")

    def line(self, points: Iterable[Point], kind: str) -> None:
        """Draw a line; a single point becomes a dot."""
        places = [f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points]
        if len(places) == 1:
            x, y = places[0].split()
            self.parts.append(f'<circle class="{kind} dot" cx="{x}" cy="{y}" r="3"/>')
        elif places:
            self.parts.append(f'<path class="{kind} line" d="M{" L".join(places)}"/>')

    def band(self, points: Iterable[tuple[float, float, float]], kind: str) -> None:
        """Fill what lies between a lower and an upper value."""
        found = list(points)
        there = [f"{self.x(x):.1f} {self.y(low):.1f}" for x, low, _ in found]
        back = [f"{self.x(x):.1f} {self.y(high):.1f}" for x, _, high in reversed(found)]
        if found:
            self.parts.append(f'<path class="{kind} band" d="M{" L".join([*there, *back])}Z"/>')

    def dot(self, point: Point, kind: str, told: str, *, size: float = 4, hollow: bool = False) -> None:
        """Draw a mark that tells its value (plain text) where one points at it."""
        place = f'cx="{self.x(point[0]):.1f}" cy="{self.y(point[1]):.1f}" r="{size:g}"'
        self.parts.append(f'<circle class="{kind} {"ring" if hollow else "dot"}" {place}>{_title(told)}</circle>')

    def bar(self, x: float, width: float, low: float, high: float, kind: str, told: str) -> None:
        """Draw a box around the value x, `width` places wide, between two values."""
        top, bottom = self.y(high), self.y(low)
        self.parts.append(
            f'<rect class="{kind} fill" x="{self.x(x) - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{max(0.8, bottom - top):.1f}">{_title(told)}</rect>'
        )

    def upright(self, x: float, low: float, high: float, kind: str) -> None:
        """Draw an upright line at the value x."""
        place = f'x1="{self.x(x):.1f}" x2="{self.x(x):.1f}" y1="{self.y(low):.1f}" y2="{self.y(high):.1f}"'
        self.parts.append(f'<line class="{kind} line" {place}/>')

    def level(self, y: float, kind: str, label: str) -> None:
        """Draw a level line with its name above it, at the right."""
        place = self.y(y)
        self.parts.append(
            f'<line class="{kind} line dashed" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>'
        )
        self.text(WIDTH - RIGHT, place - 5 if place > TOP + 12 else place + 14, label, f"{kind} label", anchor="end")

    def label(self, point: Point, text: str, kind: str, *, anchor: str = "start", dx: float = 7, dy: float = 4) -> None:
        """Write beside a value."""
        self.text(self.x(point[0]) + dx, self.y(point[1]) + dy, text, f"{kind} label", anchor=anchor)

    def text(self, x: float, y: float, text: str, kind: str, *, anchor: str = "start") -> None:
        """Write plain text at a place."""
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>')

    def svg(self, title: str) -> str:
        """Return the drawing; `title` says in one sentence what is seen."""
        return drawing(self.parts, self.height, title)


def drawing(parts: Sequence[str], height: float, title: str, width: float = WIDTH) -> str:
    """Return parts as an SVG image with a name."""
    opening = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escaped(title)}">'
    return f"{opening}{_title(title)}{''.join(parts)}</svg>"


def ticks(low: float, high: float, about: int = 5, *, logarithmic: bool = False) -> list[float]:
    """Return round values between two, about so many."""
    if logarithmic:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        powers = [10.0**power for power in range(first, last + 1)]
        if len(powers) >= 2:
            return powers[:: max(1, math.ceil(len(powers) / about))]
        return [
            value
            for value in (factor * 10.0**p for p in range(first - 1, last + 1) for factor in (1, 2, 5))
            if low <= value <= high
        ]
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    return [
        round(number * step, 12) for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def spread(values: Sequence[Point], most: int = MOST_POINTS) -> list[tuple[float, float, float, float]]:
    """Return at most so many (x, mean, lowest, highest) of neighbouring points, in their order."""
    size = max(1, math.ceil(len(values) / most))
    found = []
    for start in range(0, len(values), size):
        part = values[start : start + size]
        heights = [y for _, y in part]
        found.append((part[-1][0], sum(heights) / len(heights), min(heights), max(heights)))
    return found


def unit_text(value: float) -> str:
    """Return a value for an axis: 1,200, 0.5, 1e-05."""
    if value and not 1e-3 <= abs(value) < 1e7:
        return f"{value:.0e}"
    return f"{value:,.10g}" if abs(value) < 1000 else f"{value:,.0f}"


def _title(text: str) -> str:
    return f"<title>{escaped(text)}</title>"
