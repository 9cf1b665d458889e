"""The rows of .csv, .tsv and .parquet tables, as (row number, the image's path, URL or bytes)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from nshot.errors import SourceError
from nshot.extras import pyarrow

TEXT = (".csv", ".tsv")
PARQUET = (".parquet",)

# Where people and data sets put their images, the likeliest first.
_COLUMNS = (
    *("image", "img", "picture", "photo", "image_path", "img_path", "path", "file", "filename", "file_name"),
    *("filepath", "file_path", "image_file", "image_url", "url", "source"),
)
_ROWS = 16  # of a Parquet file in memory at a time; a row may hold megabytes

Row: TypeAlias = tuple[int, str | bytes | None]


def text_rows(path: Path, column: str | None = None) -> Iterator[Row]:
    """The rows of a .csv or .tsv file with a header; a semicolon separates where the header has no comma.

    Raises:
        SourceError: at once, where the file cannot be read or has no column of images; later, where a row
            cannot be parsed.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            header = file.readline(2**20)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    separator = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in header and "," not in header else ","
    try:
        names = next(csv.reader([header], delimiter=separator), [])
    except csv.Error as error:
        raise SourceError(f"{path}: {error}") from error
    return _text_rows(path, separator, names.index(_choose(path, names, column)))


def _text_rows(path: Path, separator: str, place: int) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        next(rows, None)
        try:
            for number, row in enumerate(row for row in rows if row):
                yield number, row[place] if place < len(row) else None
        except csv.Error as error:
            raise SourceError(f"{path}, line {rows.line_num}: {error}") from error


def parquet_rows(path: Path, column: str | None = None) -> Iterator[Row]:
    """The rows of a .parquet file: a column of paths or URLs, of bytes, or the Hub's {bytes, path}.

    Raises:
        MissingExtra: pyarrow is not installed.
        SourceError: at once, where the file cannot be read or has no column of images; later, where it
            turns out to be damaged.
    """
    pa = pyarrow()
    try:
        # Buffered: a column of images is otherwise read in whole row groups, which may be gigabytes.
        file = pa.parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
        schema = file.schema_arrow
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{path} is not a Parquet file that can be read: {error}") from error
    try:
        chosen = _choose(path, schema.names, column)
        kind = schema.field(chosen).type
        if not _holds_images(pa.types, kind):
            raise SourceError(f"{path}: column {chosen!r} is {kind}, not paths or bytes")
    except SourceError:
        file.close()
        raise
    return _parquet_rows(file, path, chosen, pa.ArrowException)


def _parquet_rows(file: Any, path: Path, column: str, damage: type[Exception]) -> Iterator[Row]:
    number = 0
    with file:
        try:
            for batch in file.iter_batches(batch_size=_ROWS, columns=[column], use_threads=False):
                for cell in batch.column(0):
                    value = cell.as_py()
                    if isinstance(value, dict):
                        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
                    yield number, value
                    number += 1
        except (OSError, ValueError, damage) as error:
            raise SourceError(f"{path} is damaged after row {number}: {error}") from error


def _holds_images(types: Any, kind: Any) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        return any(field.name in ("bytes", "path") for field in kind)
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(text or types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def choose(path: Path, names: Sequence[str], column: str | None, known: Sequence[str], otherwise: str) -> str:
    """The column that is asked for, or the first of the well-known ones, however they are written.

    Raises:
        SourceError: there is no such column; ``otherwise`` ends the message where none was asked for.
    """
    there = ", ".join(names) or "none"
    if column is not None:
        if column in names:
            return column
        raise SourceError(f"{path} has no column {column!r}; its columns are: {there}")
    plain = {name.strip().lower(): name for name in reversed(names)}
    for each in known:
        if each in plain:
            return plain[each]
    raise SourceError(f"{path}: none of its columns is known to hold {otherwise.format(there)}")


def _choose(path: Path, names: Sequence[str], column: str | None) -> str:
    return choose(path, names, column, _COLUMNS, "images ({}); name one, or call it 'image'")
