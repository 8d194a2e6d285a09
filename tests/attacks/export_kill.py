"""Exports killed at any moment, and on full disks: the bundle is the old one, the new one, or absent; the next one tidies up.

python tests/attacks/export_kill.py [--count N] [--seed S]

Real exports of a tiny checkpoint, each in a forked process. Half of the kills come at a change of the file system by Python
(each in its turn, or spread over them all), the others at a random moment. A full disk is a limit on the size of files, and as
root also a small tmpfs. Exits with 1 if a promise was broken.
"""

import ctypes
import gc
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import optimum.exporters.onnx
import torch
import transformers

from builders import tiny_checkpoint
from conftest import SAMPLES
from killing import Killing, attack
from raskrank.bundle import open_bundle
from raskrank.errors import ExportError
from raskrank.manifest import Precision
from raskrank_export import Thresholds, export
from raskrank_export.write import bundle_folder

LOADED = (optimum.exporters.onnx, torch, transformers)  # here, so that no child has to
LOOSE = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)  # seeded weights rank nothing
CHANGES = ("open", "mkdir", "rename", "unlink", "rmdir", "fsync")
DEADLINE = 120  # seconds that one export may take
DONE, REFUSED, BROKEN = 0, 3, 4  # exit codes of a child
FULL_EVERY = 10  # of so many kills, one export on a full disk
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


class ExportKill(Killing):
    """A checkpoint, a bundle of it, and how long an export takes and how often it changes the file system."""

    def __init__(self, root: Path, dice: random.Random, count: int) -> None:
        super().__init__(root, dice, count)
        self.numbers = iter(range(count))
        self.samples = root / "samples.jsonl"
        self.samples.write_text("".join(json.dumps(sample) + "\n" for sample in SAMPLES), "utf-8")
        torch.set_num_threads(1)  # OpenMP's threads do not live on in forked children
        tiny_checkpoint(root / "checkpoint")
        self.export(root / "old", "fp32")
        gc.freeze()  # no child collects anew what the exporter knows of operators, nor looks through it for garbage
        start = time.monotonic()
        self.child(lambda: (root / "steps").write_text(str(self.counted(root / "counted"))))
        self.seconds = time.monotonic() - start
        if self.failures:
            raise RuntimeError(f"no export works here: {self.failures[0]}")
        self.steps = int((root / "steps").read_text())
        self.old = open_bundle(root / "old").manifest_sha256

    def export(self, target: Path, precision: Precision = "int8") -> None:
        """The old bundle, in fp32, is another than the new ones."""
        checkpoint = str(self.root / "checkpoint")
        export(checkpoint, target, precision=precision, samples=self.samples, thresholds=LOOSE, overwrite=True)

    def counted(self, target: Path, kill_at: int = 0) -> int:
        """Export, counting changes of the file system; killed at the one of that number, if it is not 0."""
        done = 0

        def counting(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **options: Any) -> Any:
                nonlocal done
                done += 1
                if done == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return counted

        for name in CHANGES:
            setattr(os, name, counting(getattr(os, name)))
        self.export(target)
        return done

    def child(self, action: Callable[[], object], kill_after: float | None = None) -> int:
        """The exit status of a forked process that does it, killed after so many seconds. Anything unexpected ends this one."""
        output = (self.root / "output").open("w+b")
        process = os.fork()
        if not process:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os._exit(_outcome(action))
        start = time.monotonic()
        while not (found := os.waitpid(process, os.WNOHANG))[0]:
            passed = time.monotonic() - start
            if passed > (DEADLINE if kill_after is None else kill_after):
                os.kill(process, signal.SIGKILL)
                found = os.waitpid(process, 0)
                break
            time.sleep(0.002)
        with output:
            if os.WIFEXITED(found[1]) and os.WEXITSTATUS(found[1]) == BROKEN:
                output.seek(0)
                self.failures.append(output.read()[-2000:].decode(errors="replace"))
        return found[1]

    def title(self) -> str:
        return f"exports of {self.steps} changes to the file system and {self.seconds:.1f} s"

    def kill(self) -> str:
        """One export, over an old bundle or where none was; what it left."""
        number = next(self.numbers)
        base = self.fresh(f"killed-{number}", with_old=number % 2 == 0)
        target = base / "bundle"
        if number // 2 % 2:
            status = self.child(lambda: self.export(target), kill_after=self.dice.uniform(0, 1.1 * self.seconds))
        else:
            last = max((self.count - 1) // 4, 1)
            step = self.steps - (self.steps - 1) * (last - number // 4) // last
            status = self.child(lambda: self.counted(target, step))
        left = self.state(target, with_old=number % 2 == 0)
        ended = "killed" if os.WIFSIGNALED(status) else "done before"
        if ended == "done before" and left != "the new bundle":
            self.failures.append(f"export {number} was done and left {left}")
        self.tidied(base)
        return f"{ended}: {left}"

    def end(self) -> Counter[str]:
        """Exports on full disks."""
        kinds = {False: "with a limit on files"} | ({True: "in a small tmpfs"} if os.geteuid() == 0 else {})
        numbers = range(-(-self.count // FULL_EVERY))
        return Counter(f"{where}: {self.fill(number, tmpfs)}" for tmpfs, where in kinds.items() for number in numbers)

    def fill(self, number: int, tmpfs: bool) -> str:
        """One export that has too little room, or just enough; what came of it."""
        base, room = self.fresh(f"full-{number}", with_old=False), int(10 ** self.dice.uniform(3, 6.3))

        def limited() -> None:
            if tmpfs:
                _mount_tmpfs(base, room)
            else:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            try:
                self.export(base / "sub" / "bundle")
            except ExportError:
                if entries := sorted(path.name for path in base.iterdir()):
                    raise AssertionError(f"an export that failed left {entries}") from None
                raise
            open_bundle(base / "sub" / "bundle")

        status = self.child(limited)
        shutil.rmtree(base)
        return {DONE: "done", REFUSED: "an ExportError, and nothing left"}.get(os.waitstatus_to_exitcode(status), "broken")

    def fresh(self, name: str, *, with_old: bool) -> Path:
        base = self.root / name
        base.mkdir()
        if with_old:
            shutil.copytree(self.root / "old", base / "bundle")
        return base

    def state(self, target: Path, *, with_old: bool) -> str:
        """What lies at the target; a failure where that is neither whole nor absent."""
        if not target.exists():
            if with_old:
                self.failures.append(f"{target}: the old bundle is gone")
            return "no bundle"
        try:
            bundle = open_bundle(target)
        except Exception as error:  # noqa: BLE001  whatever it is, it is reported
            self.failures.append(f"{target}: {error!r}")
            return "a broken bundle"
        return "the old bundle" if bundle.manifest_sha256 == self.old else "the new bundle"

    def tidied(self, base: Path) -> None:
        with bundle_folder(base / "bundle", overwrite=True) as temp:  # as the next export begins
            shutil.copytree(self.root / "old", temp, dirs_exist_ok=True)
        if (entries := sorted(path.name for path in base.iterdir())) != ["bundle"]:
            self.failures.append(f"{base}: the next export left {entries}")
        shutil.rmtree(base)


def _outcome(action: Callable[[], object]) -> int:
    try:
        action()
    except ExportError:
        return REFUSED
    except BaseException:  # noqa: BLE001  a forked process ends here, whatever happens
        traceback.print_exc()
        sys.stderr.flush()
        return BROKEN
    return DONE


def _mount_tmpfs(folder: Path, size: int) -> None:
    """A small file system at `folder`, which this process alone sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    target, options = os.fsencode(folder), f"size={size}".encode()
    if (
        libc.unshare(CLONE_NEWNS)
        or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        or libc.mount(b"tmpfs", target, b"tmpfs", 0, options)
    ):
        raise OSError(ctypes.get_errno(), "no tmpfs could be mounted")


if __name__ == "__main__":
    sys.exit(attack(ExportKill, __doc__ or ""))
