"""PRP, product relation prediction (spec B.3): two titles; also bought, also viewed, or similar.

`paper`: pairs are sorted by title within their category, split 80/10/10 by scikit-learn's draw, the front of each
category is pooled and drawn from. The authors' pairs came from a set, so their order before the draw is not known: ours
is by hash. `sound`: the stated direction is kept, products with one title are one product, and products belong to one
split; links between products of two splits are dropped and counted. The graph that is cut into splits holds the first
links in drawing order, sixteen for each that is asked: more would change nothing but the memory it takes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.choose import MORE
from ecellm.ecinstruct.draws import mark, order
from ecellm.ecinstruct.flow.desk import Desk
from ecellm.ecinstruct.flow.family import BETWEEN, At, Candidate, Family, Stage
from ecellm.ecinstruct.picks import Picks, stands
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.replay import permutation, split_three
from ecellm.ecinstruct.samples import Sample
from ecellm.ecinstruct.splits import by_hash, by_neighbourhood
from ecellm.sources.records import Product

RELATIONS = {"also_buy": "A", "also_view": "B", "similar": "C"}
PART = 500
"""Most products in one part of the graph that is dealt to a split."""
SPARE, LEAST = 16, 20_000
"""Links of the graph for each sample asked, and the least number of them."""
UNKNOWN = "linked product unknown or without a title"
TITLES = pa.schema([("id", pa.string()), ("title", pa.string()), ("mark", pa.uint64())])
LINKS = pa.schema(
    [
        ("to", pa.string()), ("title", pa.string()), ("mark", pa.uint64()), ("letter", pa.string()),
        ("group", pa.string()), ("domain", pa.string()), ("source", pa.string()), ("place", pa.uint64()),
    ]
)  # fmt: skip
PAIRS = pa.schema(
    [
        ("a", pa.string()), ("b", pa.string()), ("a_mark", pa.uint64()), ("b_mark", pa.uint64()),
        ("letter", pa.string()), ("group", pa.string()), ("domain", pa.string()), ("source", pa.string()),
    ]
)  # fmt: skip
FOUND = pa.schema([("place", pa.uint64()), *PAIRS])
EDGES = pa.schema([("key", pa.uint64()), ("letter", pa.string()), ("a", pa.uint64()), ("b", pa.uint64())])
NODES = pa.schema([("node", pa.uint64()), ("split", pa.string())])


def scatter(desk: Desk, product: Product, at: At) -> None:
    """A product's title to its own part, its links to the parts of the products that they name.

    A title has a mark, made once: titles that read the same, case aside, are one product; in `paper` equal ones are.
    """
    title = cleaning.clean_title(product.title) if desk.recipe.mends.clean_text else product.title
    same = title if desk.recipe.paper else cleaning.key(title)
    own, name = mark(same), f"{at.group}\x1f{product.id}"
    desk.emit("titles", mark(name), name, title, own)
    if at.domain == "HELD":
        desk.drop("category held out by another task")
        return
    if desk.recipe.mends.clean_text and title:
        desk.change(cleaning.MARKUP, cleaning.marked(product.title))
    for relation, letter in RELATIONS.items():
        wide = relation != "similar" or desk.recipe.mends.each_link
        for other in getattr(product, relation) if wide else product.similar_plain:
            if other == product.id:
                desk.drop("link of a product to itself")
                continue
            if not title:
                desk.drop(UNKNOWN)
                continue
            to = f"{at.group}\x1f{other}"
            desk.emit("links", mark(to), to, title, own, letter, at.group, at.domain, at.source, at.place)


def join(desk: Desk, part: int) -> None:
    """The linked products' titles to the links."""
    titles: dict[str, tuple[str, int]] = {}
    for name, title, own in desk.rows("titles", part):
        held = titles.get(name)
        if held is None or (title and (not held[0] or title < held[0])):  # one of several, whatever the files' order
            titles[name] = (title, own)
    keep_direction, each_link = desk.recipe.mends.keep_direction, desk.recipe.mends.each_link
    for to, title, own, letter, group, domain, source, place in desk.rows("links", part):
        theirs, other = titles.get(to, (None, 0))
        if not theirs:
            desk.drop(UNKNOWN)
            if theirs is None or each_link:
                continue
        elif own == other:
            desk.drop("linked product of the same title")
            continue
        if keep_direction or title <= (theirs or ""):
            row = (title, theirs or "", own, other, letter, group, domain, source)
        else:
            row = (theirs or "", title, other, own, letter, group, domain, source)
        if each_link:
            _pair(desk, row)
        else:
            desk.emit("found", place, place, *row)


def whole_items(desk: Desk, part: int) -> None:
    """`paper`: one candidate without a title discards all of the item's pairs of that relation."""
    of: dict[tuple[int, str], list[tuple[Any, ...]]] = defaultdict(list)
    for place, *rest in desk.rows("found", part, "titles"):
        of[place, rest[4]].append(tuple(rest))
    for rows in of.values():
        if all(row[0] and row[1] for row in rows):
            for whole in rows:
                _pair(desk, whole)
        else:
            desk.drop("item with a linked product without a title", n=sum(bool(row[0] and row[1]) for row in rows))


def _pair(desk: Desk, row: tuple[Any, ...]) -> None:
    low, high = (row[2], row[3]) if row[2] < row[3] else (row[3], row[2])
    desk.emit("pairs", low ^ (high >> 1), *row)


def offer(desk: Desk, part: int) -> None:
    """Pairs of one relation, each once."""
    recipe, paper = desk.recipe, desk.recipe.paper
    before = "titles" if recipe.mends.each_link else "items"
    of: dict[tuple[str, int, int], list[tuple[Any, ...]]] = defaultdict(list)
    for row in desk.rows("pairs", part, before):
        low, high = (row[2], row[3]) if row[2] < row[3] else (row[3], row[2])
        of[row[5] if paper else "", low, high].append(row)
    for found in of.values():
        if len(found) > 1:
            if len({row[4] for row in found}) > 1:
                desk.drop("pair in more than one relation", n=len(found))
                continue
            desk.drop("pair stated twice", n=len(found) - 1)
            found.sort(key=lambda row: (row[6], row[5], row[0], row[1], row[7]))
        a, b, a_mark, b_mark, letter, group, domain, source = found[0]
        one = Sample(task="PRP", input=f"{a}{BETWEEN}{b}", output=letter, source=source,
                     entities=(f"title:{a_mark:016x}", f"title:{b_mark:016x}"))  # fmt: skip
        key = order(desk.seed, "PRP", f"{a_mark:x} {b_mark:x} {group if paper else ''}")
        if paper:
            desk.stand("PRP", domain, group, key)
        desk.offer("all" if paper else "ood" if domain == "OOD" else "links", one, key, letter)
        if domain != "OOD":
            desk.emit("edges", 0, key, letter, a_mark, b_mark)


def render(desk: Desk, one: Candidate) -> Candidate:
    """A drawn pair as its input shows it."""
    a, _, b = one.input.partition(BETWEEN)
    given = json.dumps({"Product 1:": a, "Product 2:": b})
    return one._replace(input=given, options=desk.recipe.words.options_json)


def cut_graph(desk: Desk) -> None:
    """A split for each product of the first links in drawing order; what is left of them for each pool."""
    recipe = desk.recipe
    limit = max(LEAST, SPARE * (recipe.asked - recipe.size("ood")))
    keys, letters, ends = _first_links(desk, limit)
    desk.drop(
        MORE,
        "",
        sum(desk.facts("pool/PRP", "pairs").values())
        - sum(n for name, n in desk.facts("pool/PRP", "pairs").items() if name.startswith("ood"))
        - len(keys),
    )
    if recipe.mends.disjoint_splits:
        edges = [(f"{a:016x}", f"{b:016x}") for a, b in ends.tolist()]
        nodes = {node for edge in edges for node in edge}
        largest = max(4, min(PART, len(nodes) // 20))
        splits = by_neighbourhood(nodes, edges, desk.seed, "PRP", recipe.shares, largest=largest)
        own = [splits[a] if splits[a] == splits[b] else "" for a, b in edges]
    else:
        splits, own = {}, [by_hash(desk.seed, "PRP", f"{key:016x}", recipe.shares) for key in keys.tolist()]
    for split, letter in zip(own, letters.tolist(), strict=True):
        if split:
            desk.tell("pools/PRP", f"{split}\x1f{letter}")
        else:
            desk.drop("link between products of two splits")
    for name, n in desk.facts("pool/PRP", "pairs").items():
        if name.startswith("ood"):
            desk.tell("pools/PRP", name, n)
    names = sorted(splits)
    nodes_table = {"node": [int(name, 16) for name in names], "split": [splits[name] for name in names]}
    desk.share("nodes", pa.Table.from_pydict(nodes_table, schema=NODES))
    desk.share("last", pa.table({"key": pa.array([int(keys.max()) if len(keys) else 0], pa.uint64())}))


def _first_links(desk: Desk, limit: int) -> tuple[Any, Any, Any]:
    """(keys, letters, ends [n, 2]) of the links that come first in drawing order."""
    held: list[tuple[Any, Any, Any]] = []

    def joined() -> tuple[Any, Any, Any]:
        if not held:
            return np.empty(0, np.uint64), np.empty(0, "U1"), np.empty((0, 2), np.uint64)
        keys, letters, ends = (np.concatenate(parts) for parts in zip(*held, strict=True))
        first = np.argsort(keys, kind="stable")[:limit]
        return keys[first], letters[first], ends[first]

    for segment in desk.segments("edges", "pairs"):
        held.append((
            segment["key"].to_numpy(), np.array(segment["letter"].to_pylist(), "U1"),
            np.stack([segment["a"].to_numpy(), segment["b"].to_numpy()], axis=1),
        ))  # fmt: skip
        if sum(len(part[0]) for part in held) > 4 * limit:
            held[:] = [joined()]
    return joined()


def admit(desk: Desk, pool: str, one: Candidate) -> bool:
    """Whether both products of a link are of the pool's split."""
    if pool == "ood":
        return True
    if "nodes" not in desk.memo:
        table = desk.shared("nodes", "graph")
        names = (f"title:{node:016x}" for node in table["node"].to_pylist())
        desk.memo["nodes"] = dict(zip(names, table["split"].to_pylist(), strict=True))
        desk.memo["last"] = desk.shared("last", "graph")["key"][0].as_py()
    if one.key > desk.memo["last"]:
        return False
    if not desk.recipe.mends.disjoint_splits:
        return by_hash(desk.seed, "PRP", f"{one.key:016x}", desk.recipe.shares) == pool
    return all(desk.memo["nodes"].get(entity) == pool for entity in one.entity_list)


def pick(desk: Desk) -> None:
    """The authors' draw: split and front of each category, then a draw from all."""
    picks, found = Picks(desk, "PRP"), stands(desk, "PRP", "pairs")
    fronts: dict[str, list[int]] = {pool: [] for pool in ("train", "val", "test")}
    groups: dict[str, list[int]] = defaultdict(list)
    for stand in found.get("IND", []):
        groups[stand.group].append(stand.place)
    for group in sorted(groups):
        for pool, indices in split_three(len(groups[group]), desk.seed).items():
            fronts[pool] += [groups[group][i] for i in indices[: desk.recipe.size(pool)].tolist()]
    for pool, places in fronts.items():
        picks.put(pool, [places[i] for i in permutation(len(places), desk.seed)[: desk.recipe.size(pool)].tolist()])
    outside = [stand.place for stand in found.get("OOD", [])]
    picks.put("ood", [outside[i] for i in split_three(len(outside), desk.seed)["test"].tolist()])


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """Titles are joined to links, links to pairs; then the graph is cut, or the authors' draw made."""
    first = [Stage("titles", "each", join)]
    if not recipe.mends.each_link:
        first.append(Stage("items", "each", whole_items))
    first.append(Stage("pairs", "each", offer, offers=("PRP",)))
    return (*first, Stage("picks", "once", pick) if recipe.paper else Stage("graph", "once", cut_graph))


FAMILY = Family(
    name="PRP", tasks=("PRP",), takes=(Product,), scatter=scatter,
    tables={"titles": TITLES, "links": LINKS, "found": FOUND, "pairs": PAIRS, "edges": EDGES}, stages=stages,
    streams=dict.fromkeys(("train", "val", "test"), "links"), paper_stream="all", admit=admit, render=render,
)  # fmt: skip
