"""Small images in one SQLite file, found by the content of the large ones; made anew from pixels, so that no
metadata (place, camera, owner) leaves the machine with them.
"""

from __future__ import annotations

import io
import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 256
ROOM = 2**30  # bytes of the file from which on small images are kept only of what is looked at
_FORM = f"webp70-{SIDE}"  # what a later form of the same images must not be taken for


class Thumbnails:
    """A cache: whatever goes wrong with its file, thumbnails are made again. Safe in several threads.

    Args:
        path: the file; made when something is kept. None keeps nothing.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else Path(path)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def get(self, digest: bytes) -> bytes | None:
        """The WebP of an image that was kept."""
        with self._lock, suppress(sqlite3.Error, OSError):
            if (connection := self._open()) is not None:
                query = "SELECT webp FROM thumbnails WHERE digest = ? AND form = ?"
                row = connection.execute(query, (digest, _FORM)).fetchone()
                return None if row is None else bytes(row[0])
        return None

    def holds(self, digest: bytes) -> bool:
        """Whether that of an image was kept."""
        with self._lock, suppress(sqlite3.Error, OSError):
            if (connection := self._open()) is not None:
                query = "SELECT 1 FROM thumbnails WHERE digest = ? AND form = ?"
                return connection.execute(query, (digest, _FORM)).fetchone() is not None
        return False

    @property
    def full(self) -> bool:
        """Whether no more should be kept than what is looked at."""
        if self.path is None:
            return True
        try:
            return self.path.stat().st_size >= ROOM
        except OSError:
            return False

    def put(self, digest: bytes, webp: bytes) -> None:
        """Keep one."""
        with self._lock, suppress(sqlite3.Error, OSError):
            if (connection := self._open()) is not None:
                query = "INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?)"
                connection.execute(query, (digest, _FORM, webp))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection | None:
        if self._connection is None and self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # they show private images
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = OFF")  # a cache: a power cut may take it
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS thumbnails"
                    " (digest BLOB, form TEXT, webp BLOB, PRIMARY KEY (digest, form)) WITHOUT ROWID"
                )
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def render(image: Image, side: int = SIDE) -> bytes:
    """An image inside a square of ``side`` pixels as WebP, without metadata."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    small.info.clear()
    held = io.BytesIO()
    small.save(held, "WEBP", quality=70, method=0)
    return held.getvalue()
