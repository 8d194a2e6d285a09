"""The command line of an attack of tests/attacks that draws what it does."""

import argparse


def count_and_seed(description: str | None, count: int, what: str) -> tuple[int, int]:
    """--count and --seed, 0 by default. description: its first line is shown. count: the default. what: is counted."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=count, help=f"{what} (default: {count})")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    return arguments.count, arguments.seed
