"""Formats `esci_csv` and `esci_vespa`: small public cuts of Shopping Queries (ESCI) as tables.

Not the data set's own parquet pair; that is format `esci`. Labels come as one letter or spelled out, and both become
the letter. Columns that a cut lost take the value that lets the pair be used: locale `us`, the reduced version (QPR
reads only that), and no split unless the run file gives one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ecellm.config.schema import SourceFile
from ecellm.config.schema import Storage as StorageSettings
from ecellm.errors import DataError
from ecellm.sources.lines import File, json_objects, table_rows
from ecellm.sources.opening import files_of
from ecellm.sources.records import Judgement
from ecellm.sources.tally import Tally

LETTERS = {
    "exact": "E",
    "substitute": "S",
    "complement": "C",
    "irrelevant": "I",
    "e": "E",
    "s": "S",
    "c": "C",
    "i": "I",
}
JUDGEMENTS, PRODUCTS = "_judgements.csv", "_products.jsonl"
"""Endings of the two files of `esci_vespa`, which lie in one folder; from S3 name the folder, so that both come."""


def read_esci_csv(place: File, source: SourceFile, tally: Tally) -> Iterator[Judgement]:
    """Judgements of a table that holds the titles itself. Raises DataError."""
    for number, row in table_rows(place, tally, ("query", "product_id", "esci_label", "product_title")):
        judgement = _judgement(number, row, row["product_title"], place.location, source, tally)
        if judgement:
            yield judgement


def files_esci_vespa(location: str, source: SourceFile, settings: StorageSettings | None) -> list[tuple[str, str]]:
    """(file, split) of the judgements; of a folder the one such file in it. Raises DataError."""
    found = [path for path in files_of(location, settings) if path.endswith(JUDGEMENTS)]
    if len(found) != 1:
        raise DataError(
            f"{location}: not a judgements file",
            found=f"{len(found)} files that end in {JUDGEMENTS}",
            expected=f"X{JUDGEMENTS}, with X{PRODUCTS} in the same folder",
            mend="name the judgements file in `path`",
        )
    return [(found[0], source.split)]


def read_esci_vespa(place: File, source: SourceFile, tally: Tally) -> Iterator[Judgement]:
    """Judgements of `X_judgements.csv` with the titles of `X_products.jsonl` beside it. Raises DataError."""
    products = File(place.location.removesuffix(JUDGEMENTS) + PRODUCTS, place.settings)
    titles: dict[str, str] = {}
    named: set[str] = set()
    lines = 0
    for number, line in json_objects(products, tally):
        fields = line.get("fields")
        if isinstance(fields, dict) and isinstance(fields.get("id"), str) and isinstance(fields.get("title"), str):
            titles[fields["id"]] = fields["title"]
            lines += 1
            tally.good()
        else:
            tally.reject(number, "no `fields` with id and title", products.location)
    for number, row in table_rows(place, tally, ("query", "product_id", "esci_label")):
        judgement = _judgement(number, row, titles.get(row["product_id"], ""), place.location, source, tally)
        if judgement:
            named.add(row["product_id"])
            yield judgement
    tally.unused(lines - len(named))


def _judgement(
    number: int, row: Mapping[str, str], title: str, location: str, source: SourceFile, tally: Tally
) -> Judgement | None:
    """One row's judgement, or None and a count where it has none."""
    label = LETTERS.get(row["esci_label"].strip().lower())
    query, product = row["query"].strip(), row["product_id"].strip()
    if label is None:
        tally.reject(number, f"label {row['esci_label']!r:.40} is none of E, S, C, I", location)
        return None
    if not query or not product or not title.strip():
        tally.reject(number, "query, product or title is missing", location)
        return None
    tally.good()
    return Judgement(
        example=row.get("example_id") or f"{query}|{product}",
        query=query,
        product=product,
        title=title.strip(),
        label=label,
        locale=row.get("product_locale") or "us",
        small=row.get("small_version", "1") == "1",
        split=source.split or (said if (said := row.get("split", "")) in ("train", "val", "test") else ""),
        line=number,
    )
