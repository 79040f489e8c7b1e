"""Format `ae_jsonl`: product titles with their attributes (AE-110k, OA-Mine), a stand-in for MAVE.

One record per title and attribute, as MAVE's splitter gives them, all from the source `title`. `n/a` is how these files
say that the title does not state an attribute: such a record has no evidence. Beside a real value `n/a` means nothing
and is dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from ecellm.config.schema import SourceFile
from ecellm.sources.lines import File, json_objects
from ecellm.sources.records import Attributed
from ecellm.sources.tally import Tally

ABSENT = "n/a"


def read_attribute_titles(place: File, source: SourceFile, tally: Tally) -> Iterator[Attributed]:
    """Records of lines `{"input": title, "category", "target_scores": {attribute: {value: 1}}}`.

    The product's id is a digest of its title, so that a title met twice is one product. Raises DataError.
    """
    for number, line in json_objects(place, tally):
        title, targets = line.get("input"), line.get("target_scores")
        if not isinstance(title, str) or not title.strip() or not isinstance(targets, dict) or not targets:
            tally.reject(number, "no `input` text or no `target_scores`", place.location)
            continue
        fault = next((fault for name, values in targets.items() if (fault := _fault(title, name, values))), "")
        if fault:
            tally.reject(number, fault, place.location)
            continue
        try:
            category = str(line.get("category", source.category))
        except RecursionError:
            tally.reject(number, "`category` is nested too deeply", place.location)
            continue
        tally.good()
        product = "title-" + hashlib.sha256(title.encode()).hexdigest()[:16]
        for name, values in targets.items():
            yield Attributed(
                id=product,
                category=category,
                paragraphs=((title, "title"),),
                attribute=name,
                evidences=tuple((value, "title") for value in values if value != ABSENT),
                split=source.split,
            )


def _fault(title: str, name: str, values: Any) -> str:
    """What is wrong with one attribute, or ""."""
    if not isinstance(values, dict) or not values:
        return f"{name!r} has no values"
    absent = [value for value in values if value != ABSENT and value not in title]
    return f"{name!r}: {absent[0]!r} is not in the title" if absent else ""
