"""Pillow's resize of large images, byte for byte, in a fifth of the time where a C compiler is at hand.

From a JPEG of 12 megapixels to a square of 224 pixels, Pillow resizes longer than it decodes: one value at a
time. ``passes.c`` does the same sums eight at a time. The machine's own compiler makes a library of it when
the first large image comes, in half a second, and the cache folder keeps it. A processor with VNNI does more
at once. Where there is no compiler or no AVX2, Pillow resizes as ever. Only what survives the crop is
computed, and an image is turned upright while it is resized, not before.

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

from nshot.atomic import replace
from nshot.paths import cache_dir

Box: TypeAlias = tuple[float, float, float, float]
Region: TypeAlias = tuple[int, int, int, int]

LARGE = 2**19
"""Pixels from which on an image is resized here."""

_SUPPORTS = {int(Image.Resampling.BILINEAR): 1.0, int(Image.Resampling.BICUBIC): 2.0}
_BITS = 22
_BAND = 2**20  # bytes that are worked on at once: what a core's own cache holds
_PATIENCE = 60.0  # seconds for the compiler
_SUM = 32  # bytes of sha256
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
    library: _Passes,
    image: Image.Image,
    size: tuple[int, int],
    resample: int,
    box: Box,
    keep: Region,
    turn: int,
) -> NDArray[np.uint8]:
    swapped = turn >= 5
    width, height = image.size[::-1] if swapped else image.size
    vnni = library.vnni
    across = _weights(width, box[0], box[2], size[0], resample, turn in (2, 3, 6, 7), vnni)
    down = _weights(height, box[1], box[3], size[1], resample, turn in (3, 4, 7, 8), vnni)
    across, down = across.part(keep[0], keep[2]), down.part(keep[1], keep[3])
    if swapped:  # what runs across the upright image runs down the file's
        return _turned(library, image, down, across).transpose(1, 0, 2)[..., :3]
    return _straight(library, image, across, down)[..., :3]


def _straight(library: _Passes, image: Image.Image, across: _Weights, down: _Weights) -> NDArray[np.uint8]:
    """First across, then down, in the file's own directions -> uint8[down, across, 4]."""
    (left, right), (top, bottom) = across.span, down.span
    narrow = np.empty((bottom - top, len(across.first), 4), np.uint8)
    step = max(1, _BAND // (4 * (right - left)))
    for y in range(top, bottom, step):
        with _bytes(image, (left, y, right, min(y + step, bottom))) as (band, rows, columns):
            library.across(
                band - 4 * left, 4 * columns, rows, *_at(narrow[y - top :]), *across.told(across.along)
            )
    out = np.empty((len(down.first), len(across.first), 4), np.uint8)
    start, stride = _at(narrow)
    library.down(start - stride * top, stride, narrow.shape[1], *_at(out), *down.told(down.down))
    return out


def _turned(library: _Passes, image: Image.Image, across: _Weights, down: _Weights) -> NDArray[np.uint8]:
    """First down, then across, in the file's own directions -> uint8[down, across, 4]."""
    (left, right), (top, bottom) = across.span, down.span
    flat = np.empty((len(down.first), right - left, 4), np.uint8)
    step = max(8, _BAND // (4 * (bottom - top)))
    for x in range(left, right, step):
        with _bytes(image, (x, top, min(x + step, right), bottom)) as (strip, _, columns):
            stride = 4 * columns
            library.down(
                strip - stride * top, stride, columns, *_at(flat[:, x - left :]), *down.told(down.down)
            )
    out = np.empty((len(down.first), len(across.first), 4), np.uint8)
    start, stride = _at(flat)
    library.across(start - 4 * left, stride, len(flat), *_at(out), *across.told(across.along))
    return out


def _at(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Where they are, and how far it is from one row to the next."""
    return pixels.ctypes.data, pixels.strides[0]


# Weights


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    """Of each output: its first input, how many there are, and their weights in the forms of passes.c.

    ``along``, for a pass along rows: int32[outputs, most, 4], each weight once for each byte of a pixel; or
    with VNNI int8[outputs, groups of 8, 3 digits, 32]. ``down``, for one down columns:
    int32[outputs, most], or int8[outputs, groups of 4, 3 digits, 4].
    """

    first: NDArray[np.int32]
    count: NDArray[np.int32]
    along: NDArray[Any]
    down: NDArray[Any]

    def part(self, start: int, stop: int) -> _Weights:
        """Those of some outputs."""
        kept = slice(start, stop)
        return _Weights(self.first[kept], self.count[kept], self.along[kept], self.down[kept])

    def told(self, values: NDArray[Any]) -> tuple[int, int, int, int, int]:
        """As passes.c takes them, in one of the two forms."""
        pointers = (array.ctypes.data for array in (self.first, self.count, values))
        return (len(self.first), *pointers, values.shape[1])

    @property
    def span(self) -> tuple[int, int]:
        """The first input that any output needs, and the one after the last."""
        return int(self.first.min()), int((self.first + self.count).max())


@lru_cache(maxsize=32)
def _weights(
    inputs: int, start: float, stop: float, outputs: int, resample: int, mirrored: bool, vnni: bool
) -> _Weights:
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
    if vnni:
        along, down = _digits(whole)
    else:
        along, down = np.repeat(whole[:, :, None], 4, axis=2), np.ascontiguousarray(whole)
    return _Weights(first.astype(np.int32), count.astype(np.int32), along, down)


def _digits(weights: NDArray[np.int32]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Weights as three digits with signs, d0 + 256 d1 + 65536 d2, for passes along and down.

    Returns:
        int8[outputs, groups of 8, 3, 32]: the digits of four weights four times, and those of the next four;
        int8[outputs, groups of 4, 3, 4].
    """
    padded = np.pad(weights, ((0, 0), (0, -weights.shape[1] % 8)))
    digits = np.empty((3, *padded.shape), np.int8)
    for digit in digits:
        digit[:] = padded.astype(np.int8)  # the lowest 8 bits
        padded = (padded - digit) >> 8
    down = np.ascontiguousarray(digits.reshape(3, len(weights), -1, 4).transpose(1, 2, 0, 3))
    pairs = digits.reshape(3, len(weights), -1, 2, 1, 4).repeat(4, axis=4)
    along = np.ascontiguousarray(pairs.transpose(1, 2, 0, 3, 4, 5))
    return along.reshape(*along.shape[:3], 32), down


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


@dataclass(frozen=True, slots=True)
class _Passes:
    """The two functions of passes.c, in the form that this processor has."""

    across: Any
    down: Any
    vnni: bool = False

    @classmethod
    def of(cls, library: ctypes.CDLL, able: int) -> _Passes:
        """Those for what ``able`` says, 1 or 2."""
        names = ("across_vnni", "down_vnni") if able == 2 else ("across", "down")
        functions = [getattr(library, name) for name in names]
        whole, place = ctypes.c_int64, ctypes.c_void_p
        for function in functions:
            function.argtypes = [place, whole, whole, place, whole, whole, place, place, place, whole]
            function.restype = None
        return cls(functions[0], functions[1], vnni=able == 2)


_lock = Lock()
_found: list[_Passes | str] = []  # the library, or why there is none


def in_use() -> str:
    """What resizes large images here, in words; the library is compiled where it was not yet."""
    library = _library()
    if library is None:
        why = f" ({_found[0]})" if _found else ""
        return f"Pillow {PIL.__version__}{why}"
    return f"a library of nshot's own, by {'AVX-512 VNNI' if library.vnni else 'AVX2'}"


def _library() -> _Passes | None:
    """``passes.c``, compiled and loaded at the first call; None where that cannot be."""
    if not _found and _lock.acquire(blocking=False):  # meanwhile, other threads let Pillow resize
        try:
            if not _found:
                _found.append(_loaded())
                if isinstance(_found[0], str):
                    log.debug("large images are resized by Pillow: %s", _found[0])
        finally:
            _lock.release()
    return _found[0] if _found and not isinstance(_found[0], str) else None


def _loaded() -> _Passes | str:
    """The library; or why Pillow has to resize."""
    if sys.platform == "win32" or platform.machine() not in ("x86_64", "AMD64"):
        return "nshot's own library is for x86-64, on Linux and macOS"
    try:
        source = Path(__file__).with_name("passes.c")
        name = f"passes-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.so"
        path = cache_dir() / "compiled" / name
        if not _whole(path):
            _compile(source, path)
        if not (_trusted(path.parent) and _trusted(path)):
            return f"{path} is not used, since others may write it"
        library = ctypes.CDLL(str(path))
        able = int(library.able())
        passes = _Passes.of(library, able) if able else None
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        return str(error)
    if passes is None:
        return "this processor has no AVX2"
    return passes if _agrees(passes) else "this version of Pillow resizes in another way"


def _agrees(library: _Passes) -> bool:
    """Whether it gives this Pillow's bytes: another version may resize in another way."""
    for number, (width, height, wide, high) in enumerate(_PROBES):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        image, whole, kept = Image.fromarray(noise), (0, 0, width, height), (0, 0, wide, high)
        for resample in _SUPPORTS:
            expected = np.asarray(image.resize((wide, high), Image.Resampling(resample)))
            found = _resized(library, image, (wide, high), resample, whole, kept, 1)
            if not np.array_equal(found, expected):
                return False
    return True


def _whole(path: Path) -> bool:
    """Whether there is a library, as it was written: to load a part of one ends the process."""
    content = path.read_bytes() if path.exists() else b""
    return len(content) > _SUM and hashlib.sha256(content[:-_SUM]).digest() == content[-_SUM:]


def _compile(source: Path, path: Path) -> None:
    """Write the library, with the sum of its bytes behind them, which a loader does not look at."""
    compiler = os.environ.get("NSHOT_COMPILER", "cc")
    found = shutil.which(compiler) if compiler else None
    if found is None:
        raise OSError("there is no C compiler")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        subprocess.run(
            [found, "-O3", "-fPIC", "-shared", "-o", str(temporary), str(source)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
        )
        content = temporary.read_bytes()
        temporary.write_bytes(content + hashlib.sha256(content).digest())
        temporary.chmod(0o755)
        replace(temporary, path)
    except subprocess.CalledProcessError as error:
        raise OSError(f"the C compiler {found} failed: exit status {error.returncode}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _trusted(path: Path) -> bool:
    """Whether nobody but this user and the administrator may change it: it is going to be run."""
    status = path.stat()
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022
