"""Texts that are changed and kept are counted: tags and entities taken out, long ones cut. One family after another."""

from __future__ import annotations

from typing import Any

import pytest

from ecellm.ecinstruct import cleaning
from tests.ecinstruct.flow import build, recipe
from tests.ecinstruct.records import attributed, catalogue, item, judgement, product, question, review

LONG = " ".join(f"word{i}" for i in range(30))


@pytest.mark.parametrize("text", ["a<br/>b", "<b>bold</b>", "fish &amp; chips", "it&#39;s", "&#x27;", "<!-- gone -->"])
def test_markup_is_known_and_goes(text: str) -> None:
    assert cleaning.marked(text)
    assert not cleaning.marked(cleaning.clean(text))


@pytest.mark.parametrize("text", ["Black & Decker", "3 < 4", "4 > 3", "R&D", "", "plain", "AT&T; more"])
def test_what_is_no_markup_stays(text: str) -> None:
    assert not cleaning.marked(text)
    assert cleaning.clean(text) == text


def _changed(task: str, records: list[Any], **more: Any) -> dict[str, int]:
    return build(task, [("m:x", one) for one in records], recipe(task, **more)).changed


def test_reviews() -> None:
    plain = [review(f"u{i}", f"p{i}") for i in range(20)]
    marked = review("u90", "p90", text="<p>" + LONG)
    short = review("u91", "p91", text="<b>too short</b>")  # left out, so it is no text that was changed and kept
    assert _changed("SA", [*plain, marked, short], max_words=20) == {cleaning.MARKUP: 1, "cut at 20 words": 1}
    assert _changed("SA", [*plain, marked, short], max_words=30) == {cleaning.MARKUP: 1}
    assert _changed("SA", plain) == {}
    assert _changed("SA", [*plain, marked], kind="paper") == {}


def test_titles_of_linked_products() -> None:
    titles = ("Tom &amp; Co", "plain", "a <i>b</i>")
    records = [product(i, title=f"{titles[i % 3]} {i}", also_buy=(f"P{i + 1}",)) for i in range(30)]
    assert _changed("PRP", records) == {cleaning.MARKUP: 20}
    nothing = product(30, title="<br>", also_buy=("P1",))  # left out
    assert _changed("PRP", [*records, nothing]) == {cleaning.MARKUP: 20}


def test_items_of_histories() -> None:
    items = [product(i, title=f"{'&lt;b&gt; ' if i < 4 else ''}{LONG if i < 3 else ''} {i}") for i in range(30)]
    bought = [review(f"u{u}", f"P{(u + k) % 30}", time=100_000 * k) for u in range(30) for k in range(8)]
    assert _changed("SR", [*items, *bought], item_words=10) == {cleaning.MARKUP: 4, "cut at 10 words": 3}


def test_catalogue_entries() -> None:
    records = [record for _, record in catalogue(20)]
    records[0] = item("amazon", 0, title="Tom &amp; Co", description="<p>" + LONG)
    assert _changed("PM", records, description_words=10) == {cleaning.MARKUP: 2, "cut at 10 words": 1}


def test_products_with_attributes() -> None:
    records = [attributed(id=str(i), paragraphs=((f"{'&quot;' if i < 5 else ''}Mug {i}", "title"),)) for i in range(20)]
    more = [one._replace(attribute="Size", evidences=()) for one in records]  # the same text, asked once more
    both = [one for pair in zip(records, more, strict=True) for one in pair]
    assert _changed("AVE", both) == {cleaning.MARKUP: 5}


def test_judged_products() -> None:
    records = [judgement(f"q{i // 8}", i, "E" if i % 2 else "I", title=f"<b>title</b> {i}") for i in range(80)]
    empty = [judgement(f"q{i}", 100 + i, "E", title="<br>") for i in range(3)]  # left out
    assert _changed("QPR", [*records, *empty]) == {cleaning.MARKUP: 80}


def test_questions_count_where_they_are_used() -> None:
    records = [question(i, snippets=("<b>one</b> two", LONG)) for i in range(9)]
    records += [question(i, descriptive=False, snippets=("<b>one</b>",)) for i in range(9, 20)]
    assert _changed("AP", records, max_words=20) == {cleaning.MARKUP: 20, "cut at 20 words": 9}
    assert _changed("AG", records, max_words=20) == {cleaning.MARKUP: 9, "cut at 20 words": 9}
