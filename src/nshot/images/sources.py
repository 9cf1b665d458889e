"""What a person names -> the images it holds, listed one at a time.

    file   folder   'glob/**'   -   archive.zip   archive.tar.gz   table.csv   table.parquet   https://...

Folders, lists, archives and tables are walked while they are asked for, so a million images take no more
memory than ten. Whatever a listing comes upon gets one Source: what cannot be read fails in its read(), and
nothing is left out silently but hidden files.
"""

# Names stay as they were typed, odd bytes and leading dots included: pathlib would rewrite them.
# ruff: noqa: PTH116, PTH118, PTH120

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from nshot.errors import ImageError, ImageTooLarge, SourceError, UnreadableImage
from nshot.images import folders
from nshot.types import DEFAULT_LIMITS, Limits

_BLOCK = 2**16
_LONGEST_NAME = 2**20  # a list whose first name is longer is no list


@dataclass(frozen=True, slots=True)
class Source:
    """One image that has not been read yet.

    Attributes:
        name: as the user would write it; a member is "archive.zip/inner/name.jpg", a row's bytes
            "table.parquet[7]".
        path: the plain local file that it is, or None.
        labels: the image's own labels, where it comes from a labelled set; None: unlabelled.
        domain: where it comes from (photograph, sketch ...), if the data says so.
    """

    name: str
    path: str | None
    _read: Callable[[], bytes]
    labels: tuple[str, ...] | None = None
    domain: str | None = None

    def read(self) -> bytes:
        """The encoded image; may be called once, from any thread.

        Raises:
            ImageError: it is not there, not to be read, too large, or could not be fetched.
        """
        return self._read()

    @classmethod
    def of(cls, image: Any, *, name: str = "image") -> Source:
        """An image in memory: encoded bytes, a PIL image, or an array uint8[h,w], [h,w,3] or [h,w,4]."""
        if isinstance(image, (bytes, bytearray, memoryview)):
            data = bytes(image)
            return cls(name, None, lambda: data)
        from nshot.images.in_memory import encoded

        return cls(name, None, partial(encoded, image))

    @classmethod
    def file(cls, name: str, *, max_bytes: int = DEFAULT_LIMITS.max_bytes) -> Source:
        """A file, which is opened only if it is a regular one."""
        return cls(name, name, partial(_read_file, name, max_bytes))

    @classmethod
    def failed(cls, name: str, error: ImageError) -> Source:
        """A place in the list whose image is known to be out of reach."""
        return cls(name, None, partial(_fail, error))


def expand(
    specs: Iterable[str | os.PathLike[str]],
    *,
    limits: Limits = DEFAULT_LIMITS,
    stdin: BinaryIO | None = None,
    image_column: str | None = None,
    allow_private: bool = False,
) -> Iterator[Source]:
    """List the images that the specs name, in their order; a folder's in the order of their names.

    Every spec is checked before this returns; the images are listed and read later.

    Args:
        specs: files, folders, glob patterns (with ** too), "-", .zip and .tar archives, .csv, .tsv and
            .parquet tables, http and https URLs.
        limits: the limits on one image.
        stdin: where "-" reads names or URLs, separated by NUL or by newlines, whichever there is.
        image_column: the column of tables that holds the images; None looks for a well-known name.
        allow_private: let URLs point into private networks.

    Raises:
        SourceError: a spec that names nothing, or that cannot be listed.
        MissingExtra: a .parquet file, and pyarrow is not installed.
    """
    listing = _Listing(limits.max_bytes, stdin, image_column, allow_private)
    return itertools.chain.from_iterable([listing.spec(os.fspath(spec)) for spec in specs])


@dataclass(frozen=True, slots=True)
class _Listing:
    max_bytes: int
    stdin: BinaryIO | None
    image_column: str | None
    allow_private: bool

    def spec(self, spec: str) -> Iterator[Source]:
        """One spec as the user typed it: checked now, listed later."""
        if spec == "-":
            if self.stdin is None:
                raise SourceError("'-' reads a list on standard input, and there is none")
            return self._list(self.stdin)
        if _is_url(spec):
            return iter([self._entry(spec)])
        try:
            mode = os.stat(spec).st_mode
        except (OSError, ValueError) as error:
            if folders.is_pattern(spec):
                nothing = f"{spec}: no such file, and nothing matches it as a pattern"
                return self._found(folders.matching(spec), nothing)
            raise SourceError(f"{spec}: {_reason(error)}") from error
        if stat.S_ISDIR(mode):
            if not os.access(spec, os.R_OK | os.X_OK):
                raise SourceError(f"{spec}: permission denied")
            return self._found(folders.walk(spec), f"{spec} holds no files")
        if not stat.S_ISREG(mode):
            raise SourceError(f"{spec} is not a regular file or a folder")
        return self._file(spec)

    def _file(self, spec: str) -> Iterator[Source]:
        from nshot.images import archives, tables

        path, lower = Path(spec), spec.lower()
        if lower.endswith(archives.ZIP):
            return self._members(spec, archives.zip_members(path, self.max_bytes))
        if lower.endswith(archives.TAR):
            return self._members(spec, archives.tar_members(path, self.max_bytes))
        if lower.endswith(tables.TEXT):
            return self._rows(spec, tables.text_rows(path, self.image_column))
        if lower.endswith(tables.PARQUET):
            return self._rows(spec, tables.parquet_rows(path, self.image_column))
        return iter([self._entry(spec)])

    def _found(self, entries: Iterator[folders.Entry], otherwise: str) -> Iterator[Source]:
        """The files of a folder or a pattern; the first is looked for now, to say if there is none."""
        first = next(entries, None)
        if first is None:
            raise SourceError(otherwise)
        return (
            self._entry(name)
            if error is None
            else Source.failed(name, UnreadableImage(f"the folder cannot be listed: {_reason(error)}"))
            for name, error in itertools.chain([first], entries)
        )

    def _entry(self, name: str) -> Source:
        """One file or URL of a list, whether it is there or not."""
        if not _is_url(name):
            return Source.file(name, max_bytes=self.max_bytes)
        from nshot.images.fetch import fetch

        return Source(
            name, None, partial(fetch, name, max_bytes=self.max_bytes, allow_private=self.allow_private)
        )

    def _list(self, stream: BinaryIO) -> Iterator[Source]:
        for name in _separated(stream):
            yield self._entry(os.fsdecode(name))

    def _members(self, archive: str, members: Iterator[tuple[str, Callable[[], bytes]]]) -> Iterator[Source]:
        for name, read in members:
            yield Source(f"{archive}/{name}" if name else archive, None, read)

    def _rows(self, table: str, rows: Iterator[tuple[int, str | bytes | None]]) -> Iterator[Source]:
        folder = os.path.dirname(table)
        try:
            for number, value in rows:
                name = f"{table}[{number}]"
                if isinstance(value, bytes):
                    yield self._held(name, value)
                elif value:
                    yield self._entry(value if _is_url(value) else os.path.join(folder, value))
                else:
                    yield Source.failed(name, UnreadableImage("the row names no image"))
        except SourceError as error:  # damaged further on; the rows before have been listed
            yield Source.failed(table, UnreadableImage(str(error)))

    def _held(self, name: str, data: bytes) -> Source:
        if len(data) > self.max_bytes:
            return Source.failed(name, ImageTooLarge(f"more than the limit of {self.max_bytes:,} bytes"))
        return Source.of(data, name=name)


def _read_file(name: str, max_bytes: int) -> bytes:
    path = Path(name)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableImage("a folder; name it as a source of its own to read what it holds")
        if not stat.S_ISREG(mode):  # opening a pipe may wait for ever, and a device may act
            raise UnreadableImage("not a regular file")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise UnreadableImage(_reason(error)) from error
    if len(data) > max_bytes:
        raise ImageTooLarge(f"more than the limit of {max_bytes:,} bytes")
    return data


def _separated(stream: BinaryIO) -> Iterator[bytes]:
    """A list's entries: split at NUL where its beginning has one, else into lines without the blank ones."""
    more: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    separator, held, first = b"", b"", True
    while block := more(_BLOCK):
        held += block
        if first:
            held, first = held.removeprefix(b"\xef\xbb\xbf"), False
        if not separator:
            separator = b"\0" if b"\0" in held else b"\n" if b"\n" in held else b""
        if separator:
            *whole, held = held.split(separator)
            yield from filter(None, (_trimmed(name, separator) for name in whole))
        if len(held) > _LONGEST_NAME:
            raise SourceError("what comes on standard input is not a list of files")
    if name := _trimmed(held, separator):
        yield name


def _trimmed(name: bytes, separator: bytes) -> bytes:
    if separator == b"\0":
        return name
    return name.removesuffix(b"\r") if name.strip() else b""


def _is_url(name: str) -> bool:
    return name[:8].lower().startswith(("http://", "https://"))


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return str(error)


def _fail(error: ImageError) -> NoReturn:
    raise error
