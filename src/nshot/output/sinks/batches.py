"""Parquet from many answers at once: its journal holds batches of Arrow, which become row groups as they are.

The file is the one that ``ParquetSink`` writes, byte for byte. A journal that is not of this kind (of images,
or of an earlier version) is turned into one when it is gone on with, and the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from nshot.extras import pyarrow
from nshot.output.sinks.formats import Jsonl, Record, Written
from nshot.output.sinks.many import as_written, spelled_names
from nshot.paths import unspelled

if TYPE_CHECKING:
    from nshot.output.sinks.many import Many

ROWS = 16384  # in a row group, and read at once
_MARK = b"\xff\xff\xff\xff"  # what a message of Arrow begins with, and no line of JSON


class Batches:
    """Answers as batches of Arrow, one after the other.

    Args:
        schema: the columns of the file.
        run: a short name of the request, by which a later run knows whether it may go on; may be empty.
    """

    def __init__(self, schema: Any, run: str = "") -> None:
        self.schema = schema
        self._run = run
        self._lines = Jsonl(run)
        self.header = schema.serialize().to_pybytes()

    def encode(self, record: Record) -> bytes:
        """A batch of one row."""
        return self._message(self._table([json.loads(self._lines.encode(record))]))

    def encode_many(self, many: Many) -> bytes:
        """A batch of them all."""
        pa = pyarrow()
        answers = many.answers
        names = pa.array(many.labels, pa.string())
        count, told = answers.labels.shape
        labels = names.take(pa.array(answers.labels.ravel()))
        scores, cosines = as_written(answers.scores), as_written(answers.cosines)
        label = self.schema.field("predictions").type.value_type
        several = pa.StructArray.from_arrays(
            [labels, pa.array(scores.ravel()), pa.array(cosines.ravel())], fields=list(label)
        )
        alone = np.isnan(answers.margins)
        columns = {
            "source": spelled_names(many.sources),
            "label": names.take(pa.array(np.ascontiguousarray(answers.labels[:, 0]))),
            "score": pa.array(np.ascontiguousarray(scores[:, 0])),
            "cosine": pa.array(np.ascontiguousarray(cosines[:, 0])),
            "margin": pa.array(as_written(answers.margins), mask=alone),
            "predictions": pa.ListArray.from_arrays(
                pa.array(np.arange(0, count * told + 1, told, dtype=np.int32)), several
            ),
        }
        if self._run:
            columns["run"] = pa.array([self._run] * count, pa.string())
        table = pa.Table.from_arrays(
            [columns.get(each.name, pa.nulls(count, each.type)) for each in self.schema], schema=self.schema
        )
        if many.odd:
            rows = sorted(many.odd)
            odd = self._table([json.loads(self._lines.encode(many.odd[row])) for row in rows])
            order = np.arange(count)
            order[rows] = count + np.arange(len(rows))
            table = pa.concat_tables([table, odd]).take(pa.array(order))
        return self._message(table)

    def of_lines(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Batches of a journal of lines."""
        rest = iter(lines)
        while some := [json.loads(line) for line in islice(rest, ROWS)]:
            yield self._message(self._table(some))

    def of_batches(self, batches: Iterable[Any]) -> Iterator[bytes]:
        """Batches of a file of these columns."""
        pa = pyarrow()
        for batch in batches:
            table = pa.Table.from_batches([batch])
            if sorted(table.column_names) != sorted(self.schema.names):
                raise ValueError("other columns")
            yield self._message(table.select(self.schema.names).cast(self.schema))

    def read(self, file: BinaryIO) -> Iterator[Written]:
        """See ``Format.read``."""
        file.seek(0)
        if (header := file.read(len(self.header))) != self.header:
            if self.header.startswith(header):  # torn within the header
                return
            raise ValueError("other columns")
        before = file.tell()
        for batch in batches_in(file):
            at = file.tell()
            sizes = [0] * (batch.num_rows - 1) + [at - before]
            before = at
            told = batch.column("predictions")
            labels = told.flatten().field(0).to_pylist()
            ends = np.concatenate([[0], np.cumsum(told.value_lengths().fill_null(0).to_numpy())]).tolist()
            runs = batch.column("run").to_pylist() if self._run else [""] * batch.num_rows
            failed = batch.column("error_type").is_valid().to_pylist()
            sources = batch.column("source").to_pylist()
            for row, (source, bad, run, size) in enumerate(zip(sources, failed, runs, sizes, strict=True)):
                own = tuple(labels[ends[row] : ends[row + 1]])
                yield Written(unspelled(source), bad, size, own, run)

    def _table(self, records: Sequence[dict[str, Any]]) -> Any:
        return pyarrow().Table.from_pylist(list(map(row_of, records)), schema=self.schema)

    def _message(self, table: Any) -> bytes:
        (batch,) = table.combine_chunks().to_batches()
        return batch.serialize().to_pybytes()  # type: ignore[no-any-return]


def is_batches(journal: Path) -> bool:
    """Whether a journal holds batches, and not lines."""
    try:
        with journal.open("rb") as file:
            return file.read(len(_MARK)) == _MARK
    except OSError:
        return False


def schema_in(journal: BinaryIO) -> Any:
    """The columns of a journal's batches."""
    journal.seek(0)
    return pyarrow().ipc.read_schema(journal)


def batches_in(journal: BinaryIO) -> Iterator[Any]:
    """The whole batches of a journal."""
    pa = pyarrow()
    journal.seek(0)
    messages = pa.ipc.MessageReader.open_stream(journal)
    schema = pa.ipc.read_schema(messages.read_next_message())
    while True:
        try:
            message = messages.read_next_message()
        except (StopIteration, pa.ArrowInvalid, OSError):  # the end, or torn within a batch
            return
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate(full=True)
        yield batch


def write_tables(path: Path, schema: Any, batches: Iterable[Any]) -> None:
    """Write batches as a file of row groups, all of them full but for the last."""
    pa = pyarrow()
    with pa.parquet.ParquetWriter(path, schema) as writer:
        waiting = pa.Table.from_batches([], schema)
        for batch in batches:
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
            while len(waiting) >= ROWS:
                writer.write_table(waiting.slice(0, ROWS).combine_chunks())
                waiting = waiting.slice(ROWS)
        if len(waiting):
            writer.write_table(waiting.combine_chunks())


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """A record of JSON lines as Parquet has it."""
    error = record.pop("error", {"type": None, "message": None})
    return {**record, "error_type": error["type"], "error_message": error["message"]}
