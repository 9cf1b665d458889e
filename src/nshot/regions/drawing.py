"""Drawing on images: heat, and boxes with their labels."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from nshot.types import Floats

_STRONGEST = 190  # of 255: how far the hottest place covers the image
_OUTSIDE = 0.45  # how bright what no patch covers is left


def lay_over(image: Image.Image, heat: Floats, box: tuple[float, float, float, float]) -> Image.Image:
    """An RGB image with heat laid over.

    Args:
        image: the image.
        heat: float32[rows, columns] in [0, 1].
        box: where the heat's own edges lie on the image: left, top, right, bottom; may reach beyond it.
    """
    left, top, right, bottom = (round(edge) for edge in box)
    across, down = max(1, right - left), max(1, bottom - top)
    # where the heat lies beyond the image, only the part over it is made: borders may be much larger
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
    if x1 <= x0 or y1 <= y0:
        return image.copy()
    rows, columns = heat.shape
    part = (
        (x0 - left) * columns / across,
        (y0 - top) * rows / down,
        (x1 - left) * columns / across,
        (y1 - top) * rows / down,
    )
    plane = Image.fromarray(np.rint(heat * 255).astype(np.uint8))
    plane = plane.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box=part)
    result = image.point([int(value * _OUTSIDE) for value in range(256)] * 3)
    inside = image.crop((x0, y0, x1, y1))
    colours = plane.copy()
    colours.putpalette(_palette())
    cover = plane.point([value * _STRONGEST // 255 for value in range(256)])
    inside.paste(colours.convert("RGB"), (0, 0), cover)
    result.paste(inside, (x0, y0))
    return result


@cache
def _palette() -> bytes:
    """From dark violet by red and orange to light yellow; brighter is hotter in grey as well."""
    stops = np.array([(20, 10, 70), (120, 20, 110), (220, 50, 60), (250, 140, 30), (255, 245, 150)], float)
    places = np.linspace(0, 1, 256) * (len(stops) - 1)
    channels = [np.interp(places, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(channels, 1).round().astype(np.uint8).tobytes()
