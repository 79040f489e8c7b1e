"""The door to the raw files: which reader reads which format, which files a source has, and in which pieces they come.

A reader is `read(place, source, tally) -> Iterator[SourceRecord]`; a place is a whole file or a piece of one. Readers
are named, not imported, so that reading one format never loads the libraries of another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from ecellm.config.schema import SourceFile
from ecellm.config.schema import Storage as StorageSettings
from ecellm.sources.lines import CHUNK, Chunk, File, Place, chunks_of, row_groups_of
from ecellm.sources.opening import files_of
from ecellm.sources.records import SourceRecord
from ecellm.sources.tally import Tally
from ecellm.sources.web import bare, is_web
from ecellm.storage.base import is_remote, join

__all__ = ["FORMATS", "FORMAT_TASKS", "Part", "Tally", "find", "parts_of", "pieces_of", "read_piece", "read_source"]

Reader = Callable[[Any, SourceFile, Tally], Iterator[SourceRecord]]


@dataclass(frozen=True, slots=True)
class Format:
    """How a format is read: the module, its reader, what it can serve, and whether a file comes in pieces."""

    module: str
    reader: str
    tasks: tuple[str, ...]
    pieces: bool = False
    """Lines or Parquet rows that stand alone: big files are read in pieces, by all cores."""
    files: str = ""
    """The function of the module that lists a source's files; empty: the file, or all files of a folder."""
    header: str = ""
    """A column by which a header is known, where such files may have one: each piece then begins with it."""
    parquet: bool = False
    """Parquet whatever a file's name; other formats are where the name ends in `.parquet`."""


FORMATS: dict[str, Format] = {
    "amazon_google": Format("amazon_google", "read", ("PM",), files="files"),
    "amazon_reviews": Format("amazon_reviews", "read_reviews", ("SA", "SR"), pieces=True),
    "amazon_ratings": Format("amazon_reviews", "read_ratings", ("SR",), pieces=True, header="timestamp"),
    "amazon_metadata": Format("amazon_metadata", "read", ("PRP", "SR"), pieces=True),
    "mave": Format("mave", "read", ("AVE",), pieces=True, files="files"),
    "ae_jsonl": Format("attribute_titles", "read_attribute_titles", ("AVE",)),
    "esci": Format("esci", "read", ("MPC", "PSI", "QPR"), pieces=True, files="files", parquet=True),
    "esci_csv": Format("judged_pairs", "read_esci_csv", ("MPC", "PSI", "QPR")),
    "esci_vespa": Format("judged_pairs", "read_esci_vespa", ("MPC", "PSI", "QPR"), files="files_esci_vespa"),
    "esci_exact": Format("exact_pairs", "read_esci_exact", ("MPC", "QPR")),
    "amazonqa": Format("amazonqa", "read", ("AP", "AG"), pieces=True),
    "amazon_qa_literal": Format("community_answers", "read_amazon_qa_literal", ("AG",)),
    "subjqa": Format("subjective_questions", "read_subjqa", ("AP", "AG")),
    "epqa": Format("judged_questions", "read_epqa", ("AP", "AG")),
    "hetpqa_answers": Format("written_answers", "read_hetpqa_answers", ("AG",)),
    "hetpqa_evidence": Format("judged_questions", "read_hetpqa_evidence", ("AP",)),
}
FORMAT_TASKS: dict[str, tuple[str, ...]] = {name: form.tasks for name, form in FORMATS.items()}
"""Tasks that a format's records can serve."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a source. `split` is the file's own where a folder names splits."""

    location: str
    split: str
    name: str
    """Its path below the source's location, or the file's name: what messages and cards call it."""


def find(source: SourceFile, root: str) -> str:
    """Where a source lies: absolute, s3:// and http(s):// paths as they are, others from `root`."""
    there = is_remote(source.path) or is_web(source.path) or os.path.isabs(source.path)
    return source.path if there else join(root, source.path)


def parts_of(source: SourceFile, root: str, settings: StorageSettings | None = None) -> list[Part]:
    """The files of a source, in an order that knows nothing of the disk's. Raises DataError where there is none."""
    location, form = find(source, root).rstrip("/"), FORMATS[source.format]
    if form.files:
        found = getattr(import_module(f"ecellm.sources.{form.module}"), form.files)(location, source, settings)
    elif is_web(location):
        found = [(location, source.split)]
    else:
        found = [(path, source.split) for path in files_of(location, settings)]
    base = os.path.basename(bare(location))

    def name(path: str) -> str:
        return base + path[len(location) :] if path.startswith(location) else os.path.basename(bare(path))

    return [Part(path, split, name(path)) for path, split in found]


def pieces_of(
    source: SourceFile, part: Part, settings: StorageSettings | None = None, size: int = CHUNK
) -> Iterator[Place]:
    """A file in pieces of about `size` bytes that can be read apart; in one, where its format cannot be cut."""
    form = FORMATS[source.format]
    if not form.pieces:
        yield File(part.location, settings)
    elif form.parquet or bare(part.location).endswith(".parquet"):
        yield from row_groups_of(part.location, settings)
    else:
        chunks = chunks_of(part.location, settings, size)
        yield from _headed(chunks, form.header) if form.header else chunks


def _headed(chunks: Iterator[Chunk], column: str) -> Iterator[Chunk]:
    """The chunks, each with the file's header, if it has one, before its first line and under the number before it."""
    header = b""
    for chunk in chunks:
        if chunk.first == 1:
            line = chunk.data.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
            header = line + b"\n" if column.encode() in map(bytes.strip, line.split(b",")) else b""
            yield chunk
        else:
            yield replace(chunk, first=chunk.first - 1, data=header + chunk.data) if header else chunk


def read_piece(source: SourceFile, part: Part, place: Place, tally: Tally) -> Iterator[SourceRecord]:
    """The records of a piece, in file order; lines that cannot be used go to `tally`."""
    form = FORMATS[source.format]
    read: Reader = getattr(import_module(f"ecellm.sources.{form.module}"), form.reader)
    own = source if source.split == part.split else source.model_copy(update={"split": part.split})
    return read(place, own, tally)


def read_source(
    source: SourceFile, root: str, tally: Tally, settings: StorageSettings | None = None
) -> Iterator[SourceRecord]:
    """The records of one source, in order; lines that cannot be used go to `tally`.

    Raises DataError for a missing file, a cut-off gzip or Parquet file, or missing columns.
    """
    for part in parts_of(source, root, settings):
        for place in pieces_of(source, part, settings):
            yield from read_piece(source, part, place, tally)
