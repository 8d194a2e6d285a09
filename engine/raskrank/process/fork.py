"""Forks of this process: what must not go on in a child as if nothing had happened. The only place that asks to be told."""

import os
from collections.abc import Callable

_in_child: list[Callable[[], None]] = []
_forked = False


def after_fork(function: Callable[[], None]) -> None:
    """Call `function` in every child that is forked from now on, before anything else runs there."""
    _in_child.append(function)


def forked() -> bool:
    """Whether this process was forked from another that had Raskrank imported."""
    return _forked


class Owner:
    """The process that made an object: threads and native code do not survive a fork, so the object is of no use elsewhere."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        return self._pid == os.getpid()


def _run() -> None:
    global _forked
    _forked = True
    for function in _in_child:
        function()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run)
