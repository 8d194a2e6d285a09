"""Pseudo-terminals."""

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable

DEADLINE = 60  # seconds until a terminal that stays silent fails a test


class Terminal:
    """A pseudo-terminal of `size` columns, and what a process wrote to it."""

    def __init__(self, size: int) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, size, 0, 0))
        self.written = b""

    def read_until(self, done: Callable[[], bool]) -> None:
        """Reads on until `done`, which is asked whenever something came and ten times a second."""
        deadline = time.monotonic() + DEADLINE
        while not done():
            assert time.monotonic() < deadline, self.written
            if select.select([self.ours], [], [], 0.1)[0]:
                self.written += os.read(self.ours, 65536)

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)
