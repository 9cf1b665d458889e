"""Quicker ways through Pillow, to the same pixels: decoders for what it decodes in Python, and whole pixels.

Ordinary images of these formats took Pillow a minute: plain PPM and PPM of other depths, DDS that is not
compressed, QOI. Only their pixels are decoded here; Pillow goes on to read the headers. They take a tenth of
the time. A JPEG's decoder is asked for pixels of four bytes, as Pillow holds them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, features

_PIECE = 2**20  # bytes, or pixels, of a step: what numpy works on stays small

_LINE_END = re.compile(rb"[\r\n]")
_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]")
_SPACES = (b" ", b"\t", b"\n", b"\r", b"\v", b"\f")
_IS_SPACE = np.isin(np.arange(256), np.frombuffer(b"".join(_SPACES), np.uint8))
_MOST_DIGITS = 9  # of a number, leading zeros included


def quicken(image: Image.Image) -> None:
    """Let an opened image be decoded in a quicker way where there is one."""
    tiles: Any = getattr(image, "tile", ())
    if [tile[3] for tile in tiles] == [("RGB", "")] and tiles[0].codec_name == "jpeg" and image.mode == "RGB":
        if features.check_feature("libjpeg_turbo"):  # else Pillow moves each pixel from three bytes to four
            image.tile = [tiles[0]._replace(args=("RGBX", ""))]  # type: ignore[attr-defined]
    elif any(tile.codec_name in _DECODERS for tile in tiles):
        image.tile = [  # type: ignore[attr-defined]
            tile._replace(codec_name=_DECODERS.get(tile.codec_name, tile.codec_name)) for tile in tiles
        ]


def _bytes(values: NDArray[Any]) -> Any:
    """The same memory, as Pillow takes it: not copied."""
    return values.reshape(-1).view(np.uint8).data


class _PlainPPM(ImageFile.PyDecoder):
    """Numbers in text, with comments; bits need no spaces between them."""

    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        wanted = self.state.xsize * self.state.ysize * Image.getmodebands(self.mode)
        bits = self.mode == "1"
        scaled = np.array([255, 0], np.uint8) if bits else _scaled(self.args[-1], self.mode)
        values = np.zeros(wanted, scaled.dtype)
        done = 0
        for text in _pieces(self.fd) if self.fd is not None else ():
            found = (_bits(text) if bits else _numbers(text))[: wanted - done]
            if len(found) and found.max() >= len(scaled):
                raise ValueError(f"a value of {found.max()}, above the file's maximum")
            values[done : done + len(found)] = scaled[found]
            done += len(found)
            if done == wanted:
                break
        raw = {"1": "1;8", "I": "I;32"}.get(self.mode, self.mode)
        self.set_as_raw(_bytes(values[:done]), raw)
        return -1, 0


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    """The text without comments, cut between two numbers."""
    rest, comment = b"", False
    while piece := file.read(_PIECE):
        if comment:  # it goes on from the last piece
            end = _LINE_END.search(piece)
            if end is None:
                continue
            piece = piece[end.end() :]
        piece, begun, _ = _COMMENT.sub(b"", piece).partition(b"#")
        comment = bool(begun)
        rest += piece
        cut = 1 + max(rest.rfind(each) for each in _SPACES)
        if len(rest) - cut > 2 * _MOST_DIGITS:
            cut = len(rest)
        yield rest[:cut]
        rest = rest[cut:]
    yield rest


def _bits(text: bytes) -> NDArray[np.intp]:
    values = np.frombuffer(text, np.uint8)
    values = values[~_IS_SPACE[values]]
    if len(values) and (values.min() < 48 or values.max() > 49):
        raise ValueError("a bit that is neither 0 nor 1")
    return (values - 48).astype(np.intp)


def _numbers(text: bytes) -> NDArray[np.intp]:
    """The numbers of a text, all of whose tokens are digits."""
    data = np.frombuffer(text, np.uint8)
    digits = data - 48  # wraps around: everything else is above 9
    inside = digits < 10
    if not (inside | _IS_SPACE[data]).all():
        raise ValueError("something that is no number")
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return np.zeros(0, np.intp)
    lengths = ends - starts
    longest = int(lengths.max())
    if longest > _MOST_DIGITS:
        raise ValueError("a number of more digits than any value has")
    values = digits[ends - 1].astype(np.intp)
    for place in range(1, longest):
        some = lengths > place
        values[some] += digits[ends[some] - 1 - place].astype(np.intp) * 10**place
    return values


class _BinaryPPM(ImageFile.PyDecoder):
    """Values of one or two bytes up to a maximum that is not all that they can hold."""

    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        most, bands = self.args[-1], Image.getmodebands(self.mode)
        kind = np.dtype(np.uint8 if most < 256 else ">u2")
        scaled = _scaled(most, self.mode)
        wanted = self.state.xsize * self.state.ysize * bands
        data = self.fd.read(wanted * kind.itemsize) if self.fd is not None else b""
        found = np.frombuffer(data, kind, len(data) // kind.itemsize // bands * bands)
        values = scaled[np.minimum(found, len(scaled) - 1)]
        self.set_as_raw(_bytes(values), "I;32" if self.mode == "I" else self.mode)
        return -1, 0


def _scaled(most: int, mode: str) -> NDArray[Any]:
    """What each value up to the maximum becomes."""
    full, kind = (65535, "<u4") if mode == "I" else (255, "u1")
    return np.array([round(value / most * full) for value in range(most + 1)], kind)


class _MaskedDDS(ImageFile.PyDecoder):
    """Pixels of 8 to 32 bits, a mask for each colour."""

    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        bits, masks = self.args
        size = bits // 8
        if not 1 <= size <= 4:
            raise ValueError(f"{bits} bits per pixel")
        wanted = self.state.xsize * self.state.ysize
        done, out = 0, np.zeros((wanted, len(masks)), np.uint8)
        while done < wanted:
            count = min(_PIECE, wanted - done)
            data = self.fd.read(count * size) if self.fd is not None else b""
            found = np.frombuffer(data, np.uint8, len(data) // size * size).reshape(-1, size)
            if not len(found):
                break
            values = np.zeros((len(found), 4), np.uint8)
            values[:, :size] = found
            whole = values.view("<u4")[:, 0]
            for band, mask in enumerate(masks):
                lowest = (mask & -mask).bit_length() - 1
                if mask:
                    part = (whole & np.uint32(mask)) >> np.uint32(lowest)
                    out[done : done + len(found), band] = part / (mask >> lowest) * 255
            done += len(found)
        self.set_as_raw(_bytes(out[:done]))
        return -1, 0


# A pixel of QOI in one integer: red, green, blue, alpha in 10 bits each, so that all are added at once, and
# above them its place in the table. That is a sum modulo 64 and the channels wrap at 256, so that a
# difference of colours has a place, too, to be added with it.
_CHANNELS = (0, 10, 20, 30)
_PLACE = 40
_MASK = sum(255 << channel for channel in _CHANNELS) | 63 << _PLACE
_ALPHA = 255 << 30


def _packed(red: int, green: int, blue: int, alpha: int = 0) -> int:
    place = 3 * red + 5 * green + 7 * blue + 11 * alpha & 63
    return red & 255 | (green & 255) << 10 | (blue & 255) << 20 | alpha << 30 | place << _PLACE


_STRETCH = 16  # colours in full in a row, from which on numpy is faster
_CODES = 2**16


@cache
def _differences() -> tuple[list[int], list[list[int]]]:
    """Small differences by code; large ones by code and the byte after it: 16,000, which few runs need."""
    small = [_packed((n >> 4 & 3) - 2, (n >> 2 & 3) - 2, (n & 3) - 2) for n in range(128)]
    large = [
        [_packed(green - 40 + (n >> 4), green - 32, green - 40 + (n & 15)) for n in range(256)]
        for green in [*[0] * 128, *range(64)]
    ]
    return small, large


class _QOI(ImageFile.PyDecoder):
    """Each pixel depends on the one before it: a loop, but of few steps per pixel."""

    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        bands = Image.getmodebands(self.mode)
        wanted = self.state.xsize * self.state.ysize
        out, done = np.empty((wanted, bands), np.uint8), 0
        for found in _qoi_pixels(self.fd.read() if self.fd is not None else b""):
            pixels = np.array(found, np.uint64)[: wanted - done]
            for band in range(bands):
                out[done : done + len(pixels), band] = pixels >> np.uint64(_CHANNELS[band])
            done += len(pixels)
            if done == wanted:
                break
        self.set_as_raw(_bytes(out[:done]))
        return -1, 0


def _qoi_pixels(data: bytes) -> Iterator[list[int]]:
    """The pixels of all codes in turn, some thousands at a time; it ends where the data do."""
    (small, large), mask = _differences(), _MASK
    pixel, seen = _packed(0, 0, 0, 255), [0] * 64
    codes: Any = iter(data)
    while codes.__length_hint__():
        found: list[int] = []
        add = found.append
        try:
            for code in islice(codes, _CODES):
                if code < 64:
                    pixel = seen[code]
                    if not pixel:
                        seen[0] = 0
                elif code < 128:
                    pixel = pixel + small[code] & mask
                    seen[pixel >> 40] = pixel
                elif code < 192:
                    pixel = pixel + large[code][next(codes)] & mask
                    seen[pixel >> 40] = pixel
                elif code < 254:
                    found += [pixel] * (code - 192)  # and one below
                else:
                    place = len(data) - codes.__length_hint__()
                    size = code - 250
                    if data[place - 1 : place + _STRETCH * size : size] == bytes([code]) * (_STRETCH + 1):
                        whole = _in_full(data, place - 1, size, pixel, seen)
                        codes.__setstate__(place - 1 + size * len(whole))
                        found += whole
                        pixel = whole[-1]
                        break
                    alpha = data[place + 3] if size == 5 else pixel >> 30 & 255
                    pixel = _packed(data[place], data[place + 1], data[place + 2], alpha)
                    codes.__setstate__(place + size - 1)
                    seen[pixel >> 40] = pixel
                add(pixel)
        except (IndexError, StopIteration):  # cut off within a pixel
            codes = iter(b"")
        yield found


def _in_full(data: bytes, place: int, size: int, pixel: int, seen: list[int]) -> list[int]:
    """Colours that are given in full, one after the other."""
    values = np.frombuffer(data, np.uint8, offset=place)[: _CODES * size]
    rows = values[: len(values) // size * size].reshape(-1, size)
    other = rows[:, 0] != rows[0, 0]
    rows = rows[: int(other.argmax()) if other.any() else len(rows)].astype(np.int64)
    alpha = rows[:, 4] if size == 5 else pixel >> 30 & 255
    red, green, blue = rows[:, 1:4].T
    at = 3 * red + 5 * green + 7 * blue + 11 * alpha & 63
    pixels: list[int] = (red | green << 10 | blue << 20 | alpha << 30 | at << _PLACE).tolist()
    for where, value in dict(zip(at.tolist(), pixels, strict=True)).items():
        seen[where] = value
    return pixels


_DECODERS = {
    "ppm_plain": "nshot_ppm_plain",
    "ppm": "nshot_ppm",
    "dds_rgb": "nshot_dds_rgb",
    "qoi": "nshot_qoi",
}
for _name, _decoder in zip(_DECODERS.values(), (_PlainPPM, _BinaryPPM, _MaskedDDS, _QOI), strict=True):
    Image.register_decoder(_name, _decoder)
