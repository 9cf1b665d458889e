"""Give a reader many damaged inputs: each ends in an answer or in one line, soon, and memory does not grow.

NSHOT_FUZZ=0.01 pytest tests/fuzz          a hundredth of 100,000 inputs for each reader
NSHOT_FUZZ_SEED=4711 pytest tests/fuzz -k archives       that one input, as a failure names it
NSHOT_FUZZ_FROM=100000 ...                               other inputs: the seeds from there on

NSHOT_FUZZ_NOTE=FILE ...                                 each reader's figures as it ends, and in FILE.seed
                                                         what is read now: a crash leaves it there
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nshot.errors import CheckpointError, NshotError

T = TypeVar("T")

SECONDS = 10.0  # of processor time, for any one input
HUNG = 3600.0  # of the clock, for an input that waits for what never comes
PEAK = 192 * 2**20  # bytes over what the process held before the first input
HELD = 64 * 2**20  # bytes more at the end than after the first tenth: 600 for each of 100,000 inputs
_KINDS = 8  # different faults that are collected before a reader is given up
_LONGEST = 1500  # characters of a message


@dataclass(frozen=True, slots=True)
class Told:
    """What one attack came to.

    Attributes:
        reader: what was attacked.
        inputs: how many.
        refused: how many of them ended in an error of nshot's.
        slowest: processor time of the slowest one, in seconds.
        peak: bytes at most over what was held before.
        held: bytes held at the end over what was held after the first tenth.
        worst: the seeds of the slowest input and of the one that took most.
    """

    reader: str
    inputs: int
    refused: int
    slowest: float
    peak: int
    held: int
    worst: tuple[int, int]


TOLD: list[Told] = []
"""Of every attack so far; ``make fuzz`` prints them."""


def rounds(short: int, long: int = 100_000) -> int:
    """Inputs to try: ``short`` of them, or with NSHOT_FUZZ set that share of ``long``."""
    share = os.environ.get("NSHOT_FUZZ")
    return short if not share else max(short, round(long * float(share)))


def seeds(short: int, long: int = 100_000) -> range:
    """The seeds of the inputs to try; with NSHOT_FUZZ_SEED set that one."""
    if one := os.environ.get("NSHOT_FUZZ_SEED"):
        return range(int(one), int(one) + 1)
    first = int(os.environ.get("NSHOT_FUZZ_FROM", "0"))
    return range(first, first + rounds(short, long))


def attack(
    reader: str,
    make: Callable[[random.Random], T],
    read: Callable[[T], object],
    *,
    short: int,
    long: int = 100_000,
    peak: int = PEAK,
    named: str = "",
) -> Told:
    """Read many inputs, each made from its seed.

    Args:
        reader: a name, which is a part of the seeds.
        make: an input; not a part of what is measured.
        read: what reads it. An error of nshot's is an answer, everything else is a fault.
        short: how many in ``make test``.
        long: how many in ``make fuzz``.
        peak: bytes that the process may hold at most, over what it held before.
        named: what every error must name.

    Raises:
        AssertionError: faults, each with its seed; or too much time, memory, threads or open files.
    """
    faults: dict[str, str] = {}
    slowest, slow, refused = 0.0, 0, 0
    tried = seeds(short, long)
    with suppress(Exception):  # whatever is imported at the first time; it comes again
        read(make(random.Random(f"{reader}-{tried[0]}")))
    gc.collect()
    gc.freeze()  # what was there before need not be looked through each time that garbage is collected
    meter, note = _Meter(), _Note(reader)
    for count, seed in enumerate(tried):
        note.begin(seed)
        given = make(random.Random(f"{reader}-{seed}"))
        begun = time.process_time()
        try:
            with _limited(SECONDS):
                read(given)
        except NshotError as error:
            refused += 1
            try:
                one_line(error, named)
            except AssertionError as fault:
                _collect(faults, fault, seed)
        except (Exception, _Slow) as fault:
            _collect(faults, fault, seed)
        taken = time.process_time() - begun
        if taken > slowest:
            slowest, slow = taken, seed
        del given
        meter.look(seed)
        if count == len(tried) // 10:
            meter.settle()
        if len(faults) >= _KINDS:
            break
    meter.end()
    gc.unfreeze()
    told = Told(reader, count + 1, refused, slowest, meter.peak, meter.held, (slow, meter.worst))
    TOLD.append(told)
    note.end(told, faults)
    if slowest > SECONDS:
        faults.setdefault("slow", f"seed {slow}: {slowest:.1f} s of processor time")
    assert not faults, f"{reader}: {len(faults)} kinds of faults\n\n" + "\n\n".join(faults.values())
    assert told.peak < peak, f"{told}: more than {peak / 2**20:.0f} MB"
    assert told.held < HELD, f"{told}: memory grows"
    assert meter.threads <= 8, f"{reader}: {meter.threads} threads are left"
    assert meter.files <= 12, f"{reader}: {meter.files} open files are left"
    return told


def one_line(error: NshotError, name: str = "") -> None:
    """That an error is one line of bearable length, which names what it is about."""
    said = str(error)
    assert 0 < len(said) < _LONGEST, f"{type(error).__name__} of {len(said)} characters: {said[:200]!r}"
    assert "\n" not in said, f"{type(error).__name__} of several lines: {said[:300]!r}"
    # a configuration may only turn out wrong against the weights
    against = isinstance(error, CheckpointError) and ".safetensors" in said
    assert name in said or against, f"{name} is not named: {said[:300]!r}"


def _collect(faults: dict[str, str], fault: BaseException, seed: int) -> None:
    """One example of each kind of fault, told apart by where it comes from."""
    frames = traceback.extract_tb(fault.__traceback__)
    ours = [frame for frame in frames if "nshot" in Path(frame.filename).parts] or frames
    where = f"{type(fault).__name__} {ours[-1].filename}:{ours[-1].lineno}"
    if isinstance(fault, AssertionError):
        where = f"{type(fault).__name__} {str(fault)[:40]}"
    if where not in faults:
        short = "".join(traceback.format_exception(fault, limit=-6, chain=False))
        faults[where] = f"seed {seed}: {short[:3000]}"


class _Slow(BaseException):
    """An input takes too long; nothing catches this on the way."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Interrupt what takes more processor time, or waits, where the system can."""

    def late(number: int, _: object) -> None:
        hung = number == signal.SIGALRM
        raise _Slow(f"it waits for {HUNG:g} s" if hung else f"more than {seconds:g} s of processor time")

    before = [(number, signal.signal(number, late)) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, HUNG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before:
            signal.signal(number, handler)


class _Note:
    """What is under way, and what came out, for whoever looks on or finds the process gone."""

    def __init__(self, reader: str) -> None:
        self._path, self._reader = os.environ.get("NSHOT_FUZZ_NOTE"), reader
        self._begun = time.process_time()

    def begin(self, seed: int) -> None:
        """Before an input."""
        if self._path:
            Path(f"{self._path}.seed").write_text(f"{self._reader}, seed {seed}\n", encoding="utf-8")

    def end(self, told: Told, faults: dict[str, str]) -> None:
        """After the last input."""
        if self._path:
            with Path(self._path).open("a", encoding="utf-8") as file:
                file.write(f"{told} in {time.process_time() - self._begun:.1f} s\n")
                file.writelines(f"  {fault}\n" for fault in faults.values())


class _Meter:
    """What the process holds, where the system tells: on Linux."""

    def __init__(self) -> None:
        self.peak = self.held = self.worst = 0
        self._threads, self._files = threading.active_count(), _open_files()
        self._settled = self._start = _resident()
        with suppress(OSError):  # let the highest mark begin anew
            Path("/proc/self/clear_refs").write_text("5")
        self._most = _highest()

    def look(self, seed: int) -> None:
        """After an input."""
        now = _highest()
        if now > self._most:
            self._most, self.worst = now, seed

    def settle(self) -> None:
        """After the first tenth: what is kept on purpose is there by now."""
        self._settled = _resident()

    def end(self) -> None:
        """After the last input."""
        self.peak = max(0, self._most - self._start) if self._start else 0
        self.held = max(0, _resident() - self._settled)
        self.threads = threading.active_count() - self._threads
        self.files = _open_files() - self._files


def _resident() -> int:
    """Bytes in memory, once everything is given back that can be; 0 where nobody tells."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    if (arrow := sys.modules.get("pyarrow")) is not None:  # it has memory of its own, and keeps it
        arrow.default_memory_pool().release_unused()
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _highest() -> int:
    if not sys.platform.startswith("linux"):
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _open_files() -> int:
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    return 0
