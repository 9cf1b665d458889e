"""Images corrupted on purpose, in eight ways and at five strengths, the same for the same seed.

The families are those of Hendrycks & Dietterich 2019 (Benchmarking Neural Network Robustness to Common
Corruptions), with rotation and occlusion; the strengths are nshot's own but for brightness, whose are
theirs. Every corruption is made at the scale at which the model sees the image, so that a strength means
the same for any camera: noise on twelve megapixels would be gone once they are 224 pixels wide.
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


def as_seen(image: Image.Image, size: int) -> Image.Image:
    """The image with its shorter side brought down to ``size`` pixels; a smaller one as it is."""
    short = min(image.size)
    if short <= size:
        return image
    width, height = (max(1, round(edge * size / short)) for edge in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def corrupt(image: Image.Image, family: str, strength: int, *, size: int = 224, seed: int = 0) -> Image.Image:
    """The image, corrupted.

    Args:
        image: upright RGB.
        family: one of ``FAMILIES``.
        strength: 1 (a person hardly minds) to 5 (a person can still tell, mostly).
        size: pixels of the shorter side as the model sees it; a larger image is brought down to it first.
        seed: of noise, of the place of what is hidden, and of the direction of a turn.

    Returns:
        A new RGB image of the same size, but for what ``size`` says.

    Raises:
        RequestError: another family or strength.
    """
    if family not in FAMILIES or strength not in STRENGTHS:
        raise RequestError(
            f"corruptions are {', '.join(FAMILIES)} at strengths 1 to 5, not {family!r} at {strength}"
        )
    generator = np.random.default_rng([seed, zlib.crc32(family.encode()), strength])
    of = FAMILIES[family]
    return of.act(as_seen(image.convert("RGB"), size), of.values[strength - 1], generator)


def _noise(image: Image.Image, value: float, generator: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    noisy = pixels + generator.normal(0.0, value, pixels.shape)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def _blur(image: Image.Image, value: float, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(value / 100 * min(image.size)))


def _contrast(image: Image.Image, value: float, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(value / 100)


def _brightness(image: Image.Image, value: float, _: np.random.Generator) -> Image.Image:
    """The value of HSV raised, so that colours stay what they are."""
    hue, saturation, light = image.convert("HSV").split()
    brighter = light.point(lambda level: min(255, round(level + value / 100 * 255)))
    return Image.merge("HSV", (hue, saturation, brighter)).convert("RGB")


def _jpeg(image: Image.Image, value: float, _: np.random.Generator) -> Image.Image:
    held = io.BytesIO()
    image.save(held, "JPEG", quality=round(value))
    return Image.open(held).convert("RGB")


def _pixelate(image: Image.Image, value: float, _: np.random.Generator) -> Image.Image:
    share = min(1.0, value / min(image.size))
    small = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def _rotation(image: Image.Image, value: float, generator: np.random.Generator) -> Image.Image:
    """Turned about its centre; what comes into the corners is the image's own reflection."""
    angle = float(value * generator.choice([-1, 1]))
    width, height = image.size
    reach = int(np.ceil(np.hypot(width, height)))
    left, top = (reach - width + 1) // 2, (reach - height + 1) // 2
    pixels = np.pad(np.asarray(image), ((top, top), (left, left), (0, 0)), mode="symmetric")
    turned = Image.fromarray(pixels).rotate(angle, Image.Resampling.BICUBIC)
    return turned.crop((left, top, left + width, top + height))


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
    "brightness": Family(_brightness, "value added, % of the range", (10, 20, 30, 40, 50)),
    "jpeg": Family(_jpeg, "JPEG quality", (25, 15, 10, 6, 3)),
    "pixelation": Family(_pixelate, "pixels left on the shorter side", (96, 64, 48, 32, 24)),
    "rotation": Family(_rotation, "degrees", (10, 20, 35, 60, 90)),
    "occlusion": Family(_occlusion, "area hidden, %", (5, 12, 22, 35, 50)),
}
