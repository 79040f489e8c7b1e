"""The 5-core of SR's `paper` recipe, and its users in the authors' order (spec B.5).

Users and items are numbers here, and every category's purchases are held at once: some 16 bytes for each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecellm.ecinstruct.flow.desk import Desk
from ecellm.ecinstruct.picks import Picks, stands
from ecellm.ecinstruct.replay import permutation

LEAST = 5
Marks = npt.NDArray[np.uint64]
CORE = pa.schema([("mark", pa.uint64())])


def find_core(desk: Desk) -> None:
    """Share the users and items of each category that keep five interactions, whatever is dropped."""
    found: dict[str, list[pa.Table]] = defaultdict(list)
    for segment in desk.segments("bought", "items"):
        for group in segment["group"].unique().to_pylist():
            mine = segment.filter(pc.equal(segment["group"], group))
            found[group].append(mine.select(["user_mark", "product_mark", "stars", "time"]))
    for number, (group, tables) in enumerate(sorted(found.items())):
        events = pa.concat_tables(tables).group_by(["user_mark", "product_mark", "stars", "time"], use_threads=False)
        whole = events.aggregate([])
        users, items = _core(whole["user_mark"].to_numpy(), whole["product_mark"].to_numpy())
        desk.share(f"core.users.{number}", pa.Table.from_pydict({"mark": users}, schema=CORE))
        desk.share(f"core.items.{number}", pa.Table.from_pydict({"mark": items}, schema=CORE))
        desk.tell("core", group, number)


def _core(users: Marks, items: Marks) -> tuple[Marks, Marks]:
    """The users and items that are left when those with fewer than five interactions go, again and again."""
    _, user = np.unique(users, return_inverse=True)
    _, item = np.unique(items, return_inverse=True)
    kept = np.ones(len(users), bool)
    while True:
        by_user = np.bincount(user[kept], minlength=int(user.max(initial=0)) + 1)
        by_item = np.bincount(item[kept], minlength=int(item.max(initial=0)) + 1)
        still = kept & (by_user[user] >= LEAST) & (by_item[item] >= LEAST)
        if still.sum() == kept.sum():
            return np.unique(users[kept]), np.unique(items[kept])
        kept = still


def keep_core(desk: Desk) -> Callable[[str, int, int], bool]:
    """(category, user, item) -> whether the purchase is of the core."""
    kept = {
        group: tuple(
            set(desk.shared(f"core.{kind}.{number}", "shelf")["mark"].to_pylist()) for kind in ("users", "items")
        )
        for group, number in desk.facts("core", "shelf").items()
    }
    return lambda group, user, item: user in kept[group][0] and item in kept[group][1]


def pick(desk: Desk) -> None:
    """Users of each category in pandas' order; the same number of the first of each, in the order of the names."""
    picks, found = Picks(desk, "SR"), stands(desk, "SR", "users")
    groups: dict[str, list[int]] = defaultdict(list)
    for stand in found.get("IND", []):
        groups[stand.group].append(stand.place)
    shuffled = {group: [groups[group][i] for i in permutation(len(groups[group]), desk.seed).tolist()]
                for group in sorted(groups)}  # fmt: skip
    for pool in ("train", "val", "test"):
        size, chosen = desk.recipe.size(pool), []
        for i, users in enumerate(shuffled.values()):
            chosen += users[: (i + 1) * size // len(shuffled) - i * size // len(shuffled)]
        picks.put(pool, chosen)
    outside = [stand.place for stand in found.get("OOD", [])]
    picks.put("ood", [outside[i] for i in permutation(len(outside), desk.seed).tolist()])
