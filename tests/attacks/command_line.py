"""Hostile arguments and files for every command: each ends with a documented exit code, in time, and without a traceback.

python tests/attacks/command_line.py --count 500
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

CODES = {0, 1, 2, 130}
DEADLINE = 120  # seconds for one command
SECRET = b"HEMMELIG"  # in every hostile file, and never on standard error
SUFFIXES = (".txt", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".JSON", "", ".\xf8")
SHORT = ("--seconds", "0.1", "--threads", "1", "--passages", "2")
TORN = (
    '{"text": "',
    '{"text": 1e999, "id": ',
    '[{"text"',
    '"a";"b',
    "\ufeff",
    "\0",
    "\r",
    "\u2028",
    '{"query": "a", "documents": [',
)


def hostile_bytes(seeded: random.Random) -> bytes:
    """A file that nobody meant."""
    words = [
        SECRET,
        b"text",
        b"id",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r\n",
        b"\\ud800",
        b"9" * 5000,
    ]
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: SECRET + seeded.randbytes(seeded.randrange(5000)),
        lambda: b"".join(seeded.choices(words, k=seeded.randrange(1, 200))),
        lambda: b"[" * seeded.randrange(1, 200_000),
        lambda: b'{"text":' * seeded.randrange(1, 200_000),
        lambda: json.dumps([{"text": SECRET.decode(), "id": _nested(seeded.randrange(900))}]).encode(),
        lambda: b'{"text": "%s", "id": %s}\n' % (SECRET, b"[" * 600 + b"]" * 600),
        lambda: b'{"text": "%s", "id": 1%s}\n' % (SECRET, b"0" * seeded.randrange(6000)),
        lambda: b'{"text": "%s", "id": 1e%d}\n' % (SECRET, seeded.randrange(9999)),
        lambda: SECRET * seeded.randrange(1, 2_000_000),
        lambda: b"text,id\n" + b'"' * seeded.randrange(1, 999) + SECRET,
        lambda: ("text\n" + SECRET.decode()).encode(seeded.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7", "cp037"))),
        lambda: b"".join(seeded.choice(TORN).encode() for _ in range(seeded.randrange(9))) + SECRET,
        lambda: b"",
    )
    return seeded.choice(kinds)()


def hostile_argument(seeded: random.Random) -> bytes:
    """What a shell can pass: no NUL, and short of its limit of 128 KiB."""
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: bytes(seeded.choices(range(1, 256), k=seeded.randrange(1, 60))),
        lambda: b"a" * seeded.choice((255, 256, 4096, 100_000)),
        lambda: b"/".join([b"a" * 200] * seeded.randrange(1, 40)),
        lambda: seeded.choice(
            (b"", b"-", b"--", b"-h", b"--json", b"..", b"/", b"/dev/null", b"/proc/self/mem", b"\x1b[2J\n\x07")
        ),
        lambda: seeded.choice(("日本\u202e", "owner/name", "owner/..", "http://[", "a\nb", "--field=\ud800")).encode(
            errors="surrogatepass"
        ),
        lambda: b"9" * seeded.randrange(1, 6000),
    )
    return seeded.choice(kinds)()


def command_of(seeded: random.Random, file: bytes) -> list[bytes]:
    """A command, hostile in one or two places."""

    def some(*choices: str | bytes) -> list[bytes]:
        kept = [os.fsencode(choice) for choice in choices if seeded.random() < 0.5]
        return [part for choice in kept for part in (choice, seeded.choice((file, hostile_argument(seeded))))]

    query = hostile_argument(seeded)
    formats = [] if seeded.random() < 0.5 else [b"--format", seeded.choice((b"text", b"json", b"jsonl", b"csv", b"tsv", b"x"))]
    rest: dict[bytes, Callable[[], list[bytes]]] = {
        b"rank": lambda: [*formats, *some("--field", "--title-field"), b"--json", b"--", query, file],
        b"info": lambda: [*some("--bundle"), b"--json"],
        b"verify": lambda: some("--bundle", "--pairs", "--checkpoint"),
        b"export": lambda: [
            hostile_argument(seeded),
            file + b".d",
            *some("--samples", "--trim-vocab", "--max-length", "--revision"),
        ],
        b"compare": lambda: [
            *some("--data", "--queries", "--chart", "--candidates"),
            b"--data",
            file,
            b"--",
            hostile_argument(seeded),
        ],
        b"bench": lambda: [*map(os.fsencode, SHORT), *formats, *some("--query", "--field"), b"--texts", file],
        b"": lambda: [hostile_argument(seeded)],
    }
    name = seeded.choice((b"rank", *rest))
    return [part for part in (name, *rest[name]()) if part or name]


def run(command: list[bytes], folder: Path, file: Path | None, streams: str) -> tuple[int, bytes]:
    """Exit code and standard error. streams: how the three are set up, in the shell's words."""
    shell = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "raskrank"]
    environment = {"HF_HUB_OFFLINE": "1", "RASKRANK_CACHE": str(folder / "cache"), "HOME": str(folder)}
    with contextlib.nullcontext(subprocess.DEVNULL) if file is None else file.open("rb") as stdin:
        done = subprocess.run(
            [*map(os.fsencode, shell), *command],
            stdin=stdin,
            capture_output=True,
            timeout=DEADLINE,
            cwd=folder,
            env={**os.environ, **environment},
            check=False,
        )
    return done.returncode, done.stderr


def failure(code: int, stderr: bytes) -> str:
    """What is wrong with how a command ended; "" where nothing is."""
    if code not in CODES:
        return f"exit code {code}"
    if b"Traceback" in stderr:
        return "a traceback"
    if SECRET in stderr:
        return "a text in a message"
    # An error is one line; warnings of libraries, which have none in the engine's own commands, are more.
    if max(map(len, stderr.split(b"\n"))) > 5000:
        return "a message of more than 5000 bytes"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="commands to run (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    arguments = parser.parse_args()
    # The odd ones are few: a stream that is closed, or full, or a reader that leaves.
    usual, odd = [""], [">&-", "2>&-", "<&-", "<&- >&- 2>&-"] + [">/dev/full", "2>/dev/full"] * Path("/dev/full").exists()
    codes: Counter[int] = Counter()
    start, failed = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(arguments.seed, arguments.seed + arguments.count):
            seeded = random.Random(number)
            file = folder / f"in{number}{seeded.choice(SUFFIXES)}"
            file.write_bytes(hostile_bytes(seeded))
            standard = seeded.random() < 0.3
            command = command_of(seeded, b"-" if standard else os.fsencode(file))
            streams = seeded.choice(usual * 4 + odd)
            code, stderr = run(command, folder, file if standard else None, streams)
            codes[code] += 1
            if wrong := failure(code, stderr):
                failed += 1
                print(f"--seed {number} --count 1: {wrong}: {command!r} {streams}\n{stderr[-2000:].decode(errors='replace')}")
            file.unlink()
    ended = ", ".join(f"{count} with {code}" for code, count in sorted(codes.items()))
    print(f"{arguments.count} commands in {time.monotonic() - start:.0f} s ended: {ended}; {failed} failed")
    return 1 if failed else 0


def _nested(levels: int) -> object:
    value: object = []
    for _ in range(levels):
        value = [value]
    return value


if __name__ == "__main__":
    sys.exit(main())
