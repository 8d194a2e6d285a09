"""Attacks that kill what they have started, again and again: the loop, what it found, and what it prints."""

import argparse
import random
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path


class Killing(ABC):
    """A folder to work in, dice for the moments, how often to kill, and what was found wrong."""

    def __init__(self, root: Path, dice: random.Random, count: int) -> None:
        self.root, self.dice, self.count, self.failures = root, dice, count, list[str]()

    @abstractmethod
    def kill(self) -> str:
        """Once; what became of it, in words that are counted."""

    @abstractmethod
    def end(self) -> Counter[str]:
        """After the last kill; what else became of something."""

    @abstractmethod
    def title(self) -> str:
        """What was killed."""


def attack(kind: type[Killing], description: str) -> int:
    """The command line of an attack; its exit code, which is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20, help="how often to kill (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        made = kind(Path(folder), random.Random(arguments.seed), arguments.count)
        killed = Counter(made.kill() for _ in range(arguments.count))
        ended = made.end()
    print(f"{arguments.count} {made.title()}:")
    for found in (killed, ended):
        for what, times in sorted(found.items()):
            print(f"  {times:4} {what}")
    for failure in made.failures:
        print(failure)
    print(f"{time.monotonic() - start:.0f} s, {len(made.failures)} promises broken")
    return 1 if made.failures else 0
