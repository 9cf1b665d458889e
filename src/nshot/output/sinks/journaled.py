"""Records as one JSON document or as Parquet, which cannot be appended to: a journal grows beside them.

``FILE.journal`` is written, and resumed, as any JSONL output is. Closing makes the file of it; ``parquet``
has the other sinks of this kind.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nshot.atomic import Lock, replacing, writing
from nshot.bounded import lines, parsed, read_json
from nshot.errors import NONSENSE, OutputError, brief
from nshot.output.sinks.formats import Format, Jsonl, Written
from nshot.output.sinks.sink import Sink
from nshot.output.sinks.target import FileTarget
from nshot.paths import unspelled
from nshot.types import DEFAULT_LIMITS

_FLUSHED = 1 << 16


class JournaledSink(Sink):
    """Writes the journal, then the file.

    Args:
        path: the file.
        resume: go on with what an earlier run left, finished or not.
        request: what was asked, in full.
        run: its short name, in each record.
        labels: all that can be answered.
        lock: what keeps other processes from the file.
        names: keep the names of what an earlier run has answered.
        format: of the journal; lines of JSON by default.
    """

    def __init__(
        self,
        path: Path,
        *,
        resume: bool,
        request: str,
        run: str = "",
        labels: Collection[str] = (),
        lock: Lock | None = None,
        names: bool = True,
        format: Format | None = None,
    ) -> None:
        self._path = path
        self._journal = Path(f"{path}.journal")
        self._continued = False
        target = FileTarget(self._journal, request=request, note=Path(f"{path}.run"))
        if resume and self._journal.exists():
            self._adopt(target)
        super().__init__(
            format or Jsonl(run),
            target,
            resume=resume,
            labels=labels,
            run=run,
            lock=lock,
            names=names,
        )

    def _records(self) -> Iterator[dict[str, Any]]:
        """The records of a finished file, as JSONL has them."""
        raise NotImplementedError

    def _lines(self) -> Iterator[bytes]:
        """The same as lines of JSON."""
        return (
            json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace")
            for record in self._records()
        )

    def _adopt(self, target: FileTarget) -> None:
        """Make an earlier run's journal one of the kind that is written here, if it is of another."""

    def _convert(self, journal: BinaryIO, part: Path) -> None:
        """Write the file from the journal."""
        raise NotImplementedError

    def _earlier(self) -> Iterator[bytes]:
        """A finished file as its journal had it."""
        return (line + b"\n" for line in self._lines())

    def _close(self, complete: bool) -> None:
        if self._continued and not self._begun:
            return  # resumed a finished run that had nothing left to do
        super()._close(complete)

    def _begin(self) -> None:
        super()._begin()
        if self._continued:
            for some in self._earlier():
                self._pending += some
                if len(self._pending) > _FLUSHED:
                    self.flush()

    def _finish(self, complete: bool) -> None:
        self._target.close()
        try:
            with replacing(self._path, locked=True) as part, self._journal.open("rb") as journal:
                self._convert(journal, part)
        except (*NONSENSE, NotImplementedError) as error:  # of a record that an earlier run left
            raise OutputError(
                f"{self._journal} holds what nshot has not written ({brief(error)}), so {self._path} cannot "
                "be made of it: the answers are lines of JSON there"
            ) from error
        if complete:
            with writing(self._path):
                self._journal.unlink()
            self._target.complete()

    def _recalled(self) -> Iterator[Written]:
        if self._journal.exists() or not self._path.exists():
            yield from super()._recalled()
            return
        for record in self._records():
            labels = tuple(told["label"] for told in record.get("predictions", ()))
            run = record.get("run", "")
            if not all(isinstance(text, str) for text in (*labels, run)):
                raise TypeError("a label that is no text")
            yield Written(unspelled(record["source"]), "error" in record, 0, labels, run)

    def _recall(self, target: FileTarget) -> int:
        self._continued = not self._journal.exists() and self._path.exists()
        if not self._continued:
            return super()._recall(target)
        named: set[str] = set()
        runs: set[str] = set()
        try:
            for record in self._recalled():
                self._count(record)
                named.update(record.labels)
                runs.add(record.run)
        except (OSError, *NONSENSE) as error:
            raise OutputError(
                f"{self._path} cannot be resumed, it does not hold nshot's answers ({brief(error)}): "
                "name another file with -o, or leave out --resume to start over"
            ) from error
        self._check_same(named, runs, self._path)
        return 0


class JsonSink(JournaledSink):
    """One JSON document: a list of what JSONL has, one record per line."""

    def _records(self) -> Iterator[dict[str, Any]]:
        if self._is_as_written():
            yield from map(parsed, self._lines())
            return
        records = read_json(self._path, DEFAULT_LIMITS.memory)
        if not isinstance(records, list):
            raise ValueError("no list")
        yield from records

    def _lines(self) -> Iterator[bytes]:
        if not self._is_as_written():
            yield from super()._lines()
            return
        with self._path.open("rb") as file:
            for line in lines(file):
                if line[:1] == b"{":
                    yield line.rstrip().removesuffix(b",")  # as it was written, digit for digit

    def _is_as_written(self) -> bool:
        """Whether a record stands on each line, so that the file need not be read whole."""
        with self._path.open("rb") as file:
            found = lines(file)
            if next(found, b"").rstrip() != b"[":
                return False
            last = b"{"
            for line in found:
                if last[:1] != b"{":
                    return False
                last = line
            return last.rstrip() == b"]"

    def _convert(self, journal: BinaryIO, part: Path) -> None:
        with part.open("wb") as file:
            before = b"[\n"
            for line in journal:
                file.write(before + line.rstrip(b"\n"))
                before = b",\n"
            file.write(b"[]\n" if before == b"[\n" else b"\n]\n")
