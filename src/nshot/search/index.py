"""Vectors of many images on disk, searched where they lie.

A folder beside the vectors, which is only a copy of them and can be made again at any time::

    vectors.npy    float16[n, d], unit rows; mapped into memory, never loaded
    sources        n names, JSON, one per line
    lists.faiss    an inverted file, if one was asked for
    index.json     what the others must be: counts, sizes, checksums, and the file they were made from

The folder is finished under another name and then moved into place: whoever is killed leaves the old one, the
new one, or none.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nshot.atomic import writing
from nshot.embeddings import Embeddings, read_vectors
from nshot.errors import RequestError, StoreError
from nshot.extras import faiss
from nshot.search.product import Rows, top
from nshot.types import Floats, Recipe

_VERSION = 1
_CHUNK = 16_384  # rows turned into float16 at once
_PROBED = 0.5  # share of the lists that are looked into: text vectors lie outside of the images' cloud
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

    @classmethod
    def build(
        cls,
        images: Embeddings,
        folder: str | os.PathLike[str],
        *,
        of: str | os.PathLike[str] | None = None,
        texts: Floats | None = None,
    ) -> Index:
        """Write an index, in the place of an older one.

        Args:
            images: what to search.
            folder: where.
            of: the file that the images come from; the index is void when that changes.
            texts: float32[m, d], texts that recall is measured with; with them, an inverted file is made.

        Raises:
            OutputError: it cannot be written there.
            MissingExtra: an inverted file without faiss.
        """
        target = Path(os.path.abspath(folder))  # noqa: PTH100
        if target.exists() and not (target / "index.json").exists() and any(target.iterdir()):
            raise RequestError(f"{folder} holds other things: name a folder of its own for the index")
        stamp = None if of is None else _stamp(Path(of))
        with writing(target):
            _clear(target)
            made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
            try:
                about = _write(made, images)
                about["of"] = stamp
                if texts is not None and len(images):
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

        Args:
            folder: where it is.
            of: the file that it must have been made from, as that is now.

        Raises:
            StoreError: there is none, it is damaged, or the file has changed since.
        """
        path = Path(folder)
        try:
            about = json.loads((path / "index.json").read_bytes())
            if about["version"] != _VERSION:
                raise StoreError(f"the index {folder} is of another version of nshot: build it again")
            if of is not None and about["of"] != _stamp(Path(of)):
                raise StoreError(f"{of} has changed since the index {folder} was made: build it again")
            names = (path / "sources").read_bytes()
            if zlib.crc32(names) != about["names"] or (path / "vectors.npy").stat().st_size != about["bytes"]:
                raise ValueError("a part of it is cut off or changed")
            vectors = np.load(path / "vectors.npy", mmap_mode="r", allow_pickle=False)
            if vectors.shape != tuple(about["shape"]) or vectors.dtype != np.float16:
                raise ValueError("the vectors are of another shape")
            lists = None
            if about.get("lists") is not None:
                held = (path / "lists.faiss").read_bytes()
                if zlib.crc32(held) != about["lists"]["checksum"]:
                    raise ValueError("the inverted file is damaged")
                lists = faiss().deserialize_index(np.frombuffer(held, np.uint8))
                lists.nprobe = about["lists"]["probed"]
            sources = tuple(json.loads(line) for line in names.splitlines())
        except StoreError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"the index {folder} cannot be used ({error}): build it again") from error
        recipe = None if about["recipe"] is None else Recipe(**about["recipe"])
        recall = None if lists is None else about["lists"]["recall"]
        return cls(sources, vectors, recipe, about["model"], recall, lists)

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
        folder = Path(f"{os.fspath(path)}.index")
        with suppress(StoreError):
            held = cls.open(folder, of=path)
            if texts is None or held.recall is not None:
                return held
        if (
            folder.exists()
            and not (folder / "index.json").exists()
            and {entry.name for entry in folder.iterdir()} <= {"vectors.npy", "sources", "lists.faiss"}
        ):
            shutil.rmtree(folder)  # a broken one of ours
        return cls.build(read_vectors(path), folder, of=path, texts=texts)

    def top(self, queries: Floats, count: int) -> tuple[Rows, Floats]:
        """As ``product.top``; through the inverted file where there is one.

        Raises:
            StoreError: a row that was found is no unit vector: the file is damaged.
        """
        if self._lists is None:
            rows, cosines = top(self.vectors, queries, count)
        else:
            count = min(count, len(self))
            rows, cosines = self._listed(queries, count)
        for found in rows:
            lengths = np.linalg.norm(self.vectors[np.sort(found)].astype(np.float32), axis=1)
            if not np.all(np.abs(lengths - 1) < 0.01):
                raise StoreError("the index is damaged: a row in it is no unit vector. Build it again")
        return rows, cosines

    def _listed(self, queries: Floats, count: int) -> tuple[Rows, Floats]:
        _, found = self._lists.search(np.ascontiguousarray(queries, np.float32), min(2 * count, len(self)))
        rows = np.zeros((len(queries), count), np.intp)
        cosines = np.full((len(queries), count), -1.0, np.float32)
        for number, vector in enumerate(queries):
            near = np.sort(found[number][found[number] >= 0])
            exact = self.vectors[near].astype(np.float32) @ vector
            order = np.argsort(-exact, kind="stable")[:count]
            rows[number, : len(order)], cosines[number, : len(order)] = near[order], exact[order]
        return rows, cosines


def _write(folder: Path, images: Embeddings) -> dict[str, Any]:
    """The rows and the names; what the index says about them."""
    with (folder / "vectors.npy").open("wb") as file:
        npy.write_array_header_1_0(
            file, {"descr": "<f2", "fortran_order": False, "shape": images.vectors.shape}
        )
        for start in range(0, len(images), _CHUNK):
            file.write(np.ascontiguousarray(images.vectors[start : start + _CHUNK], "<f2").tobytes())
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    names = "".join(json.dumps(name) + "\n" for name in images.sources).encode()
    _put(folder / "sources", names)
    return {
        "version": _VERSION,
        "shape": list(images.vectors.shape),
        "bytes": size,
        "names": zlib.crc32(names),
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
    return {"checksum": zlib.crc32(held), "probed": lists.nprobe, "recall": float(np.mean(shares))}


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


def _stamp(path: Path) -> list[int]:
    """What tells a changed file from an unchanged one: size and time of the last change."""
    known = path.stat()
    return [known.st_size, known.st_mtime_ns]
