"""Digests of files, each computed once."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from nshot.paths import cache_dir


def file_digest(path: Path) -> str:
    """Hexadecimal sha256 of a file, remembered in the cache folder for as long as its size and time stay."""
    status = path.stat()
    key = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}".encode()
    note = cache_dir() / "digests" / hashlib.sha256(key).hexdigest()
    with contextlib.suppress(OSError):
        known = note.read_text()
        if len(known) == 64:
            return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the answer
        note.parent.mkdir(parents=True, exist_ok=True)
        unfinished = note.with_name(f"{note.name}.{os.getpid()}")
        try:
            unfinished.write_text(digest)
            unfinished.replace(note)
        except OSError:
            unfinished.unlink(missing_ok=True)
    return digest
