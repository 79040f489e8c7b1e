"""Models of their own for each task, trained on the same rows: one Ray task each, all at once as the cluster has room.

The replies of a (system, task) are kept as soon as they are there, under a fingerprint of the rows and settings, so a
killed evaluation trains only what is missing. Models are not kept: they are cheap beside what they are compared with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ecellm.config.schema import Run
from ecellm.console import note
from ecellm.errors import ClusterError, EcellmError, Stopped
from ecellm.evaluate.rows import Groups
from ecellm.records import Row
from ecellm.rows import read_rows
from ecellm.session import ray_session
from ecellm.stage import fingerprint
from ecellm.storage.base import Storage
from ecellm.tasks.registry import task

TRAINED = ("tfidf", "encoder", "recommender")
KEPT = "answers"
Job = tuple[str, str]
"""(system, task id)."""


def train_all(
    run: Run, storage: Storage, groups: Groups, stopping: Callable[[], bool] = lambda: False
) -> dict[str, dict[tuple[str, str], list[str]]]:
    """{system: {(setting, task id): one reply for each row}}; tasks that a system has no answer to are left out.

    Raises ConfigError, DataError, StorageError, and ClusterError where a worker is lost too often.
    """
    wanted = [name for name in run.evaluate.systems if name in TRAINED]
    if not wanted:
        return {}
    test = {name: [(setting, row) for (setting, of), rows in groups.items() if of == name for row in rows]
            for name in dict.fromkeys(name for _, name in groups)}  # fmt: skip
    jobs: list[Job] = [(system, name) for system in wanted for name in test if system != "recommender" or name == "SR"]
    keys: dict[Job, str] = {job: _key(run, storage, job, [row for _, row in test[job[1]]]) for job in jobs}
    found = {job: json.loads(storage.read(key)) for job, key in keys.items() if storage.exists(key)}
    missing = [job for job in jobs if job not in found]
    if missing:
        note(f"to train: {', '.join(f'{system} for {name}' for system, name in missing)}")
    for job, replies in _run_all(run, storage, missing, test, stopping):
        storage.write(keys[job], json.dumps(replies).encode())
        found[job] = replies
    by_system: dict[str, dict[tuple[str, str], list[str]]] = {}
    for (system, name), replies in found.items():
        for (setting, _), reply in zip(test[name], replies, strict=False):
            by_system.setdefault(system, {}).setdefault((setting, name), []).append(reply)
    return by_system


def _key(run: Run, storage: Storage, job: Job, rows: Sequence[Row]) -> str:
    """Where a job's replies are kept: by what they depend on."""
    system, name = job
    settings = {"encoder": run.evaluate.encoder, "recommender": run.evaluate.recommender}.get(system)
    train = [(row.id, row.output) for row in _known(run, storage, name)]
    made_from = fingerprint(
        "trained 1", system, name, settings, run.seed, train, [(row.id, row.setting) for row in rows],
        run.cluster.cpus_per_worker,
    )  # fmt: skip
    return f"{KEPT}/{system}/{name}-{made_from[:16]}.json"


def _known(run: Run, storage: Storage, name: str) -> list[Row]:
    return read_rows(storage, split="train", setting=f"IND_{run.prepare.setting}", task=task(name).name)


def train_one(run_json: str, job: Job, train: list[Row], test: list[Row]) -> list[str]:
    """What a worker does: train the system for one task and answer the test rows. Empty where it has no answer."""
    import torch

    run = Run.model_validate_json(run_json)
    torch.set_num_threads(run.cluster.cpus_per_worker)
    system, name = job
    of = task(name)
    if system == "encoder":
        import transformers

        from ecellm.baselines import encoder

        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        return encoder.answers(of, train, test, run.seed, run.evaluate.encoder)
    if system == "recommender":
        from ecellm.baselines import recommender

        return recommender.answers(of, train, test, run.seed, run.evaluate.recommender)
    from ecellm.baselines import tfidf

    return tfidf.answers(of, train, test, run.seed)


def _run_all(
    run: Run,
    storage: Storage,
    jobs: Sequence[Job],
    test: dict[str, list[tuple[str, Row]]],
    stopping: Callable[[], bool],
) -> Iterator[tuple[Job, list[str]]]:
    """Each job with its replies, in the order in which they are done."""
    if not jobs:
        return
    with ray_session(run, cpus=run.cluster.cpus_per_worker * max(run.evaluate.workers, run.cluster.workers)):
        import ray as imported

        ray: Any = imported
        needs: dict[str, Any] = {"num_cpus": run.cluster.cpus_per_worker, "max_retries": run.cluster.max_failures}
        work: Any = ray.remote(**needs)(train_one)
        run_json = run.model_dump_json()
        open_jobs = {
            work.remote(run_json, job, _known(run, storage, job[1]), [row for _, row in test[job[1]]]): job
            for job in jobs
        }
        while open_jobs:
            if stopping():
                raise Stopped("evaluation stopped on request", found="what was trained is kept",
                              mend="run the same command again")  # fmt: skip
            done, _ = ray.wait(list(open_jobs), num_returns=1, timeout=1.0)
            for reference in done:
                job = open_jobs.pop(reference)
                yield job, _result(ray, reference, job)


def _result(ray: Any, reference: Any, job: Job) -> list[str]:
    try:
        found: list[str] = ray.get(reference)
    except ray.exceptions.RayTaskError as fault:
        if isinstance(fault.cause, EcellmError):
            raise fault.cause from fault
        lines = str(fault).strip().splitlines()
        raise ClusterError(
            f"training {job[0]} for {job[1]} failed", found=lines[-1] if lines else "", mend="report this, please"
        ) from fault
    except ray.exceptions.RayError as fault:
        raise ClusterError(
            f"training {job[0]} for {job[1]} lost its worker again and again",
            found=str(fault).strip().partition("\n")[0], mend="give more memory, then run the same command again",
        ) from fault  # fmt: skip
    return found
