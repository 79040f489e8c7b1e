"""One HTML page of the rows: label distributions, length histograms by each tokenizer, examples. No script, no network.

Histograms are drawn here as small SVG, coloured by the page's style, so that they follow light and dark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from ecellm.looking.numbers import Lengths, Measure, Numbers, distribution, histogram, numbers, quantile
from ecellm.looking.pick import some
from ecellm.records import Row
from ecellm.storage.base import Storage
from ecellm.tasks.registry import TASKS

FILE = "data.html"
EXAMPLES = 3
WIDTH, HEIGHT, FOOT = 300, 92, 16
POOL_NAMES = (("train", "train"), ("val", "val"), ("test", "test"), ("ood", "test, out of domain"))


def write_page(storage: Storage, measures: Mapping[str, Measure], seed: int, key: str = FILE) -> str:
    """Write OUT/data.html. Returns its key. Raises DataError where there are no rows."""
    storage.write(key, page(storage, measures, seed).encode())
    return key


def page(storage: Storage, measures: Mapping[str, Measure], seed: int) -> str:
    """The page as text."""
    found = numbers(storage, measures)
    tasks = [
        {
            "id": task, "name": TASKS[task].name, "samples": one.samples, "labels": _labels(one),
            "charts": [_charts(name, one.lengths[name]) for name in measures if name in one.lengths],
            "examples": [_example(row) for row in
                         some(storage, EXAMPLES, seed, split="train", task=task, setting=None)],
        }
        for task in TASKS if (one := found.get(task))
    ]  # fmt: skip
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = files("ecellm.looking").joinpath("page.html.j2").read_text("utf-8")
    return environment.from_string(text).render(tasks=tasks, pools=POOL_NAMES, card=card_of(storage), root=storage.root)


def card_of(storage: Storage) -> dict[str, Any]:
    """card.json; empty where there is none that can be read."""
    try:
        said = json.loads(storage.read("rows/card.json"))
    except (FileNotFoundError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _labels(one: Numbers) -> list[dict[str, Any]]:
    """For each pool: its name and the shares of its answers."""
    shown = []
    for pool, name in POOL_NAMES:
        found = distribution(one.answers.get(pool, one.answers.get("train", type(one.samples)())))
        if found and pool in one.answers:
            total = sum(n for _, n in found)
            shown.append({"pool": name, "parts": [(label, n, 100 * n / total) for label, n in found]})
    return shown


def _charts(name: str, lengths: Lengths) -> dict[str, Any]:
    return {"name": name, "parts": [
        {"title": what, "svg": bars(histogram(of)), "median": quantile(of, 0.5), "p95": quantile(of, 0.95),
         "longest": max(of, default=0)}
        for what, of in (("prompts", lengths.prompts), ("answers", lengths.answers))
    ]}  # fmt: skip


def bars(bins: Sequence[tuple[int, int, int]]) -> Markup:
    """A histogram as SVG."""
    most, width = max((n for *_, n in bins), default=0) or 1, WIDTH / max(1, len(bins))
    parts = [
        f'<rect x="{i * width + 0.5:.1f}" y="{HEIGHT - HEIGHT * n / most:.1f}" width="{width - 1:.1f}" '
        f'height="{HEIGHT * n / most:.1f}"><title>{low} to {high - 1}: {n}</title></rect>'
        for i, (low, high, n) in enumerate(bins) if n
    ]  # fmt: skip
    ticks = [(0, bins[0][0], "start"), (WIDTH / 2, bins[len(bins) // 2][0], "middle"), (WIDTH, bins[-1][0], "end")]
    labels = [
        f'<text x="{x:.0f}" y="{HEIGHT + FOOT - 3}" text-anchor="{anchor}">{value}</text>' for x, value, anchor in ticks
    ]
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img">{"".join(parts)}{"".join(labels)}</svg>')


def _example(row: Row) -> dict[str, Any]:
    return {"id": row.id, "instruction": row.instruction, "input": pretty(row.input), "output": row.output,
            "options": pretty(row.options) if row.options else "", "source": row.source}  # fmt: skip


def pretty(text: str) -> str:
    """JSON with indents; other text as it is."""
    if text[:1] not in "[{":
        return text
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
