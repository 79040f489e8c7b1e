"""MPC, PSI and QPR (spec B.6 to B.9): how well products answer a search query, from ESCI judgements.

A query is in the same split for all three tasks in the `sound` recipe, so that no test query is seen anywhere. `paper`
would halve ESCI's test part by rows; language is told by script here, not by a language model, in both recipes.
"""

from __future__ import annotations

import json
from collections import defaultdict

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.draws import rng, unit
from ecellm.ecinstruct.instructions import wording
from ecellm.ecinstruct.samples import Pools, Recipe, Sample, Samples, Sourced, finish, of_type
from ecellm.ecinstruct.splits import by_hash, with_source_splits
from ecellm.sources.records import Judgement

ORDER = "ESCI"
ROUNDS = 12
"""Most lists that QPR draws from one query."""
Judged = tuple[str, str, str, Judgement]
"""(source label, query, title, record), texts ready to show."""


def build(task: str, records: list[Sourced], recipe: Recipe) -> Samples:
    """Samples of Judgement records, for MPC, PSI or QPR."""
    pools = Pools()
    usable = _usable(of_type(records, Judgement), pools, recipe)
    if task == "QPR":
        usable = [judged for judged in usable if judged[3].small] or usable
    by_split = _by_split(usable, recipe)
    for split, mine in sorted(by_split.items()):
        if task == "QPR":
            _rankings(task, split, mine, recipe, pools)
        else:
            for judged in mine:
                pools.add(split, sample(task, judged))
    return finish(task, pools, recipe)


def sample(task: str, judged: Judged) -> Sample:
    """One judgement as a sample of MPC (four options) or PSI (yes or no)."""
    source, query, title, record = judged
    entities = (f"query:{cleaning.key(query)}",)
    if task == "PSI":
        given = json.dumps({"query": query, "product": title})
        return Sample(task=task, input=given, output="yes" if record.label == "S" else "no", entities=entities,
                      source=source)  # fmt: skip
    options = wording(task).options
    return Sample(task=task, input=json.dumps({"query": query, "product title": title}), options=json.dumps(options),
                  output=options[ORDER.index(record.label)], entities=entities, source=source)  # fmt: skip


def ranking(task: str, source: str, query: str, picks: list[tuple[str, str]]) -> Sample:
    """One QPR sample of (label, title) pairs in option order; labels differ, so the gold order is strict."""
    letters = [chr(ord("A") + i) for i in range(len(picks))]
    listed = [f"{letter}: {title}" for letter, (_, title) in zip(letters, picks, strict=True)]
    best = sorted(zip(letters, picks, strict=True), key=lambda pair: ORDER.index(pair[1][0]))
    return Sample(
        task=task, input=json.dumps({"query": query, "product list": listed}),
        output=",".join(letter for letter, _ in best), option_labels="".join(label for label, _ in picks),
        entities=(f"query:{cleaning.key(query)}",), source=source,
    )  # fmt: skip


def _usable(judgements: list[tuple[str, Judgement]], pools: Pools, recipe: Recipe) -> list[Judged]:
    kept, labels = [], defaultdict(set)
    for source, record in judgements:
        if record.locale != "us":
            pools.dropped["locale other than us"] += 1
            continue
        if not cleaning.mostly_english(record.query) or not cleaning.mostly_english(record.title):
            pools.dropped["foreign script"] += 1
            continue
        if recipe.sound:
            query, title = cleaning.clean(record.query), cleaning.clean_title(record.title)
        else:
            query = cleaning.paper_ascii(record.query)
            title = cleaning.paper_ascii(cleaning.paper_title(record.title))
        if recipe.sound and not (query and title):
            pools.dropped["no query or title after cleaning"] += 1
            continue
        labels[query, title].add(record.label)
        kept.append((source, query, title, record))
    if not recipe.sound:
        return kept
    clear: dict[tuple[str, str], Judged] = {}
    for judged in sorted(kept, key=lambda judged: (judged[1], judged[2], judged[3].example, judged[0])):
        pair = judged[1], judged[2]
        if len(labels[pair]) > 1:
            pools.dropped["contradictory labels"] += 1
        elif pair in clear:
            pools.dropped["duplicates"] += 1
        else:
            clear[pair] = judged
    return list(clear.values())


def _by_split(usable: list[Judged], recipe: Recipe) -> dict[str, list[Judged]]:
    stated: dict[str, set[str]] = defaultdict(set)
    for _, query, _, record in usable:
        stated[cleaning.key(query)].add(record.split)
    splits = with_source_splits(stated, recipe.seed, "query", recipe.shares)
    found: dict[str, list[Judged]] = defaultdict(list)
    for judged in usable:
        record = judged[3]
        if recipe.sound:
            split = splits[cleaning.key(judged[1])]
        elif record.split == "test":
            split = "test" if unit(recipe.seed, "half", record.example) < 0.5 else "val"
        else:
            split = record.split or by_hash(recipe.seed, "row", record.example, recipe.shares)
        found[split].append(judged)
    return found


def _rankings(task: str, split: str, judged: list[Judged], recipe: Recipe, pools: Pools) -> None:
    """Lists of 2 to 4 products of one query with pairwise different labels."""
    shelves: dict[str, dict[str, list[Judged]]] = defaultdict(lambda: defaultdict(list))
    for one in sorted(judged, key=lambda one: (one[1], one[3].example, one[2])):
        shelves[one[1]][one[3].label].append(one)
    for query, by_label in sorted(shelves.items()):
        if len(by_label) < 2:
            pools.dropped["query with one label only"] += 1
            continue
        seen: set[frozenset[str]] = set()
        for turn in range(ROUNDS):
            chance = rng(recipe.seed, "QPR", split, query, turn)
            length = chance.randint(2, min(4, len(by_label)) if recipe.sound else 4)
            if length > len(by_label):
                continue
            picks = [chance.choice(by_label[label]) for label in chance.sample(sorted(by_label), length)]
            chosen = frozenset(pick[2] for pick in picks)
            if chosen not in seen:
                seen.add(chosen)
                pairs = [(pick[3].label, pick[2]) for pick in picks]
                pools.add(split, ranking(task, picks[0][0], query, pairs))
