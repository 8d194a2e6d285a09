"""kill -9 at each step of an export and at any moment, and full disks: the bundle is the old one, the new one or absent.

python tests/attacks/export_kill.py --count 200
"""

import argparse
import importlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import SAMPLES
from raskrank.bundle import open_bundle
from raskrank.errors import ExportError, RaskrankError
from raskrank_export import Thresholds, export

LOOSE = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)  # seeded weights rank nothing
LARGEST = 200_000  # bytes of the largest file of a tiny bundle, about
FULL_DISKS = 4  # one in so many attacks is a full disk instead of a kill
DONE, REFUSED = 0, 7
SLOW_TO_IMPORT = ("torch", "transformers", "optimum.exporters.onnx", "onnxruntime.transformers.optimizer")


class Killer:
    """Progress that ends this process at the n-th thing it hears."""

    def __init__(self, event: int) -> None:
        self.left = event

    def start(self, step: str, total: int | None) -> None:  # noqa: ARG002
        self._heard()

    def advance(self, units: int) -> None:  # noqa: ARG002
        self._heard()

    def finish(self, seconds: float) -> None:  # noqa: ARG002
        self._heard()

    def _heard(self) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def make_checkpoint(folder: Path) -> None:
    """In a process of its own: PyTorch's threads, once there, do not survive the forks below."""
    code = f"from builders import tiny_checkpoint; from pathlib import Path; tiny_checkpoint(Path({str(folder)!r}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def attack(root: Path, number: int, seeded: random.Random, slowest: float) -> str:
    """Attack one export in a child; what became of it."""
    pid = os.fork()
    if pid == 0:
        try:
            if number % FULL_DISKS == 0:
                size = seeded.randrange(LARGEST)
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            elif number % FULL_DISKS == 1:
                signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
                signal.setitimer(signal.ITIMER_REAL, seeded.uniform(0.01, slowest))
            event = number if number % FULL_DISKS > 1 else 0
            run(root, Killer(event))
            os._exit(DONE)
        except ExportError:
            os._exit(REFUSED)
        except BaseException as error:  # noqa: BLE001  told by the exit code
            print(f"{number}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {DONE: "done", REFUSED: "refused", -signal.SIGKILL: "killed"}.get(code, f"exit code {code}")


def run(root: Path, progress: Killer | None = None) -> None:
    samples = root / "samples.jsonl"
    export(
        str(root / "checkpoint"), root / "out" / "bundle", samples=samples, thresholds=LOOSE, overwrite=True, progress=progress
    )


def wrong(root: Path, before: bool) -> str | None:
    """What is not as it should be after an attack. before: there was a bundle."""
    target = root / "out" / "bundle"
    if not os.path.lexists(target):
        return "the old bundle is gone" if before else None
    try:
        open_bundle(target)
    except RaskrankError as error:
        return f"a bundle that is not whole: {error}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="exports to attack (default: 20)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    seeded, ends, faults = random.Random(arguments.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_checkpoint(root / "checkpoint")
        for module in SLOW_TO_IMPORT:  # once, and nothing of them is run before the forks
            importlib.import_module(module)
        (root / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in SAMPLES), "utf-8")
        for number in range(arguments.count):
            before = (root / "out" / "bundle").exists()
            end = attack(root, number, seeded, slowest=3.0)
            ends[end] += 1
            problem = wrong(root, before) or (end if end.startswith("exit code") else None)
            if problem:
                faults += 1
                print(f"attack {number}: {problem}")
        run(root)
        left = sorted(path.name for path in (root / "out").iterdir())
        if left != ["bundle"]:
            faults += 1
            print(f"left behind: {left}")
    print(f"{arguments.count} exports attacked: {dict(ends)}; faults: {faults}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
