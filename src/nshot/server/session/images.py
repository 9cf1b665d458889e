"""The images of a session: rows that only ever grow in number, one per content."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nshot.errors import RequestError
from nshot.types import Embedded, Failure, Floats


class Snapshot(NamedTuple):
    """The first n rows as they are and will stay.

    Attributes:
        vectors: float32[n, d], unit rows; zeros where an image could not be read. Of a cascade, the first
            model's.
        read: bool[n], False where it could not.
        further: float32[n, d2], of a cascade the last model's unit rows; zeros where it was not asked.
    """

    vectors: Floats
    read: NDArray[np.bool_]
    further: Floats | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def joined(self, rows: Any) -> Floats:
        """Some rows as a cascade's classifier takes them; without a cascade, as they are.

        Args:
            rows: a slice, or places.
        """
        if self.further is None:
            held: Floats = self.vectors[rows]
            return held
        both: Floats = np.hstack([self.vectors[rows], self.further[rows]])
        return both


@dataclass(frozen=True, slots=True)
class Row:
    """One image.

    Attributes:
        digest: hexadecimal sha256 of its content; of its name, where the content could not be read.
        name: the first file of that content.
        others: further files of the same content.
        failure: why it could not be read; None if it was.
        notes: what decoding did that a person should know.
    """

    digest: str
    name: str
    others: list[str]
    failure: Failure | None
    notes: tuple[str, ...] = ()


class Images:
    """Rows in the order in which images were found; equal bytes are one row. Safe in several threads."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.files: list[tuple[str, int]] = []  # every file in its order, and its row
        self.by_digest: dict[str, int] = {}
        self.failed = 0
        self.repeated = 0  # files whose content was there already
        self.first: int | None = None  # length of the first model's vectors, where the model is a cascade
        self._vectors: Floats | None = None
        self._further: Floats | None = None
        self._read = np.zeros(0, dtype=bool)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, digest: str) -> int:
        """The row of a content.

        Raises:
            RequestError: there is none.
        """
        row = self.by_digest.get(digest)
        if row is None:
            raise RequestError(f"there is no image {digest[:12]}")
        return row

    def add(self, records: Iterable[Embedded | Failure]) -> None:
        """Add what an embedder yields."""
        with self._lock:
            for record in records:
                self._add(record)

    def snapshot(self, count: int | None = None) -> Snapshot:
        """The rows so far, or the first of them."""
        with self._lock:
            n = len(self.rows) if count is None else min(count, len(self.rows))
            vectors = np.zeros((0, 0), np.float32) if self._vectors is None else self._vectors[:n]
            if self._vectors is None and n:  # nothing but failures
                vectors = np.zeros((n, 0), np.float32)
            return Snapshot(vectors, self._read[:n], None if self._further is None else self._further[:n])

    def _add(self, record: Embedded | Failure) -> None:
        failure = record if isinstance(record, Failure) else None
        digest = (
            getattr(record, "digest", None)
            or hashlib.sha256(record.source.encode("utf-8", "replace")).digest()
        )
        known = self.by_digest.get(digest.hex())
        self.files.append((record.source, len(self.rows) if known is None else known))
        if known is not None:
            self.rows[known].others.append(record.source)
            self.repeated += 1
            return
        row = len(self.rows)
        if row >= len(self._read):
            self._grow(row)
        if isinstance(record, Embedded):
            vector, further = record.vector, None
            if self.first is not None:
                vector, further = vector[: self.first], vector[self.first :]
                vector = vector / np.linalg.norm(vector)
            if self._vectors is None:
                self._vectors = np.zeros((len(self._read), len(vector)), np.float32)
                if further is not None:
                    self._further = np.zeros((len(self._read), len(further)), np.float32)
            self._vectors[row] = vector
            if self._further is not None and further is not None and further.any():
                self._further[row] = further / np.linalg.norm(further)
            self._read[row] = True
        self.failed += failure is not None
        self.by_digest[digest.hex()] = row
        self.rows.append(Row(digest.hex(), record.source, [], failure, record.notes))

    def _grow(self, rows: int) -> None:
        size = max(1024, 2 * rows)
        read = np.zeros(size, dtype=bool)
        read[:rows] = self._read[:rows]
        self._read = read
        if self._vectors is not None:
            vectors = np.zeros((size, self._vectors.shape[1]), np.float32)
            vectors[:rows] = self._vectors[:rows]
            self._vectors = vectors
        if self._further is not None:
            further = np.zeros((size, self._further.shape[1]), np.float32)
            further[:rows] = self._further[:rows]
            self._further = further


class Everyday:
    """Every image compared with everyday words, kept: what is the same for all labels is computed once.

    Rows that came since are all that is computed anew. Safe to use from several threads.

    Args:
        matrix: float32[k, d], the words' unit vectors.
    """

    def __init__(self, matrix: Floats) -> None:
        self._matrix = np.ascontiguousarray(matrix)
        self._cosines = np.zeros((0, len(matrix)), np.float32)
        self._usual = np.zeros((2, 0), np.float32)
        self._shares: tuple[float, Floats, Floats, NDArray[np.float64]]
        self._shares = 0.0, self._usual[0], self._cosines, np.zeros(0)
        self._lock = threading.Lock()

    def usual(self, images: Snapshot) -> tuple[Floats, Floats]:
        """Mean and deviation of each image's cosines: float32[n] each."""
        with self._lock:
            self._extend(images)
            return self._usual[0, : len(images)], self._usual[1, : len(images)]

    def against(self, images: Snapshot, scale: float, kept: Floats) -> tuple[Floats, Floats, Floats]:
        """What the background rule asks of each image's cosines b with the words that are kept.

        Args:
            images: n images.
            scale: what a cosine is multiplied with.
            kept: float32[k], 1 for a word that is kept, 0 for another.

        Returns:
            lse(scale * b) / scale, the mean of b, its deviation: float32[n] each.
        """
        with self._lock:
            self._extend(images)
            n, words = len(images), self._cosines.shape[1]
            left_out = np.flatnonzero(kept == 0)  # few: all words together, less these, is quickest
            usual, spread = self._usual[:, :n].astype(np.float64)
            around = self._cosines[:n, left_out] - usual[:, None]
            count = max(words - len(left_out), 1)
            shift = -around.sum(axis=1) / count
            squares = words * spread**2 - np.square(around).sum(axis=1)
            deviation = np.sqrt(np.maximum(squares / count - shift**2, 0)).astype(np.float32)
            return self._lse(n, scale, left_out), (usual + shift).astype(np.float32), deviation

    def together(self, images: Snapshot, scale: float, kept: Floats) -> Floats:
        """lse(scale * b) / scale alone; see ``against``."""
        with self._lock:
            self._extend(images)
            return self._lse(len(images), scale, np.flatnonzero(kept == 0))

    def _lse(self, n: int, scale: float, left_out: NDArray[np.intp]) -> Floats:
        known, highest, shares, total = self._shares
        if known != scale or len(shares) < n:
            highest = self._cosines.max(axis=1)
            shares = np.exp(np.float32(scale) * (self._cosines - highest[:, None]))
            # in 64 bits, so that little is left exactly where a word that is left out has nearly all
            total = shares.sum(axis=1, dtype=np.float64)
            self._shares = scale, highest, shares, total
        rest = total[:n] - shares[:n, left_out].sum(axis=1, dtype=np.float64)
        lse: Floats = (highest[:n] + np.log(np.maximum(rest, 1e-30)) / scale).astype(np.float32)
        return lse

    def _extend(self, images: Snapshot) -> None:
        have, n = len(self._cosines), len(images)
        if have < n:
            fresh = images.vectors[have:n] @ self._matrix.T
            usual = np.stack([fresh.mean(axis=1), fresh.std(axis=1)])
            self._cosines = fresh if not have else np.vstack([self._cosines, fresh])
            self._usual = usual if not have else np.hstack([self._usual, usual])


def packed(images: Images, start: int, count: int) -> bytes:
    """Rows for the page: their number, 32 bytes per digest, a byte per row whether it was read, the names."""
    rows = images.rows[start : start + count]
    digests = b"".join(bytes.fromhex(row.digest) for row in rows)
    read = bytes(row.failure is None for row in rows)
    names = "\0".join(row.name for row in rows).encode("utf-8", "replace")
    return np.array([len(rows)], "<u4").tobytes() + digests + read + names


def half(values: NDArray[Any]) -> bytes:
    """float16, little-endian."""
    return values.astype("<f2").tobytes()
