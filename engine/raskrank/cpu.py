"""What this process may use of its machine: how many CPUs, and which instructions for int8."""

import math
import os
import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

INT8_SETS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
# CPUs that a bundle is meant for. The int8 levels of "portable" overflow nowhere, those of "vnni" on x86 without VNNI and AMX.
Target = Literal["portable", "vnni"]
TARGETS: tuple[Target, ...] = get_args(Target)
_CPUINFO = Path("/proc/cpuinfo")
# These accumulate in 32 bits; every other x86 kernel adds two u8 x s8 products in 16 bits first.
_EXACT_SETS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimd"})


def usable_cpus(*, root: Path = Path("/")) -> int:
    """CPUs that this process may keep busy, at least 1: the smaller of its affinity and its cgroup quota, rounded up.

    `root` holds the /proc and /sys that the quota is read from.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(root=root)
    return cpus if quota is None else min(cpus, math.ceil(quota))


def cgroup_quota(*, root: Path = Path("/")) -> float | None:
    """CPU quota in cores, above 0, of the tightest cgroup around this process, v1 or v2; None where nothing limits it.

    What is missing or malformed does not count. Never raises.
    """
    v1, v2 = _own_paths(_read(root / "proc/self/cgroup"))
    mounts = list(_mounts(_read(root / "proc/self/mountinfo"), root))
    usual_v1 = [(root / "sys/fs/cgroup" / name, "/") for name in ("cpu", "cpu,cpuacct")]
    usual_v2 = [(root / "sys/fs/cgroup", "/"), (root / "sys/fs/cgroup/unified", "/")]
    v1_mounts = [(point, top) for kind, point, top in mounts if kind == "cgroup"] or usual_v1
    v2_mounts = [(point, top) for kind, point, top in mounts if kind == "cgroup2"] or usual_v2
    quotas = [_quota_v1(folder) for folder in _enclosing(v1_mounts, v1)]
    quotas += [_quota_v2(folder) for folder in _enclosing(v2_mounts, v2)]
    return min((quota for quota in quotas if quota is not None), default=None)


def instruction_sets(*, cpuinfo: str | None = None) -> tuple[str, ...]:
    """Those of `INT8_SETS` that every CPU of the machine has, in that order.

    `cpuinfo` is text in the format of Linux's /proc/cpuinfo; by default this machine's own. Where there is none, only
    what `platform.machine()` guarantees: () on x86.
    """
    text = _read(_CPUINFO) if cpuinfo is None else cpuinfo
    flags = [set(value.split()) for value in _values(text, "flags", "Features")]
    if flags:
        # Cores of one machine may differ, and a thread may run on any of them.
        found = set.intersection(*flags)
    elif cpuinfo is None and platform.machine().lower() in ("arm64", "aarch64"):
        # Every Apple CPU that runs arm64 macOS has dot products; ARMv8 in general has not.
        found = {"asimd", "asimddp"} if platform.system() == "Darwin" else {"asimd"}
    else:
        found = set()
    return tuple(name for name in INT8_SETS if name in found)


def saturates(sets: Iterable[str]) -> bool:
    """Whether int8 products u8 x s8 overflow on a CPU with these `instruction_sets()`: it cuts sums of two off at 16 bits.

    That is x86 without VNNI or AMX int8. No known set at all counts as an old x86.
    """
    return _EXACT_SETS.isdisjoint(sets)


def why_saturating() -> str:
    """What to say of this CPU where int8 products overflow on it."""
    if not instruction_sets():
        return f"whether this CPU ({model_name()}) has VNNI or AMX is not known; without them int8 products overflow"
    return f"this CPU ({model_name()}) has neither VNNI nor AMX, so that int8 products overflow"


def suits(target: str, sets: Iterable[str]) -> bool:
    """Whether int8 of a bundle for this target computes on a CPU with these `instruction_sets()` what it was made to."""
    return target != "vnni" or not saturates(sets)


def model_name(*, cpuinfo: str | None = None) -> str:
    """The CPU's name as its maker gives it ("AMD EPYC 9654 ..."), else `platform.machine()`; never empty."""
    text = _read(_CPUINFO) if cpuinfo is None else cpuinfo
    return next((name for name in _values(text, "model name") if name), platform.machine() or "unknown")


def _values(cpuinfo: str, *keys: str) -> Iterator[str]:
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() in keys:
            yield value.strip()


def _own_paths(text: str) -> tuple[str, str]:
    """This process's cgroup under v1's cpu controller and under v2, from lines "id:controllers:path"; else "/"."""
    v1 = v2 = "/"
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "cpu" in controllers.split(","):
            v1 = path
        elif number == "0" and not controllers:
            v2 = path
    return v1, v2


def _mounts(mountinfo: str, root: Path) -> Iterator[tuple[str, Path, str]]:
    """(type, mount point, cgroup mounted there) of each v2 mount and each v1 mount of the cpu controller."""
    for line in mountinfo.split("\n"):
        before, _, after = line.partition(" - ")
        fields, source = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(source) < 3:
            continue
        if source[0] == "cgroup2" or (source[0] == "cgroup" and "cpu" in source[2].split(",")):
            yield source[0], root / _unescape(fields[4]).lstrip("/"), _unescape(fields[3])


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _enclosing(mounts: list[tuple[Path, str]], path: str) -> list[Path]:
    """The folders of cgroup `path` and of its parents, up to each mount that shows it; else the mounts' own folders."""
    found: list[Path] = []
    for point, top in mounts:
        prefix = top.rstrip("/") + "/"
        if not (path.rstrip("/") + "/").startswith(prefix):
            continue
        # A namespace's "/.." is outside what is mounted.
        names = [name for name in path[len(prefix) :].split("/") if name]
        if ".." in names or not _is_folder(point.joinpath(*names)):
            continue
        found += [point.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)]
    return found or [point for point, _ in mounts]


def _quota_v1(folder: Path) -> float | None:
    return _cores(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return _cores(quota, period)


def _cores(quota: str, period: str) -> float | None:
    try:
        cores = int(quota) / int(period)
    except (ValueError, ArithmeticError):
        return None
    return cores if int(quota) > 0 and cores > 0 else None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _read(path: Path) -> str:
    """The file's text, "" where it cannot be read. Bytes that are no text in this locale survive for later paths."""
    try:
        return os.fsdecode(path.read_bytes())
    except (OSError, ValueError):
        return ""
