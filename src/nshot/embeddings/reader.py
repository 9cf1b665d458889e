"""Vectors out of files: unit rows with names, and a failure for each row that is none."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nshot.bounded import weighed
from nshot.embeddings.blocks import split_error
from nshot.embeddings.embeddings import Embeddings
from nshot.embeddings.parts import Parts, is_parts
from nshot.embeddings.stored import stored
from nshot.errors import NshotError, SourceError, brief
from nshot.extras import pyarrow
from nshot.images.archives import directory_of
from nshot.images.footer import largest_page, row_groups
from nshot.paths import unspelled
from nshot.types import Failure, Floats, Recipe

# arrays looked for, in this order
_NAMES = ("vectors", "image_embeds", "embeddings", "embedding", "image_features", "features")
_COLUMNS = ("embedding", "vector", "embeddings", "vectors", "image_embeds", "features")  # and columns
_SOURCES = ("sources", "source", "paths", "path", "filenames", "file_name", "filename", "names", "image")
_LABELS = ("labels", "label", "targets", "target", "y", "class", "classes")
_LABEL_NAMES = ("class_names", "label_names", "classnames", "names_of_labels")
_CHUNK = 4096  # rows widened to float64 at once

# what a small file may not become; of large ones, memory is what they are
_MOST_UNPACKED, _MOST_PACKED = 2**28, 20  # bytes, and how many to one packed
_MOST_ROWS, _ROW = 2**20, 400  # rows, and bytes that the name of one takes, with what belongs to it
_MOST_ARRAYS = 1000
_DIRECTORY = 2**20  # bytes of a zip archive's


def is_vector_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file's content is vectors: an .npy, a zip of .npy, or Parquet with a list column of floats.

    A folder of parts, as a large run writes it, is one as well.

    Raises:
        MissingExtra: a Parquet file, which only pyarrow can tell apart.
    """
    if is_parts(path):
        return True
    if not Path(path).is_file():  # a pipe would lose what is read from it
        return False
    try:
        with Path(path).open("rb") as file:
            magic = file.read(6)
            if magic.startswith(b"PK"):
                if directory_of(file)[0] > _DIRECTORY:
                    return False
                with zipfile.ZipFile(file) as archive:
                    names = archive.namelist()
                    return bool(names) and all(name.endswith(".npy") for name in names)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False
    return _vector_column(path) is not None if magic.startswith(b"PAR1") else magic == npy.MAGIC_PREFIX


def read_vectors(path: str | os.PathLike[str]) -> Embeddings:
    """Vectors of a file, each made a unit vector along its features.

    Those of a large folder of parts stay on the disk, and are read when they are asked for.

    Raises:
        SourceError: damaged, or no two-dimensional array of floats to be found in it.
        MissingExtra: a Parquet file without pyarrow.
    """
    if is_parts(path):
        return stored([Parts(path)])
    with _readable(path), Path(path).open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        if magic.startswith(b"PAR1"):
            return _read_parquet(path)
        if magic.startswith(b"PK"):
            return _read_npz(path, file)
        array = npy.read_array(file, allow_pickle=False)
        _refuse_rows(path, len(array) if array.ndim else 0)
        return _checked(path, array, None, {}, {}, {})


def _read_npz(path: str | os.PathLike[str], file: BinaryIO) -> Embeddings:
    _refuse_bomb(path, file)
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
        _refuse_rows(path, len(array) if array.ndim else 0)
        there = [key for key in _SOURCES if key in archive.files and key != name]
        fits = [key for key in there if key == "sources" or archive[key].shape == array.shape[:1]]
        named = fits[0] if fits else None
        sources = None if named is None else archive[named].tolist()
        meta = _meta(str(archive["meta"])) if "meta" in archive.files else {}
        beside = {"domains": archive["domains"].tolist()} if "domains" in archive.files else {}
        labelled = [key for key in _LABELS if key in archive.files and key != name]
        held = next((key for key in labelled if key == "labels" or archive[key].ndim == 1), None)
        if held is not None:
            beside["labels"] = _named(path, archive, archive[held])
        if "digests" in archive.files:
            beside["digests"] = [bytes(row) if row.any() else None for row in archive["digests"]]
        if meta.get("notes") and "notes" in archive.files:
            beside["notes"] = [tuple(json.loads(one)) if one else None for one in archive["notes"].tolist()]
    if meta.get("multi"):
        beside["labels"] = [tuple(json.loads(one)) for one in beside["labels"]]
    failures = {place: Failure(*failure) for place, *failure in meta.get("failures", [])}
    return _checked(path, array, sources, meta, failures, beside)


def _refuse_bomb(path: str | os.PathLike[str], file: BinaryIO) -> None:
    """Refuse megabytes that unpack to gigabytes: vectors are no such file, nor are names."""
    if (size := directory_of(file)[0]) > _DIRECTORY:
        raise SourceError(f"{path} has a directory of {size:,} bytes, which no file of vectors does")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    file.seek(0)
    if len(entries) > _MOST_ARRAYS:
        raise SourceError(f"{path} holds {len(entries):,} arrays, which no file of vectors does")
    _refuse_unpacked(path, sum(each.file_size for each in entries))


def _refuse_rows(path: str | os.PathLike[str], rows: int) -> None:
    """Refuse rows whose names would fill the memory, in a file that is small."""
    if rows > _MOST_ROWS and _ROW * rows > _MOST_PACKED * Path(path).stat().st_size:
        raise SourceError(f"{path}: {rows:,} rows of next to nothing, which no file of vectors holds")


def _read_parquet(path: str | os.PathLike[str]) -> Embeddings:
    pa = pyarrow()
    wanted = _vector_column(path)
    if wanted is None:
        raise SourceError(f"{path} has no column {_COLUMNS[0]!r} that holds a list of floats per row")
    with pa.parquet.ParquetFile(path) as file:
        _refuse_rows(path, file.metadata.num_rows)
        schema = file.schema_arrow
        source = next((name for name in _SOURCES if name in schema.names and name != wanted), None)
        label = next((name for name in _LABELS if name in schema.names and name != wanted), None)
        ours = ("notes",) if _meta((schema.metadata or {}).get(b"nshot", b"{}")) else ()
        own = (source, wanted, label, "domain", "digest", "error_type", "error_message", "error", *ours)
        known = [name for name in own if name is not None and name in schema.names]
        texts = [name for name in known if _is_text(pa.types, schema.field(name).type)]
    _refuse_repeated(path, known, wanted)
    with pa.parquet.ParquetFile(path, read_dictionary=texts) as file:  # what all rows share stays one
        table = file.read(columns=known)
    _refuse_unpacked(path, sum(_repeated(pa, table.column(name)) for name in texts))
    meta = _meta((schema.metadata or {}).get(b"nshot", b"{}"))
    vectors = table.column(wanted)
    lengths = set(pa.compute.list_value_length(vectors).unique().to_pylist()) - {None}
    if len(lengths) > 1:
        raise SourceError(
            f"{path} holds vectors of different lengths: {', '.join(map(str, sorted(lengths)))}"
        )
    rows = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in vectors.chunks]
    array = np.concatenate(rows or [np.empty(0, np.float32)]).reshape(-1, max(lengths, default=0) or 1)

    def column(name: str | None) -> list[Any]:
        return table.column(name).to_pylist() if name is not None and name in known else [None] * len(vectors)

    names = column(source) if source is not None else _numbered(path, len(vectors))
    there = vectors.is_valid().to_pylist()
    told = list(zip(column("error_type"), column("error_message"), strict=True))
    if "error" in known:  # a part of a folder
        told = [split_error(error) for error in column("error")]
    failures = {
        place: Failure(names[place], kind or "UndecodableImage", message or "it has no vector")
        for place, (kind, message) in enumerate(told)
        if not there[place]
    }

    def kept(name: str | None) -> list[Any]:
        return [value for value, valid in zip(column(name), there, strict=True) if valid]

    beside = {"labels": kept(label), "domains": kept("domain"), "digests": kept("digest")}
    beside["notes"] = kept("notes")
    sources = [name for name, valid in zip(names, there, strict=True) if valid]
    return _checked(path, array, sources, meta, failures, beside)


def _refuse_repeated(path: str | os.PathLike[str], known: Sequence[str], wanted: str) -> None:
    """Refuse columns that kilobytes unpack to gigabytes, by what the file's end and each page claim."""
    values = unpacked = 0
    with Path(path).open("rb") as file:
        for _, chunks in row_groups(file):
            for chunk in chunks:
                read = chunk.path[:1] and chunk.path[0] in known
                unpacked += max(chunk.unpacked, largest_page(file, chunk)) if read else chunk.unpacked
                if chunk.path[:1] == (wanted,):
                    values += chunk.values
    _refuse_unpacked(path, max(4 * values, unpacked))


def _refuse_unpacked(path: str | os.PathLike[str], unpacked: int) -> None:
    packed = Path(path).stat().st_size
    if unpacked > _MOST_UNPACKED and unpacked > _MOST_PACKED * packed:
        raise SourceError(
            f"{path} unpacks from {packed:,} to {unpacked:,} bytes, which no file of vectors does"
        )


def _is_text(types: Any, kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_binary(kind))


def _repeated(pa: Any, column: Any) -> int:
    """Bytes that the texts of a column take, where rows share them in the file."""
    size = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            lengths = pa.compute.binary_length(chunk.dictionary).take(chunk.indices)
            size += pa.compute.sum(lengths).as_py() or 0
    return size


def _vector_column(path: str | os.PathLike[str]) -> str | None:
    """The column that holds the vectors, if one does."""
    pa = pyarrow()
    try:
        schema = pa.parquet.read_schema(path)
    except (pa.ArrowException, OSError, ValueError):
        return None
    for name in _COLUMNS:
        kind = schema.field(name).type if name in schema.names else pa.null()
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if lists and pa.types.is_floating(kind.value_type):
            return name
    return None


def _checked(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    sources: list[str] | None,
    meta: dict[str, Any],
    failures: dict[int, Failure],
    beside: dict[str, list[Any]],
) -> Embeddings:
    """Unit rows and their names; rows without a direction join the failures."""
    if array.ndim != 2 or array.dtype.kind != "f":
        raise SourceError(
            f"{path} holds {array.dtype} of shape {array.shape}: "
            "a float array with one vector per row is needed"
        )
    if sources is None:
        sources = _numbered(path, len(array))
    if "nshot" in meta:  # our own file, whose names are spelled
        sources = [unspelled(str(name)) for name in sources]
        failures = {place: replace(each, source=unspelled(each.source)) for place, each in failures.items()}
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
    rows_kept = np.flatnonzero(good).tolist()

    def column(name: str) -> tuple[Any, ...] | None:
        values = beside.get(name)
        if values is None:
            return None
        if len(values) != len(array):
            raise SourceError(f"{path} holds {len(array)} vectors, but {len(values)} {name}")
        found = tuple(values[row] for row in rows_kept)
        return found if any(value is not None for value in found) else None

    labels, notes = column("labels"), column("notes")
    own = None if labels is None else tuple(_labels_of(value) for value in labels)
    met = dict.fromkeys(label for each in own or () for label in each)
    positions = [places[row] for row in rows_kept]
    return Embeddings(
        sources=tuple(str(sources[row]) for row in rows_kept),
        vectors=unit if good.all() else unit[good],
        positions=np.array(positions, np.int64),
        failures=failures,
        labels=own,
        domains=column("domains"),
        digests=column("digests"),
        classes=tuple(dict.fromkeys((*meta.get("classes", ()), *sorted(met)))),
        multi=bool(meta.get("multi")) or any(len(each) != 1 for each in own or ()),
        recipe=_recipe(meta),
        model=meta.get("model"),
        notes=None if notes is None else tuple(tuple(map(str, each or ())) for each in notes),
    )


def _named(path: str | os.PathLike[str], archive: Any, labels: NDArray[Any]) -> list[Any]:
    """Labels as they are, or by the names that stand beside their numbers; a row of 0 and 1 is several."""
    names = next((archive[key].tolist() for key in _LABEL_NAMES if key in archive.files), None)
    if labels.ndim == 2 and names is not None and labels.shape[1] == len(names):
        return [
            tuple(name for name, is_on in zip(names, row, strict=True) if is_on) for row in labels.tolist()
        ]
    if labels.ndim != 1:
        raise SourceError(f"{path}: labels of shape {labels.shape}: a label per vector is needed")
    if names is None or labels.dtype.kind not in "iuf":
        return list(labels.tolist())
    numbers = [int(number) for number in labels.tolist()]
    if not all(0 <= number < len(names) for number in numbers):
        raise SourceError(f"{path}: its {len(names)} names of labels are too few for its numbers")
    return [str(names[number]) for number in numbers]


def _labels_of(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else (str(value),)


def _recipe(meta: dict[str, Any]) -> Recipe | None:
    """What made the vectors, as far as the file says."""
    space = meta.get("space") or meta.get("fingerprint")  # files of 0.1.0 say the space alone, by that name
    if not space:
        return None
    return Recipe(str(meta.get("encoder", "")), str(meta.get("preprocessing", "")), str(space))


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
        meta = weighed(text)
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
    except NshotError:
        raise
    except Exception as error:  # numpy, zipfile and pyarrow raise whatever their parsing runs into
        raise SourceError(f"{path} is damaged, or no file of vectors: {brief(error)}") from error
