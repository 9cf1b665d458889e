"""One reader of tables: .csv, .tsv, .jsonl, .json, .xml and .parquet give rows of the columns asked for.

Whoever wants an image and its label, its caption or its domain asks for them in one go, so that what belongs
to an image travels with it. How a table was understood is noted beside it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from nshot.bounded import weighed
from nshot.errors import SourceError, UnreadableImage, brief
from nshot.extras import pyarrow
from nshot.images import bombs
from nshot.images.delimited import open_delimited, plain
from nshot.images.footer import largest_page, row_groups
from nshot.types import DEFAULT_LIMITS

TEXT = (".csv", ".tsv")
JSON = (".jsonl", ".ndjson", ".json")
XML = (".xml",)
PARQUET = (".parquet",)
ENDINGS = (*TEXT, *JSON, *XML, *PARQUET)
"""What is read as a table by its name."""

IMAGE_COLUMNS = (
    *("image", "img", "picture", "photo", "image_path", "img_path", "path", "file", "filename", "file_name"),
    *("filepath", "file_path", "image_file", "image_filename", "image_name", "img_name", "image_url", "url"),
    *(
        "source",
        "uri",
        "images",
        "image_id",
        "imageid",
        "img_id",
        "photo_id",
        "picture_id",
        "key",
        "fname",
        "id",
    ),
)
"""Where people and data sets put their images, the likeliest first."""

LABEL_COLUMNS = (
    *("label", "labels", "class", "category", "target", "species", "tags", "fine_label", "class_name"),
    *("label_name", "category_name", "classname", "classes", "categories", "choice", "choices", "annotation"),
    *(
        "truth",
        "ground_truth",
        "label_id",
        "class_id",
        "category_id",
        "tag",
        "file_attributes",
        "region_attributes",
    ),
)
"""Where they put the labels."""

_KNOWN = frozenset(
    (*IMAGE_COLUMNS, *LABEL_COLUMNS, "caption", "text", "title", "sentence", "description", "name")
)
_IMAGES_ROWS, _ROWS = 16, 4096  # of a Parquet file in memory at a time; a row of images may hold megabytes
_MOST_UNPACKED, _MOST_PACKED = 2**26, 100  # bytes of a column's part, and how many to one packed
_LARGE_PAGE, _OF_IMAGES = 2**28, 4  # bytes of a page, and how many to one packed where it is larger
_LONGEST_TEXT = 2**20  # characters of a cell
_LIGHT = 4096  # bytes or characters of a value that does not count as unpacked
_SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")

Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose form is known; its rows are read when they are asked for.

    Attributes:
        path: the file.
        url: where the file was copied from, if it was: what it names lies there.
        columns: the names of its columns.
        notes: what a person should know about how it was read; more may come while rows are read.
        headless: whether it has no header, so that its columns are numbers.
        names: of a column that holds numbers, the names that the file itself gives them.
        lists: columns that hold lists.
        form: what wrote it, where that is known ("COCO", "Label Studio" ...).
        encoding: of its text.
    """

    path: Path
    columns: tuple[str, ...]
    notes: list[str]
    _read: Callable[[Sequence[str]], Iterator[Row]]
    headless: bool = False
    names: dict[str, list[str]] = field(default_factory=dict)
    lists: frozenset[str] = frozenset()
    form: str | None = None
    encoding: str = "utf-8"
    _unfit: Callable[[str], str | None] = lambda _: None
    url: str | None = None
    _folder: object = None

    @property
    def name(self) -> str:
        """As a person would write it."""
        return self.url or str(self.path)

    def copied(self, url: str, folder: object) -> Table:
        """The same table, which is a copy.

        Args:
            url: of what.
            folder: where the copy is, which lasts as long as the table.
        """
        return replace(self, url=url, _folder=folder)

    def rows(self, *columns: str) -> Iterator[Row]:
        """The cells of these columns, row after row: str or None in text tables, whatever there is in others.

        Raises:
            SourceError: where the table turns out to be damaged.
        """
        return self._read(columns)

    def column(self, wanted: str | None, known: Sequence[str], otherwise: str) -> str:
        """The column that is asked for, or the first of the well-known ones, however they are written.

        Raises:
            SourceError: there is no such column; ``otherwise`` ends the message where none was asked for.
        """
        there = ", ".join(filter(None, self.columns)) or "none"
        if wanted is not None:
            alike = [name for name in self.columns if name == wanted]
            alike = alike or [name for name in self.columns if plain(name) == plain(wanted)]
            if len(alike) == 1:
                return alike[0]
            if alike:
                raise SourceError(f"{self.name} has {len(alike)} columns called {wanted!r}: rename one")
            near = difflib.get_close_matches(wanted, self.columns, 1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise SourceError(f"{self.name} has no column {wanted!r}{meant}; its columns are: {there}")
        found = self.known(known)
        if not found:
            raise SourceError(
                f"{self.name}: none of its columns is known to hold {otherwise.format(there)}; if that is "
                "a row and no header, put a line of names above it"
            )
        if self.columns.count(found[0]) > 1:
            raise SourceError(f"{self.name} has several columns called {found[0]!r}: rename one")
        return found[0]

    def known(self, known: Sequence[str]) -> list[str]:
        """The columns that have well-known names, the likeliest first."""
        there = {plain(name): name for name in reversed(self.columns)}
        return [there[name] for name in known if name in there]

    def image_column(self, wanted: str | None = None) -> str:
        """The column that holds the images.

        Raises:
            SourceError: no such column, none that is known, or one that cannot hold images.
        """
        obvious = len(self.columns) == 1 or (len(self.columns) == 2 and self.known(LABEL_COLUMNS))
        if wanted is None and not self.known(IMAGE_COLUMNS) and (self.headless or obvious):
            wanted = self._first(_looks_like_image)
        chosen = self.column(
            wanted, IMAGE_COLUMNS, "images ({}); name one with --image-column, or call it 'image'"
        )
        if kind := self._unfit(chosen):
            raise SourceError(f"{self.name}: column {chosen!r} is {kind}, not paths or bytes")
        return chosen

    def _first(self, fits: Callable[[Any], bool]) -> str | None:
        row = next(self.rows(*self.columns), ())
        return next((name for name, cell in zip(self.columns, row, strict=False) if fits(cell)), None)


def is_table(name: str) -> bool:
    """Whether a file is read as a table, by its name."""
    return name.lower().endswith(ENDINGS)


def open_table(path: Path, *, blanks: bool = False, memory: int = DEFAULT_LIMITS.memory) -> Table:
    """A table, its form found out; a text file of another ending is read like a .csv.

    Args:
        path: the file.
        blanks: whether blanks may separate the cells of a text.
        memory: bytes that JSON or XML may take, which are read whole.

    Raises:
        SourceError: it cannot be read, or is no table.
        MissingExtra: Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix in _SPREADSHEETS:
        raise SourceError(f"{path} is a spreadsheet: save it as CSV (UTF-8) and give that file")
    if suffix in PARQUET:
        return _parquet(path)
    if suffix in (*JSON, *XML):
        return _records(path, memory)
    text = open_delimited(path, _KNOWN, blanks=blanks)

    def read(columns: Sequence[str]) -> Iterator[Row]:
        places = [text.columns.index(column) for column in columns]
        return (tuple(cells[place] for place in places) for cells in text.rows())

    return Table(path, tuple(text.columns), text.notes, read, headless=text.headless, encoding=text.encoding)


def cell_image(cell: Any) -> str | bytes | None:
    """What a cell says of its image: a path or a URL, its bytes, or nothing; or the Hub's pair of both."""
    if isinstance(cell, dict):
        data = cell.get("bytes")
        cell = data if data is not None else cell.get("path") or cell.get("url")
    if isinstance(cell, list) and len(cell) == 1:
        return cell_image(cell[0])
    if cell is None or isinstance(cell, (str, bytes)):
        return cell
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell) if isinstance(cell, int) and not isinstance(cell, bool) else None


def _records(path: Path, memory: int) -> Table:
    """A table out of JSON, lines of JSON or XML."""
    from nshot.images import records

    try:
        found = records.read(path, memory)
        columns, lists = found.described()
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise SourceError(f"{path} is no export of a tool that nshot knows: {brief(error)}") from error

    def read(columns: Sequence[str]) -> Iterator[Row]:
        return (tuple(row.get(column) for column in columns) for row in found.rows)

    return Table(
        path,
        tuple(columns),
        found.notes,
        read,
        lists=frozenset(lists),
        form=found.form,
    )


def _parquet(path: Path) -> Table:
    pa = pyarrow()
    try:
        schema = pa.parquet.read_schema(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{path} is not a Parquet file that can be read: {brief(error)}") from error
    kinds = {name: schema.field(place).type for place, name in enumerate(schema.names)}

    def pictures(column: str) -> str | None:
        return None if _holds_images(pa.types, kinds[column]) else str(kinds[column])

    notes: list[str] = []

    def read(columns: Sequence[str]) -> Iterator[Row]:
        return _parquet_rows(pa, path, columns, kinds, notes)

    lists = {name for name, kind in kinds.items() if pa.types.is_list(kind) or pa.types.is_large_list(kind)}
    names = _feature_names(schema.metadata or {})
    columns = tuple(schema.names)
    return Table(path, columns, notes, read, names=names, lists=frozenset(lists), _unfit=pictures)


def _parquet_rows(
    pa: Any, path: Path, columns: Sequence[str], kinds: Mapping[str, Any], notes: list[str]
) -> Iterator[Row]:
    wanted, number, unpacked = list(dict.fromkeys(columns)), 0, 0
    shared = [leaf for column in wanted for leaf in _leaves(pa.types, column, kinds[column])]
    try:
        # Buffered: a column of images is otherwise read in whole row groups, which may be gigabytes.
        # A dictionary stays one: a value that all rows share is otherwise repeated in memory for each.
        with pa.parquet.ParquetFile(
            path, buffer_size=2**20, pre_buffer=False, read_dictionary=shared
        ) as file:
            largest, packed = _sizes(path, wanted)
            images = any(_holds_bytes(pa.types, kinds[column]) for column in wanted)
            size = min(_IMAGES_ROWS if images else _ROWS, max(1, _MOST_UNPACKED // max(1, largest)))
            for batch in file.iter_batches(batch_size=size, columns=wanted, use_threads=False):
                held = [batch.column(column) for column in columns]
                for row in range(batch.num_rows):
                    cells = tuple(_cell(pa, column[row]) for column in held)
                    if any(map(_is_long, cells)):
                        cells = tuple(None if _is_long(cell) else cell for cell in cells)
                        told = f"{path}: texts of more than {_LONGEST_TEXT:,} characters are read as none"
                        if told not in notes:
                            notes.append(told)
                    unpacked += sum(map(_weight, cells))
                    bombs.refuse(unpacked, packed)  # all rows may share a value
                    yield cells
                    number += 1
    except UnreadableImage as error:
        raise SourceError(f"{path}: row {number}: {error}") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{path} is damaged after row {number}: {brief(error)}") from error


_LONG = object()


def _is_long(cell: Any) -> bool:
    return cell is _LONG or (isinstance(cell, str) and len(cell) > _LONGEST_TEXT)


def _weight(cell: Any) -> int:
    """Bytes of a cell's images and long texts; what names an image may be shared by any number of rows."""
    if isinstance(cell, (bytes, str)):
        return len(cell) if len(cell) > _LIGHT else 0
    if isinstance(cell, dict):
        return sum(map(_weight, cell.values()))
    return sum(map(_weight, cell)) if isinstance(cell, list) else 0


def _sizes(path: Path, columns: Sequence[str]) -> tuple[int, int]:
    """Bytes of a value of the columns, the mean of the part of the file where that is largest; and those that
    they take in the file.

    Raises:
        SourceError: a column that kilobytes unpack to gigabytes: a page is unpacked at a time, of any size.
    """
    largest = packed = 0
    with path.open("rb") as file:
        for rows, chunks in row_groups(file):
            for chunk in chunks:
                if not chunk.path or chunk.path[0] not in columns:
                    continue
                page = largest_page(file, chunk)
                unpacked = max(chunk.unpacked, page)
                if unpacked > max(_MOST_UNPACKED, _MOST_PACKED * chunk.packed) or (
                    page > max(_LARGE_PAGE, _OF_IMAGES * chunk.packed)
                ):
                    raise SourceError(
                        f"{path}: column {'.'.join(chunk.path)} unpacks from {chunk.packed:,} to "
                        f"{unpacked:,} bytes, which no column of images does"
                    )
                largest = max(largest, chunk.unpacked // max(1, rows))
                packed += max(0, chunk.packed)
        return largest, min(packed, file.seek(0, os.SEEK_END))


def _cell(pa: Any, scalar: Any) -> Any:
    if pa.types.is_dictionary(scalar.type):
        scalar = scalar.value
    if _is_text(pa.types, scalar.type) and scalar.is_valid and scalar.as_buffer().size > 4 * _LONGEST_TEXT:
        return _LONG  # all rows may share it: a copy for each takes time
    try:
        return scalar.as_py()
    except UnicodeDecodeError:  # a file's name may be of any bytes; within a pair or a list it names nothing
        if not _is_text(pa.types, scalar.type):
            return None
        return scalar.cast(pa.binary()).as_py().decode("utf-8", "surrogateescape")


def _feature_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The names of the numbers in each column, which the Hub's data sets keep in the file."""
    found = {}
    try:
        features = weighed(metadata[b"huggingface"])["info"]["features"]
        for column, feature in features.items():
            inner = feature[0] if isinstance(feature, list) else feature.get("feature") or feature
            if isinstance(inner, dict) and isinstance(names := inner.get("names"), list):
                found[column] = [str(name) for name in names]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return found
    return found


def _holds_images(types: Any, kind: Any) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        return any(field.name in ("bytes", "path", "url") for field in kind)
    return bool(_is_text(types, kind) or _holds_bytes(types, kind))


def _holds_bytes(types: Any, kind: Any) -> bool:
    if types.is_struct(kind):
        return any(_holds_bytes(types, field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _leaves(types: Any, name: str, kind: Any) -> list[str]:
    """The columns of bytes and of texts in a column, as Parquet names them."""
    if types.is_struct(kind):
        return [leaf for each in kind for leaf in _leaves(types, f"{name}.{each.name}", each.type)]
    return [name] if _holds_bytes(types, kind) or _is_text(types, kind) else []


def _is_text(types: Any, kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _looks_like_image(cell: Any) -> bool:
    from nshot.images.kinds import is_image_name

    return isinstance(cell, str) and (is_image_name(cell) or cell.lower().startswith(("http://", "https://")))
