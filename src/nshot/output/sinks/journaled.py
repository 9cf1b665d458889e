"""Records as one JSON document or as Parquet, which cannot be appended to: JSON lines grow beside them.

``FILE.journal`` is written, and resumed, as any JSONL output is. Closing makes the file of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from nshot.atomic import Lock, replacing, writing
from nshot.errors import NONSENSE, OutputError, brief
from nshot.extras import pyarrow
from nshot.output.sinks.formats import Jsonl, facet_columns, kept_names, score_name
from nshot.output.sinks.sink import Sink
from nshot.output.sinks.target import FileTarget
from nshot.paths import spelled, unspelled

_ROWS = 16384  # rows per group, which is all that is in memory at once
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
    ) -> None:
        self._path = path
        self._journal = Path(f"{path}.journal")
        super().__init__(
            Jsonl(run),
            FileTarget(self._journal, request=request, note=Path(f"{path}.run")),
            resume=resume,
            labels=labels,
            run=run,
            lock=lock,
        )
        self._continued = resume and not self._journal.exists() and path.exists()
        if self._continued:
            self._recall_finished()

    def _records(self) -> Iterator[dict[str, Any]]:
        """The records of a finished file, as JSONL has them."""
        raise NotImplementedError

    def _lines(self) -> Iterator[bytes]:
        """The same as lines of JSON."""
        return (
            json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace")
            for record in self._records()
        )

    def _convert(self, lines: Iterator[bytes], part: Path) -> None:
        """Write the file from the journal's lines."""
        raise NotImplementedError

    def _close(self, complete: bool) -> None:
        if self._continued and not self._begun:
            return  # resumed a finished run that had nothing left to do
        super()._close(complete)

    def _begin(self) -> None:
        super()._begin()
        if self._continued:
            for line in self._lines():
                self._pending += line + b"\n"
                if len(self._pending) > _FLUSHED:
                    self.flush()

    def _finish(self, complete: bool) -> None:
        self._target.close()
        try:
            with replacing(self._path, locked=True) as part, self._journal.open("rb") as lines:
                self._convert(iter(lines), part)
        except (*NONSENSE, NotImplementedError) as error:  # of a record that an earlier run left
            raise OutputError(
                f"{self._journal} holds what nshot has not written ({brief(error)}), so {self._path} cannot "
                "be made of it: the answers are lines of JSON there"
            ) from error
        if complete:
            with writing(self._path):
                self._journal.unlink()
            self._target.complete()

    def _recall_finished(self) -> None:
        self.answered = Counter()
        named: set[str] = set()
        runs: set[str] = set()
        try:
            for record in self._records():
                self.answered[unspelled(record["source"])] += 1
                self.failed += "error" in record
                named.update(told["label"] for told in record.get("predictions", ()))
                runs.add(record.get("run", ""))
            if not all(isinstance(text, str) for text in named | runs):
                raise TypeError("a label that is no text")
        except (OSError, *NONSENSE) as error:
            raise OutputError(
                f"{self._path} cannot be resumed, it does not hold nshot's answers ({brief(error)}): "
                "name another file with -o, or leave out --resume to start over"
            ) from error
        self._check_same(named, runs, self._path)


class JsonSink(JournaledSink):
    """One JSON document: a list of what JSONL has, one record per line."""

    def _records(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            records = json.load(file)
        if not isinstance(records, list):
            raise ValueError("no list")
        yield from records

    def _lines(self) -> Iterator[bytes]:
        lines = self._path.read_bytes().splitlines()
        if lines[:1] == [b"["] and lines[-1:] == [b"]"] and all(line[:1] == b"{" for line in lines[1:-1]):
            return (line.removesuffix(b",") for line in lines[1:-1])  # as it was written, digit for digit
        return super()._lines()

    def _convert(self, lines: Iterator[bytes], part: Path) -> None:
        with part.open("wb") as file:
            before = b"[\n"
            for line in lines:
                file.write(before + line.rstrip(b"\n"))
                before = b",\n"
            file.write(b"[]\n" if before == b"[\n" else b"\n]\n")


class ParquetSink(JournaledSink):
    """Parquet, a row group every few thousand records.

    Columns: source, label, score, cosine, margin, predictions (a list of label, score, cosine), notes (a
    list), error_type, error_message, run; decided answers have answer and labels after the label.

    Raises:
        MissingExtra: there is no pyarrow.
    """

    def __init__(
        self,
        path: Path,
        *,
        decided: bool = False,
        calibrated: bool = False,
        placed: bool = False,
        kept: Sequence[str] = (),
        **options: Any,
    ) -> None:
        pyarrow()  # rather now than after an hour of answers
        self._kept = tuple(map(spelled, kept))
        self._decided = decided
        self._placed = placed
        self._score = score_name(calibrated)
        super().__init__(path, **options)

    @property
    def _names(self) -> dict[str, str]:
        """How the input's columns are called here -> their own names."""
        own = ["source", "label", "answer", "labels", "score", "probability", "cosine", "margin"]
        own += ["path", "depth", "coverage"] if self._placed else []
        own += ["predictions", "notes", "error_type", "error_message"]
        return dict(zip(kept_names(self._kept, own), self._kept, strict=True))

    def _records(self) -> Iterator[dict[str, Any]]:
        pa = pyarrow()
        try:
            with pa.parquet.ParquetFile(self._path) as file:
                for batch in file.iter_batches(batch_size=_ROWS):
                    yield from (_record(row, self._names) for row in batch.to_pylist())
        except pa.ArrowException as error:
            raise ValueError(str(error)) from error

    def _convert(self, lines: Iterator[bytes], part: Path) -> None:
        pa = pyarrow()
        text, real = pa.string(), pa.float64()
        label = pa.struct([("label", text), (self._score, real), ("cosine", real)])
        answer = [("answer", text), ("labels", pa.list_(text))] if self._decided else []
        if self._placed:
            answer = [("path", pa.list_(text)), ("depth", pa.int64()), ("coverage", real), *answer]
        columns = [("source", text), ("label", text), *answer, (self._score, real), ("cosine", real)]
        columns += [("margin", real), ("predictions", pa.list_(label)), ("notes", pa.list_(text))]
        columns += [("error_type", text), ("error_message", text), *([("run", text)] if self._run else [])]
        columns += [(name, text) for name in self._names]
        self._write(part, lines, columns)

    def _write(self, part: Path, lines: Iterator[bytes], columns: list[tuple[str, Any]]) -> None:
        """All records, a row group at a time."""
        pa = pyarrow()
        schema = pa.schema(columns)
        with pa.parquet.ParquetWriter(part, schema) as writer:
            while rows := [self._flat(json.loads(line)) for line in islice(lines, _ROWS)]:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def _flat(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record as a row of the table."""
        row = _row(record)
        beside = row.pop("columns", {})
        row |= {own: beside.get(name) for own, name in self._names.items()}
        return row


class FacetParquetSink(ParquetSink):
    """Parquet with the columns of ``FacetCsv``, and a column ``facets`` with the whole answers as JSON.

    Args:
        path: the file.
        facets: each facet's name -> whether it is decided, and whether it is calibrated.
        kept: columns of the input that go along.
        options: those of ``JournaledSink``.
    """

    def __init__(
        self, path: Path, *, facets: Mapping[str, tuple[bool, bool]], kept: Sequence[str] = (), **options: Any
    ) -> None:
        self._facets = dict(facets)
        self._columns = facet_columns(facets)
        super().__init__(path, kept=kept, **options)

    @property
    def _names(self) -> dict[str, str]:
        own = ["source", *self._columns, "facets", "notes", "error_type", "error_message"]
        return dict(zip(kept_names(self._kept, own), self._kept, strict=True))

    def _records(self) -> Iterator[dict[str, Any]]:
        for record in super()._records():
            facets = record.pop("facets", None)
            told = {} if facets is None else {"facets": json.loads(facets)}
            yield {key: value for key, value in record.items() if key not in self._columns} | told

    def _convert(self, lines: Iterator[bytes], part: Path) -> None:
        pa = pyarrow()
        text, real = pa.string(), pa.float64()
        kinds = {"_score": real, "_probability": real, "_cosine": real, "_margin": real}
        columns = [("source", text)]
        for name, (decided, calibrated) in self._facets.items():
            for column in facet_columns({name: (decided, calibrated)}):
                ending = column.removeprefix(name)
                columns.append((column, pa.list_(text) if ending == "_labels" else kinds.get(ending, text)))
        columns += [("facets", text), ("notes", pa.list_(text)), ("error_type", text)]
        columns += [("error_message", text), *([("run", text)] if self._run else [])]
        columns += [(name, text) for name in self._names]
        self._write(part, lines, columns)

    def _flat(self, record: dict[str, Any]) -> dict[str, Any]:
        row = super()._flat(record)
        if (facets := row.pop("facets", None)) is not None:
            for name, answer in facets.items():
                row[name] = answer["label"]
                row |= {f"{name}_{key}": answer[key] for key in answer if key != "label"}
            row["facets"] = json.dumps(facets, ensure_ascii=False)
        return row


def _row(record: dict[str, Any]) -> dict[str, Any]:
    """A record as Parquet has it."""
    error = record.pop("error", {"type": None, "message": None})
    return {**record, "error_type": error["type"], "error_message": error["message"]}


def _record(row: dict[str, Any], kept: Mapping[str, str]) -> dict[str, Any]:
    """A row as JSONL has it."""
    beside = {name: row.pop(own, None) or "" for own, name in kept.items()}
    columns = {"columns": beside} if beside else {}
    failed = row.pop("error_type"), row.pop("error_message")
    run = {"run": row["run"]} if row.get("run") else {}
    notes = {"notes": row["notes"]} if row.get("notes") else {}
    if failed[0] is not None:
        error = {"type": failed[0], "message": failed[1]}
        return {"source": row["source"], "error": error, **notes, **columns, **run}
    rest = {key: value for key, value in row.items() if key not in ("notes", "run")}
    return {**rest, **notes, **columns, **run}
