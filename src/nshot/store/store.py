"""Vectors on disk, found again by what they are made of.

    (sha256 of the image's bytes, recipe)   -> vector   images
    (text, encoder's fingerprint)             -> vector   labels
    (absolute path, size, mtime)              -> sha256   files that need not be read again

Vectors are kept as float32, bit for bit: on recorded CLIP embeddings float16 moves scores by up to 4e-4 and
reorders labels, so an answer from the store would not be the answer that the encoder gives.

SQLite in WAL mode: a process killed at any moment leaves whole transactions, and several processes may read
and write at once. A store is a cache: whoever gets a ``StoreError`` can go on without it and lose no answer.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from nshot.errors import StoreError
from nshot.paths import cache_dir
from nshot.types import Floats

_MAGIC = b"SQLite format 3\x00"
_APPLICATION = 0x6E73686F  # "nsho", at byte 68 of the file: this database is ours
_VERSION = 1  # of the tables below, at byte 60
_BUSY = 30.0  # seconds to wait for another process's transaction
_CHUNK = 900  # parameters in one query; builds of SQLite before 3.32 allow 999
_RACY_NS = 2_000_000_000  # the coarsest clock of a file system in use (FAT)

# 16 KiB pages: a vector of 2 KiB leaves no room for another on a 4 KiB page beside its key, and spills
_SCHEMA = f"""
PRAGMA page_size = 16384;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS recipes (
    id INTEGER PRIMARY KEY, kind TEXT, digest TEXT, UNIQUE (kind, digest));
CREATE TABLE IF NOT EXISTS vectors (
    key BLOB, recipe INTEGER, vector BLOB, checksum INTEGER, PRIMARY KEY (key, recipe));
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, digest BLOB) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
COMMIT;
"""

_Kind: TypeAlias = Literal["picture", "text"]


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

    Safe to use from several threads and processes at once. Every method raises StoreError where the file is
    damaged, of another version, not nshot's, or not to be read or written (a full disk, a read-only place).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._closer: weakref.finalize[..., Store] | None = None

    def vectors(self, digests: Sequence[bytes], recipe: str) -> dict[bytes, Floats]:
        """Those of the images that are known: sha256 of an image's bytes -> float32[d], read-only."""
        return self._get("picture", recipe, digests)

    def put_vectors(self, vectors: Mapping[bytes, Floats], recipe: str) -> None:
        """Keep images' vectors, in one transaction."""
        self._put("picture", recipe, vectors)

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
        known = {}
        query = "SELECT path, size, mtime_ns, digest FROM files WHERE path IN (%s)"
        for path, size, mtime_ns, digest in self._select(query, keys=list(asked)):
            stamp = asked[path]
            if (size, mtime_ns) == (stamp.size, stamp.mtime_ns):
                known[stamp.path] = digest
        return known

    def put_files(self, digests: Mapping[Stamp, bytes]) -> None:
        """Remember what files hold: stamp taken before reading -> sha256 of the bytes, in one transaction.

        A file changed within two seconds before its stamp is left out; see ``Stamp.settled``.
        """
        rows = [
            (os.fsencode(stamp.path), stamp.size, stamp.mtime_ns, digest)
            for stamp, digest in digests.items()
            if stamp.settled
        ]
        if rows:
            with self._writing() as connection:
                connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)

    def info(self) -> StoreInfo:
        """Figures about the store; all zero where there is none yet."""
        counts: dict[_Kind, dict[str, int]] = {"picture": {}, "text": {}}
        for kind, digest, count in self._select(
            "SELECT kind, digest, count(*) FROM vectors JOIN recipes ON recipe = id GROUP BY id ORDER BY id"
        ):
            counts[kind][digest] = count
        files = self._select("SELECT count(*) FROM files")
        images = counts["picture"]
        return StoreInfo(
            path=self.path,
            bytes=sum(file.stat().st_size for file in self._files() if file.exists()),
            vectors=sum(images.values()),
            texts=sum(counts["text"].values()),
            files=files[0][0] if files else 0,
            recipes=images,
        )

    def clear(self, recipe: str | None = None) -> None:
        """Forget everything, or only the images' vectors of one recipe, and give the space back.

        A damaged store, or one of another version, is removed; a file that is not a store is never touched.
        """
        if self._header() == "none":
            return
        try:
            with self._writing() as connection:
                if recipe is None:
                    for table in ("vectors", "files", "recipes"):
                        connection.execute(f"DELETE FROM {table}")
                else:
                    chosen = "SELECT id FROM recipes WHERE kind = 'picture' AND digest = ?"
                    connection.execute(f"DELETE FROM vectors WHERE recipe IN ({chosen})", (recipe,))
                    connection.execute("DELETE FROM recipes WHERE kind = 'picture' AND digest = ?", (recipe,))
            with self._connected(write=True) as opened:
                assert opened is not None
                opened.execute("VACUUM")
                opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except _BrokenStoreError:
            if recipe is not None:
                raise
            self.close()
            with self._translated():
                for file in self._files():
                    file.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; the next question opens it again."""
        with self._lock:
            if self._closer is not None:
                self._closer()
            self._connection = self._closer = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # vectors of either kind

    def _get(self, kind: _Kind, recipe: str, keys: Sequence[bytes]) -> dict[bytes, Floats]:
        query = (
            "SELECT key, vector, checksum FROM vectors"
            " WHERE recipe = (SELECT id FROM recipes WHERE kind = ? AND digest = ?) AND key IN (%s)"
        )
        return {
            key: np.frombuffer(vector, dtype="<f4")
            for key, vector, checksum in self._select(query, kind, recipe, keys=keys)
            # SQLite does not notice a flipped bit; such a row is as good as absent, and replaced in time
            if _checksum(key, vector) == checksum
        }

    def _put(self, kind: _Kind, recipe: str, vectors: Mapping[bytes, Floats]) -> None:
        if not vectors:
            return
        blobs = [(key, np.asarray(vector, dtype="<f4").tobytes()) for key, vector in vectors.items()]
        with self._writing() as connection:
            # looked up anew each time: another process may have cleared the recipe and given its number away
            connection.execute("INSERT OR IGNORE INTO recipes (kind, digest) VALUES (?, ?)", (kind, recipe))
            chosen = connection.execute(
                "SELECT id FROM recipes WHERE kind = ? AND digest = ?", (kind, recipe)
            )
            (number,) = chosen.fetchone()
            connection.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)",
                [(key, number, blob, _checksum(key, blob)) for key, blob in blobs],
            )

    # the connection

    def _select(self, query: str, *before: str, keys: Sequence[bytes] | None = None) -> list[tuple[Any, ...]]:
        """All rows; with keys, the query is asked for a chunk of them at a time, in place of its ``%s``."""
        with self._connected(write=False) as connection:
            if connection is None:
                return []
            if keys is None:
                return connection.execute(query, before).fetchall()
            rows = []
            for start in range(0, len(keys), _CHUNK):
                chunk = keys[start : start + _CHUNK]
                rows += connection.execute(query % ",".join("?" * len(chunk)), (*before, *chunk)).fetchall()
            return rows

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connected(write=True) as connection:
            assert connection is not None
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(
                    sqlite3.Error
                ):  # SQLite may have rolled back already; the first error is the one to tell
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _connected(self, *, write: bool) -> Iterator[sqlite3.Connection | None]:
        with self._lock, self._translated():
            if self._connection is None:
                self._open(create=write)
            yield self._connection

    def _open(self, *, create: bool) -> None:
        if self._header() == "none":
            if not create:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # vectors tell what is on private images; SQLite gives its side files the mode of this one
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = self._connect("mode=rw")
        try:
            version = _pragma(connection, "user_version")
        except sqlite3.OperationalError:
            # a read-only place, where WAL's side files cannot be made; without them nobody else is writing
            connection.close()
            if create or self._files()[1].exists():
                raise
            connection = self._connect("mode=ro&immutable=1")
            version = _pragma(connection, "user_version")
        try:
            if version == 0 and not create:  # killed while it was being created
                connection.close()
                return
            if version == 0:
                # the tables come before WAL, so that the file itself says whose it is, whenever we are killed
                connection.executescript(_SCHEMA)
            elif version != _VERSION:
                raise _BrokenStoreError(
                    f"the store {self.path} has format {version}, and this nshot knows {_VERSION}: "
                    "`nshot store clear` starts a new one, --store names another, --no-store does without"
                )
            if create and _pragma(connection, "journal_mode") != "wal":
                with suppress(sqlite3.OperationalError):  # another process is just doing it
                    connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._closer = weakref.finalize(self, connection.close)

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.as_uri()}?{mode}",
            uri=True,
            timeout=_BUSY,
            isolation_level=None,  # transactions are begun and ended here, not guessed
            check_same_thread=False,  # the lock sees to that
        )

    def _header(self) -> Literal["none", "ours"]:
        """Whether there is a store; a file of somebody else's is refused before SQLite touches it."""
        with self._translated():
            try:
                with self.path.open("rb") as file:
                    head = file.read(100)
            except FileNotFoundError:
                return "none"
        if not head:
            return "none"
        if not head.startswith(_MAGIC) or head[68:72] != _APPLICATION.to_bytes(4, "big"):
            raise StoreError(
                f"{self.path} is not a store of nshot (or its first bytes are damaged) and is left as it is: "
                "name another file with --store, or use --no-store"
            )
        return "ours"

    def _files(self) -> tuple[Path, Path, Path]:
        return self.path, Path(f"{self.path}-wal"), Path(f"{self.path}-shm")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise _BrokenStoreError(
                    f"the store {self.path} is damaged ({error}): "
                    "`nshot store clear` starts a new one, --no-store does without"
                ) from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                problem = f"was kept busy by another process for {_BUSY:.0f} s: try again"
            else:
                reason = getattr(error, "strerror", None) or error
                problem = f"cannot be used ({reason}): name another file with --store"
            raise StoreError(f"the store {self.path} {problem}, or use --no-store") from error


class _BrokenStoreError(StoreError):
    """A store of ours that only clearing can help."""


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _checksum(key: bytes, vector: bytes) -> int:
    return zlib.crc32(vector, zlib.crc32(key))


def _text_key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
