"""Vectors of folders of parts that stay where they are: an array and columns, read a row group at a time.

Memory does not grow with the number of vectors. Whoever needs all of them at once asks for ``np.asarray``.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, SupportsIndex, cast, overload

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from nshot.atomic import Scratch
from nshot.embeddings.blocks import Block
from nshot.embeddings.embeddings import Embeddings
from nshot.embeddings.parts import Parts
from nshot.errors import RequestError, SourceError
from nshot.paths import unspelled
from nshot.types import Failure, Floats

HELD = 2**28
"""Bytes of vectors up to which a folder is read into memory; more stay on the disk."""

_GROUPS = 2  # row groups held: a slice across the end of one needs the next
_NAMES = 65_536  # names read at once
_SCANNED = ("source", "labels", "domain", "digest", "notes")
_COLUMNS = 4  # decoded columns of row groups held

Rows = NDArray[np.int64]


class _Group(NamedTuple):
    """A row group: where it is, and which of its rows have a vector; None: all."""

    parts: Parts
    name: str
    number: int
    there: NDArray[np.bool_] | None


class _Groups:
    """The row groups of folders, one after the other; what was read last is held. For any thread."""

    def __init__(self, groups: Sequence[_Group], counts: Sequence[int], dimension: int) -> None:
        self.groups = groups
        self.ends = np.cumsum([0, *counts])
        self.dimension = dimension
        self._held: OrderedDict[int, Floats] = OrderedDict()
        self._columns: OrderedDict[tuple[int, str], list[Any]] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return int(self.ends[-1])

    def are_few(self, count: int) -> bool:
        """Whether so many of the vectors are rather held in memory."""
        return count * self.dimension * 4 <= HELD

    def vectors(self, place: int) -> Floats:
        """A row group's vectors, float32[m, d]."""
        with self._lock:
            if place not in self._held:
                group = self.groups[place]
                while len(self._held) >= _GROUPS:
                    self._held.popitem(last=False)
                self._held[place] = group.parts.group(group.name, group.number, ()).vectors
            self._held.move_to_end(place)
            return self._held[place]

    def column(self, place: int, name: str) -> list[Any]:
        """Another column of a row group, where there are vectors."""
        with self._lock:
            if (place, name) not in self._columns:
                group = self.groups[place]
                values = group.parts.column(group.name, group.number, name)
                if group.there is not None:
                    values = [value for value, is_there in zip(values, group.there, strict=True) if is_there]
                while len(self._columns) >= _COLUMNS:
                    self._columns.popitem(last=False)
                self._columns[place, name] = values
            self._columns.move_to_end((place, name))
            return self._columns[place, name]

    def found(self, rows: Rows) -> Iterator[tuple[int, Rows, Rows]]:
        """Each row group that holds some of these rows, in order: the rows in it, and their places."""
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        cuts = np.searchsorted(ordered, self.ends)
        for place in np.flatnonzero(np.diff(cuts)).tolist():
            part = order[cuts[place] : cuts[place + 1]]
            yield place, rows[part] - self.ends[place], part


class StoredVectors(NDArrayOperatorsMixin):
    """float32[n, d], unit rows that are read when they are asked for.

    Slices and selections of rows give arrays of numpy. Whatever else is done with it, it is read into
    memory as a whole first.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, groups: _Groups, rows: Rows | None = None) -> None:
        self._groups = groups
        self._rows = rows

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self), self._groups.dimension

    def __len__(self) -> int:
        return len(self._groups) if self._rows is None else len(self._rows)

    def take_rows(self, rows: Rows) -> StoredVectors | Floats:
        """These rows: in memory where they are few, else they stay where they are as well."""
        taken = StoredVectors(self._groups, rows if self._rows is None else self._rows[rows])
        return np.asarray(taken) if self._groups.are_few(len(rows)) else taken

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            return np.asarray(self)[key]
        if isinstance(key, slice) and self._rows is None:
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._between(start, stop)
        if isinstance(key, SupportsIndex) and not isinstance(key, np.ndarray):
            return self._at(np.array([range(len(self))[key]]))[0]
        rows = np.arange(len(self))[key]
        if np.ndim(rows) == 0:
            return self._at(np.array([rows]))[0]
        return self._at(rows)

    def _between(self, start: int, stop: int) -> Floats:
        """Rows that follow each other; those of one row group without a copy."""
        ends = self._groups.ends
        first = int(np.searchsorted(ends, start, side="right")) - 1
        if start >= stop:
            return np.empty((0, self._groups.dimension), np.float32)
        if stop <= ends[first + 1]:
            return self._groups.vectors(first)[start - ends[first] : stop - ends[first]]
        made = np.empty((stop - start, self._groups.dimension), np.float32)
        place = first
        while place < len(ends) - 1 and ends[place] < stop:
            low, high = max(start, int(ends[place])), min(stop, int(ends[place + 1]))
            if low < high:
                part = self._groups.vectors(place)[low - ends[place] : high - ends[place]]
                made[low - start : high - start] = part
            place += 1
        return made

    def _at(self, rows: Rows) -> Floats:
        made = np.empty((len(rows), self._groups.dimension), np.float32)
        for place, inside, where in self._groups.found(rows if self._rows is None else self._rows[rows]):
            made[where] = self._groups.vectors(place)[inside]
        return made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("stored vectors are copied into memory")
        whole = self._between(0, len(self)) if self._rows is None else self._at(np.arange(len(self)))
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        held = (np.asarray(each) if isinstance(each, StoredVectors) else each for each in inputs)
        return getattr(ufunc, method)(*held, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __repr__(self) -> str:
        return f"<{len(self):,} stored vectors of {self._groups.dimension} features>"


class StoredNames(Sequence[str]):
    """n names in a temporary file, read when they are asked for: eight bytes of memory each."""

    def __init__(self, folder: Scratch, ends: NDArray[np.int64], rows: Rows | None = None) -> None:
        self._folder = folder
        self._ends = ends
        self._rows = rows

    def take_rows(self, rows: Rows) -> StoredNames:
        """These rows, which stay where they are as well."""
        return StoredNames(self._folder, self._ends, rows if self._rows is None else self._rows[rows])

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, key: int) -> str: ...

    @overload
    def __getitem__(self, key: slice) -> Sequence[str]: ...

    def __getitem__(self, key: int | slice) -> str | Sequence[str]:
        rows = range(len(self))[key]
        if not isinstance(rows, range):
            return next(self._read([rows if self._rows is None else int(self._rows[rows])]))
        if self._rows is not None:
            return tuple(self._read(self._rows[key].tolist()))
        return tuple(self._between(rows.start, rows.stop) if rows.step == 1 else self._read(rows))

    def __iter__(self) -> Iterator[str]:
        if self._rows is None:
            return self._between(0, len(self))
        return self._read(map(int, self._rows))

    def _read(self, rows: Iterable[int]) -> Iterator[str]:
        with (self._folder.path / "names").open("rb") as file:
            for row in rows:
                start, end = self._ends[row : row + 2].tolist()
                file.seek(start)
                yield unspelled(file.read(end - start).decode())

    def _between(self, start: int, stop: int) -> Iterator[str]:
        with (self._folder.path / "names").open("rb") as file:
            file.seek(int(self._ends[start]))
            for first in range(start, stop, _NAMES):
                ends = self._ends[first : min(first + _NAMES, stop) + 1].tolist()
                held = file.read(ends[-1] - ends[0])
                for begin, end in itertools.pairwise(ends):
                    yield unspelled(held[begin - ends[0] : end - ends[0]].decode())

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]


class StoredColumn(Sequence[Any]):
    """n values of a column, read when they are asked for."""

    def __init__(
        self, groups: _Groups, name: str, turned: Callable[[Any], Any], rows: Rows | None = None
    ) -> None:
        self._groups = groups
        self._name = name
        self._turned = turned
        self._rows = rows

    def take_rows(self, rows: Rows) -> Sequence[Any]:
        """These rows: in memory where they are few, else they stay where they are as well."""
        kept = rows if self._rows is None else self._rows[rows]
        taken = StoredColumn(self._groups, self._name, self._turned, kept)
        return tuple(taken) if self._groups.are_few(len(rows)) else taken

    def __len__(self) -> int:
        return len(self._groups) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, key: int) -> Any: ...

    @overload
    def __getitem__(self, key: slice) -> Sequence[Any]: ...

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return tuple(self[row] for row in range(len(self))[key])
        row = range(len(self))[key]
        row = row if self._rows is None else int(self._rows[row])
        ends = self._groups.ends
        place = int(np.searchsorted(ends, row, side="right")) - 1
        return self._turned(self._groups.column(place, self._name)[row - ends[place]])

    def __iter__(self) -> Iterator[Any]:
        if self._rows is not None:
            yield from (self[row] for row in range(len(self)))
            return
        for place in range(len(self._groups.groups)):
            yield from map(self._turned, self._groups.column(place, self._name))

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]


def _equal(mine: Sequence[Any], other: object) -> bool:
    """Whether another sequence holds the same."""
    return (
        isinstance(other, Sequence)
        and len(mine) == len(other)
        and all(own == theirs for own, theirs in zip(mine, other, strict=True))
    )


def taken(vectors: Any, rows: NDArray[Any]) -> Any:
    """Some rows of vectors: those of stored ones stay where they are, where they are many."""
    return vectors.take_rows(rows) if isinstance(vectors, StoredVectors) else vectors[rows]


class _Scanned:
    """What one reading of folders finds, row group by row group."""

    def __init__(self) -> None:
        self.groups: list[_Group] = []
        self.counts: list[int] = []
        self.positions: list[Rows] = []
        self.labels: list[tuple[str, ...]] = []
        self.domains: list[str | None] = []
        self.failures: dict[int, Failure] = {}
        self.dimension = self.asked = 0
        self.columns: set[str] = set()  # those that say something
        self._folder = Scratch()
        self.file = (self._folder.path / "names").open("wb")
        self._ends: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
        self._known: dict[Any, Any] = {}  # equal labels are one object: millions of images have a few

    def add(self, parts: Parts, number: int, block: Block) -> None:
        """A row group, which is the part's so-and-so-many-th.

        Raises:
            SourceError: its vectors are of another length than those before.
        """
        length = block.vectors.shape[1]
        if len(block.vectors) and self.dimension and length != self.dimension:
            raise SourceError(
                f"{parts.folder.path(block.part)} holds vectors of {length:,} numbers, and others hold "
                f"{self.dimension:,}: they are of two models"
            )
        whole = bool(block.there.all())
        self.groups.append(_Group(parts, block.part, number, None if whole else block.there))
        self.counts.append(len(block.vectors))
        if len(block.vectors):
            self.dimension = length
        names = [(name or "").encode() for name in block.column("source")]
        self.file.write(b"".join(names))
        lengths = np.fromiter(map(len, names), np.int64, len(names))
        if names:
            self._ends.append(self._ends[-1][-1] + np.cumsum(lengths))
        self.positions.append(np.flatnonzero(block.there) + self.asked)
        self.labels += [self._one(tuple(own or ())) for own in block.column("labels")]
        self.domains += [self._one(domain) for domain in block.column("domain")]
        self.columns |= {name for name in ("digest", "notes") if block.says(name)}
        if not whole:
            told = parts.group(block.part, number).records()
            self.failures |= {
                self.asked + row: each for row, each in enumerate(told) if isinstance(each, Failure)
            }
        self.asked += len(block.there)

    def names(self) -> StoredNames:
        """The images' names."""
        return StoredNames(self._folder, np.concatenate(self._ends))

    def fail(self, failure: Failure) -> None:
        """A shard that cannot be read, or not to its end."""
        self.failures[self.asked] = failure
        self.asked += 1

    def _one(self, value: Any) -> Any:
        return self._known.setdefault(value, value)


def stored(folders: Sequence[Parts]) -> Embeddings:
    """The vectors of folders, in order, one after the other; a shard that cannot be read is a failure.

    Everything is read once now, so that what is damaged is known; up to ``HELD`` bytes of vectors stay in
    memory. The parts of an object store are copied into a temporary folder first, and read from there.

    Raises:
        RequestError: vectors of different models.
        SourceError: no room for the copies.
    """
    first = folders[0]
    for other in folders[1:]:
        recipes = [each.recipe.space for each in (first, other) if each.recipe is not None]
        lengths = [each.meta["dimension"] for each in (first, other) if each.meta.get("dimension")]
        if len(set(recipes)) > 1 or len(set(lengths)) > 1:
            raise RequestError(
                f"{first.name} and {other.name} hold vectors of different models: they cannot be compared"
            )
    scanned = _Scanned()
    with scanned.file:
        for parts in folders:
            parts.copy_here()
            _scan(parts, scanned)
    dimension = scanned.dimension or first.meta.get("dimension") or 1
    groups = _Groups(scanned.groups, scanned.counts, dimension)
    labels = scanned.labels if any(scanned.labels) else None
    domains = scanned.domains if any(each is not None for each in scanned.domains) else None
    met = dict.fromkeys(label for own in dict.fromkeys(labels or ()) for label in own)
    declared = [label for parts in folders for label in parts.meta.get("classes") or ()]
    vectors: Any = StoredVectors(groups)
    sources: Sequence[str] = scanned.names()
    beside: dict[str, Any] = {
        name: StoredColumn(groups, name, turned) if name in scanned.columns else None
        for name, turned in (("digest", _itself), ("notes", _tuple))
    }
    if groups.are_few(len(groups)):
        vectors, sources = np.asarray(vectors), tuple(sources)
        beside = {name: None if column is None else tuple(column) for name, column in beside.items()}
    return Embeddings(
        sources=sources,
        vectors=cast(Floats, vectors),
        positions=np.concatenate([np.empty(0, np.int64), *scanned.positions]),
        failures=scanned.failures,
        labels=None if labels is None else tuple(labels),
        domains=None if domains is None else tuple(domains),
        digests=beside["digest"],
        classes=tuple(dict.fromkeys((*declared, *met))) if declared else tuple(sorted(met)),
        multi=any(bool(parts.meta.get("multi")) for parts in folders),
        recipe=first.recipe,
        model=first.model,
        notes=beside["notes"],
    )


def _itself(value: Any) -> Any:
    return value


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value or ())


def _scan(parts: Parts, scanned: _Scanned) -> None:
    for number in parts.numbers():
        try:
            for group, block in enumerate(parts.blocks(number, _SCANNED)):
                scanned.add(parts, group, block)
        except SourceError as error:
            scanned.fail(parts.unread(number, error))
