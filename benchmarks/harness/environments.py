"""Peers do not all live together: each group has a virtual environment under build/bench/envs.

`benchmarks/environments/NAME.txt` pins what is in it.

    python -m benchmarks.harness.environments [NAME ...]    sets up what is missing or out of date; all of them by default

Where PyPI's torch brings gigabytes of CUDA: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.harness.models import WORK

REQUIREMENTS = Path(__file__).parents[1] / "environments"
FOLDER = WORK / "envs"
NAMES = tuple(sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))
DEADLINE = 1800  # seconds for pip; PyTorch alone is 200 MB


def python(name: str) -> Path:
    """The interpreter of an environment; "" is the one that runs this."""
    return FOLDER / name / "bin" / "python" if name else Path(sys.executable)


def problem(name: str) -> str | None:
    """Why an environment cannot be used, or None."""
    if not name or _ready(name):
        return None
    failed = FOLDER / f"{name}.failed"
    if failed.is_file():
        return f"environment {name} could not be set up: {failed.read_text('utf-8')}"
    return f"environment {name} is not set up: python -m benchmarks.harness.environments {name}"


def set_up(name: str) -> str | None:
    """Make an environment anew unless it is there with these very requirements. What went wrong, or None."""
    if _ready(name):
        return None
    folder, failed, requirements = FOLDER / name, FOLDER / f"{name}.failed", REQUIREMENTS / f"{name}.txt"
    shutil.rmtree(folder, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)
    pip = (str(python(name)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--requirement")
    for command in ((sys.executable, "-m", "venv", str(folder)), (*pip, str(requirements))):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
            error = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        except subprocess.TimeoutExpired:
            error = [f"not done after {DEADLINE} s"]
        if error:
            failed.write_text(error[0], "utf-8")
            return problem(name)
    _stamp(name).write_text(_digest(name), "ascii")
    return None


def _stamp(name: str) -> Path:
    return FOLDER / name / "requirements.sha256"


def _digest(name: str) -> str:
    return hashlib.sha256((REQUIREMENTS / f"{name}.txt").read_bytes()).hexdigest()


def _ready(name: str) -> bool:
    return _stamp(name).is_file() and _stamp(name).read_text("ascii") == _digest(name)


def main() -> int:
    names = sys.argv[1:] or NAMES
    if unknown := set(names) - set(NAMES):
        print(f"no environment {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names:
        print(f"{name} …", flush=True)
        reason = set_up(name)
        failed += reason is not None
        print(reason or f"{name}: {FOLDER / name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
