"""The members of .zip and .tar archives, as (name, how to read it), one after the other.

Nothing is ever extracted to disk, so a member's name is a name and no more.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

from nshot.errors import ImageError, ImageTooLarge, SourceError, UnreadableImage

ZIP = (".zip",)
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")

Read = Callable[[], bytes]

# What zipfile, tarfile and the decompressors raise on damaged or unusual input.
_DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    NotImplementedError,
    zipfile.BadZipFile,
    tarfile.TarError,
)
_DAMAGED = (*_DAMAGE, zlib.error, lzma.LZMAError, OverflowError, MemoryError)

# Room for a tar's own long headers beside a member of the largest size.
_HEADERS = 2**20


def zip_members(path: Path, max_bytes: int) -> Iterator[tuple[str, Read]]:
    """The files in a zip archive, in its own order; each is read when asked for, from any thread.

    Raises:
        SourceError: at once, where the archive cannot be opened or listed.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise SourceError(f"{path} is not a zip archive that can be read: {error}") from error
    return (
        (info.filename, partial(_read_zipped, archive, info, max_bytes))
        for info in archive.infolist()
        if not info.is_dir() and not _is_hidden(info.filename)
    )


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    if info.flag_bits & 1:
        raise UnreadableImage("encrypted in the archive; unpack it with its password first")
    try:
        with archive.open(info) as member:
            data = member.read(max_bytes + 1)  # the size in the directory may be a lie
    except _DAMAGED as error:
        raise UnreadableImage(f"damaged in the archive ({error})") from error
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def tar_members(path: Path, max_bytes: int) -> Iterator[tuple[str, Read]]:
    """The files in a tar archive, compressed or not, in one pass; what was read is not remembered.

    A member's bytes are read when its turn comes, and held by its reader; one too large is passed over.

    Raises:
        SourceError: at once, where the archive cannot be opened or has no first member.
    """
    try:
        archive, stream = _open_tar(path, max_bytes)
    except (*_DAMAGED, RecursionError) as error:
        raise SourceError(f"{path} is not a tar archive that can be read: {error}") from error
    return _tar_members(archive, stream, max_bytes)


def _open_tar(path: Path, max_bytes: int) -> tuple[tarfile.TarFile, _Bounded]:
    with path.open("rb") as file:
        magic = file.read(6)
    unpack: Callable[..., Any] = open
    for signature, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open)):
        if magic.startswith(signature):
            unpack = opener
    stream = unpack(path, "rb")
    bounded = _Bounded(stream, max_bytes + _HEADERS)
    try:
        return tarfile.TarFile(fileobj=bounded, mode="r"), bounded  # type: ignore[arg-type]
    except BaseException:
        stream.close()
        raise


def _tar_members(archive: tarfile.TarFile, stream: _Bounded, max_bytes: int) -> Iterator[tuple[str, Read]]:
    with stream.file, archive:
        last = "the start"
        while True:
            try:
                member = archive.next()
                archive.members.clear()  # type: ignore[attr-defined]  # or they pile up, a kilobyte each
                if member is None:
                    if stream.last.strip(b"\x00"):
                        raise tarfile.ReadError("no valid header")
                    return
                name = member.name.removeprefix("./")
                if member.isdir() or _is_hidden(name):
                    continue
                read = _tar_reader(archive, member, max_bytes)
            except (*_DAMAGED, RecursionError) as error:
                damage = UnreadableImage(
                    f"the archive is damaged after {last}; the rest is not read ({error})"
                )
                yield "", partial(_fail, damage)
                return
            yield name, read
            last = name


def _tar_reader(archive: tarfile.TarFile, member: tarfile.TarInfo, max_bytes: int) -> Read:
    if not member.isfile():
        return partial(_fail, UnreadableImage("a link or a device in the archive, not a file"))
    if member.size > max_bytes:
        return partial(_fail, _too_large(max_bytes))
    file = archive.extractfile(member)
    assert file is not None
    data = file.read()
    if len(data) < member.size:
        raise tarfile.ReadError(f"{member.name} is cut off")
    return lambda: data


class _Bounded:
    """A file that refuses one huge read: a tar's header may claim to be gigabytes long, and compress well."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.file = file
        self.most = most
        self.last = b""

    def read(self, size: int) -> bytes:
        if size > self.most:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.last = self.file.read(size)
        return self.last

    def seek(self, position: int) -> int:
        return self.file.seek(position)

    def tell(self) -> int:
        return self.file.tell()


def _fail(error: ImageError) -> NoReturn:
    raise error


def _too_large(max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"more than the limit of {max_bytes:,} bytes when unpacked")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
