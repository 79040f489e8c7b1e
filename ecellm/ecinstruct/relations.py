"""PRP, product relation prediction (spec B.3): two titles; also bought, also viewed, or similar.

`paper`: pairs are sorted by title and split at random. `sound`: the stated direction is kept, products with one title
are one product, and products belong to one split; links between products of two splits are dropped and counted.
"""

from __future__ import annotations

import json
from collections import defaultdict

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.instructions import wording
from ecellm.ecinstruct.samples import Pools, Recipe, Sample, Samples, Sourced, finish, of_type
from ecellm.ecinstruct.splits import by_hash, by_neighbourhood
from ecellm.records import OOD
from ecellm.sources.records import Product

LETTERS = {"also_buy": "A", "also_view": "B", "similar": "C"}
PART = 500
"""Most products in one part of the graph that is dealt to a split."""
Link = tuple[str, str, str, str]
"""(group, domain, first title, second title)."""


def build(task: str, records: list[Sourced], recipe: Recipe) -> Samples:
    """Samples of Product records."""
    pools = Pools()
    found = _links(of_type(records, Product), pools, recipe)
    together: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (_, _, a, b), (relations, _) in found.items():
        together[min(a, b), max(a, b)] |= relations
    splits = _splits(found, recipe)
    seen: set[tuple[str, str]] = set()
    for link in sorted(found):
        a, b = link[2:]
        pair = (min(a, b), max(a, b))
        if len(together[pair]) > 1:
            pools.dropped["pair in more than one relation"] += 1
        elif pair in seen:
            pools.dropped["pair stated twice"] += 1
        else:
            seen.add(pair)
            _place(task, link, found[link][1], next(iter(together[pair])), splits, pools, recipe)
    return finish(task, pools, recipe)


def _place(
    task: str, link: Link, source: str, relation: str, splits: dict[str, str], pools: Pools, recipe: Recipe
) -> None:
    _, domain, a, b = link
    given = json.dumps({"Product 1:": a, "Product 2:": b})
    entities = (f"title:{cleaning.key(a)}", f"title:{cleaning.key(b)}")
    one = Sample(task=task, input=given, output=LETTERS[relation], options=json.dumps(wording(task).options),
                 entities=entities, source=source)  # fmt: skip
    if domain == OOD:
        pools.add("ood", one)
    elif not recipe.sound:
        pools.add(by_hash(recipe.seed, "PRP", one.id, recipe.shares), one)
    elif splits[entities[0]] == splits[entities[1]]:
        pools.add(splits[entities[0]], one)
    else:
        pools.dropped["link between products of two splits"] += 1


def _links(products: list[tuple[str, Product]], pools: Pools, recipe: Recipe) -> dict[Link, tuple[set[str], str]]:
    """Link -> (its relations, source label)."""
    title_of = cleaning.clean_title if recipe.sound else str
    titles = {(product.group, product.id): title_of(product.title) for _, product in products}
    found: dict[Link, tuple[set[str], str]] = {}
    for source, product in products:
        title = titles[product.group, product.id]
        for relation in LETTERS:
            for other in getattr(product, relation):
                if other == product.id:
                    continue
                theirs = titles.get((product.group, other), "")
                if not title or not theirs:
                    pools.dropped["linked product unknown or without a title"] += 1
                elif cleaning.key(title) != cleaning.key(theirs):
                    a, b = (title, theirs) if recipe.sound else sorted((title, theirs))
                    relations, _ = found.setdefault((product.group, product.domain, a, b), (set(), source))
                    relations.add(relation)
    return found


def _splits(found: dict[Link, tuple[set[str], str]], recipe: Recipe) -> dict[str, str]:
    edges = [(f"title:{cleaning.key(a)}", f"title:{cleaning.key(b)}") for _, domain, a, b in found if domain != OOD]
    nodes = {node for edge in edges for node in edge}
    largest = max(4, min(PART, len(nodes) // 20))
    return by_neighbourhood(nodes, sorted(set(edges)), recipe.seed, "PRP", recipe.shares, largest=largest)
