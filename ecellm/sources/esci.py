"""Shopping Queries (ESCI): judgements and products, two Parquet files in one folder, to be joined on locale and id.

The two are read apart, in pieces, and the builder joins them, so that neither has to fit into memory. A file whose
judgements have `product_title` themselves needs no products. Only the columns needed are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ecellm.config.schema import SourceFile
from ecellm.config.schema import Storage as StorageSettings
from ecellm.sources.lines import File, RowGroups, id_of, parquet_rows, text_of
from ecellm.sources.opening import files_of, is_folder, missing
from ecellm.sources.records import Judgement, ListedProduct
from ecellm.sources.tally import Tally
from ecellm.sources.web import bare, is_web

LABELS = {"E": "E", "S": "S", "C": "C", "I": "I",
          "EXACT": "E", "SUBSTITUTE": "S", "COMPLEMENT": "C", "IRRELEVANT": "I"}  # fmt: skip
NEEDED = ("query", "product_id", "product_locale", "esci_label")
OPTIONAL = ("example_id", "small_version", "split", "product_title")
ENDINGS = (".parquet", ".pq")
"""Of the files of a folder, and of the products beside a file; a file that is named itself may end otherwise."""


def files(location: str, source: SourceFile, settings: StorageSettings | None) -> list[tuple[str, str]]:
    """(file, split): the examples and products of a folder, or a file and the products beside it."""
    if is_web(location):
        return [(location, source.split)]
    if not is_folder(location, settings):
        beside = files_of(location.rpartition("/")[0], settings) if "/" in location else []
        products = [path for path in beside if _is(path, "products") and path != location]
        return [(path, source.split) for path in (location, *products)]
    found = files_of(location, settings)
    for kind in ("examples", "products"):
        if not any(_is(path, kind) for path in found):
            raise missing(f"{location}/*{kind}*.parquet")
    return [(path, source.split) for path in found if _is(path, "examples") or _is(path, "products")]


def _is(path: str, kind: str) -> bool:
    name = os.path.basename(bare(path))
    return kind in name and name.endswith(ENDINGS)


def letter(label: object) -> str:
    """`E`, `S`, `C` or `I` from a letter or a word, "" from anything else."""
    return LABELS.get(str(label).strip().upper(), "")


def read(place: File | RowGroups, source: SourceFile, tally: Tally) -> Iterator[Judgement | ListedProduct]:
    """Judgements, with the title where the file has it, or products. Raises DataError for a broken Parquet file."""
    name = place.location
    kind = os.path.basename(bare(name))
    if "products" in kind and "examples" not in kind:
        yield from _products(place, tally)
        return
    for number, row in parquet_rows(place, NEEDED, OPTIONAL):
        tally.lines += 1
        label, query = letter(row["esci_label"]), text_of(row["query"])
        locale, product = id_of(row["product_locale"]), id_of(row["product_id"])
        if not label or not query or not product:
            tally.reject(number, "no query, no product or no ESCI label", name)
            continue
        tally.good()
        example = row["example_id"]
        yield Judgement(
            example=id_of(example) or str(number), query=query, product=product, title=text_of(row["product_title"]),
            label=label, locale=locale, small=bool(row["small_version"]),
            split=source.split or _split(text_of(row["split"])), line=number,
        )  # fmt: skip


def _split(said: str) -> str:
    return said if said in ("train", "val", "test") else ""


def _products(place: File | RowGroups, tally: Tally) -> Iterator[ListedProduct]:
    for number, row in parquet_rows(place, ("product_id", "product_locale", "product_title")):
        tally.lines += 1
        locale, product = id_of(row["product_locale"]), id_of(row["product_id"])
        if not product:
            tally.reject(number, "no product id", place.location)
            continue
        tally.good()
        yield ListedProduct(locale=locale, id=product, title=text_of(row["product_title"]), line=number)
