"""Plots of the scoreboard as inline SVG and small tables: radar, reliability, confusion. Drawing only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from ecellm.report.board import Board, Row

SIZE, RADIUS = 420, 150
MOST_ROWS = 4
"""Systems in a radar; with more, none can be told from another."""
STYLES = ("s0", "s1", "s2", "s3")
_PLOT = 180
_EDGE = 34


def radar(board: Board) -> Markup:
    """The first systems of a setting over its tasks, each task from 0 in the middle to 1 at the rim.

    Empty for fewer than three tasks, which make no area. A system without a figure for a task, or with one by another
    metric than the others', has a gap there.
    """
    n = len(board.tasks)
    rows = [row for row in board.rows if len(_known(row)) >= 3][:MOST_ROWS]
    if n < 3 or not rows:
        return Markup("")
    middle = SIZE / 2
    angles = [2 * math.pi * i / n - math.pi / 2 for i in range(n)]

    def place(i: int, value: float) -> tuple[float, float]:
        return middle + RADIUS * value * math.cos(angles[i]), middle + RADIUS * value * math.sin(angles[i])

    parts = []
    for ring in (0.25, 0.5, 0.75, 1.0):
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(i, ring) for i in range(n)))
        parts.append(f'<polygon class="grid" fill="none" points="{corners}"/>')
        x, y = place(0, ring)
        parts.append(f'<text class="tick" x="{x + 4:.1f}" y="{y + 4:.1f}">{ring:g}</text>')
    for i, task in enumerate(board.tasks):
        x, y = place(i, 1.16)
        parts.append(f'<text class="name" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(task)}</text>')
    for row, style in zip(rows, STYLES, strict=False):
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(i, min(1.0, max(0.0, v))) for i, v in _known(row)))
        parts.append(f'<polygon class="area {style}" points="{corners}"/>')
    legend = "".join(
        f'<span><i class="{style}"></i>{escape(row.title)}</span>' for row, style in zip(rows, STYLES, strict=False)
    )
    svg = f'<svg viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="systems over tasks">{"".join(parts)}</svg>'
    return Markup(f'<figure><figcaption><span class="legend">{legend}</span></figcaption>{svg}</figure>')


def _known(row: Row) -> list[tuple[int, float]]:
    """(task's place, figure) of what can be drawn on one axis with the other systems'."""
    return [(i, cell.value) for i, cell in enumerate(row.cells) if cell is not None and not cell.other_metric]


def reliability(title: str, calibration: Mapping[str, Any]) -> Markup:
    """How often answers were right, by how sure the model was; the area of a dot is the number of rows in it."""
    bins = calibration.get("bins") or []
    if not bins:
        return Markup("")
    total = sum(n for _, _, n in bins)

    def at(sure: float, right: float) -> tuple[float, float]:
        return _EDGE + sure * _PLOT, 10 + (1 - right) * _PLOT

    (x1, y1), (x2, y2) = at(0, 0), at(1, 1)
    parts = [f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>']
    for tick in (0, 0.5, 1):
        x, y = at(tick, 0)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{tick:g}</text>')
        x, y = at(0, tick)
        parts.append(f'<text class="tick" x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for sure, right, n in bins:
        x, y = at(sure, right)
        parts.append(f'<circle class="dot s0" cx="{x:.1f}" cy="{y:.1f}" r="{2.5 + 12 * math.sqrt(n / total):.1f}"/>')
    box = f"0 0 {_PLOT + _EDGE + 20} {_PLOT + 40}"
    text = f"ECE {calibration['ece']:.3f} · Brier {calibration['brier']:.3f} · {calibration['n']} rows"
    return Markup(
        f'<figure><figcaption>{escape(title)}<span class="legend">{escape(text)}</span></figcaption>'
        f'<svg viewBox="{box}" role="img" aria-label="reliability of {escape(title)}">{"".join(parts)}</svg></figure>'
    )


def confusion(title: str, table: Mapping[str, Mapping[str, int]]) -> Markup:
    """Gold classes in rows, replies in columns; darker is more, as a part of the gold class."""
    if not table:
        return Markup("")
    golds = list(table)
    said = list(dict.fromkeys([*golds, *(name for line in table.values() for name in line)]))
    head = "".join(f'<th class="n">{escape(_short(name))}</th>' for name in said)
    body = []
    for gold in golds:
        line, total = table[gold], sum(table[gold].values())
        cells = "".join(_cell(line.get(name, 0), total, name == gold) for name in said)
        body.append(f"<tr><th>{escape(_short(gold))}</th>{cells}</tr>")
    return Markup(
        f'<figure><figcaption>{escape(title)}<span class="legend">gold down, reply across</span></figcaption>'
        f'<table class="confusion"><tr><th></th>{head}</tr>{"".join(body)}</table></figure>'
    )


def _cell(n: int, total: int, right: bool) -> str:
    share = n / total if total else 0.0
    return f'<td class="n {"hit" if right else "miss"}" style="--share:{share:.3f}">{n}</td>'


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
