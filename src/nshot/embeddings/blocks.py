"""A row group of a part, read: its vectors as one array, and the columns beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.extras import pyarrow
from nshot.images.footer import row_groups
from nshot.paths import unspelled
from nshot.types import Embedded, Failure, Floats


@dataclass(frozen=True, slots=True)
class Block:
    """A row group of a part.

    Attributes:
        part: the file's name.
        table: all columns but the vectors, as pyarrow has them.
        vectors: float32[m, d], unit rows, of those rows that have one.
        there: bool[n], which rows these are.
    """

    part: str
    table: Any
    vectors: Floats
    there: NDArray[np.bool_]

    def says(self, name: str) -> bool:
        """Whether there is such a column that says anything."""
        return name in self.table.column_names and self.table.column(name).null_count < len(self.there)

    def column(self, name: str) -> list[Any]:
        """A column's values of the rows that have a vector; None of each where there is no such column."""
        if name not in self.table.column_names:
            return [None] * len(self.vectors)
        values = self.table.column(name).to_pylist()
        if len(self.vectors) == len(values):
            return values  # type: ignore[no-any-return]
        return [value for value, is_there in zip(values, self.there, strict=True) if is_there]

    def column_of(self, name: str, row: int) -> Any:
        """A column's value of a row, with or without a vector; None where there is no such column."""
        return self.table.column(name)[row].as_py() if name in self.table.column_names else None

    def rows_with(self, name: str) -> list[int]:
        """The rows, with or without a vector, of which a column says anything."""
        if not self.says(name):
            return []
        return np.flatnonzero(self.table.column(name).is_valid().to_numpy()).tolist()

    def records(self) -> Iterator[Embedded | Failure]:
        """A record per row."""
        table = self.table

        def column(name: str) -> list[Any]:
            return table.column(name).to_pylist() if name in table.column_names else [None] * len(self.there)

        rows = iter(self.vectors)
        columns = (column(name) for name in ("source", "labels", "domain", "digest", "error", "notes"))
        for is_there, source, labels, domain, digest, error, notes in zip(self.there, *columns, strict=True):
            own = None if labels is None else tuple(labels)
            name = unspelled(source or "")
            said = tuple(map(str, notes or ()))
            if is_there:
                yield Embedded(name, next(rows), own, domain, digest, notes=said)
            else:
                kind, message = split_error(error)
                yield Failure(name, kind, message, own, domain, notes=said)


def split_error(error: str | None) -> tuple[str, str]:
    """A part's error as type and message."""
    kind, colon, message = (error or "").partition(": ")
    return (
        (kind, message)
        if colon and kind.isidentifier()
        else ("UndecodableImage", error or "it has no vector")
    )


def check_texts(table: Any) -> None:
    """Refuse a table whose names are no text, or whose texts are not UTF-8.

    The latter pyarrow does not look at before a text is used.

    Raises:
        TypeError: a column is named.
        pyarrow.ArrowInvalid: a text is not UTF-8.
    """
    table.validate(full=True)
    for text in {"source", "domain", "error"} & set(table.column_names):
        kind = table.column(text).type
        if not (pyarrow().types.is_string(kind) or pyarrow().types.is_null(kind)):
            raise TypeError(f"its column {text} holds {kind}")


def block_of(name: str, table: Any) -> Block:
    """The row group that pyarrow has read as a whole.

    Raises:
        ValueError: a vector without a direction.
    """
    column = table.column("embedding")
    there = np.ones(len(column), bool)
    if column.null_count:
        there = column.is_valid().to_numpy(zero_copy_only=False)
    dimension = column.type.list_size if hasattr(column.type, "list_size") else None
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    joined = flat[0] if len(flat) == 1 else np.concatenate(flat or [np.empty(0, np.float32)])
    rows = joined.reshape(int(there.sum()), dimension or -1)
    return Block(name, table.drop_columns(["embedding"]), unit_rows(rows), there)


class Mapped:
    """Vectors that lie in a part as one array per row group, behind the levels of their page.

    pyarrow spends most of its reading on the levels, which say of each number that it is there. A part of
    nshot's without a failed image has them all, in one page, whose last bytes they are.
    """

    def __init__(
        self, path: Path, chunks: Sequence[tuple[int, int]], dtype: np.dtype[Any], length: int
    ) -> None:
        self._path, self._chunks, self._dtype, self._length = path, chunks, dtype, length

    @classmethod
    def of(cls, path: Path, file: Any, said: Mapping[str, Any]) -> Mapped | None:
        """Those of a part; None where they must be read as pyarrow reads them."""
        if said.get("page") != "one" or said.get("failed") != 0:
            return None
        kind = file.schema_arrow.field("embedding").type
        dtype = np.dtype("<f4" if kind.value_type == pyarrow().float32() else "<f2")
        with path.open("rb") as opened:
            groups = row_groups(opened)
        chunks = []
        for rows, columns in groups:
            (column,) = (each for each in columns if each.path[:1] == ("embedding",))
            end = column.start + column.packed
            if not column.plain or column.values != rows * kind.list_size:
                return None
            chunks.append((end - rows * kind.list_size * dtype.itemsize, rows))
        return cls(path, chunks, dtype, kind.list_size)

    def block(self, name: str, table: Any, group: int) -> Block:
        """A row group, whose other columns are read already."""
        start, rows = self._chunks[group]
        vectors = np.asarray(np.memmap(self._path, self._dtype, "r", start, (rows, self._length)))
        return Block(name, table, unit_rows(vectors), np.ones(rows, bool))


def unit_rows(rows: NDArray[Any]) -> Floats:
    """Rows in float32, of length 1: as they are, where they are that already.

    Raises:
        ValueError: a row without a direction.
    """
    with np.errstate(over="ignore"):
        wide: Floats = rows if rows.dtype == np.float32 else rows.astype(np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not (np.abs(length - 1) < 2e-6).all():
        good = np.isfinite(length) & (length > 0)
        if not good.all():
            raise ValueError(f"row {int(np.flatnonzero(~good)[0])} is no vector")
        wide = (wide / length[:, None]).astype(np.float32)
    return wide
