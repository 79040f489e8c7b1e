"""The configuration files of a Slurm in a box, as texts. Waits are shortened; what is shortened is said beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cluster.box import SlurmBox


def slurm_conf(box: SlurmBox) -> dict[str, str]:
    """File name to text: slurm.conf, cgroup.conf, gres.conf and the epilog."""
    at, host = box.folder, _host()
    gres = f"Gres=gpu:{box.gpus}" if box.gpus else ""
    nodes = "\n".join(
        f"NodeName={node} NodeAddr={box.address(node)} CPUs={box.cpus} RealMemory={_memory_mib()} {gres}".rstrip()
        for node in box.nodes
    )
    files = {
        "slurm.conf": f"""ClusterName=box
SlurmctldHost={host}({box.net}.1)
SlurmUser=root
AuthInfo=socket={at}/munge/socket,cred_expire=5
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/spool/%n
SlurmctldPidFile={at}/state/slurmctld.pid
SlurmdPidFile={at}/spool/%n/slurmd.pid
SlurmctldLogFile={at}/log/slurmctld.log
SlurmdLogFile={at}/log/slurmd.%n.log
JobCompType=jobcomp/filetxt
JobCompLoc={at}/log/jobcomp.txt
ProctrackType=proctrack/{"cgroup" if _cgroups() else "linuxproc"}
Epilog={at}/epilog
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
# cred_expire (holds back a requeued job), KillWait and SlurmdTimeout are 120, 30 and 300 s by default
KillWait=5
SlurmdTimeout=20
ReturnToService=2
GresTypes=gpu
SlurmdParameters=config_overrides
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
""",
        "cgroup.conf": "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n",
        "epilog": EPILOG,
    }
    if box.gpus:
        files["gres.conf"] = (
            f"Name=gpu File={at}/gpu[0-{box.gpus - 1}]\n" if box.gpus > 1 else f"Name=gpu File={at}/gpu0\n"
        )
    return files


EPILOG = """#!/bin/bash
# Without cgroups what a job detached would outlive it.
cd /proc && for p in [0-9]*; do
  [ "$p" = $$ ] || ! grep -szqx "SLURM_JOB_ID=$SLURM_JOB_ID" "$p/environ" || kill -9 "$p"
done 2>/dev/null
exit 0
"""


def _host() -> str:
    return os.uname().nodename.partition(".")[0]


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def _cgroups() -> bool:
    """Whether cgroups v1 with a freezer are there and may be written: they end what a step detaches."""
    probe = Path("/sys/fs/cgroup/freezer/ecellm-probe")
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True
