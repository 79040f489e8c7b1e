"""A real Slurm cluster of several nodes on one Debian machine: slurmctld, munge, and a slurmd in namespaces for each.

Nothing is simulated but the number of machines: a node has its own address, host name, process table, `/dev/shm` and
`/tmp`; the rest is shared, as on a cluster with a parallel file system. It needs root, installs Debian's packages where
they are missing, touches no file outside its own folder, and ends only what it started. The one decision: clients find
it by `SLURM_CONF`, so that a Slurm which this machine may have is left alone.

    python -m tests.cluster.box --nodes 2       # one to play with: prints what to export, lives until Ctrl-C
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Self

from tests.cluster.slurm_conf import slurm_conf

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "iproute2")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip")
LOCK = Path(tempfile.gettempdir()) / "ecellm-slurm-box.lock"
ROOT = Path(__file__).resolve().parents[2]
UP_S = 60.0
# PID 1 of a node reaps orphans; when it ends, so does all in the node.
NODE = """
name=$1 box=$2 size=$3; shift 3
hostname "$name"
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /mnt
for place in "$@"; do mkdir -p "/mnt$place" && mount --bind "$place" "/mnt$place"; done
mount -t tmpfs -o size="$size" tmpfs /tmp && chmod 1777 /tmp
for place in "$@"; do mkdir -p "$place" && mount --bind "/mnt$place" "$place"; done
umount --recursive --lazy /mnt
mount --bind "$box/hosts" /etc/hosts
slurmd -D -f "$box/slurm.conf" -N "$name" & wait $!
"""


class NoSlurm(Exception):
    """This machine cannot hold the box, and why."""


class SlurmBox:
    """Nodes n1, n2, …; use it as a context.

    Args:
        folder: where everything lies, and what all nodes see as the same; jobs and their output belong in here.
        nodes: how many.
        cpus: CPUs that each node claims, which may be more than the machine's.
        gpus: GPUs that each node claims; they are device files without a GPU.
        tmp: size of a node's own `/tmp`, as mount takes it.

    Raises:
        NoSlurm: not root, no packages, no namespaces, or the daemons do not come up.
    """

    def __init__(self, folder: Path, *, nodes: int = 2, cpus: int = 2, gpus: int = 0, tmp: str = "4g") -> None:
        self.folder, self.cpus, self.gpus, self.tmp = folder.resolve(), cpus, gpus, tmp
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.tag = f"{os.getpid() % 0xFFFF:04x}"
        self.net = f"10.{78 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        self.env = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        if os.geteuid():
            raise NoSlurm("a Slurm in a box needs root")
        self._lock = LOCK.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # one at a time: cgroups are named after the nodes
        try:
            install(self.folder / "log")
            sweep()
            self._prepare()
            self._network()
            self._launch("munged", *self._munge())
            _until(lambda: (self.folder / "munge/socket").exists(), "munged does not answer", self._log("munged"))
            self._launch("slurmctld", "slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
            for node in self.nodes:
                self.start(node)
            _until(lambda: self.up() == set(self.nodes), "nodes do not come up", self._log("slurmctld"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in [*self.nodes, "slurmctld", "munged"]:
            self._end(name, signal.SIGKILL if name in self.nodes else signal.SIGTERM)
        for node in self.nodes:
            _quietly("ip", "netns", "del", f"ec{self.tag}-{node}")
        _quietly("ip", "link", "del", f"ec{self.tag}")
        for left in Path("/sys/fs/cgroup").glob("*/slurm_n[0-9]*"):
            _quietly("find", str(left), "-depth", "-type", "d", "-exec", "rmdir", "{}", "+")
        if self._lock:
            self._lock.close()

    def start(self, node: str) -> None:
        """Switch a node on."""
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        (self.folder / "spool" / node).mkdir(parents=True, exist_ok=True)
        # Also seen from inside where they lie under /tmp, which each node has for itself.
        same = [str(place) for place in (self.folder, ROOT, Path(sys.prefix)) if place.is_relative_to("/tmp")]
        self._launch(
            node, "nsenter", f"--net=/run/netns/ec{self.tag}-{node}", "unshare", *spaces, "bash", "-c", NODE,
            "slurm-node", node, str(self.folder), self.tmp, *same,
        )  # fmt: skip

    def kill(self, node: str) -> None:
        """A node loses power: all in it is gone at once."""
        self._end(node, signal.SIGKILL)

    def enter(self, node: str) -> list[str]:
        """What comes before a command so that it runs inside a node, outside any job."""
        children = ["pgrep", "-P", str(self._daemons[node].pid)]
        inner = subprocess.run(children, capture_output=True, text=True, check=True)
        return ["nsenter", "-t", inner.stdout.split()[0], "--net", "--mount", "--uts", "--ipc", "--pid"]

    def within(self, node: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside a node."""
        return subprocess.run([*self.enter(node), *words], capture_output=True, text=True, check=False, env=self.env)

    def up(self) -> set[str]:
        """Nodes that Slurm can use now."""
        said = self.run("sinfo", "-hN", "-o", "%N %T").stdout
        good = ("idle", "mixed", "allocated", "completing")
        return {
            line.split()[0] for line in said.splitlines() if line.split()[1].rstrip("*") in good and "*" not in line
        }

    def run(self, *words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """A Slurm command as a user gives it."""
        return subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=60, env=self.env | env, cwd=cwd or self.folder
        )

    def _prepare(self) -> None:
        for name in ("log", "state", "munge", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "munge").chmod(0o711)
        key = self.folder / "munge/key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        hosts = [f"{self.net}.1 {os.uname().nodename}", *(f"{self.address(node)} {node}" for node in self.nodes)]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))
        for name, text in slurm_conf(self).items():
            (self.folder / name).write_text(text)
        (self.folder / "epilog").chmod(0o755)
        for number in range(self.gpus):
            device = self.folder / f"gpu{number}"
            if not device.exists():
                os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))

    def address(self, node: str) -> str:
        """A node's IPv4 address."""
        return f"{self.net}.{10 + self.nodes.index(node) + 1}"

    def _network(self) -> None:
        bridge = f"ec{self.tag}"
        steps = [["link", "add", bridge, "type", "bridge"], ["addr", "add", f"{self.net}.1/24", "dev", bridge],
                 ["link", "set", bridge, "up"]]  # fmt: skip
        for node in self.nodes:
            space, outer = f"{bridge}-{node}", f"{bridge}{node}"
            steps += [
                ["netns", "add", space],
                ["link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space],
                ["link", "set", outer, "master", bridge, "up"], ["-n", space, "link", "set", "lo", "up"],
                ["-n", space, "link", "set", "eth0", "up"],
                ["-n", space, "addr", "add", f"{self.address(node)}/24", "dev", "eth0"],
            ]  # fmt: skip
        for step in steps:
            done = subprocess.run(["ip", *step], capture_output=True, text=True, check=False)
            if done.returncode:
                raise NoSlurm(f"no network namespaces: ip {' '.join(step)}: {done.stderr.strip()}")

    def _munge(self) -> list[str]:
        at = self.folder / "munge"
        files = [f"--{name}-file={at / name}" for name in ("key", "pid", "seed", "log")]
        # Forced: the folder may be closed to others, and who is in here is root.
        return ["munged", "-F", "--force", f"--socket={at / 'socket'}", *files]

    def _log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.out"

    def _launch(self, name: str, *words: str) -> None:
        with self._log(name).open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *words],  # they go with this process, however it ends
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=self.env,
            )  # fmt: skip

    def _end(self, name: str, number: signal.Signals) -> None:
        daemon = self._daemons.pop(name, None)
        if daemon is None:
            return
        daemon.send_signal(number)
        try:
            daemon.wait(8)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def sweep() -> None:
    """Remove the networks of boxes whose process was killed; the lock says that no other box is up."""
    said = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    names = {line.split()[0] for line in said.splitlines() if re.match(r"ec[0-9a-f]{4}-n\d", line)}
    for name in names:
        _quietly("ip", "netns", "del", name)
    for bridge in {name.partition("-")[0] for name in names}:
        _quietly("ip", "link", "del", bridge)


def install(logs: Path) -> None:
    """Debian's packages, where a program is missing; no service is started. Raises NoSlurm."""
    if all(shutil.which(program) for program in PROGRAMS):
        return
    if not shutil.which("apt-get"):
        raise NoSlurm("no Slurm, and no apt-get to install it with")
    logs.mkdir(parents=True, exist_ok=True)
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    get = ["apt-get", "-qy", "-o", "DPkg::Lock::Timeout=120"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        with (logs / "apt.log").open("ab") as log:
            for words in ([*get, "update"], [*get, "install", "--no-install-recommends", *PACKAGES]):
                subprocess.run(words, env=env, stdout=log, stderr=log, check=False, timeout=300)
    finally:
        if ours:
            policy.unlink()
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        raise NoSlurm(f"apt-get could not install {', '.join(missing)}: see {logs / 'apt.log'}")


def _until(true: object, trouble: str, log: Path) -> None:
    deadline = time.monotonic() + UP_S
    while not true():  # type: ignore[operator]
        if time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise NoSlurm(f"{trouble} for {UP_S:.0f} s\n{tail}")
        time.sleep(0.1)


def _quietly(*words: str) -> None:
    subprocess.run(words, capture_output=True, check=False)


def main() -> None:
    """A box to play with."""
    parser = argparse.ArgumentParser(description="A Slurm cluster on this machine, until Ctrl-C.")
    for name, default in (("nodes", 2), ("cpus", 2), ("gpus", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with (
        tempfile.TemporaryDirectory(prefix="ecbox-") as folder,
        SlurmBox(Path(folder), nodes=asked.nodes, cpus=asked.cpus, gpus=asked.gpus) as box,
    ):
        print(f"export SLURM_CONF={box.env['SLURM_CONF']}   # nodes {' '.join(box.nodes)}; end: Ctrl-C", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
