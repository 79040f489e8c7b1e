"""The raw sources of a run at hand: which files there are, what they are known by, and how each is fed to the build.

A file that several entries name (the same questions for two tasks, by category) is fed once, with all its uses. Files
on this machine are known by their sha256; remote ones by size and edges, and their sha256 is not claimed.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ecellm.config.schema import MadeUp, Run, SourceFile
from ecellm.ecinstruct.flow.job import Feed, Use
from ecellm.sources.opening import digest_of, size_of
from ecellm.sources.read import FORMAT_TASKS, Part, parts_of
from ecellm.sources.web import bare
from ecellm.stage import fingerprint, is_complete, publish
from ecellm.storage.base import Storage, is_remote, join
from ecellm.storage.local import told
from ecellm.storage.open import open_storage

LICENCES = {
    "amazon_google": "Leipzig database group benchmark: for research, no licence stated",
    "amazon_reviews": "Amazon Review Data: for research, no licence stated",
    "amazon_ratings": "Amazon Review Data: for research, no licence stated",
    "amazon_metadata": "Amazon Review Data: for research, no licence stated",
    "mave": "MAVE labels: CC BY 4.0; the product texts are of the Amazon Review Data",
    "ae_jsonl": "AE-110k and OA-Mine as given by ExtractGPT: Apache-2.0",
    "esci": "Shopping Queries Dataset: Apache-2.0",
    "esci_csv": "Shopping Queries Dataset: Apache-2.0",
    "esci_vespa": "Shopping Queries Dataset: Apache-2.0",
    "esci_exact": "Shopping Queries Dataset: Apache-2.0",
    "amazonqa": "AmazonQA: no licence stated",
    "amazon_qa_literal": "Amazon question/answer data: for research, no licence stated",
    "subjqa": "SubjQA: as the set that its domain was built on",
    "epqa": "contextual-product-qa: CDLA-Sharing-1.0",
    "hetpqa_answers": "contextual-product-qa: CDLA-Sharing-1.0",
    "hetpqa_evidence": "contextual-product-qa: CDLA-Sharing-1.0",
}
"""Format -> what the origin says of its licence."""


PACKED = 5
"""Bytes of text for one byte of a packed file, about."""


@dataclass(frozen=True, slots=True)
class Raw:
    """One entry of the run file with its files: (part, digest, bytes) of each."""

    entry: SourceFile
    files: tuple[tuple[Part, str, int], ...]
    made_up: bool
    name: str
    """The end of its path, as much of it as tells it from the others."""

    @property
    def label(self) -> str:
        """Format and name, as rows and the card show it."""
        return label_of(self.entry, self.name, self.made_up)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(size for _, _, size in self.files)

    @property
    def unpacked(self) -> int:
        """The same unpacked, about."""
        return sum(
            size * (PACKED if bare(part.location).endswith((".gz", ".parquet")) else 1) for part, _, size in self.files
        )

    def serves(self, task: str) -> bool:
        """Whether a task may and can use it."""
        return task in FORMAT_TASKS[self.entry.format] and (not self.entry.tasks or task in self.entry.tasks)

    def identity(self) -> object:
        """What a build depends on: the entry but for its place, and the files' contents."""
        return [self.entry.model_dump(mode="json", exclude={"path"}), self.label,
                [(part.name, part.split, digest) for part, digest, _ in self.files]]  # fmt: skip

    def label_of(self, part: Part) -> str:
        """Format and name of one of its files, which begins like the entry's own."""
        folder = self.name.removesuffix(os.path.basename(self.name))
        return label_of(self.entry, folder + part.name, self.made_up)

    def facts(self) -> dict[str, Any]:
        """For the card."""
        digests = [digest for _, digest, _ in self.files]
        one = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
        return {
            "source": self.label,
            "format": self.entry.format,
            "files": len(self.files),
            "bytes": self.size,
            "sha256": one,
            "made_up": self.made_up,
            "licence": "invented by ecellm: Apache-2.0" if self.made_up else LICENCES[self.entry.format],
        }


def label_of(entry: SourceFile, name: str, made_up: bool) -> str:
    """A file's format and name."""
    return f"{entry.format}:{name}" + (" (made up)" if made_up else "")


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """path -> its last component, or as many of the last ones as tell it from the other paths.

    >>> short_names(["raw/2014/meta.gz", "raw/2018/meta.gz", "raw/2018/reviews.gz"])
    {'raw/2014/meta.gz': '2014/meta.gz', 'raw/2018/meta.gz': '2018/meta.gz', 'raw/2018/reviews.gz': 'reviews.gz'}
    """
    pieces = {path: bare(path).rstrip("/").split("/") for path in paths}
    found = {}
    for path, mine in pieces.items():
        others = [other for other in pieces.values() if other != mine]
        length = next((n for n in range(1, len(mine)) if all(other[-n:] != mine[-n:] for other in others)), len(mine))
        found[path] = "/".join(mine[-length:])
    return found


def gather(run: Run, storage: Storage, stack: ExitStack, workers: int) -> list[Raw]:
    """All raw sources: the made-up ones, written now unless they are there, or those that the run file lists."""
    entries = [(entry, run.sources.root) for entry in run.sources.files]
    made_up = run.sources.made_up
    if made_up is not None:
        folder = _made_up(run, made_up, storage, stack, workers)
        from ecellm.sources.marketplace.write import source_files

        entries = [(entry, folder) for entry in source_files()]
    listed = [(entry, parts_of(entry, root, run.storage)) for entry, root in entries]
    # Two entries often name one file: it is read once.
    places = list(dict.fromkeys(part.location for _, parts in listed for part in parts))
    with ThreadPoolExecutor(max_workers=min(8, max(1, workers))) as pool:
        digests = dict(zip(places, pool.map(lambda place: digest_of(place, run.storage), places), strict=True))
        sizes = dict(zip(places, pool.map(lambda place: size_of(place, run.storage), places), strict=True))
    names = short_names(entry.path for entry, _ in entries)
    found = [Raw(entry, tuple((part, digests[part.location], sizes[part.location]) for part in parts),
                 made_up is not None, names[entry.path]) for entry, parts in listed]  # fmt: skip
    return sorted(
        found, key=lambda one: (one.label, one.entry.category, one.entry.domain, one.entry.split, one.entry.tasks)
    )


def _made_up(run: Run, made_up: MadeUp, storage: Storage, stack: ExitStack, workers: int) -> str:
    """The folder of the made-up files; they are written again only where they are not whole."""
    from ecellm.sources.marketplace.write import VERSION, write_marketplace

    if is_remote(storage.root):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ecellm-raw-"))
    else:
        folder = join(os.path.abspath(storage.root), "raw")
        with told("write", folder):
            os.makedirs(folder, exist_ok=True)
    here, made_of = open_storage(folder), fingerprint("made up", VERSION, made_up, run.seed)
    if not is_complete(here, "", made_of):
        here.delete("COMPLETE")
        with told("write", folder):
            write_marketplace(folder, made_up, run.seed, workers)
        publish(here, "", made_of)
    return folder


def feeds_of(run: Run, raw: Sequence[Raw], held: tuple[str, ...]) -> list[Feed]:
    """Every raw file once, in an order that knows nothing of the run file's. `held`: categories that train nothing."""
    found: dict[tuple[object, ...], tuple[SourceFile, Part, str, list[Use]]] = {}
    for one in raw:
        entry = one.entry
        mixed = entry.format == "amazonqa"  # one file holds many categories
        tasks = tuple(task for task in run.build.tasks if one.serves(task))
        use = Use(entry.category, entry.domain, tasks)
        for part, _, _ in one.files:
            key: tuple[object, ...] = (entry.format, part.location, part.split)
            source = entry
            if mixed:
                source = entry.model_copy(update={"category": "", "domain": "IND"})
            else:
                key = (*key, entry.category, entry.domain)
            found.setdefault(key, (source, part, one.label_of(part), []))[3].append(use)
    ordered = sorted(found.values(), key=lambda feed: (feed[2], feed[1].name, feed[0].category, feed[0].domain))
    return [Feed(number, label, source, part, tuple(sorted(uses, key=lambda use: (use.tasks, use.category))), held)
            for number, (source, part, label, uses) in enumerate(ordered)]  # fmt: skip


def held_out(run: Run, raw: Sequence[Raw]) -> tuple[str, ...]:
    """Under the mend `clean_ood`: categories that some entry of this build calls out of domain."""
    if not run.build.mends.clean_ood:
        return ()
    raw = [one for one in raw if any(one.serves(task) for task in run.build.tasks)]
    return tuple(sorted({one.entry.category for one in raw if one.entry.domain == "OOD" and one.entry.category}))
