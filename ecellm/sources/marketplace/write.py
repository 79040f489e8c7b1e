"""Made-up marketplace: all raw files of the six sources, invented, seeded, of any size.

The formats are exactly the real ones, so that the same readers read both. The folder says that it is made up.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ecellm.config.schema import MadeUp, SourceFile
from ecellm.sources.marketplace.attributes import write_attributes
from ecellm.sources.marketplace.catalogues import write_catalogues
from ecellm.sources.marketplace.queries import write_queries
from ecellm.sources.marketplace.questions import write_questions
from ecellm.sources.marketplace.reviews import write_metadata, write_reviews
from ecellm.sources.marketplace.world import make_world

VERSION = 1
NOTICE = "MADE UP. Every product, person, review and question in this folder is invented by ecellm.\n"
_IND = ("Electronics", "Home_and_Kitchen", "Sports_and_Outdoors")
_OOD = "Tools_and_Home_Improvement"


def write_marketplace(folder: str, settings: MadeUp, seed: int, workers: int = 1) -> tuple[SourceFile, ...]:
    """Write the raw files under the local `folder` and say what they are (paths relative to it)."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "README.txt"), "w", encoding="utf-8") as file:
        file.write(NOTICE)
    world = make_world(settings.products, seed)
    write_catalogues(os.path.join(folder, "amazon_google"), world, settings.noise, seed)
    reviews = write_reviews(world, settings.users, settings.noise, seed)
    for group in (*_IND, _OOD):
        metadata = write_metadata(world, group, settings.noise, seed)
        _gzip_lines(os.path.join(folder, "amazon2018", f"meta_{group}.json.gz"), metadata, settings.noise)
        _gzip_lines(os.path.join(folder, "amazon2018", f"{group}.json.gz"), reviews[group], settings.noise)
        _ratings(os.path.join(folder, "amazon2018", f"{group}.csv"), reviews[group])
    splits: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for split, kind, record in write_attributes(world, seed):
        splits[f"mave/splits/PRODUCT/{split}/00_All/mave_{kind}.jsonl"].append(record)
    for split, record in write_questions(world, settings.questions, settings.noise, seed):
        splits[f"amazonqa/{split}-qar.jsonl"].append(record)
    for path, records in sorted(splits.items()):
        _lines(os.path.join(folder, path), records)
    write_queries(os.path.join(folder, "esci"), world, settings.queries, settings.noise, seed)
    return source_files()


def source_files() -> tuple[SourceFile, ...]:
    """What `write_marketplace` writes, as the run file would name it. Domains are per task, as in the paper."""
    files = [
        SourceFile(format="amazon_google", path="amazon_google", tasks=("PM",)),
        SourceFile(format="mave", path="mave", tasks=("AVE",)),
        SourceFile(format="esci", path="esci", tasks=("MPC", "PSI", "QPR")),
    ]
    for group in (*_IND, _OOD):
        domain = "OOD" if group == _OOD else "IND"
        for kind, path, tasks in (
            ("amazon_metadata", f"amazon2018/meta_{group}.json.gz", ("PRP", "SR")),
            ("amazon_reviews", f"amazon2018/{group}.json.gz", ("SA",)),
            ("amazon_ratings", f"amazon2018/{group}.csv", ("SR",)),
        ):
            entry = {"format": kind, "path": path, "tasks": tasks, "domain": domain, "category": group}
            files.append(SourceFile.model_validate(entry))
    roles = (
        ("AP", "Sports_and_Outdoors", "IND"), ("AP", _OOD, "IND"), ("AP", "Cell_Phones_and_Accessories", "OOD"),
        ("AG", "Electronics", "IND"), ("AG", "Home_and_Kitchen", "IND"), ("AG", "Cell_Phones_and_Accessories", "OOD"),
    )  # fmt: skip
    for task, group, domain in roles:
        for split in ("train", "val", "test"):
            entry = {"format": "amazonqa", "path": f"amazonqa/{split}-qar.jsonl", "tasks": (task,), "split": split}
            files.append(SourceFile.model_validate(entry | {"domain": domain, "category": group}))
    return tuple(files)


def _lines(path: str, records: Iterable[dict[str, Any]]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _gzip_lines(path: str, records: Iterable[dict[str, Any]], noise: float) -> None:
    """JSON lines; with noise, one line in a thousand is cut in the middle, as in real dumps."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
        for number, record in enumerate(records):
            line = json.dumps(record)
            broken = noise > 0 and number % 1000 == 500
            file.write((line[: len(line) // 2] if broken else line).encode() + b"\n")


def _ratings(path: str, records: Iterable[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for r in records:
            file.write(f"{r['asin']},{r['reviewerID']},{r['overall']},{r['unixReviewTime']}\n")
