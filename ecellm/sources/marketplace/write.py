"""Made-up marketplace: all raw files of the six sources, invented, seeded, of any size.

The formats are exactly the real ones, so that the same readers read both. The folder says that it is made up. The bytes
are the same for any number of processes.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor

from ecellm.config.schema import MadeUp, SourceFile
from ecellm.sources.marketplace.queries import join_pieces
from ecellm.sources.marketplace.shards import IND, OOD, TABLES, make_shard, pieces, shards_of

VERSION = 3
"""Raise it when other files come out."""
NOTICE = "MADE UP. Every product, person, review and question in this folder is invented by ecellm.\n"
SMALL = 60_000
"""Records, about, that are made in this process: others would take longer to start."""


def write_marketplace(folder: str, settings: MadeUp, seed: int, workers: int = 1) -> tuple[SourceFile, ...]:
    """Write the raw files under the local `folder` and say what they are (paths relative to it)."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "README.txt"), "w", encoding="utf-8") as file:
        file.write(NOTICE)
    left = os.path.join(folder, "pieces")
    shutil.rmtree(left, ignore_errors=True)
    try:
        _make(folder, settings, seed, workers)
        for target, paths in pieces(left):
            _join(os.path.join(folder, target), paths)
    finally:
        shutil.rmtree(left, ignore_errors=True)
    return source_files()


def _make(folder: str, settings: MadeUp, seed: int, workers: int) -> None:
    shards, said = shards_of(settings), settings.model_dump_json()
    about = 4 * settings.products + 13 * settings.users + 8 * settings.queries + settings.questions
    if workers == 1 or about < SMALL:
        for shard in shards:
            make_shard(folder, said, seed, shard)
        return
    # Spawned, not forked: a copy of a process that has threads may wait for ever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(shards)), mp_context=context) as pool:
        for done in [pool.submit(make_shard, folder, said, seed, shard) for shard in shards]:
            done.result()


def _join(target: str, paths: list[str]) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    schema = TABLES.get(os.path.basename(target))
    if schema is not None:
        join_pieces(target, paths, schema)
        return
    with open(target, "wb") as whole:
        for path in paths:
            with open(path, "rb") as file:
                shutil.copyfileobj(file, whole, 1 << 20)
            os.unlink(path)


def source_files() -> tuple[SourceFile, ...]:
    """What `write_marketplace` writes, as the run file would name it. Domains are per task, as in the paper."""
    files = [
        SourceFile(format="amazon_google", path="amazon_google", tasks=("PM",)),
        SourceFile(format="mave", path="mave", tasks=("AVE",)),
        SourceFile(format="esci", path="esci", tasks=("MPC", "PSI", "QPR")),
    ]
    for group in (*IND, OOD):
        domain = "OOD" if group == OOD else "IND"
        for kind, path, tasks in (
            ("amazon_metadata", f"amazon2018/meta_{group}.json.gz", ("PRP", "SR")),
            ("amazon_reviews", f"amazon2018/{group}.json.gz", ("SA",)),
            ("amazon_ratings", f"amazon2018/{group}.csv", ("SR",)),
        ):
            entry = {"format": kind, "path": path, "tasks": tasks, "domain": domain, "category": group}
            files.append(SourceFile.model_validate(entry))
    roles = (
        ("AP", "Sports_and_Outdoors", "IND"), ("AP", OOD, "IND"), ("AP", "Cell_Phones_and_Accessories", "OOD"),
        ("AG", "Electronics", "IND"), ("AG", "Home_and_Kitchen", "IND"), ("AG", "Cell_Phones_and_Accessories", "OOD"),
    )  # fmt: skip
    for task, group, domain in roles:
        for split in ("train", "val", "test"):
            entry = {"format": "amazonqa", "path": f"amazonqa/{split}-qar.jsonl", "tasks": (task,), "split": split}
            files.append(SourceFile.model_validate(entry | {"domain": domain, "category": group}))
    return tuple(files)
