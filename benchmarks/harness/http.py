"""A server under load: a client that costs little beside what it measures, in one thread of this process."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

LONGEST = 600.0  # seconds that an answer may take: a peer on a busy machine is slow


@dataclass
class Load:
    """What came of a load. latencies: seconds of each answer with 200. refused: answers with 429."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0

    def percentile(self, part: float) -> float:
        """Seconds; nan where nothing was answered."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")

    @property
    def rate(self) -> float:
        """Answers with 200 a second."""
        return len(self.latencies) / self.seconds

    def note(self, status: int, seconds: float) -> None:
        if status == 200:
            self.latencies.append(seconds)
        elif status == 429:
            self.refused += 1
        else:
            raise RuntimeError(f"the server answered {status}")


@contextmanager
def serving(bundle: Path, *arguments: str) -> Iterator[tuple[str, int]]:
    """`raskrank serve` in a process of its own: its address and process id."""
    command = [sys.executable, "-m", "raskrank", "serve", "--bundle", str(bundle), "--port", "0", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], process.pid
        finally:
            process.terminate()


def resident(process: int) -> int:
    """Bytes of memory that a process has now. Linux."""
    lines = Path(f"/proc/{process}/status").read_text("ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


class Connections:
    """Kept-alive connections to a server, as many as are needed at once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def request(self, body: object) -> bytes:
        data = json.dumps(body, ensure_ascii=False).encode()
        return (
            b"POST /rerank HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % (str(self._host).encode(), len(data))
            + data
        )

    async def send(self, request: bytes) -> int:
        """Status of the answer, once it is read."""
        async with asyncio.timeout(LONGEST):
            reader, writer = self._free.pop() if self._free else await asyncio.open_connection(self._host, self._port)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(lines[b"content-length"]))
        if lines.get(b"connection") == b"close":
            writer.close()
        else:
            self._free.append((reader, writer))
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


async def closed_loop(url: str, requests: Sequence[bytes], *, clients: int, seconds: float, most: int | None = None) -> Load:
    """So many clients, each sends its next request when it has its answer, for so long, or `most` requests in all."""
    connections, load, start, sent = Connections(url), Load(), time.perf_counter(), 0

    async def client() -> None:
        nonlocal sent
        while time.perf_counter() < start + seconds and (most is None or sent < most):
            request, began = requests[sent % len(requests)], time.perf_counter()
            sent += 1
            load.note(await connections.send(request), time.perf_counter() - began)

    await asyncio.gather(*(client() for _ in range(clients)))
    load.seconds = time.perf_counter() - start
    connections.close()
    return load


async def open_loop(url: str, requests: Sequence[bytes], *, rate: float, seconds: float, seed: int = 1) -> Load:
    """Requests that arrive at random, `rate` a second, whatever became of those before. Latency is from the arrival."""
    connections, load, chance, tasks = Connections(url), Load(), random.Random(seed), list[asyncio.Future[None]]()
    start = at = time.perf_counter()

    async def one(request: bytes, due: float) -> None:
        load.note(await connections.send(request), time.perf_counter() - due)

    while (at := at + chance.expovariate(rate)) < start + seconds:
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        tasks.append(asyncio.ensure_future(one(requests[len(tasks) % len(requests)], at)))
    await asyncio.gather(*tasks)
    load.seconds = time.perf_counter() - start
    connections.close()
    return load
