"""What decoding an image will take, told from its first bytes before any decoder sees it.

An image whose cost is certain and modest is decoded in a thread. One that is large, of a rare format, or
built to be slow goes to a process of its own, which can be killed: see ``nshot.images.apart``.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from nshot.errors import ImageTooLarge, UndecodableImage
from nshot.images import formats
from nshot.types import Limits


class Cost(NamedTuple):
    """What decoding takes.

    Attributes:
        size: bytes of memory, at most; None: nobody knows.
        alone: whether it may take long, or more than that: decode it apart.
    """

    size: int | None
    alone: bool = False


UNKNOWN = Cost(None, alone=True)

_MOST_PARTS = 2000  # of a JPEG's segments or a PNG's chunks: Pillow reads each in Python
_REFUSED_PARTS = 100_000
_MOST_EXIF = 64
_FILL = b"\xff" * 2**16  # of a JPEG: longer than any segment
_PIECE = 2**18  # bytes that stay near the processor
_MOST_SCANNED = 2**28  # pixels x scans of a JPEG, at some 100 million a second
_REFUSED_SCANNED = 2**32
_THREADS = 2**28  # of address space: a decoder of HEIF or AVIF starts threads, each with a stack and a heap
_RARE = 2**26  # bytes of a file that is more than usually packed

# a pixel takes four bytes in Pillow, whatever its mode; the decoder, transposing, colours and white add to it
_IMAGE = 4


def cost(data: bytes, limits: Limits, draft: int | None = None) -> Cost:
    """The cost of decoding.

    Args:
        data: the encoded image.
        limits: the limits on one image.
        draft: as for ``decode``.

    Raises:
        ImageTooLarge: more pixels than the limit, by the header.
        UndecodableImage: made of more pieces than any image has.
    """
    for signature, tell in _TELLERS:
        if data.startswith(signature):
            try:
                return tell(data, limits, draft)
            except (struct.error, IndexError):  # cut off in the header: soon told
                return Cost(0) if len(data) < 2**20 else UNKNOWN
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data, limits)
    return _rare(data, limits)


def _rare(data: bytes, limits: Limits) -> Cost:
    """Formats that are slow, or read by code of many years and many parts; and what is no image at all."""
    size, also = None, 2**25
    if data[4:8] == b"ftyp":
        size, also = _largest(data[: 2**20]), _THREADS
    elif data[4:8] == b"jP  " and (place := data[:4096].find(b"ihdr")) > 0 and place + 12 <= len(data):
        size = struct.unpack_from(">II", data, place + 4)
    elif data.startswith(b"qoif") and len(data) >= 12:
        size = struct.unpack_from(">II", data, 4)
    elif data.startswith(b"DDS ") and len(data) >= 20:
        size = struct.unpack_from("<II", data, 12)[::-1]
    elif data.startswith(b"8BPS") and len(data) >= 22:
        size = struct.unpack_from(">II", data, 14)[::-1]
    if size is not None and 0 < size[0] * size[1] <= limits.max_pixels:
        return Cost(2 * len(data) + also + 4 * _IMAGE * size[0] * size[1], alone=True)
    head = data[:64]
    plain = head.isascii() and b"\0" not in head and not head.startswith(b"P")
    # text, and other things that no decoder takes: soon told, as long as they are short
    return Cost(0) if plain and len(data) < 2**20 and not data.endswith(b"XFILE.\0") else UNKNOWN


def _largest(head: bytes) -> tuple[int, int] | None:
    """The size of the largest image in a HEIF or AVIF file: others are its tiles, thumbnails and masks."""
    sizes: list[tuple[int, int]] = []
    place = head.find(b"ispe")
    while place > 0 and place + 16 <= len(head) and len(sizes) < 1000:
        sizes.append(struct.unpack_from(">II", head, place + 8))
        place = head.find(b"ispe", place + 4)
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _of(width: int, height: int, copies: float, limits: Limits, *, also: int = 0) -> Cost:
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"{width} x {height} pixels, more than the limit of {limits.max_pixels:,}; scale it down first"
        )
    rows = 8 * (height + 2 * 2**10)  # a pointer a row
    wide, narrow = max(width, height), max(1, min(width, height))
    stretched = min(2**25, 2**20 * wide // narrow) if wide > 30 * narrow else 0  # resized before the crop
    return Cost(int(copies * (_IMAGE * (width + 4) * height + rows)) + 2 * _IMAGE * stretched + also)


def _jpeg(data: bytes, limits: Limits, draft: int | None) -> Cost:
    place, parts, fill, coloured, turned = 2, 0, 0, False, 0
    while True:
        if data[place] != 0xFF:
            return UNKNOWN  # noise between the segments
        while data[place + 1] == 0xFF:
            place, fill = place + 1, fill + 1
            if fill > _MOST_PARTS:
                return _padded(data, place)
        marker = data[place + 1]
        parts += 1
        if parts > _MOST_PARTS:
            return _many(data, place)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            break
        if marker in (0xD9, 0xDA):
            return UNKNOWN
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            place += 2
            continue
        coloured |= data.startswith(b"ICC_PROFILE", place + 4)
        turned += data.startswith(b"Exif", place + 4)
        if turned > _MOST_EXIF:  # Pillow puts each behind all before it, one copy after the other
            raise UndecodableImage(f"damaged: more than {_MOST_EXIF} blocks of EXIF")
        place += 2 + max(2, struct.unpack_from(">H", data, place + 2)[0])
    _, height, width, bands = struct.unpack_from(">BHHB", data, place + 4)
    if data.find(_FILL, place) >= 0:  # a decoder that is fed in pieces begins anew with each
        raise UndecodableImage(f"damaged: {len(_FILL):,} bytes or more of padding within it")
    scans = max(1, _scans(data, place))
    scanned = width * height * scans
    if scanned > _REFUSED_SCANNED:
        raise ImageTooLarge(f"{scans:,} scans of {width} x {height} pixels")
    if scanned > _MOST_SCANNED or marker not in (0xC0, 0xC1, 0xC2):
        return UNKNOWN
    shrunk = 1
    while draft is not None and shrunk < 8 and min(width, height) // (2 * shrunk) >= draft:
        shrunk *= 2
    coefficients = 2 * width * height * bands if scans > 1 else 0  # the whole image's, not a row's
    copies = 1 + coloured + (turned > 0) + (bands == 4)
    within = _of(width, height, 0, limits).size or 0
    return Cost(within + (_of(width, height, copies, limits).size or 0) // shrunk**2 + coefficients)


def _scans(data: bytes, place: int) -> int:
    """How often a scan begins behind there: what ``bytes.count`` finds, in an eighth of its time."""
    found, every = 0, np.frombuffer(data, np.uint8)
    for start in range(place, len(every) - 1, _PIECE):
        piece = every[start : start + _PIECE + 1]
        found += int(np.count_nonzero((piece[:-1] == 0xFF) & (piece[1:] == 0xDA)))
    return found


def _padded(data: bytes, place: int) -> Cost:
    """A JPEG with thousands of bytes between two segments: Pillow reads them one by one."""
    rest = len(data[place : place + 2**24]) - len(data[place : place + 2**24].lstrip(b"\xff"))
    if rest > 2**20:
        raise UndecodableImage(f"damaged: {rest:,} bytes or more of padding between its segments")
    return UNKNOWN


def _many(data: bytes, place: int) -> Cost:
    parts = 0
    while parts < _REFUSED_PARTS and place + 4 <= len(data) and data[place] == 0xFF:
        if data[place + 1] == 0xDA:
            return UNKNOWN
        place += 2 + max(2, struct.unpack_from(">H", data, place + 2)[0])
        parts += 1
    if parts == _REFUSED_PARTS:
        raise UndecodableImage(f"damaged: more than {_REFUSED_PARTS:,} segments")
    return UNKNOWN


def _png(data: bytes, limits: Limits, draft: int | None) -> Cost:
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    found = _of(width, height, 6 if depth == 16 else 3, limits)
    place, parts = 8, 0
    while place + 8 <= len(data) and not data.startswith(b"IEND", place + 4):  # nothing behind it is read
        place += 12 + struct.unpack_from(">I", data, place)[0]
        parts += 1
        if parts > _REFUSED_PARTS:
            raise UndecodableImage(f"damaged: more than {_REFUSED_PARTS:,} chunks")
    return UNKNOWN if parts > _MOST_PARTS or place > _RARE else found


def _gif(data: bytes, limits: Limits, draft: int | None) -> Cost:
    width, height = struct.unpack_from("<HH", data, 6)
    found = _of(width, height, 4, limits)
    return UNKNOWN if len(data) > _RARE // 4 else found


def _bmp(data: bytes, limits: Limits, draft: int | None) -> Cost:
    header, width, height = struct.unpack_from("<Iii", data, 14)
    if header < 40 or struct.unpack_from("<I", data, 30)[0] in (1, 2):  # run lengths: read in Python
        return UNKNOWN
    return _of(abs(width), abs(height), 3, limits)


def _tiff(data: bytes, limits: Limits, draft: int | None) -> Cost:
    order = "<" if data.startswith(b"II") else ">"
    (place,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, place)
    if count > 200 or len(data) > _RARE:
        return UNKNOWN
    tags = {}
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        tags[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)[0]
        if tag in (273, 324) and number > _MOST_PARTS:  # strips or tiles, a decoder each
            return UNKNOWN
    # beside camera raw files: not packed, LZW, Deflate, PackBits
    if formats.needs(data) is not None or tags.get(259, 1) not in (1, 5, 8, 32773, 32946):
        return UNKNOWN
    return _of(tags.get(256, 0), tags.get(257, 0), 8, limits)


def _webp(data: bytes, limits: Limits) -> Cost:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8 " and len(data) >= 30:
        width, height = (n & 0x3FFF for n in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L" and len(data) >= 25:
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        return Cost(0) if len(data) < 2**20 else UNKNOWN
    return _of(width, height, 6, limits)


_TELLERS = (
    (b"\xff\xd8", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"GIF8", _gif),
    (b"BM", _bmp),
    (b"II*\x00", _tiff),
    (b"MM\x00*", _tiff),
)
