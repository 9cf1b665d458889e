"""The sink: records in, bytes out in time, and the account of what an earlier run has answered."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from nshot.atomic import Lock
from nshot.errors import NONSENSE, OutputError, brief
from nshot.output.sinks.formats import ByColumns, Format, Record, Written
from nshot.output.sinks.target import FileTarget, StreamTarget
from nshot.paths import spelled
from nshot.types import Failure

if TYPE_CHECKING:
    from nshot.output.sinks.many import Many

_BUFFER = 1 << 16  # bytes that wait at most
_PATIENCE = 0.2  # seconds since the last write after which a record does not wait for others


class InOrder:
    """Names in an order, of which no more is kept than tells it from any other.

    Attributes:
        count: how many.
    """

    def __init__(self) -> None:
        self.count = 0
        self._said = hashlib.sha256()

    def add(self, name: str) -> None:
        """One more."""
        self.extend(f"{spelled(name)}\n".encode(), 1)

    def extend(self, names: bytes, count: int) -> None:
        """Some more, each spelled and with a newline behind it."""
        self.count += count
        self._said.update(names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InOrder) and self._said.digest() == other._said.digest()

    __hash__ = None  # type: ignore[assignment]


class Sink:
    """Writes records. Use it in a ``with`` block, and ``close(complete=True)`` at the end of the run.

    Leaving the block otherwise (Ctrl-C, an error) keeps every whole record for a later run to go on from.

    Attributes:
        answered: names of the sources that an earlier run has answered, each as often as it was; empty where
            names were not to be kept (``names_of_answered`` reads them then).
        recalled: the same in their order, as far as it tells whether another order is this one.
        failed: failures so far, an earlier run's included.
    """

    def __init__(
        self,
        format: Format,
        target: StreamTarget | FileTarget,
        *,
        resume: bool = False,
        labels: Collection[str] = (),
        run: str = "",
        lock: Lock | None = None,
        names: bool = True,
    ) -> None:
        self._run = run
        self._lock = lock
        self._keeps_names = names
        self.answered: Counter[str] = Counter()
        self.recalled = InOrder()
        self.failed = 0
        self._format = format
        self._labels = frozenset(labels)
        self._target = target
        self._keep: int | None = None  # bytes of an earlier run
        self._pending = bytearray()
        self._written = 0.0
        self._begun = self._closed = False
        if resume:
            assert isinstance(target, FileTarget)
            self._keep = self._recall(target)

    def write(self, record: Record) -> None:
        """Take a record; it reaches the system at once, or soon where many come quickly.

        Raises:
            OutputError: it cannot be written; the records before it are kept.
            BrokenPipeError: nobody reads any more.
        """
        data = self._format.encode(record)
        if not self._begun:
            self._begin()
        self._pending += data
        self.failed += isinstance(record, Failure)
        if len(self._pending) >= _BUFFER or time.monotonic() - self._written >= _PATIENCE:
            self.flush()

    def encode(self, many: Many) -> bytes:
        """The bytes of many answers, for ``take``; any thread may ask for them.

        Raises:
            ValueError: a number that is not finite.
        """
        assert isinstance(self._format, ByColumns)
        return self._format.encode_many(many)

    def take(self, data: bytes, failed: int) -> None:
        """Write what ``encode`` made, at once.

        Args:
            data: the bytes.
            failed: how many failures are among them.

        Raises:
            OutputError: it cannot be written; what came before is kept.
            BrokenPipeError: nobody reads any more.
        """
        if not self._begun:
            self._begin()
        self._pending += data
        self.failed += failed
        self.flush()

    def names_of_answered(self) -> Counter[str]:
        """What ``answered`` holds, read from the file; before anything is written."""
        if self._keeps_names:
            return self.answered
        return Counter(each.source for each in self._recalled())

    def flush(self) -> None:
        """Hand over what waits."""
        if self._pending:
            self._target.append(self._pending)
        self._written = time.monotonic()

    def close(self, *, complete: bool) -> None:
        """Write what waits and close; a second call does nothing.

        Args:
            complete: the request is answered in full, so there will be nothing to resume.
        """
        try:
            self._close(complete)
        finally:
            if self._lock is not None:
                self._lock.release()

    def _close(self, complete: bool) -> None:
        if self._closed or not (self._begun or complete):
            return
        self._closed = True
        if not self._begun:
            self._begin()
        try:
            self.flush()
        except BaseException:
            with suppress(OutputError):
                self._target.close()
            raise
        self._finish(complete)

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close(complete=True)
        else:
            with suppress(OutputError, BrokenPipeError):  # the first error is the one to tell
                self.close(complete=False)

    def _begin(self) -> None:
        self._target.begin(self._keep)
        self._begun = True
        if not self._keep:
            self._pending += self._format.header

    def _finish(self, complete: bool) -> None:
        self._target.close()
        if complete:
            self._target.complete()

    def _recalled(self) -> Iterator[Written]:
        """What an earlier run has written."""
        assert isinstance(self._target, FileTarget)
        with self._target.path.open("rb") as file:
            yield from self._format.read(file)

    def _recall(self, target: FileTarget) -> int:
        """Count what is answered already; the length of the whole records in bytes."""
        whole = 0
        named: set[str] = set()
        runs: set[str] = set()
        try:
            for record in self._recalled():
                self._count(record)
                whole += record.size
                named.update(record.labels)
                runs.add(record.run)
            if whole or target.path.stat().st_size == len(self._format.header):
                whole += len(self._format.header)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise OutputError(f"cannot read {target.path}: {error.strerror or error}") from error
        except NONSENSE as error:
            raise OutputError(
                f"{target.path} cannot be resumed: record {self.recalled.count + 1} is not one of this "
                f"request ({brief(error)}); name another file with -o, or leave out --resume to start over"
            ) from error
        target.check_resumable(whole)
        self._check_same(named, runs, target.path)
        return whole

    def _count(self, record: Written) -> None:
        self.recalled.add(record.source)
        self.failed += record.failed
        if self._keeps_names:
            self.answered[record.source] += 1

    def _check_same(self, named: set[str], runs: set[str], path: Path) -> None:
        """A run that was finished has left no note of its request: its answers tell labels and run."""
        if self._labels and (strange := sorted(named - self._labels)):
            raise OutputError(
                f"{path} holds answers for other labels ({', '.join(map(repr, strange[:5]))}): "
                "give the same, name another file with -o, or leave out --resume to start over"
            )
        if self._run and runs - {self._run}:
            raise OutputError(
                f"{path} holds answers of another request (another model, labels or options): "
                "repeat that one, name another file with -o, or leave out --resume to start over"
            )
