"""Vectors as a folder of Parquet files, read a row group at a time; ``part_writer`` writes them.

    manifest.parquet      what was planned: a row per image or archive, and the part that it goes into
    part-00000.parquet    source, embedding (a fixed-size list of floats), error; labels where known

A part is there as a whole or not at all. Its metadata tells the recipe, the plan it belongs to, its counts
and a digest of all its rows; equal rows make equal files.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from nshot.atomic import Scratch
from nshot.bounded import weighed
from nshot.embeddings.blocks import Block, Mapped, block_of, check_texts
from nshot.errors import NONSENSE, SourceError, brief
from nshot.extras import pyarrow
from nshot.objects import Folder, is_object_url, open_folder
from nshot.types import Embedded, Failure, Recipe

MANIFEST = "manifest.parquet"
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
        try:
            return open_folder(text).exists(MANIFEST)
        except SourceError as error:
            raise SourceError(f"{text} cannot be asked: {brief(error.__cause__ or error)}") from error
    try:
        if (Path(text) / MANIFEST).is_file():
            return True
        if not Path(text).is_dir():
            return False
        with os.scandir(text) as entries:
            return any(_PART.fullmatch(each.name) for each in entries)
    except OSError:  # a folder that may not be listed: whoever lists it says so
        return False


class Parts:
    """A folder of parts, read from the first row group to the last; memory is bounded by a row group.

    Args:
        path: the folder.

    Attributes:
        bytes: that the parts take.

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
        self.bytes = sum(files[name] for name in numbered.values())
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
        with self._part(number) as (name, file, said):
            mapped = self._mapped(file, name, said)
            for group in range(file.num_row_groups):
                yield self._read(file, name, group, columns, mapped)

    def digest(self, number: int) -> str | None:
        """The digest of a shard's rows, as its part tells it.

        Raises:
            SourceError: as ``blocks``.
        """
        with self._part(number) as (_, _, said):
            return said.get("digest")

    def failures(self, number: int) -> Iterator[Failure]:
        """The images of a shard that have no vector.

        Raises:
            SourceError: as ``blocks``.
        """
        for block in self.blocks(number):
            if not block.there.all():
                yield from (item for item in block.records() if isinstance(item, Failure))

    def names(self, number: int) -> Iterator[Any]:
        """The images' names of a shard's row groups, as pyarrow has them, those without a vector among them.

        Raises:
            SourceError: as ``blocks``.
        """
        with self._part(number) as (name, file, _):
            for group in range(file.num_row_groups):
                with self._reading(name):
                    table = file.read_row_group(group, columns=["source"], use_threads=False)
                    check_texts(table)
                yield table.column("source")

    @contextmanager
    def _part(self, number: int) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        """A shard's file, opened, and what it says of itself."""
        name = self.parts.get(number)
        if name is None:
            raise SourceError(f"{self.folder.path(part_name(number))} is not made yet: run nshot embed again")
        with self._opened(name) as file:
            said = meta_of(file)
            if self.plan is not None and said.get("plan") != self.plan["plan"]:
                raise SourceError(f"{self.folder.path(name)} belongs to another plan")
            if said.get("space") != self.meta.get("space"):
                raise SourceError(f"{self.folder.path(name)} holds vectors of another model")
            yield name, file, said

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
            check_texts(table)
            return table.column(0).to_pylist()  # type: ignore[no-any-return]

    def copy_here(self) -> None:
        """From now on read the parts of an object store from copies on this machine, each copied once."""
        if self._copies is None and is_object_url(self.name):
            self._copies = Scratch()

    def unread(self, number: int, error: SourceError) -> Failure:
        """The record of a shard that cannot be read."""
        kind = _ENDED if number in self.parts else _MISSING
        return Failure(self.folder.path(part_name(number)), kind, str(error))

    def _mapped(self, file: Any, name: str, said: Mapping[str, Any]) -> Mapped | None:
        here = self._copied(name)
        with self._reading(name):
            return None if here is None else Mapped.of(here, file, said)

    def _read(
        self, file: Any, name: str, group: int, columns: Sequence[str] | None, mapped: Mapped | None
    ) -> Block:
        there = file.schema_arrow.names
        kept = [c for c in there if columns is None or c in columns or c == "embedding"]
        with self._reading(name):
            if mapped is not None:
                kept.remove("embedding")
            # at once, not by batches: those copy
            table = file.read_row_group(group, columns=kept, use_threads=False)
            check_texts(table)
            if mapped is None:
                return block_of(name, table)
            return mapped.block(name, table, group)

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
        said = weighed(said or file.metadata.metadata[b"nshot"])
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
