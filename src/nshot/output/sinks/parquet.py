"""Records as Parquet. Such a file cannot be appended to, so a journal of JSON lines grows beside it.

``FILE.journal`` is written, and resumed, as any JSONL output is. Closing makes the Parquet file of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from nshot.atomic import replace, writing
from nshot.errors import OutputError
from nshot.extras import pyarrow
from nshot.output.sinks.formats import Jsonl, score_name
from nshot.output.sinks.sink import Sink
from nshot.output.sinks.target import FileTarget
from nshot.types import Decided, Failure, LabelScore, Prediction

_ROWS = 16384  # rows a group, which is all that is in memory at once


class ParquetSink(Sink):
    """Writes the journal, then the file.

    Columns: source, label, score, cosine, margin, predictions (a list of label, score, cosine), error_type,
    error_message; decided answers have answer and labels after the label. Parquet holds only UTF-8: other
    bytes of a source's name are written as ``\\xff``.

    Raises:
        MissingExtra: there is no pyarrow.
    """

    def __init__(
        self,
        path: Path,
        *,
        resume: bool,
        request: str,
        labels: Collection[str] = (),
        decided: bool = False,
        calibrated: bool = False,
    ) -> None:
        pyarrow()  # rather now than after an hour of answers
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} is not a regular file, so Parquet cannot go there")
        self._path = path
        self._decided = decided
        self._score = score_name(calibrated)
        self._journal = Path(f"{path}.journal")
        super().__init__(
            Jsonl(),
            FileTarget(self._journal, request=request, note=Path(f"{path}.run")),
            resume=resume,
            labels=labels,
        )
        self._continued = resume and not self._journal.exists() and path.exists()
        if self._continued:
            self._recall_finished()

    def close(self, *, complete: bool) -> None:
        """Write what waits and make the Parquet file, of all the records so far."""
        if self._continued and not self._begun:
            return  # resumed a finished run that had nothing left to do
        super().close(complete=complete)

    def _begin(self) -> None:
        super()._begin()
        if self._continued:
            for record in _records(self._path):
                self._pending += self._format.encode(record)
                if len(self._pending) > 1 << 16:
                    self.flush()

    def _finish(self, complete: bool) -> None:
        pa = pyarrow()

        text, real = pa.string(), pa.float64()
        label = pa.struct([("label", text), (self._score, real), ("cosine", real)])
        answer = [("answer", text), ("labels", pa.list_(text))] if self._decided else []
        schema = pa.schema(
            [
                ("source", text),
                ("label", text),
                *answer,
                (self._score, real),
                ("cosine", real),
                ("margin", pa.float64()),
                ("predictions", pa.list_(label)),
                ("error_type", pa.string()),
                ("error_message", pa.string()),
            ]
        )
        draft = Path(f"{self._path}.tmp")
        self._target.close()
        with writing(self._path):
            try:
                with self._journal.open("rb") as lines, pa.parquet.ParquetWriter(draft, schema) as writer:
                    while rows := [_row(json.loads(line)) for line in islice(lines, _ROWS)]:
                        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                replace(draft, self._path)
            finally:
                draft.unlink(missing_ok=True)
        if complete:
            with writing(self._path):
                self._journal.unlink()
            self._target.complete()

    def _recall_finished(self) -> None:
        self.answered = Counter()
        named: set[str] = set()
        for record in _records(self._path):
            self.answered[record.source] += 1
            if isinstance(record, Failure):
                self.failed += 1
            else:
                named.update(told.label for told in record.predictions)
        self._check_labels(named, self._path)


def _row(record: dict[str, Any]) -> dict[str, Any]:
    error = record.pop("error", {"type": None, "message": None})
    row = {**record, "error_type": error["type"], "error_message": error["message"]}
    return {key: _utf8(value) if isinstance(value, str) else value for key, value in row.items()}


def _prediction(row: dict[str, Any]) -> Prediction:
    calibrated = "probability" in row
    score = score_name(calibrated)
    best = tuple(LabelScore(told["label"], told[score], told["cosine"]) for told in row["predictions"])
    if "answer" not in row:
        return Prediction(row["source"], best, row["margin"])
    return Decided(row["source"], best, row["margin"], row["answer"], tuple(row["labels"]), calibrated)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _records(path: Path) -> Iterator[Prediction | Failure]:
    """The records of a Parquet file that an earlier run has written."""
    pa = pyarrow()

    try:
        with pa.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    if row["error_type"] is not None:
                        yield Failure(row["source"], row["error_type"], row["error_message"])
                    else:
                        yield _prediction(row)
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise OutputError(
            f"{path} cannot be resumed, it does not hold nshot's answers ({error}): "
            "name another file with -o, or leave out --resume to start over"
        ) from error
