"""How many samples of each class a pool takes: as found, class-aware for training, in proportion for tests. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ecellm.ecinstruct.recipe import CLASSIFIED, Recipe

Counts = dict[str, int]


def places_of(recipe: Recipe, pool: str, left: Counts, there: Mapping[str, Counts], size: int) -> Counts:
    """Class -> places among `size`; {"": size} where classes do not matter.

    Args:
        left: class -> candidates of this pool that were not looked at yet.
        there: pool -> class -> all its candidates.
    """
    if recipe.task not in CLASSIFIED or len(left) < 2 or sum(left.values()) <= size:
        return {"": size}
    if pool == "train":
        return balanced(left, size, recipe.balance) if recipe.balance else {"": size}
    if not recipe.mends.stratified:
        return {"": size}
    known = ("ood",) if pool == "ood" else ("train", "val", "test")
    whole: Counts = {}
    for name in known:
        for klass, n in there.get(name, {}).items():
            whole[klass] = whole.get(klass, 0) + n
    return shared_out({klass: float(whole.get(klass, 0)) for klass in left}, left, size)


def balanced(there: Counts, size: int, balance: float) -> Counts:
    """Places in proportion to n ** (1 - balance) of a class of n: 0 as found, 1 the same for each."""
    return shared_out({klass: n ** (1 - balance) for klass, n in there.items()}, there, size)


def shared_out(weights: Mapping[str, float], there: Counts, size: int) -> Counts:
    """`size` places by weight; what a class cannot fill goes to the others, so nothing is lost by asking for many."""
    places = dict.fromkeys(there, 0.0)
    open_, left = sorted(there), float(size)
    while left > 1e-9 and open_:
        total, given = sum(weights[klass] for klass in open_), left
        for klass in open_:
            share = given * weights[klass] / total if total else given / len(open_)
            share = min(share, there[klass] - places[klass])
            places[klass] += share
            left -= share
        open_ = [klass for klass in open_ if places[klass] < there[klass] - 1e-9]
    quota = {klass: int(share + 1e-6) for klass, share in places.items()}
    rest = sorted(places, key=lambda klass: (quota[klass] - places[klass], klass))
    for klass in rest[: max(0, min(size, sum(there.values())) - sum(quota.values()))]:
        quota[klass] += 1
    return quota
