"""Event loops that adapters must not block."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from raskrank import Reranker


def ticks(work: Coroutine[Any, Any, Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a loop came round while it waited for work of a tenth of a second or more: once if that blocked it.

    The work fails if it calls the method that blocks a thread, which nobody can cancel.
    """
    monkeypatch.delattr(Reranker, "rank")

    async def both() -> int:
        task, count = asyncio.create_task(work), 0
        while not task.done():
            await asyncio.sleep(0.001)
            count += 1
        await task
        return count

    return asyncio.run(both())
