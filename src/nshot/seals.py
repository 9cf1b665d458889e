"""A key of the person's own: what it seals was written by their nshot, and nobody changed it since."""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from nshot.paths import cache_dir

_KEY = 32  # bytes


def key_of_person(*, make: bool) -> bytes | None:
    """The secret that this person's files are sealed with; None where there is none, or none can be kept.

    Args:
        make: make one where there is none.
    """
    path = cache_dir() / "journal.key"
    try:
        if make and not _is_key(path):
            _make_key(path)
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == _KEY else None


def _is_key(path: Path) -> bool:
    """Whether a key is there, and not what a full disk left of one."""
    return path.exists() and path.stat().st_size == _KEY


def _make_key(path: Path) -> None:
    """A new key, there as a whole or not at all; of several that are made at once the first stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, made = tempfile.mkstemp(prefix=path.name, dir=path.parent)  # nobody else may read it
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY))
        if path.exists():
            Path(made).replace(path)
        else:
            with suppress(FileExistsError):
                _name(Path(made), path)
    finally:
        Path(made).unlink(missing_ok=True)


def _name(made: Path, path: Path) -> None:
    """Give a file its name unless another has it, where the file system can tell."""
    try:
        path.hardlink_to(made)
    except FileExistsError:
        raise
    except OSError:  # no hard links here
        made.replace(path)


def seal(data: bytes, kind: str) -> str | None:
    """What only this person can write beside these bytes of this kind; None where no key can be kept."""
    key = key_of_person(make=True)
    return None if key is None else _seal(key, data, kind)


def is_sealed(data: bytes, kind: str, told: object) -> bool:
    """Whether that was written beside these bytes."""
    key = key_of_person(make=False)
    return (
        key is not None
        and isinstance(told, str)
        and hmac.compare_digest(told.encode("utf-8", "replace"), _seal(key, data, kind).encode())
    )


def _seal(key: bytes, data: bytes, kind: str) -> str:
    told = hmac.new(key, f"{kind}\n".encode(), "sha256")
    told.update(data)
    return told.hexdigest()
