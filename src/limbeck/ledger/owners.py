"""Which process made a reservation, and whether it still lives.

A process number alone is not enough, since numbers are used again: an owner is written as
`boot/namespace/pid/start`, where `boot` changes with each start of the machine, `namespace` tells
containers apart and `start` is when the process began.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

ORDER = "human:"
"""How the owner of an order begins: people answer when they like, whatever becomes of processes."""
FOREIGN_LEASE_SECONDS = 3600
"""A process of another container cannot be looked at; its reservations are kept for this long."""


def this_process() -> str:
    """Name the running process."""
    return _name(os.getpid())


@functools.lru_cache(maxsize=1)
def _name(pid: int) -> str:
    boot, namespace = _place()
    return f"{boot}/{namespace}/{pid}/{_start(pid)}"


def is_alive(owner: str, age_seconds: float) -> bool:
    """Whether the process that `owner` names may still record answers.

    Args:
        owner: What `this_process` gave, perhaps in another process.
        age_seconds: How long ago it made its reservation.
    """
    if owner.startswith(ORDER):
        return True
    boot, namespace, pid, start = owner.split("/")
    here = _place()
    if boot != here[0]:
        # A WAL file is shared by processes of one machine only, so this one has restarted since.
        return False
    if namespace != here[1]:
        return age_seconds < FOREIGN_LEASE_SECONDS
    return start != "" and _start(int(pid)) == start


@functools.lru_cache(maxsize=1)
def _place() -> tuple[str, str]:
    """This start of the machine and this container; constants where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "machine", "0"


def _start(pid: int) -> str:
    """When a process began, or an empty string when there is none (zombies are dead)."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return ""
        # The second field is the command in parentheses and may itself hold spaces and ")".
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    told = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return told.stdout.strip().replace("/", "-")
