"""The page of the documentation about the command line: what `--help` of each command prints.

python tests/command_reference.py            # writes docs/cli.md
"""

import os
import subprocess
import sys

from paths import ROOT
from raskrank.cli.commands import COMMANDS
from raskrank.settings import cache_folder

PAGE = ROOT / "docs" / "cli.md"
BEGIN = """\
# Command line

This is what `--help` prints, on Linux. [Quickstart](quickstart.md#the-command-line) says more about the form of documents.
"""


def page() -> str:
    """The page as it should be, in Markdown."""
    texts = {name: usage(*name.split()) for name in ("", *COMMANDS)}
    sections = [f"## raskrank {name}".rstrip() + f"\n\n```text\n{text}\n```\n" for name, text in texts.items()]
    return "\n".join([BEGIN, *sections])


def usage(*command: str) -> str:
    """What a command's --help prints on 80 columns, with the cache folder of nobody in particular."""
    done = subprocess.run(
        [sys.executable, "-m", "raskrank", *command, "--help"],
        env={**os.environ, "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        check=True,
        encoding="utf-8",
    )
    return done.stdout.strip().replace(str(cache_folder()), "~/.cache/raskrank")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
