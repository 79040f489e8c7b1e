"""The `sound` build of the made-up marketplace, written plainly with pandas in one process: the yardstick.

Whole files into frames, whole columns through the same cleaning, the same quality control (the same functions of
`ecellm.ecinstruct.quality`) until each pool has its size, rows to Parquet. Vectorised where pandas can, list
comprehensions where not, never `apply` row by row. A file that several tasks need is read and cleaned once. No
spilling, no resuming, no card. Splits are by hash or by the source, as the build has them, with pandas' own ways of
getting there.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd

from ecellm.config.schema import Run
from ecellm.ecinstruct import cleaning, negatives, questions, rankings
from ecellm.ecinstruct.draws import rng
from ecellm.ecinstruct.instructions import wordings
from ecellm.ecinstruct.quality import Alike, foreign, plain, signature
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.recommendation import LETTERS, ordinal
from ecellm.ecinstruct.samples import Sample
from ecellm.ecinstruct.settings import to_rows
from ecellm.ecinstruct.splits import by_neighbourhood
from ecellm.records import SPLITS
from ecellm.rows import write_split
from ecellm.sources.amazon_metadata import ASIN
from ecellm.sources.records import CatalogueItem
from ecellm.storage.open import open_storage

IND = ("Electronics", "Home_and_Kitchen", "Sports_and_Outdoors")
OOD = "Tools_and_Home_Improvement"
POOLS = ("test", "ood", "val", "train")


def build(raw: Path, out: Path, run: Run) -> dict[str, int]:
    """Write the rows of all ten tasks under `out`. Returns samples of each task."""
    words = wordings({}, run.seed)
    recipes = {task: Recipe.of(run.build, task, run.seed, words[task]) for task in run.build.tasks}
    storage, counts = open_storage(str(out)), {}
    frames = {"AVE": attributes, "PRP": relations, "PM": matching, "SA": sentiment, "SR": recommendation,
              "MPC": judged, "PSI": judged, "QPR": ranked, "AP": asked, "AG": asked}  # fmt: skip
    for number, (task, recipe) in enumerate(recipes.items()):
        frame, render = frames[task](raw, task, recipe)
        pools = draw(frame, recipe, render)
        for split in SPLITS:
            write_split(storage, "rows", split, to_rows(task, split, pools, recipe), f"part-{number:05d}")
        counts[task] = sum(map(len, pools.values()))
    return counts


Render = Callable[[Any], tuple[str, str, str] | None] | None


def draw(frame: pd.DataFrame, recipe: Recipe, render: Render = None) -> dict[str, list[Sample]]:
    """Samples of each pool: no contradictions, duplicates, leaks, foreign texts or near-duplicates; classes as
    asked."""
    one_answer = recipe.task not in ("AG", "SR")
    if one_answer:
        frame = frame[frame.groupby("input").output.transform("nunique") == 1]
    frame = frame.drop_duplicates("input").sample(frac=1, random_state=recipe.seed)
    taken: set[str] = set()
    alike: dict[str, Alike] = {}
    pools: dict[str, list[Sample]] = {}
    for pool in POOLS:
        mine, size = frame[frame.pool == pool], recipe.size(pool)
        quota = quotas(mine, frame, pool, recipe, size)
        chosen: list[Sample] = []
        alike[pool] = Alike(recipe.near)
        for row in mine.itertuples():
            if len(chosen) == size:
                break
            if quota is not None and quota.get(row.klass, 0) == 0:
                continue
            if any(entity in taken for entity in row.entities):
                continue
            given, output, options = (
                (row.input, row.output, row.options) if render is None else render(row) or ("",) * 3
            )
            text = plain(given)
            if not given or (
                recipe.language and foreign(text.partition("\n")[0] if recipe.task in ("AP", "AG") else text)
            ):
                continue
            sign, group = signature(text), f"{row.slot}\x1f{output}"
            if any(alike[other].has(sign) for other in alike if other != pool and {other, pool} != {"test", "ood"}):
                continue
            if recipe.task != "SR" and alike[pool].has(sign, group):
                continue
            alike[pool].add(sign, group)
            chosen.append(
                Sample(
                    task=recipe.task,
                    input=given,
                    output=output,
                    options=options or None,
                    slot=row.slot,
                    option_labels=row.labels or None,
                    entities=tuple(row.entities),
                    source=row.source,
                )
            )
            if quota is not None:
                quota[row.klass] -= 1
        if pool not in ("test",):
            taken |= {entity for sample in chosen for entity in sample.entities}
        if pool == "ood":
            taken |= {entity for sample in pools["test"] for entity in sample.entities}
        pools[pool] = chosen
    return pools


def quotas(mine: pd.DataFrame, whole: pd.DataFrame, pool: str, recipe: Recipe, size: int) -> dict[str, int] | None:
    """Places of each class, where classes matter."""
    if mine.klass.nunique() < 2:
        return None
    if pool == "train":
        weight = mine.klass.value_counts() ** (1 - recipe.balance)
    else:
        weight = (whole[whole.pool == "ood"] if pool == "ood" else whole[whole.pool != "ood"]).klass.value_counts()
    there = mine.klass.value_counts()
    share = np.minimum(np.ceil(weight / weight.sum() * size), there.reindex(weight.index).fillna(0))
    return {str(klass): int(n) for klass, n in share.items()}


def frame_of(**columns: Any) -> pd.DataFrame:
    """Candidates; what is not given is empty."""
    frame = pd.DataFrame(columns)
    for name in ("klass", "options", "labels", "slot", "source"):
        if name not in frame:
            frame[name] = ""
    return frame


def lines(path: Path) -> Iterable[dict[str, Any]]:
    """JSON objects of a file; broken lines are passed over."""
    opened = gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # noqa: SIM115
    with opened as file:
        for line in file:
            try:
                yield orjson.loads(line)
            except ValueError:
                continue


def hashed(values: pd.Series, recipe: Recipe) -> pd.Series:
    """A split for each value, by its hash."""
    units = pd.util.hash_pandas_object(values, index=False).to_numpy() / 2**64
    test, val = recipe.shares["test"], recipe.shares["val"]
    return pd.Series(np.where(units < test, "test", np.where(units < test + val, "val", "train")), index=values.index)


def attributes(raw: Path, task: str, recipe: Recipe) -> tuple[pd.DataFrame, Render]:
    records = []
    for path in sorted(raw.glob("mave/splits/PRODUCT/*/00_All/*.jsonl")):
        split = {"eval": "val"}.get(path.parts[-3], path.parts[-3])
        records += [(split, r["id"], r["paragraphs"], r["attributes"][0]) for r in lines(path)]
    frame = pd.DataFrame(records, columns=["pool", "id", "paragraphs", "attribute"])
    texts = [[(cleaning.clean(p["text"]), p["source"]) for p in of] for of in frame.paragraphs]
    frame["product"] = [cleaning.key(" ".join(text for text, _ in of)) for of in texts]
    frame["slot"] = [one["key"] for one in frame.attribute]
    frame["stated"] = [bool(one["evidences"]) for one in frame.attribute]
    both = frame.groupby(["product", "slot"]).stated.transform("nunique")
    order = frame.pool.map({"test": 0, "val": 1, "train": 2})
    frame["pool"] = order.groupby(frame["product"]).transform("min").map({0: "test", 1: "val", 2: "train"})
    frame["input"] = [_texts(of, name) for of, name in zip(texts, frame.slot, strict=True)]
    frame["output"] = [_triples(one, of) for one, of in zip(frame.attribute, frame.paragraphs, strict=True)]
    frame = frame[both == 1]
    counts = frame[frame.pool == "test"].slot.value_counts()
    held = counts.index[-1]
    frame = frame[(frame.pool == "test") | (frame.slot != held)]
    pool = frame.pool.mask(frame.slot == held, "ood")
    return frame_of(pool=pool, input=frame.input, output=frame.output, slot=frame.slot,
                    entities=list(zip(frame["product"], frame.id, strict=True))), None  # fmt: skip


def _texts(texts: list[tuple[str, str]], name: str) -> str:
    given: dict[str, list[str]] = {}
    for text, origin in texts:
        given.setdefault(f"product {origin}", []).append(text)
    return json.dumps({**{key: ", ".join(parts) for key, parts in given.items()}, "target attributes": name})


def _triples(one: dict[str, Any], paragraphs: list[dict[str, str]]) -> str:
    name = one["key"].lower()
    found = dict.fromkeys((cleaning.clean(e["value"]).lower(), f"product {paragraphs[e['pid']]['source']}")
                          for e in one["evidences"])  # fmt: skip
    gold = [{"attribute": name, "value": value, "source": origin} for value, origin in found]
    return json.dumps(gold or [{"attribute": name, "value": "None", "source": "None"}])


@cache
def metadata(raw: Path, group: str) -> pd.DataFrame:
    frame = pd.DataFrame(
        [(r["asin"], r.get("title", ""), r.get("category", []), r.get("brand", ""), r.get("also_buy", []),
          r.get("also_view", []), ASIN.findall(r.get("similar_item", "")))
         for r in lines(raw / f"amazon2018/meta_{group}.json.gz")],
        columns=["id", "title", "category", "brand", "A", "B", "C"],
    )  # fmt: skip
    frame["title"] = frame.title.map(cleaning.clean_title)
    return frame


def relations(raw: Path, task: str, recipe: Recipe) -> tuple[pd.DataFrame, Render]:
    parts = []
    for group in (*IND, OOD):
        items = metadata(raw, group)
        titles = items.set_index("id").title
        for letter in "ABC":
            links = items[["id", "title", letter]].explode(letter).dropna().rename(columns={letter: "other"})
            links = links[links.id != links.other]
            links["theirs"] = links.other.map(titles)
            links = links.dropna()
            parts.append(links.assign(output=letter, domain="OOD" if group == OOD else "IND"))
    links = pd.concat(parts, ignore_index=True)
    links["a"], links["b"] = links.title.map(cleaning.key), links.theirs.map(cleaning.key)
    links = links[(links.a != links.b) & (links.title != "") & (links.theirs != "")]
    links["low"], links["high"] = np.minimum(links.a, links.b), np.maximum(links.a, links.b)
    links = links[links.groupby(["low", "high"]).output.transform("nunique") == 1]
    links = links.drop_duplicates(["low", "high"])
    inside = links[links.domain == "IND"].sample(
        n=min(len(links[links.domain == "IND"]), 192_000), random_state=recipe.seed
    )
    edges = list(zip(inside.a, inside.b, strict=True))
    splits = by_neighbourhood({node for edge in edges for node in edge}, edges, recipe.seed, "PRP", recipe.shares,
                              largest=500)  # fmt: skip
    inside = inside[inside.a.map(splits) == inside.b.map(splits)]
    outside = links[links.domain == "OOD"]
    whole = pd.concat([inside.assign(pool=inside.a.map(splits)), outside.assign(pool="ood")])
    given = [json.dumps({"Product 1:": a, "Product 2:": b}) for a, b in zip(whole.title, whole.theirs, strict=True)]
    return frame_of(
        pool=whole.pool,
        input=given,
        output=whole.output,
        klass=whole.output,
        options=recipe.words.options_json,
        entities=list(zip(whole.a, whole.b, strict=True)),
    ), None


def matching(raw: Path, task: str, recipe: Recipe) -> tuple[pd.DataFrame, Render]:
    read = {"encoding": "latin-1", "dtype": str, "keep_default_na": False}
    amazon = pd.read_csv(raw / "amazon_google/Amazon.csv", **read)
    google = pd.read_csv(raw / "amazon_google/GoogleProducts.csv", **read).rename(columns={"name": "title"})
    pairs = pd.read_csv(raw / "amazon_google/Amzon_GoogleProducts_perfectMapping.csv", **read)
    pairs = pairs.sample(n=min(len(pairs), 10_112), random_state=recipe.seed)
    left = amazon[amazon.id.isin(pairs.idAmazon)]
    right = google[google.id.isin(pairs.idGoogleBase) | (hashed(google.id, recipe) == "test")]
    items = {}
    for side, frame in (("amazon", left), ("google", right)):
        for row in frame.itertuples():
            items[side, row.id] = CatalogueItem(side, row.id, row.title, row.description or None,
                                                row.manufacturer or None, row.price or None)  # fmt: skip
    matched = [
        (items["amazon", a], items["google", g]) for a, g in zip(pairs.idAmazon, pairs.idGoogleBase, strict=True)
    ]
    node = {name: negatives.node(item) for name, item in items.items()}
    nodes = [node["amazon", a.id] for a, _ in matched] + list(node.values())
    splits = by_neighbourhood(nodes, [(negatives.node(a), negatives.node(g)) for a, g in matched], recipe.seed, "PM",
                              recipe.shares)  # fmt: skip
    known = {(a.id, g.id) for a, g in matched}
    rows = []
    for split in ("test", "val", "train"):
        mine = [pair for pair in matched if splits[negatives.node(pair[0])] == split]
        sides = [[item for (side, _), item in items.items() if side == name and splits[negatives.node(item)] == split]
                 for name in ("amazon", "google")]  # fmt: skip
        wrong = negatives.hard(mine, known, *sides, recipe.seed, split)
        rows += [(split, "yes", *pair) for pair in mine] + [(split, "no", *pair) for pair in wrong]
    from ecellm.ecinstruct.matching import describe

    given = [json.dumps({"product 1": describe(a, recipe), "product 2": describe(g, recipe)}) for *_, a, g in rows]
    labels = [row[1] for row in rows]
    return frame_of(pool=[row[0] for row in rows], input=given, output=labels, klass=labels,
                    entities=[(negatives.node(a), negatives.node(g)) for *_, a, g in rows]), None  # fmt: skip


def sentiment(raw: Path, task: str, recipe: Recipe) -> tuple[pd.DataFrame, Render]:
    records = [(r["reviewerID"], r["asin"], r.get("overall", 0), r.get("reviewText", ""), group == OOD)
               for group in (*IND, OOD) for r in lines(raw / f"amazon2018/{group}.json.gz")]  # fmt: skip
    frame = pd.DataFrame(records, columns=["user", "product", "stars", "input", "ood"])
    frame["input"] = frame.input.map(cleaning.clean)
    frame = frame[frame.input.str.split().str.len() >= 10].drop_duplicates(["user", "product", "stars", "input"])
    frame["input"] = [cleaning.first_words(text, recipe.max_words) for text in frame.input]
    inside = frame[~frame.ood]
    load = inside["product"].value_counts()
    # Dealt in turn, the heaviest first: 8 of 10 to train, one each to val and test.
    turn = np.resize(["train"] * 4 + ["val"] + ["train"] * 4 + ["test"], len(load))
    split = inside["product"].map(dict(zip(load.index, turn, strict=True)))
    counts = pd.crosstab(inside.user, split) / pd.Series(dict(recipe.shares)) ** 0.4
    home = inside.user.map(counts.idxmax(axis=1))
    inside = inside.assign(pool=split)[split == home]
    whole = pd.concat([inside, frame[frame.ood].assign(pool="ood")])
    output = [recipe.words.options[5 - int(stars)] for stars in whole.stars]
    return frame_of(
        pool=whole.pool,
        input=whole.input,
        output=output,
        klass=output,
        options=recipe.words.options_json,
        entities=list(zip("product:" + whole["product"], "user:" + whole.user, strict=True)),
    ), None


def recommendation(raw: Path, task: str, recipe: Recipe) -> tuple[pd.DataFrame, Render]:
    parts, texts = [], {}
    for group in (*IND, OOD):
        items = metadata(raw, group)
        for row in items.itertuples():
            more = [cleaning.clean(text).rstrip(".") for text in (*row.category[:2], row.brand)]
            new = [text for text in dict.fromkeys(more) if text.lower() not in row.title.lower()]
            texts[row.id] = cleaning.first_words(". ".join([row.title.rstrip("."), *new]), recipe.item_words)
        bought = pd.read_csv(raw / f"amazon2018/{group}.csv", names=["product", "user", "stars", "time"])
        parts.append(bought.assign(domain="OOD" if group == OOD else "IND", group=group))
    bought = pd.concat(parts).drop_duplicates()
    bought["text"] = bought["product"].map(texts)
    bought = bought.dropna(subset="text").sort_values(["time", "product"])
    bought = bought.drop_duplicates(["domain", "user", "text"], keep="last")
    shelves = {name: of.text.value_counts() for name, of in bought.groupby("group")}
    shelf = {name: (of.index.to_numpy(), of.cumsum().to_numpy()) for name, of in shelves.items()}
    users = bought.groupby(["domain", "user"]).agg(items=("text", list), group=("group", "last")).reset_index()
    users = users[users["items"].str.len() >= 5]
    users["pool"] = hashed(users.user, recipe).mask(users.domain == "OOD", "ood")
    users["input"] = users.user
    shorter = users[users.pool == "train"].assign(items=lambda f: f["items"].str[:-1])
    shorter = shorter[shorter["items"].str.len() > 3].assign(input=lambda f: f.user + "/2")
    users = pd.concat([users, shorter])

    def render(row: Any) -> tuple[str, str, str] | None:
        history, target = row.items[-51:-1], row.items[-1]
        names, until = shelf[row.group]
        chance, barred, others = rng(recipe.seed, row.input), {*row.items}, []
        while len(others) < 19:
            text = names[np.searchsorted(until, chance.randrange(int(until[-1])), side="right")]
            if text not in barred:
                barred.add(text)
                others.append(text)
        options = [target, *others]
        chance.shuffle(options)
        shown = json.dumps([f"{ordinal(i)}: {text}" for i, text in enumerate(history, 1)])
        listed = json.dumps([f"{letter}: {text}" for letter, text in zip(LETTERS, options, strict=True)])
        return shown, LETTERS[options.index(target)], listed

    frame = frame_of(pool=users.pool, input=users.input, output="", entities=[(f"user:{user}",) for user in users.user])
    return frame.assign(items=users["items"], group=users.group), render


@cache
def clean_judgements(raw: Path) -> pd.DataFrame:
    examples = pd.read_parquet(raw / "esci/shopping_queries_dataset_examples.parquet")
    columns = ["product_id", "product_locale", "product_title"]
    products = pd.read_parquet(raw / "esci/shopping_queries_dataset_products.parquet", columns=columns)
    frame = examples.merge(products, on=columns[:2])
    frame = frame[frame.product_locale == "us"].rename(columns={"esci_label": "label", "product_title": "title"})
    frame["query"], frame["title"] = frame["query"].map(cleaning.clean), frame.title.map(cleaning.clean_title)
    frame = frame[(frame["query"] != "") & (frame.title != "")]
    frame = frame[frame.groupby(["query", "title"]).label.transform("nunique") == 1].drop_duplicates(["query", "title"])
    return frame.assign(asked=frame["query"].map(cleaning.key))


def judgements(raw: Path, recipe: Recipe) -> pd.DataFrame:
    frame = clean_judgements(raw)
    val = hashed(frame.asked, recipe) == "val"
    return frame.assign(pool=frame.split.mask((frame.split == "train") & val, "val"))


def judged(raw: Path, task: str, recipe: Recipe) -> tuple[pd.DataFrame, Render]:
    frame = judgements(raw, recipe)
    name = "product" if task == "PSI" else "product title"
    given = [
        json.dumps({"query": query, name: title}) for query, title in zip(frame["query"], frame.title, strict=True)
    ]
    if task == "PSI":
        output = np.where(frame.label == "S", "yes", "no")
    else:
        output = frame.label.map(dict(zip("ESCI", recipe.words.options, strict=True)))
    return frame_of(pool=frame.pool, input=given, output=output, klass=output, slot=frame["query"],
                    options=recipe.words.options_json if task == "MPC" else "",
                    entities=[(f"query:{asked}",) for asked in frame.asked]), None  # fmt: skip


def ranked(raw: Path, task: str, recipe: Recipe) -> tuple[pd.DataFrame, Render]:
    frame = judgements(raw, recipe)
    frame = frame[frame.small_version == 1]
    rows = []
    wanted = 3 * recipe.asked / len(frame)
    for (pool, query), of in frame.groupby(["pool", "query"]):
        shelf = {label: list(titles) for label, titles in of.groupby("label").title}
        if len(shelf) < 2:
            continue
        for turn in range(max(2, min(int(np.ceil(wanted * len(of))), max(12, len(of))))):
            chance = rng(recipe.seed, pool, query, turn)
            labels = chance.sample(sorted(shelf), chance.randint(2, len(shelf)))
            one = rankings.ranking("", query, [(label, chance.choice(shelf[label])) for label in labels])
            rows.append((pool, one.input, one.output, one.option_labels, query, one.entities))
    columns = [list(column) for column in zip(*rows, strict=True)]
    return frame_of(pool=columns[0], input=columns[1], output=columns[2], labels=columns[3], slot=columns[4],
                    entities=columns[5]), None  # fmt: skip


@cache
def questions_asked(raw: Path) -> pd.DataFrame:
    records = []
    for split in ("train", "val", "test"):
        records += [(split, r["asin"], r["category"], r["questionText"], r["questionType"], r["review_snippets"],
                     r["is_answerable"], r["answers"]) for r in lines(raw / f"amazonqa/{split}-qar.jsonl")]  # fmt: skip
    names = ["pool", "product", "category", "question", "kind", "snippets", "answerable", "answers"]
    return pd.DataFrame(records, columns=names)


def asked(raw: Path, task: str, recipe: Recipe) -> tuple[pd.DataFrame, Render]:
    inside = ("Sports_and_Outdoors", OOD) if task == "AP" else ("Electronics", "Home_and_Kitchen")
    frame = questions_asked(raw)
    frame = frame[frame.category.isin([*inside, "Cell_Phones_and_Accessories"]) & (frame.snippets.str.len() > 0)]
    order = frame.pool.map({"test": 0, "val": 1, "train": 2})
    frame["pool"] = order.groupby(frame["product"]).transform("min").map({0: "test", 1: "val", 2: "train"})
    frame["pool"] = frame.pool.mask(frame.category == "Cell_Phones_and_Accessories", "ood")
    if task == "AG":
        frame = frame[(frame.kind == "descriptive") & (frame.answerable == 1)]
        best = [questions.best_answer(tuple((a["answerText"], *a["helpful"]) for a in of)) for of in frame.answers]
        frame = frame.assign(output=[cleaning.clean(text) if text else "" for text in best])
        frame = frame[(frame.output != "") & ~frame.output.map(questions.idle)]
    else:
        frame = frame.assign(output=np.where(frame.answerable == 1, "yes", "no"))
    frame["question"] = frame.question.map(cleaning.clean)
    shown = [questions.cut([cleaning.clean(text) for text in of], recipe.max_words) for of in frame.snippets]
    given = [json.dumps({"question": text, "document": of}) for text, of in zip(frame.question, shown, strict=True)]
    return frame_of(pool=frame.pool, input=given, output=frame.output, klass=frame.output if task == "AP" else "",
                    entities=list(zip("product:" + frame["product"], "question:" + frame.question.map(cleaning.key),
                                      strict=True))), None  # fmt: skip
