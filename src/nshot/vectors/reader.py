"""Vectors out of files: unit rows with names, and a failure for each row that is none."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nshot.errors import SourceError
from nshot.extras import pyarrow
from nshot.types import Embedded, Failure, Floats

_NAMES = ("vectors", "image_embeds", "embeddings")  # looked for in this order
_CHUNK = 4096  # rows widened to float64 at once


@dataclass(frozen=True, slots=True)
class VectorFile:
    """What a file of vectors holds; iterating gives it in the file's order.

    Attributes:
        sources: the images' names; ``FILE#row``, counted from 0, where the file has none.
        vectors: float32[n, d], unit norm, a row for each source.
        fingerprint: of the encoder that made them; None where the file does not say.
        model: its name; None where the file does not say.
        failures: by their place among all that is in the file: images that had no vector when it was made,
            and rows that are none (zero or not finite).
    """

    sources: tuple[str, ...]
    vectors: Floats
    fingerprint: str | None
    model: str | None
    failures: dict[int, Failure]

    def __len__(self) -> int:
        return len(self.sources) + len(self.failures)

    def __iter__(self) -> Iterator[Embedded | Failure]:
        rows = zip(self.sources, self.vectors, strict=True)
        for place in range(len(self)):
            yield self.failures[place] if place in self.failures else Embedded(*next(rows))


def is_vector_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file's content is vectors: an .npy, a zip of .npy, or Parquet with a list column ``vector``.

    Raises:
        MissingExtra: a Parquet file, which only pyarrow can tell apart.
    """
    if not Path(path).is_file():  # a pipe would lose what is read from it
        return False
    try:
        with Path(path).open("rb") as file:
            magic = file.read(6)
            if magic.startswith(b"PK"):
                with zipfile.ZipFile(file) as archive:
                    names = archive.namelist()
                    return bool(names) and all(name.endswith(".npy") for name in names)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return _has_vectors(path) if magic.startswith(b"PAR1") else magic == npy.MAGIC_PREFIX


def read_vectors(path: str | os.PathLike[str]) -> VectorFile:
    """Vectors of a file, each made a unit vector along its features.

    Raises:
        SourceError: damaged, or no two-dimensional array of floats to be found in it.
        MissingExtra: a Parquet file without pyarrow.
    """
    with _readable(path), Path(path).open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        if magic.startswith(b"PAR1"):
            return _read_parquet(path)
        if magic.startswith(b"PK"):
            return _read_npz(path, file)
        return _checked(path, npy.read_array(file, allow_pickle=False), None, {}, {})


def _read_npz(path: str | os.PathLike[str], file: BinaryIO) -> VectorFile:
    with np.load(file, allow_pickle=False) as archive:
        name = next((name for name in _NAMES if name in archive.files), None)
        if name is None:
            arrays = {name: archive[name] for name in archive.files}
            fitting = [name for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind == "f"]
            if len(fitting) != 1:
                raise SourceError(
                    f"{path} holds {len(fitting)} two-dimensional arrays of floats (of {', '.join(arrays)}): "
                    f"call the one with the vectors {_NAMES[0]!r}"
                )
            (name,) = fitting
        array = archive[name]
        sources = archive["sources"].tolist() if "sources" in archive.files else None
        meta = _meta(str(archive["meta"])) if "meta" in archive.files else {}
    failures = {place: Failure(*failure) for place, *failure in meta.get("failures", [])}
    return _checked(path, array, sources, meta, failures)


def _read_parquet(path: str | os.PathLike[str]) -> VectorFile:
    pa = pyarrow()
    if not _has_vectors(path):
        raise SourceError(f"{path} has no column 'vector' that holds a list of floats a row")
    with pa.parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        known = [n for n in ("source", "vector", "error_type", "error_message") if n in schema.names]
        table = file.read(columns=known)
    meta = _meta((schema.metadata or {}).get(b"nshot", b"{}"))
    vectors = table.column("vector")
    lengths = set(pa.compute.list_value_length(vectors).unique().to_pylist()) - {None}
    if len(lengths) > 1:
        raise SourceError(
            f"{path} holds vectors of different lengths: {', '.join(map(str, sorted(lengths)))}"
        )
    rows = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in vectors.chunks]
    array = np.concatenate(rows or [np.empty(0, np.float32)]).reshape(-1, max(lengths, default=0) or 1)

    def column(name: str) -> list[Any]:
        return table.column(name).to_pylist() if name in known else [None] * len(vectors)

    names = column("source") if "source" in known else _numbered(path, len(vectors))
    there = vectors.is_valid().to_pylist()
    failures = {
        place: Failure(names[place], kind or "UndecodableImage", message or "it has no vector")
        for place, (kind, message) in enumerate(
            zip(column("error_type"), column("error_message"), strict=True)
        )
        if not there[place]
    }
    sources = [name for name, kept in zip(names, there, strict=True) if kept]
    return _checked(path, array, sources, meta, failures)


def _has_vectors(path: str | os.PathLike[str]) -> bool:
    pa = pyarrow()
    try:
        schema = pa.parquet.read_schema(path)
    except (pa.ArrowException, OSError):
        return False
    kind = schema.field("vector").type if "vector" in schema.names else pa.null()
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def _checked(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    sources: list[str] | None,
    meta: dict[str, Any],
    failures: dict[int, Failure],
) -> VectorFile:
    """Unit rows and their names; rows without a direction join the failures."""
    if array.ndim != 2 or array.dtype.kind != "f":
        raise SourceError(
            f"{path} holds {array.dtype} of shape {array.shape}: a float array with a vector a row is needed"
        )
    if sources is None:
        sources = _numbered(path, len(array))
    if len(sources) != len(array):
        raise SourceError(f"{path} holds {len(array)} vectors, but {len(sources)} names in 'sources'")
    unit = np.empty(array.shape, dtype=np.float32)
    good = np.empty(len(array), dtype=bool)
    for start in range(0, len(array), _CHUNK):
        rows = slice(start, start + _CHUNK)
        unit[rows], good[rows] = _unit(array[rows])
    places = [place for place in range(len(array) + len(failures)) if place not in failures]
    for row in np.flatnonzero(~good).tolist():
        what = "all zeros" if np.isfinite(array[row]).all() else "not finite (NaN or infinite)"
        failures[places[row]] = Failure(
            sources[row], "UndecodableImage", f"row {row} of {path} is {what}: it has no direction"
        )
    return VectorFile(
        sources=tuple(str(name) for name, kept in zip(sources, good, strict=True) if kept),
        vectors=unit if good.all() else unit[good],
        fingerprint=meta.get("fingerprint"),
        model=meta.get("model"),
        failures=failures,
    )


def _unit(rows: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """Rows over their own lengths, and which of them have one. Unit rows stay as they are, bit for bit."""
    wide = rows.astype(np.float64)
    largest = np.abs(wide).max(axis=1, keepdims=True, initial=0)
    good = np.isfinite(largest) & (largest > 0)
    scaled = np.divide(wide, largest, where=good, out=np.ones_like(wide))  # so that no square overflows
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit = np.divide(scaled, length, where=good, out=np.zeros_like(wide)).astype(np.float32)
    already = np.abs(length * np.where(good, largest, 0) - 1)[:, 0] < 1e-6
    unit[already] = rows[already]
    return unit, good[:, 0]


def _meta(text: str | bytes) -> dict[str, Any]:
    """What nshot wrote about the vectors; nothing where a ``meta`` is somebody else's."""
    try:
        meta = json.loads(text)
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) and meta.get("nshot") == 1 else {}


def _numbered(path: str | os.PathLike[str], count: int) -> list[str]:
    return [f"{path}#{row}" for row in range(count)]


@contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise SourceError(f"{path} is damaged, or no file of vectors: {error}") from error
