"""Which split an entity belongs to: a product, a user, a query. Samples follow their entities, never the other way.

Three ways: by hash (`by_hash`), by a source's own splits with gaps filled (`SourceSplits`), and by
neighbourhoods of a graph (`by_neighbourhood`), so that pairs whose two ends must share a split are seldom torn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ecellm.ecinstruct.draws import rank, unit

Shares = Mapping[str, float]
"""Split -> its share of the whole, all above 0, in order of claim."""
SHARES: Shares = {"test": 0.1, "val": 0.1, "train": 0.8}


def shares_of(test: float, val: float) -> Shares:
    """Shares with what is left for train."""
    return {"test": test, "val": val, "train": round(1.0 - test - val, 12)}


def by_hash(seed: int, purpose: str, entity: str, shares: Shares = SHARES) -> str:
    """By the entity's own hash: adding entities moves none."""
    draw = unit(seed, "split", purpose, entity)
    return "test" if draw < shares["test"] else "val" if draw < shares["test"] + shares["val"] else "train"


@dataclass(frozen=True, slots=True)
class SourceSplits:
    """Splits of entities from those that the source states for its records.

    A source with splits keeps them: an entity in several goes to test before val before train. A missing test split
    is half of val, a missing val split a tenth of train. Where nothing is stated, the hash decides; with such entities
    beside stated ones, they fill the gaps and the stated ones stay.
    """

    seed: int
    purpose: str
    shares: Shares
    present: frozenset[str]
    """Splits that any record states."""
    whole: bool
    """Whether every record states one."""

    def of(self, entity: str, stated: Iterable[str]) -> str:
        """The split of an entity whose records state these splits ("" where a record states none)."""
        claim = set(stated) - {""}
        if not self.present or not claim:
            return by_hash(self.seed, self.purpose, entity, self.shares)
        split: str = next(name for name in ("test", "val", "train") if name in claim)
        draw = unit(self.seed, "fill", self.purpose, entity)
        if split == "val" and self.whole and "test" not in self.present and draw < 0.5:
            return "test"
        if split == "train" and self.whole and len(self.present) == 1:
            return by_hash(self.seed, self.purpose, entity, self.shares)
        if split == "train" and self.whole and "val" not in self.present and draw < 0.1:
            return "val"
        return split


def by_neighbourhood(
    nodes: Iterable[str], edges: Iterable[tuple[str, str]], seed: int, purpose: str, shares: Shares = SHARES, *,
    largest: int | None = None,
) -> dict[str, str]:  # fmt: skip
    """Node -> split, the edges shared out as nearly as the parts allow.

    The graph is cut into parts: connected components, or pieces of at most `largest` nodes grown breadth first where
    a component is bigger. Whole parts go to the split that lacks most of its share. Edges between parts may be torn.
    """
    near: dict[str, set[str]] = {node: set() for node in nodes}
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    order = sorted(near, key=lambda node: (rank(seed, purpose, node), node))
    parts = _parts(order, near, largest)
    weight = [sum(len(near[node]) for node in part) for part in parts]
    total = max(1, sum(weight))
    filled: dict[str, float] = dict.fromkeys(shares, 0.0)
    chosen: dict[str, str] = {}
    ranked = sorted(range(len(parts)), key=lambda i: (-weight[i], rank(seed, purpose, parts[i][0]), parts[i][0]))
    for i in ranked:
        split = lacking(filled, total, shares)
        if not weight[i]:  # without edges it would not move the balance, and all such would go to one split
            split = by_hash(seed, purpose, parts[i][0], shares)
        filled[split] += weight[i]
        chosen.update(dict.fromkeys(parts[i], split))
    return chosen


def lacking(filled: Mapping[str, float], total: float, shares: Shares) -> str:
    """The split that lacks most of its share of `total`."""
    return max(shares, key=lambda name: (1 - filled[name] / total / shares[name], shares[name], name))


def _parts(order: list[str], near: Mapping[str, set[str]], largest: int | None) -> list[list[str]]:
    """Disjoint parts that cover all nodes, each grown from its first node in `order`."""
    done: set[str] = set()
    parts = []
    for start in order:
        if start in done:
            continue
        part: list[str] = []
        queue = deque([start])
        done.add(start)
        while queue and (largest is None or len(part) < largest):
            node = queue.popleft()
            part.append(node)
            fresh = sorted(near[node] - done)
            done.update(fresh)
            queue.extend(fresh)
        done.difference_update(queue)  # seen but not taken: other parts may have them
        parts.append(part)
    return parts
