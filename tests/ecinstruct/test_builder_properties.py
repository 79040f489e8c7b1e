"""Whatever records a builder gets, both recipes give samples that keep their promises, and count what they leave
out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ecellm.config.schema import TASK_IDS, Sizes
from ecellm.ecinstruct.samples import POOLS
from ecellm.records import IND, OOD
from ecellm.sources.records import (
    Attributed,
    CatalogueItem,
    Judgement,
    ListedProduct,
    Match,
    Product,
    Question,
    Review,
)
from ecellm.tasks.registry import TASKS
from tests.ecinstruct.flow import Built, build, recipe

FEW = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)  # a build takes too long to shrink its input for minutes
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    [
        "",
        "nan",
        "<b>bold</b> &amp; &lt;br&gt;",
        "a  b\nc",
        "x " * 400,
        "\u202eأهلا",
        "thing one",
        "it is a fine thing " * 4,
    ]
)
NAME = st.sampled_from(["A", "B", "C", "D", "E"]) | TEXT.filter(bool)
SPLIT = st.sampled_from(["", "train", "val", "test"])
DOMAIN = st.sampled_from([IND, IND, OOD])
GROUP = st.sampled_from(["Electronics", "Sports_and_Outdoors", ""])
STARS = st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0, 4.5])
SOURCES: dict[str, Any] = {
    "AVE": st.builds(Attributed, id=NAME, category=TEXT, paragraphs=st.lists(st.tuples(TEXT, st.sampled_from(
        ["title", "brand"])), max_size=2).map(tuple), attribute=NAME, split=SPLIT,
        evidences=st.lists(st.tuples(TEXT, st.just("title")), max_size=2).map(tuple)),
    "PRP": st.builds(Product, id=NAME, title=TEXT, group=GROUP, domain=DOMAIN, category=st.just(()), brand=TEXT,
                     also_buy=st.lists(NAME, max_size=3).map(tuple), also_view=st.lists(NAME, max_size=2).map(tuple),
                     similar=st.lists(NAME, max_size=2).map(tuple)),
    "PM": st.builds(CatalogueItem, catalogue=st.sampled_from(["amazon", "google"]), id=NAME, title=NAME,
                    description=st.none() | TEXT, manufacturer=st.none() | TEXT, price=st.none() | TEXT)
    | st.builds(Match, amazon=NAME, google=NAME),
    "SA": st.builds(Review, user=NAME, product=NAME, group=GROUP, domain=DOMAIN, rating=STARS, text=TEXT,
                    time=st.integers(0, 2**40), split=SPLIT, line=st.integers(1, 400_000)),
    "SR": st.builds(Review, user=NAME, product=st.integers(0, 30).map(lambda i: f"P{i}"), group=GROUP, domain=DOMAIN,
                    rating=STARS, text=st.just(""), time=st.integers(0, 2**40)),
    "ESCI": st.builds(Judgement, example=NAME, query=TEXT.filter(bool), product=NAME, title=TEXT,
                      label=st.sampled_from("ESCI"), locale=st.sampled_from(["us", "us", "jp"]),
                      small=st.booleans(), split=SPLIT)
    | st.builds(ListedProduct, locale=st.just("us"), id=NAME, title=TEXT),
    "QA": st.builds(Question, id=NAME, product=NAME, category=GROUP, domain=DOMAIN, text=TEXT.filter(bool),
                    descriptive=st.booleans(), snippets=st.lists(TEXT, max_size=3).map(tuple),
                    answerable=st.sampled_from([True, False, None]), split=SPLIT,
                    answers=st.lists(st.tuples(TEXT, st.integers(-1, 9), st.integers(0, 9)), max_size=2).map(tuple)),
}  # fmt: skip
SOURCES |= {
    "MPC": SOURCES["ESCI"],
    "PSI": SOURCES["ESCI"],
    "QPR": SOURCES["ESCI"],
    "AP": SOURCES["QA"],
    "AG": SOURCES["QA"],
}
SHELF = [("m:x", Product(id=f"P{i}", title=f"thing {i}", group="Electronics", domain=IND, category=(), brand="",
                         also_buy=(), also_view=(), similar=())) for i in range(31)]  # fmt: skip
ONE_A_RECORD = ("AVE", "SA", "AP", "AG")
SMALL = Sizes(train=6, val=2, test=2, ood=2)


@pytest.mark.parametrize("kind", ["sound", "paper"])
@pytest.mark.parametrize("task", TASK_IDS)
def test_any_records(task: str, kind: str) -> None:
    how = recipe(task, kind, sizes=SMALL, near=0.9 if kind == "sound" else 0.0, language=True, hard=kind == "sound")

    @FEW
    @given(st.lists(SOURCES[task], max_size=25 if task != "SR" else 60))
    def check(records: list[Any]) -> None:
        sourced = [(f"f{i % 2}:x", record) for i, record in enumerate(records)]
        built = build(task, sourced + (SHELF if task == "SR" else []), how, parts=2)
        _keeps_its_promises(built, how.paper)
        if task in ONE_A_RECORD:
            assert len(built.all) + sum(built.dropped.values()) == len(records)
        if not how.paper:
            assert build(task, sourced[::-1] + (SHELF if task == "SR" else []), how, parts=1).all == built.all

    check()


def _keeps_its_promises(built: Built, paper: bool) -> None:
    for pool, size in (("train", 6), ("val", 2), ("test", 2), ("ood", 2)):
        assert len(built.pool(pool)) <= size
    for sample in built.all:
        for text in (sample.input, sample.output, sample.options or ""):
            text.encode()
        assert TASKS[built.task].parse(sample.output) is not None or built.task in ("AG", "AVE")
        if built.task == "AVE":
            assert isinstance(json.loads(sample.output), list)
    if not paper:
        assert not built.leaks
        inputs = [(sample.input, sample.options) for pool in POOLS for sample in built.pool(pool)]
        assert len(set(inputs)) == len(inputs)
        if built.task not in ("SA", "SR"):
            assert all(json.loads(sample.input) for sample in built.all)
