"""`raskrank score` killed at random moments, again and again on one output: parts are whole, and one at most is lost each time.

python tests/attacks/score_kill.py [--count N] [--seed S]

A run on a file of JSON Lines is killed after a random time, by SIGKILL, SIGTERM or SIGINT, and the same command given again;
once an output is done, a new one begins. The last is brought to its end. Exits with 1 if a promise was broken.
"""

import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from command import INTERRUPTIBLE
from killing import Killing, attack
from pairs import journal, parts, rows, states, write_jsonl
from raskrank.bulk.journal import NAME

ROWS, PART_ROWS = 2000, 20
DEADLINE = 120  # seconds that one run may take
# In a traceback. While Python still imports that module, and what it imports, an interrupt is Python's to tell.
IN_COMMAND = re.compile(rb"cli/main\.py\", line \d+, in (main|_)")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class ScoreKill(Killing):
    """A file of pairs, and what an undisturbed run makes of it."""

    def __init__(self, root: Path, dice: random.Random, count: int) -> None:
        super().__init__(root, dice, count)
        self.file = write_jsonl(root / "pairs.jsonl", rows(ROWS))
        start = time.monotonic()
        self.finish(root / "whole")
        self.seconds = time.monotonic() - start
        self.whole = {part.name: part.read_bytes() for part in parts(root / "whole")}
        self.output, self.outputs = root / "out-0", 0

    def run(self, output: Path) -> "subprocess.Popen[bytes]":
        command = [*INTERRUPTIBLE, "score", str(self.file), str(output), "--part-rows", str(PART_ROWS)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def finish(self, output: Path) -> None:
        _, said = self.run(output).communicate(timeout=DEADLINE)
        if said:
            self.failures.append(f"{output.name}: a run to the end said {said.decode()}")

    def title(self) -> str:
        return f"runs of {len(self.whole)} parts and {self.seconds:.1f} s, {self.outputs} outputs"

    def kill(self) -> str:
        before, known = states(self.output), self.known()
        process, sign = self.run(self.output), self.dice.choice(SIGNALS)
        try:
            process.wait(self.dice.uniform(0, self.seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(sign)
        _, said = process.communicate(timeout=DEADLINE)
        if b"Traceback" in said and IN_COMMAND.search(said):
            self.failures.append(f"{self.output.name}: {sign.name} ended in a traceback: {said.decode()[-1500:]}")
        self.check(before, known)
        if process.returncode == 0:
            self.complete()
            return "came to its end"
        return f"killed by {sign.name}"

    def end(self) -> Counter[str]:
        """The last output is brought to its end."""
        self.finish(self.output)
        self.complete()
        return Counter()

    def known(self) -> set[str]:
        return {line["part"] for line in journal(self.output)} if (self.output / NAME).exists() else set()

    def check(self, before: dict[str, tuple[int, int]], known: set[str]) -> None:
        """What was known stays, what is there is whole, and at most one part is there that is not known."""
        if not self.output.exists():
            return
        after, now = states(self.output), self.known()
        if changed := [name for name in known if after.get(name) != before[name]]:
            self.failures.append(f"{self.output.name}: scored again though done: {changed}")
        if broken := [part.name for part in parts(self.output) if part.read_bytes() != self.whole[part.name]]:
            self.failures.append(f"{self.output.name}: not whole: {broken}")
        if len(lost := after.keys() - now) > 1 or not known <= now:
            self.failures.append(f"{self.output.name}: lost {sorted(lost)}, forgotten {sorted(known - now)}")

    def complete(self) -> None:
        """The output is done: it is that of an undisturbed run, and nothing else is in it."""
        if {part.name: part.read_bytes() for part in parts(self.output)} != self.whole:
            self.failures.append(f"{self.output.name}: done, and another output")
        if foreign := {path.name for path in self.output.iterdir()} - self.whole.keys() - {NAME}:
            self.failures.append(f"{self.output.name}: left {sorted(foreign)}")
        self.outputs += 1
        self.output = self.root / f"out-{self.outputs}"


if __name__ == "__main__":
    sys.exit(attack(ScoreKill, __doc__ or ""))
