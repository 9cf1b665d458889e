"""Labelled images, wherever their labels are: in folders, a table, an archive, on the Hub, in names of files.

    photos/cat/1.jpg      the folder is the label; train/, val/ and test/ are parts of the set
    test.csv              a column of images and one of labels; .tsv, .jsonl, .json and .parquet too
    coco.json             COCO, and exports of Label Studio, VIA, Datumaro and CVAT
    shards/0001.tar       webdataset: 7.jpg with 7.cls, 7.txt or 7.json; or an archive of folders
    hf://owner/name       Parquet on the Hugging Face Hub, a shard at a time

Each is checked before any image is read: what would be measured as something else is refused, and how the
data was understood is noted in ``LabelledSet.remarks``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from nshot.datasets import layouts, webdataset
from nshot.datasets.cells import Cells, missing, one_hot, ticked
from nshot.datasets.layouts import PREFERRED, Classes, InArchive, OnDisk, layout
from nshot.datasets.patterns import by_pattern
from nshot.embeddings import Embeddings, is_vector_file, read_vectors
from nshot.errors import SourceError
from nshot.images import archives
from nshot.images.delimited import plain
from nshot.images.remarks import Remarks
from nshot.images.sources import Source, expand, table_sources
from nshot.images.tables import LABEL_COLUMNS, PARQUET, Table, is_table, open_table
from nshot.labels.lint import check
from nshot.labels.parts import part_of
from nshot.types import DEFAULT_LIMITS, Limits

_HUB = "hf://"
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
_LISTS = (".txt", ".lst", ".list", ".tab", ".dat", ".psv")


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Images with labels, listed afresh at each iteration: each a ``Source`` with its ``labels``.

    Attributes:
        name: as the user would write it.
        classes: all labels, in their order, where they are known beforehand; None where they are met on the
            way.
        multi: whether an image may have any number of labels.
        remarks: how the data was understood; counts what the last iteration passed over.
        embeddings: the images' vectors, where the data is a file of vectors; nothing has to be embedded then.
    """

    name: str
    classes: tuple[str, ...] | None
    multi: bool
    _open: Callable[[], Iterator[Source]]
    remarks: Remarks = field(default_factory=Remarks)
    embeddings: Embeddings | None = None

    def __iter__(self) -> Iterator[Source]:
        self.remarks.start()
        return self._open()


class Columns(NamedTuple):
    """Which columns of a table hold what; None: a well-known name is looked for (no domain, otherwise).

    Attributes:
        image: paths, URLs or bytes.
        label: names, or numbers that ``names`` resolves; lists hold several labels.
        domain: any text.
        separator: cuts a text into several labels; None: a text is one label.
        names: the name of label 0, 1, ..., where the data does not hold them itself.
        numbers: the name of each number, where they do not count from 0.
    """

    image: str | None = None
    label: str | None = None
    domain: str | None = None
    separator: str | None = None
    names: Iterable[str] | None = None
    numbers: Mapping[int, str] | None = None


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the data is to be read, whatever it is."""

    columns: Columns
    split: str | None
    prefer: Sequence[str]
    image_root: str | os.PathLike[str] | None
    strict: bool
    limits: Limits
    remarks: Remarks
    cells: Cells

    def sources(self, specs: Iterable[str | os.PathLike[str]]) -> Iterator[Source]:
        """Images without labels."""
        return expand(
            specs,
            limits=self.limits,
            strict=self.strict,
            remarks=self.remarks,
        )

    def checked(self, found: Iterable[str], name: str) -> None:
        """Refuse labels of the data that nobody can mean; those that were named are what they are."""
        if doubt := self.cells.doubt():
            self.remarks.note(doubt)
        given = set(self.columns.names or ())
        if fresh := [label for label in found if label not in given]:
            for note in check(fresh, source=name, alone=True):
                self.remarks.note(note)


def open_labelled(
    spec: str | os.PathLike[str],
    *,
    columns: Columns = Columns(),  # noqa: B008  (immutable)
    domain_folders: bool = False,
    label_pattern: str | None = None,
    image_root: str | os.PathLike[str] | None = None,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    prefer: Sequence[str] = PREFERRED,
    strict: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> LabelledSet:
    """The labelled images that a person names.

    Args:
        spec: a folder, a table, an export, an archive, or "hf://owner/name"; see the module.
        columns: what a table's columns are.
        domain_folders: the folders are domain/label/image, not label/image.
        label_pattern: where the label stands in a file's name, such as "{label}_*".
        image_root: the folder that the names of images in a table are relative to; None: the table's own.
        config: the Hub data set's configuration; needed where it has several.
        split: the part to read (train, validation, test): a folder, the rows of a table, a split on the Hub.
        revision: branch, tag, commit, or refs/convert/parquet.
        prefer: which part is read where folders are divided into parts and ``split`` names none, by "train",
            "val" and "test", the best first.
        strict: list what plainly is no image in folders too, as failures.
        limits: the limits on one image.

    Raises:
        SourceError: nothing there, or no labels to be found.
        LabelError: labels that are numbers, codes, or the parts of a data set.
        MissingExtra: Parquet without pyarrow.
        HubUnavailable: a Hub data set that cannot be reached.
    """
    name, remarks = os.fspath(spec), Remarks()
    cells = Cells(columns.names, columns.numbers, columns.separator)
    read = _Reading(columns, split, prefer, image_root, strict, limits, remarks, cells)
    if label_pattern is not None:
        return _patterned(name, label_pattern, read)
    if name.startswith(_HUB):
        from nshot.datasets.hub import Shards

        shards = Shards.of(name.removeprefix(_HUB), config=config, split=split, revision=revision)
        return _shards(name, shards, replace(read, split=None))
    path = Path(name)
    if path.is_dir():
        return _folder(path, name, domain_folders, config, read)
    if not path.exists():
        raise SourceError(
            f"{name}: no such file or folder (a data set on the Hub is written hf://owner/name)"
        )
    lower = name.lower()
    if lower.endswith((".npz", ".npy", *PARQUET)) and is_vector_file(path):
        return _of_vectors(path, name, read)
    if lower.endswith((*archives.TAR, *archives.ZIP)):
        return _archive(path, name, domain_folders, read)
    if is_table(name) or lower.endswith(_LISTS) or lower.endswith((".xlsx", ".xls", ".ods")):
        return _of_table(_Rows(open_table(path, blanks=lower.endswith(_LISTS)), read), name)
    raise SourceError(
        f"{name} has no labels: give a folder with a folder per label, a table (.csv, .tsv, .jsonl, "
        ".parquet), an "
        "archive, or hf://owner/name"
    )


# Folders and archives


def _folder(path: Path, name: str, by_domain: bool, config: str | None, read: _Reading) -> LabelledSet:
    here = OnDisk(path)
    if not by_domain and not here.holds_images():
        if tars := _files(path, archives.TAR):
            return _webdataset(_of_part(path, tars, read), name, read)
        if shards := _local_shards(path, config, read):
            return _shards(name, shards, replace(read, split=None))
    found = layout(here, by_domain=by_domain, split=read.split, prefer=read.prefer, remarks=read.remarks)
    if isinstance(found, str):
        return _of_table(_Rows(open_table(Path(found)), replace(read, split=None)), name)

    def listed(label: str, folder: str) -> Iterator[Source]:
        try:
            yield from read.sources([folder])
        except SourceError as error:
            if Path(folder).is_dir() and not OnDisk(Path(folder)).holds_images():
                return  # a label without an image yet
            raise SourceError(f"the images of {label!r}: {error}") from error

    def opened() -> Iterator[Source]:
        _count_loose(found, read)
        for folder, label, domain in found.folders:
            own = (read.cells.name(label, folder.place),)
            for source in listed(label, folder.place):
                yield replace(source, labels=own, domain=domain)

    return _classes(name, found, read, opened)


def _archive(path: Path, name: str, by_domain: bool, read: _Reading) -> LabelledSet:
    most = read.limits.max_bytes
    is_zip = name.lower().endswith(archives.ZIP)
    if not is_zip and webdataset.is_webdataset(path, most):
        return _webdataset([path], name, read)
    members = archives.zip_members(path, most) if is_zip else archives.tar_members(path, most)
    tree = InArchive.of(name, (member.name for member in members))
    found = layout(tree, by_domain=by_domain, split=read.split, prefer=read.prefer, remarks=read.remarks)
    if isinstance(found, str):
        raise SourceError(f"{found} says what the images are: unpack the archive, and give the folder")

    def opened() -> Iterator[Source]:
        _count_loose(found, read)
        for source in read.sources([path]):
            for label, domain in layouts.chosen(found, source.name):
                yield replace(source, labels=(read.cells.name(label, source.name),), domain=domain)

    return _classes(name, found, read, opened)


def _count_loose(found: Classes, read: _Reading) -> None:
    for name in found.left_behind:
        read.remarks.skipped.kinds[name] += 1
    if found.loose:
        read.remarks.unlabelled[f"right in {found.place}, beside the folders of labels"] = found.loose


def _classes(
    name: str, found: Classes, read: _Reading, opened: Callable[[], Iterator[Source]]
) -> LabelledSet:
    labels = {read.cells.name(label, folder.place) for folder, label, _ in found.folders}
    read.checked(sorted(labels), found.place)
    return LabelledSet(name, tuple(sorted(labels)), False, opened, read.remarks)


def _files(path: Path, endings: tuple[str, ...]) -> list[Path]:
    return sorted(each for each in path.iterdir() if each.is_file() and each.name.lower().endswith(endings))


def _of_part(path: Path, files: list[Path], read: _Reading) -> list[Path]:
    """The shards of one part, where their names say what part they are of."""
    parts = {file: part_of(file.name.partition(".")[0]) for file in files}
    there = set(parts.values()) - {None}
    if read.split is not None:
        chosen = [file for file, part in parts.items() if part == part_of(read.split)]
        if not chosen:
            raise SourceError(f"{path} has no shards of the part {read.split!r}")
        return chosen
    if len(there) < 2:
        return files
    wanted = next(part for part in read.prefer if part in there)
    read.remarks.note(f"images are those of the part {wanted!r} of {path} (--split names another)")
    return [file for file, part in parts.items() if part == wanted]


def _webdataset(shards: list[Path], name: str, read: _Reading) -> LabelledSet:
    names = read.columns.names or webdataset.class_names(shards[0].parent)
    cells = Cells(names, read.columns.numbers, read.columns.separator)
    most = read.limits.max_bytes

    def opened() -> Iterator[Source]:
        for source, said in webdataset.samples(shards, most):
            labels = cells.labels(said, source.name)
            if labels:
                yield replace(source, labels=labels)
            else:
                read.remarks.unlabelled["with nothing beside them that says what they are"] += 1

    first = [label for source in islice(opened(), _SAMPLE) for label in source.labels or ()]
    if not first:
        raise SourceError(f"{name} holds no image with a .cls, .txt or .json that says what it is")
    read.checked(dict.fromkeys(first), name)
    return LabelledSet(name, None if names is None else tuple(names), False, opened, read.remarks)


def _local_shards(path: Path, config: str | None, read: _Reading) -> list[str]:
    """Parquet files as the Hub's data sets keep them, in a folder."""
    from nshot.datasets.hub import placed

    files = sorted(path.rglob("*.parquet"))
    found: dict[tuple[str, str], list[str]] = {}
    for file in files:
        found.setdefault(placed(file.relative_to(path).as_posix()) or ("", ""), []).append(str(file))
    configs = sorted({of for of, _ in found})
    if len(configs) > 1 and config is None:
        raise SourceError(f"{path} has several: choose with --config, one of: {', '.join(configs)}")
    splits = {split: held for (of, split), held in found.items() if config is None or of == config}
    if read.split is not None and read.split in splits:
        return splits[read.split]
    if read.split is not None or len(splits) > 1:
        for wanted in [part_of(read.split)] if read.split is not None else read.prefer:
            for split, held in splits.items():
                if part_of(split) == wanted:
                    read.remarks.note(f"images are those of {split!r} in {path} (--split names another)")
                    return held
        raise SourceError(f"{path} has no part {read.split!r}; there is: {', '.join(splits)}")
    return next(iter(splits.values()), [])


def _patterned(name: str, pattern: str, read: _Reading) -> LabelledSet:
    find = by_pattern(pattern)

    def opened() -> Iterator[Source]:
        for source in read.sources([name]):
            label = find(os.path.relpath(source.name, name) if Path(name).is_dir() else source.name)
            if label is None:
                read.remarks.unlabelled[f"named otherwise than {pattern}"] += 1
            else:
                yield replace(source, labels=(read.cells.name(label, source.name),))

    labels = {label for source in opened() for label in source.labels or ()}
    if not labels:
        raise SourceError(f"{name}: no image is named like {pattern}")
    read.checked(sorted(labels), name)
    return LabelledSet(name, tuple(sorted(labels)), False, opened, read.remarks)


# Vectors


def _of_vectors(path: Path, name: str, read: _Reading) -> LabelledSet:
    """Embeddings from elsewhere, with their labels."""
    found = read_vectors(path)
    if found.labels is None:
        raise SourceError(
            f"{name} holds vectors without labels: put them into an array or a column 'labels', or give "
            "the images"
        )
    given = [
        read.cells.labels(list(own), f"{name}, {at}")
        for at, own in zip(found.sources, found.labels, strict=True)
    ]
    rows = [row for row, own in enumerate(given) if own]
    if len(rows) < len(given):
        read.remarks.unlabelled["rows of vectors"] = len(given) - len(rows)
        found = found[rows]
    met = sorted({label for own in given for label in own})
    read.checked(met, name)
    classes = tuple(read.columns.names) if read.columns.names is not None else found.classes
    classes = classes if set(classes) >= set(met) else tuple(met)
    found = found.with_labels([given[row] for row in rows], classes=classes)

    def opened() -> Iterator[Source]:
        for source, own in zip(found.sources, found.labels or (), strict=True):
            yield replace(Source.file(source), labels=own)

    return LabelledSet(name, classes, found.multi, opened, read.remarks, found)


# Tables


class _Rows:
    """The rows of a table, with where their labels are."""

    def __init__(self, table: Table, read: _Reading) -> None:
        self.table, self.read = table, read
        if set(table.columns) >= _ANSWERS:
            raise SourceError(
                f"{table.path} holds answers of nshot classify, not labels that somebody has checked: if "
                "you have "
                "corrected them, remove its columns cosine and margin"
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
                    f"labels are the column {words[0]!r} of {table.path}, since {known[0]!r} holds numbers"
                )
                return words[:1], False
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
            self.read.remarks.note(f"labels are the column {others[0]!r} of {table.path}")
            return others, False
        if columns := one_hot(others, islice(table.rows(*others), _SAMPLE)):
            self.read.remarks.note(
                f"labels are the names of the columns of {table.path} that hold 0 and 1: "
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
                    f"{self.table.path} has no column 'split': --split {wanted} names none of its rows"
                )
            return None
        counts = Counter(str(cell) for (cell,) in self.table.rows(column))
        if not any(map(part_of, counts)):
            return None
        told = ", ".join(f"{count:,} {part}" for part, count in counts.most_common(4))
        if wanted is None:
            if len(counts) > 1:
                self.read.remarks.note(f"all parts of {self.table.path} are read ({told}); --split names one")
            return None
        if not any(self._is_of(part) for part in counts):
            raise SourceError(f"{self.table.path} has no rows of {wanted!r} in its column {column!r}: {told}")
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
            raise SourceError(f"{self.table.path} holds no rows")
        if not met:
            raise SourceError(f"{self.table.path}: no row has a label in column {self.label[0]!r}")
        self.multi = self.multi or any(count > 1 for count in counts)
        rows = counts.total() - counts[0]
        if rows >= 10 and len(met) == rows and self.read.columns.names is None:
            self.read.remarks.note(
                f"each of the {rows:,} rows of {self.table.path} has a label of its own: is "
                f"{self.label[0]!r} the "
                "column of labels?"
            )
        if again:
            self.read.remarks.note(
                f"{again:,} of the rows of {self.table.path} name per image that an earlier row names too, "
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
        for separator in ("|", ";", ","):
            held = [label for label in labels if separator in label]
            parts = {part.strip() for label in held for part in label.split(separator)}
            if held and (separator != "," or any(part in labels for part in parts)):
                self.read.remarks.note(
                    f"labels such as {held[0]!r} are taken as one label: if they are several, add "
                    f"--label-separator '{separator}'"
                )
                return

    def of(self, cells: Sequence[Any], row: int) -> tuple[str, ...]:
        """The labels that a row's cells hold."""
        if self.hot:
            return tuple(ticked(self.label, cells))
        return self.cells.labels(cells[0], f"{self.table.path}, row {row}")

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


def _of_table(rows: _Rows, name: str) -> LabelledSet:
    found, multi = rows.surveyed()
    rows.read.checked(found, str(rows.table.path))
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


def _shards(name: str, shards: Sequence[str], read: _Reading) -> LabelledSet:
    """The rows of all shards under the data set's own name, counted through."""
    first = _Rows(open_table(Path(shards[0])), read)
    names = first.table.names.get(first.label[0]) or read.columns.names
    if names is None:
        read.checked(first.surveyed()[0], name)

    def opened() -> Iterator[Source]:
        row = 0
        for shard in shards:
            for source in _Rows(open_table(Path(shard)), read):
                yield replace(source, name=f"{name}[{row}]")
                row += 1

    return LabelledSet(name, None if names is None else tuple(names), first.multi, opened, read.remarks)


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
