"""Cores for the actors of a cluster: how many each gets, and that they stay on a NUMA node."""

import os
import tempfile
from pathlib import Path

import pytest

from processes import run_script
from raskrank import cpu
from raskrank.bulk import cores


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        ([1], (1, 1)),
        ([2], (2, 1)),
        ([2, 2, 2], (2, 3)),
        ([8], (8, 1)),
        ([12], (6, 2)),
        ([13], (6, 2)),  # twelve of thirteen, rather than thirteen actors of one
        ([16, 16], (8, 4)),
        ([64], (8, 8)),
        ([4, 8], (4, 3)),
        ([2, 64], (8, 8)),
        ([96, 0], (8, 12)),
    ],
)
def test_the_cores_of_machines_are_shared_out(machines: list[int], expected: tuple[int, int]) -> None:
    assert cores.share(machines) == expected


def _nodes(root: Path, *lists: str) -> Path:
    for number, text in enumerate(lists):
        folder = root / "sys/devices/system/node" / f"node{number}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(text + "\n")
    return root


def test_a_node_has_the_cpus_that_are_allowed(tmp_path: Path) -> None:
    root = _nodes(tmp_path, "0-3,8-11", "4-7,12-15", "")
    assert cores.numa_nodes({*range(16)}, root=root) == [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]
    assert cores.numa_nodes({2, 3, 4}, root=root) == [[2, 3], [4]]
    assert cores.numa_nodes({2, 3}, root=root) == [[2, 3]]


def test_where_no_node_is_known_there_is_one(tmp_path: Path) -> None:
    assert cores.numa_nodes({1, 0}, root=tmp_path) == [[0, 1]]


def test_processes_share_the_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[list[int]] = []
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(cpu, "cgroup_quota", lambda: None)
    monkeypatch.setattr(cores, "numa_nodes", lambda _: [[0, 1, 2, 3], [4, 5]])
    monkeypatch.setattr(cores, "_pin", pinned.append)
    found = [cores.stay_on_a_node(2) for _ in range(4)]  # one process here, but locks are by file that was opened
    assert found == [*pinned, []]
    assert pinned == [[0, 1, 2, 3], [4, 5], [0, 1, 2, 3]]


def test_all_threads_of_a_process_are_kept_on_a_node(tmp_path: Path) -> None:
    source = """
    import os, threading, time
    from pathlib import Path
    from raskrank.bulk import cores
    stay = threading.Event()
    started = [threading.Thread(target=stay.wait) for _ in range(3)]
    [thread.start() for thread in started]
    cpu = max(os.sched_getaffinity(0))
    cores._pin([cpu])
    later = threading.Thread(target=lambda: print(os.sched_getaffinity(0) == {cpu}))
    later.start()
    later.join()
    tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    print(len(tasks) >= 4, {frozenset(os.sched_getaffinity(task)) for task in tasks} == {frozenset({cpu})})
    stay.set()
    """
    assert run_script(tmp_path, source).stdout == "True\nTrue True\n"


@pytest.mark.parametrize(("quota", "nodes"), [(8.0, [[0], [1]]), (None, [[0, 1]])], ids=["quota", "one node"])
def test_nobody_is_kept_on_a_node_without_need(
    quota: float | None, nodes: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.sched_getaffinity(0)
    monkeypatch.setattr(cpu, "cgroup_quota", lambda: quota)
    monkeypatch.setattr(cores, "numa_nodes", lambda _: nodes)
    assert cores.stay_on_a_node(1) == []
    assert os.sched_getaffinity(0) == before
