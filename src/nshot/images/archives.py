"""The members of .zip and .tar archives, as (name, how to read it), one after the other.

Nothing is ever extracted to disk, so a member's name is a name and no more.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from nshot.errors import ImageError, ImageTooLarge, SourceError, UnreadableImage, brief
from nshot.images import bombs
from nshot.images.kinds import no_image
from nshot.objects import ObjectPath

ZIP = (".zip",)
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")

_BLOCK = 2**20
_HEADER = 2**20  # bytes of one of a tar's own long headers
_ZIP_TAIL = 2**16 + 98  # where a zip archive's end is looked for: a comment, and the records before it
_DIRECTORY, _ENTRIES = 2**27, 1_300_000  # of a zip archive: bytes, and members
_UNPACK = ": more than can be kept in memory; unpack it, or make it a tar archive, which is read in one pass"
_DICTIONARY = 2**26  # bytes that unpacking may remember; xz -9 asks for that
_STEP = 2**26  # bytes of a packed archive that are passed over before it is looked at again


class Member:
    """One file in an archive; calling it gives its bytes.

    Attributes:
        name: as the archive has it; "" for damage that is not one member's.
        size: its bytes, unpacked, as far as the archive says so.
    """

    def __init__(self, name: str, size: int, read: Callable[[], bytes], *, in_turn: bool = False) -> None:
        self.name = name
        self.size = size
        self._read = read
        self._in_turn = in_turn
        self._held: bytes | ImageError | None = None

    def hold(self) -> None:
        """Read it now, if later would be too late."""
        if self._in_turn and self._held is None:
            try:
                self._held = self._read()
            except ImageError as error:
                self._held = error

    @property
    def damage(self) -> UnreadableImage | None:
        """Where it was held, and the archive is damaged there: what is wrong with it."""
        return self._held if isinstance(self._held, UnreadableImage) and self.size > 0 else None

    def __call__(self) -> bytes:
        self.hold()
        if isinstance(self._held, ImageError):
            raise self._held
        return self._read() if self._held is None else self._held


def gathered(file: IO[bytes] | zipfile.ZipExtFile | _Bounded, most: int, begun: bytes = b"") -> bytes:
    """At most so many bytes of a file, behind those that are there, and never much more in memory."""
    buffer = io.BytesIO()
    buffer.write(begun)
    while most > 0 and (block := file.read(min(_BLOCK, most))):
        buffer.write(block)
        most -= len(block)
    return buffer.getvalue()


# What zipfile, tarfile and the decompressors raise on damaged or unusual input.
_DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    NotImplementedError,
    zipfile.BadZipFile,
    tarfile.TarError,
    LookupError,  # of a sparse member whose map is cut off
)
_DAMAGED = (*_DAMAGE, zlib.error, lzma.LZMAError, OverflowError, MemoryError)


def zip_members(path: Path | ObjectPath, max_bytes: int) -> Iterator[Member]:
    """The files in a zip archive, in its own order; each is read when asked for, from any thread.

    Raises:
        SourceError: at once, where the archive cannot be opened or listed.
    """
    try:
        there = _refuse_endless(path)
        archive = zipfile.ZipFile(path if isinstance(path, Path) else path.open("rb"))
    except _DAMAGED as error:
        raise SourceError(f"{path} is not a zip archive that can be read: {brief(error)}") from error
    return _zip_members(archive, path, max_bytes, there)


def _zip_members(
    archive: zipfile.ZipFile, path: Path | ObjectPath, max_bytes: int, there: int
) -> Iterator[Member]:
    overlapping = _overlapping(archive.infolist())
    unpacked = packed = 0
    for info in archive.infolist():
        if not info.filename or info.is_dir() or _is_hidden(info.filename):
            continue
        size = min(info.file_size, max_bytes)  # a member never has more than the directory says
        if info.header_offset in overlapping:
            error = UnreadableImage("it shares bytes with another entry, which no archiver does")
            yield Member(info.filename, size, partial(_fail, error))
            continue
        if no_image(info.filename) is None:  # else it is not read
            unpacked, packed = unpacked + size, min(packed + info.compress_size, there)
            try:
                bombs.refuse(unpacked, packed)
            except UnreadableImage as error:
                yield Member("", 0, partial(_fail, error))
                return
        yield Member(info.filename, size, partial(_read_zipped, archive, path, info, max_bytes))


def directory_of(file: IO[bytes]) -> tuple[int, int]:
    """Bytes of a zip archive's directory, and where it ends; 0 where there is none.

    Python keeps all of it, some 650 bytes for an entry, so whoever lists an archive asks this first. The
    file's place is moved.
    """
    end = max(0, file.seek(0, io.SEEK_END) - _ZIP_TAIL)
    file.seek(end)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return 0, 0  # zipfile says what is wrong
    (size,) = struct.unpack_from("<I", tail, at + 12)
    end += at
    if at >= 76 and tail.startswith(b"PK\x06\x07", at - 20):  # zip64: a record of its own before it
        (size,) = struct.unpack_from("<Q", tail, at - 76 + 40)
        end -= 76
    return size, end


def _refuse_endless(path: Path | ObjectPath) -> int:
    """Refuse a directory that would fill the memory; where it ends, otherwise."""
    with path.open("rb") as file:
        size, end = directory_of(file)
        if size > _DIRECTORY:
            raise SourceError(f"{path}: its directory takes {size:,} bytes{_UNPACK}")
        if size < 47 * _ENTRIES:  # an entry has 46 bytes and a name
            return end
        file.seek(max(0, end - size))
        entries, rest = 0, b""
        while (left := end - file.tell()) > 0 and (block := file.read(min(_BLOCK, left))):
            entries += (rest + block).count(b"PK\x01\x02")
            rest = block[-3:]
    if entries > _ENTRIES:
        raise SourceError(f"{path}: {entries:,} members in one zip archive{_UNPACK}")
    return end


def _overlapping(entries: list[zipfile.ZipInfo]) -> set[int]:
    """Where entries begin that share bytes with others: kilobytes that unpack to petabytes are made so."""
    starts = np.array([info.header_offset for info in entries], np.float64)
    order = np.argsort(starts, kind="stable")
    starts = starts[order]
    ends = starts + 30 + np.array([info.compress_size for info in entries], np.float64)[order]
    before = np.maximum.accumulate(ends)[:-1]  # the furthest that any earlier entry reaches
    within = np.flatnonzero(starts[1:] < before)
    reaching = np.searchsorted(np.maximum.accumulate(ends), starts[1:][within], side="right")
    return {int(starts[place]) for place in (*(within + 1), *reaching)}


def _read_zipped(
    archive: zipfile.ZipFile, path: Path | ObjectPath, info: zipfile.ZipInfo, max_bytes: int
) -> bytes:
    if info.flag_bits & 1:
        raise UnreadableImage("encrypted in the archive; unpack it with its password first")
    try:
        if info.compress_type == zipfile.ZIP_LZMA and _lzma_dictionary(path, info) > _DICTIONARY:
            raise UnreadableImage("packed so that unpacking takes too much memory; unpack the archive first")
        with archive.open(info) as member:
            data = gathered(member, max_bytes + 1)  # the size in the directory may be a lie
    except _DAMAGED as error:
        raise UnreadableImage(f"damaged in the archive ({brief(error)})") from error
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def _lzma_dictionary(path: Path | ObjectPath, info: zipfile.ZipInfo) -> int:
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = file.read(4)  # of the name and of what is beside it
        file.seek(sum(lengths[::2]) + 256 * sum(lengths[1::2]), io.SEEK_CUR)
        head = file.read(9)  # version, length of the properties, and these: a byte, then the size
    return int(struct.unpack_from("<I", head, 5)[0]) if len(head) == 9 else 0


def tar_members(path: Path | ObjectPath, max_bytes: int) -> Iterator[Member]:
    """The files in a tar archive, compressed or not, in one pass; what was read is not remembered.

    A member's bytes are read when it is asked to hold them, at the latest when the next is asked for; one too
    large is passed over.

    Raises:
        SourceError: at once, where the archive cannot be opened or has no first member.
    """
    try:
        archive, stream = _open_tar(path)
    except (*_DAMAGED, RecursionError) as error:
        raise SourceError(f"{path} is not a tar archive that can be read: {brief(error)}") from error
    return _tar_members(archive, stream, max_bytes)


def _open_tar(path: Path | ObjectPath) -> tuple[tarfile.TarFile, _Bounded]:
    file = path.open("rb")
    try:
        magic = file.read(6)
        file.seek(0)
        unpacked: Any = None
        for signature, unpack in ((b"\x1f\x8b", _gz), (b"BZh", bz2.BZ2File), (b"\xfd7zXZ\x00", _xz)):
            if magic.startswith(signature):
                unpacked = unpack(file)
        bounded = _Bounded(file, unpacked)
        return tarfile.TarFile(fileobj=bounded, mode="r", tarinfo=_Header), bounded  # type: ignore[arg-type]
    except BaseException:
        file.close()
        raise


def _tar_members(archive: tarfile.TarFile, stream: _Bounded, max_bytes: int) -> Iterator[Member]:
    with closing(stream), archive:
        last = "the start"
        while True:
            try:
                member = archive.next()
                archive.members.clear()  # type: ignore[attr-defined]  # or they pile up, a kilobyte each
                stream.members += 1
                if member is None:
                    if stream.last.strip(b"\x00"):
                        raise tarfile.ReadError("no valid header")
                    return
                name = member.name.removeprefix("./")
                if member.isdir() or _is_hidden(name):
                    continue
            except UnreadableImage as error:
                yield Member("", 0, partial(_fail, error))
                return
            except (*_DAMAGED, RecursionError) as error:
                yield _cut_off(last, error)
                return
            plain = member.isfile() and not member.issparse()
            size = member.size if plain and member.size <= max_bytes else 0
            held = Member(name, size, partial(_read_tarred, archive, member, max_bytes), in_turn=True)
            yield held
            held.hold()  # before the archive goes on
            if held.damage is not None:
                if no_image(name) is not None:  # it is skipped, so nobody would know that there was more
                    yield Member("", 0, partial(_fail, UnreadableImage(f"{name}: {held.damage}")))
                return
            last = name


def _cut_off(last: str, error: BaseException) -> Member:
    damage = UnreadableImage(f"the archive is damaged after {last}; the rest is not read ({brief(error)})")
    return Member("", 0, partial(_fail, damage))


def _read_tarred(archive: tarfile.TarFile, member: tarfile.TarInfo, max_bytes: int) -> bytes:
    if not member.isfile():
        raise UnreadableImage("a link or a device in the archive, not a file")
    if member.issparse():  # half a kilobyte may stand for all that an image may take
        raise UnreadableImage("a file with holes (sparse), as no image is; unpack the archive first")
    if member.size > max_bytes:
        raise _too_large(max_bytes)
    try:
        stream: Any = archive.fileobj
        data: bytes = stream.whole(member.offset_data, member.size)
    except (*_DAMAGED, RecursionError) as error:
        raise UnreadableImage(f"the archive is damaged in it, and not read on ({brief(error)})") from error
    if len(data) < member.size:
        raise UnreadableImage("the archive is cut off within it; the rest is not read")
    return data


class _Header(tarfile.TarInfo):
    """A member's header. Python's reader of extended ones searches them with a slow regular expression, and
    keeps every piece of a map of holes, which are not read here.
    """

    def _proc_sparse(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        stream: Any = archive.fileobj
        _, more, whole = self._sparse_structs  # type: ignore[attr-defined]
        while more:
            more = stream.read(512)[504]
        self.sparse: Any = []
        self.offset_data = stream.tell()
        archive.offset = self.offset_data + self._block(self.size)  # type: ignore[attr-defined]
        self.size = whole
        return self

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        stream: Any = archive.fileobj
        start = stream.tell()
        if re.search(rb"[0-9]{64}", stream.read(min(self.size, _HEADER))):
            raise tarfile.ReadError("an extended header that holds no sense")
        stream.seek(start)
        proceed: Callable[[tarfile.TarFile], tarfile.TarInfo] = super()._proc_pax  # type: ignore[misc]
        return proceed(archive)


class _Bounded:
    """A tar's bytes, which refuse a huge read: a header may claim to be gigabytes long, and compress well.

    It goes back within what was read last without asking the file, which may be packed.

    Args:
        file: the archive as it lies there.
        unpacked: what unpacks it; None: it is not packed.

    Attributes:
        last: what was read last.
        members: how many it had so far.
    """

    def __init__(self, file: IO[bytes], unpacked: IO[bytes] | None) -> None:
        self._packed = None if unpacked is None else file
        self._raw = file
        self._file = unpacked or file
        self.last = b""
        self.members = 0
        self._place = self._end = 0

    def read(self, size: int) -> bytes:
        if size > _HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        if self._place < self._end:
            data = self.last[len(self.last) - (self._end - self._place) :][:size]
            self._place += len(data)
            return data if len(data) == size else data + self.read(size - len(data))
        self.last = self._file.read(size)
        self._came(self._end + len(self.last))
        self._place = self._end
        return self.last

    def seek(self, position: int) -> int:
        if not self._end - len(self.last) <= position <= self._end:
            self.last = b""
            while self._packed is not None and self._end + _STEP < position:  # it is unpacked to get there
                before = self._end
                self._came(self._file.seek(before + _STEP))
                if self._end <= before:
                    break  # its end
            self._came(self._file.seek(position))
        self._place = position
        return position

    def whole(self, start: int, size: int) -> bytes:
        """What lies there; less, where the file ends before."""
        if self._packed is not None:  # piece by piece: it may be a bomb
            self.seek(start)
            return gathered(self, size)
        if start != self._end:
            self._file.seek(start)
        self.last, data = b"", self._file.read(size)
        self._end = self._place = start + len(data)
        return data

    def _came(self, end: int) -> None:
        """It was read up to there."""
        self._end = end
        if self._packed is not None:
            bombs.refuse(end, self._packed.tell(), self.members)

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        self._file.close()
        self._raw.close()


def _gz(file: IO[bytes]) -> IO[bytes]:
    return gzip.GzipFile(fileobj=_Stepped(file))  # type: ignore[return-value]


class _Stepped:
    """A file that gzip reads names, comments and padding of a byte at a time; hundreds of megabytes of them
    would take minutes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._steps = 0

    def read(self, size: int = -1) -> bytes:
        self._steps = self._steps + 1 if size == 1 else 0
        if self._steps > _HEADER:
            raise gzip.BadGzipFile("a name, a comment or padding without an end")
        return self._file.read(size)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def _xz(file: IO[bytes]) -> IO[bytes]:
    """An .xz file, unpacked within a limit of memory."""
    return io.BufferedReader(_Xz(file), _BLOCK)


class _Xz(io.RawIOBase):
    """lzma.LZMAFile knows no limit of memory; going back it begins anew, which a tar never needs."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._place = 0
        self._unpacker = self._new()

    def _new(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * _DICTIONARY)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            if self._unpacker.eof:
                rest = self._unpacker.unused_data or self._file.read(_BLOCK)
                rest = rest.lstrip(b"\0")
                if not rest:
                    return 0
                self._unpacker = self._new()
                data = self._unpacker.decompress(rest, len(buffer))
            else:
                packed = self._file.read(2**16) if self._unpacker.needs_input else b""
                if not packed and self._unpacker.needs_input:
                    raise EOFError("cut off")
                data = self._unpacker.decompress(packed, len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            position += self._place
        if position < self._place:
            self._file.seek(0)
            self._place, self._unpacker = 0, self._new()
        while self._place < position and self.read(min(_BLOCK, position - self._place)):
            pass
        return self._place

    def close(self) -> None:
        self._file.close()
        super().close()


def _fail(error: ImageError) -> NoReturn:
    raise error


def _too_large(max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"more than the limit of {max_bytes:,} bytes when unpacked")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
