"""MPC, PSI and QPR (spec B.6 to B.9): how well products answer a search query, from ESCI judgements.

`paper`: rows of the us locale whose query and title are English (told by our language model; the authors' was another),
ESCI's train part for training, its test part halved by rows with pandas' draw; MPC samples with seed + 1, PSI with
the seed; exact duplicate rows of the test half vanish from val. `sound`: a query is in the same split for all three
tasks, so that no test query is seen anywhere; pairs that were judged in two ways are left out. QPR is in `rankings`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pyarrow as pa

from ecellm.ecinstruct import cleaning, rankings
from ecellm.ecinstruct.attributes import source_splits
from ecellm.ecinstruct.draws import mark, order
from ecellm.ecinstruct.flow.desk import Desk
from ecellm.ecinstruct.flow.family import At, Family, Stage
from ecellm.ecinstruct.picks import Picks, Stand, stands
from ecellm.ecinstruct.quality import foreign
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.replay import permutation
from ecellm.ecinstruct.samples import POOLS, Sample
from ecellm.ecinstruct.splits import by_hash
from ecellm.sources.records import Judgement, ListedProduct

ORDER = "ESCI"
TASKS = ("MPC", "PSI", "QPR")
READY = ("scatter", "titles")
"""Stages that make judgements ready: those that have their title, and those that get it."""
JUDGED = pa.schema(
    [
        ("query", pa.string()), ("title", pa.string()), ("label", pa.string()), ("split", pa.string()),
        ("small", pa.bool_()), ("example", pa.string()), ("tasks", pa.string()), ("source", pa.string()),
        ("place", pa.uint64()),
    ]
)  # fmt: skip
UNTITLED = pa.schema([("product", pa.string()), *JUDGED])
TITLES = pa.schema([("product", pa.string()), ("title", pa.string())])


def scatter(desk: Desk, record: Judgement | ListedProduct, at: At) -> None:
    """A judgement of the us locale to its query's part; one without a title, and titles, to their product's."""
    if record.locale != "us":
        if isinstance(record, Judgement):
            desk.drop("locale other than us", at.split)
        return
    if isinstance(record, ListedProduct):
        if record.title:
            desk.emit("titles", mark(record.id), record.id, record.title)
        return
    row = (record.query, record.title, record.label, at.split, record.small, record.example, ",".join(at.tasks),
           at.source, at.place)  # fmt: skip
    if record.title:
        _keep(desk, row)
    else:
        desk.emit("untitled", mark(record.product), record.product, *row)


def join(desk: Desk, part: int) -> None:
    """Titles to the judgements that lack one."""
    titles: dict[str, str] = {}
    for product, title in desk.rows("titles", part):
        titles.setdefault(product, title)
    for product, query, _, *rest in desk.rows("untitled", part):
        title = titles.get(product, "")
        if title or desk.recipe.paper:  # the authors' left join keeps it, with an empty title
            _keep(desk, (query, title, *rest))
        else:
            desk.drop("judgement of a product without a title", str(rest[1]))


def _keep(desk: Desk, row: tuple[Any, ...]) -> None:
    query, title, label, split, *rest = row
    if desk.recipe.paper:
        query, title = query.replace("\0", ""), cleaning.paper_title(title)
        if desk.recipe.language and (foreign(query) or foreign(title)):
            desk.drop("foreign language", split)
            return
        query, title = cleaning.paper_ascii(query), cleaning.paper_ascii(title)
    if desk.recipe.mends.clean_text:
        marked = cleaning.marked(query) + cleaning.marked(title)
        query, title = cleaning.clean(query), cleaning.clean_title(title)
        if not query or not title:
            desk.drop("no query or title after cleaning", split)
            return
        desk.change(cleaning.MARKUP, marked)
    desk.tell("splits", split)
    desk.tell("small", str(rest[0]))
    desk.emit("judged", mark(cleaning.key(query)), query, title, label, split, *rest)


def judged_rows(desk: Desk, part: int) -> list[tuple[Any, ...]]:
    """All judgements of a part, whichever step made them ready."""
    return [*desk.rows("judged", part), *desk.rows("judged", part, "titles")]


def offer(desk: Desk, part: int) -> None:
    """A split for each query of a part; its judgements to MPC and PSI, its lists to QPR."""
    splits, mends = source_splits(desk, "query", READY), desk.recipe.mends
    of: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in judged_rows(desk, part):
        of[cleaning.key(row[0])].append(row)
    for key, rows in of.items():
        rows = _clear(desk, sorted(rows, key=lambda row: (row[0], row[1], row[5], row[7], row[2])))
        split = splits.of(key, (str(row[3]) for row in rows))
        by_split: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for row in rows:
            own = split if mends.disjoint_splits else row[3] or splits.of(row[0] + row[1], ())
            by_split[own].append(row)
            for task in str(row[6]).split(","):
                if task != "QPR":
                    one = sample(task, str(row[7]), str(row[0]), str(row[1]), str(row[2]), desk.recipes[task])
                    desk.offer(own, one, order(desk.seed, task, one.input), one.output)
        for own, mine in by_split.items():
            rankings.offer_lists(desk, own, [row for row in mine if "QPR" in row[6]])


def _clear(desk: Desk, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Judgements of one query without those of a pair that was judged in several ways; one of each pair."""
    mends = desk.recipe.mends
    labels: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        labels[row[0], row[1]].add(row[2])
    kept: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        pair = (row[0], row[1])
        if mends.consistent_labels and len(labels[pair]) > 1:
            desk.drop("contradictory labels", row[3])
            continue
        name = pair if mends.no_duplicates else (*pair, row[8])
        if name not in kept:
            kept[name] = row
            continue
        old = kept[name]
        if set(row[6].split(",")) <= set(old[6].split(",")):
            desk.drop("duplicates", row[3])
        else:  # of a file that serves another task
            both = [task for task in TASKS if task in row[6].split(",") or task in old[6].split(",")]
            kept[name] = (*old[:6], ",".join(both), *old[7:])
    return list(kept.values())


def sample(task: str, source: str, query: str, title: str, label: str, recipe: Recipe) -> Sample:
    """One judgement as a sample of MPC (four options) or PSI (yes or no)."""
    asked = (f"query:{mark(cleaning.key(query)):016x}",)
    if task == "PSI":
        given = json.dumps({"query": query, "product": title})
        return Sample(task=task, input=given, output="yes" if label == "S" else "no", entities=asked, source=source,
                      slot=query)  # fmt: skip
    given = json.dumps({"query": query, "product title": title})
    return Sample(task=task, input=given, options=recipe.words.options_json, source=source, entities=asked, slot=query,
                  output=recipe.words.options[ORDER.index(label)])  # fmt: skip


def paper_offer(desk: Desk, part: int) -> None:
    """`paper`: every judgement stands for itself, in the order of the source's rows."""
    for row in judged_rows(desk, part):
        query, title, label, said, small, example, tasks, source, place = row
        said = said or by_hash(desk.seed, "row", f"{source} {example}", desk.recipe.shares)
        for task in tasks.split(","):
            if task != "QPR":
                one = sample(task, source, query, title, label, desk.recipes[task])
                desk.offer("all", one, place)
            elif small or not rankings.any_small(desk):
                desk.emit("pool", 0, said, query, label, title, example, source, place)
            desk.stand(task, said, "", place, f"{mark(query + title + label + example):016x}")


def pick(desk: Desk) -> None:
    """The authors' draw of all three tasks."""
    for task, shift in (("MPC", 1), ("PSI", 0)):
        picks, pools = Picks(desk, task), halved(desk, task)
        for pool in POOLS:
            mine = pools.get(pool, [])
            size = desk.recipes[task].size(pool)
            turns = permutation(len(mine), desk.seed + shift)[:size].tolist()
            picks.put(pool, [mine[i].place for i in turns])
        picks.leave("exact duplicates of the test half", "val", desk.memo[f"gone/{task}"])
    where = {stand.place: pool for pool, found in halved(desk, "QPR").items() for stand in found}
    rankings.paper_lists(desk, where)


def halved(desk: Desk, task: str) -> dict[str, list[Stand]]:
    """Pool -> rows: ESCI's test part in two halves; sources other than ESCI may have a val part of their own."""
    found = stands(desk, task, "pairs")
    test = found.get("test", [])
    half = set(permutation(len(test), desk.seed)[: round(len(test) / 2)].tolist())
    drawn = {test[i].note for i in half}
    other = [one for i, one in enumerate(test) if i not in half]
    val = [one for one in other if one.note not in drawn]
    desk.memo[f"gone/{task}"] = len(other) - len(val)
    return {"train": found.get("train", []), "test": [one for i, one in enumerate(test) if i in half],
            "val": [*found.get("val", []), *val]}  # fmt: skip


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """The join first; `paper` then draws at once."""
    titles = Stage("titles", "each", join)
    if recipe.paper:
        return (titles, Stage("pairs", "each", paper_offer, offers=("MPC", "PSI")),
                Stage("picks", "once", pick, offers=("QPR",)))  # fmt: skip
    return (titles, Stage("pairs", "each", offer, offers=TASKS))


FAMILY = Family(
    name="ESCI", tasks=TASKS, takes=(Judgement, ListedProduct), scatter=scatter,
    tables={"judged": JUDGED, "untitled": UNTITLED, "titles": TITLES, "pool": rankings.POOL}, stages=stages,
    paper_stream="all",
)  # fmt: skip
