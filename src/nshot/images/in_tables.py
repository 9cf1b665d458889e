"""The images of a table's rows, with their cells of other columns."""

# Names stay as they were typed, odd bytes and leading dots included: pathlib would rewrite them.
# ruff: noqa: PTH120

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from nshot.errors import SourceError, UnreadableImage, bearable
from nshot.images import tables
from nshot.images.entries import entry, held
from nshot.images.kinds import is_image_name
from nshot.images.remarks import Remarks
from nshot.images.resolve import InStore, Resolver
from nshot.images.source import Source, is_url
from nshot.images.tables import Row, Table
from nshot.types import Limits

_EMPTY = 100_000  # rows without an image that any table may have
_TRIED = 2000  # of a table's rows, before it is said that none of its images can be found


class Names(Protocol):
    """Names in a table -> files or URLs.

    Attributes:
        notes: what had to be changed in names, each once.
    """

    notes: list[str]

    def written(self, name: str) -> str:
        """Where a name points as it is written."""

    def find(self, name: str) -> str | None:
        """What a name means, or None; LookupError where it could mean several."""


@dataclass(frozen=True, slots=True)
class InTable:
    """How the images of tables are listed.

    Attributes:
        image_column: the column that holds them; None looks for a well-known name.
        image_root: the folder or URL that names are relative to; None: the table's own.
        limits: the limits on one image.
        remarks: where it is noted how a table was read.
    """

    image_column: str | None
    image_root: str | os.PathLike[str] | None
    limits: Limits
    remarks: Remarks

    def sources(self, table: Table, *, keep_columns: bool = False) -> Iterator[Source]:
        """Each row's image, with the cells of its other columns where they are to be kept.

        Raises:
            SourceError: no such column, or not one of its images can be found.
        """
        image = table.image_column(self.image_column)
        kept = [name for name in table.columns if keep_columns and name and name != image]
        rows = self._to_the_end(table, self.rows(table, kept))
        if not kept:
            return (source for source, _ in rows)
        self.remarks.kept += [name for name in kept if name not in self.remarks.kept]
        return (
            replace(source, beside={name: _text(cell) for name, cell in zip(kept, cells, strict=True)})
            if cells
            else source
            for source, cells in rows
        )

    def _to_the_end(self, table: Table, rows: Iterator[tuple[Source, Row]]) -> Iterator[tuple[Source, Row]]:
        try:
            yield from rows
        except SourceError as error:  # damaged further on; the rows before have been listed
            yield Source.failed(table.name, UnreadableImage(str(error))), ()

    def rows(self, table: Table, columns: Sequence[str] = ()) -> Iterator[tuple[Source, Row]]:
        """Images and cells; that one image at least can be found is checked now."""
        image = table.image_column(self.image_column)
        names: Names
        if table.url is not None:
            names = InStore(table.url, self.image_root)
        else:
            names = Resolver(os.path.dirname(table.path), self.image_root, table.encoding)
        self._check(table, image, names)
        return self._rows(table, image, columns, names)

    def _rows(
        self, table: Table, image: str, columns: Sequence[str], names: Names
    ) -> Iterator[tuple[Source, Row]]:
        empty, most = 0, max(_EMPTY, table.path.stat().st_size)
        for number, (cell, *cells) in enumerate(table.rows(image, *columns)):
            value = tables.cell_image(cell)
            empty += not value
            if empty > most:  # Parquet says in a kilobyte that ten million rows hold nothing
                raise SourceError(
                    f"{table.name}: {empty:,} rows name no image, more than the file has bytes; the rest is "
                    "not read"
                )
            yield self._row(f"{table.name}[{number}]", value, names), tuple(cells)
            if number == 0:
                self._remember(table, names)
        self._remember(table, names)

    def _remember(self, table: Table, names: Names) -> None:
        for note in table.notes:
            self.remarks.note(note)
        if names.notes:
            self.remarks.note(f"the names of images in {table.name}: {'; '.join(names.notes)}")

    def _row(self, name: str, value: str | bytes | None, names: Names) -> Source:
        if isinstance(value, bytes):
            return held(name, value, self.limits)
        if not value or not value.strip():
            return Source.failed(name, UnreadableImage("the row names no image"))
        if is_url(value):
            return entry(value, self.limits)
        try:
            return entry(names.find(value) or names.written(value), self.limits)
        except LookupError as error:
            return Source.failed(names.written(value), UnreadableImage(str(error)))

    def _check(self, table: Table, image: str, names: Names) -> None:
        """Say at once that no image of a table can be found, and why that may be."""
        first = doubt = None
        for cell, *_ in itertools.islice(table.rows(image), _TRIED):
            value = tables.cell_image(cell)
            if isinstance(value, bytes) or (value and is_url(value)):
                return
            if not value or not value.strip():
                continue
            first = first or value
            try:
                if names.find(value) is not None:
                    return
            except LookupError as error:
                doubt = doubt or str(error)
        if first is None:
            raise SourceError(f"{table.name}: column {image!r} names no image in any row")
        raise SourceError(
            f"{table.name}: none of the images in column {bearable(image)!r} can be found. The first is "
            f"'{bearable(first)}', looked for at {bearable(str(names.written(first.strip())))}: "
            f"{doubt or _cause(table, image, first)}"
        )


def _text(cell: Any) -> str:
    """A cell of any table, as text."""
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False, default=str)


def _cause(table: Table, image: str, first: str) -> str:
    """The likeliest reason why a table's images are not there, and what helps."""
    others = []
    row = next(table.rows(*table.columns), ())
    for name, cell in zip(table.columns, row, strict=False):
        if name != image and isinstance(cell, str) and (is_image_name(cell) or is_url(cell)):
            others.append(name)
    if others and not is_image_name(first):
        return f"column {others[0]!r} looks like names of images, so try --image-column {others[0]!r}"
    if not is_image_name(first) and " " in first.strip():
        return "that is no name of a file: name the column of images with --image-column"
    ending = "" if is_image_name(first) else ", with their endings if there are several of one name,"
    return f"say which folder the names{ending} are relative to with --image-root FOLDER"
