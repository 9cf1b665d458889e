"""An object as a file that can be read from anywhere in it, and as a path that can be opened."""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, cast

from nshot.objects.stores import Meta, Place, StoreFailure

_FIRST, _MOST = 2**18, 2**23  # bytes asked for after a jump, and in a steady stream


class ObjectFile(io.RawIOBase):
    """Reads an object by ranges, larger ones the longer it reads on; each range is retried by itself.

    Args:
        place: the object.
        meta: what the store says of it; asked for where it is not known.

    Raises:
        OSError: it is not there, or cannot be read; later also where it changes meanwhile.
    """

    def __init__(self, place: Place, meta: Meta | None = None) -> None:
        self._place = place
        with _told():
            self._meta = meta or place.head()
        self._at = self._start = 0
        self._held = b""
        self._step = _FIRST

    @property
    def size(self) -> int:
        """Bytes of the object."""
        return self._meta.size

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there are bytes."""
        wanted = min(len(buffer), self.size - self._at)
        if wanted <= 0:
            return 0
        view, done = memoryview(buffer), 0
        while done < wanted:
            place = self._at - self._start
            if not 0 <= place < len(self._held):
                self._fetch(wanted - done)
                place = 0
            part = self._held[place : place + wanted - done]
            view[done : done + len(part)] = part
            done += len(part)
            self._at += len(part)
        return done

    def _fetch(self, wanted: int) -> None:
        """Hold the bytes from here on."""
        goes_on = self._at == self._start + len(self._held) and bool(self._held)
        self._step = min(2 * self._step, _MOST) if goes_on else _FIRST
        end = min(self.size, self._at + max(self._step, min(wanted, 8 * _MOST)))
        with _told():
            self._held = self._place.read_range(self._at, end, self._meta.tag)
        self._start = self._at


class ObjectPath:
    """As much of a path as readers of archives ask for."""

    def __init__(self, url: str, meta: Meta | None = None) -> None:
        self._url = url
        self._meta = meta

    def __str__(self) -> str:
        return self._url

    def open(self, _mode: str = "rb") -> BinaryIO:
        """The object, to be read.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        return cast(BinaryIO, io.BufferedReader(ObjectFile(Place.of(self._url), self._meta), 2**16))


class _told:  # noqa: N801  (a context manager without the frames of a generator)
    """Within it, a store's failure is an OSError, as of any file."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, StoreFailure):
            failure = FileNotFoundError if error.kind == "missing" else OSError
            raise failure(str(error)) from error
