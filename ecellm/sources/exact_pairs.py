"""Format `esci_exact`: a cut of Shopping Queries with exact matches only, made fit to learn from, never to test on.

With one label there is nothing to tell apart. So each query also gets, as `I`, products that answer another query and
share no word with this one: a label made here by that rule, not by people. Both kinds are few for each query and all
are `train`, whatever the file says, so that no score rests on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ecellm.config.schema import SourceFile
from ecellm.sources.documents import ranked
from ecellm.sources.judged_pairs import read_esci_csv
from ecellm.sources.lines import File
from ecellm.sources.records import Judgement
from ecellm.sources.tally import Tally

PER_QUERY = 2
"""Exact and irrelevant products of one query; more would drown the few judged pairs of other labels."""


def read_esci_exact(place: File, source: SourceFile, tally: Tally) -> Iterator[Judgement]:
    """At most PER_QUERY exact and PER_QUERY irrelevant Judgements for each query, all `train`. Raises DataError."""
    exact: dict[str, dict[str, Judgement]] = {}
    used: set[int] = set()
    lines = 0
    for judgement in read_esci_csv(place, source, tally):
        lines += 1
        if judgement.label == "E":
            exact.setdefault(judgement.query, {})[judgement.product] = judgement._replace(split="train")
    products = {product: judgement for found in exact.values() for product, judgement in found.items()}
    for query, found in sorted(exact.items()):
        for product in ranked(query, sorted(found))[:PER_QUERY]:
            used.add(found[product].line)
            yield found[product]
        words, taken = _words(query), 0
        for product in ranked(f"{query}/other", sorted(set(products) - set(found))):
            if taken == PER_QUERY:
                break
            title, line = products[product].title, products[product].line
            if not words & _words(title):
                taken += 1
                used.add(line)
                yield Judgement(
                    example=f"made-{query}|{product}", query=query, product=product, title=title, label="I",
                    locale="us", small=True, split="train",
                )  # fmt: skip
    tally.unused(lines - len(used))


def _words(text: str) -> set[str]:
    """Lower-case words without a plural s."""
    return {word.removesuffix("s") for word in re.findall(r"\w+", text.lower())}
