"""Plain records, such as a search's hits, into JSONL, CSV or Parquet: a whole file or none."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from nshot.atomic import check_output, replace, writing
from nshot.errors import OutputError
from nshot.extras import pyarrow
from nshot.paths import spelled

FORMATS = ("jsonl", "csv", "parquet")


def write_records(
    records: Iterable[dict[str, Any]],
    columns: Sequence[str],
    format: str,
    output: Path | None,
    stream: BinaryIO,
) -> None:
    """Write records that all have the same columns.

    Args:
        records: what to write; lists are joined by a bar in CSV.
        columns: their keys, in order.
        format: jsonl, csv or parquet.
        output: the file; None for the stream.
        stream: where records go without ``output``.

    Raises:
        OutputError: they cannot be written there, or Parquet without a file.
        MissingExtra: Parquet without pyarrow.
    """
    if format == "parquet":
        if output is None:
            raise OutputError("Parquet needs a file: name it with -o")
        pa = pyarrow()
        rows = [{name: _told(record[name]) for name in columns} for record in records]
        table = pa.table({name: pa.array([row[name] for row in rows]) for name in columns})
        held = io.BytesIO()
        pa.parquet.write_table(table, held)
        write_whole(output, held.getvalue())
        return
    data = _jsonl(records, columns) if format == "jsonl" else _csv(records, columns)
    if output is not None:
        write_whole(output, data)
        return
    stream.write(data)
    stream.flush()


def write_whole(output: Path, data: bytes) -> None:
    """Put a file in its place, all of it or nothing; a device or a pipe is written as it is.

    Raises:
        OutputError: it cannot be written.
    """
    path = check_output(output)
    with writing(output):
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        draft = Path(f"{path}.tmp")
        try:
            draft.write_bytes(data)
            replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def _jsonl(records: Iterable[dict[str, Any]], columns: Sequence[str]) -> bytes:
    lines = [
        json.dumps({name: _told(record[name]) for name in columns}, ensure_ascii=False) for record in records
    ]
    return "".join(line + "\n" for line in lines).encode()


def _csv(records: Iterable[dict[str, Any]], columns: Sequence[str]) -> bytes:
    held = io.StringIO()
    rows = csv.writer(held, lineterminator="\n")
    rows.writerow(columns)
    for record in records:
        rows.writerow([_cell(_told(record[name])) for name in columns])
    return held.getvalue().encode()


def _told(value: Any) -> Any:
    """Names in printable text; six decimals, so that the noise of float32 does not show."""
    if isinstance(value, list):
        return [_told(each) for each in value]
    if isinstance(value, str):
        return spelled(value)
    return round(value, 6) if isinstance(value, float) else value


def _cell(value: Any) -> Any:
    """A value in a cell; an apostrophe keeps a spreadsheet from taking a text for a formula."""
    if isinstance(value, list):
        value = "|".join(map(str, value))
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value
