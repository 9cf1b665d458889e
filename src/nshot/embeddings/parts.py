"""Vectors as a folder of Parquet files: written part by part, read a row group at a time.

    manifest.parquet      what was planned: a row per image or archive, and the part that it goes into
    part-00000.parquet    source, embedding (a fixed-size list of floats), error; labels where known

A part is there as a whole or not at all. Its metadata tells the recipe, the plan it belongs to, its counts
and a digest of all its rows; equal rows make equal files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nshot.atomic import Scratch
from nshot.errors import NONSENSE, SourceError, brief
from nshot.extras import pyarrow
from nshot.images.footer import row_groups
from nshot.objects import Folder, is_object_url, open_folder
from nshot.paths import spelled, unspelled, utf8
from nshot.types import Embedded, Failure, Floats, Recipe

MANIFEST = "manifest.parquet"
ROWS = 16_384  # in a row group
_ONE_PAGE = 2**30  # bytes: a row group's vectors are one page, so that they lie in the file as one array

Width: TypeAlias = Literal["float32", "float16"]

_PART = re.compile(r"part-(\d{5,})\.parquet")
_MISSING = "MissingShard"
_ENDED = "DamagedShard"


def part_name(number: int) -> str:
    """The file of a shard."""
    return f"part-{number:05}.parquet"


def is_parts(path: str | os.PathLike[str]) -> bool:
    """Whether a name is a folder of parts that nshot wrote, here or in an object store.

    Raises:
        MissingExtra: an object store without obstore.
    """
    text = os.fspath(path)
    if is_object_url(text):
        ending = os.path.splitext(text.rstrip("/"))[1].lower()  # noqa: PTH122
        if ending and not text.endswith("/"):
            return False
        return open_folder(text).exists(MANIFEST)
    try:
        if (Path(text) / MANIFEST).is_file():
            return True
        if not Path(text).is_dir():
            return False
        with os.scandir(text) as entries:
            return any(_PART.fullmatch(each.name) for each in entries)
    except OSError:  # a folder that may not be listed: whoever lists it says so
        return False


class PartWriter:
    """One part's rows, in their order; memory is bounded by a row group.

    Args:
        draft: the local file to write.
        dimension: length d of the vectors.
        width: what they are kept as.
        labelled: whether there are columns of labels and domains.
        meta: what the part says of itself, beside its counts and its digest.
    """

    def __init__(
        self, draft: Path, *, dimension: int, width: Width, labelled: bool, meta: Mapping[str, Any]
    ) -> None:
        pa = pyarrow()
        self._meta = dict(meta)
        self._dtype = np.dtype("<f4" if width == "float32" else "<f2")
        self._dimension = dimension
        self._labelled = labelled
        value = pa.float32() if width == "float32" else pa.float16()
        self._vector = pa.list_(pa.field("element", value, nullable=False), dimension)
        text = pa.string()
        fields = [("source", text), ("embedding", self._vector)]
        fields += [("labels", pa.list_(text)), ("domain", text)] if labelled else []
        fields += [("digest", pa.binary()), ("error", text), ("notes", pa.list_(text))]
        self._schema = pa.schema(fields)
        self._writer = pa.parquet.ParquetWriter(
            draft,
            self._schema,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            data_page_size=_ONE_PAGE,
            data_page_version="1.0",
        )
        self._waiting: list[Embedded | Failure] = []
        self._digest = hashlib.sha256()
        self.rows = self.failed = 0
        self.kinds: dict[str, int] = {}

    def write(self, item: Embedded | Failure) -> None:
        """Take a vector, or the failure in its place."""
        self._waiting.append(item)
        self.rows += 1
        if isinstance(item, Failure):
            self.failed += 1
            self.kinds[item.type] = self.kinds.get(item.type, 0) + 1
        if len(self._waiting) == ROWS:
            self._write_group()

    def say(self, name: str, value: object) -> None:
        """Let the part say something more of itself."""
        self._meta[name] = value

    def finish(self) -> dict[str, Any]:
        """Write what waits and the metadata; what the part says of itself."""
        if self._waiting or not self.rows:
            self._write_group()
        said = self._meta | {
            "rows": self.rows,
            "failed": self.failed,
            "failures": dict(sorted(self.kinds.items())),
            "digest": self._digest.hexdigest(),
            "page": "one",
        }
        self._writer.add_key_value_metadata({"nshot": json.dumps(said)})
        self._writer.close()
        return said

    def abandon(self) -> None:
        """Close the file, whatever it holds."""
        self._writer.close()

    def _write_group(self) -> None:
        pa = pyarrow()
        items, self._waiting = self._waiting, []
        there = np.array([isinstance(item, Embedded) for item in items], bool)
        vectors = np.zeros((len(items), self._dimension), self._dtype)
        for row, item in enumerate(items):
            if isinstance(item, Embedded):
                vectors[row] = item.vector
        flat = pa.array(vectors.ravel(), self._vector.value_type)
        mask = None if there.all() else pa.array(~there)
        columns = [
            pa.array([spelled(item.source) for item in items], pa.string()),
            pa.FixedSizeListArray.from_arrays(flat, type=self._vector, mask=mask),
        ]
        if self._labelled:
            columns.append(pa.array([item.labels for item in items], pa.list_(pa.string())))
            columns.append(pa.array([item.domain for item in items], pa.string()))
        digests = [item.digest if isinstance(item, Embedded) else None for item in items]
        errors = [_told(item) if isinstance(item, Failure) else None for item in items]
        columns.append(pa.array(digests, pa.binary()))
        columns.append(pa.array(errors, pa.string()))
        columns.append(
            pa.array([[utf8(note) for note in item.notes] or None for item in items], pa.list_(pa.string()))
        )
        table = pa.Table.from_arrays(columns, schema=self._schema)
        add_to_digest(self._digest, table)
        self._writer.write_table(table, row_group_size=ROWS)


def add_to_digest(digest: Any, table: Any) -> None:
    """Take a row group into the digest of its part: names, vectors, errors, labels, whatever there is."""
    for name in table.column_names:
        if name == "embedding":
            there = table.column(name).is_valid().to_numpy(zero_copy_only=False)
            digest.update(np.packbits(there).tobytes())
            for chunk in table.column(name).chunks:
                digest.update(np.ascontiguousarray(chunk.flatten().to_numpy(zero_copy_only=False)).data)
            continue
        values = table.column(name).to_pylist()
        held = [value.hex() if isinstance(value, bytes) else value for value in values]
        digest.update(json.dumps([name, held], ensure_ascii=False).encode())


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


class Parts:
    """A folder of parts, read from the first row group to the last; memory is bounded by a row group.

    Args:
        path: the folder.

    Raises:
        SourceError: there are no parts in it, or they are of different models.
        MissingExtra: pyarrow is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        pyarrow()
        self.folder: Folder = open_folder(path)
        self.name = self.folder.name
        self._copies: Scratch | None = None
        files = self.folder.files()
        numbered = {int(found[1]): name for name in files if (found := _PART.fullmatch(name))}
        self.parts: dict[int, str] = dict(sorted(numbered.items()))
        self.plan = self._planned() if MANIFEST in files else None
        if self.plan is not None:
            self.parts = {number: name for number, name in self.parts.items() if number < self.plan["shards"]}
        if not self.parts:
            raise SourceError(f"{self.name} holds no vectors yet: nshot embed writes them")
        self.meta = self.plan or self._first()

    def _planned(self) -> dict[str, Any] | None:
        pa = pyarrow()
        try:
            with self.folder.open(MANIFEST) as file, pa.parquet.ParquetFile(file) as opened:
                said = meta_of(opened)
                return said if is_plan(said, opened.metadata.num_rows) else None  # or somebody else's
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SourceError(f"{self.folder.path(MANIFEST)} is damaged: {brief(error)}") from error

    def _first(self) -> dict[str, Any]:
        for name in self.parts.values():
            try:
                with self._opened(name) as opened:
                    return meta_of(opened)
            except SourceError:
                continue
        raise SourceError(f"none of the parts in {self.name} can be read")

    @property
    def recipe(self) -> Recipe | None:
        """What made the vectors, as far as it is known."""
        return recipe_of(self.meta)

    @property
    def model(self) -> str | None:
        """The name of the model, as far as it is known."""
        return self.meta.get("model")

    @cached_property
    def missing(self) -> list[int]:
        """The numbers of the shards that were planned and are not there."""
        if self.plan is None:
            return []
        return [number for number in range(self.plan["shards"]) if number not in self.parts]

    def numbers(self) -> list[int]:
        """All shards that there are or should be, in their order."""
        return sorted((*self.parts, *self.missing))

    def blocks(self, number: int, columns: Sequence[str] | None = None) -> Iterator[Block]:
        """A shard's row groups.

        Args:
            number: which.
            columns: those that are wanted beside the vectors, where they are there; all by default.

        Raises:
            SourceError: it is not there, is damaged, or belongs to another plan.
        """
        name = self.parts.get(number)
        if name is None:
            raise SourceError(f"{self.folder.path(part_name(number))} is not made yet: run nshot embed again")
        with self._opened(name) as file:
            said = meta_of(file)
            if self.plan is not None and said.get("plan") != self.plan["plan"]:
                raise SourceError(f"{self.folder.path(name)} belongs to another plan")
            if said.get("space") != self.meta.get("space"):
                raise SourceError(f"{self.folder.path(name)} holds vectors of another model")
            mapped = self._mapped(file, name, said)
            for group in range(file.num_row_groups):
                yield self._read(file, name, group, columns, mapped)

    def group(self, name: str, number: int, columns: Sequence[str] | None = None) -> Block:
        """One row group of a part by the part's name.

        Raises:
            SourceError: it is gone, or damaged.
        """
        with self._opened(name) as file:
            return self._read(file, name, number, columns, self._mapped(file, name, meta_of(file)))

    def column(self, name: str, number: int, column: str) -> list[Any]:
        """One column of a row group, other than the vectors.

        Raises:
            SourceError: it is gone, or damaged.
        """
        with self._opened(name) as file, self._reading(name):
            if column not in file.schema_arrow.names:
                return [None] * file.metadata.row_group(number).num_rows
            table = file.read_row_group(number, columns=[column], use_threads=False)
            return table.column(0).to_pylist()  # type: ignore[no-any-return]

    def copy_here(self) -> None:
        """From now on read the parts of an object store from copies on this machine, each copied once."""
        if self._copies is None and is_object_url(self.name):
            self._copies = Scratch()

    def unread(self, number: int, error: SourceError) -> Failure:
        """The record of a shard that cannot be read."""
        kind = _ENDED if number in self.parts else _MISSING
        return Failure(self.folder.path(part_name(number)), kind, str(error))

    def _mapped(self, file: Any, name: str, said: Mapping[str, Any]) -> _Mapped | None:
        here = self._copied(name)
        with self._reading(name):
            return None if here is None else _Mapped.of(here, file, said)

    def _read(
        self, file: Any, name: str, group: int, columns: Sequence[str] | None, mapped: _Mapped | None
    ) -> Block:
        there = file.schema_arrow.names
        kept = [c for c in there if columns is None or c in columns or c == "embedding"]
        with self._reading(name):
            if mapped is not None:
                kept.remove("embedding")
            # at once, not by batches: those copy
            table = file.read_row_group(group, columns=kept, use_threads=False)
            _check_texts(table)
            if mapped is None:
                return _block(name, table)
            vectors = mapped.vectors(group)
            return Block(name, table, _unit(vectors), np.ones(len(vectors), bool))

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, *NONSENSE, pyarrow().ArrowException) as error:
            raise SourceError(f"{self.folder.path(name)} is damaged: {brief(error)}") from error

    def _copied(self, name: str) -> Path | None:
        """Where a part is on this machine, if it is."""
        if self._copies is None:
            return self.folder.here(name)
        copy = self._copies.path / name
        if not copy.exists():
            draft = copy.with_suffix(".draft")
            with self.folder.open(name) as source, draft.open("wb") as target:
                shutil.copyfileobj(source, target, 2**22)
            draft.replace(copy)
        return copy

    @contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        pa = pyarrow()
        with ExitStack() as until_read:
            try:
                here = self._copied(name)
                file = until_read.enter_context(self.folder.open(name)) if here is None else here
                opened = until_read.enter_context(pa.parquet.ParquetFile(file, pre_buffer=False))
            except (OSError, ValueError, pa.ArrowException) as error:
                said = f"{self.folder.path(name)} is damaged, or no part: {brief(error)}"
                raise SourceError(said) from error
            yield opened

    def records(self) -> Iterator[Embedded | Failure]:
        """Every image in order; a shard that is missing or damaged is a failure that says so."""
        for number in self.numbers():
            try:
                for block in self.blocks(number):
                    yield from block.records()
            except (SourceError, *NONSENSE) as error:
                if not isinstance(error, SourceError):
                    error = SourceError(f"{self.folder.path(self.parts[number])} is damaged: {brief(error)}")
                yield self.unread(number, error)


def meta_of(file: Any) -> dict[str, Any]:
    """What a Parquet file of nshot's says of itself; nothing where it is somebody else's."""
    try:
        said = (file.schema_arrow.metadata or {}).get(b"nshot")
        said = json.loads(said or file.metadata.metadata[b"nshot"])
    except NONSENSE:
        return {}
    if not isinstance(said, dict) or not all(
        fits(said[name]) for name, fits in _FITS.items() if name in said
    ):
        return {}
    return said


def is_plan(said: Mapping[str, Any], rows: int) -> bool:
    """Whether a manifest of so many rows says what a plan says; each shard has a row at least."""
    shards = said.get("shards")
    return isinstance(said.get("plan"), str) and type(shards) is int and 0 <= shards <= rows


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(each, str) for each in value))


# what is of another type was not written by nshot
_FITS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("model", "space", "encoder", "preprocessing", "plan"), _is_text),
    "classes": _are_texts,
    "dimension": lambda value: value is None or (type(value) is int and 0 <= value < 2**31),
    "request": lambda value: isinstance(value, (dict, str)),
}


def recipe_of(meta: Mapping[str, Any]) -> Recipe | None:
    """The recipe in a file's metadata."""
    if not meta.get("space"):
        return None
    return Recipe(str(meta.get("encoder", "")), str(meta.get("preprocessing", "")), str(meta["space"]))


def split_error(error: str | None) -> tuple[str, str]:
    """A part's error as type and message."""
    kind, colon, message = (error or "").partition(": ")
    return (
        (kind, message)
        if colon and kind.isidentifier()
        else ("UndecodableImage", error or "it has no vector")
    )


def _check_texts(table: Any) -> None:
    for text in {"source", "domain", "error"} & set(table.column_names):
        kind = table.column(text).type
        if not (pyarrow().types.is_string(kind) or pyarrow().types.is_null(kind)):
            raise TypeError(f"its column {text} holds {kind}")


def _block(name: str, table: Any) -> Block:
    column = table.column("embedding")
    there = np.ones(len(column), bool)
    if column.null_count:
        there = column.is_valid().to_numpy(zero_copy_only=False)
    dimension = column.type.list_size if hasattr(column.type, "list_size") else None
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    joined = flat[0] if len(flat) == 1 else np.concatenate(flat or [np.empty(0, np.float32)])
    rows = joined.reshape(int(there.sum()), dimension or -1)
    return Block(name, table.drop_columns(["embedding"]), _unit(rows), there)


class _Mapped:
    """Vectors that lie in a part as one array per row group, behind the levels of their page.

    pyarrow spends most of its reading on the levels, which say of each number that it is there. A part of
    nshot's without a failed image has them all, in one page, whose last bytes they are.
    """

    def __init__(
        self, path: Path, chunks: Sequence[tuple[int, int]], dtype: np.dtype[Any], length: int
    ) -> None:
        self._path, self._chunks, self._dtype, self._length = path, chunks, dtype, length

    @classmethod
    def of(cls, path: Path, file: Any, said: Mapping[str, Any]) -> _Mapped | None:
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

    def vectors(self, group: int) -> NDArray[Any]:
        """Those of a row group, [m, d], as they lie in the file."""
        start, rows = self._chunks[group]
        return np.asarray(np.memmap(self._path, self._dtype, "r", start, (rows, self._length)))


def _unit(rows: NDArray[Any]) -> Floats:
    with np.errstate(over="ignore"):
        wide: Floats = rows if rows.dtype == np.float32 else rows.astype(np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not (np.abs(length - 1) < 2e-6).all():
        good = np.isfinite(length) & (length > 0)
        if not good.all():
            raise ValueError(f"row {int(np.flatnonzero(~good)[0])} is no vector")
        wide = (wide / length[:, None]).astype(np.float32)
    return wide


def _told(failure: Failure) -> str:
    return f"{failure.type}: {utf8(failure.message)}"
