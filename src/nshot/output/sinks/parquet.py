"""Answers as Parquet: a journal of lines, or of batches, and the file that is made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from nshot.atomic import replacing, writing
from nshot.extras import pyarrow
from nshot.output.sinks.batches import ROWS, Batches, batches_in, is_batches, row_of, schema_in, write_tables
from nshot.output.sinks.formats import facet_columns, kept_names, score_name
from nshot.output.sinks.journaled import JournaledSink
from nshot.output.sinks.target import FileTarget
from nshot.paths import spelled


class ParquetSink(JournaledSink):
    """Parquet, a row group every few thousand records.

    Columns: source, label, score, cosine, margin, predictions (a list of label, score, cosine), notes (a
    list), error_type, error_message, run; decided answers have answer and labels after the label, and those
    of a cascade stage before the notes.

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
        staged: bool = False,
        kept: Sequence[str] = (),
        **options: Any,
    ) -> None:
        pyarrow()  # rather now than after an hour of answers
        self._kept = tuple(map(spelled, kept))
        self._decided = decided
        self._placed = placed
        self._staged = staged
        self._score = score_name(calibrated)
        super().__init__(path, **options)

    @property
    def _names(self) -> dict[str, str]:
        """How the input's columns are called here -> their own names."""
        own = ["source", "label", "answer", "labels", "score", "probability", "cosine", "margin"]
        own += ["path", "depth", "coverage"] if self._placed else []
        own += ["predictions", *(["stage"] if self._staged else []), "notes", "error_type", "error_message"]
        return dict(zip(kept_names(self._kept, own), self._kept, strict=True))

    def _records(self) -> Iterator[dict[str, Any]]:
        pa = pyarrow()
        try:
            with pa.parquet.ParquetFile(self._path) as file:
                for batch in file.iter_batches(batch_size=ROWS):
                    yield from (_record(row, self._names) for row in batch.to_pylist())
        except pa.ArrowException as error:
            raise ValueError(str(error)) from error

    def _adopt(self, target: FileTarget) -> None:
        if not is_batches(self._journal):
            return
        target.check_resumable(1)
        with replacing(self._path, locked=True) as part, self._journal.open("rb") as journal:
            write_tables(part, schema_in(journal), batches_in(journal))
        with writing(self._path):
            self._journal.unlink()

    def _convert(self, journal: BinaryIO, part: Path) -> None:
        self._write(part, journal, self._columns)

    @property
    def _columns(self) -> list[tuple[str, Any]]:
        pa = pyarrow()
        text, real = pa.string(), pa.float64()
        label = pa.struct([("label", text), (self._score, real), ("cosine", real)])
        answer = [("answer", text), ("labels", pa.list_(text))] if self._decided else []
        if self._placed:
            answer = [("path", pa.list_(text)), ("depth", pa.int64()), ("coverage", real), *answer]
        columns = [("source", text), ("label", text), *answer, (self._score, real), ("cosine", real)]
        columns += [("margin", real), ("predictions", pa.list_(label))]
        columns += [*([("stage", text)] if self._staged else []), ("notes", pa.list_(text))]
        columns += [("error_type", text), ("error_message", text), *([("run", text)] if self._run else [])]
        return columns + [(name, text) for name in self._names]

    def _write(self, part: Path, lines: Iterator[bytes], columns: list[tuple[str, Any]]) -> None:
        """All records, a row group at a time."""
        pa = pyarrow()
        schema = pa.schema(columns)
        with pa.parquet.ParquetWriter(part, schema) as writer:
            while rows := [self._flat(json.loads(line)) for line in islice(lines, ROWS)]:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def _flat(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record as a row of the table."""
        row = row_of(record)
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
        self._facet_columns = facet_columns(facets)
        super().__init__(path, kept=kept, **options)

    @property
    def _names(self) -> dict[str, str]:
        own = ["source", *self._facet_columns, "facets", "notes", "error_type", "error_message"]
        return dict(zip(kept_names(self._kept, own), self._kept, strict=True))

    def _records(self) -> Iterator[dict[str, Any]]:
        for record in super()._records():
            facets = record.pop("facets", None)
            told = {} if facets is None else {"facets": json.loads(facets)}
            yield {key: value for key, value in record.items() if key not in self._facet_columns} | told

    @property
    def _columns(self) -> list[tuple[str, Any]]:
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
        return columns + [(name, text) for name in self._names]

    def _flat(self, record: dict[str, Any]) -> dict[str, Any]:
        row = super()._flat(record)
        if (facets := row.pop("facets", None)) is not None:
            for name, answer in facets.items():
                row[name] = answer["label"]
                row |= {f"{name}_{key}": answer[key] for key in answer if key != "label"}
            row["facets"] = json.dumps(facets, ensure_ascii=False)
        return row


class BatchedParquetSink(ParquetSink):
    """The same file from many answers at once: its journal holds batches.

    Args:
        path: the file.
        options: those of ``JournaledSink``.
    """

    def __init__(self, path: Path, *, run: str = "", **options: Any) -> None:
        self._run = run
        self._score = score_name(False)
        self._decided = self._placed = self._staged = False
        self._kept = ()
        self._batches = Batches(pyarrow().schema(self._columns), run)
        super().__init__(path, run=run, format=self._batches, **options)

    def _adopt(self, target: FileTarget) -> None:
        if is_batches(self._journal) or not self._journal.stat().st_size:
            return
        target.check_resumable(1)
        with replacing(self._journal, locked=True) as part, self._journal.open("rb") as lines:
            whole = (line for line in lines if line.endswith(b"\n"))
            with part.open("wb") as made:
                made.write(self._batches.header)
                made.writelines(self._batches.of_lines(whole))

    def _earlier(self) -> Iterator[bytes]:
        with pyarrow().parquet.ParquetFile(self._path) as file:
            yield from self._batches.of_batches(file.iter_batches(batch_size=ROWS))

    def _convert(self, journal: BinaryIO, part: Path) -> None:
        write_tables(part, self._batches.schema, batches_in(journal))


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
