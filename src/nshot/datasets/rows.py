"""Labelled images out of a table: which column holds labels, what they are, each row's image with its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from nshot.datasets.cells import Cells, missing, one_hot, ticked
from nshot.datasets.reading import LabelledSet, Reading
from nshot.errors import SourceError
from nshot.images import stored
from nshot.images.delimited import plain
from nshot.images.sources import Source, table_sources
from nshot.images.tables import LABEL_COLUMNS, PARQUET, Table, open_table
from nshot.labels.parts import part_of
from nshot.objects import is_object_url

_SAMPLE = 200  # rows by which it is judged what a column holds
_SPLIT_COLUMNS = ("split", "subset", "set", "partition", "part", "fold")
_BESIDE = frozenset(  # columns that tools write beside the label
    (
        *(*_SPLIT_COLUMNS, "id", "index", "unnamed:_0", "annotator", "annotation_id", "created_at"),
        *("updated_at", "lead_time", "file_size", "size", "width", "height", "region_count", "region_id"),
        "region_shape_attributes",
    )
)
_ANSWERS = frozenset(("source", "label", "cosine", "margin"))  # what nshot classify writes


class Rows:
    """The rows of a table, with where their labels are."""

    def __init__(self, table: Table, read: Reading) -> None:
        self.table, self.read = table, read
        if set(table.columns) >= _ANSWERS:
            raise SourceError(
                f"{table.name} holds answers of nshot classify, not labels that somebody has checked: if "
                "you have corrected them, remove its columns cosine and margin"
            )
        for note in table.notes:
            read.remarks.note(note)
        self.label, self.hot = self._labels()
        self.domain = (
            None
            if read.columns.domain is None
            else table.column(read.columns.domain, (), "domains ({}); name one with --domain-column")
        )
        own = table.names.get(self.label[0]) if len(self.label) == 1 else None
        self.cells = Cells(own, separator=read.columns.separator) if own else read.cells
        self.split = self._split()
        self.multi = bool(read.columns.separator) or any(name in table.lists for name in self.label)

    def _labels(self) -> tuple[list[str], bool]:
        """The column of labels, or the columns of 0 and 1 that stand for one."""
        table, given = self.table, self.read.columns.label
        otherwise = "labels ({}); name one with --label-column, or call it 'label'"
        if given is not None:
            return [table.column(given, LABEL_COLUMNS, otherwise)], False
        known = table.known(LABEL_COLUMNS)
        if known:
            words = [name for name in known if self._holds_words(name)]
            if (
                words
                and words[0] != known[0]
                and self.read.columns.names is None
                and known[0] not in table.names
            ):
                self.read.remarks.note(
                    f"labels are the column {words[0]!r} of {table.name}, since {known[0]!r} holds numbers"
                )
                return words[:1], False
            others = [name for name in known[1:] if name in words]
            if others and known[0] in words:
                self.read.remarks.note(
                    f"labels are the column {known[0]!r} of {table.name}, and not {others[0]!r} "
                    "(--label-column)"
                )
            return [table.column(None, LABEL_COLUMNS, otherwise)], False
        try:
            image = table.image_column(self.read.columns.image)
        except SourceError:
            table.column(None, LABEL_COLUMNS, otherwise)
            raise
        others = [
            name
            for name in table.columns
            if name not in ("", image, self.read.columns.domain) and plain(name) not in _BESIDE
        ]
        if len(others) == 1:
            self.read.remarks.note(f"labels are the column {others[0]!r} of {table.name}")
            return others, False
        if columns := one_hot(others, islice(table.rows(*others), _SAMPLE)):
            self.read.remarks.note(
                f"labels are the names of the columns of {table.name} that hold 0 and 1: "
                f"{', '.join(columns[:6])}" + (f" and {len(columns) - 6} more" if len(columns) > 6 else "")
            )
            return columns, True
        return [table.column(None, LABEL_COLUMNS, otherwise)], False

    def _holds_words(self, column: str) -> bool:
        cells = [cell for (cell,) in islice(self.table.rows(column), _SAMPLE) if not missing(cell)]
        return any(_is_word(cell) for cell in cells)

    def _split(self) -> str | None:
        """The column that says which part a row is of."""
        there = [name for name in self.table.columns if name.strip().lower() in _SPLIT_COLUMNS]
        column = there[0] if there and there[0] not in self.label else None
        wanted = self.read.split
        if column is None:
            if wanted is not None:
                raise SourceError(
                    f"{self.table.name} has no column 'split': --split {wanted} names none of its rows"
                )
            return None
        counts = Counter(str(cell) for (cell,) in self.table.rows(column))
        if not any(map(part_of, counts)):
            return None
        told = ", ".join(f"{count:,} {part}" for part, count in counts.most_common(4))
        if wanted is None:
            if len(counts) > 1:
                self.read.remarks.note(f"all parts of {self.table.name} are read ({told}); --split names one")
            return None
        if not any(self._is_of(part) for part in counts):
            raise SourceError(f"{self.table.name} has no rows of {wanted!r} in its column {column!r}: {told}")
        return column

    def _is_of(self, part: object) -> bool:
        wanted = self.read.split or ""
        return str(part) == wanted or (
            part_of(str(part)) is not None and part_of(str(part)) == part_of(wanted)
        )

    def surveyed(self) -> tuple[tuple[str, ...], bool]:
        """All labels, sorted, and whether an image may have several, by one look at every row."""
        met: dict[str, None] = {}
        counts: Counter[int] = Counter()
        named = self._named()
        wanted = [*self.label, *filter(None, (self.split, named))]
        seen: dict[int, tuple[str, ...]] = {}
        again = otherwise = 0
        for number, row in enumerate(self.table.rows(*wanted)):
            held = dict(zip(wanted, row, strict=True))
            if self.split and not self._is_of(held[self.split]):
                continue
            own = self.of(row[: len(self.label)], number)
            if named and isinstance(held[named], str) and own:
                before = seen.setdefault(hash(held[named]), own)
                again += before is not own
                otherwise += before != own
            counts[len(own)] += 1
            met.update(dict.fromkeys(own))
        if not counts:
            raise SourceError(f"{self.table.name} holds no rows")
        if not met:
            raise SourceError(f"{self.table.name}: no row has a label in column {self.label[0]!r}")
        self.multi = self.multi or any(count > 1 for count in counts)
        rows = counts.total() - counts[0]
        if rows >= 10 and len(met) == rows and self.read.columns.names is None:
            self.read.remarks.note(
                f"each of the {rows:,} rows of {self.table.name} has a label of its own: is "
                f"{self.label[0]!r} the column of labels?"
            )
        if again:
            self.read.remarks.note(
                f"{again:,} of the rows of {self.table.name} name per image that an earlier row names too, "
                f"{otherwise:,} of them with another label: each row counts as an image"
            )
        self._separators(met)
        return tuple(sorted(met)), self.multi

    def _named(self) -> str | None:
        """The column of images, where it is cheap to read."""
        image = self.table.image_column(self.read.columns.image)
        return None if self.table.path.suffix.lower() in PARQUET or image in self.label else image

    def _separators(self, met: Iterable[str]) -> None:
        """Say that labels look like lists."""
        if self.read.columns.separator is not None:
            return
        labels = list(met)
        plural = plain(self.label[0]) in ("tags", "labels", "classes", "categories", "keywords")
        for separator in ("|", ";", ",", *([" "] if plural else [])):
            held = [label for label in labels if separator in label]
            parts = {part.strip() for label in held for part in label.split(separator)}
            words = [part.strip() for label in held for part in set(label.split(separator))]
            again = any(part in labels for part in parts) or (
                plural and separator in ", " and len(words) > len(set(words))
            )
            if held and (separator in "|;" or again):
                self.read.remarks.note(
                    f"labels such as {held[0]!r} are taken as one label: if they are several, add "
                    f"--label-separator '{separator}'"
                )
                return

    def of(self, cells: Sequence[Any], row: int) -> tuple[str, ...]:
        """The labels that a row's cells hold."""
        if self.hot:
            return tuple(ticked(self.label, cells))
        return self.cells.labels(cells[0], f"{self.table.name}, row {row}")

    def __iter__(self) -> Iterator[Source]:
        wanted = [*self.label, *filter(None, (self.domain, self.split))]
        rows = table_sources(
            self.table,
            wanted,
            image_column=self.read.columns.image,
            image_root=self.read.image_root,
            limits=self.read.limits,
            remarks=self.read.remarks,
        )
        for number, (source, cells) in enumerate(rows):
            held = dict(zip(wanted, cells, strict=True))
            if self.split is not None and not self._is_of(held[self.split]):
                continue
            own = self.of(cells[: len(self.label)], number)
            if not own and not self.multi:
                self.read.remarks.unlabelled[_empty(cells[0])] += 1
                continue
            domain = held.get(self.domain) if self.domain else None
            yield replace(source, labels=own, domain=None if missing(domain) else str(domain))


def of_table(rows: Rows, name: str) -> LabelledSet:
    found, multi = rows.surveyed()
    rows.read.checked(found, rows.table.name)
    names = rows.table.names.get(rows.label[0]) if len(rows.label) == 1 else None
    names = names or (None if rows.read.columns.names is None else list(rows.read.columns.names))
    iter(rows)  # an image that is named is looked for now
    next(iter(rows), None)
    rows.read.remarks.start()
    return LabelledSet(
        name,
        tuple(names) if names is not None else tuple(rows.label) if rows.hot else found,
        multi,
        lambda: iter(rows),
        rows.read.remarks,
    )


def of_shards(name: str, shards: Sequence[str], read: Reading) -> LabelledSet:
    """The rows of all shards under the data set's own name, counted through."""
    first = Rows(opened_table(shards[0], read), read)
    names = first.table.names.get(first.label[0]) or read.columns.names
    if names is None:
        read.checked(first.surveyed()[0], name)

    def opened() -> Iterator[Source]:
        row = 0
        for shard in shards:
            for source in Rows(opened_table(shard, read), read):
                yield replace(source, name=f"{name}[{row}]")
                row += 1

    classes = None if names is None else tuple(names)
    files = tuple(shards) if isinstance(shards, (list, tuple)) else None  # else they come from the Hub
    return LabelledSet(name, classes, first.multi, opened, read.remarks, shards=files)


def opened_table(name: str, read: Reading) -> Table:
    """A table on disk or in an object store."""
    if is_object_url(name):
        return stored.open_table(name, memory=read.limits.memory)
    return open_table(Path(name), memory=read.limits.memory)


def _empty(cell: Any) -> str:
    return "empty" if cell is None or str(cell).strip() == "" else f"{str(cell)[:20]!r}"


def _is_word(cell: Any) -> bool:
    if isinstance(cell, (list, tuple)):
        return any(map(_is_word, cell))
    return (
        isinstance(cell, str)
        and any(letter.isalpha() for letter in cell)
        and cell.lower()
        not in (
            "true",
            "false",
        )
    )
