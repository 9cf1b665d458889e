"""One image that has not been read yet: its name, and how it is read."""

# Names stay as they were typed, odd bytes and leading dots included: pathlib would rewrite them.
# ruff: noqa: PTH116

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from nshot.errors import ImageError, ImageTooLarge, UnreadableImage
from nshot.images import hub
from nshot.images.archives import Member
from nshot.objects import is_object_url
from nshot.types import DEFAULT_LIMITS

if TYPE_CHECKING:
    from nshot.images.stored import Object


@dataclass(frozen=True, slots=True)
class Source:
    """One image that has not been read yet.

    Attributes:
        name: as the user would write it; a member is "archive.zip/inner/name.jpg", a row's bytes
            "table.parquet[7]".
        path: the plain local file that it is, or None.
        labels: the image's own labels, where it comes from a labelled set; None: unlabelled.
        domain: where it comes from (photograph, sketch ...), if the data says so.
        size: bytes that it holds, or will once it is read; None where nobody knows before. A file's is asked
            of the file.
        beside: the other cells of its row, where it comes from a table and they are to be kept.
        mark: of an object in a store: a number that changes whenever the object does; None: not known.
    """

    name: str
    path: str | None
    _read: Callable[..., bytes]
    labels: tuple[str, ...] | None = None
    domain: str | None = None
    size: int | None = 0
    beside: Mapping[str, str] | None = None
    mark: int | None = None

    @property
    def address(self) -> str | None:
        """The path or URL to find it by again; None for what lies in memory, a table or an archive."""
        if self.path is not None:
            return self.path
        read: Any = self._read
        url = read.args[0] if isinstance(read, partial) and read.args else getattr(read, "url", None)
        return url if isinstance(url, str) and is_url(url) else None

    @property
    def remote(self) -> bool:
        """Whether reading it waits for a network more than for this machine."""
        return self.path is None and is_url(self.name)

    @property
    def named(self) -> Object | None:
        """Of an object in a store that was named and not listed, so that its version is not known before."""
        read: Any = self._read
        return read if self.mark is None and hasattr(read, "ask") else None

    @property
    def failure(self) -> ImageError | None:
        """Why its image is known to be out of reach, where that is known before it is read."""
        read = self._read
        return read.args[0] if isinstance(read, partial) and read.func is _fail else None

    def read(self, before_more: tuple[int, Callable[[], object]] | None = None) -> bytes:
        """The encoded image; may be called once, from any thread.

        Args:
            before_more: (bytes, what to call once before more than these are held), for an image whose size
                is None; whatever that call waits for.

        Raises:
            ImageError: it is not there, not to be read, too large, or could not be fetched.
        """
        return self._read() if self.size is not None else self._read(before_more=before_more)

    def hold(self) -> None:
        """Read now what cannot be read in its turn: a member of a tar archive. For the thread that lists."""
        if isinstance(self._read, Member):
            self._read.hold()

    def emptied(self) -> Source:
        """The same without the image, so that its bytes leave memory."""
        return replace(self, _read=_emptied, size=0)

    def expected(self) -> int | None:
        """Bytes that reading it will take; None where nobody knows."""
        if self.path is None:
            return self.size
        try:
            return os.stat(self.path).st_size
        except (OSError, ValueError):
            return 0  # reading it will say so

    @classmethod
    def of(cls, image: Any, *, name: str = "image") -> Source:
        """An image in memory: encoded bytes, a PIL image, or an array uint8[h,w], [h,w,3] or [h,w,4]."""
        if isinstance(image, (bytes, bytearray, memoryview)):
            data = bytes(image)
            return cls(name, None, lambda: data, size=len(data))
        from nshot.images.in_memory import encoded, takes

        return cls(name, None, partial(encoded, image), size=takes(image))

    @classmethod
    def file(cls, name: str, *, max_bytes: int = DEFAULT_LIMITS.max_bytes) -> Source:
        """A file, which is opened only if it is a regular one."""
        return cls(name, name, partial(_read_file, name, max_bytes))

    @classmethod
    def failed(cls, name: str, error: ImageError) -> Source:
        """A place in the list whose image is known to be out of reach."""
        return cls(name, None, partial(_fail, error))


def is_url(name: str) -> bool:
    """Whether a name is a URL of something that is read here."""
    return name[:8].lower().startswith(("http://", "https://")) or is_object_url(name) or hub.is_hub(name)


def reason(error: OSError | ValueError) -> str:
    """What a system says of a file, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return str(error)


def _read_file(name: str, max_bytes: int) -> bytes:
    path = Path(name)
    try:
        found = path.stat()
        mode = found.st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableImage("a folder; name it as a source of its own to read what it holds")
        if not stat.S_ISREG(mode):  # opening a pipe may wait for ever, and a device may act
            raise UnreadableImage("not a regular file")
        if found.st_size == 0:  # what /proc shows as a file may wait for ever
            return b""
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise UnreadableImage(reason(error)) from error
    if len(data) > max_bytes:
        raise ImageTooLarge(f"more than the limit of {max_bytes:,} bytes")
    return data


def _fail(error: ImageError) -> NoReturn:
    raise error


def _emptied() -> bytes:
    raise UnreadableImage("it has been read already")
