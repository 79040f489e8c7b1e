"""Shopping Queries (ESCI): judgements and products, two Parquet files in one folder, joined on locale and id.

Only the columns needed are read, batch by batch, and only titles of judged products are kept. A single Parquet file
that has `product_title` itself needs no second one.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ecellm.config.schema import SourceFile
from ecellm.errors import DataError
from ecellm.sources.lines import missing, text_of
from ecellm.sources.records import Judgement
from ecellm.sources.tally import Tally

LABELS = {"E": "E", "S": "S", "C": "C", "I": "I",
          "EXACT": "E", "SUBSTITUTE": "S", "COMPLEMENT": "C", "IRRELEVANT": "I"}  # fmt: skip
NEEDED = ("query", "product_id", "product_locale", "esci_label")
OPTIONAL = ("example_id", "small_version", "split", "product_title")


def letter(label: object) -> str:
    """`E`, `S`, `C` or `I` from a letter or a word, "" from anything else."""
    return LABELS.get(str(label).strip().upper(), "")


def read(location: str, source: SourceFile, tally: Tally) -> Iterator[Judgement]:
    """Judgements with titles. Raises DataError for a missing, cut-off or wrong Parquet file."""
    examples, products = _files(location)
    titles = {} if products is None else _titles(examples, products)
    name = examples
    for number, row in _rows(examples, NEEDED, OPTIONAL):
        tally.lines += 1
        label, query = letter(row["esci_label"]), text_of(row["query"])
        locale, product = str(row["product_locale"]), str(row["product_id"])
        if not label or not query:
            tally.reject(number, "no query or no ESCI label", name)
            continue
        title = text_of(row["product_title"]) or titles.get((locale, product), "")
        if not title:
            tally.reject(number, "product without title", name)
            continue
        tally.good()
        yield Judgement(
            example=str(number if row["example_id"] is None else row["example_id"]), query=query, product=product,
            title=title, label=label, locale=locale, small=bool(row["small_version"]),
            split=source.split or text_of(row["split"]),
        )  # fmt: skip


def _files(location: str) -> tuple[str, str | None]:
    folder = location if os.path.isdir(location) else os.path.dirname(location)
    products = sorted(glob.glob(os.path.join(glob.escape(folder), "*products*.parquet")))
    if location != folder:
        return location, products[0] if products and products[0] != location else None
    examples = sorted(glob.glob(os.path.join(glob.escape(folder), "*examples*.parquet")))
    if not examples or not products:
        raise missing(f"{location}/*{'products' if examples else 'examples'}*.parquet")
    return examples[0], products[0]


def _titles(examples: str, products: str) -> dict[tuple[str, str], str]:
    keys = {(str(r["product_locale"]), str(r["product_id"])) for _, r in _rows(examples, NEEDED)}
    needed = ("product_id", "product_locale", "product_title")
    found = ((str(r["product_locale"]), str(r["product_id"]), r) for _, r in _rows(products, needed))
    return {(locale, name): text_of(row["product_title"]) for locale, name, row in found if (locale, name) in keys}


def _rows(path: str, needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, columns) of a Parquet file; absent optional columns are None."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = path
    try:
        with pq.ParquetFile(path) as file:
            present = set(file.schema_arrow.names)
            lacking = [column for column in needed if column not in present]
            if lacking:
                raise DataError(f"{name}: columns are missing", found=", ".join(sorted(present)),
                                expected=", ".join(needed), mend="check the format named in the run file")  # fmt: skip
            columns = [column for column in (*needed, *optional) if column in present]
            number, blank = 0, dict.fromkeys(optional)
            for batch in file.iter_batches(columns=columns, batch_size=8192):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {**blank, **row}
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{name}: not a whole Parquet file",
            found=str(error).partition("\n")[0][:200],
            expected="a Parquet file with its footer",
            mend="download the file again",
        ) from error
