"""SA, sentiment analysis (spec B.4): the stars of a review, as one of five options.

`paper`: the first 200,000 lines of each file, 80/10/10 by scikit-learn's draw for each category, then a third of the
size from the front of each category, in the order of their names. `sound`: neither a product nor a user is in two
splits. The products with most reviews are dealt to splits by their number of reviews, the others by hash; each user
goes where most of the user's reviews are, and reviews that fall between are dropped and counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import groupby

import numpy as np
import pyarrow as pa

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.draws import mark, order, rank
from ecellm.ecinstruct.flow.desk import Desk
from ecellm.ecinstruct.flow.family import At, Family, Stage
from ecellm.ecinstruct.picks import Picks, stands
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.replay import split_three
from ecellm.ecinstruct.samples import Sample
from ecellm.ecinstruct.splits import Shares, by_hash, lacking
from ecellm.sources.records import Review

FIRST_LINES = 200_000
"""`paper` reads only so many lines of a file."""
LEAST_WORDS = 10
DEALT = 20_000
"""Products, those with most reviews, that are dealt one by one; the rest go by hash, which is as even by then."""
ROWS = pa.schema(
    [
        ("user", pa.string()), ("product", pa.string()), ("domain", pa.string()), ("split", pa.string()),
        ("stars", pa.int8()), ("time", pa.int64()), ("text", pa.string()), ("source", pa.string()),
    ]
)  # fmt: skip
PRODUCTS = pa.schema([("product", pa.uint64()), ("split", pa.string())])
DEAL = pa.schema([("product", pa.uint64()), ("split", pa.string())])


def scatter(desk: Desk, review: Review, at: At) -> None:
    """One review that says enough, to its user's part."""
    recipe, mends = desk.recipe, desk.recipe.mends
    if not mends.whole_files and review.line > FIRST_LINES:
        desk.drop("beyond the first 200,000 lines of a file", at.split)
        return
    text = cleaning.clean(review.text) if mends.clean_text else review.text
    words = len(text.split()) if mends.words_by_space else len(text.split(" "))
    if not text or words < LEAST_WORDS:
        desk.drop("fewer than 10 words", at.split)
        return
    if at.domain == "HELD":
        desk.drop("category held out by another task", at.split)
        return
    stars = int(review.rating)
    if stars != review.rating and not recipe.paper:
        desk.drop("rating between two stars", at.split)
        return
    if mends.clean_text:
        desk.change(cleaning.MARKUP, cleaning.marked(review.text))
    if mends.cut_documents and words > recipe.max_words:
        desk.change(f"cut at {recipe.max_words} words")
        text = cleaning.first_words(text, recipe.max_words)
    if recipe.paper:
        desk.offer("all", sample(at.source, text, stars, review.product, review.user, recipe), at.place)
        desk.stand("SA", at.domain, at.group, at.place)
        return
    desk.emit("rows", mark(review.user), review.user, review.product, at.domain, at.split, stars, review.time, text,
              at.source)  # fmt: skip
    if at.domain != "OOD":
        product = mark("product:" + review.product)
        desk.emit("products", 0, product, at.split)


def sample(source: str, text: str, stars: int, product: str, user: str, recipe: Recipe) -> Sample:
    """One review as a sample; 5 stars are option A, 1 star is E."""
    options = recipe.words.options
    return Sample(task="SA", input=text, output=options[5 - stars], options=recipe.words.options_json,
                  entities=("product:" + product, "user:" + user), source=source)  # fmt: skip


def deal(desk: Desk) -> None:
    """A split for each product: the source's, or dealt so that each split gets its share of the reviews."""
    counts: dict[str, list[np.ndarray]] = defaultdict(list)
    for segment in desk.segments("products"):
        for split in segment["split"].unique().to_pylist():
            mask = np.asarray(segment["split"].to_numpy(zero_copy_only=False) == split)
            counts[split].append(segment["product"].to_numpy()[mask])
    stated = {split: np.unique(np.concatenate(found)) for split, found in counts.items() if split}
    unstated = np.concatenate(counts.get("", [np.empty(0, np.uint64)]))
    products, load = np.unique(unstated, return_counts=True)
    chosen: dict[int, str] = {}
    for split in ("train", "val", "test"):  # a product in several goes to the last of these
        chosen.update(dict.fromkeys(stated.get(split, np.empty(0)).tolist(), split))
    free = [(n, p) for p, n in zip(products.tolist(), load.tolist(), strict=True) if p not in chosen]
    chosen.update(_dealt(free, desk.recipe.shares, desk.seed))
    names = sorted(chosen)
    desk.share("deal", pa.Table.from_pydict({"product": names, "split": [chosen[n] for n in names]}, schema=DEAL))


def _dealt(load: list[tuple[int, int]], shares: Shares, seed: int) -> dict[int, str]:
    """Product -> split, of (reviews, product) pairs, the heaviest first to the split that lacks most."""
    total = max(1, sum(n for n, _ in load))
    filled = dict.fromkeys(shares, 0.0)
    chosen: dict[int, str] = {}
    ranked = sorted(load, key=lambda pair: (-pair[0], rank("SA", pair[1])))
    for n, product in ranked[:DEALT]:
        split = lacking(filled, total, shares)
        filled[split] += n
        chosen[product] = split
    for _, product in ranked[DEALT:]:
        chosen[product] = by_hash(seed, "SA", f"product {product}", shares)
    return chosen


def users(desk: Desk, part: int) -> None:
    """A split for each user of a part; reviews whose product is in the same one are offered."""
    recipe, disjoint = desk.recipe, desk.recipe.mends.disjoint_splits
    found = list(desk.rows("rows", part))
    rows = sorted(set(found), key=lambda row: (row[0], row[1], row[5], row[6], row[4], row[7], row[2]))
    desk.drop("duplicates", "", len(found) - len(rows))
    splits = _splits_of(desk, [row[1] for row in rows])
    for user, group in groupby(zip(rows, splits, strict=True), key=lambda pair: pair[0][0]):
        mine = list(group)
        home = _home(Counter(split for row, split in mine if row[2] != "OOD"), recipe)
        for (_, product, domain, _, stars, _, text, source), split in mine:
            pool = "ood" if domain == "OOD" else split
            if pool != "ood" and disjoint and split != home:
                desk.drop("product and user in two splits", split)
                continue
            one = sample(source, text, stars, product, user, recipe)
            if pool != "ood" and not disjoint:
                pool = by_hash(desk.seed, "SA", one.id, recipe.shares)
            desk.offer(pool, one, order(desk.seed, "SA", text), one.output)


def _splits_of(desk: Desk, names: list[str]) -> list[str]:
    """The split of each product; "" of those that were not dealt."""
    table = desk.shared("deal", "deal")
    products, splits = table["product"].to_numpy(), table["split"].to_pylist()
    if not splits:
        return [""] * len(names)
    marks = np.array([mark("product:" + name) for name in names], np.uint64)
    where = np.searchsorted(products, marks).clip(0, len(products) - 1)
    return [
        splits[i] if same else "" for i, same in zip(where.tolist(), (products[where] == marks).tolist(), strict=True)
    ]


def _home(counts: Counter[str], recipe: Recipe) -> str:
    """A user's split. Weighted by the split's share: else users, who buy mostly in the large split, would empty the
    small ones."""
    return max(recipe.shares, key=lambda name: (counts[name] / recipe.shares[name] ** 0.4, name))


def pick(desk: Desk) -> None:
    """The authors' draw: split for each category, then the same number from the front of each."""
    picks, found = Picks(desk, "SA"), stands(desk, "SA", "scatter")
    groups: dict[str, list[int]] = defaultdict(list)
    for stand in found.get("IND", []):
        groups[stand.group].append(stand.place)
    halves = {group: split_three(len(groups[group]), desk.seed) for group in sorted(groups)}
    for pool in ("train", "val", "test"):
        chosen: list[int] = []
        size = desk.recipe.size(pool)
        for i, (group, three) in enumerate(halves.items()):
            front = (groups[group][j] for j in three[pool].tolist())
            while len(chosen) < (i + 1) * size / len(halves) and (place := next(front, None)) is not None:
                chosen.append(place)
        picks.put(pool, chosen)
    outside = [stand.place for stand in found.get("OOD", [])]
    picks.put("ood", [outside[j] for j in split_three(len(outside), desk.seed)["test"].tolist()])


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """`paper` draws at once."""
    if recipe.paper:
        return (Stage("picks", "once", pick),)
    return (Stage("deal", "once", deal), Stage("users", "each", users, offers=("SA",)))


FAMILY = Family(
    name="SA", tasks=("SA",), takes=(Review,), scatter=scatter, tables={"rows": ROWS, "products": PRODUCTS},
    stages=stages, paper_stream="all",
)  # fmt: skip
