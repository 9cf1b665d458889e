"""Drawing on images: heat, and boxes with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nshot.types import Box, Floats

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


_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000", "#000075")


def draw_boxes(image: Image.Image, boxes: Sequence[Box], labels: Sequence[str] = ()) -> Image.Image:
    """An RGB image with boxes and what they are drawn on it; a label has the same colour in every image.

    Args:
        image: the image, of which the boxes are.
        boxes: what to draw.
        labels: all labels, in the order of their colours.
    """
    result = image.copy()
    pen = ImageDraw.Draw(result)
    width = max(2, round(max(image.size) / 320))
    font = ImageFont.load_default(max(10, round(max(image.size) / 45)))
    order = {label: number for number, label in enumerate(labels)}
    for each in reversed(boxes):  # the best is on top
        colour = _COLOURS[order.get(each.label, len(order)) % len(_COLOURS)]
        x, y, across, down = each.box
        pen.rectangle((x, y, max(x, x + across - 1), max(y, y + down - 1)), outline=colour, width=width)
        words = f"{each.label} {each.score:.2f}".encode("latin-1", "replace").decode("latin-1")
        left, _, right, bottom = pen.textbbox((0, 0), words, font=font)
        high, wide = bottom + 3, right - left + 6
        corner = y - high if y >= high else y
        pen.rectangle((x, corner, x + wide, corner + high), fill=colour)
        pen.text((x + 3, corner + 1), words, fill="white", font=font)
    return result


@cache
def _palette() -> bytes:
    """From dark violet by red and orange to light yellow; brighter is hotter in grey as well."""
    stops = np.array([(20, 10, 70), (120, 20, 110), (220, 50, 60), (250, 140, 30), (255, 245, 150)], float)
    places = np.linspace(0, 1, 256) * (len(stops) - 1)
    channels = [np.interp(places, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(channels, 1).round().astype(np.uint8).tobytes()


def scaled_to(boxes: Sequence[Box], across: float, down: float) -> tuple[Box, ...]:
    """Boxes on an image that was scaled by so much."""
    return tuple(
        Box(each.label, each.score, (x * across, y * down, width * across, height * down))
        for each in boxes
        for x, y, width, height in [each.box]
    )
