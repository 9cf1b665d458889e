"""Vectors on disk, found again by what they are made of.

    (sha256 of the image's bytes, recipe)   -> vector   images
    (sha256 of the image's bytes, recipe)   -> notes    what decoding did, for the images where it matters
    (sha256 of the image's bytes, recipe)   -> bytes    regions: vectors of tiles, or of a detector's boxes
    (text, encoder's fingerprint)             -> vector   labels
    (absolute path, size, mtime)              -> sha256   files that need not be read again

Vectors are kept as float32, bit for bit: on recorded CLIP embeddings float16 moves scores by up to 4e-4 and
reorders labels, so an answer from the store would not be the answer that the encoder gives.

SQLite in WAL mode: a process killed at any moment leaves whole transactions, and several processes may read
and write at once. SQLite does not notice a damaged byte, so each row has a checksum over all that it says,
the recipe it belongs to included: a row that does not fit its checksum is unknown, and replaced in time.
A store is a cache: whoever gets a ``StoreError`` can go on without it and lose no answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from nshot.errors import NONSENSE
from nshot.paths import cache_dir
from nshot.store.database import (
    VERSION,
    DamagedStore,
    Database,
    file_checksum,
    recipe_of,
    vector_checksum,
)
from nshot.types import Floats

_CHUNK = 900  # parameters in one query; builds of SQLite before 3.32 allow 999
_PART = 2**19  # bytes of regions in one row
_COUNT = 4  # bytes of their number
_RACY_NS = 2_000_000_000  # the coarsest clock of a file system in use (FAT)

_Kind: TypeAlias = Literal["picture", "text", "notes", "regions"]


def default_path() -> Path:
    """The store that is used when none is named."""
    return cache_dir() / "store.sqlite"


class Stamp(NamedTuple):
    """What tells a changed file from an unchanged one, taken before the file is read.

    Attributes:
        path: absolute, symbolic links not followed.
        size: bytes.
        mtime_ns: nanoseconds since the epoch.
        taken_ns: when the stamp was taken, on the same clock.
    """

    path: str
    size: int
    mtime_ns: int
    taken_ns: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Stamp:
        """The stamp of a file as it is now; OSError if it is not there."""
        taken = time.time_ns()
        stat = os.stat(path)  # noqa: PTH116  (ten times the speed of Path.stat: this runs for every stored image)
        return cls(os.path.abspath(path), stat.st_size, stat.st_mtime_ns, taken)  # noqa: PTH100

    @classmethod
    def marked(cls, url: str, size: int, mark: int) -> Stamp:
        """The stamp of an object in a store, whose mark changes whenever the object does."""
        return cls(url, size, mark, mark + 2 * _RACY_NS)

    @property
    def settled(self) -> bool:
        """Whether a change after this moment must show in the mtime.

        A file written twice within one tick of its file system's clock keeps size and mtime, and the second
        content would be taken for the first. So a file changed just now is read again next time.
        """
        return self.taken_ns - self.mtime_ns > _RACY_NS


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store holds: ``bytes`` on disk, and how many vectors of images, of texts, and known files.

    ``recipes`` maps each recipe's digest to its number of image vectors.
    """

    path: Path
    bytes: int
    vectors: int
    texts: int
    files: int
    recipes: dict[str, int]


class Store:
    """The store in one file; nothing is opened before it is asked, nor created before something is kept.

    Safe to use from several threads and processes at once, and after a fork. Every method raises a
    StoreError: DamagedStore where the file is ours and damaged or of another version, BusyStore where another
    process keeps it locked, else where it is not nshot's, or not to be read or written (a full disk, no
    permission).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(path)
        self.path = self._database.path

    def vectors(self, digests: Sequence[bytes], recipe: str) -> dict[bytes, Floats]:
        """Those of the images that are known: sha256 of an image's bytes -> float32[d], read-only."""
        return self._get("picture", recipe, digests)

    def put_vectors(self, vectors: Mapping[bytes, Floats], recipe: str) -> None:
        """Keep images' vectors, in one transaction."""
        self._put("picture", recipe, vectors)

    def notes(self, digests: Sequence[bytes], recipe: str) -> dict[bytes, tuple[str, ...]]:
        """What was to be said of images whose vectors were kept: sha256 of an image's bytes -> notes."""
        found = {}
        for digest, blob in self._blobs("notes", recipe, digests).items():
            with suppress(*NONSENSE):
                found[digest] = tuple(map(str, json.loads(blob)))
        return found

    def put_notes(self, notes: Mapping[bytes, Sequence[str]], recipe: str) -> None:
        """Keep what is to be said of images, in one transaction."""
        self._put_blobs(
            "notes", recipe, {key: json.dumps(list(said)).encode() for key, said in notes.items()}
        )

    def regions(self, digest: bytes, recipe: str) -> bytes | None:
        """What was kept of an image's regions, in the form of whoever kept it; None where nothing was."""
        head = _part(digest, 0)
        first = self._blobs("regions", recipe, [head]).get(head)
        if first is None or len(first) < _COUNT:
            return None
        keys = [_part(digest, number) for number in range(1, int.from_bytes(first[:_COUNT], "little"))]
        rest = self._blobs("regions", recipe, keys) if keys else {}
        if len(rest) < len(keys):
            return None  # one of them was damaged, or is being written
        return b"".join([memoryview(first)[_COUNT:], *(rest[key] for key in keys)])

    def put_regions(self, digest: bytes, content: bytes, recipe: str) -> None:
        """Keep what is known of an image's regions."""
        ends = range(_PART, len(content), _PART)
        parts = [content[start : start + _PART] for start in (0, *ends)]
        parts[0] = len(parts).to_bytes(_COUNT, "little") + parts[0]
        rows = {_part(digest, number): part for number, part in enumerate(parts)}
        self._put_blobs("regions", recipe, rows)

    def holds(self, recipe: str) -> bool:
        """Whether there are images' vectors of this recipe."""
        query = "SELECT 1 FROM recipes WHERE kind = ? AND digest = ?"
        return bool(self._select(query, "picture", recipe))

    def texts(self, fingerprint: str, texts: Sequence[str]) -> dict[str, Floats]:
        """Those of the texts that are known to this encoder: text -> float32[d], read-only."""
        keys = {_text_key(text): text for text in texts}
        return {keys[key]: vector for key, vector in self._get("text", fingerprint, list(keys)).items()}

    def put_texts(self, fingerprint: str, vectors: Mapping[str, Floats]) -> None:
        """Keep texts' vectors, in one transaction."""
        self._put("text", fingerprint, {_text_key(text): vector for text, vector in vectors.items()})

    def known_files(self, stamps: Sequence[Stamp]) -> dict[str, bytes]:
        """Those of the files that are unchanged since they were recorded: path -> sha256 of the bytes."""
        asked = {os.fsencode(stamp.path): stamp for stamp in stamps}
        known: dict[str, bytes] = {}
        with self._database.connected(write=False):
            if self._database.version == 1:  # its rows have no checksum
                return known
        query = "SELECT path, size, mtime_ns, digest, checksum FROM files WHERE path IN (%s)"
        for path, size, mtime_ns, digest, checksum in self._select(query, keys=list(asked)):
            stamp = asked.get(path) if isinstance(path, bytes) else None
            if (
                stamp is not None
                and (size, mtime_ns) == (stamp.size, stamp.mtime_ns)
                and file_checksum(path, size, mtime_ns, digest) == checksum
            ):
                known[stamp.path] = digest
        return known

    def knows(self, path: str) -> bool:
        """Whether a file of this name was recorded, whatever it held."""
        return bool(self._select("SELECT path FROM files WHERE path IN (%s)", keys=[os.fsencode(path)]))

    def put_files(self, digests: Mapping[Stamp, bytes]) -> None:
        """Remember what files hold: stamp taken before reading -> sha256 of the bytes, in one transaction.

        A file changed within two seconds before its stamp is left out; see ``Stamp.settled``.
        """
        rows = [
            (*row, file_checksum(*row))
            for stamp, digest in digests.items()
            if stamp.settled
            for row in [(os.fsencode(stamp.path), stamp.size, stamp.mtime_ns, digest)]
        ]
        if rows:
            with self._database.writing() as connection:
                connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)

    def info(self) -> StoreInfo:
        """Figures about the store; all zero where there is none yet."""
        counts: dict[str, dict[str, int]] = {"picture": {}, "text": {}, "notes": {}}
        for kind, digest, count in self._select(
            "SELECT kind, digest, count(*) FROM vectors JOIN recipes ON recipe = id GROUP BY id ORDER BY id"
        ):
            if kind in counts and isinstance(digest, str):  # else the recipe's row is damaged
                counts[kind][digest] = count
        files = self._select("SELECT count(*) FROM files")
        images = counts["picture"]
        return StoreInfo(
            path=self.path,
            bytes=sum(file.stat().st_size for file in self._database.files() if file.exists()),
            vectors=sum(images.values()),
            texts=sum(counts["text"].values()),
            files=files[0][0] if files else 0,
            recipes=images,
        )

    def clear(self, recipe: str | None = None) -> None:
        """Forget everything, or only the images' vectors of one recipe, and give the space back.

        A damaged store, or one of another version, is removed; a file that is not a store is never touched.
        """
        if not self._database.exists():
            return
        try:
            with self._database.writing() as connection:
                if recipe is None:
                    for table in ("vectors", "files", "recipes"):
                        connection.execute(f"DELETE FROM {table}")
                else:
                    which = "kind IN ('picture', 'notes', 'regions') AND digest = ?"
                    chosen = f"SELECT id FROM recipes WHERE {which}"
                    connection.execute(f"DELETE FROM vectors WHERE recipe IN ({chosen})", (recipe,))
                    connection.execute(f"DELETE FROM recipes WHERE {which}", (recipe,))
            with self._database.connected(write=True) as opened:
                assert opened is not None
                opened.execute("VACUUM")
                opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except DamagedStore:
            if recipe is not None:
                raise
            self._database.remove()

    def set_aside(self) -> Path | None:
        """Rename a damaged store, so that the next question starts a new one; nothing is deleted.

        Returns:
            The new name; None where another process has done it already.
        """
        return self._database.set_aside()

    def close(self) -> None:
        """Close the file; the next question opens it again."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # vectors of either kind

    def _get(self, kind: _Kind, recipe: str, keys: Sequence[bytes]) -> dict[bytes, Floats]:
        blobs = self._blobs(kind, recipe, keys)
        return {key: np.frombuffer(vector, dtype="<f4") for key, vector in blobs.items()}

    def _blobs(self, kind: _Kind, recipe: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        query = (
            "SELECT key, vector, checksum FROM vectors"
            " WHERE recipe = (SELECT id FROM recipes WHERE kind = ? AND digest = ?) AND key IN (%s)"
        )
        of = recipe_of(kind, recipe)
        asked = set(keys)
        rows = self._select(query, kind, recipe, keys=keys)
        version = self._database.version
        return {
            key: vector
            for key, vector, checksum in rows
            if isinstance(vector, bytes) and key in asked
            if vector_checksum(version, of, key, vector) == checksum
        }

    def _put(self, kind: _Kind, recipe: str, vectors: Mapping[bytes, Floats]) -> None:
        self._put_blobs(
            kind, recipe, {key: np.asarray(vector, dtype="<f4").tobytes() for key, vector in vectors.items()}
        )

    def _put_blobs(self, kind: _Kind, recipe: str, blobs: Mapping[bytes, bytes]) -> None:
        if not blobs:
            return
        of = recipe_of(kind, recipe)
        with self._database.writing() as connection:
            # looked up anew each time: another process may have cleared the recipe and given its number away
            connection.execute("INSERT OR IGNORE INTO recipes (kind, digest) VALUES (?, ?)", (kind, recipe))
            chosen = connection.execute(
                "SELECT id FROM recipes WHERE kind = ? AND digest = ?", (kind, recipe)
            )
            (number,) = chosen.fetchone()
            connection.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)",
                [(key, number, blob, vector_checksum(VERSION, of, key, blob)) for key, blob in blobs.items()],
            )

    def _select(self, query: str, *before: str, keys: Sequence[bytes] | None = None) -> list[tuple[Any, ...]]:
        """All rows; with keys, the query is asked for a chunk of them at a time, in place of its ``%s``."""
        with self._database.connected(write=False) as connection:
            if connection is None:
                return []
            if keys is None:
                return connection.execute(query, before).fetchall()
            rows = []
            for start in range(0, len(keys), _CHUNK):
                chunk = keys[start : start + _CHUNK]
                rows += connection.execute(query % ",".join("?" * len(chunk)), (*before, *chunk)).fetchall()
            return rows


def _part(digest: bytes, number: int) -> bytes:
    """The key of a part of an image's regions: a row may not be as large as they are."""
    return digest + number.to_bytes(_COUNT, "little")


def _text_key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
