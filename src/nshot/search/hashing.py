"""Whether two images are one picture: a hash of 16 x 16 frequencies, and copies made to measure it with.

    image -> grey 96 x 96 -> it and 32 crops of it -> 16 x 16 lowest frequencies -> bits: over the median?

Two images are as alike as the larger share of equal bits between one's whole and any crop of the other: so a
picture is known after it was resized, recompressed, converted, brightened, made grey, or cropped by up to a
tenth. (DCT hashes: Zauner 2010; 64 bits as usually taken tell too few pictures apart.)
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product as grid

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nshot.images.prepare import load
from nshot.types import DEFAULT_LIMITS, Floats, Limits

Bits = NDArray[np.uint8]

FREQUENCIES = 16
BITS = FREQUENCIES**2

_SIDE = 96  # of the grey image that is hashed
_SAMPLED = 48  # points per axis of a crop
_CROPS = (0.05, 0.10)  # shares cut off of each axis
_STEPS = 4  # places of a crop per axis
_SHARP_SIDE = 256  # sharpness is compared at one size
_PLAIN = 1.0  # grey levels of deviation under which an image is too plain to be told from others
_TINTS = 4  # colour is compared in so many squares per axis
_TINT_APART = 10.0  # levels of chroma, on average, from which two images are differently coloured
_GREY = 4.0  # largest chroma of an image without colour
_DRAFT = 512  # a large JPEG is decoded no larger than this takes

_COUNT = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What one decoded image is compared by.

    Attributes:
        bits: uint8[crops + 1, 32], a hash of the whole and of each crop, packed.
        mirrored: uint8[32], of the whole, mirrored: what a different picture of the same kind looks like.
        tints: float32[32], mean chroma in 4 x 4 squares.
        pixels: width times height.
        sharpness: variance of the Laplacian at one size.
        lossless: whether the format keeps every pixel.
        bytes: of the encoded image.
        plain: whether there is nothing in it to compare.
    """

    bits: Bits
    mirrored: Bits
    tints: Floats
    pixels: int
    sharpness: float
    lossless: bool
    bytes: int
    plain: bool

    @property
    def coloured(self) -> bool:
        """Whether there is any colour in it."""
        return bool(np.abs(self.tints).max() >= _GREY)

    @property
    def quality(self) -> tuple[float, ...]:
        """The larger, the better to keep: colour, then pixels, then sharpness, then format, then bytes."""
        return (self.coloured, self.pixels, round(self.sharpness, 1), self.lossless, self.bytes)


def look_at(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Decode an image and take down what it is compared by.

    Raises:
        ImageError: it cannot be decoded.
    """
    decoded = load(data, limits, draft=_DRAFT)
    pixels = decoded.size[0] * decoded.size[1]
    lossless = data[:4] in (b"\x89PNG", b"II*\x00", b"MM\x00*") or data[:2] == b"BM"
    return picture(decoded.image, pixels=pixels, lossless=lossless, size=len(data))


def picture(
    image: Image.Image, *, pixels: int | None = None, lossless: bool = True, size: int = 0
) -> Picture:
    """What a decoded image is compared by.

    Args:
        image: mode RGB.
        pixels: those of the file, where the image is smaller.
        lossless: whether the file keeps every pixel.
        size: bytes of the file.
    """
    grey = image.convert("L")
    large = np.asarray(grey.resize((_SHARP_SIDE, _SHARP_SIDE), Image.Resampling.BICUBIC), np.float32)
    inner = large[1:-1, 1:-1]
    laplacian = large[:-2, 1:-1] + large[2:, 1:-1] + large[1:-1, :-2] + large[1:-1, 2:] - 4 * inner
    side = (_SIDE, _SIDE)
    shrinks = min(image.size) > 2 * _SIDE
    how = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    small = np.asarray(grey.resize(side, how), np.float32)
    chroma = np.asarray(image.convert("YCbCr").resize((_TINTS, _TINTS), Image.Resampling.BOX), np.float32)[
        ..., 1:
    ]
    return Picture(
        bits=_hashes(small, _boxes()),
        mirrored=_hashes(small[:, ::-1], _boxes()[:1])[0],
        tints=chroma.reshape(-1) - 128,
        pixels=image.width * image.height if pixels is None else pixels,
        sharpness=float(laplacian.var()),
        lossless=lossless,
        bytes=size,
        plain=float(small.std()) < _PLAIN,
    )


def equal_bits(first: Bits, second: Bits) -> Floats:
    """Share of equal bits of pairs, the best over crops of either: 2 x uint8[p, crops, 32] -> float32[p]."""
    return np.maximum(_best(first, second[:, 0]), _best(second, first[:, 0]))


def decoy_bits(first: Bits, mirrored_first: Bits, second: Bits, mirrored_second: Bits) -> Floats:
    """The same with one of the two mirrored: as alike as different pictures are, and never the same one."""
    return np.maximum(_best(first, mirrored_second), _best(second, mirrored_first))


def alike_in_colour(first: Floats, second: Floats) -> NDArray[np.bool_]:
    """Whether the colours of pairs agree, or one of the two has none: float32[p, 32] twice -> bool[p]."""
    agree = np.abs(first - second).mean(axis=1) < _TINT_APART
    grey = np.minimum(np.abs(first).max(axis=1), np.abs(second).max(axis=1)) < _GREY
    return np.asarray(agree | grey)


def make_copies(image: Image.Image, rng: np.random.Generator) -> Iterator[tuple[str, Image.Image]]:
    """Copies as they come about: of each kind one."""
    for name, change in _KINDS.items():
        yield name, change(image, rng)


def _smaller(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)


def _encoded(image: Image.Image, format: str, quality: int) -> Image.Image:
    held = io.BytesIO()
    image.save(held, format, quality=quality)
    return Image.open(io.BytesIO(held.getvalue())).convert("RGB")


def _cropped(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    left, above = rng.uniform(0, share, 2)
    width, height = image.size
    box = (left * width, above * height, (1 - share + left) * width, (1 - share + above) * height)
    whole = tuple(round(edge) for edge in box)
    if whole[2] <= whole[0] or whole[3] <= whole[1]:
        return image
    return image.crop(whole)


def _brighter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.point(lambda value: min(255, round(value * 1.15)))


_KINDS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "half the size": _smaller,
    "JPEG of quality 40": lambda image, rng: _encoded(image, "JPEG", 40),
    "WebP of quality 60": lambda image, rng: _encoded(image, "WEBP", 60),
    "cropped by 5 %": lambda image, rng: _cropped(image, 0.05, rng),
    "cropped by 5 %, half the size, JPEG of quality 70": lambda image, rng: _encoded(
        _smaller(_cropped(image, 0.05, rng), rng), "JPEG", 70
    ),
    "brighter": _brighter,
}


# The hash


@lru_cache
def _boxes() -> tuple[tuple[float, float, float, float], ...]:
    """The whole and its crops: left, top, right, bottom as shares."""
    boxes = [(0.0, 0.0, 1.0, 1.0)]
    for share in _CROPS:
        for left, above in grid(np.linspace(0, share, _STEPS).tolist(), repeat=2):
            boxes.append((left, above, 1 - share + left, 1 - share + above))
    return tuple(boxes)


@lru_cache(maxsize=64)
def _basis(low: float, high: float) -> Floats:
    """From the points of a part of an axis to its lowest frequencies: float32[16, 96]."""
    points = np.arange(_SAMPLED)
    at = np.clip((low + (high - low) * (points + 0.5) / _SAMPLED) * _SIDE - 0.5, 0, _SIDE - 1)
    before = np.minimum(at.astype(int), _SIDE - 2)
    sampling = np.zeros((_SAMPLED, _SIDE))
    sampling[points, before] += 1 - (at - before)
    sampling[points, before + 1] += at - before
    frequency = np.arange(FREQUENCIES)[:, None]
    cosines = np.cos(np.pi * frequency * (2 * points + 1) / (2 * _SAMPLED))
    basis: Floats = (cosines @ sampling).astype(np.float32)
    return basis


def _hashes(grey: Floats, boxes: tuple[tuple[float, float, float, float], ...]) -> Bits:
    made = np.stack(
        [_basis(above, below) @ grey @ _basis(left, right).T for left, above, right, below in boxes]
    ).reshape(len(boxes), BITS)
    made[:, 0] = 0  # brightness
    return np.packbits(made > np.median(made, axis=1, keepdims=True), axis=1)


def _best(crops: Bits, whole: Bits) -> Floats:
    """Share of equal bits of a whole with the likeliest crop: uint8[p, c, 32], uint8[p, 32] -> float32[p]."""
    different = _COUNT[crops ^ whole[:, None]].sum(axis=2, dtype=np.int32).min(axis=1)
    equal: Floats = (1 - different / BITS).astype(np.float32)
    return equal
