"""Attacks that kill what they have started, again and again: the loop, what it found, and what it prints."""

import random
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path

from attacking import count_and_seed


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
    count, seed = count_and_seed(description, 20, "how often to kill")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        made = kind(Path(folder), random.Random(seed), count)
        killed = Counter(made.kill() for _ in range(count))
        ended = made.end()
    print(f"{count} {made.title()}:")
    for found in (killed, ended):
        for what, times in sorted(found.items()):
            print(f"  {times:4} {what}")
    for failure in made.failures:
        print(failure)
    print(f"{time.monotonic() - start:.0f} s, {len(made.failures)} promises broken")
    return 1 if made.failures else 0
