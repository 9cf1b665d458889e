"""What a Parquet file's end says of its columns: where they lie, how large they are, and their statistics.

pyarrow tells that as well, but on a damaged or encrypted footer it ends the whole process. The footer is a
structure of Thrift's compact protocol, a few hundred bytes for each part of a column.
"""

from __future__ import annotations

import operator
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_DEEPEST = 32
_LARGEST = 2**28  # bytes of a footer

# of FileMetaData, RowGroup, ColumnChunk, ColumnMetaData and Statistics: the numbers of their fields
_GROUPS, _COLUMNS, _ABOUT = 4, 1, 3
_CODEC, _PATH, _VALUES, _UNPACKED, _PACKED, _DATA, _DICTIONARY, _STATISTICS = 4, 3, 5, 6, 7, 9, 11, 12
_ROWS = 3
_MAX, _MIN = 5, 6
_PAGE_UNPACKED, _PAGE_PACKED = 2, 3  # of PageHeader
_HEAD = 2**16  # bytes of a page's head, its statistics among them


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part of a column that lies in one row group.

    Attributes:
        path: its names, from the column's down to the leaf's.
        values: how many values it holds, those that are missing counted.
        unpacked: bytes of its pages, without compression.
        packed: bytes that it takes in the file.
        begin: where its first page begins, that of a dictionary among them.
        start: where its first page of data begins.
        plain: whether it is neither compressed nor has a dictionary.
        least: its least value as the file holds it; None where that is not told.
        most: its greatest value.
    """

    path: tuple[str, ...]
    values: int
    unpacked: int
    packed: int
    begin: int
    start: int
    plain: bool
    least: bytes | None
    most: bytes | None


def row_groups(file: IO[bytes]) -> list[tuple[int, list[Chunk]]]:
    """The number of rows and the columns' parts of each row group; the file's place is moved.

    Raises:
        ValueError: it is no Parquet file, is encrypted, or its footer is damaged.
        OSError: it cannot be read.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    if tail[4:] == _ENCRYPTED:
        raise ValueError("it is encrypted")
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or not 0 < length <= min(size - 8, _LARGEST):
        raise ValueError("it has no footer")
    file.seek(size - 8 - length)
    try:
        found = _Compact(file.read(length)).structure(0)
        return [_group(group) for group in found.get(_GROUPS, [])]
    except (IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError("its footer is damaged") from error


def largest_page(file: IO[bytes], chunk: Chunk) -> int:
    """Bytes that a page of a column's part claims to hold, the largest; the file's place is moved.

    A reader takes that much memory before it reads, whatever the footer says of the whole. It is told up to
    the first page whose head cannot be read: there every reader stops.
    """
    largest, at, end = 0, chunk.begin, chunk.begin + chunk.packed
    while 0 <= at < end:
        file.seek(at)
        head = _Compact(file.read(_HEAD))
        try:
            found = head.structure(0)
            unpacked, packed = operator.index(found[_PAGE_UNPACKED]), operator.index(found[_PAGE_PACKED])
        except (IndexError, KeyError, TypeError, ValueError, struct.error):
            break
        largest = max(largest, unpacked, packed)
        if packed < 0:
            break
        at += head.read + packed
    return largest


def _group(group: dict[int, Any]) -> tuple[int, list[Chunk]]:
    return int(group[_ROWS]), [_chunk(column) for column in group[_COLUMNS]]


def _chunk(column: dict[int, Any]) -> Chunk:
    if _ABOUT not in column:
        raise ValueError("a column of it is encrypted")
    about = column[_ABOUT]
    statistics = about.get(_STATISTICS, {})
    return Chunk(
        tuple(part.decode() for part in about[_PATH]),
        values=operator.index(about[_VALUES]),
        unpacked=operator.index(about[_UNPACKED]),
        packed=operator.index(about[_PACKED]),
        begin=min(operator.index(about[place]) for place in (_DATA, _DICTIONARY) if place in about),
        start=operator.index(about[_DATA]),
        plain=about[_CODEC] == 0 and _DICTIONARY not in about,
        least=statistics.get(_MIN),
        most=statistics.get(_MAX),
    )


class _Compact:
    """Reads values of Thrift's compact protocol; a structure is a mapping of its fields' numbers."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        whole = self._whole
        self._readers: dict[int, Callable[[int], Any]] = {
            **dict.fromkeys((1, 2), lambda _: self._byte() == 1),  # as elements; as fields they take no byte
            3: lambda _: self._byte(),
            **dict.fromkeys((4, 5, 6), lambda _: whole()),
            7: lambda _: struct.unpack("<d", self._bytes(8))[0],
            8: lambda _: self._bytes(self._varint()),
            **dict.fromkeys((9, 10), self._list),
            11: self._map,
            12: self.structure,
        }

    @property
    def read(self) -> int:
        """Bytes read so far."""
        return self._at

    def structure(self, depth: int) -> dict[int, Any]:
        if depth > _DEEPEST:
            raise ValueError("its footer is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._whole()
            kind = head & 15
            found[number] = kind == 1 if kind in (1, 2) else self._readers[kind](depth + 1)
        return found

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = head >> 4
        if count == 15:
            count = self._varint()
        if depth > _DEEPEST or count > len(self._data) - self._at:  # an element takes a byte at least
            raise ValueError("its footer is damaged")
        read = self._readers[head & 15]
        return [read(depth + 1) for _ in range(count)]

    def _map(self, depth: int) -> None:
        raise ValueError("its footer holds a map, which Parquet does not know")

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _bytes(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise ValueError("its footer is cut off")
        self._at += count
        return self._data[self._at - count : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("its footer holds a number of more than 64 bits")

    def _whole(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
