"""Each builder: labels, the spec's worked examples under the `paper` recipe, and splits that share nothing."""

from __future__ import annotations

import ast
import json
import random
from typing import Any

import pytest

from ecellm.ecinstruct import attributes, cleaning, matching, queries, questions, recommendation, relations, sentiment
from ecellm.ecinstruct.samples import POOLS, Recipe, Samples, overlaps
from tests.ecinstruct.records import attributed, catalogue, item, judgement, product, question, review

PAPER, SOUND = Recipe(sound=False), Recipe()


def _all(samples: Samples) -> list[Any]:
    return [sample for name in POOLS for sample in samples.pool(name)]


def test_ave_worked_example() -> None:
    sample = attributes.sample("AVE", "s", attributed(), PAPER)
    assert sample.input == (
        '{"product title": "Acme Blue Mug", "product description": "A big Mug.", "product feature": '
        '"Holds 12 oz, Dishwasher safe", "product price": "$9.99", "product brand": "Acme", '
        '"target attributes": "Type"}'
    )
    assert sample.output == (
        '[{"attribute": "type", "value": "mug", "source": "product description"}, '
        '{"attribute": "type", "value": "mug", "source": "product title"}]'
    )
    empty = attributes.sample("AVE", "s", attributed(attribute="Fill Power", evidences=()), PAPER)
    assert empty.output == '[{"attribute": "fill power", "value": "None", "source": "None"}]'


def test_ave_holds_out_attributes_and_drops_contradictions() -> None:
    records = [("mave:x", attributed(id=str(i), attribute=name, paragraphs=((f"mug {i}", "title"),),
                                     evidences=(("mug", "title"),)))
               for i in range(200) for name in ("Type", "Color", "Size", "Depth")]  # fmt: skip
    records.append(("mave:x", attributed(id="0", attribute="Type", paragraphs=(("mug 0", "title"),), evidences=())))
    samples = attributes.build("AVE", records, SOUND)
    held = {json.loads(s.input)["target attributes"] for s in samples.ood}
    seen = {json.loads(s.input)["target attributes"] for s in (*samples.train, *samples.val, *samples.test)}
    assert held
    assert not held & seen
    assert not any(overlaps(samples).values())
    assert samples.dropped["attribute both stated and absent"] == 2


def test_pm_fifty_words_and_missing_values() -> None:
    text = " ".join(f"d{i}" for i in range(60))
    shown = matching.describe(item("amazon", 1, description=text, manufacturer=None), PAPER)
    assert shown["description"] == " ".join(f"d{i}" for i in range(50)) + "..."
    assert (shown["manufacturer"], shown["price"]) == ("nan", "nan")
    assert "NaN" in json.dumps(matching.describe(item("amazon", 1), PAPER))
    assert matching.describe(item("amazon", 1), SOUND)["description"] is None


@pytest.mark.parametrize("recipe", [PAPER, SOUND, Recipe(hard=True)])
def test_pm_is_balanced_and_labels_are_right(recipe: Recipe) -> None:
    samples = matching.build("PM", catalogue(120), recipe)
    for sample in _all(samples):
        given = json.loads(sample.input)
        same = given["product 1"]["title"] == given["product 2"]["title"]
        assert sample.output == ("yes" if same else "no")
    answers = [sample.output for sample in _all(samples)]
    assert answers.count("yes") == answers.count("no") == 120
    if recipe.sound:
        assert all((samples.val, samples.test))
        assert not any(overlaps(samples).values())


def test_prp_keeps_direction_in_sound_and_sorts_in_paper() -> None:
    records = [("m:x", product(2, also_buy=("P1", "P9"))), ("m:x", product(1)),
               ("m:x", product(3, also_view=("P4",))), ("m:x", product(4, also_buy=("P3",)))]  # fmt: skip
    for recipe, first in ((SOUND, "thing 2"), (PAPER, "thing 1")):
        samples = relations.build("PRP", records, recipe)
        (one,) = _all(samples)
        assert json.loads(one.input)["Product 1:"] == first
        assert one.output == "A"
        assert samples.dropped["pair in more than one relation"] >= 1


def test_prp_products_share_no_split() -> None:
    chance = random.Random(1)
    records = [("m:x", product(i, also_buy=(f"P{chance.randrange(400)}",), also_view=(f"P{chance.randrange(400)}",)))
               for i in range(400)]  # fmt: skip
    records.append(("m:x", product(900, domain="OOD", group="Tools", also_buy=("P901",))))
    records.append(("m:x", product(901, domain="OOD", group="Tools")))
    samples = relations.build("PRP", records, SOUND)
    assert all((samples.val, samples.test, len(samples.ood) == 1))
    assert not any(overlaps(samples).values())


def test_sa_options_and_rules() -> None:
    reviews = [review(f"u{i % 40}", f"p{i % 30}", rating=float(1 + i % 5), text=f"review number {i} " + "word " * 10)
               for i in range(400)]  # fmt: skip
    short = review("u0", "p0", text="too short")
    samples = sentiment.build("SA", [("r:x", one) for one in [*reviews, short]], SOUND)
    assert samples.dropped["fewer than 10 words"] == 1
    for sample in _all(samples):
        assert sample.output == json.loads(sample.options or "")[4 - int(sample.input.split()[2]) % 5]
    assert not any(overlaps(samples).values())
    marked = sentiment.build("SA", [("r:x", review("u", "p", text="so <br/>good &amp; " + "well " * 9))], SOUND)
    assert "so good & well" in _all(marked)[0].input


def test_sr_paper_text_forms() -> None:
    assert cleaning.paper_item('Foo "Bar" <b>x</b> &amp; y..') == "Foo Bar x & y."
    assert cleaning.paper_item(("Home &amp; Kitchen", "Bath")) == "Home & Kitchen. Bath."
    texts = recommendation.item_texts([product(1, title="T", category=(), brand="B")], PAPER)
    assert texts["P1"] == "T.  B."
    assert [recommendation.ordinal(n) for n in (1, 2, 3, 4, 11, 12, 20, 21, 42, 50)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "20th", "21st", "42nd", "50th",
    ]  # fmt: skip


def _shop() -> list[tuple[str, Any]]:
    records: list[tuple[str, Any]] = [("m:x", product(i, title=f"Bob's thing {i}")) for i in range(60)]
    for user in range(60):
        records += [("r:x", review(f"u{user}", f"P{(user * 7 + step * (1 + user % 3)) % 60}", time=step))
                    for step in range(8)]  # fmt: skip
    return records


def test_sr_sound() -> None:
    samples = recommendation.build("SR", _shop(), SOUND)
    assert all((samples.train, samples.test))
    assert not any(overlaps(samples).values())
    for sample in _all(samples):
        history = {text.split(": ", 1)[1] for text in json.loads(sample.input)}
        options = dict(text.split(": ", 1) for text in json.loads(sample.options or ""))
        assert len(set(options.values())) == 20
        assert not history & set(options.values())
        assert sample.output in options


def test_sr_paper_is_leave_one_out_in_python_lists() -> None:
    samples = recommendation.build("SR", _shop(), PAPER)
    assert len(samples.train) == len(samples.val) == len(samples.test) == 60
    history = ast.literal_eval(samples.test[0].input)
    assert samples.test[0].input == str(history)
    assert (len(history), history[0][:5]) == (7, "1st: ")
    assert {len(ast.literal_eval(sample.input)) for sample in samples.train} == {5}


def test_qpr_worked_example_and_lists() -> None:
    one = queries.ranking("QPR", "s", "q", [("I", "x"), ("E", "y"), ("S", "z")])
    assert (one.output, one.option_labels) == ("B,C,A", "IES")
    assert json.loads(one.input) == {"query": "q", "product list": ["A: x", "B: y", "C: z"]}
    records = [("esci:x", judgement(f"mug{q}", i, "ESCI"[i % 4])) for q in range(60) for i in range(8)]
    samples = queries.build("QPR", records, SOUND)
    assert all((samples.train, samples.val, samples.test))
    for sample in _all(samples):
        labels = sample.option_labels or ""
        assert 2 <= len(labels) == len(set(labels)) <= 4
        assert [labels["ABCD".index(letter)] for letter in sample.output.split(",")] == sorted(labels, key="ESCI".index)
    assert not any(overlaps(samples).values())


def test_mpc_and_psi_labels_and_one_split_a_query() -> None:
    records = [("esci:x", judgement(f"mug{q}", i, "ESCI"[i % 4])) for q in range(60) for i in range(4)]
    records += [("esci:x", judgement("mug0", 0, "I")), ("esci:x", judgement("tasse", 1, "E", locale="de"))]
    homes = []
    for task in ("MPC", "PSI"):
        samples = queries.build(task, records, SOUND)
        homes.append({entity: name for name in POOLS for s in samples.pool(name) for entity in s.entities})
        assert samples.dropped["contradictory labels"] == 2
        assert samples.dropped["locale other than us"] == 1
        assert not any(overlaps(samples).values())
    assert homes[0] == homes[1]
    (psi,) = _all(queries.build("PSI", [("esci:x", judgement("mug", 1, "S"))], SOUND))
    (mpc,) = _all(queries.build("MPC", [("esci:x", judgement("mug", 1, "C"))], SOUND))
    assert (psi.output, mpc.output[:2]) == ("yes", "C:")


def test_source_splits_are_kept() -> None:
    records = [("esci:x", judgement(f"mug{q}", 1, "E", split="test" if q < 10 else "train")) for q in range(100)]
    samples = queries.build("MPC", records, SOUND)
    assert {json.loads(s.input)["query"] for s in samples.test} == {f"mug{q}" for q in range(10)}
    assert samples.val


def test_questions() -> None:
    assert questions.best_answer((("a", 0, 9), ("b", 2, 9), ("c", 2, 2), ("d", 7, 0))) == "b"
    assert questions.best_answer((("a", 0, 9),)) is None
    assert questions.cut(["one two three", "four five", "six"], 4) == ["one two three", "four..."]
    records = [("qa:x", question(i, answerable=(True, False, None)[i % 3])) for i in range(300)]
    records.append(("qa:x", question(999, domain="OOD", category="Cell_Phones_and_Accessories")))
    ap = questions.build("AP", records, SOUND)
    assert ap.dropped["answerability not stated"] == 100
    for sample in _all(ap):
        number = int(json.loads(sample.input)["question"].split()[2])
        assert sample.output == ("no" if number % 3 == 1 else "yes")
    ag = questions.build("AG", records, SOUND)
    assert {sample.output for sample in _all(ag)} == {"It does."}
    assert ag.dropped["not answerable"] == 100
    assert len(ag.ood) == len(ap.ood) == 1
    assert not any({**overlaps(ap), **overlaps(ag)}.values())
    paper = questions.build("AP", [("qa:x", question(1)), ("qa:x", question(3, category="Sports_and_Outdoors"))], PAPER)
    assert [json.loads(s.input)["document"] for s in _all(paper)] == [["one two", "three"]]


@pytest.mark.parametrize("task", ["PM", "PRP", "SA", "SR", "QPR", "AG", "AVE"])
def test_order_of_lines_does_not_matter(task: str) -> None:
    records = {
        "PM": catalogue(60),
        "PRP": [("m:x", product(i, also_buy=(f"P{i * 7 % 100}",))) for i in range(100)],
        "SA": [("r:x", review(f"u{i % 20}", f"p{i % 9}", text=f"{i} " + "word " * 10)) for i in range(200)],
        "SR": _shop(),
        "QPR": [("e:x", judgement(f"m{q}", i, "ESCI"[i % 4])) for q in range(30) for i in range(4)],
        "AG": [("q:x", question(i)) for i in range(100)],
        "AVE": [("m:x", attributed(id=str(i), paragraphs=((f"mug {i}", "title"),), attribute=name, evidences=()))
                for i in range(60) for name in ("A", "B", "C")],
    }[task]  # fmt: skip
    builder = {"PM": matching, "PRP": relations, "SA": sentiment, "SR": recommendation, "QPR": queries, "AG": questions,
               "AVE": attributes}[task]  # fmt: skip
    shuffled = list(records)
    random.Random(5).shuffle(shuffled)
    assert builder.build(task, shuffled, SOUND) == builder.build(task, records, SOUND)
