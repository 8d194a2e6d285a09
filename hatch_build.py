"""Builds the kernels of engine/kernels into the wheel, or into the source tree of an editable installation.

Where that is not possible the wheel is one of Python alone, and raskrank runs in onnxruntime: no install fails for want of a
compiler. RASKRANK_KERNELS=require makes it fail, for the wheels of a release; RASKRANK_KERNELS=skip leaves the kernels out.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "RASKRANK_KERNELS"
LIBRARY = "_kernels.so"  # on macOS too, where ctypes loads it by its path as well
CMAKE = "cmake>=3.18"
PROCESSES = 2  # compilers at a time: each takes some hundred megabytes
PROCESSORS = ("x86_64", "AMD64")
SYSTEMS = ("linux", "darwin")


class CannotBuild(Exception):
    """Why there are no kernels."""


class KernelsHook(BuildHookInterface[Any]):
    """Runs before a wheel is put together."""

    def dependencies(self) -> list[str]:
        """What an isolated build fetches: CMake, where there is something to build and no CMake."""
        try:
            _check_wanted()
            _check_machine()
        except CannotBuild:
            return []
        return [] if _cmake() else [CMAKE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        source, installed = Path(self.root, "engine", "kernels"), Path(self.root, "engine", "raskrank", LIBRARY)
        editable = version == "editable"
        try:
            _check_wanted()
            _check_machine()
            library = build(source, Path(self.root, "build", "kernels"))
            if editable:
                _replace(library, installed)
        except CannotBuild as reason:
            if os.environ.get(VARIABLE) == "require":
                raise
            if editable:
                installed.unlink(missing_ok=True)  # of other sources than these
            self.app.display_warning(f"raskrank is built without its kernels, and will run in onnxruntime: {reason}")
            return
        if not editable:
            build_data["force_include"][str(library)] = f"raskrank/{LIBRARY}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform()}"  # ctypes loads it: of no version of Python


def _check_wanted() -> None:
    wanted = os.environ.get(VARIABLE, "")
    if wanted == "skip":
        raise CannotBuild(f"{VARIABLE}=skip asks for that")
    if wanted not in ("", "require"):
        raise ValueError(f"{VARIABLE}: expected require, skip or nothing, got {wanted!r}")


def _check_machine() -> None:
    if sys.platform not in SYSTEMS or platform.machine() not in PROCESSORS or sys.maxsize < 1 << 32:
        raise CannotBuild(
            f"they are for 64-bit x86 processors on Linux and macOS, and this is {sys.platform} on {platform.machine()}"
        )
    named = shlex.split(os.environ.get("CXX", ""))[:1]
    if not any(map(shutil.which, named or ("c++", "g++", "clang++"))):
        raise CannotBuild(f"no C++ compiler is found ({named[0] if named else 'c++, g++ or clang++'})")


def _cmake() -> str | None:
    """On PATH, or beside the Python that builds, which need not be on it."""
    return shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))


def build(source: Path, folder: Path) -> Path:
    """The library, built in `folder`, where what has not changed since the last time is kept. Raises CannotBuild."""
    cmake = _cmake()
    if cmake is None:
        raise CannotBuild("cmake is not found")
    output = folder / "library"
    configure = [cmake, "-S", str(source), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release", f"-DKERNELS_OUTPUT={output}"]
    with _alone(folder.with_suffix(".lock")):
        try:
            _run(configure)
        except CannotBuild:  # perhaps for what is left there of another place or compiler
            shutil.rmtree(folder, ignore_errors=True)
            _run(configure)
        _run([cmake, "--build", str(folder), "--target", "_kernels", "--parallel", str(PROCESSES)])
    return output / LIBRARY


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """While others wait: environments that are set up at once build in one folder."""
    import fcntl  # not on Windows, where nothing is built

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise CannotBuild(f"{lock} cannot be written: {error.strerror or error}") from error
    with file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise CannotBuild(f"{command[0]}: {error.strerror or error}") from error
    if done.returncode:
        raise CannotBuild(f"{shlex.join(command)} failed:\n{done.stdout.strip()}")


def _replace(library: Path, target: Path) -> None:
    """In one step, so that a process that has the old one mapped keeps it."""
    new = target.with_suffix(f".{os.getpid()}")
    try:
        shutil.copyfile(library, new)
        new.replace(target)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise CannotBuild(f"{target} cannot be written: {error.strerror or error}") from error


def _platform() -> str:
    """As in a wheel's name. On macOS the version that was built for, and this processor alone."""
    if sys.platform != "darwin":
        return sysconfig.get_platform().replace("-", "_").replace(".", "_")
    oldest = os.environ.get("MACOSX_DEPLOYMENT_TARGET") or platform.mac_ver()[0]
    major, minor = [*map(int, oldest.split(".")), 0][:2]
    return f"macosx_{major}_{0 if major > 10 else minor}_x86_64"
