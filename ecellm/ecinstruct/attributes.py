"""AVE, attribute value extraction (spec B.1). Out of domain means held-out attributes, not categories.

Gold triples are lower-cased and the input is not, as in the paper; they keep the order of the evidence. `paper`: the
source's splits (MAVE's own rule where a file states none), attributes held out until they cover the OOD set, each pool
shuffled by pandas' draw. The draw of the attributes is Python's `shuffle` twice from the seed: where the authors'
generator stood by then is not known. `sound` keeps a product in one split, leaves out a product with an attribute both
stated and absent, and holds out no attribute that would empty the test.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from functools import lru_cache

import pyarrow as pa

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.draws import mark, order, rank
from ecellm.ecinstruct.flow.desk import Desk
from ecellm.ecinstruct.flow.family import At, Candidate, Family, Stage
from ecellm.ecinstruct.picks import Picks, stands
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.replay import permutation
from ecellm.ecinstruct.samples import POOLS, Sample
from ecellm.ecinstruct.splits import SourceSplits
from ecellm.sources.records import Attributed

HELD_OUT_SHARE = 0.15
"""Most of the test records that are held out for the OOD set, beside `sizes.ood`."""
ROWS = pa.schema(
    [
        ("product", pa.uint64()), ("split", pa.string()), ("attribute", pa.string()), ("stated", pa.bool_()),
        ("input", pa.string()), ("output", pa.string()), ("source", pa.string()), ("id", pa.string()),
    ]
)  # fmt: skip
HELD = pa.schema([("attribute", pa.string())])
OUTSIDE = "held-out attribute outside the test part"


def scatter(desk: Desk, record: Attributed, at: At) -> None:
    """One record, to its product's part; in `paper` it is ready to be drawn."""
    one = sample("AVE", at.source, record, desk.recipe)
    if desk.recipe.mends.clean_text and desk.memo.get("texts") != record.paragraphs:  # a product's records follow
        desk.memo["texts"] = record.paragraphs
        desk.change(cleaning.MARKUP, sum(cleaning.marked(text) for text, _ in record.paragraphs))
    if desk.recipe.paper:
        split = at.split or _maves_split(record)
        desk.offer(split, one, at.place)
        desk.stand("AVE", split, "0 stated" if record.evidences else "1 absent", at.place, record.attribute)
        return
    product = mark(one.entities[0])
    desk.tell("splits", at.split)
    desk.emit("rows", product, product, at.split, record.attribute, bool(record.evidences), one.input, one.output,
              at.source, one.entities[1])  # fmt: skip


def sample(task: str, source: str, record: Attributed, recipe: Recipe) -> Sample:
    """One record as a sample."""
    tidy = cleaning.clean if recipe.mends.clean_text else str
    shown, product = _product(record.paragraphs, recipe.mends.clean_text)
    given = f'{shown}"target attributes": {json.dumps(record.attribute)}}}'
    triples = dict.fromkeys((tidy(value).lower(), f"product {origin}".lower()) for value, origin in record.evidences)
    gold = [{"attribute": record.attribute.lower(), "value": value, "source": origin} for value, origin in triples]
    nothing = [{"attribute": record.attribute.lower(), "value": "None", "source": "None"}]
    return Sample(
        task=task, input=given, output=json.dumps(gold or nothing), source=source, slot=record.attribute,
        entities=(product or f"text:{mark(record.id):016x}", f"product:{source.partition(':')[0]}:{record.id}"),
    )  # fmt: skip


@lru_cache(maxsize=64)  # a product's records follow one another
def _product(paragraphs: tuple[tuple[str, str], ...], clean: bool) -> tuple[str, str]:
    """(the product's texts as the beginning of a JSON object, the product as an entity; "" without text).

    The product is its texts, as MAVE's own splitter has it: some sources give every attribute another id.
    """
    tidy = cleaning.clean if clean else str
    texts: dict[str, list[str]] = {}
    for text, origin in paragraphs:
        texts.setdefault(origin, []).append(tidy(text))
    shown = json.dumps({f"product {origin}": ", ".join(parts) for origin, parts in texts.items()})
    key = cleaning.key(" ".join(text for text, _ in paragraphs))
    return shown[:-1] + (", " if texts else ""), f"text:{mark(key):016x}" if key else ""


def _maves_split(record: Attributed) -> str:
    """MAVE's splitter: the bytes of the paragraphs, summed, modulo 10; 8 is val, 9 is test."""
    paragraphs = [{"text": text, "source": origin} for text, origin in record.paragraphs]
    rest = sum(json.dumps(paragraphs).encode()) % 10
    return "train" if rest < 8 else "val" if rest == 8 else "test"


def products(desk: Desk, part: int) -> None:
    """A split for each product, and samples that contradict none of the same product."""
    mends, recipe = desk.recipe.mends, desk.recipe
    splits = source_splits(desk, "AVE")
    of: dict[int, list[tuple[object, ...]]] = defaultdict(list)
    for row in desk.rows("rows", part):
        of[row[0]].append(row)
    for product, rows in of.items():
        entity = f"text:{product:016x}"
        split = splits.of(entity, (str(row[1]) for row in rows))
        stated = {row[2] for row in rows if row[3]}
        mixed = stated & {row[2] for row in rows if not row[3]} if mends.consistent_labels else set()
        for _, said, attribute, _, given, output, source, name in rows:
            own = split if mends.disjoint_splits else str(said) or splits.of(str(given) + str(output), ())
            if attribute in mixed:
                desk.drop("attribute both stated and absent", own)
                continue
            desk.tell("attributes", f"{own}\x1f{attribute}")
            one = Sample(task="AVE", input=str(given), output=str(output), source=str(source), slot=str(attribute),
                         entities=(entity, str(name)))  # fmt: skip
            desk.offer(own, one, order(recipe.seed, "AVE", one.input))


def source_splits(desk: Desk, purpose: str, stages: tuple[str, ...] = ("scatter",)) -> SourceSplits:
    """How entities get their splits, from the splits that the sources were seen to state in earlier stages."""
    said = {split for stage in stages for split in desk.facts("splits", stage)}
    return SourceSplits(desk.seed, purpose, desk.recipe.shares, frozenset(said) - {""}, "" not in said)


def hold_out(desk: Desk) -> None:
    """Share the attributes that no training sample may ask for, and count the pools without them."""
    counts: dict[str, dict[str, int]] = {"test": {}, "val": {}, "train": {}}
    for name, n in desk.facts("attributes", "products").items():
        split, _, attribute = name.partition("\x1f")
        counts[split][attribute] = n
    held = _held_out(counts["test"], desk.recipe)
    desk.share("held", pa.Table.from_pydict({"attribute": sorted(held)}, schema=HELD))
    for split, of in counts.items():
        outside = sum(n for attribute, n in of.items() if attribute in held)
        desk.tell("pools/AVE", f"{split}\x1f", sum(of.values()) - outside)
        if split == "test":
            desk.tell("pools/AVE", "ood\x1f", outside)
        else:
            desk.drop(OUTSIDE, split, outside)


def _goal(test: int, recipe: Recipe) -> int:
    """Test records to hold out of so many. MAVE has so many that this is `sizes.ood`; our stand-ins have few."""
    return min(recipe.sizes.ood, int(HELD_OUT_SHARE * test) + 1)


def _held_out(counts: dict[str, int], recipe: Recipe) -> set[str]:
    """Attributes drawn until they cover `sizes.ood` test records or 15 % of them; one stays at least.

    Those that would cover more than twice as many are passed over; where all do, the smallest is taken.
    """
    goal = _goal(sum(counts.values()), recipe)
    held: set[str] = set()
    covered = 0
    for name in sorted(counts, key=lambda name: (rank(recipe.seed, "AVE", "held out", name), name))[:-1]:
        if covered >= goal:
            break
        if counts[name] <= 2 * goal:
            held.add(name)
            covered += counts[name]
    smallest = min(counts, key=lambda name: (counts[name], name), default="")
    return held if held or len(counts) < 2 else {smallest}


def pick(desk: Desk) -> None:
    """The authors' draw: attributes held out, each pool shuffled, its front taken."""
    picks, seed = Picks(desk, "AVE"), desk.seed
    pools = stands(desk, "AVE", "scatter")
    test = pools.get("test", [])
    names = list(dict.fromkeys(stand.note for stand in test))
    draw = random.Random(seed)
    draw.shuffle(names)
    draw.shuffle(names)
    held: set[str] = set()
    covered = 0
    of_name: dict[str, int] = defaultdict(int)
    for stand in test:
        of_name[stand.note] += 1
    for name in names:
        if covered >= _goal(len(test), desk.recipe):
            break
        held.add(name)
        covered += of_name[name]
    for pool in POOLS:
        found = [stand for stand in pools.get("test" if pool == "ood" else pool, [])
                 if (stand.note in held) == (pool == "ood")]  # fmt: skip
        if pool in ("train", "val"):
            picks.leave(OUTSIDE, pool, len(pools.get(pool, [])) - len(found))
        picks.put(pool, [found[i].place for i in permutation(len(found), seed).tolist()])


def admit(desk: Desk, pool: str, one: Candidate) -> bool:
    """Whether a candidate asks for what its pool may ask for."""
    if "held" not in desk.memo:
        desk.memo["held"] = frozenset(desk.shared("held", "held")["attribute"].to_pylist())
    return (one.slot in desk.memo["held"]) == (pool == "ood")


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """`paper` draws at once."""
    if recipe.paper:
        return (Stage("picks", "once", pick),)
    return (Stage("products", "each", products, offers=("AVE",)), Stage("held", "once", hold_out))


FAMILY = Family(
    name="AVE", tasks=("AVE",), takes=(Attributed,), scatter=scatter, tables={"rows": ROWS}, stages=stages,
    streams={"ood": "test"}, admit=admit,
)  # fmt: skip
