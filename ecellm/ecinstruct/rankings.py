"""QPR, query-product ranking (spec B.9): lists of 2 to 4 products of one query whose ESCI labels all differ.

`paper`: a query and a length are drawn, then labels, and for each label the row that pandas'
`sample(random_state=seed)` always takes; lists whose set of examples is known are passed over, until there are enough.
Python's generator from the seed draws the queries, in the order in which the rows name them; which generator the
authors used is not known. `sound`: each query gives a few lists, each with a draw of its own for products, order and
length.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.draws import mark, order, rng
from ecellm.ecinstruct.flow.desk import Desk
from ecellm.ecinstruct.picks import Picks
from ecellm.ecinstruct.replay import permutation
from ecellm.ecinstruct.samples import POOLS, Sample

ORDER = "ESCI"
ROUNDS, LEAST_ROUNDS = 12, 2
"""Most and least lists that `sound` draws from one query of few judgements; a query of more gives up to one for
each."""
SPARE = 3
"""Lists that are drawn, about, for each one that is asked."""
PATIENCE = (20, 2_000)
"""`paper` gives up after so many draws for each query, and so many more, that brought nothing new: a small source has
no more lists."""
POOL = pa.schema(
    [
        ("split", pa.string()), ("query", pa.string()), ("label", pa.string()), ("title", pa.string()),
        ("example", pa.string()), ("source", pa.string()), ("place", pa.uint64()),
    ]
)  # fmt: skip


def ranking(source: str, query: str, picks: list[tuple[str, str]]) -> Sample:
    """One QPR sample of (label, title) pairs in option order; labels differ, so the gold order is strict."""
    letters = [chr(ord("A") + i) for i in range(len(picks))]
    listed = [f"{letter}: {title}" for letter, (_, title) in zip(letters, picks, strict=True)]
    best = sorted(zip(letters, picks, strict=True), key=lambda pair: ORDER.index(pair[1][0]))
    return Sample(
        task="QPR", input=json.dumps({"query": query, "product list": listed}), slot=query,
        output=",".join(letter for letter, _ in best), option_labels="".join(label for label, _ in picks),
        entities=(f"query:{mark(cleaning.key(query)):016x}",), source=source,
    )  # fmt: skip


def any_small(desk: Desk) -> bool:
    """Whether any judgement is of the reduced version; only those serve QPR then."""
    if "small" not in desk.memo:
        desk.memo["small"] = any("True" in desk.facts("small", stage) for stage in ("scatter", "titles"))
    return bool(desk.memo["small"])


def rounds(desk: Desk, judged: int) -> int:
    """Lists that a query of so many judgements gives: more where there are few judgements for what is asked."""
    if "a row" not in desk.memo:
        wanted = "True" if any_small(desk) else "False"
        rows = sum(desk.facts("small", stage).get(wanted, 0) for stage in ("scatter", "titles"))
        desk.memo["a row"] = SPARE * desk.recipes["QPR"].asked / max(1, rows)
    wanted_here: int = math.ceil(desk.memo["a row"] * judged)
    return max(LEAST_ROUNDS, min(wanted_here, max(ROUNDS, judged)))


def offer_lists(desk: Desk, split: str, judged: list[tuple[Any, ...]]) -> None:
    """The lists of the queries of one part and split. Rows as in `queries.JUDGED`, sorted."""
    shelves: dict[str, dict[str, list[tuple[Any, ...]]]] = defaultdict(lambda: defaultdict(list))
    for row in judged:
        if row[4] or not any_small(desk):
            shelves[row[0]][row[2]].append(row)
        else:
            desk.drop("not in the reduced version", split, task="QPR")
    for query, by_label in sorted(shelves.items()):
        if len(by_label) < 2:
            desk.drop("query with one label only", split, task="QPR")
            continue
        seen: set[frozenset[str]] = set()
        for turn in range(rounds(desk, sum(map(len, by_label.values())))):
            chance = rng(desk.seed, "QPR", split, query, turn)
            length = chance.randint(2, min(4, len(by_label)) if desk.recipe.mends.varied_rankings else 4)
            if length > len(by_label):
                continue
            labels = chance.sample(sorted(by_label), length)
            if desk.recipe.mends.varied_rankings:
                picks = [chance.choice(by_label[label]) for label in labels]
            else:
                picks = [by_label[label][permutation(len(by_label[label]), desk.seed)[0]] for label in labels]
            chosen = frozenset(str(pick[1]) for pick in picks)
            if chosen not in seen and len(chosen) == len(picks):
                seen.add(chosen)
                one = ranking(str(picks[0][7]), query, [(str(pick[2]), str(pick[1])) for pick in picks])
                desk.offer(split, one, order(desk.seed, "QPR", one.input))


def paper_lists(desk: Desk, where: Mapping[int, str]) -> None:
    """The authors' loop, for each pool; `where` says which pool the row at a place belongs to."""
    rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in sorted(desk.rows("pool", 0, "pairs"), key=lambda row: row[6]):
        rows[where.get(row[6], "")].append(row)
    picks = Picks(desk, "QPR")
    for pool in POOLS:
        size = desk.recipes["QPR"].size(pool)
        made = _loop(rows.get(pool, []), size, desk.seed) if size else []
        for number, one in enumerate(made):
            desk.offer("all", one, (POOLS.index(pool) << 40) | number)
        picks.put(pool, [(POOLS.index(pool) << 40) | number for number in range(len(made))])


def _loop(rows: list[tuple[Any, ...]], size: int, seed: int) -> list[Sample]:
    shelves: dict[str, dict[str, list[tuple[Any, ...]]]] = {}
    for row in rows:
        shelves.setdefault(row[1], {}).setdefault(row[2], []).append(row)
    fixed = {query: {label: of[permutation(len(of), seed)[0]] for label, of in by_label.items()}
             for query, by_label in shelves.items()}  # fmt: skip
    queries, draw = list(fixed), random.Random(seed)
    made: list[Sample] = []
    seen: set[frozenset[str]] = set()
    left = patience = PATIENCE[0] * len(queries) + PATIENCE[1]
    while queries and len(made) < size and left:
        left -= 1
        query, length = draw.choice(queries), draw.choice((2, 3, 4))
        by_label = fixed[query]
        if len(by_label) < length:
            continue
        labels = [label for label in draw.sample(ORDER, len(ORDER)) if label in by_label][:length]
        chosen = [by_label[label] for label in labels]
        examples = frozenset(f"{row[5]} {row[4]}" for row in chosen)
        if examples not in seen:
            seen.add(examples)
            made.append(ranking(chosen[0][5], query, [(row[2], row[3]) for row in chosen]))
            left = patience
    return made
