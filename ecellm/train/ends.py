"""How a group of workers ended, as people are told it: the error, the attempt's end, its log."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from ecellm.config.schema import Run
from ecellm.errors import ClusterError, EcellmError
from ecellm.provenance import masked
from ecellm.storage.open import open_storage
from ecellm.train import attempts
from ecellm.train.board import Snapshot


def too_late(run: Run, snapshot: Snapshot, resources: Mapping[str, float]) -> ClusterError:
    """No workers came, or none came back; `resources` is what the cluster has."""
    there = {name: value for name, value in resources.items() if name in ("CPU", "GPU")}
    cluster = run.cluster
    return ClusterError(
        f"no workers for {cluster.startup_timeout_s} s" + (" after a failure" if snapshot.attempt else ""),
        found=", ".join(f"{value:g} {name}" for name, value in sorted(there.items())) + " in the cluster",
        expected=f"{cluster.workers} x ({cluster.cpus_per_worker} CPU, {cluster.gpus_per_worker} GPU) free",
        mend="add nodes, ask for fewer cluster.workers, or wait longer with cluster.startup_timeout_s",
    )


def cluster_error(error: BaseException, snapshot: Snapshot, log: str) -> EcellmError:
    """The workers' failure in our words: a storage error they named, else the rank and cause that came first."""
    if snapshot.errors:
        return snapshot.errors[min(snapshot.errors)]
    causes = {rank: line_of(cause) for rank, cause in getattr(error, "worker_failures", {}).items()}
    # When one worker dies the others lose their connection to it: that is not the cause.
    lost = ("closed by peer", "Connection reset", "timed out", "unhealthy")
    first = {rank: text for rank, text in causes.items() if not any(word in text for word in lost)} or causes
    found = "; ".join(f"worker {rank}: {text}" for rank, text in sorted(first.items())) or line_of(error)
    return ClusterError(
        f"training failed in attempt {snapshot.attempt} at step {snapshot.status.step}", found=found,
        expected="workers that live to the end",
        mend=f"run the same command to go on from the newest checkpoint ({log} has the tracebacks); "
        "raise cluster.max_failures to replace workers, lower train.micro_batch_size if memory ran out",
    )  # fmt: skip


def keep_log(run: Run, snapshot: Snapshot, error: BaseException) -> str:
    """The workers' tracebacks into OUT, since a private Ray takes its logs with it. Returns where they are."""
    close(run, snapshot, line_of(error))
    with contextlib.suppress(EcellmError):  # the failure itself is what people must see
        return attempts.keep_log(open_storage(run.out, run.storage), snapshot.attempt, f"{masked(str(error))}\n")
    return "no log"


def close(run: Run, snapshot: Snapshot, reason: str) -> None:
    """Say how an attempt ended, where one had begun; not being able to say so is no trouble of the run's."""
    with contextlib.suppress(EcellmError):
        if snapshot.attempt:
            attempts.close(open_storage(run.out, run.storage), snapshot.attempt, reason, step=snapshot.status.step)


def line_of(error: BaseException) -> str:
    """The last telling line of an error, which Ray wraps in a page of traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    died = [line for line in lines if "died" in line.lower() or "killed" in line.lower() or "SIGKILL" in line]
    text = (died or lines or [type(error).__name__])[-1]
    return text.partition(" Some common causes")[0][:300]
