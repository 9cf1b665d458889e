"""Vectors into files: streamed, with bounded memory, and all or nothing."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.lib import format as npy

from nshot.atomic import check_output, replace, writing
from nshot.errors import OutputError
from nshot.extras import pyarrow
from nshot.types import Embedded, Failure

_ROWS = 4096  # in memory at once


class VectorWriter(Protocol):
    """Takes what an embedder gives; the file is there when the ``with`` block ends well, else not at all."""

    def write(self, item: Embedded | Failure) -> None:
        """Take a vector, or the failure in its place."""

    def __enter__(self) -> VectorWriter: ...

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None: ...


def open_writer(
    output: str | os.PathLike[str], *, fingerprint: str | None = None, model: str | None = None
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
        return _NpzWriter(path, fingerprint, model)
    return _ParquetWriter(path, fingerprint, model)


class _Spooled:
    """Vectors pile up in a hidden folder beside the output until that can be made in one move."""

    def __init__(self, path: Path, fingerprint: str | None, model: str | None) -> None:
        self._path = path
        self._meta = {"nshot": 1, "fingerprint": fingerprint, "model": model}
        with writing(path):
            self._folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
        self._draft = Path(self._folder.name, path.name)
        self._dimension: int | None = None

    def __enter__(self) -> _Spooled:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._folder, writing(self._path):
            try:
                if kind is None:
                    self._assemble()
            finally:
                self._release()
            if kind is None:
                replace(self._draft, self._path)

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

    def __init__(self, path: Path, fingerprint: str | None, model: str | None) -> None:
        super().__init__(path, fingerprint, model)
        with writing(path):
            self._rows = Path(self._folder.name, "rows").open("wb+")  # noqa: SIM115  (see _release)
            self._names = Path(self._folder.name, "names").open("w+", encoding="utf-8")  # noqa: SIM115
        self._failures: list[tuple[int, str, str, str]] = []
        self._count = self._longest = 0

    def _add(self, item: Embedded | Failure) -> None:
        if isinstance(item, Failure):
            place = self._count + len(self._failures)
            self._failures.append((place, item.source, item.type, item.message))
            return
        self._rows.write(np.asarray(item.vector, dtype="<f4").tobytes())
        self._names.write(json.dumps(item.source) + "\n")
        self._count += 1
        self._longest = max(self._longest, len(item.source))

    def _assemble(self) -> None:
        self._rows.seek(0)
        self._names.seek(0)
        names = np.dtype(f"<U{max(self._longest, 1)}")  # padded to one length, as numpy has it: deflates well
        meta = np.array(json.dumps({**self._meta, "failures": self._failures}), dtype=np.str_)
        with zipfile.ZipFile(self._draft, "w") as archive:
            with _member(archive, "vectors", "<f4", (self._count, self._dimension or 0)) as member:
                while chunk := self._rows.read(1 << 20):
                    member.write(chunk)
            with _member(archive, "sources", names.str, (self._count,)) as member:
                while lines := [json.loads(line) for line in islice(self._names, _ROWS)]:
                    member.write(np.array(lines, dtype=names).tobytes())
            with _member(archive, "meta", meta.dtype.str, ()) as member:
                member.write(meta.tobytes())

    def _release(self) -> None:
        self._rows.close()
        self._names.close()


class _ParquetWriter(_Spooled):
    """A row group every few thousand rows; a failure is a row without a vector."""

    def __init__(self, path: Path, fingerprint: str | None, model: str | None) -> None:
        pa = pyarrow()
        super().__init__(path, fingerprint, model)
        fields = [("source", pa.string()), ("vector", pa.list_(pa.float32()))]
        fields += [("error_type", pa.string()), ("error_message", pa.string())]
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
            pa.array([_utf8(item.source) for item in items], pa.string()),
            pa.array(
                [item.vector if isinstance(item, Embedded) else None for item in items], self._schema.types[1]
            ),
            pa.array([failure and _utf8(failure.type) for failure in failures], pa.string()),
            pa.array([failure and _utf8(failure.message) for failure in failures], pa.string()),
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


def _utf8(text: str) -> str:
    """Parquet holds only UTF-8: another byte of a file's name is written as ``\\xff``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
