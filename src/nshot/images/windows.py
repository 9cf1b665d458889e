"""Large images in bands from the top, so that memory stays flat however many pixels there are.

Which files can be read so: TIFF of 8 bits in tiles or strips, plain or compressed; JPEG that is not
progressive, which is decoded at a half, a quarter or an eighth of its size; and binary PPM. All others (PNG,
WebP, HEIF, progressive JPEG, TIFF of 16 bits or in one compressed strip) are decoded whole, out of the run's
memory.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from PIL import Image, JpegImagePlugin

from nshot.errors import NONSENSE, ImageError, UndecodableImage, brief
from nshot.images import colour
from nshot.images.decode import _orientation, decode, upright
from nshot.types import Limits

LARGE = 2**25
"""Pixels from which on an image is read in bands where its format allows it."""

_MOST_BAND = 2**26  # pixels of one band
_MOST_PIXELS = 2**36
_MOST_ENTRIES = 4096  # in a TIFF's directory
_MOST_PIECES = 2**22
_SHRINKS = (8, 4, 2)

_BETWEEN = rb"(?:\s|#[^\n]*\n)+"  # the numbers of a PPM's header
_PPM = re.compile(rb"P6%b(\d{1,12})%b(\d{1,12})%b(\d{1,5})\s" % (_BETWEEN, _BETWEEN, _BETWEEN))

# whatever reading nonsense can end in
_DAMAGE = (*NONSENSE, OSError, struct.error, SyntaxError, MemoryError)


@dataclass(frozen=True, slots=True)
class Bands:
    """A large image that can be read in bands.

    Attributes:
        size: width and height of the upright image, in pixels.
        scale: what the bands are scaled by: 1, or 1/2 to 1/8 where the decoder shrinks.
        read: begins to read: RGB images as wide as the scaled image, from the top, one under the other; each
            call reads anew. Raises UndecodableImage where the file is damaged.
    """

    size: tuple[int, int]
    scale: float
    read: Callable[[], Iterator[Image.Image]]


def open_bands(path: str, least: float, limits: Limits) -> Bands | None:
    """The image in bands, if it is large, and of a format that can be read so; None: decode it whole.

    Args:
        path: a file.
        least: the shorter edge that the scaled image must have at least, in pixels.
        limits: what a single image may take; their ``max_pixels`` and ``max_bytes`` are for what is held at
            once, and not looked at here.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(16)
            if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return _tiff(path, file, limits)
            if head[:3] == b"\xff\xd8\xff":
                return _jpeg(path, least)
            if head[:2] == b"P6":
                return _ppm(path, file)
    except (*_DAMAGE, ImageError):
        pass  # the usual way will say what is wrong with it
    return None


def _whole(read: Callable[[], Iterator[Image.Image]]) -> Callable[[], Iterator[Image.Image]]:
    """The same; whatever a damaged file leads to is one error."""

    def bands() -> Iterator[Image.Image]:
        try:
            yield from read()
        except _DAMAGE as error:
            raise UndecodableImage(f"damaged, or cut off ({brief(error)})") from error

    return bands


def _read(file: BinaryIO, count: int) -> bytes:
    """So many bytes, or those that are left: Python takes memory for all that it is asked for."""
    return file.read(max(0, min(count, os.fstat(file.fileno()).st_size - file.tell())))


def _jpeg(path: str, least: float) -> Bands | None:
    with JpegImagePlugin.JpegImageFile(path) as image:  # Image.open refuses more than its own limit of pixels
        width, height = image.size
        if width * height < LARGE or image.info.get("progressive") or image.mode not in ("RGB", "L"):
            return None
        shrink = next((by for by in _SHRINKS if min(width, height) >= by * least), 1)
        if width * height > shrink**2 * _MOST_BAND:
            return None
        sideways = _orientation(image) >= 5

    def read() -> Iterator[Image.Image]:
        with JpegImagePlugin.JpegImageFile(path) as image:
            image.draft(image.mode, (width // shrink, height // shrink))
            image.load()
            yield colour.to_rgb(upright(image, _orientation(image)), [])

    return Bands((height, width) if sideways else (width, height), 1 / shrink, _whole(read))


def _ppm(path: str, file: BinaryIO) -> Bands | None:
    file.seek(0)
    told = _PPM.match(file.read(512))
    if told is None:
        return None
    width, height, most = map(int, told.groups())
    start = told.end()
    if most != 255 or not LARGE <= width * height <= _MOST_PIXELS or not 0 < width <= _MOST_BAND:
        return None
    rows = max(1, _MOST_BAND // 8 // width)

    def read() -> Iterator[Image.Image]:
        with Path(path).open("rb") as file:
            file.seek(start)
            for top in range(0, height, rows):
                count = min(rows, height - top)
                data = _read(file, 3 * width * count)
                if len(data) < 3 * width * count:
                    raise UndecodableImage("cut off: the file ends within its pixels")
                yield Image.frombytes("RGB", (width, count), data)

    return Bands((width, height), 1.0, _whole(read))


# TIFF

_KEPT = (258, 259, 262, 266, 277, 284, 317, 320, 338, 339, 347, 530, 532, 34675)
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True, slots=True)
class _Tag:
    kind: int
    count: int
    data: bytes


def _directory(file: BinaryIO) -> tuple[str, dict[int, _Tag]]:
    """The byte order, and the first directory's tags."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    place, word, entry = (
        (struct.unpack_from(order + "Q", head, 8)[0], "Q", 20)
        if big
        else (struct.unpack_from(order + "I", head, 4)[0], "I", 12)
    )
    file.seek(place)
    (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    if count > _MOST_ENTRIES:
        raise ValueError("no directory")
    inline = 8 if big else 4
    entries = file.read(entry * count)
    tags = {}
    for number in range(count):
        tag, kind, values = struct.unpack_from(order + "HH" + word, entries, entry * number)
        size = _SIZES.get(kind, 1) * values
        data = entries[entry * number + entry - inline : entry * (number + 1)]
        if size > inline:
            if size > 8 * _MOST_PIECES:
                raise ValueError("too many values")
            file.seek(struct.unpack(order + word, data)[0])
            data = _read(file, size)
        tags[tag] = _Tag(kind, values, data[:size])
    return order, tags


def _tiff(path: str, file: BinaryIO, limits: Limits) -> Bands | None:
    order, tags = _directory(file)

    def numbers(tag: int, default: int | None = None) -> tuple[int, ...]:
        if tag not in tags:
            if default is None:
                raise ValueError(f"no tag {tag}")
            return (default,)
        found = tags[tag]
        values: tuple[int, ...] = struct.unpack(order + f"{found.count}{_WHOLE[found.kind]}", found.data)
        return values

    (width,), (height,) = numbers(256), numbers(257)
    samples = numbers(277, 1)[0]
    plain = numbers(259, 1)[0] == 1
    if (
        not LARGE <= width * height <= _MOST_PIXELS
        or set(numbers(258, 1)) != {8}
        or (samples > 1 and numbers(284, 1)[0] != 1)
        or numbers(274, 1)[0] != 1
        or (plain and samples not in (1, 3, 4))
    ):
        return None
    kept = {tag: tags[tag] for tag in _KEPT if tag in tags}
    limits = replace(limits, max_pixels=_MOST_BAND)
    if 322 in tags:
        wide, tall = numbers(322)[0], numbers(323)[0]
        offsets, lengths = numbers(324), numbers(325)
        across = -(-width // wide)
        if not 0 < tall * width <= _MOST_BAND or len(offsets) < across * -(-height // tall):
            return None
    else:
        wide, tall = width, min(numbers(278, height)[0], height)
        offsets, lengths = numbers(273), numbers(279)
        across = 1
        if plain:  # rows can be taken from anywhere in it
            rows = max(1, min(tall, _MOST_BAND // 8 // width))
            offsets, lengths = _split(offsets, height, tall, rows, width * samples)
            tall = rows if len(offsets) > 1 and tall >= height else tall
        if not 0 < tall * width <= _MOST_BAND or len(offsets) < -(-height // tall):
            return None

    def read() -> Iterator[Image.Image]:
        with Path(path).open("rb") as file:
            for row in range(-(-height // tall)):
                count = min(tall, height - row * tall)
                band = Image.new("RGB", (width, count))
                for column in range(across):
                    number = row * across + column
                    file.seek(offsets[number])
                    data = _read(file, lengths[number])
                    rows = tall if 322 in tags else count
                    piece = decode(_alone(order, kept, wide, rows, data), limits=limits).image
                    band.paste(piece, (column * wide, 0))
                yield band

    return Bands((width, height), 1.0, _whole(read))


def _split(
    offsets: tuple[int, ...], height: int, tall: int, rows: int, stride: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strips that are not compressed, cut into bands of so many rows where there is one strip."""
    if len(offsets) > 1 or tall < height:
        counts = [min(tall, height - number * tall) for number in range(len(offsets))]
        return offsets, tuple(count * stride for count in counts)
    tops = range(0, height, rows)
    return (
        tuple(offsets[0] + top * stride for top in tops),
        tuple(min(rows, height - top) * stride for top in tops),
    )


def _alone(order: str, kept: dict[int, _Tag], width: int, height: int, data: bytes) -> bytes:
    """A TIFF file that holds one strip or tile of another, as its only strip."""
    entries = dict(kept)
    for tag, value in ((256, width), (257, height), (278, height), (279, len(data)), (273, 0)):
        entries[tag] = _Tag(4, 1, struct.pack(order + "I", value))
    place = 8 + 2 + 12 * len(entries) + 4
    extra = io.BytesIO()
    rows = []
    outside = {tag: each for tag, each in entries.items() if len(each.data) > 4}
    lengths = sum(len(each.data) + len(each.data) % 2 for each in outside.values())
    entries[273] = _Tag(4, 1, struct.pack(order + "I", place + lengths))
    for tag, each in sorted(entries.items()):
        if len(each.data) > 4:
            held = struct.pack(order + "I", place + extra.tell())
            extra.write(each.data + bytes(len(each.data) % 2))
        else:
            held = each.data.ljust(4, b"\0")
        rows.append(struct.pack(order + "HHI", tag, each.kind, each.count) + held)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    directory = struct.pack(order + "H", len(rows)) + b"".join(rows) + bytes(4)
    return head + directory + extra.getvalue() + data
