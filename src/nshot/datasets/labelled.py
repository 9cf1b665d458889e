"""Labelled images: a folder of classes, a table, or a data set on the Hub.

    photos/cat/1.jpg     the folder right below is the label
    test.csv             a column of images and one of labels; .tsv and .parquet too
    hf://owner/name      Parquet on the Hugging Face Hub, a shard at a time

The images come from ``sources``, so whatever can be classified can be evaluated; this module adds what
each is supposed to be.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from nshot.errors import SourceError
from nshot.extras import pyarrow
from nshot.images.sources import Source, expand
from nshot.images.tables import choose
from nshot.types import DEFAULT_LIMITS, Limits

# Where people and data sets put their labels, the likeliest first.
_LABELS = ("label", "labels", "class", "category", "target", "species", "tags", "fine_label", "class_name")
_HUB = "hf://"
_ROWS = 4096  # of a table's labels in memory at a time


@dataclass(frozen=True, slots=True)
class Example:
    """One image and what it is supposed to be.

    Attributes:
        source: the image, unread.
        labels: its labels; one as a rule, several or none in a multi-label set.
        domain: where it comes from (photograph, sketch ...), if the data says so.
    """

    source: Source
    labels: tuple[str, ...]
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Images with labels, listed afresh at each iteration.

    Attributes:
        name: as the user would write it.
        classes: all labels, in their order, where the data declares them; None where they are found on the
            way.
        multi: whether an image may have any number of labels.
    """

    name: str
    classes: tuple[str, ...] | None
    multi: bool
    _open: Callable[[], Iterator[Example]]

    def __iter__(self) -> Iterator[Example]:
        return self._open()


class Columns(NamedTuple):
    """Which columns of a table hold what; None: a well-known name is looked for (no domain, otherwise).

    Attributes:
        image: paths, URLs or bytes.
        label: names, or numbers that ``names`` resolves; lists hold several labels.
        domain: any text.
        separator: cuts a text into several labels; None: a text is one label.
        names: the name of label 0, 1, ..., where the table does not hold them itself.
    """

    image: str | None = None
    label: str | None = None
    domain: str | None = None
    separator: str | None = None
    names: Sequence[str] | None = None


def open_labelled(
    spec: str | os.PathLike[str],
    *,
    columns: Columns = Columns(),  # noqa: B008  (immutable)
    domain_folders: bool = False,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    allow_private: bool = False,
) -> LabelledSet:
    """The labelled images that a person names.

    Args:
        spec: a folder with a folder a class, a .csv, .tsv or .parquet table, or "hf://owner/name".
        columns: what a table's columns are.
        domain_folders: the folders are domain/label/image, not label/image.
        config: the Hub data set's configuration; needed where it has several.
        split: its split (train, validation, test); needed where it has several.
        revision: branch, tag, commit, or refs/convert/parquet.
        limits: the limits on one image.
        allow_private: let URLs in a table point into private networks.

    Raises:
        SourceError: nothing there, no labels to be found, or a label that is a number without a name.
        MissingExtra: Parquet without pyarrow.
        HubUnavailable: a Hub data set that cannot be reached.
    """
    name = os.fspath(spec)
    read = {"limits": limits, "allow_private": allow_private}
    if name.startswith(_HUB):
        from nshot.datasets.hub import Shards

        shards = Shards.of(name.removeprefix(_HUB), config=config, split=split, revision=revision)
        first = _Table(Path(shards[0]), columns, read)
        return LabelledSet(name, first.classes, first.multi, lambda: _shards(name, shards, columns, read))
    path = Path(name)
    if path.is_dir():
        classes, folders = _folders(path, domain_folders)
        return LabelledSet(name, classes, False, lambda: _of_folders(folders, read))
    if path.suffix.lower() in (".csv", ".tsv", ".parquet"):
        table = _Table(path, columns, read)
        return LabelledSet(name, table.classes, table.multi, lambda: iter(table))
    if not path.exists():
        raise SourceError(
            f"{name}: no such file or folder (a data set on the Hub is written hf://owner/name)"
        )
    raise SourceError(f"{name} has no labels: give a folder of classes, a .csv, .tsv or .parquet table")


# A folder of classes


def _folders(path: Path, by_domain: bool) -> tuple[tuple[str, ...], list[tuple[Path, str, str | None]]]:
    tops = _subfolders(path)
    found: list[tuple[Path, str, str | None]] = [(folder, folder.name, None) for folder in tops]
    if by_domain:
        found = [(folder, folder.name, top.name) for top in tops for folder in _subfolders(top)]
    if not found:
        shape = "domain/label/image.jpg" if by_domain else "label/image.jpg"
        raise SourceError(f"{path} holds no folders to take labels from: images are looked for at {shape}")
    return tuple(sorted({label for _, label, _ in found})), found


def _subfolders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise SourceError(f"{path} cannot be listed: {error.strerror}") from error


def _of_folders(folders: list[tuple[Path, str, str | None]], read: dict[str, Any]) -> Iterator[Example]:
    for folder, label, domain in folders:
        if any(folder.iterdir()):
            yield from (Example(source, (label,), domain) for source in expand([folder], **read))


# A table


class _Table:
    """The rows of a table: their images as ``sources`` lists them, their labels beside them."""

    def __init__(self, path: Path, columns: Columns, read: dict[str, Any]) -> None:
        self.path, self.columns, self.read = path, columns, read
        self.there, own_names, self.multi = (
            _parquet_schema(path, columns)
            if path.suffix.lower() == ".parquet"
            else (_header(path)[0], None, False)
        )
        self.label = _column(path, self.there, columns.label)
        if columns.domain is not None:
            _column(path, self.there, columns.domain)
        self.names = own_names or columns.names
        self.classes = tuple(self.names) if self.names else None
        self.multi = self.multi or columns.separator is not None

    def __iter__(self) -> Iterator[Example]:
        wanted = [self.label, *([self.columns.domain] if self.columns.domain else [])]
        rows = _parquet_values if self.path.suffix.lower() == ".parquet" else _text_values
        images = expand([self.path], image_column=self.columns.image, **self.read)
        # Both list every row, so a row's image and its label meet; strict would hide a damaged end.
        for number, (source, row) in enumerate(zip(images, rows(self.path, wanted), strict=False)):
            domain = None if len(row) < 2 or row[1] in (None, "") else str(row[1])
            yield Example(source, self._labels(row[0], number), domain)

    def _labels(self, value: Any, row: int) -> tuple[str, ...]:
        if isinstance(value, str) and self.columns.separator is not None:
            value = [part.strip() for part in value.split(self.columns.separator) if part.strip()]
        given = value if isinstance(value, list) else [] if value in (None, "") else [value]
        if not given and not self.multi:
            raise SourceError(f"{self.path}, row {row}: no label in column {self.label!r}")
        return tuple(dict.fromkeys(self._name(one, row) for one in given))

    def _name(self, label: Any, row: int) -> str:
        text = str(label).strip()
        if self.names is not None and text in self.names:
            return text
        if not text.lstrip("-").isdigit():
            return text
        if self.names is None:
            raise SourceError(
                f"{self.path}: the labels in column {self.label!r} are numbers ({text} in row {row}); "
                "name them with --labels-file, a label a line, the first one for 0"
            )
        if not 0 <= int(text) < len(self.names):
            raise SourceError(f"{self.path}, row {row}: label {text}, but there are {len(self.names)} names")
        return self.names[int(text)]


def _column(path: Path, there: Sequence[str], column: str | None) -> str:
    otherwise = "labels ({}); name one with --label-column, or call it 'label'"
    return choose(path, there, column, _LABELS, otherwise)


def _header(path: Path) -> tuple[list[str], str]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            line = file.readline(2**20)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    tabs, semicolons = path.suffix.lower() == ".tsv", ";" in line and "," not in line
    separator = "\t" if tabs else ";" if semicolons else ","
    return next(csv.reader([line], delimiter=separator), []), separator


def _text_values(path: Path, columns: Sequence[str]) -> Iterator[list[Any]]:
    names, separator = _header(path)
    places = [names.index(column) for column in columns]
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        next(rows, None)
        try:
            for row in filter(None, rows):
                yield [row[place] if place < len(row) else None for place in places]
        except csv.Error as error:
            raise SourceError(f"{path}, line {rows.line_num}: {error}") from error


def _parquet_schema(path: Path, columns: Columns) -> tuple[list[str], list[str] | None, bool]:
    """The columns; the names of the numbers in the label's, which data sets keep in the file; several?"""
    pa = pyarrow()
    try:
        schema = pa.parquet.read_schema(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{path} is not a Parquet file that can be read: {error}") from error
    label = _column(path, schema.names, columns.label)
    kind = schema.field(label).type
    several = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        inner = features[0] if isinstance(features, list) else features.get("feature") or features
        names = inner.get("names")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        names = None
    return schema.names, names, several


def _parquet_values(path: Path, columns: Sequence[str]) -> Iterator[list[Any]]:
    with pyarrow().parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS, columns=list(dict.fromkeys(columns))):
            yield from zip(*(batch.column(column).to_pylist() for column in columns), strict=True)


def _shards(name: str, shards: Sequence[str], columns: Columns, read: dict[str, Any]) -> Iterator[Example]:
    """The rows of all shards under the data set's own name, counted through."""
    row = 0
    for shard in shards:
        for example in _Table(Path(shard), columns, read):
            yield replace(example, source=replace(example.source, name=f"{name}[{row}]"))
            row += 1
