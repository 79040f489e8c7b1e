"""How a checkpoint does on a sample of rows: the primary metric of every task, by the code that `evaluate` runs.

What a worker beside a training does with one checkpoint: export it, ask it, score what it said. No Ray and no loop
here; `train.probes` has those. The one decision: nothing is kept of a probe but its line, so one that is lost is
simply made again.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ecellm import prompt
from ecellm.checkpoint.export import export
from ecellm.checkpoint.layout import step_folder
from ecellm.config.schema import Run
from ecellm.errors import DataError
from ecellm.evaluate.ask import questions
from ecellm.evaluate.gather import Gather
from ecellm.evaluate.rows import Groups, limited
from ecellm.evaluate.run import judges_of
from ecellm.evaluate.scores import score_task
from ecellm.evaluate.systems import local_system
from ecellm.evaluate.voices import model_digest, open_engine
from ecellm.model.base import base_folder
from ecellm.model.load import load_tokenizer
from ecellm.rows import read_rows
from ecellm.storage.base import Storage, join
from ecellm.storage.open import open_storage
from ecellm.tasks.registry import TASKS, task

NAME = "probe"


def sample(run: Run, storage: Storage) -> Groups:
    """The rows of `probe.split` and `probe.setting`, `probe.rows` of each task, the same ones every time.

    Raises DataError where there is none, StorageError.
    """
    found: Groups = {}
    for row in read_rows(storage, split=run.probe.split, setting=run.probe.setting):
        name = task(row.task).id
        if name in run.evaluate.tasks:
            found.setdefault((run.probe.setting, name), []).append(row)
    if not found:
        raise DataError(
            f"{join(storage.root, 'rows')}: no rows to try the model on while it is trained",
            found=f"none of split {run.probe.split} and setting {run.probe.setting}",
            mend="name another probe.split or probe.setting, or build with build.sizes.val above 0",
        )
    ordered = sorted(found, key=lambda group: list(TASKS).index(group[1]))
    return {key: limited(found[key], run.probe.rows, run.seed) for key in ordered}


def try_step(run_json: str, step: int) -> dict[str, dict[str, Any]]:
    """What the checkpoint of a step is worth: {task id: {metric, value, ci95, n, n_failed}}, strict rule.

    Raises CheckpointError, StorageError where it is not whole (any more), ConfigError where a score's own model cannot
    be had.
    """
    import torch
    import transformers

    run = Run.model_validate_json(run_json)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(run.cluster.cpus_per_worker)
    storage = open_storage(run.out, run.storage)
    groups = sample(run, storage)
    with tempfile.TemporaryDirectory(prefix="ecellm-probe-") as folder:
        base = base_folder(run, storage) if run.model.lora else ""
        export(join(run.out, step_folder(step)), folder, run.storage, base)
        return _tried(run, folder, groups)


def _tried(run: Run, folder: str, groups: Groups) -> dict[str, dict[str, Any]]:
    path = os.path.join(folder, prompt.FILE)
    with open(path, "rb") as file:
        policy = prompt.read_policy(file.read(), path)
    tokenizer: Any = load_tokenizer(folder, trust_remote_code=run.model.trust_remote_code)
    system = local_system(
        NAME, run, policy, tokenizer, "transformers", digest=model_digest(folder), folder=folder,
        decoding=run.probe.decoding,
    )  # fmt: skip
    [talk] = questions(run, [system], groups).values()
    gather = Gather(talk.requests)
    gather.add(open_engine(system.voice, run).answer(list(talk.requests.values())))
    judges = judges_of(run, groups)
    lines: dict[str, dict[str, Any]] = {}
    for (setting, name), asked in talk.asked[NAME].items():
        entry, _ = score_task(task(name), groups[setting, name], gather.predictions(asked), judges, system.family)
        strict, metric = entry["strict"], entry["primary"]
        lines[name] = {
            "metric": metric, "value": strict.get(metric), "ci95": strict["ci95"], "n": entry["n"],
            "n_failed": entry["n_failed"],
        }  # fmt: skip
    return lines
