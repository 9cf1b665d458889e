"""Images made worse on purpose, in eight ways and at five strengths, the same for the same seed.

The families are those of Hendrycks & Dietterich 2019 (Benchmarking Neural Network Robustness to Common
Corruptions), with rotation and occlusion; the strengths are nshot's own, relative to an image's size, so
that figures compare with each other and not with ImageNet-C's.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from nshot.errors import RequestError

STRENGTHS = (1, 2, 3, 4, 5)

_Corruption = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def corrupt(image: Image.Image, family: str, strength: int, *, seed: int = 0) -> Image.Image:
    """The image, made worse.

    Args:
        image: upright RGB.
        family: one of ``FAMILIES``.
        strength: 1 (a person hardly minds) to 5 (a person can still tell, mostly).
        seed: of noise, of the place of what is hidden, and of the direction of a turn.

    Returns:
        A new RGB image of the same size.

    Raises:
        RequestError: another family or strength.
    """
    if family not in FAMILIES or strength not in STRENGTHS:
        raise RequestError(
            f"corruptions are {', '.join(FAMILIES)} at strengths 1 to 5, not {family!r} at {strength}"
        )
    generator = np.random.default_rng([seed, zlib.crc32(family.encode()), strength])
    of = FAMILIES[family]
    return of.act(image.convert("RGB"), of.values[strength - 1], generator)


def _noise(image: Image.Image, value: float, generator: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    noisy = pixels + generator.normal(0.0, value, pixels.shape)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def _blur(image: Image.Image, value: float, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(value / 100 * min(image.size)))


def _contrast(image: Image.Image, value: float, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(value / 100)


def _brightness(image: Image.Image, value: float, _: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64) + value
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _jpeg(image: Image.Image, value: float, _: np.random.Generator) -> Image.Image:
    held = io.BytesIO()
    image.save(held, "JPEG", quality=round(value))
    return Image.open(held).convert("RGB")


def _pixelate(image: Image.Image, value: float, _: np.random.Generator) -> Image.Image:
    share = min(1.0, value / min(image.size))
    small = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def _rotation(image: Image.Image, value: float, generator: np.random.Generator) -> Image.Image:
    angle = value * generator.choice([-1, 1])
    return image.rotate(float(angle), Image.Resampling.BICUBIC, fillcolor=(127, 127, 127))


def _occlusion(image: Image.Image, value: float, generator: np.random.Generator) -> Image.Image:
    """A grey square over a share of the image."""
    share = (value / 100) ** 0.5
    width, height = round(image.width * share), round(image.height * share)
    left = int(generator.integers(0, image.width - width + 1))
    top = int(generator.integers(0, image.height - height + 1))
    hidden = image.copy()
    hidden.paste((127, 127, 127), (left, top, left + width, top + height))
    return hidden


@dataclass(frozen=True, slots=True)
class Family:
    """A way to make images worse.

    Attributes:
        act: what it does to an image.
        measure: what its strengths are measured in.
        values: the value at each strength.
    """

    act: _Corruption
    measure: str
    values: tuple[float, ...]


FAMILIES: dict[str, Family] = {
    "noise": Family(_noise, "standard deviation, of 255 levels", (10, 20, 35, 55, 80)),
    "blur": Family(_blur, "radius, % of the shorter side", (0.4, 0.8, 1.4, 2.2, 3.2)),
    "contrast": Family(_contrast, "contrast left, %", (60, 45, 30, 20, 12)),
    "brightness": Family(_brightness, "levels added, of 255", (40, 70, 100, 130, 160)),
    "jpeg": Family(_jpeg, "JPEG quality", (25, 15, 10, 6, 3)),
    "pixelation": Family(_pixelate, "pixels left on the shorter side", (96, 64, 48, 32, 24)),
    "rotation": Family(_rotation, "degrees", (10, 20, 35, 60, 90)),
    "occlusion": Family(_occlusion, "area hidden, %", (5, 12, 22, 35, 50)),
}
