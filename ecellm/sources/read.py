"""The door to the raw files: which reader reads which format, and where the file is. Nothing is parsed here.

A reader is `read(location, source, tally) -> Iterator[SourceRecord]`, with `location` a local file or folder. Readers
are named, not imported, so that reading one format never loads the libraries of another.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from ecellm.config.schema import SourceFile
from ecellm.config.schema import Storage as StorageSettings
from ecellm.sources.lines import missing
from ecellm.sources.records import SourceRecord
from ecellm.sources.tally import Tally
from ecellm.storage.base import is_remote, join

__all__ = [
    "FORMAT_TASKS",
    "READERS",
    "Reader",
    "Tally",
    "find",
    "local_copy",
    "read_source",
    "reader",
]

Reader = Callable[[str, SourceFile, Tally], Iterator[SourceRecord]]

READERS: dict[str, tuple[str, str]] = {
    "amazon_google": ("ecellm.sources.amazon_google", "read"),
    "amazon_reviews": ("ecellm.sources.amazon_reviews", "read_reviews"),
    "amazon_ratings": ("ecellm.sources.amazon_reviews", "read_ratings"),
    "amazon_metadata": ("ecellm.sources.amazon_metadata", "read"),
    "mave": ("ecellm.sources.mave", "read"),
    "esci": ("ecellm.sources.esci", "read"),
    "amazonqa": ("ecellm.sources.amazonqa", "read"),
    "ae_jsonl": ("ecellm.sources.attribute_titles", "read_attribute_titles"),
    "esci_csv": ("ecellm.sources.judged_pairs", "read_esci_csv"),
    "esci_vespa": ("ecellm.sources.judged_pairs", "read_esci_vespa"),
    "esci_exact": ("ecellm.sources.exact_pairs", "read_esci_exact"),
    "amazon_qa_literal": ("ecellm.sources.community_answers", "read_amazon_qa_literal"),
    "subjqa": ("ecellm.sources.subjective_questions", "read_subjqa"),
    "epqa": ("ecellm.sources.judged_questions", "read_epqa"),
    "hetpqa_answers": ("ecellm.sources.written_answers", "read_hetpqa_answers"),
    "hetpqa_evidence": ("ecellm.sources.judged_questions", "read_hetpqa_evidence"),
}
"""format -> (module, function)."""

FORMAT_TASKS: dict[str, tuple[str, ...]] = {
    "amazon_google": ("PM",),
    "amazon_reviews": ("SA", "SR"),
    "amazon_ratings": ("SR",),
    "amazon_metadata": ("PRP", "SR"),
    "mave": ("AVE",),
    "ae_jsonl": ("AVE",),
    "esci": ("MPC", "PSI", "QPR"),
    "esci_csv": ("MPC", "PSI", "QPR"),
    "esci_vespa": ("MPC", "PSI", "QPR"),
    "esci_exact": ("MPC", "QPR"),
    "amazonqa": ("AP", "AG"),
    "amazon_qa_literal": ("AG",),
    "subjqa": ("AP", "AG"),
    "epqa": ("AP", "AG"),
    "hetpqa_answers": ("AG",),
    "hetpqa_evidence": ("AP",),
}
"""Tasks that a format's records can serve."""


def reader(format: str) -> Reader:
    """The reader of a format."""
    module, function = READERS[format]
    found: Reader = getattr(import_module(module), function)
    return found


def find(source: SourceFile, root: str) -> str:
    """Where a source lies: absolute and s3:// paths as they are, others from `root`."""
    return source.path if is_remote(source.path) or os.path.isabs(source.path) else join(root, source.path)


@contextmanager
def local_copy(location: str, settings: StorageSettings | None = None) -> Iterator[str]:
    """A local path of a file or folder; what is in S3 is downloaded for as long as the context lasts."""
    if not is_remote(location):
        if not os.path.exists(location):
            raise missing(location)
        yield location
        return
    from ecellm.storage.open import open_storage

    parent, _, name = location.rstrip("/").rpartition("/")
    storage = open_storage(parent, settings)
    keys = [key for key, _ in storage.list(name) if key == name or key.startswith(name + "/")]
    if not keys:
        raise missing(location)
    with tempfile.TemporaryDirectory(prefix="ecellm-raw-") as folder:
        for key in keys:
            target = os.path.join(folder, key)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            storage.download(key, target)
        yield os.path.join(folder, name)


def read_source(
    source: SourceFile,
    storage_root: str,
    tally: Tally,
    settings: StorageSettings | None = None,
) -> Iterator[SourceRecord]:
    """The records of one source, in file order; lines that cannot be used go to `tally`.

    Raises DataError for a missing file, a cut-off gzip or Parquet file, another encoding or missing columns.
    """
    with local_copy(find(source, storage_root), settings) as location:
        yield from reader(source.format)(location, source, tally)
