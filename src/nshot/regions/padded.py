"""An image as OWLv2 takes it: padded to a square with black, resized as scikit-image does, normalised.

The order and the numbers are those of transformers' processor for Pillow images: scale to [0, 1], pad below
and on the right with 0, blur by a Gaussian where the image shrinks, interpolate, clip to the image's range,
normalise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nshot.types import Floats, Pixels

_REACH = 4.0  # standard deviations at which the Gaussian is cut off

Taps = tuple[NDArray[np.intp], Floats]
"""For each place of the result, the places that it is made of, and their weights: [size, taps] each."""


@dataclass(frozen=True, slots=True)
class Padded:
    """Makes the square that a detector takes.

    Attributes:
        size: its side, in pixels.
        mean: of each channel.
        std: likewise.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def draft(self) -> int | None:
        """None: all pixels count."""
        return None

    def notes(self, size: tuple[int, int]) -> tuple[str, ...]:
        """Nothing: all of the image is seen."""
        return ()

    def __call__(self, image: Image.Image) -> Pixels:
        """One upright RGB image -> the bytes of float32[3,size,size]; see ``values``."""
        return np.ascontiguousarray(self.normalised(image)).reshape(-1).view(np.uint8)

    def values(self, made: Pixels) -> Floats:
        """The float32[3,size,size] out of the bytes."""
        found: Floats = np.ascontiguousarray(made).view(np.float32).reshape(3, self.size, self.size)
        return found

    def normalised(self, image: Image.Image) -> Floats:
        """One upright RGB image of any size -> float32[3,size,size]."""
        pixels = np.asarray(image)
        height, width = pixels.shape[:2]
        side = max(height, width)
        rows = _along(pixels, taps(height, side, self.size))
        square = _along(rows.transpose(1, 0, 2), taps(width, side, self.size)).transpose(2, 1, 0)
        square *= np.float32(1 / 255)
        least, most = pixels.min() / 255, pixels.max() / 255
        if height != width:
            least = min(least, 0)
        np.clip(square, np.float32(least), np.float32(most), out=square)
        mean, std = (np.array(each, np.float32).reshape(3, 1, 1) for each in (self.mean, self.std))
        result: Floats = (square - mean) / std
        return result


def taps(length: int, padded: int, size: int) -> Taps:
    """Blurring, then linear interpolation, of ``length`` values padded with zeros, in one step.

    Places are those of areas, not of points: the middle of the first value is at 0.5. Beyond its ends the
    padded row is mirrored about its first and last value.
    """
    factor = padded / size
    sigma = max(0.0, (factor - 1) / 2)
    radius = int(_REACH * sigma + 0.5)
    blur = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2) if radius else np.ones(1)
    blur /= blur.sum()
    middle = (np.arange(size) + 0.5) * factor - 0.5
    first = np.floor(middle).astype(np.intp)
    share = middle - first
    places = first[:, None] + np.arange(-radius, radius + 2)
    weights = np.zeros((size, len(blur) + 1))
    weights[:, :-1] += (1 - share)[:, None] * blur
    weights[:, 1:] += share[:, None] * blur
    places = _mirrored(places, padded)
    weights[places >= length] = 0
    return np.minimum(places, length - 1), weights.astype(np.float32)


def _mirrored(places: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    if length == 1:
        return np.zeros_like(places)
    places = np.abs(places) % (2 * length - 2)
    return np.minimum(places, 2 * length - 2 - places)


def _along(values: NDArray[np.float32] | Pixels, by: Taps) -> Floats:
    """[n, m, c] along its first axis -> float32[size, m, c], without more than one copy of the result."""
    places, weights = by
    result = np.zeros((len(places), *values.shape[1:]), np.float32)
    for tap in range(places.shape[1]):
        if weights[:, tap].any():
            result += weights[:, tap, None, None] * values[places[:, tap]]
    return result
