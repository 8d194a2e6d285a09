"""Writes the digests of the pinned packages' files into constraints.txt: `make constraints`, after a version there was changed.

Digests are those that the package index states, of every wheel for a Python that Raskrank supports, whatever the platform. What
a version's files were when it was pinned is what every later installation gets.
"""

import json
import os
import re
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
PYTHONS = range(11, 15)  # minor versions
CONNECTIONS = 4
DEADLINE = 60  # seconds for a page of the index; the largest is 2 MB
JSON = "application/vnd.pypi.simple.v1+json"
HEADER = """\
# Versions that were tested together, and the digests of their files. `make` installs exactly these.
# To change a version: edit it here, then `make constraints`. PyTorch is in constraints-torch.txt.
"""


def pins() -> list[str]:
    """The lines NAME==VERSION of constraints.txt, without digests."""
    return re.findall(r"^[\w.-]+==\S+", CONSTRAINTS.read_text("utf-8"), re.MULTILINE)


def index_url() -> str:
    """The package index that pip uses."""
    if own := os.environ.get("PIP_INDEX_URL"):
        return own
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    return found.stdout.strip() or "https://pypi.org/simple"


def locked(pin: str, index: str) -> str:
    """The pin with the digests of its wheels, as pip reads it. Raises ValueError where there is none."""
    name, version = pin.split("==")
    request = urllib.request.Request(f"{index.rstrip('/')}/{re.sub('[-_.]+', '-', name).lower()}/", headers={"Accept": JSON})
    with urllib.request.urlopen(request, timeout=DEADLINE) as response:
        files = json.load(response)["files"]
    # Of wheels alone: to build from source runs build tools that nobody pinned.
    digests = sorted({file["hashes"]["sha256"] for file in files if _is_wanted(file["filename"], version)})
    if not digests:
        raise ValueError(f"{pin}: the index has no wheel of it for Python 3.{PYTHONS.start} to 3.{PYTHONS.stop - 1}")
    return " \\\n    ".join([pin, *(f"--hash=sha256:{digest}" for digest in digests)])


def _is_wanted(file: str, version: str) -> bool:
    """Whether it is a wheel NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl of that version for a Python of ours."""
    parts = file.removesuffix(".whl").split("-")
    if not file.endswith(".whl") or len(parts) < 5 or parts[1] != version:
        return False
    abi = parts[-2]
    for python in parts[-3].split("."):
        minor = re.fullmatch(r"cp3(\d+)", python)
        if python == "py3" or (minor and (int(minor[1]) in PYTHONS or (abi == "abi3" and int(minor[1]) < PYTHONS.start))):
            return not re.fullmatch(r"cp3\d+t", abi)  # the free-threaded build
    return False


def main() -> None:
    """Rewrite constraints.txt in order of name."""
    index = index_url()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        lines = list(pool.map(lambda pin: locked(pin, index), sorted(set(pins()), key=str.lower)))
    CONSTRAINTS.write_text(HEADER + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
