"""SA, sentiment analysis (spec B.4): the stars of a review, as one of five options.

`sound`: neither a product nor a user is in two splits. Products are dealt to splits by their number of reviews, each
user goes where most of the user's reviews are, and reviews that fall between are dropped and counted.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.draws import rank
from ecellm.ecinstruct.instructions import wording
from ecellm.ecinstruct.samples import Pools, Recipe, Sample, Samples, Sourced, finish, of_type
from ecellm.ecinstruct.splits import Shares, by_hash, lacking
from ecellm.records import OOD
from ecellm.sources.records import Review

FIRST_LINES = 200_000
"""`paper` reads only so many reviews of a category."""
LEAST_WORDS = 10


def build(task: str, records: list[Sourced], recipe: Recipe) -> Samples:
    """Samples of Review records."""
    pools = Pools()
    found = _usable(of_type(records, Review), pools, recipe)
    splits = _splits([review for _, review in found if review.domain != OOD], recipe.shares) if recipe.sound else {}
    for source, review in found:
        one = sample(task, source, review)
        if review.domain == OOD:
            pools.add("ood", one)
        elif not recipe.sound:
            pools.add(by_hash(recipe.seed, "SA", one.id, recipe.shares), one)
        elif splits["product:" + review.product] == splits["user:" + review.user]:
            pools.add(splits["product:" + review.product], one)
        else:
            pools.dropped["product and user in two splits"] += 1
    return finish(task, pools, recipe)


def sample(task: str, source: str, review: Review) -> Sample:
    """One review as a sample; 5 stars are option A, 1 star is E."""
    options = wording(task).options
    return Sample(
        task=task, input=review.text, output=options[5 - int(review.rating)], options=json.dumps(options),
        entities=("product:" + review.product, "user:" + review.user), source=source,
    )  # fmt: skip


def _usable(reviews: list[tuple[str, Review]], pools: Pools, recipe: Recipe) -> list[tuple[str, Review]]:
    kept, of_group = [], Counter[str]()
    for source, review in reviews:
        of_group[review.group] += 1
        text = cleaning.clean(review.text) if recipe.sound else review.text
        words = len(text.split()) if recipe.sound else len(text.split(" "))
        if not recipe.sound and of_group[review.group] > FIRST_LINES:
            pools.dropped["beyond the first 200,000 of a category"] += 1
        elif words < LEAST_WORDS:
            pools.dropped["fewer than 10 words"] += 1
        elif review.rating != int(review.rating):
            pools.dropped["rating between two stars"] += 1
        elif recipe.sound and not cleaning.mostly_english(text):
            pools.dropped["foreign script"] += 1
        else:
            cut = cleaning.first_words(text, recipe.max_words) if recipe.sound else text
            kept.append((source, replace(review, text=cut)))
    return _distinct(kept, pools) if recipe.sound else kept


def _distinct(reviews: list[tuple[str, Review]], pools: Pools) -> list[tuple[str, Review]]:
    """One of each text and rating: shops show a review under every variant of a product."""
    first: dict[tuple[str, float], tuple[str, Review]] = {}
    for source, review in sorted(reviews, key=lambda pair: (pair[1].product, pair[1].user, pair[1].time, pair[0])):
        first.setdefault((review.text, review.rating), (source, review))
    pools.dropped["duplicates"] += len(reviews) - len(first)
    return list(first.values())


def _splits(reviews: list[Review], shares: Shares) -> dict[str, str]:
    """`product:ID` and `user:ID` -> split. A product of a file with a split of its own has that one."""
    splits = {"product:" + review.product: review.split for review in reviews if review.split}
    load = Counter(review.product for review in reviews if "product:" + review.product not in splits)
    total = max(1, load.total())
    filled = dict.fromkeys(shares, 0.0)
    for product in sorted(load, key=lambda product: (-load[product], rank("SA", product))):
        split = lacking(filled, total, shares)
        filled[split] += load[product]
        splits["product:" + product] = split
    where: dict[str, Counter[str]] = defaultdict(Counter)
    for review in reviews:
        where[review.user][splits["product:" + review.product]] += 1
    for user, counts in where.items():
        # weighted by the split's share: else users, who buy mostly in the large split, would empty the small ones
        splits["user:" + user] = max(shares, key=lambda name: (counts[name] / shares[name] ** 0.4, name))
    return splits
