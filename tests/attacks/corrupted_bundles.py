"""Damaged bundles: each is refused with a RaskrankError, or scores as before, bit for bit.

python tests/attacks/corrupted_bundles.py [--count N] [--seed S]

Every second one is only damaged: a flipped bit, a cut, zeros, other bytes, a file in another's place. Of the others the
manifest was made to fit again, as an attacker would; their scores may be any, but no such bundle may end the process, hang, or
raise what is no RaskrankError. Bundles are loaded in child processes, so that a crash is counted. Exits with 1 if a promise was
broken.
"""

import argparse
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from raskrank import RaskrankError, Reranker
from raskrank.manifest import DIGEST, FILES, MANIFEST, UNSIGNED, sign
from raskrank.settings import bundle_path

ALL = (*FILES, MANIFEST)
QUERY, DOCUMENTS = "Hvem kan Python?", ["Python og SQL", "", "Sykepleier i Tromsø", "Et langt dokument. " * 120]
DEADLINE = 60.0  # seconds that one bundle may take; they take a tenth of one
MEMORY = 8 << 30
FINE, SCORED = ("refused", "same scores"), "other scores"


class Outcome(NamedTuple):
    kind: str  # what was done
    what: str  # what came of it


def damage(content: bytes, dice: random.Random) -> tuple[str, bytes]:
    """The name of a kind of damage, and `content` with it."""
    changed, at = bytearray(content), dice.randrange(len(content))
    size = min(dice.choice((1, 8, 512, 4096)), len(content) - at)
    kind = dice.choice(("flipped bit", "flipped bit", "cut", "zeros", "other bytes", "bytes left out", "bytes added"))
    if kind == "flipped bit":
        changed[at] ^= 1 << dice.randrange(8)
    elif kind == "cut":
        del changed[at:]
    elif kind == "zeros":
        changed[at : at + size] = bytes(size)
    elif kind == "other bytes":
        changed[at : at + size] = dice.randbytes(size)
    elif kind == "bytes left out":
        del changed[at : at + size]
    else:
        changed[at:at] = dice.randbytes(size)
    return kind, bytes(changed)


def corrupt(folder: Path, original: Path, number: int, seed: int) -> str:
    """Make `folder` the bundle of this number, from the sound one. Returns what was done to it.

    Files are written in place: after a load has ended, however it did, nothing may use them any more.
    """
    dice, forged = random.Random(f"{seed} {number}"), number % 2 == 1
    for name in ALL:
        shutil.copyfile(original / name, folder / name)
    name = dice.choice(FILES if forged else ALL)
    if dice.random() < 0.05:
        other = dice.choice([other for other in ALL if other != name])
        shutil.copyfile(original / other, folder / name)
        kind = "another file in its place"
    else:
        kind, content = damage((folder / name).read_bytes(), dice)
        (folder / name).write_bytes(content)
    if forged:
        make_fit(folder)
    return f"{name}, {'forged' if forged else 'damaged'}: {kind}"


def make_fit(folder: Path) -> None:
    """Give the manifest the sizes and digests of the files as they are."""
    import hashlib

    values = json.loads((folder / MANIFEST).read_text("utf-8"))
    for name in FILES:
        content = (folder / name).read_bytes()
        values["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(sign(json.dumps({**values, DIGEST: UNSIGNED})), "utf-8")


def child(start: int, stop: int, step: int, seed: int) -> None:
    """Load the bundles of these numbers; before each a line with its number and kind, after it one with what came of it."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    original = bundle_path(None)
    with Reranker.load(original, threads=2) as sound:
        expected = sound.score(QUERY, DOCUMENTS).tobytes()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for number in range(start, stop, step):
            print(json.dumps([number, corrupt(folder, original, number, seed)]), flush=True)
            try:
                with Reranker.load(folder, threads=2) as reranker:
                    same = reranker.score(QUERY, DOCUMENTS).tobytes() == expected
                what = "same scores" if same else SCORED
            except RaskrankError:
                what = "refused"
            except BaseException as error:  # noqa: BLE001  any other is what is looked for
                what = f"raised {type(error).__name__}"
            print(json.dumps(what), flush=True)


def attack(start: int, stop: int, step: int, seed: int) -> list[Outcome]:
    """What came of the bundles of these numbers. A child that ends or hangs is followed by another."""
    outcomes = list[Outcome]()
    while start < stop:
        command = [sys.executable, __file__, "--child", *map(str, (start, stop, step, seed))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=read_lines, args=(process, lines), daemon=True)
        reader.start()
        kind = "before the first"
        while True:
            try:
                line = lines.get(timeout=DEADLINE)
            except queue.Empty:
                process.kill()
                outcomes.append(Outcome(kind, "hung"))
                break
            if not line:
                if process.wait():
                    outcomes.append(Outcome(kind, f"ended the process ({process.returncode})"))
                else:
                    start = stop
                break
            found = json.loads(line)
            if isinstance(found, list):
                start, kind = found[0] + step, found[1]
            else:
                outcomes.append(Outcome(kind, found))
                kind = f"{kind}, after it"
        process.wait()
        reader.join()
        if kind == "before the first":
            break  # not even the sound bundle loads
    return outcomes


def read_lines(process: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
    """Every line of a child's output, and "" at its end."""
    if process.stdout is not None:
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
    lines.put("")


def broken(outcome: Outcome) -> bool:
    return outcome.what not in FINE and not ("forged" in outcome.kind and outcome.what == SCORED)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=400, help="bundles (default: 400)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=int, nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return 0
    began, parts, workers = time.monotonic(), list[list[Outcome]](), os.cpu_count() or 1
    threads = [
        threading.Thread(target=lambda first=first: parts.append(attack(first, arguments.count, workers, arguments.seed)))
        for first in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes = [outcome for part in parts for outcome in part]
    for what, number in Counter(f"{outcome.kind.partition(':')[0]}: {outcome.what}" for outcome in outcomes).most_common():
        print(f"{number:7,}  {what}")
    wrong = [outcome for outcome in outcomes if broken(outcome)]
    print(f"{len(outcomes):,} corrupted bundles in {time.monotonic() - began:.0f} s, {len(wrong)} that broke the promise")
    for outcome in wrong[:20]:
        print(f"  {outcome.kind}: {outcome.what}")
    return int(bool(wrong) or len(outcomes) != arguments.count)


if __name__ == "__main__":
    sys.exit(main())
