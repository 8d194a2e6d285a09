"""Write the files of constraints anew: the packages of this environment, pinned, with the SHA-256 of each of their files.

    make constraints
    PYTHON tests/constraints.py constraints.txt|constraints-applications.txt    that of the environment which runs this

The digests are those that the package index states for all files of a version, whatever system they are for, and that of the
file which pip takes here, which may come from elsewhere (PyTorch's own index for CPUs). torch is one for all environments: its
file is written with constraints.txt.
"""

import argparse
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pip._internal.models.index import PyPI  # the index's address, as pip has it
from pip._vendor.packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

MAIN = "constraints.txt"
ROOT = Path(__file__).parents[1]
HEADER = """\
# Versions that were tested together, with the SHA-256 of their files. `make` installs them, and `make constraints` writes them.
"""
TORCH = HEADER + "# The files of the package index, and the build for CPUs alone for Linux and Python 3.11.\n"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a file of constraints from the packages of this environment.")
    parser.add_argument("file", choices=[MAIN, "constraints-applications.txt"])
    file, versions = parser.parse_args().file, installed()
    here = taken_here(versions)
    lines: dict[str, str] = {}
    for name, version in sorted(versions.items()):
        digests = sorted({*stated(name, version), here[name]})
        lines[name] = " \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{digest}" for digest in digests)])
        print(f"{name}=={version}: {len(digests)} files")
    torch = lines.pop("torch")
    if file == MAIN:
        (ROOT / "constraints-torch.txt").write_text(f"{TORCH}{torch}\n", "utf-8")
    (ROOT / file).write_text(HEADER + "\n".join(lines.values()) + "\n", "utf-8")


def installed() -> dict[str, str]:
    """Version by name, but for pip and for what is installed in place. A local label such as +cpu is left out."""
    frozen = subprocess.run([*PIP, "freeze", "--all", "--exclude-editable"], capture_output=True, text=True, check=True)
    pins = (line.partition("==") for line in frozen.stdout.split("\n") if "==" in line)
    return {canonicalize_name(name): version.partition("+")[0] for name, _, version in pins if name != "pip"}


def taken_here(versions: dict[str, str]) -> dict[str, str]:
    """The SHA-256 of the file that pip would install here, by name."""
    wanted = [f"{name}=={version}" for name, version in versions.items()]
    command = [*PIP, "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", *wanted]
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return {
        canonicalize_name(item["metadata"]["name"]): item["download_info"]["archive_info"]["hashes"]["sha256"]
        for item in report["install"]
    }


def stated(name: str, version: str) -> Iterator[str]:
    """What the index states for the files of a version."""
    request = urllib.request.Request(f"{PyPI.simple_url}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        files: list[dict[str, Any]] = json.load(answer)["files"]
    for file in files:
        if _version(file["filename"]) == version and "sha256" in file["hashes"]:
            yield file["hashes"]["sha256"]


def _version(filename: str) -> str | None:
    try:
        if filename.endswith(".whl"):
            return str(parse_wheel_filename(filename)[1])
        return str(parse_sdist_filename(filename)[1])
    except ValueError:  # an egg or an installer of old
        return None


if __name__ == "__main__":
    main()
