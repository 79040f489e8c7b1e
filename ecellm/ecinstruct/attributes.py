"""AVE, attribute value extraction (spec B.1). Out of domain means held-out attributes, not categories.

Gold triples are lower-cased and the input is not, as in the paper. `sound` adds: markup out, products in one split
only, and a product with an attribute both stated and absent is left out.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.draws import rank
from ecellm.ecinstruct.samples import Pools, Recipe, Sample, Samples, Sourced, finish, of_type
from ecellm.ecinstruct.splits import with_source_splits
from ecellm.sources.records import Attributed

HELD_OUT_SHARE = 0.15
"""Most of the test records that `sound` holds out for the OOD set, beside `sizes.ood`."""


def build(task: str, records: list[Sourced], recipe: Recipe) -> Samples:
    """Samples of Attributed records."""
    found = of_type(records, Attributed)
    stated: dict[str, set[str]] = defaultdict(set)
    for _, record in found:
        stated[_product(record)].add(record.split)
    splits = with_source_splits(stated, recipe.seed, "AVE", recipe.shares)
    held = _held_out([record for _, record in found if splits[_product(record)] == "test"], recipe)
    pools = Pools()
    mixed = _contradicted([record for _, record in found]) if recipe.sound else set()
    for source, record in found:
        split = splits[_product(record)]
        if record.attribute in held:
            if split != "test":
                pools.dropped["held-out attribute outside the test part"] += 1
                continue
            split = "ood"
        if (_product(record), record.attribute) in mixed:
            pools.dropped["attribute both stated and absent"] += 1
        else:
            pools.add(split, sample(task, source, record, recipe))
    return finish(task, pools, recipe)


def sample(task: str, source: str, record: Attributed, recipe: Recipe) -> Sample:
    """One record as a sample."""
    tidy = cleaning.clean if recipe.sound else str
    texts: dict[str, list[str]] = {}
    for text, origin in record.paragraphs:
        texts.setdefault(origin, []).append(tidy(text))
    given = {f"product {origin}": ", ".join(parts) for origin, parts in texts.items()}
    given["target attributes"] = record.attribute
    triples = dict.fromkeys((tidy(value).lower(), f"product {origin}".lower()) for value, origin in record.evidences)
    gold = [{"attribute": record.attribute.lower(), "value": value, "source": origin} for value, origin in triples]
    nothing = [{"attribute": record.attribute.lower(), "value": "None", "source": "None"}]
    return Sample(
        task=task, input=json.dumps(given), output=json.dumps(gold or nothing), source=source,
        entities=(f"text:{_product(record)}", f"product:{source.partition(':')[0]}:{record.id}"),
    )  # fmt: skip


def _product(record: Attributed) -> str:
    """Its texts, as MAVE's own splitter has it: some sources give every attribute of a product another id."""
    return cleaning.key(" ".join(text for text, _ in record.paragraphs)) or record.id


def _held_out(test: list[Attributed], recipe: Recipe) -> set[str]:
    """Attributes drawn until they cover `sizes.ood` test records (`sound`: or 15 % of them); one stays at least."""
    counts = Counter(record.attribute for record in test)
    goal = min(recipe.sizes.ood, int(HELD_OUT_SHARE * len(test)) + 1) if recipe.sound else recipe.sizes.ood
    held: set[str] = set()
    covered = 0
    for name in sorted(counts, key=lambda name: (rank(recipe.seed, "AVE", "held out", name), name))[:-1]:
        if covered >= goal:
            break
        if recipe.sound and counts[name] > 2 * goal:
            continue
        held.add(name)
        covered += counts[name]
    return held


def _contradicted(records: list[Attributed]) -> set[tuple[str, str]]:
    stated = {(_product(record), record.attribute) for record in records if record.evidences}
    return stated & {(_product(record), record.attribute) for record in records if not record.evidences}
