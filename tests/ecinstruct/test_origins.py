"""Where samples come from: files of one name, categories, forms of metadata, and what belongs to the paper alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ecellm.config.schema import Build, Model, Run, SourceFile, Sources
from ecellm.ecinstruct import build as stage
from ecellm.ecinstruct.card import data_card
from ecellm.ecinstruct.leaks import shared
from ecellm.ecinstruct.raw import short_names
from ecellm.errors import DataError
from ecellm.rows import read_rows
from ecellm.storage.open import open_storage
from tests.ecinstruct.flow import build, recipe
from tests.ecinstruct.records import catalogue, item, judgement, product, review


def _two_categories() -> list[tuple[str, Any]]:
    """Users who buy four lamps and then three pans."""
    records: list[tuple[str, Any]] = []
    for group, word in (("Electronics", "lamp"), ("Home", "pan")):
        records += [("m:x", product(f"{word}{i}", title=f"{word} number {i}", group=group)) for i in range(60)]
    for user in range(40):
        for step in range(7):
            word, group = ("lamp", "Electronics") if step < 4 else ("pan", "Home")
            record = review(f"u{user}", f"P{word}{(user * 7 + step) % 60}", group=group, time=step * 86_400)
            records.append(("r:x", record))
    return records


@pytest.mark.parametrize("parts", [1, 5])
def test_hard_candidates_are_of_the_targets_own_category(parts: int) -> None:
    built = build("SR", _two_categories(), recipe("SR", hard=True), parts)
    assert len(built.all) >= 40
    for sample in built.all:
        options = dict(text.split(": ", 1) for text in json.loads(sample.options or ""))
        word = options[sample.output].split()[0]
        assert Counter(text.split()[0] for text in options.values()) == {word: 20}


def test_metadata_of_2014_fills_gaps_and_alone_is_none_for_the_paper() -> None:
    records = _two_categories()
    records += [("m:2014", product("lamp0", title="an older name", brand="Older", old=True))]
    records += [("m:2014", product("only2014", title="known in 2014", old=True))]
    records += [("r:x", review(f"u{user}", "Ponly2014", time=9 * 86_400)) for user in range(40)]
    both = [
        build("SR", order, how) for how in (recipe("SR"), recipe("SR", "paper")) for order in (records, records[::-1])
    ]
    for built in both:
        text = " ".join(sample.input + (sample.options or "") for sample in built.all)
        assert "an older name" not in text
        assert ("known in 2014" in text) == (built is both[0] or built is both[1])
    assert both[2].dropped["purchase of an item without metadata"] == 40


def test_the_paper_keeps_titles_apart_that_sound_takes_for_one() -> None:
    records = [("m:x", product(1, title="Red Mug", also_buy=("P2",))), ("m:x", product(2, title="red mug"))]
    assert build("PRP", records, recipe("PRP")).offered == 0
    assert build("PRP", records, recipe("PRP", "paper")).offered == 1


def test_the_paper_takes_similar_ids_one_character_after_asin() -> None:
    one = product(1, similar=("P2", "P3"), similar_plain=("P2",), also_view=("P1",))
    records = [("m:x", one), ("m:x", product(2)), ("m:x", product(3))]
    assert build("PRP", records, recipe("PRP")).offered == 2
    assert build("PRP", records, recipe("PRP", "paper")).offered == 1
    assert build("PRP", records, recipe("PRP")).dropped["link of a product to itself"] == 1


def test_a_column_of_numbers_is_one_of_floats_for_the_paper_alone() -> None:
    records = [("a:x", item("amazon", i, price="49" if i else "49.5")) if record.id == f"a{i}" else (label, record)
               for i, (label, record) in enumerate(catalogue(30)) if hasattr(record, "id")]  # fmt: skip
    records += [pair for pair in catalogue(30) if not hasattr(pair[1], "id")]
    shown = [json.loads(one.input)["product 1"]["price"] for one in build("PM", records, recipe("PM", "paper")).all]
    assert set(shown) == {"49.0", "49.5"}
    shown = [json.loads(one.input)["product 1"]["price"] for one in build("PM", records, recipe("PM")).all]
    assert set(shown) == {"49", "49.5"}
    records[0] = ("a:x", item("amazon", 0, price="49 gbp"))
    shown = [json.loads(one.input)["product 1"]["price"] for one in build("PM", records, recipe("PM", "paper")).all]
    assert set(shown) == {"49", "49 gbp"}
    records[0] = ("a:x", item("amazon", 0, price="50"))
    shown = [json.loads(one.input)["product 1"]["price"] for one in build("PM", records, recipe("PM", "paper")).all]
    assert set(shown) == {"49", "50"}


def test_a_judgement_without_a_title_stays_in_the_paper() -> None:
    records = [("esci:x", judgement("mug", i, "E", title="" if i == 3 else f"mug {i}")) for i in range(10)]
    assert build("MPC", records, recipe("MPC", "paper")).offered == 10
    assert build("MPC", records, recipe("MPC")).offered == 9


def test_products_that_recur_where_queries_are_apart_are_counted_and_not_promised_away() -> None:
    records = [("esci:x", judgement(f"q{q}", n, "E", title=f"mug {n}")) for q in range(60) for n in range(5)]
    built = build("MPC", records, recipe("MPC"))
    found = shared("MPC", built.chosen)["train-test"]
    assert (found["products"], found["queries"]) == (5, 0)
    assert not built.leaks


def test_names_are_as_long_as_they_must_be() -> None:
    paths = ["https://x/2014/meta.gz?key=1", "s3://b/2018/meta.gz", "other.csv", "a/b/c.txt", "b/c.txt"]
    assert list(short_names(paths).values()) == ["2014/meta.gz", "2018/meta.gz", "other.csv", "a/b/c.txt", "b/c.txt"]
    assert short_names(["folder/"]) == {"folder/": "folder"}


def _files(out: Path, raw: Path, names: list[str]) -> Run:
    files = tuple(SourceFile(format="amazon_google", path=name, tasks=("PM",)) for name in names)
    return Run(name="t", out=str(out), model=Model(base="tiny"), build=Build(tasks=("PM",)),
               sources=Sources(root=str(raw), files=files))  # fmt: skip


def test_two_sources_of_one_name_are_two_on_the_card_whatever_their_order(shared: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for year in ("one", "two"):
        (raw / year).mkdir(parents=True)
        (raw / year / "amazon_google").symlink_to(shared / "data" / "amazon_google")
    names = ["one/amazon_google", "two/amazon_google"]
    bytes_of = []
    for order in (names, names[::-1]):
        out = tmp_path / order[0].replace("/", "-")
        stage.build(_files(out, raw, order))
        bytes_of.append((out / "rows" / "card.json").read_bytes())
    assert bytes_of[0] == bytes_of[1]
    card = json.loads(bytes_of[0])
    assert [one["source"] for one in card["sources"]] == [f"amazon_google:{name}" for name in names]
    assert b"one/amazon_google" in data_card(bytes_of[0])
    read = set(card["tasks"]["PM"]["sources"])
    assert {f"amazon_google:{name}/Amazon.csv" for name in names} <= read


def test_a_task_beside_another_of_its_family_gives_what_both_at_once_give(tmp_path: Path) -> None:
    """A query that one file states a split for and another does not."""
    raw = tmp_path / "raw"
    raw.mkdir()
    head = "query,product_id,product_title,esci_label\n"
    lines = [f"mug {q},P{q}{n},title {q} {n},{'ES'[n % 2]}\n" for q in range(40) for n in range(4)]
    (raw / "a.csv").write_text(head + "".join(lines))
    (raw / "b.csv").write_text(head + "".join(line.replace("title", "other") for line in lines[:80]))

    def run(out: str, *tasks: str) -> list[tuple[str, str, str]]:
        files = (SourceFile(format="esci_csv", path="a.csv", tasks=("MPC",)),
                 SourceFile(format="esci_csv", path="b.csv", tasks=("PSI",), split="train"))  # fmt: skip
        made = Run(name="t", out=str(tmp_path / out), model=Model(base="tiny"),
                   build=Build(tasks=tasks), sources=Sources(root=str(raw), files=files))  # type: ignore[arg-type]  # fmt: skip
        stage.build(made)
        storage = open_storage(made.out)
        return sorted((row.split, row.task, row.input) for split in ("train", "val", "test")
                      for row in read_rows(storage, split=split))  # fmt: skip

    run("grown", "MPC")
    assert run("grown", "MPC", "PSI") == run("at once", "MPC", "PSI")


def test_a_held_out_category_stays_out_whatever_is_built_again(shared: Path, tmp_path: Path) -> None:
    data = shared / "data/amazon2018"
    files = (SourceFile(format="amazon_reviews", path="Gift_Cards_5.json.gz", category="A", tasks=("SA",)),
             SourceFile(format="amazon_metadata", path="meta_Gift_Cards.json.gz", category="B", tasks=("PRP",)),
             SourceFile(format="amazon_reviews", path="Appliances_5.json.gz", category="B", domain="OOD",
                        tasks=("SA",)))  # fmt: skip

    def run(out: str, *tasks: str) -> None:
        stage.build(Run(name="t", out=str(tmp_path / out), model=Model(base="tiny"),
                        build=Build(tasks=tasks, mends={"clean_ood": True}),  # type: ignore[arg-type]
                        sources=Sources(root=str(data), files=files)))  # fmt: skip

    run("alone", "PRP")
    with pytest.raises(DataError, match="PRP"):  # all there is of it is a category that SA holds out
        run("alone", "PRP", "SA")
