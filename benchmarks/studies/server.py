"""What a server costs beside the library, how long its clients wait, and whether its memory grows.

    python -m benchmarks.studies.server [--model nano|minilm|bge|FOLDER] [--seconds S] [--requests N]

Over loopback, with the client on the same CPUs. In turns: the library called directly, one call after the other, and two
clients of the server that each send their next request when they have an answer. Then requests of 10 passages that arrive at
random, at 50%, 90% and 150% of what two clients got, with `--max-wait 1`: what would wait longer is refused with 429. Then the
same at 20%, alone and beside a client with 1,000 passages at a time. Last, --requests small ones, and the server's memory.
With --peer URL only this: the server and that one, which has the same model and takes the same bodies, in turns.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness import workloads
from benchmarks.harness.http import Connections, Load, closed_loop, open_loop, resident, serving
from benchmarks.harness.models import MODELS, bundle
from raskrank import Reranker, cpu
from raskrank.settings import choose

ROUNDS = 5
CLIENTS = 2
PACKAGES = ("raskrank", "starlette", "uvicorn", "h11", "prometheus-client")


def bodies(count: int, number: int = 20) -> list[dict[str, object]]:
    """Different ones, so that nothing could answer from memory."""
    return [{"query": f"{workloads.QUERY} {place}", "documents": workloads.passages(count)} for place in range(number)]


def requests(url: str, count: int) -> list[bytes]:
    connections = Connections(url)
    return [connections.request(body) for body in bodies(count)]


def direct(reranker: Reranker, count: int, seconds: float) -> float:
    """Calls a second."""
    asked = bodies(count)
    start, calls = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        body = asked[calls % len(asked)]
        reranker.rank(str(body["query"]), body["documents"])  # type: ignore[arg-type]
        calls += 1
    return calls / (time.perf_counter() - start)


def bundle_of(model: str) -> Path:
    return choose(None).path if model == "nano" else bundle(model, "int8")


async def throughput(url: str, folder: Path, seconds: float) -> None:
    print("| passages | directly, calls a second | over HTTP | ratio |\n|---|---|---|---|")
    with Reranker.load(folder) as reranker:
        for count in (1, 10, 100):
            sent = requests(url, count)
            rounds = []
            for _ in range(ROUNDS):
                library = direct(reranker, count, seconds / ROUNDS)
                load = await closed_loop(url, sent, clients=CLIENTS, seconds=seconds / ROUNDS)
                rounds.append((library, load.rate, load.rate / library))
            library, served, ratio = (statistics.median(values) for values in zip(*rounds, strict=True))
            print(f"| {count} | {library:.1f} | {served:.1f} | {ratio:.2f} |", flush=True)


async def beside(url: str, peer: str, seconds: float) -> None:
    print("| passages | Raskrank, requests a second | the other | times |\n|---|---|---|---|")
    for count in (1, 10, 50):
        rounds = []
        for _ in range(ROUNDS):
            ours, theirs = [
                (await closed_loop(at, requests(at, count), clients=CLIENTS, seconds=seconds / ROUNDS)).rate
                for at in (url, peer)
            ]
            rounds.append((ours, theirs, ours / theirs))
        ours, theirs, ratio = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"| {count} | {ours:.2f} | {theirs:.2f} | {ratio:.1f} |", flush=True)


def row(name: str, load: Load) -> str:
    cells = [f"{load.percentile(part) * 1e3:.0f}" for part in (0.5, 0.95, 0.99)]
    return f"| {name} | {len(load.latencies)} | {load.refused} | {' | '.join(cells)} |"


async def latency(url: str, seconds: float) -> None:
    sent = requests(url, 10)
    capacity = (await closed_loop(url, sent, clients=CLIENTS, seconds=seconds / 2)).rate
    print(f"\n{capacity:.1f} requests of 10 passages a second are 100%\n")
    print("| load | answered | refused | p50, ms | p95 | p99 |\n|---|---|---|---|---|---|")
    for share in (0.5, 0.9, 1.5):
        load = await open_loop(url, sent, rate=share * capacity, seconds=seconds)
        print(row(f"{share:.0%}", load), flush=True)
    rare = 0.2 * capacity
    print(row("20%", await open_loop(url, sent, rate=rare, seconds=seconds)), flush=True)
    large = asyncio.create_task(closed_loop(url, requests(url, 1000), clients=1, seconds=seconds))
    print(row("20%, beside 1,000 passages at a time", await open_loop(url, sent, rate=rare, seconds=seconds)), flush=True)
    print(row("those 1,000", await large))


async def memory(url: str, process: int, count: int) -> list[int]:
    """Bytes of the server after each tenth of so many requests."""
    sent, found = requests(url, 1), []
    for _ in range(10):
        await closed_loop(url, sent, clients=CLIENTS, seconds=float("inf"), most=count // 10)
        found.append(resident(process))
    return found


def shown(sizes: Sequence[int]) -> str:
    return ", ".join(f"{size / 1e6:.1f}" for size in sizes)


async def study(arguments: argparse.Namespace) -> None:
    folder = bundle_of(arguments.model)
    if arguments.peer:
        with serving(folder) as (url, _):
            await beside(url, arguments.peer, arguments.seconds)
        return
    with serving(folder) as (url, process):
        await throughput(url, folder, arguments.seconds)
        sizes = await memory(url, process, arguments.requests)
    with serving(folder, "--max-wait", "1") as (url, _):
        await latency(url, arguments.seconds)
    print(f"\nmemory of the server after each tenth of {arguments.requests} requests, MB: {shown(sizes)}")
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    print(f"\n{arguments.model} int8, {cpu.usable_cpus()} CPUs of {cpu.model_name()}, {datetime.now(UTC):%Y-%m-%d}; {packages}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=f"one of {', '.join(MODELS)}, or a checkpoint folder")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default: 10)")
    parser.add_argument("--requests", type=int, default=2000, help="while memory is watched (default: 2000)")
    parser.add_argument("--peer", metavar="URL", help="of another server that runs")
    asyncio.run(study(parser.parse_args()))


if __name__ == "__main__":
    main()
