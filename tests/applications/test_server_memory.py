"""A server's memory does not grow with what it has answered."""

import asyncio

import pytest
import uvicorn  # noqa: F401  needs the extra server

from benchmarks.harness.http import Connections, closed_loop, resident
from serving import DOCUMENTS, serving

TENTHS = 10
# Bytes. What Python's own allocator and the C library's keep for later varies by so much from tenth to tenth.
NOISE = 3_000_000


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_memory_is_flat(count: int) -> None:
    with serving() as server:
        connections = Connections(server.url)
        requests = [connections.request({"query": f"Hvem? {place}", "documents": DOCUMENTS}) for place in range(50)]
        requests += [connections.request({"query": f"Hvem? {place}", "texts": DOCUMENTS * 30}) for place in range(2)]
        sizes = []
        for _ in range(TENTHS):
            load = asyncio.run(closed_loop(server.url, requests, clients=4, seconds=float("inf"), most=count // TENTHS))
            assert len(load.latencies) >= count // TENTHS
            sizes.append(resident(server.process.pid))
    assert max(sizes[2:]) - sizes[1] < NOISE, sizes
