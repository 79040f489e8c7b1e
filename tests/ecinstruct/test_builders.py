"""Each builder: labels, the spec's worked examples under the `paper` recipe, and splits that share nothing."""

from __future__ import annotations

import ast
import itertools
import json
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from ecellm.config.schema import Sizes
from ecellm.ecinstruct import attributes, cleaning, matching, negatives, questions, rankings, recommendation, replay
from ecellm.ecinstruct.samples import POOLS
from ecellm.sources.records import Match
from tests.ecinstruct.flow import Built, build, recipe
from tests.ecinstruct.records import attributed, catalogue, item, judgement, product, question, review


def test_ave_worked_example() -> None:
    sample = attributes.sample("AVE", "s", attributed(), recipe("AVE", "paper"))
    assert sample.input == (
        '{"product title": "Acme Blue Mug", "product description": "A big Mug.", "product feature": '
        '"Holds 12 oz, Dishwasher safe", "product price": "$9.99", "product brand": "Acme", '
        '"target attributes": "Type"}'
    )
    assert sample.output == (
        '[{"attribute": "type", "value": "mug", "source": "product description"}, '
        '{"attribute": "type", "value": "mug", "source": "product title"}]'
    )
    empty = attributes.sample("AVE", "s", attributed(attribute="Fill Power", evidences=()), recipe("AVE", "paper"))
    assert empty.output == '[{"attribute": "fill power", "value": "None", "source": "None"}]'


def _mugs(n: int, **more: Any) -> list[tuple[str, Any]]:
    return [("mave:x", attributed(id=str(i), attribute=name, paragraphs=((f"mug {i}", "title"),),
                                  evidences=(("mug", "title"),), **more))
            for i in range(n) for name in ("Type", "Color", "Size", "Depth")]  # fmt: skip


def test_ave_holds_out_attributes_and_drops_contradictions() -> None:
    records = [
        *_mugs(200),
        ("mave:x", attributed(id="0", attribute="Type", paragraphs=(("mug 0", "title"),), evidences=())),
    ]
    built = build("AVE", records, recipe("AVE"))
    held = {sample.slot for sample in built.pool("ood")}
    seen = {sample.slot for name in ("train", "val", "test") for sample in built.pool(name)}
    assert held
    assert not held & seen
    assert not built.leaks
    assert built.dropped["attribute both stated and absent"] == 2


def test_ave_paper_keeps_source_splits_and_holds_out_enough() -> None:
    records = [pair for split in ("train", "val", "test") for pair in _mugs(30, split=split)]
    built = build("AVE", records, recipe("AVE", "paper", sizes=Sizes(train=500, val=9, test=9, ood=40)))
    # 30 test records an attribute: one covers 19, which is 15 % of 120.
    assert len({sample.slot for sample in built.pool("ood")}) == 1
    assert len(built.pool("train")) == 90
    assert built.dropped["held-out attribute outside the test part"] == 60


def test_pm_fifty_words_and_missing_values() -> None:
    paper, sound = recipe("PM", "paper"), recipe("PM")
    text = " ".join(f"d{i}" for i in range(60))
    shown = matching.describe(item("amazon", 1, description=text, manufacturer=None), paper)
    assert shown["description"] == " ".join(f"d{i}" for i in range(50)) + "..."
    assert (shown["manufacturer"], shown["price"]) == ("nan", "nan")
    assert "NaN" in json.dumps(matching.describe(item("amazon", 1), paper))
    assert matching.describe(item("amazon", 1), sound)["description"] is None
    json_only = recipe("PM", "paper", mends={"json_text": True})
    assert matching.describe(item("amazon", 1, manufacturer=None), json_only)["manufacturer"] is None


@pytest.mark.parametrize("kind", ["paper", "sound", "hard"])
def test_pm_is_balanced_and_labels_are_right(kind: str) -> None:
    how = recipe("PM", "paper" if kind == "paper" else "sound", hard=kind == "hard")
    built = build("PM", catalogue(120, unmatched=20), how)
    for sample in built.all:
        given = json.loads(sample.input)
        same = given["product 1"]["title"] == given["product 2"]["title"]
        assert sample.output == ("yes" if same else "no")
    assert Counter(sample.output for sample in built.all) == {"yes": 120, "no": 120}
    if kind == "paper":
        assert [len(built.pool(pool)) for pool in ("train", "val", "test")] == [192, 24, 24]
    else:
        assert all(built.pool(pool) for pool in ("val", "test"))
        assert not built.leaks


def test_pm_papers_walk_is_the_authors() -> None:
    """Against pandas and scikit-learn themselves, on catalogues of different sizes."""
    pandas = pytest.importorskip("pandas")
    amazon, google = [item("amazon", i) for i in range(30)], [item("google", i) for i in range(40)]
    known = {(f"a{i}", f"g{i}") for i in range(20)}
    left = pandas.DataFrame({"id": [one.id for one in amazon]}).sample(frac=1, random_state=1)
    right = pandas.DataFrame({"id": [one.id for one in google]}).sample(frac=1, random_state=1).id.tolist()
    wanted = [(a, right[number]) for number, a in left.id.items() if (a, right[number]) not in known][:20]
    assert [(a.id, g.id) for a, g in negatives.paper_walk(20, known, amazon, google, 1)] == wanted


@pytest.mark.parametrize("n", [10, 23, 101, 2528])
def test_replayed_splits_are_scikit_learns(n: int) -> None:
    train, rest = train_test_split(np.arange(n), test_size=0.2, random_state=1)
    val, test = train_test_split(rest, test_size=0.5, random_state=1)
    three = replay.split_three(n, 1)
    for name, wanted in (("train", train), ("val", val), ("test", test)):
        assert three[name].tolist() == wanted.tolist()
    if n == 2528:
        assert [len(three[name]) for name in ("train", "val", "test")] == [2022, 253, 253]


def test_prp_keeps_direction_in_sound_and_sorts_in_paper() -> None:
    records = [("m:x", product(2, also_buy=("P1", "P9"))), ("m:x", product(1)),
               ("m:x", product(3, also_view=("P4",))), ("m:x", product(4, also_buy=("P3",)))]  # fmt: skip
    for how, first in ((recipe("PRP"), "thing 2"), (recipe("PRP", "paper"), "thing 1")):
        built = build("PRP", records, how)
        offered = built.all
        assert built.dropped["pair in more than one relation"] == 2
        assert built.dropped["linked product unknown or without a title"] == 1
        if not how.paper:  # of one pair alone, scikit-learn's draw makes a test sample, ours may too
            (one,) = offered
            assert json.loads(one.input)["Product 1:"] == first
            assert one.output == "A"
        else:
            assert all(json.loads(one.input)["Product 1:"] == first for one in offered)


def test_prp_paper_loses_all_links_of_an_item_with_one_untitled_candidate() -> None:
    records = [("m:x", product(1, also_buy=("P2", "P3"), also_view=("P4",))), ("m:x", product(2)),
               ("m:x", product(3, title="")), ("m:x", product(4))]  # fmt: skip
    paper = build("PRP", records, recipe("PRP", "paper"))
    assert paper.dropped["item with a linked product without a title"] == 1
    assert paper.offered == 1
    assert build("PRP", records, recipe("PRP")).offered == 2


def test_prp_one_id_of_several_titles_does_not_hang_on_the_files_order() -> None:
    records = [("m:x", product(1, also_buy=("P2",))), ("m:x", product(2, title="")), ("m:x", product(2, title="mug")),
               ("m:x", product(2, title="cup"))]  # fmt: skip
    for order in itertools.permutations(records):
        (one,) = build("PRP", order, recipe("PRP")).all
        assert json.loads(one.input)["Product 2:"] == "cup"


def _linked(n: int) -> list[tuple[str, Any]]:
    chance = random.Random(1)
    return [("m:x", product(i, also_buy=(f"P{chance.randrange(n)}",), also_view=(f"P{chance.randrange(n)}",),
                            similar=(f"P{chance.randrange(n)}",) if i % 4 == 0 else ())) for i in range(n)]  # fmt: skip


def test_prp_products_share_no_split() -> None:
    records = _linked(400)
    records.append(("m:x", product(900, domain="OOD", group="Tools", also_buy=("P901",))))
    records.append(("m:x", product(901, domain="OOD", group="Tools")))
    built = build("PRP", records, recipe("PRP"))
    assert all(built.pool(pool) for pool in ("val", "test"))
    assert len(built.pool("ood")) == 1
    assert not built.leaks


def test_class_balance_evens_out_training_only() -> None:
    records, sizes = _linked(400), Sizes(train=90, val=30, test=30, ood=1)
    found, even = (build("PRP", records, recipe("PRP", balance=balance, sizes=sizes)) for balance in (0.0, 1.0))
    counts = Counter(sample.output for sample in even.pool("train"))
    assert set(counts.values()) == {30}
    assert min(Counter(sample.output for sample in found.pool("train")).values()) < 25
    shares = [Counter(sample.output for sample in built.pool("test")) for built in (found, even)]
    assert shares[0] == shares[1]  # and as often as each relation is found


def test_sa_options_and_rules() -> None:
    reviews = [review(f"u{i % 40}", f"p{i % 30}", rating=float(1 + i % 5), text=f"review number {i} " + "word " * 10)
               for i in range(400)]  # fmt: skip
    short = review("u0", "p0", text="too short")
    built = build("SA", [("r:x", one) for one in [*reviews, short]], recipe("SA"))
    assert built.dropped["fewer than 10 words"] == 1
    for sample in built.all:
        assert sample.output == json.loads(sample.options or "")[4 - int(sample.input.split()[2]) % 5]
    assert not built.leaks
    marked = build("SA", [("r:x", review("u", "p", text="so <br/>good &amp; " + "well " * 9))], recipe("SA"))
    assert "so good & well" in marked.all[0].input


def test_sa_paper_takes_a_third_of_each_category_from_its_front() -> None:
    records = [("r:x", review(f"u{i}", f"p{i}", group=group, line=i + 1, text=f"{group} {i} " + "word " * 10))
               for group in ("Electronics", "Home_and_Kitchen", "Sports_and_Outdoors") for i in range(100)]  # fmt: skip
    records.append(("r:x", review("u", "p", group="Electronics", line=200_001)))
    built = build("SA", records, recipe("SA", "paper", sizes=Sizes(train=100, val=10, test=10, ood=1)))
    groups = Counter(sample.input.split()[0] for sample in built.pool("train"))
    assert groups == {"Electronics": 34, "Home_and_Kitchen": 33, "Sports_and_Outdoors": 33}
    front = replay.split_three(100, 1)["train"][:34].tolist()
    assert [int(sample.input.split()[1]) for sample in built.pool("train")[:34]] == front
    assert built.dropped["beyond the first 200,000 lines of a file"] == 1


def test_sr_paper_text_forms() -> None:
    assert cleaning.paper_item('Foo "Bar" <b>x</b> &amp; y..') == "Foo Bar x & y."
    assert cleaning.paper_item(("Home &amp; Kitchen", "Bath")) == "Home & Kitchen. Bath."
    assert recommendation.item_text([("P1", "T", [], "B", 0)], recipe("SR", "paper")) == "T.  B."
    assert recommendation.item_text([("P1", "", ["A"], "", 0), ("P1", "T", [], "B", 1)], recipe("SR")) == "T. A. B"
    assert [recommendation.ordinal(n) for n in (1, 2, 3, 4, 11, 12, 20, 21, 42, 50)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "20th", "21st", "42nd", "50th",
    ]  # fmt: skip


def _shop() -> list[tuple[str, Any]]:
    records: list[tuple[str, Any]] = [("m:x", product(i, title=f"Bob's thing {i}")) for i in range(60)]
    for user in range(60):
        records += [("r:x", review(f"u{user}", f"P{(user * 7 + step * (1 + user % 3)) % 60}", time=step * 86_400))
                    for step in range(8)]  # fmt: skip
    return records


@pytest.mark.parametrize("hard", [False, True])
def test_sr_sound(hard: bool) -> None:
    built = build("SR", _shop(), recipe("SR", hard=hard))
    assert built.pool("train")
    assert built.pool("test")
    assert not built.leaks
    for sample in built.all:
        history = {text.split(": ", 1)[1] for text in json.loads(sample.input)}
        options = dict(text.split(": ", 1) for text in json.loads(sample.options or ""))
        assert len(set(options.values())) == 20
        assert not history & set(options.values())
        assert sample.output in options


def test_sr_paper_is_leave_one_out_in_python_lists() -> None:
    built = build("SR", _shop(), recipe("SR", "paper"))
    assert [len(built.pool(pool)) for pool in ("train", "val", "test")] == [60, 60, 60]
    history = ast.literal_eval(built.pool("test")[0].input)
    assert built.pool("test")[0].input == str(history)
    assert (len(history), history[0][:5]) == (7, "1st: ")
    assert {len(ast.literal_eval(sample.input)) for sample in built.pool("train")} == {5}


def test_sr_five_core_drops_again_and_again() -> None:
    lonely = [("r:x", review("new", f"P{i}", time=1)) for i in range(4)]
    rare = [("m:x", product(99)), *(("r:x", review(f"u{i}", "P99", time=2)) for i in range(4))]
    built = build("SR", [*_shop(), *lonely, *rare], recipe("SR", "paper"))
    assert built.dropped["outside the 5-core"] == 8
    assert not any("thing 99" in sample.input for sample in built.all)


def test_sr_time_split_tests_on_the_future() -> None:
    records = [("m:x", product(i)) for i in range(60)]
    records += [("r:x", review(f"u{user}", f"P{(user * 7 + step) % 60}", time=(step * 20 + user % 20) * 86_400))
                for user in range(200) for step in range(10)]  # fmt: skip
    built = build("SR", records, recipe("SR", mends={"time_split": True}))
    lengths = {
        pool: {len(json.loads(sample.input)) for sample in built.pool(pool)} for pool in ("train", "val", "test")
    }
    assert all(lengths.values())
    assert max(lengths["train"]) <= min(lengths["val"]) <= max(lengths["val"]) <= min(lengths["test"]) == 9


def test_qpr_worked_example_and_lists() -> None:
    one = rankings.ranking("s", "q", [("I", "x"), ("E", "y"), ("S", "z")])
    assert (one.output, one.option_labels) == ("B,C,A", "IES")
    assert json.loads(one.input) == {"query": "q", "product list": ["A: x", "B: y", "C: z"]}
    records = [("esci:x", judgement(f"mug{q}", i, "ESCI"[i % 4])) for q in range(60) for i in range(8)]
    for kind in ("sound", "paper"):
        split = [("esci:x", judgement(f"mug{q}", i, "ESCI"[i % 4], split="test" if q % 4 == 0 else "train"))
                 for q in range(60) for i in range(8)]  # fmt: skip
        built = build("QPR", records if kind == "sound" else split, recipe("QPR", kind))
        assert all(built.pool(pool) for pool in ("train", "val", "test"))
        for sample in built.all:
            labels = sample.option_labels or ""
            assert 2 <= len(labels) == len(set(labels)) <= 4
            order = [labels["ABCD".index(letter)] for letter in sample.output.split(",")]
            assert order == sorted(labels, key="ESCI".index)
        assert kind == "paper" or not built.leaks


def test_mpc_and_psi_labels_and_one_split_a_query() -> None:
    records = [("esci:x", judgement(f"mug{q}", i, "ESCI"[i % 4])) for q in range(60) for i in range(4)]
    records += [("esci:x", judgement("mug0", 0, "I")), ("esci:x", judgement("tasse", 1, "E", locale="de"))]
    homes = []
    for task in ("MPC", "PSI"):
        built = build(task, records, recipe(task))
        homes.append({entity: name for name in POOLS for s in built.pool(name) for entity in s.entities})
        assert built.dropped["contradictory labels"] == 2
        assert built.dropped["locale other than us"] == 1
        assert not built.leaks
    assert homes[0] == homes[1]
    (psi,) = build("PSI", [("esci:x", judgement("mug", 1, "S"))], recipe("PSI")).all
    (mpc,) = build("MPC", [("esci:x", judgement("mug", 1, "C"))], recipe("MPC")).all
    assert (psi.output, mpc.output[:2]) == ("yes", "C:")


def test_mpc_paper_halves_the_test_part_by_rows() -> None:
    records = [
        ("esci:x", judgement(f"q{i % 7}", i, "ESCI"[i % 4], split="test" if i % 2 else "train")) for i in range(200)
    ]
    built = build("MPC", records, recipe("MPC", "paper"))
    assert [len(built.pool(pool)) for pool in ("train", "val", "test")] == [100, 50, 50]
    half = set(replay.permutation(100, 1)[:50].tolist())
    numbers = {int(json.loads(sample.input)["product title"].split()[1]) // 2 for sample in built.pool("test")}
    assert numbers == half


def test_source_splits_are_kept() -> None:
    records = [("esci:x", judgement(f"mug{q}", 1, "E", split="test" if q < 10 else "train")) for q in range(100)]
    built = build("MPC", records, recipe("MPC"))
    assert {json.loads(s.input)["query"] for s in built.pool("test")} == {f"mug{q}" for q in range(10)}
    assert built.pool("val")


def test_questions() -> None:
    assert questions.best_answer((("a", 0, 9), ("b", 2, 9), ("c", 2, 2), ("d", 7, 0))) == "b"
    assert questions.best_answer((("a", 0, 9),)) is None
    assert questions.cut(["one two three", "four five", "six"], 4) == ["one two three", "four..."]
    records = [("qa:x", question(i, answerable=(True, False, None)[i % 3])) for i in range(300)]
    records.append(("qa:x", question(999, domain="OOD", category="Cell_Phones_and_Accessories")))
    ap = build("AP", records, recipe("AP"))
    assert ap.dropped["answerability not stated"] == 100
    for sample in ap.all:
        number = int(json.loads(sample.input)["question"].split()[2])
        assert sample.output == ("no" if number % 3 == 1 else "yes")
    ag = build("AG", records, recipe("AG"))
    assert {sample.output for sample in ag.all} == {"It does."}
    assert ag.dropped["not answerable"] == 100
    assert len(ag.pool("ood")) == len(ap.pool("ood")) == 1
    assert not ap.leaks + ag.leaks
    pair = [("qa:x", question(1, split="train")), ("qa:x", question(3, category="Sports_and_Outdoors", split="train"))]
    paper = build("AP", pair, recipe("AP", "paper"))
    assert [json.loads(s.input)["document"] for s in paper.all] == [["one two", "three"]]
    assert paper.dropped["category not of this task"] == 1


@pytest.mark.parametrize(
    ("answer", "idle"),
    [("Sorry, I do not know.", True), ("I don't know", True), ("Not sure, sorry.", True), ("no idea", True),
     ("I do not know about that, but it is 5 inches wide.", False), ("It is not sure to fit.", False), ("Yes.", False)],
)  # fmt: skip
def test_answers_that_say_nothing(answer: str, idle: bool) -> None:
    assert questions.idle(answer) is idle


RECORDS: dict[str, Any] = {
    "PM": lambda: [*catalogue(60), ("amazon_google:x", Match(amazon="a0", google="none"))],
    "PRP": lambda: [("m:x", product(i, also_buy=(f"P{i * 7 % 100}",))) for i in range(100)],
    "SA": lambda: [("r:x", review(f"u{i % 20}", f"p{i % 9}", text=f"{i % 150} " + "word " * 10)) for i in range(200)],
    "SR": _shop,
    "MPC": lambda: [("e:x", judgement(f"m{q}", i, "ESCI"[i % 4])) for q in range(30) for i in range(4)],
    "QPR": lambda: [("e:x", judgement(f"m{q}", i, "ESCI"[i % 4])) for q in range(30) for i in range(4)],
    "AG": lambda: [("q:x", question(i)) for i in range(100)],
    "AVE": lambda: [("m:x", attributed(id=str(i), paragraphs=((f"mug {i}", "title"),), attribute=name, evidences=()))
                    for i in range(60) for name in ("A", "B", "C")],
}  # fmt: skip


@pytest.mark.parametrize("task", RECORDS)
def test_neither_the_order_of_lines_nor_the_number_of_parts_matters(task: str) -> None:
    records = RECORDS[task]()
    shuffled = list(records)
    random.Random(5).shuffle(shuffled)
    how = recipe(task, near=0.9)
    assert build(task, shuffled, how, parts=1).all == build(task, records, how, parts=5).all


@pytest.mark.parametrize("kind", ["sound", "paper"])
@pytest.mark.parametrize("task", ["SA", "AVE", "MPC", "AG"])
def test_every_record_is_a_sample_or_is_counted(task: str, kind: str) -> None:
    """Tasks with one sample a record: what was read is what was drawn and what was dropped, whatever the sizes."""
    records = RECORDS[task]()
    if task == "AG":
        records = [(label, question(i, category="Electronics")) for i, (label, _) in enumerate(records)]
    how = recipe(task, kind, sizes=Sizes(train=20, val=3, test=3, ood=2), near=0.0 if kind == "paper" else 0.9)
    built: Built = build(task, records, how)
    assert built.all
    assert len(built.all) + sum(built.dropped.values()) == len(records)
