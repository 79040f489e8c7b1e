"""Amazon Review Data 2018: reviews (`Electronics.json.gz`, JSON lines) and ratings only (`Electronics.csv`).

Reviewer names are in the review files and stop here: nothing of a reviewer but the id goes on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ecellm.config.schema import SourceFile
from ecellm.sources.lines import json_objects, numbered_lines, text_of
from ecellm.sources.records import Review
from ecellm.sources.tally import Tally


def group_of(path: str, source: SourceFile) -> str:
    """The category: the run file's, or the file name's (`meta_Electronics.json.gz` is `Electronics`)."""
    stem = os.path.basename(path).split(".")[0]
    return source.category or re.sub(r"_5$", "", stem.removeprefix("meta_"))


def read_reviews(location: str, source: SourceFile, tally: Tally) -> Iterator[Review]:
    """One Review a line. A line without product, reviewer or a rating from 1 to 5 is rejected."""
    group, name = group_of(location, source), location
    for number, line in json_objects(location, tally):
        user, product, rating = (
            text_of(line.get("reviewerID")),
            text_of(line.get("asin")),
            line.get("overall"),
        )
        if not user or not product:
            tally.reject(number, "no reviewerID or asin", name)
        elif not isinstance(rating, int | float) or not 1 <= rating <= 5:
            tally.reject(number, "no rating from 1 to 5", name)
        else:
            tally.good()
            yield Review(
                user=user, product=product, group=group, domain=source.domain, rating=float(rating),
                text=text_of(line.get("reviewText")), time=_seconds(line.get("unixReviewTime")),
                split=source.split,
            )  # fmt: skip


def read_ratings(location: str, source: SourceFile, tally: Tally) -> Iterator[Review]:
    """One Review without text a line `item,user,rating,timestamp`; the file has no header."""
    group, name = group_of(location, source), location
    for number, line in numbered_lines(location, tally):
        cells = [cell.strip() for cell in line.split(",")]
        try:
            product, user, rating, time = cells
            record = Review(user=user, product=product, group=group, domain=source.domain, rating=float(rating),
                            text="", time=int(float(time)))  # fmt: skip
        except (ValueError, OverflowError):
            tally.reject(number, "not item,user,rating,timestamp", name)
            continue
        if not product or not user or not 1 <= record.rating <= 5:
            tally.reject(number, "no item, no user or no rating from 1 to 5", name)
            continue
        tally.good()
        yield record


def _seconds(value: object) -> int:
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError, OverflowError):
        return 0
