"""Ray for the length of one stage: join the cluster that there is, or start a small private one.

It ends only what it started. The one decision: authentication is on from before `ray` is first imported, because Ray's
ports are open to the network whatever address the node has, and a switch after the import has no effect.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from ecellm.config.schema import Run
from ecellm.errors import ClusterError
from ecellm.nodes import check_nodes

IDLE_MS = 30_000
"""Milliseconds after which a private Ray ends a worker that nothing asks for; a start costs some seconds of a CPU."""
OBJECT_STORE_BYTES = 200 * 2**20
"""Object store of a private Ray, in bytes. Blocks of rows and tokens are small, and what is too large is spilled."""


@contextmanager
def ray_session(run: Run, *, cpus: int) -> Iterator[None]:
    """Have Ray connected within the block.

    Args:
        run: names the cluster (`cluster.address`, else the environment's `RAY_ADDRESS`) and the threads of a worker.
        cpus: logical CPUs of a private Ray; a cluster that is joined keeps its own.

    Raises:
        ClusterError: the cluster cannot be reached, a node of it cannot run this code, or a private Ray does not start.
        StorageError: OUT is not one place for all nodes of the cluster.
    """
    address = cluster_address(run)
    know_token() if address else _authenticate()
    # What fails in Ray's C++ side comes back as an exception; its log lines would go into this terminal.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    folder = "" if address else tempfile.mkdtemp(prefix="ec", dir="/tmp")
    try:
        try:
            _connect(address, folder, cpus, run)
        except (ConnectionError, OSError, RuntimeError, TimeoutError, ValueError) as error:
            raise _unreachable(address, error) from error
        if address:
            check_nodes(run)
        # Ray prints a page about every lost worker on standard output, which is for data; stages tell of it themselves.
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def cluster_address(run: Run) -> str:
    """The cluster that a stage joins; empty: it starts a private Ray."""
    return run.cluster.address or os.environ.get("RAY_ADDRESS", "")


def draining_nodes() -> dict[str, int]:
    """Node id -> deadline in milliseconds since 1970 (0: none) of nodes that will be taken away: spot notices, drains.

    Asked of Ray's control service as Ray Train's own watcher asks; a Ray that has no such call tells of no drains, and
    lost nodes are noticed when they are lost.
    """
    import ray

    ask: Any = getattr(getattr(getattr(ray, "_private", None), "state", None), "state", None)
    if not hasattr(ask, "get_draining_nodes"):
        return {}
    found: dict[str, int] = ask.get_draining_nodes() or {}
    return found


def free_places(*, cpus: int, gpus: int, labels: Mapping[str, str] | None = None) -> int:
    """Workers of so many CPUs and GPUs that nodes of these labels have room for now, beside what runs there."""
    import ray

    ask: Any = getattr(getattr(ray, "_private", None), "state", None)
    if not hasattr(ask, "available_resources_per_node"):
        return 0
    leaving = set(draining_nodes())
    places = 0
    known = _labels() if labels else {}
    for node, free in ask.available_resources_per_node().items():
        if node not in leaving and fits(known.get(node, {}), labels or {}):
            places += _places(free, cpus, gpus)
    return places


def fits(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node of these labels is one of a selector, in Ray's words: `a`, `!a`, `in(a, b)`, `!in(a, b)`."""
    for key, wanted in selector.items():
        words = wanted.removeprefix("!").strip()
        any_of = words[3:-1].split(",") if words.startswith("in(") and words.endswith(")") else [words]
        if (labels.get(key) in [word.strip() for word in any_of]) == wanted.startswith("!"):
            return False
    return True


def _labels() -> dict[str, dict[str, str]]:
    import ray

    nodes: Any = ray.nodes  # Ray's own stubs leave it untyped
    return {node["NodeID"]: node["Labels"] for node in nodes() if node["Alive"]}


def staying_places(*, cpus: int, gpus: int, labels: Mapping[str, str] | None = None) -> int:
    """Workers of so many CPUs and GPUs that fit on nodes of these labels that stay, were these empty."""
    import ray

    nodes: Any = ray.nodes  # Ray's own stubs leave it untyped
    leaving = set(draining_nodes())
    places = 0
    for node in nodes():
        if node["Alive"] and node["NodeID"] not in leaving and fits(node["Labels"], labels or {}):
            places += _places(node["Resources"], cpus, gpus)
    return places


def _places(resources: dict[str, float], cpus: int, gpus: int) -> int:
    return int(min([resources.get("CPU", 0) // cpus] + ([resources.get("GPU", 0) // gpus] if gpus else [])))


def worker_environment(run: Run) -> dict[str, str]:
    """Environment of every Ray worker: its threads, and where this very code lies."""
    threads = str(run.cluster.cpus_per_worker)
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
    }


def quieten() -> None:
    """Runs in every Ray worker as it starts: what libraries say of themselves does not fill Ray's log files."""
    # It watches for a dashboard that small clusters do not have, and says so every second.
    logging.getLogger("ray.train.v2._internal.execution.controller.placement_group_cleaner").setLevel(logging.CRITICAL)
    for name in ("deepspeed", "DeepSpeed", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)


@contextmanager
def _without_level_line() -> Iterator[None]:
    """Standard error but for the line in which Ray says that its log level was set."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as heard:
        os.dup2(heard.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            heard.seek(0)
            for line in heard:
                if b"RAY_BACKEND_LOG_LEVEL" not in line:
                    os.write(2, line)


def know_token() -> None:
    """Before Ray is imported: a client with a token shows it. Left to itself Ray does not, and is refused."""
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if given or os.path.exists(os.path.expanduser("~/.ray/auth_token")):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _authenticate() -> None:
    # Ray makes a token in the home folder when it is left to itself, and other Rays of this user then trip over it.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def quiet_init(**words: Any) -> None:
    """`ray.init` without its talk. For the tools of clusters; stages use `ray_session`.

    Ray puts a handler of its own on SIGTERM, which leaves at once with code 15: a stage that saves would never hear.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    with _without_level_line():
        ray.init(logging_level=logging.WARNING, log_to_driver=False, **words)
    with contextlib.suppress(ValueError):  # not in the main thread, where Ray sets none either
        signal.signal(signal.SIGTERM, handler)


def _connect(address: str, folder: str, cpus: int, run: Run) -> None:
    # Workers speak to people through the driver (a board, answers, errors); the rest stays in Ray's own log files.
    environment: dict[str, Any] = {
        "env_vars": worker_environment(run), "worker_process_setup_hook": "ecellm.session.quieten",
    }  # fmt: skip
    if address:
        # Another machine has its own copy of the code, in its own place.
        environment["env_vars"].pop("PYTHONPATH")
        quiet_init(address=address, runtime_env=environment)
        return
    # Left to itself Ray ends idle workers above the number of CPUs after one second, and starts others a second later.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(IDLE_MS))
    quiet_init(
        num_cpus=cpus, runtime_env=environment, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=folder,
    )  # fmt: skip


def _unreachable(address: str, error: Exception) -> ClusterError:
    first = str(error).strip().splitlines()[:1]
    return ClusterError(
        f"cannot connect to Ray at {address}" if address else "a private Ray did not start",
        found=f"{type(error).__name__}: {first[0] if first else ''}",
        expected="a running head node" if address else "memory and a writable temporary folder",
        mend="check cluster.address, RAY_ADDRESS and RAY_AUTH_TOKEN" if address else "run: ecellm doctor",
    )
