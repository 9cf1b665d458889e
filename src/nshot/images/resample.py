"""Pillow's resize of large images, byte for byte, in a fifth of the time where a C compiler is at hand.

From a JPEG of 12 megapixels to a square of 224 pixels, Pillow resizes longer than it decodes: one value at a
time. ``passes.c`` does the same sums eight at a time. The machine's own compiler makes a library of it when
the first large image comes, in half a second, and the cache folder keeps it. Where there is no compiler or no
AVX2, Pillow resizes as ever. Only what survives the crop is computed, and an image is turned upright while it
is resized, not before.

As in Pillow, weights are of double precision, rounded to 22 fractional bits; rows are resized first, columns
then, with bytes in between.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from nshot.paths import cache_dir

Box: TypeAlias = tuple[float, float, float, float]
Region: TypeAlias = tuple[int, int, int, int]

LARGE = 2**19
"""Pixels from which on an image is resized here."""

_SUPPORTS = {int(Image.Resampling.BILINEAR): 1.0, int(Image.Resampling.BICUBIC): 2.0}
_BITS = 22
_BAND = 2**20  # bytes that are worked on at once: what a core's own cache holds
_PATIENCE = 60.0  # seconds for the compiler
_PROBES = ((99, 74, 22, 17), (74, 99, 17, 22), (61, 97, 21, 19), (30, 20, 41, 30))  # from and to

log = logging.getLogger("nshot")


def resized(
    image: Image.Image, size: tuple[int, int], resample: int, box: Box, keep: Region, turn: int = 1
) -> NDArray[np.uint8] | None:
    """What ``resize(size, resample, box).crop(keep)`` of the upright image is in Pillow; safe in threads.

    Args:
        image: as it is in the file.
        size: width and height.
        resample: Pillow's number of the filter.
        box: left, top, right and bottom of what is resized, in the upright image's pixels.
        keep: left, top, right and bottom of what is wanted of the result, within ``size``.
        turn: the EXIF orientation, 1 to 8, that makes it upright.

    Returns:
        uint8[height, width, 3] of what is kept; None where it is for Pillow to do: a small image, one that is
        not RGB, another filter, a machine without the library.
    """
    if image.mode != "RGB" or image.width * image.height < LARGE or resample not in _SUPPORTS:
        return None
    upright = image.size[::-1] if turn >= 5 else image.size
    library = _library() if _across_first(upright, size, box) else None
    return None if library is None else _resized(library, image, size, resample, box, keep, turn)


def _across_first(upright: tuple[int, int], size: tuple[int, int], box: Box) -> bool:
    """Whether every version of Pillow resizes rows first: since 13, not where height shrinks much more."""
    for width, height in (upright, (int(box[2] - box[0]), int(box[3] - box[1]))):
        if height - size[1] > 2 * (width - size[0]) - 2:
            return False
    return True


def _resized(
    library: ctypes.CDLL,
    image: Image.Image,
    size: tuple[int, int],
    resample: int,
    box: Box,
    keep: Region,
    turn: int,
) -> NDArray[np.uint8]:
    swapped = turn >= 5
    width, height = image.size[::-1] if swapped else image.size
    across = _weights(width, box[0], box[2], size[0], resample, turn in (2, 3, 6, 7)).part(keep[0], keep[2])
    down = _weights(height, box[1], box[3], size[1], resample, turn in (3, 4, 7, 8)).part(keep[1], keep[3])
    if swapped:  # what runs across the upright image runs down the file's
        return _turned(library, image, down, across).transpose(1, 0, 2)[..., :3]
    return _straight(library, image, across, down)[..., :3]


def _straight(
    library: ctypes.CDLL, image: Image.Image, across: _Weights, down: _Weights
) -> NDArray[np.uint8]:
    """First across, then down, in the file's own directions -> uint8[down, across, 4]."""
    (left, right), (top, bottom) = across.span, down.span
    narrow = np.empty((bottom - top, len(across.first), 4), np.uint8)
    step = max(1, _BAND // (4 * (right - left)))
    for y in range(top, bottom, step):
        with _bytes(image, (left, y, right, min(y + step, bottom))) as (band, rows, columns):
            library.across(band - 4 * left, 4 * columns, rows, *_at(narrow[y - top :]), *across.told(4))
    out = np.empty((len(down.first), len(across.first), 4), np.uint8)
    start, stride = _at(narrow)
    library.down(start - stride * top, stride, narrow.shape[1], *_at(out), *down.told(1))
    return out


def _turned(library: ctypes.CDLL, image: Image.Image, across: _Weights, down: _Weights) -> NDArray[np.uint8]:
    """First down, then across, in the file's own directions -> uint8[down, across, 4]."""
    (left, right), (top, bottom) = across.span, down.span
    flat = np.empty((len(down.first), right - left, 4), np.uint8)
    step = max(8, _BAND // (4 * (bottom - top)))
    for x in range(left, right, step):
        with _bytes(image, (x, top, min(x + step, right), bottom)) as (strip, _, columns):
            stride = 4 * columns
            library.down(strip - stride * top, stride, columns, *_at(flat[:, x - left :]), *down.told(1))
    out = np.empty((len(down.first), len(across.first), 4), np.uint8)
    start, stride = _at(flat)
    library.across(start - 4 * left, stride, len(flat), *_at(out), *across.told(4))
    return out


def _at(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Where they are, and how far it is from one row to the next."""
    return pixels.ctypes.data, pixels.strides[0]


# Weights


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    """Of each output: its first input, how many there are, and their weights, int32[outputs, most].

    ``fourfold`` holds each weight four times, once for each byte of a pixel.
    """

    first: NDArray[np.int32]
    count: NDArray[np.int32]
    values: NDArray[np.int32]
    fourfold: NDArray[np.int32]

    def part(self, start: int, stop: int) -> _Weights:
        """Those of some outputs."""
        kept = slice(start, stop)
        return _Weights(self.first[kept], self.count[kept], self.values[kept], self.fourfold[kept])

    def told(self, times: int) -> tuple[int, int, int, int, int]:
        """As passes.c takes them, each weight once or four times."""
        values = self.fourfold if times == 4 else self.values
        pointers = (array.ctypes.data for array in (self.first, self.count, values))
        return (len(self.first), *pointers, self.values.shape[1])

    @property
    def span(self) -> tuple[int, int]:
        """The first input that any output needs, and the one after the last."""
        return int(self.first.min()), int((self.first + self.count).max())


@lru_cache(maxsize=32)
def _weights(inputs: int, start: float, stop: float, outputs: int, resample: int, mirrored: bool) -> _Weights:
    """Pillow's own, in the order of its operations: the last bit of a double may decide a rounding."""
    begin, end = np.float32(start), np.float32(stop)
    scale = float(end - begin) / outputs
    shrink = max(scale, 1.0)
    reach = _SUPPORTS[resample] * shrink
    centre = float(begin) + (np.arange(outputs) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + reach + 0.5).astype(np.int64), inputs) - first
    places = np.arange(2 * ceil(reach) + 1)
    far = np.abs(((places + first[:, None]) - centre[:, None] + 0.5) * (1.0 / shrink))
    inside = places < count[:, None]
    weights = np.where(inside, _bicubic(far) if reach == 2.0 * shrink else np.maximum(1.0 - far, 0.0), 0.0)
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # one after the other, which sum() does not promise
    whole = np.trunc(np.where(weights < 0, -0.5, 0.5) + weights * 2.0**_BITS).astype(np.int32)
    whole[~inside] = 0
    if mirrored:
        first = inputs - first - count
        taken = np.where(inside, count[:, None] - 1 - places, places)
        whole = np.take_along_axis(whole, taken, axis=1)
    fourfold = np.repeat(whole, 4, axis=1)
    return _Weights(first.astype(np.int32), count.astype(np.int32), np.ascontiguousarray(whole), fourfold)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


# An image's memory


class _ArrowArray(ctypes.Structure):
    """An array as the Arrow C data interface has it."""


_ArrowArray._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    *((name, ctypes.c_void_p) for name in ("dictionary", "release", "private_data")),
]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


@contextmanager
def _bytes(image: Image.Image, region: Region) -> Iterator[tuple[int, int, int]]:
    """Where a region's pixels are while it lasts, four bytes each without gaps; its rows and columns."""
    part: Any = image.crop(region)
    columns, rows = part.size
    try:
        _, capsule = part.__arrow_c_array__()  # its own memory; a copy would need Python's lock
    except ValueError:  # Pillow was told to leave gaps
        copy = np.frombuffer(part.tobytes("raw", "RGBX"), np.uint8)
        yield copy.ctypes.data, rows, columns
    else:
        pixels = _ArrowArray.from_address(_pointer(capsule, b"arrow_array")).children[0].contents
        yield pixels.buffers[1], rows, columns


# The library

_lock = Lock()
_found: list[ctypes.CDLL | None] = []


def _library() -> ctypes.CDLL | None:
    """``passes.c``, compiled and loaded at the first call; None where that cannot be."""
    if not _found and _lock.acquire(blocking=False):  # meanwhile, other threads let Pillow resize
        try:
            if not _found:
                _found.append(_loaded())
        finally:
            _lock.release()
    return _found[0] if _found else None


def _loaded() -> ctypes.CDLL | None:
    if sys.platform == "win32" or platform.machine() not in ("x86_64", "AMD64"):
        return None
    try:
        source = Path(__file__).with_name("passes.c")
        name = f"passes-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.so"
        path = cache_dir() / "compiled" / name
        if not path.exists() and not _compiled(source, path):
            return None
        if not (_trusted(path.parent) and _trusted(path)):
            log.debug("%s is not used: others may write it", path)
            return None
        library = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("large images are resized by Pillow: %s", error)
        return None
    whole, place = ctypes.c_int64, ctypes.c_void_p
    for function in (library.across, library.down):
        function.argtypes = [place, whole, whole, place, whole, whole, place, place, place, whole]
        function.restype = None
    return library if library.able() and _agrees(library) else None


def _agrees(library: ctypes.CDLL) -> bool:
    """Whether it gives this Pillow's bytes: another version may resize in another way."""
    for number, (width, height, wide, high) in enumerate(_PROBES):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        image, whole, kept = Image.fromarray(noise), (0, 0, width, height), (0, 0, wide, high)
        for resample in _SUPPORTS:
            expected = np.asarray(image.resize((wide, high), Image.Resampling(resample)))
            found = _resized(library, image, (wide, high), resample, whole, kept, 1)
            if not np.array_equal(found, expected):
                log.debug("large images are resized by Pillow %s: it has another way", PIL.__version__)
                return False
    return True


def _compiled(source: Path, path: Path) -> bool:
    compiler = os.environ.get("NSHOT_COMPILER", "cc")
    found = shutil.which(compiler) if compiler else None
    if found is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        subprocess.run(
            [found, "-O2", "-fPIC", "-shared", "-o", str(temporary), str(source)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
        )
        temporary.chmod(0o755)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def _trusted(path: Path) -> bool:
    """Whether nobody but this user and the administrator may change it: it is going to be run."""
    status = path.stat()
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022
