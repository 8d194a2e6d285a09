"""CPU counts from affinity and fake cgroup trees, instruction sets from recorded /proc/cpuinfo texts."""

import math
import os
import platform
import random
import subprocess
import sys
from pathlib import Path

import pytest

from raskrank import cpu

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
OTHER_MOUNTS = (
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
)
MALFORMED = (
    *("", "\n", "max", "100000", "100000 0\n", "0 100000\n", "-1 100000\n", "-1 -100000\n", "x y\n", "1 2 3\n", "\0"),
    *("\udcff", "9" * 400 + " 1\n", "9" * 5000 + " 1\n", "1 " + "9" * 400),
)


def tree(root: Path, files: dict[str, str]) -> Path:
    """Writes the files, by path below `root`, and returns `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(text))
    return root


def v1(folder: str, quota: str, period: str = "100000\n") -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}


def v2_tree(root: Path, own: str, quotas: dict[str, str], mounts: str = OTHER_MOUNTS + V2_MOUNT) -> Path:
    files = {f"sys/fs/cgroup/{folder}/cpu.max": text for folder, text in quotas.items()}
    return tree(root, {"proc/self/cgroup": f"0::{own}\n", "proc/self/mountinfo": mounts, **files})


def v1_tree(root: Path, own: str, quotas: dict[str, str], mounts: str = OTHER_MOUNTS + V1_MOUNT) -> Path:
    cgroup = f"9:name=systemd:/elsewhere\n3:cpuset:/elsewhere\n1:cpu,cpuacct:{own}\n5:cpuset:/elsewhere\n0::/elsewhere\n"
    root = tree(root, {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mounts})
    for folder, quota in quotas.items():
        tree(root, v1(f"sys/fs/cgroup/cpu,cpuacct/{folder}", quota))
    return root


@pytest.mark.parametrize(
    ("own", "quotas", "expected"),
    [
        pytest.param("/app", {"app": "150000 100000\n"}, 1.5, id="own"),
        pytest.param("/a/b/c", {"a": "200000 100000\n", "a/b": "max 100000\n", "a/b/c": "max 100000\n"}, 2.0, id="parent"),
        pytest.param("/a/b", {"a": "400000 100000\n", "a/b": "50000 100000\n"}, 0.5, id="tightest is own"),
        pytest.param("/a/b", {".": "25000 100000\n", "a": "50000 100000\n", "a/b": "max 100000\n"}, 0.25, id="mount"),
        pytest.param("/a", {"a": "max 100000\n", "b": "50000 100000\n"}, None, id="a sibling's does not count"),
        pytest.param("/", {".": "300000 100000\n"}, 3.0, id="namespace root"),
        pytest.param("/a", {"a": "max 100000\n"}, None, id="max"),
        pytest.param("/a", {"a/cgroup.procs": ""}, None, id="no cpu.max"),
        pytest.param("/docker/0123", {".": "70000 20000\n"}, 3.5, id="path of the host"),
        pytest.param("/docker/0123", {".": "max 100000\n", "docker": "10000 100000\n"}, None, id="a child's does not count"),
        pytest.param("/../../b", {".": "200000 100000\n", "b": "10000 100000\n"}, 2.0, id="outside the namespace"),
        pytest.param("/../b", {".": "200000 100000\n", "../b": "10000 100000\n"}, 2.0, id="above the mount"),
        pytest.param("/a:b/ø c", {"a:b/ø c": "200000 100000\n"}, 2.0, id="odd names"),
        pytest.param("/gone (deleted)", {".": "200000 100000\n"}, 2.0, id="deleted"),
        *(pytest.param("/a", {"a": text, ".": "900000 100000\n"}, 9.0, id=f"malformed {text[:9]!a}") for text in MALFORMED),
    ],
)
def test_v2_quota(tmp_path: Path, own: str, quotas: dict[str, str], expected: float | None) -> None:
    assert cpu.cgroup_quota(root=v2_tree(tmp_path, own, quotas)) == expected


@pytest.mark.parametrize(
    ("own", "quotas", "expected"),
    [
        pytest.param("/app", {"app": "150000\n"}, 1.5, id="own"),
        pytest.param("/a/b", {".": "-1\n", "a": "200000\n", "a/b": "-1\n"}, 2.0, id="parent"),
        pytest.param("/a/b", {".": "-1\n", "a": "200000\n", "a/b": "100000\n"}, 1.0, id="tightest is own"),
        pytest.param("/a", {".": "-1\n", "a": "-1\n"}, None, id="unlimited"),
        pytest.param("/elsewhere/a", {"elsewhere": "-1\n", ".": "100000\n"}, 1.0, id="path of the host"),
        pytest.param("/a", {"a": "no number\n", ".": "100000\n"}, 1.0, id="malformed"),
        pytest.param("/a", {}, None, id="no files"),
    ],
)
def test_v1_quota(tmp_path: Path, own: str, quotas: dict[str, str], expected: float | None) -> None:
    assert cpu.cgroup_quota(root=v1_tree(tmp_path, own, quotas)) == expected


def test_v1_period_is_read_and_not_assumed(tmp_path: Path) -> None:
    root = v1_tree(tmp_path, "/a", {"a": "50000\n"})
    folder = root / "sys/fs/cgroup/cpu,cpuacct/a"
    (folder / "cpu.cfs_period_us").write_text("20000\n")
    assert cpu.cgroup_quota(root=root) == 2.5
    (folder / "cpu.cfs_period_us").unlink()
    assert cpu.cgroup_quota(root=root) is None


@pytest.mark.parametrize(("own_v1", "own_v2", "expected"), [("100000\n", "max 100000\n", 1.0), ("-1\n", "50000 100000\n", 0.5)])
def test_hybrid_takes_the_tighter_hierarchy(tmp_path: Path, own_v1: str, own_v2: str, expected: float) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "2:cpu,cpuacct:/job\n1:name=systemd:/user\n0::/user/job\n",
            "proc/self/mountinfo": V1_MOUNT + V2_MOUNT.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            "sys/fs/cgroup/unified/user/job/cpu.max": own_v2,
            **v1("sys/fs/cgroup/cpu,cpuacct/job", own_v1),
        },
    )
    assert cpu.cgroup_quota(root=root) == expected


@pytest.mark.parametrize("own", ["/kube/pod/app", "/kube/pod", "/other"])
def test_mount_of_a_part_of_the_hierarchy(tmp_path: Path, own: str) -> None:
    # A container without a cgroup namespace: the host's path, and a mount that shows only what is below /kube/pod.
    mount = V2_MOUNT.replace("0:26 / ", "0:26 /kube/pod ")
    root = v2_tree(tmp_path, own, {".": "300000 100000\n", "app": "100000 100000\n"}, mount)
    assert cpu.cgroup_quota(root=root) == (1.0 if own == "/kube/pod/app" else 3.0)


def test_mount_whose_name_merely_begins_alike(tmp_path: Path) -> None:
    mount = V2_MOUNT.replace("0:26 / ", "0:26 /pod ")
    root = v2_tree(tmp_path, "/pod2", {".": "300000 100000\n", "2": "100000 100000\n"}, mount)
    assert cpu.cgroup_quota(root=root) == 3.0


@pytest.mark.parametrize(("top", "folder"), [("/", "a"), ("/a", ".")])
def test_a_mount_that_shows_the_process_beats_one_that_does_not(tmp_path: Path, top: str, folder: str) -> None:
    foreign = "40 23 0:26 /other /mnt/other rw - cgroup2 cgroup2 rw\n"
    mounts = foreign + V2_MOUNT.replace("0:26 / ", f"0:26 {top} ")
    root = v2_tree(tmp_path, "/a", {folder: "200000 100000\n"}, mounts)
    assert cpu.cgroup_quota(root=tree(root, {"mnt/other/cpu.max": "50000 100000\n"})) == 2.0


def test_mount_point_with_an_escaped_space(tmp_path: Path) -> None:
    mount = V2_MOUNT.replace("/sys/fs/cgroup ", "/my\\040cgroups ")
    root = v2_tree(tmp_path, "/a", {}, mount)
    assert cpu.cgroup_quota(root=tree(root, {"my cgroups/a/cpu.max": "200000 100000\n"})) == 2.0


def test_usual_mount_points_without_mountinfo(tmp_path: Path) -> None:
    unified = {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n"}
    assert cpu.cgroup_quota(root=tree(tmp_path / "v2", unified)) == 2.0
    hybrid = {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/unified/a/cpu.max": "200000 100000\n"}
    assert cpu.cgroup_quota(root=tree(tmp_path / "hybrid", hybrid)) == 2.0
    for name in ("cpu", "cpu,cpuacct"):
        legacy = {"proc/self/cgroup": "1:cpu:/a\n", **v1(f"sys/fs/cgroup/{name}/a", "200000\n")}
        assert cpu.cgroup_quota(root=tree(tmp_path / name, legacy)) == 2.0


def test_a_mount_of_other_controllers_does_not_hide_the_usual_mount_points(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "1:cpu:/a\n2:cpuset:/b\n", "proc/self/mountinfo": OTHER_MOUNTS}
    assert cpu.cgroup_quota(root=tree(tmp_path, {**files, **v1("sys/fs/cgroup/cpu/a", "200000\n")})) == 2.0


def test_no_proc_self_cgroup_means_the_mounts_own_folder(tmp_path: Path) -> None:
    assert cpu.cgroup_quota(root=tree(tmp_path, {"sys/fs/cgroup/cpu.max": "200000 100000\n"})) == 2.0


def test_nothing_there(tmp_path: Path) -> None:
    assert cpu.cgroup_quota(root=tmp_path) is None
    assert cpu.cgroup_quota(root=tmp_path / "absent") is None


def test_garbage_never_raises(tmp_path: Path) -> None:
    noise = random.Random(7)
    words = [
        "0::",
        ":cpu:",
        "/",
        "..",
        "\0",
        "\n",
        " - ",
        "cgroup",
        "cgroup2 x rw,cpu",
        " ",
        "\\040",
        "\\777",
        "\udcff",
        "é",
    ]
    for _ in range(300):
        texts = ["".join(noise.choices(words, k=noise.randrange(12))) for _ in range(3)]
        names = ("proc/self/cgroup", "proc/self/mountinfo", "sys/fs/cgroup/cpu.max")
        assert cpu.cgroup_quota(root=tree(tmp_path, dict(zip(names, texts, strict=True)))) is None


def test_path_too_long_for_the_system_is_as_absent(tmp_path: Path) -> None:
    root = v2_tree(tmp_path, "/" + "a" * 300, {".": "200000 100000\n"})
    assert cpu.cgroup_quota(root=root) == 2.0


def test_this_machine_has_a_sane_quota() -> None:
    quota = cpu.cgroup_quota()
    assert quota is None or 0 < quota < math.inf


def available() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("1000 100000", 1), ("100000 100000", 1), ("100001 100000", 2), ("99900000 100000", None), ("max 100000", None)],
)
def test_usable_cpus_rounds_the_quota_up(tmp_path: Path, quota: str, expected: int | None) -> None:
    root = v2_tree(tmp_path, "/a", {"a": quota})
    assert cpu.usable_cpus(root=root) == min(available(), expected or available())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs os.sched_setaffinity")
def test_affinity_bounds_usable_cpus() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    script = (
        "import os, sys; from raskrank import cpu; from pathlib import Path\n"
        "os.sched_setaffinity(0, {int(c) for c in sys.argv[1:]}); print(cpu.usable_cpus(root=Path('/nowhere')))"
    )
    for count in {1, len(allowed)}:
        command = [sys.executable, "-c", script, *map(str, allowed[-count:])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
        assert int(run.stdout) == count


# Recorded from machines; long lists of flags that do not matter are cut.
ZEN_4 = """processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD EPYC 9654 96-Core Processor
flags		: fpu sse4_2 fma avx f16c avx2 avx512f avx512dq avx512bw avx512vl avx512_bf16 avx512_vnni avx512_bitalg
bugs		: sysret_ss_attrs spectre_v1

processor	: 1
vendor_id	: AuthenticAMD
model name	: AMD EPYC 9654 96-Core Processor
flags		: fpu sse4_2 fma avx f16c avx2 avx512f avx512dq avx512bw avx512vl avx512_bf16 avx512_vnni avx512_bitalg
bugs		: sysret_ss_attrs spectre_v1
"""
ZEN_2 = "model name	: AMD EPYC 7502 32-Core Processor\nflags		: fpu sse4_2 fma avx f16c avx2 bmi2\n"
SKYLAKE_SP = "model name	: Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz\nflags		: fpu avx avx2 avx512f avx512bw\n"
SAPPHIRE_RAPIDS = (
    "model name	: Intel(R) Xeon(R) Platinum 8488C\n"
    "flags		: fpu avx avx2 avx512f avx_vnni avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8\n"
    "vmx flags	: vnmi preemption_timer\n"
)
ALDER_LAKE = "model name	: 12th Gen Intel(R) Core(TM) i7-12700K\nflags		: fpu avx f16c avx2 avx_vnni\n"
NEHALEM = "model name	: Intel(R) Xeon(R) CPU           X5570  @ 2.93GHz\nflags		: fpu sse4_1 sse4_2 popcnt\n"
GRAVITON_3 = """processor	: 0
BogoMIPS	: 2100.00
Features	: fp asimd evtstrm aes pmull asimdhp cpuid asimdrdm asimddp sve svei8mm svebf16 i8mm bf16
CPU implementer	: 0x41
CPU part	: 0xd40
"""
RASPBERRY_PI_4 = "Features	: fp asimd evtstrm crc32 cpuid\nCPU part	: 0xd08\n\nModel		: Raspberry Pi 4 Model B\n"


@pytest.mark.parametrize(
    ("text", "sets", "saturating"),
    [
        pytest.param(ZEN_4, ("avx2", "avx512f", "avx512_vnni"), False, id="zen 4"),
        pytest.param(ZEN_2, ("avx2",), True, id="zen 2"),
        pytest.param(SKYLAKE_SP, ("avx2", "avx512f"), True, id="skylake-sp"),
        pytest.param(SAPPHIRE_RAPIDS, ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"), False, id="sapphire rapids"),
        pytest.param(ALDER_LAKE, ("avx2", "avx_vnni"), False, id="alder lake"),
        pytest.param(NEHALEM, (), True, id="nehalem"),
        pytest.param(GRAVITON_3, ("asimd", "asimddp", "i8mm", "sve"), False, id="graviton 3"),
        pytest.param(RASPBERRY_PI_4, ("asimd",), False, id="raspberry pi 4"),
        pytest.param("", (), True, id="empty"),
        pytest.param("flags\nflags :\n: avx2\nno colon avx2\n", (), True, id="garbage"),
        pytest.param("flags: avx2 avx_vnni\n\nflags: avx2\n", ("avx2",), True, id="cores that differ"),
        pytest.param("vmx flags: avx2\nvmx Features: asimd\n", (), True, id="another key"),
        pytest.param("flags: not_avx2 avx2x avx512_vnni2\n", (), True, id="only whole names"),
    ],
)
def test_instruction_sets(text: str, sets: tuple[str, ...], saturating: bool) -> None:
    assert cpu.instruction_sets(cpuinfo=text) == sets
    assert cpu.saturates(sets) is saturating


@pytest.mark.parametrize("exact", ["avx512_vnni", "avx_vnni", "amx_int8"])
def test_each_wide_product_alone_prevents_saturation(exact: str) -> None:
    assert not cpu.saturates(("avx2", "avx512f", exact))


@pytest.mark.parametrize(
    ("system", "machine", "sets"),
    [
        ("Darwin", "arm64", ("asimd", "asimddp")),
        ("Darwin", "x86_64", ()),
        ("Windows", "ARM64", ("asimd",)),
        ("Windows", "AMD64", ()),
        ("Linux", "aarch64", ("asimd",)),
    ],
)
def test_without_proc_cpuinfo_the_machines_kind_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, machine: str, sets: tuple[str, ...]
) -> None:
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "absent")
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert cpu.instruction_sets() == sets
    assert cpu.model_name() == machine


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs /proc/cpuinfo")
def test_this_machine_is_read_from_proc() -> None:
    text = Path("/proc/cpuinfo").read_text()
    assert cpu.instruction_sets() == cpu.instruction_sets(cpuinfo=text)
    assert cpu.model_name() == cpu.model_name(cpuinfo=text)
    assert set(cpu.instruction_sets()) <= set(cpu.INT8_SETS) & set(text.split())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (ZEN_4, "AMD EPYC 9654 96-Core Processor"),
        (SAPPHIRE_RAPIDS, "Intel(R) Xeon(R) Platinum 8488C"),
        ("model name	:\nmodel name	: Second\n", "Second"),
        (GRAVITON_3, platform.machine()),
        ("", platform.machine()),
    ],
)
def test_model_name(text: str, name: str) -> None:
    assert cpu.model_name(cpuinfo=text) == name


def test_model_name_is_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "")
    assert cpu.model_name(cpuinfo="") == "unknown"
