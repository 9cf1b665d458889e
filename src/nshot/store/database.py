"""The store's SQLite file: opened, checked, brought to the newest form, set aside where it is damaged."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeAlias

from nshot.errors import StoreError

VERSION = 2  # of the tables below, at byte 60
_READABLE = (1, VERSION)  # 1: checksums of vectors did not cover the recipe, and files had none

_MAGIC = b"SQLite format 3\x00"
_APPLICATION = (0x6E73686F).to_bytes(4, "big")  # "nsho", at byte 68 of the file: this database is ours
_PAGE = 16384
_TREE = (b"\x02", b"\x05", b"\x0a", b"\x0d")  # what a page of a tree begins with
_PAGES = 4  # looked at where the first one does not tell whose file it is
_BUSY = 2.0  # seconds to wait for another process's transaction
_LARGEST = 2**20  # bytes of a row; one that a damaged header makes larger is not read

# 16 KiB pages: a vector of 2 KiB leaves no room for another on a 4 KiB page beside its key, and spills
_SCHEMA = f"""
PRAGMA page_size = {_PAGE};
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS recipes (
    id INTEGER PRIMARY KEY, kind TEXT, digest TEXT, UNIQUE (kind, digest));
CREATE TABLE IF NOT EXISTS vectors (
    key BLOB, recipe INTEGER, vector BLOB, checksum INTEGER, PRIMARY KEY (key, recipe));
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, digest BLOB, checksum INTEGER) WITHOUT ROWID;
PRAGMA application_id = {int.from_bytes(_APPLICATION, "big")};
PRAGMA user_version = {VERSION};
COMMIT;
"""
_OURS = b"vectors (\n    key BLOB, recipe INTEGER, vector BLOB"  # as the first page repeats it

# What the machine, the disk or another process does to a store; any other error of SQLite's is the file's.
_SURROUNDINGS = (
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS),
)
_LOCKS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_State: TypeAlias = Literal["none", "ours", "damaged"]


class DamagedStore(StoreError):
    """A store of ours that is damaged, or of a version that this nshot does not know."""


class UnreachableStore(StoreError):
    """No permission, a full or a broken disk: no fault of the store's, nor of who named it."""


class BusyStore(StoreError):
    """Another process kept the store locked for longer than this one waits."""


class Database:
    """A connection that is made when it is first needed, shared by threads, and made anew after a fork."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.version = VERSION
        self._forget()

    def _forget(self) -> None:
        """Nothing is open. After a fork the parent's connection is neither used nor closed here."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None  # device and inode
        self._closer: weakref.finalize[..., Database] | None = None

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            if self._closer is not None:
                self._closer.detach()
                _LEFT.append(self._connection)
            self._forget()

    def close(self) -> None:
        """Close the file; the next question opens it again."""
        self._notice_fork()
        with self._lock:
            if self._closer is not None:
                self._closer()
            self._connection = self._closer = None

    @contextmanager
    def connected(self, *, write: bool) -> Iterator[sqlite3.Connection | None]:
        """The connection; None where there is no store yet, and nothing is to be written."""
        self._notice_fork()
        with self._lock, self._translated():
            if self._connection is None:
                self._open(create=write)
            yield self._connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; a store of an older form is brought to the newest one in it."""
        with self.connected(write=True) as connection:
            assert connection is not None
            connection.execute("BEGIN IMMEDIATE")
            try:
                if _pragma(connection, "user_version") == 1:
                    _upgrade(connection)
                self.version = VERSION
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(
                    sqlite3.Error
                ):  # SQLite may have rolled back already; the first error is the one to tell
                    connection.execute("ROLLBACK")
                raise

    def exists(self) -> bool:
        """Whether there is a store.

        Raises:
            StoreError: there is a file of somebody else's.
        """
        return self._state() != "none"

    def files(self) -> tuple[Path, Path, Path]:
        """The file, and the two that SQLite puts beside it."""
        return self.path, Path(f"{self.path}-wal"), Path(f"{self.path}-shm")

    def remove(self) -> None:
        """Delete the store."""
        self.close()
        with self._translated():
            for file in self.files():
                file.unlink(missing_ok=True)

    def set_aside(self) -> Path | None:
        """Rename the store; None where another process has done so, and this one's is a new one."""
        opened = self._opened
        self.close()
        with self._translated():
            try:
                now = self.path.stat()
            except FileNotFoundError:
                return None
            if opened is not None and opened != (now.st_dev, now.st_ino):
                return None
            aside = Path(
                f"{self.path}.damaged" if self.version in _READABLE else f"{self.path}.format-{self.version}"
            )
            for file, suffix in zip(self.files(), ("", "-wal", "-shm"), strict=True):
                with suppress(FileNotFoundError):
                    file.replace(f"{aside}{suffix}")
            self.version, self._opened = VERSION, None
            return aside

    # opening

    def _open(self, *, create: bool) -> None:
        state = self._state()
        if state == "damaged":
            self._opened = None
            raise self._damaged("its header is damaged")
        if state == "none":
            if not create:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # vectors tell what is on private images; SQLite gives its side files the mode of this one
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        found = self.path.stat()
        self._opened = (found.st_dev, found.st_ino)
        connection = self._connect("mode=rw")
        try:
            version = _pragma(connection, "user_version")
        except sqlite3.OperationalError:
            # a read-only place, where WAL's side files cannot be made; without them nobody else is writing
            connection.close()
            if create or self.files()[1].exists():
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
                version = VERSION
            self.version = int(version)
            if version not in _READABLE:
                raise DamagedStore(
                    f"the store {self.path} has format {version}, and this nshot knows {VERSION}: "
                    "`nshot store clear` starts a new one, --store names another, --no-store does without"
                )
            if connection.execute(
                "SELECT 1 FROM sqlite_master WHERE type NOT IN ('table', 'index')"
            ).fetchone():
                raise self._damaged("it holds what nshot does not make")
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
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?{mode}",
            uri=True,
            timeout=_BUSY,
            isolation_level=None,  # transactions are begun and ended here, not guessed
            check_same_thread=False,  # the lock sees to that
        )
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST)
        connection.create_function("nshot_checked", 4, _checked_anew, deterministic=True)
        connection.create_function("nshot_file", 4, file_checksum, deterministic=True)
        return connection

    def _state(self) -> _State:
        """Whether there is a store; a file of somebody else's is refused before SQLite touches it."""
        with self._translated():
            try:
                if not stat.S_ISREG(self.path.stat().st_mode) and not self.path.is_dir():
                    raise StoreError(f"the store {self.path} is a pipe or a device: name a file with --store")
                with self.path.open("rb") as file:
                    first = file.read(_PAGE)
                    following = [file.read(_PAGE)[:1] for _ in range(_PAGES)]
            except FileNotFoundError:
                return "none"
        if not first:
            return "none"
        size, modes = first[16:18], first[18:20]  # of a page; 1 or 2 for writing, and for reading
        fits = size == _PAGE.to_bytes(2, "big") and set(modes) <= {1, 2}
        if first.startswith(_MAGIC) and first[68:72] == _APPLICATION and fits:
            return "ours"
        if (
            first[68:72] == _APPLICATION
            or _OURS in first
            or (_MAGIC.startswith(first[:16]) and len(first) < 100)
            # the first page is lost, and the next are pages of a tree, of this size
            or sum(kind in _TREE for kind in following) >= max(2, sum(map(bool, following)) - 1)
        ):
            return "damaged"
        raise StoreError(
            f"{self.path} is not a store of nshot (or its first bytes are damaged) and is left as it is: "
            "name another file with --store, or use --no-store"
        )

    # errors

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, UnicodeError) as error:
            code = getattr(error, "sqlite_errorcode", None)
            if isinstance(error, OSError) or (code is not None and code & 0xFF in _SURROUNDINGS):
                reason = getattr(error, "strerror", None) or error
                wrong = isinstance(error, (IsADirectoryError, NotADirectoryError))
                raise (StoreError if wrong else UnreachableStore)(
                    f"the store {self.path} cannot be used ({reason}): "
                    "name another file with --store, or use --no-store"
                ) from error
            if code is not None and code & 0xFF in _LOCKS:
                raise BusyStore(
                    f"the store {self.path} was kept busy by another process for {_BUSY:.0f} s: "
                    "try again, or use --no-store"
                ) from error
            raise self._damaged(str(error)) from error

    def _damaged(self, reason: str) -> DamagedStore:
        return DamagedStore(
            f"the store {self.path} is damaged ({reason}): "
            "`nshot store clear` starts a new one, --no-store does without"
        )


_LEFT: list[object] = []  # connections of a parent process: closing them here would release its locks


def recipe_of(kind: str, digest: str) -> bytes:
    """What a vector's checksum covers beside its key and its values."""
    return f"{kind}:{digest}".encode()


def vector_checksum(version: int, recipe: bytes, key: bytes, vector: bytes) -> int:
    """The checksum of a row of vectors, in a store of this version."""
    return zlib.crc32(vector, zlib.crc32(key, zlib.crc32(recipe) if version > 1 else 0))


def file_checksum(path: object, size: object, mtime_ns: object, digest: object) -> int:
    """The checksum of a row of files."""
    return zlib.crc32(repr((path, size, mtime_ns, digest)).encode())


def _checked_anew(recipe: object, key: object, vector: object, checksum: object) -> int | None:
    """The newest checksum of a vector whose old one is right; None of a damaged one."""
    if not (isinstance(recipe, str) and isinstance(key, bytes) and isinstance(vector, bytes)):
        return None
    if vector_checksum(1, b"", key, vector) != checksum:
        return None
    return vector_checksum(VERSION, recipe.encode(), key, vector)


def _upgrade(connection: sqlite3.Connection) -> None:
    """From version 1: every row that is sound gets the checksum of now."""
    connection.execute(
        "UPDATE vectors SET checksum = nshot_checked("
        "(SELECT kind || ':' || digest FROM recipes WHERE id = recipe), key, vector, checksum)"
    )
    connection.execute("ALTER TABLE files ADD COLUMN checksum INTEGER")
    connection.execute("UPDATE files SET checksum = nshot_file(path, size, mtime_ns, digest)")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _pragma(connection: sqlite3.Connection, name: str) -> int | str:
    value: int | str = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
