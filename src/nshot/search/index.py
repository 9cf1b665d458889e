"""Vectors of many images on disk, searched where they lie.

A folder beside the vectors, which is only a copy of them and can be made again at any time::

    vectors.npy    float16[n, d], unit rows; mapped into memory, never loaded
    sources        n names, JSON, one per line
    lists.faiss    an inverted file, if one was asked for; sealed with the person's own key
    index.json     what the others must be: counts, sizes, checksums, and the file they were made from

The folder is finished under another name and then moved into place: whoever is killed leaves the old one, the
new one, or none.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nshot.atomic import writing
from nshot.bounded import parsed, read_bytes
from nshot.embeddings import Embeddings, Parts, is_parts, read_vectors
from nshot.errors import OutputError, RequestError, SourceError, StoreError, brief
from nshot.extras import faiss
from nshot.objects import is_object_url, open_folder
from nshot.paths import cache_dir, unspelled
from nshot.seals import is_sealed, key_of_person, seal
from nshot.search.product import Rows, top
from nshot.types import Floats, Recipe

_VERSION = 1
_BYTES = 2**24  # of names looked through at once
_CHUNK = 16_384  # rows turned into float16 at once
_PROBED = 0.5  # share of the lists that are looked into: text vectors lie outside of the images' cloud
MANY = 3_000_000
"""Rows from which looking at each of them takes seconds, and an inverted file is worth its making."""

_ASKED = 10  # the recall that is told is that of the ten nearest


@dataclass(slots=True, eq=False)
class Index:
    """Images' vectors as float16 on disk: as much of ``Embeddings`` as a search needs.

    Attributes:
        sources: n names.
        vectors: float16[n, d], mapped from disk.
        recipe: what made the vectors; None: not known.
        model: the name of the model; None: not known.
        recall: of the inverted file: the share of the ten nearest that it finds for texts, measured on these
            images; None where every row is looked at, and nothing is missed.
    """

    sources: Sequence[str]
    vectors: NDArray[np.float16]
    recipe: Recipe | None = None
    model: str | None = None
    recall: float | None = None
    _lists: Any = None

    def __len__(self) -> int:
        return len(self.sources)

    def exact(self) -> Index:
        """The same index, with every row looked at."""
        return replace(self, recall=None, _lists=None)

    @classmethod
    def build(
        cls,
        images: Embeddings | Parts,
        folder: str | os.PathLike[str],
        *,
        of: str | os.PathLike[str] | None = None,
        texts: Floats | None = None,
    ) -> Index:
        """Write an index, in the place of an older one.

        Args:
            images: what to search; a folder of parts is read part by part.
            folder: where.
            of: the file that the images come from; the index is void when that changes.
            texts: float32[m, d], texts that recall is measured with; with them, an inverted file is made,
                unless the cache folder cannot hold the key that seals it.

        Raises:
            OutputError: it cannot be written there.
            MissingExtra: an inverted file without faiss.
        """
        target = Path(os.path.abspath(folder))  # noqa: PTH100
        if target.exists() and not (target / "index.json").exists() and any(target.iterdir()):
            raise RequestError(f"{folder} holds other things: name a folder of its own for the index")
        stamp = None if of is None else _stamp(of)
        with writing(target):
            _clear(target)
            made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
            try:
                about = _write(made, images)
                about["of"] = stamp
                if texts is not None and about["shape"][0] and key_of_person(make=True) is not None:
                    about["lists"] = _make_lists(made, np.load(made / "vectors.npy", mmap_mode="r"), texts)
                _put(made / "index.json", json.dumps(about).encode())
                if target.exists():
                    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
                    target.rename(old / "old")
                    made.rename(target)
                    shutil.rmtree(old, ignore_errors=True)
                else:
                    made.rename(target)
            finally:
                shutil.rmtree(made, ignore_errors=True)
        return cls.open(target, of=of)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, of: str | os.PathLike[str] | None = None) -> Index:
        """Map an index into memory.

        An inverted file is looked into only where it is whole and this person made it, as its key tells:
        faiss believes what such a file says. Elsewhere every row is looked at.

        Args:
            folder: where it is.
            of: the file that it must have been made from, as that is now.

        Raises:
            StoreError: there is none, it is damaged, or the file has changed since.
        """
        path = Path(folder)
        try:
            about = parsed(read_bytes(path / "index.json"))
            if about["version"] != _VERSION:
                raise StoreError(f"the index {folder} is of another version of nshot: build it again")
            if of is not None and about["of"] != _stamp(of):
                raise StoreError(f"{of} has changed since the index {folder} was made: build it again")
            names = _Names(path / "sources")
            if names.checksum != about["names"] or (path / "vectors.npy").stat().st_size != about["bytes"]:
                raise ValueError("a part of it is cut off or changed")
            vectors = np.load(path / "vectors.npy", mmap_mode="r", allow_pickle=False)
            if vectors.shape != tuple(about["shape"]) or vectors.dtype != np.float16:
                raise ValueError("the vectors are of another shape")
            if len(names) != len(vectors):
                raise ValueError(f"there are {len(names):,} names for {len(vectors):,} vectors")
            if not vectors.flags.aligned:  # no product takes them: where they begin is off by a byte
                raise ValueError("the vectors do not lie where they should")
            lists = None
            if about.get("lists") is not None:
                lists = _opened(path / "lists.faiss", about["lists"], vectors.shape)
            recipe = None if about["recipe"] is None else Recipe(**about["recipe"])
            recall = None if lists is None else float(about["lists"]["recall"])
            if recall is not None and not 0 <= recall <= 1:
                raise ValueError("the recall is no share")
            return cls(names, vectors, recipe, about["model"], recall, lists)
        except StoreError:
            raise
        except Exception as error:  # numpy and faiss raise whatever their parsing runs into
            raise StoreError(f"the index {folder} cannot be used ({brief(error)}): build it again") from error

    @classmethod
    def beside(cls, path: str | os.PathLike[str], *, texts: Floats | None = None) -> Index:
        """The index of a file of vectors, ``PATH.index``; made where there is none that can be used.

        Args:
            path: what ``nshot embed`` wrote.
            texts: make an inverted file, and measure it with these texts.

        Raises:
            SourceError: no file of vectors.
            OutputError: nothing can be written beside it.
        """
        folder = _place(path)
        held = None
        with suppress(StoreError):
            held = cls.open(folder, of=path)
            if texts is None or held.recall is not None or key_of_person(make=True) is None:
                return held
        if (
            folder.exists()
            and not (folder / "index.json").exists()
            and {entry.name for entry in folder.iterdir()} <= {"vectors.npy", "sources", "lists.faiss"}
        ):
            shutil.rmtree(folder)  # a broken one of ours
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            return cls.build(_images(path), folder, of=path, texts=texts)
        except OutputError:
            if held is None:
                raise
            return held  # somebody else's, where they alone may write

    def top(self, queries: Floats, count: int) -> tuple[Rows, Floats]:
        """As ``product.top``; through the inverted file where there is one.

        Raises:
            StoreError: a row that was found is no unit vector: the file is damaged.
        """
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number is found out below
            if self._lists is None:
                rows, cosines = top(self.vectors, queries, count)
            else:
                rows, cosines = self._listed(queries, min(count, len(self)))
        for found in rows:
            lengths = np.linalg.norm(self.vectors[np.sort(found)].astype(np.float32), axis=1)
            if not np.all(np.abs(lengths - 1) < 0.01):
                raise StoreError("the index is damaged: a row in it is no unit vector. Build it again")
        return rows, cosines

    def _listed(self, queries: Floats, count: int) -> tuple[Rows, Floats]:
        wanted = min(2 * count, len(self))
        _, found = self._lists.search(np.ascontiguousarray(queries, np.float32), wanted)
        rows = np.zeros((len(queries), count), np.intp)
        cosines = np.full((len(queries), count), -1.0, np.float32)
        for number, vector in enumerate(queries):
            near = np.sort(found[number][found[number] >= 0])
            if len(near) < count:  # the lists that were looked into hold no more
                (rows[number],), (cosines[number],) = top(self.vectors, vector[None], count)
                continue
            exact = self.vectors[near].astype(np.float32) @ vector
            order = np.argsort(-exact, kind="stable")[:count]
            rows[number, : len(order)], cosines[number, : len(order)] = near[order], exact[order]
        return rows, cosines


class _Names(Sequence[str]):
    """The names of a file of lines, read when they are asked for: millions of them take no memory."""

    def __init__(self, path: Path) -> None:
        self._lines = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        self.checksum, ends = 0, [np.zeros(1, np.int64)]
        for start in range(0, len(self._lines), _BYTES):
            block = self._lines[start : start + _BYTES]
            self.checksum = zlib.crc32(block.data, self.checksum)
            ends.append(np.flatnonzero(block == 10) + start + 1)
        self._ends = np.concatenate(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...

    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        if isinstance(row, slice):
            return [self[each] for each in range(len(self))[row]]
        row = range(len(self))[row]
        line = self._lines[self._ends[row] : self._ends[row + 1]].tobytes()
        try:
            return str(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"the index is damaged: its name {row} is no text. Build it again") from error


def _blocks(images: Embeddings | Parts) -> Iterator[tuple[Sequence[str], Floats]]:
    """Names and vectors, a few thousand at a time."""
    if isinstance(images, Embeddings):
        for start in range(0, len(images), _CHUNK):
            rows = slice(start, start + _CHUNK)
            yield images.sources[rows], images.vectors[rows]
        return
    for number in images.numbers():
        for block in images.blocks(number):
            names = block.table.column("source").to_pylist()
            there = zip(names, block.there, strict=True)
            yield [unspelled(name) for name, is_there in there if is_there], block.vectors


def _write(folder: Path, images: Embeddings | Parts) -> dict[str, Any]:
    """The rows and the names; what the index says about them."""
    count, checksum = 0, 0
    dimension = images.dimension if isinstance(images, Embeddings) else 0
    about = {"descr": "<f2", "fortran_order": False}
    with (folder / "vectors.npy").open("wb") as file, (folder / "sources").open("wb") as lines:
        npy.write_array_header_1_0(file, about | {"shape": (0, dimension)})
        header = file.tell()
        for sources, vectors in _blocks(images):
            if not dimension:  # known with the first ones
                dimension = vectors.shape[1]
                file.seek(0)
                npy.write_array_header_1_0(file, about | {"shape": (0, dimension)})
                header = file.tell()
            file.write(np.ascontiguousarray(vectors, "<f2").tobytes())
            names = "".join(json.dumps(name) + "\n" for name in sources).encode()
            checksum = zlib.crc32(names, checksum)
            lines.write(names)
            count += len(vectors)
        size = file.tell()
        file.seek(0)
        npy.write_array_header_1_0(file, about | {"shape": (count, dimension)})
        if file.tell() != header:
            raise OutputError(f"the index of {count} images cannot be written: its header has grown")
        for each in (file, lines):
            each.flush()
            os.fsync(each.fileno())
    return {
        "version": _VERSION,
        "shape": [count, dimension],
        "bytes": size,
        "names": checksum,
        "recipe": None
        if images.recipe is None
        else {name: getattr(images.recipe, name) for name in images.recipe.__dataclass_fields__},
        "model": images.model,
    }


def _make_lists(folder: Path, vectors: NDArray[np.float16], texts: Floats) -> dict[str, Any]:
    """An inverted file over the rows, and its recall for texts, measured against the exact product."""
    library = faiss()
    dimension = vectors.shape[1]
    count = max(1, min(len(vectors) // 40, int(4 * len(vectors) ** 0.5)))
    lists = library.index_factory(dimension, f"IVF{count},SQ8", library.METRIC_INNER_PRODUCT)
    some = np.random.default_rng(0).permutation(len(vectors))[: 64 * count]
    lists.train(np.ascontiguousarray(vectors[np.sort(some)], np.float32))
    for start in range(0, len(vectors), _CHUNK):
        lists.add(np.ascontiguousarray(vectors[start : start + _CHUNK], np.float32))
    lists.nprobe = max(1, round(_PROBED * count))
    asked = min(_ASKED, len(vectors))
    exact, _ = top(vectors, texts, asked)
    _, found = lists.search(np.ascontiguousarray(texts, np.float32), 2 * asked)
    shares = [len(np.intersect1d(a, b)) / asked for a, b in zip(exact, found, strict=True)]
    held = library.serialize_index(lists).tobytes()
    _put(folder / "lists.faiss", held)
    return {"seal": seal(held, "lists"), "probed": lists.nprobe, "recall": float(np.mean(shares))}


def _opened(path: Path, about: dict[str, Any], shape: tuple[int, ...]) -> Any:
    """The inverted file; None where it is damaged, or this person did not make it."""
    held = path.read_bytes()
    if not is_sealed(held, "lists", about.get("seal")):
        return None
    lists = faiss().deserialize_index(np.frombuffer(held, np.uint8))
    if (lists.ntotal, lists.d) != shape or not 0 < about["probed"] <= lists.nlist:
        raise ValueError("the inverted file is of other vectors")
    lists.nprobe = about["probed"]
    return lists


def _images(path: str | os.PathLike[str]) -> Embeddings | Parts:
    """What an index is made of."""
    if not is_parts(path):
        return read_vectors(path)
    parts = Parts(path)
    if parts.missing:
        raise SourceError(
            f"{len(parts.missing):,} shards of {parts.name} are not made yet: run nshot embed again"
        )
    return parts


def _clear(target: Path) -> None:
    """Remove what killed builds have left beside an index; what is younger than an hour may be at work."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*"):
        with suppress(OSError):
            if left.is_dir() and time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)


def _put(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _place(path: str | os.PathLike[str]) -> Path:
    """Where the index of a file or a folder of vectors is: beside it; of an object store, in the cache."""
    text = os.fspath(path)
    if is_object_url(text):
        return cache_dir() / "indexes" / hashlib.sha256(text.rstrip("/").encode()).hexdigest()[:24]
    return Path(f"{text.rstrip('/')}.index")


def _stamp(path: str | os.PathLike[str]) -> list[int]:
    """What tells a changed file from an unchanged one: size and time of the last change.

    Of a folder of parts: how many there are, and a number that changes with their names and sizes.
    """
    if is_parts(path):
        files = open_folder(path).files()
        told = hashlib.sha256(json.dumps(sorted(files.items())).encode()).digest()
        return [len(files), int.from_bytes(told[:6], "big")]
    known = Path(path).stat()
    return [known.st_size, known.st_mtime_ns]
