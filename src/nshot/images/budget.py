"""One budget of bytes for a run: what reading, decoding and queueing hold at once, over the model itself.

Two shares, so that nobody waits for what he keeps others from giving back: encoded images (a quarter), taken
in order by the one thread that lists them; and decoding, taken by whoever decodes, who never waits for the
first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil
from pathlib import Path

from nshot.errors import ImageTooLarge

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time, in so many


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, within its container's share of time."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError, ZeroDivisionError):  # no container, or no limit: "max 100000"
        quota, period = map(int, _QUOTA.read_text().split())
        there = min(there, max(1, ceil(quota / period)))
    return there


class Budget:
    """Bytes that may be held at once; safe to use from several threads.

    Args:
        total: the budget of a run, in bytes.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._encoded = _Share(total // 4)
        self._decoding = _Share(total - total // 4)
        self.large = threading.Lock()
        """Held by the one thread that reads an image which turned out larger than ``unsized``."""

    @property
    def most(self) -> int:
        """The most bytes that decoding one image may take."""
        return self._decoding.total

    @property
    def unsized(self) -> int:
        """What is set aside for an image whose size nobody knows before it is read."""
        return min(2**24, self._encoded.total // 8)

    def hold(self, size: int) -> int:
        """Wait until an encoded image of this many bytes may be read; what to give to ``release``.

        One larger than the whole share waits until it is alone.
        """
        return self._encoded.take(size)

    def release(self, held: int) -> None:
        """An encoded image is not needed any more."""
        self._encoded.give(held)

    @contextmanager
    def decoding(self, size: int) -> Iterator[None]:
        """Wait until an image that takes this many bytes may be decoded.

        Raises:
            ImageTooLarge: it never may.
        """
        if size > self.most:
            raise too_large(size, self.most, self.total)
        taken = self._decoding.take(size)
        try:
            yield
        finally:
            self._decoding.give(taken)


def too_large(size: int | None, most: int, total: int) -> ImageTooLarge:
    """What an image that does not fit says; ``size`` None: more than the most."""
    takes = f"about {size / 1e6:,.0f} MB" if size is not None else f"more than {most / 1e6:,.0f} MB"
    return ImageTooLarge(
        f"decoding it takes {takes} of memory, and the run has {total / 1e6:,.0f} MB for reading and "
        f"decoding, {most / 1e6:,.0f} MB of it for one image: give more with --memory, or scale it down first"
    )


class _Share:
    """A semaphore of bytes, first come first served, so that a large request is not starved."""

    def __init__(self, total: int) -> None:
        self.total = max(1, total)
        self._free = self.total
        self._turn = threading.Condition()
        self._next = self._served = 0

    def take(self, size: int) -> int:
        size = min(max(0, size), self.total)
        with self._turn:
            ticket, self._next = self._next, self._next + 1
            self._turn.wait_for(lambda: self._served == ticket and self._free >= size)
            self._served += 1
            self._free -= size
            self._turn.notify_all()
        return size

    def give(self, size: int) -> None:
        with self._turn:
            self._free += size
            self._turn.notify_all()
