"""Vectors into files: streamed, with bounded memory, and all or nothing."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.lib import format as npy

from nshot.atomic import Lock, check_output, replace, writing
from nshot.errors import OutputError
from nshot.extras import pyarrow
from nshot.paths import spelled, utf8
from nshot.types import Embedded, Failure, Recipe

_ROWS = 4096  # in memory at once


class VectorWriter(Protocol):
    """Takes what an embedder gives; the file is there when the ``with`` block ends well, else not at all."""

    def write(self, item: Embedded | Failure) -> None:
        """Take a vector, or the failure in its place."""

    def __enter__(self) -> VectorWriter: ...

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None: ...


def open_writer(
    output: str | os.PathLike[str], *, recipe: Recipe | None = None, model: str | None = None
) -> VectorWriter:
    """A writer for .npz or .parquet, by the name's ending. Memory does not grow with the number of vectors.

    Raises:
        OutputError: another ending, or a place that cannot be written.
        MissingExtra: Parquet without pyarrow.
    """
    path = check_output(output)
    suffix = Path(output).suffix.lower()
    if suffix not in (".npz", ".parquet"):
        raise OutputError(
            f"vectors are written as .npz or .parquet, not {suffix or 'without an ending'}: {output}"
        )
    if path.exists() and not path.is_file():
        raise OutputError(f"{output} is not a regular file")
    if suffix == ".npz":
        return _NpzWriter(path, recipe, model)
    return _ParquetWriter(path, recipe, model)


class _Spooled:
    """Vectors pile up in a hidden folder beside the output until that can be made in one move."""

    def __init__(self, path: Path, recipe: Recipe | None, model: str | None) -> None:
        self._path = path
        self._meta: dict[str, Any] = {"nshot": 1, "model": model}
        if recipe is not None:
            self._meta |= {
                "space": recipe.space,
                "encoder": recipe.fingerprint,
                "preprocessing": recipe.preprocessing,
            }
        self._lock = Lock(path)
        with writing(path):
            self._folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
        self._draft = Path(self._folder.name, path.name)
        self._dimension: int | None = None

    def __enter__(self) -> _Spooled:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            with self._folder, writing(self._path):
                try:
                    if kind is None:
                        self._assemble()
                finally:
                    self._release()
                if kind is None:
                    replace(self._draft, self._path)
        finally:
            self._lock.release()

    def write(self, item: Embedded | Failure) -> None:
        """See ``VectorWriter.write``."""
        if isinstance(item, Embedded):
            if self._dimension is None:
                self._dimension = len(item.vector)
            if len(item.vector) != self._dimension:
                raise OutputError(
                    f"the vector of {item.source} has {len(item.vector)} features, the ones before it "
                    f"{self._dimension}: vectors of different models do not go into one file"
                )
        with writing(self._path):
            self._add(item)

    def _add(self, item: Embedded | Failure) -> None:
        raise NotImplementedError

    def _assemble(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        raise NotImplementedError


class _NpzWriter(_Spooled):
    """An .npz wants its arrays' lengths before their rows, so rows and names wait in files of their own."""

    def __init__(self, path: Path, recipe: Recipe | None, model: str | None) -> None:
        super().__init__(path, recipe, model)
        with writing(path):
            self._rows = Path(self._folder.name, "rows").open("wb+")  # noqa: SIM115  (see _release)
            self._beside = Path(self._folder.name, "beside").open("w+", encoding="utf-8")  # noqa: SIM115
        self._failures: list[tuple[int, str, str, str]] = []
        self._count = 0
        self._longest = {"sources": 1, "labels": 1, "domains": 1, "notes": 1}
        self._several = self._digests = False

    def _add(self, item: Embedded | Failure) -> None:
        if isinstance(item, Failure):
            place = self._count + len(self._failures)
            self._failures.append((place, spelled(item.source), item.type, item.message))
            return
        self._rows.write(np.asarray(item.vector, dtype="<f4").tobytes())
        digest = None if item.digest is None else item.digest.hex()
        source = spelled(item.source)
        self._beside.write(json.dumps([source, item.labels, item.domain, digest, item.notes]) + "\n")
        self._count += 1
        labels = item.labels if item.labels is None or len(item.labels) != 1 else item.labels[0]
        self._several |= labels is not None and not isinstance(labels, str)
        self._digests |= digest is not None
        text = json.dumps(item.labels) if item.labels is not None else ""
        for key, value in (
            *(("sources", source), ("labels", text), ("domains", item.domain or "")),
            ("notes", json.dumps(item.notes) if item.notes else ""),
        ):
            self._longest[key] = max(self._longest[key], len(value))

    def _assemble(self) -> None:
        self._rows.seek(0)
        said = self._meta | {"failures": self._failures} | ({"multi": True} if self._several else {})
        noted = self._longest["notes"] > 1
        said |= {"notes": True} if noted else {}
        meta = np.array(json.dumps(said), dtype=np.str_)
        with zipfile.ZipFile(self._draft, "w") as archive:
            with _member(archive, "vectors", "<f4", (self._count, self._dimension or 0)) as member:
                while chunk := self._rows.read(1 << 20):
                    member.write(chunk)
            self._write_texts(archive, "sources", lambda row: row[0])
            if self._longest["labels"] > 1:
                several = self._several

                def text(row: list[Any]) -> str:
                    own = row[1] or []
                    return json.dumps(own) if several else str(own[0])

                self._write_texts(archive, "labels", text)
            if self._longest["domains"] > 1:
                self._write_texts(archive, "domains", lambda row: row[2] or "")
            if noted:
                self._write_texts(archive, "notes", lambda row: json.dumps(row[4]) if row[4] else "")
            if self._digests:
                with _member(archive, "digests", "|u1", (self._count, 32)) as member:
                    for row in self._rows_beside():
                        member.write(bytes.fromhex(row[3]) if row[3] else bytes(32))
            with _member(archive, "meta", meta.dtype.str, ()) as member:
                member.write(meta.tobytes())

    def _write_texts(self, archive: zipfile.ZipFile, name: str, text: Callable[[list[Any]], str]) -> None:
        """An array of texts, padded to one length, as numpy has it: deflates well."""
        dtype = np.dtype(f"<U{self._longest[name]}")
        with _member(archive, name, dtype.str, (self._count,)) as member:
            rows = self._rows_beside()
            while part := [text(row) for row in islice(rows, _ROWS)]:
                member.write(np.array(part, dtype=dtype).tobytes())

    def _rows_beside(self) -> Iterator[list[Any]]:
        self._beside.seek(0)
        for line in self._beside:
            yield json.loads(line)

    def _release(self) -> None:
        self._rows.close()
        self._beside.close()


class _ParquetWriter(_Spooled):
    """A row group every few thousand rows; a failure is a row without a vector."""

    def __init__(self, path: Path, recipe: Recipe | None, model: str | None) -> None:
        pa = pyarrow()
        super().__init__(path, recipe, model)
        text = pa.string()
        fields = [("source", text), ("embedding", pa.list_(pa.float32())), ("labels", pa.list_(text))]
        fields += [("domain", text), ("digest", pa.binary()), ("error_type", text), ("error_message", text)]
        fields += [("notes", pa.list_(text))]
        self._schema = pa.schema(fields, metadata={"nshot": json.dumps(self._meta)})
        with writing(path):
            self._writer = pa.parquet.ParquetWriter(self._draft, self._schema)
        self._waiting: list[Embedded | Failure] = []

    def _add(self, item: Embedded | Failure) -> None:
        self._waiting.append(item)
        if len(self._waiting) == _ROWS:
            self._write_group()

    def _assemble(self) -> None:
        self._write_group()

    def _write_group(self) -> None:
        pa = pyarrow()
        items, self._waiting = self._waiting, []
        failures = [item if isinstance(item, Failure) else None for item in items]
        columns = [
            pa.array([spelled(item.source) for item in items], pa.string()),
            pa.array([item.vector for item in items], self._schema.types[1]),
            pa.array([item.labels for item in items], self._schema.types[2]),
            pa.array([item.domain for item in items], pa.string()),
            pa.array([item.digest if isinstance(item, Embedded) else None for item in items], pa.binary()),
            pa.array([failure and failure.type for failure in failures], pa.string()),
            pa.array([failure and utf8(failure.message) for failure in failures], pa.string()),
            pa.array([[utf8(note) for note in item.notes] or None for item in items], pa.list_(pa.string())),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def _release(self) -> None:
        self._writer.close()


@contextmanager
def _member(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """An array of an .npz, written piece by piece; the date is fixed, so equal content makes equal files."""
    entry = zipfile.ZipInfo(f"{name}.npy")
    entry.compress_type = zipfile.ZIP_STORED if name == "vectors" else zipfile.ZIP_DEFLATED
    with archive.open(entry, "w", force_zip64=True) as member:
        npy.write_array_header_1_0(member, {"descr": dtype, "fortran_order": False, "shape": shape})
        yield member
