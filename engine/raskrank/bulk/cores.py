"""Cores for each of several processes on a machine: how many, and on which NUMA node."""

import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from raskrank import cpu

if sys.platform != "win32":
    import fcntl

# Threads of a process share chunks of 512 pairs, at whose end some wait for the last of them: the more, the longer. And eight
# fit on a NUMA node. Weights are mapped, so that more processes take little more memory.
MOST = 8
LEAST_USED = 0.9  # of the cores of all machines: larger groups are better than the last few cores


def share(machines: Sequence[int]) -> tuple[int, int]:
    """Cores of a process, and how many processes that makes on machines with so many cores each, which are not all 0.

    The most cores, up to MOST, with which at least LEAST_USED of what could be in use is.
    """
    used = {cores: sum(number // cores * cores for number in machines) for cores in range(1, MOST + 1)}
    cores = max(cores for cores in used if used[cores] >= LEAST_USED * max(used.values()))
    return cores, used[cores] // cores


def numa_nodes(allowed: set[int], *, root: Path = Path("/")) -> list[list[int]]:
    """Of the CPUs that are allowed those of each NUMA node, without the nodes that have none. One list where none is known."""
    found = []
    for node in sorted((root / "sys/devices/system/node").glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        try:
            text = (node / "cpulist").read_text("ascii")
        except (OSError, ValueError):
            continue
        if cpus := sorted(_cpus(text) & allowed):
            found.append(cpus)
    return found or [sorted(allowed)]


def stay_on_a_node(cores: int) -> list[int]:
    """Keep this process, one of several on its machine with so many cores each, on one NUMA node; returns that node's CPUs.

    [] and nothing is done where there is but one node; where a cgroup quota says that others have a share of these CPUs, who
    may choose the same; or where every node has as many such processes as it has cores for. A process holds its place for as
    long as it lives.
    """
    if sys.platform != "linux" or cpu.cgroup_quota() is not None:
        return []
    nodes = numa_nodes(os.sched_getaffinity(0))
    if len(nodes) == 1:
        return []
    for place in range(max(len(node) for node in nodes) // cores):
        for number, node in enumerate(nodes):
            if place < len(node) // cores and _held(f"{number}-{place}-{cores}"):
                _pin(node)
                return node
    return []


def _held(name: str) -> bool:
    """Takes a lock that ends with this process, unless another holds it."""
    folder = Path(tempfile.gettempdir(), f"raskrank-cores-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    return True  # the descriptor stays open, and so is not closed here


def _pin(cpus: Sequence[int]) -> None:
    """All threads of this process, and so those that they start."""
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cpus)
        except OSError:
            continue  # it has ended


def _cpus(text: str) -> set[int]:
    """Of a list such as "0-3,8"."""
    found = set[int]()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found |= {*range(int(first), int(last or first) + 1)}
    return found


def whole(cores: float) -> int:
    """Threads for a share of cores, which may be less than one."""
    return max(1, math.floor(cores))
