"""Amazon reviews and ratings, in the layouts of 2018 and of 2023; JSON lines or Parquet, and CSV for ratings only.

2018: `Electronics.json.gz` (`reviewerID asin overall reviewText unixReviewTime`), `Electronics.csv` without a header
(item, user, rating, seconds). 2023: `Electronics.jsonl.gz` (`user_id parent_asin rating text timestamp` in
milliseconds), `Electronics.csv` with a header. A product of 2023 is its parent, as in the metadata. Reviewer names are
in the review files and stop here: nothing of a reviewer but the id goes on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from ecellm.config.schema import SourceFile
from ecellm.sources.lines import Place, id_of, json_objects, numbered_lines, text_of
from ecellm.sources.records import Review
from ecellm.sources.tally import Tally

MILLISECONDS = 10**11
"""A time above is in milliseconds: as seconds it would be the year 5138."""
LATEST = 2**53
COLUMNS = ("user_id", "parent_asin", "rating", "timestamp")
"""The header of 2023, in any order and among others."""


def group_of(path: str, source: SourceFile) -> str:
    """The category: the run file's, or the file name's (`meta_Electronics.json.gz` is `Electronics`)."""
    stem = os.path.basename(path).split(".")[0]
    return source.category or re.sub(r"_5$", "", stem.removeprefix("meta_").removeprefix("raw_meta_"))


def read_reviews(place: Place, source: SourceFile, tally: Tally) -> Iterator[Review]:
    """One Review a line. A line without product, reviewer or a rating from 1 to 5 is rejected."""
    group, name, domain, split = group_of(place.location, source), place.location, source.domain, source.split
    for number, line in json_objects(place, tally):
        user = id_of(line.get("reviewerID", line.get("user_id")))
        product = id_of(line.get("parent_asin") or line.get("asin"))
        rating = _stars(line.get("overall", line.get("rating")))
        if not user or not product:
            tally.reject(number, "no reviewer or no product id", name)
        elif not rating:
            tally.reject(number, "no rating from 1 to 5", name)
        else:
            tally.good()
            yield Review(
                user=user, product=product, group=group, domain=domain, rating=rating,
                text=text_of(line.get("reviewText", line.get("text"))),
                time=_seconds(line.get("unixReviewTime", line.get("timestamp"))), split=split, line=number,
            )  # fmt: skip


def read_ratings(place: Place, source: SourceFile, tally: Tally) -> Iterator[Review]:
    """One Review without text a line `item,user,rating,timestamp`, or as the header says, at the head of each piece."""
    group, name, domain = group_of(place.location, source), place.location, source.domain
    header: list[str] = []
    for index, (number, raw) in enumerate(numbered_lines(place, tally)):
        line = raw.decode("utf-8", "replace")
        cells = [cell.strip() for cell in line.split(",")]
        if index == 0 and "timestamp" in cells:
            tally.lines -= 1
            header = cells if set(COLUMNS) <= set(cells) else []
            continue
        try:
            if header:
                of = dict(zip(header, cells, strict=True))
                user, product, stars, time = (of[column] for column in COLUMNS)
            else:
                product, user, stars, time = cells
                # Without names: of 2023 the user comes first. Its ids are 28 letters, a product's are 10.
                if len(product) == 28 and len(user) == 10:
                    product, user = user, product
            rating = _stars(float(stars))
        except (ValueError, OverflowError):
            tally.reject(number, "not " + (",".join(COLUMNS) if header else "item,user,rating,timestamp"), name)
            continue
        if not product or not user or not rating:
            tally.reject(number, "no item, no user or no rating from 1 to 5", name)
            continue
        tally.good()
        yield Review(user=user, product=product, group=group, domain=domain, rating=rating, text="",
                     time=_seconds(time), split=source.split, line=number)  # fmt: skip


def _stars(value: Any) -> float:
    """A rating, or 0.0."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= 5
    return float(value) if good else 0.0


def _seconds(value: Any) -> int:
    """Seconds since 1970; 0 where the file does not say."""
    try:
        time = int(float(value))
    except (TypeError, ValueError, OverflowError):
        return 0
    time = time // 1000 if abs(time) > MILLISECONDS else time
    return time if abs(time) < LATEST else 0
