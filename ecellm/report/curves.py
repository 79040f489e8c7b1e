"""Charts as inline SVG: small, sharp, and coloured by the page's style, so that they follow light and dark.

Only drawing: what is drawn comes in as points. Long series are thinned to one point for each pixel or so, by the mean
of each stretch, so that a million steps make a small page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from ecellm.report.compare import Line

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 218, 58, 12, 14, 38
MOST_POINTS = 400
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one line; `style` is a class of the page's style sheet."""

    name: str
    points: Sequence[Point]
    style: str = "s0"


def line_chart(title: str, series: Sequence[Series], *, across: str = "step") -> Markup:
    """A line chart as SVG; an empty string where no series has a point."""
    drawn = [Series(one.name, _thinned(one.points), one.style) for one in series if one.points]
    if not drawn:
        return Markup("")
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points]
    x_of = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    ticks = _ticks(min(ys), max(ys))
    y_of = _scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_grid(x_of, y_of, ticks, _ticks(min(xs), max(xs), 5), (min(xs), max(xs)), across)]
    for one in drawn:
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in one.points)
        if len(one.points) > 1:
            parts.append(f'<polyline class="line {one.style}" points="{path}"/>')
        if len(one.points) <= 12:
            parts.extend(
                f'<circle class="dot {one.style}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3"/>' for x, y in one.points
            )
    legend = (
        "".join(f'<span><i class="{one.style}"></i>{escape(one.name)}</span>' for one in drawn)
        if len(drawn) > 1
        else ""
    )
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return Markup(f'<figure><figcaption>{escape(title)}<span class="legend">{legend}</span></figcaption>{svg}</figure>')


def dots(lines: Sequence[Line]) -> Markup:
    """Systems of each task on one scale from 0 to 1, the tuned one with its interval."""
    if not lines:
        return Markup("")
    step, left, width = 30, 52, 920
    height = step * len(lines) + 34
    x_of = _scale(0.0, 1.0, left, width - 14)
    parts = []
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x = x_of(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{height - 26}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 10}" text-anchor="middle">{tick:g}</text>')
    for i, line in enumerate(lines):
        y = 8 + step * (i + 0.5)
        parts.append(f'<text class="name" x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(line.task)}</text>')
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 14}" y1="{y:.1f}" y2="{y:.1f}"/>')
        for cell, style in ((line.lexical, "s3"), (line.trivial, "s2"), (line.untuned, "s1"), (line.tuned, "s0")):
            if cell is None:
                continue
            if style == "s0" and cell.low is not None and cell.high is not None:
                x1, x2 = x_of(cell.low), x_of(cell.high)
                parts.append(f'<line class="span s0" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(_mark(style, x_of(cell.value), y))
    names = [("s0", "tuned, with its 95 % interval"), ("s1", "untuned"), ("s2", "best trivial rule")]
    if any(line.lexical for line in lines):
        names.append(("s3", "best lexical rule"))
    legend = "".join(f'<span><i class="{style}"></i>{name}</span>' for style, name in names)
    svg = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="systems by task">{"".join(parts)}</svg>'
    return Markup(f'<figure class="wide"><figcaption><span class="legend">{legend}</span></figcaption>{svg}</figure>')


def _mark(style: str, x: float, y: float) -> str:
    """A disc, a square, a diamond and a triangle, so that colour is not the only sign."""
    if style == "s1":
        return f'<rect class="dot s1" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    if style == "s3":
        return f'<path class="dot s3" d="M{x:.1f} {y - 5:.1f} l5.5 9.5 l-11 0 z"/>'
    if style == "s2":
        return f'<path class="dot s2" d="M{x:.1f} {y - 5.5:.1f} l5.5 5.5 l-5.5 5.5 l-5.5 -5.5 z"/>'
    return f'<circle class="dot s0" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'


class _scale:
    """A straight map from [low, high] to pixels; a single value falls in the middle."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self.start + self.end) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _grid(x_of: _scale, y_of: _scale, ys: Sequence[float], xs: Sequence[float], reach: Point, across: str) -> str:
    parts = []
    for tick in ys:
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in xs:
        if reach[0] <= tick <= reach[1]:
            parts.append(
                f'<text class="tick" x="{x_of(tick):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{number(tick)}</text>'
            )
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(across)}</text>')
    return "".join(parts)


def _ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers that reach from at most `low` to at least `high`."""
    span = (high - low) or abs(high) or 1.0
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def number(value: float) -> str:
    """A short figure for an axis: 2.5k, 0.02, 1e-05."""
    if value and abs(value) < 1e-3:
        return f"{value:.1e}".replace(".0e", "e")
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{round(value, 6):g}"


def _thinned(points: Sequence[Point]) -> list[Point]:
    clean = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(clean) <= MOST_POINTS:
        return clean
    size = math.ceil(len(clean) / MOST_POINTS)
    groups = [clean[i : i + size] for i in range(0, len(clean), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
