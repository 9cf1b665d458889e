"""A part of a folder of vectors written: a Parquet file that numpy can read as one array per row group."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from nshot.extras import pyarrow
from nshot.paths import spelled, utf8
from nshot.types import Embedded, Failure

ROWS = 16_384  # in a row group
_ONE_PAGE = 2**30  # bytes: a row group's vectors are one page, so that they lie in the file as one array

Width: TypeAlias = Literal["float32", "float16"]


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


def _told(failure: Failure) -> str:
    return f"{failure.type}: {utf8(failure.message)}"
