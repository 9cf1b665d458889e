"""Where tiles lie on an image, and what they look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nshot.images.preprocess import Preprocessor
from nshot.images.windows import Bands
from nshot.types import Pixels

Places = NDArray[np.float64]
"""float64[n, 4]: x, y, width and height of tiles, in pixels of the upright image; the first is all of it."""

_LEAST = 16  # pixels of a tile's side
_FINE = 2.0  # a band keeps so many times the pixels that the model takes, per tile


@dataclass(frozen=True, slots=True)
class Grid:
    """Square tiles at several scales, each overlapping its neighbours, and the whole image.

    Attributes:
        levels: scales: tiles as wide as the shorter edge, a half of it, a quarter ...
        overlap: share of a tile's side that it shares with the next one, in [0, 1).
    """

    levels: int = 3
    overlap: float = 0.5

    def places(self, size: tuple[int, int]) -> Places:
        """The tiles of an image of this size (width, height)."""
        width, height = size
        tiles = [(0.0, 0.0, float(width), float(height))]
        for level in range(self.levels):
            side = min(width, height) / 2**level
            if (level == 0 and width == height) or (level > 0 and side < _LEAST):
                continue
            tiles += [(x, y, side, side) for y in self._along(height, side) for x in self._along(width, side)]
        return np.array(tiles)

    def _along(self, edge: int, side: float) -> list[float]:
        count = ceil((edge - side) / (side * (1 - self.overlap)) - 1e-9) + 1
        return [float(start) for start in np.linspace(0, edge - side, count)]

    def least(self, size: int) -> float:
        """The shorter edge that an image must have for its smallest tiles to fill a model's square."""
        return float(size * 2 ** (self.levels - 1))


@dataclass(frozen=True, slots=True)
class Tiles:
    """Makes the tiles of an image, each as the encoder takes it: uint8[n,3,s,s]."""

    preprocessor: Preprocessor
    grid: Grid

    @property
    def draft(self) -> int | None:
        """None: small tiles need all pixels."""
        return None

    def notes(self, size: tuple[int, int]) -> tuple[str, ...]:
        """Nothing: no tile leaves much of itself out, and together they leave out nothing."""
        return ()

    def __call__(self, image: Image.Image) -> Pixels:
        """The tiles in the order of ``Grid.places``."""
        tiles = [_cut(image, place) for place in self.grid.places(image.size)]
        return np.stack([self.preprocessor(tile) for tile in tiles])


def _cut(image: Image.Image, place: NDArray[np.float64]) -> Image.Image:
    x, y, width, height = place
    box = round(x), round(y), max(round(x + width), round(x) + 1), max(round(y + height), round(y) + 1)
    return image if box == (0, 0, *image.size) else image.crop(box)


def from_bands(bands: Bands, places: Places, preprocessor: Preprocessor) -> Iterator[tuple[int, Pixels]]:
    """The tiles of a large image, each with its number, as soon as enough of the image has been read.

    No more of the image is held than the rows that unfinished tiles need, shrunk to about twice the model's
    size per tile.

    Raises:
        UndecodableImage: the image is damaged.
    """
    scaled = places * bands.scale
    heights = np.unique(scaled[:, 3])
    levels = [
        _Level(np.flatnonzero(scaled[:, 3] == tall), scaled, int(tall // (_FINE * preprocessor.size)) or 1)
        for tall in heights
    ]
    for band in bands.read():
        for level in levels:
            for number, tile in level.add(band):
                yield number, preprocessor(tile)
    for level in levels:
        for number, tile in level.end():
            yield number, preprocessor(tile)


class _Level:
    """Tiles of one height, cut out of rows as they come.

    Args:
        numbers: which tiles.
        places: of all tiles, in the bands' pixels.
        shrink: by what the rows are shrunk.
    """

    def __init__(self, numbers: NDArray[np.intp], places: Places, shrink: int) -> None:
        order = np.argsort(places[numbers, 1] + places[numbers, 3], kind="stable")
        self._waiting = numbers[order].tolist()
        self._places = places
        self._shrink = shrink
        self._raw: Image.Image | None = None  # rows that do not fill a group of ``shrink`` yet
        self._rows: list[Image.Image] = []
        self._top = 0  # of what is held, in shrunk rows

    def add(self, band: Image.Image) -> Iterator[tuple[int, Image.Image]]:
        if not self._waiting:
            return
        if self._raw is not None:
            band = _under(self._raw, band)
        whole = band.height // self._shrink * self._shrink
        self._raw = band.crop((0, whole, band.width, band.height)) if whole < band.height else None
        if whole:
            rows = band if whole == band.height else band.crop((0, 0, band.width, whole))
            self._rows.append(rows.reduce(self._shrink) if self._shrink > 1 else rows)
        yield from self._ready(self._top + sum(part.height for part in self._rows))

    def end(self) -> Iterator[tuple[int, Image.Image]]:
        if self._raw is not None:
            self._rows.append(self._raw.reduce(self._shrink) if self._shrink > 1 else self._raw)
        yield from self._ready(None)

    def _ready(self, bottom: int | None) -> Iterator[tuple[int, Image.Image]]:
        """The tiles that end above this row; None: all that wait."""
        ready = []
        while self._waiting:
            _, y, _, tall = self._places[self._waiting[0]] / self._shrink
            if bottom is not None and round(y + tall) > bottom:
                break
            ready.append(self._waiting.pop(0))
        if not ready:
            return
        held = self._rows[0] if len(self._rows) == 1 else _under(*self._rows)
        for number in ready:
            place = self._places[number] / self._shrink
            place[1] -= self._top
            x, y = (min(float(start), edge - 1.0) for start, edge in zip(place[:2], held.size, strict=True))
            wide, tall = (
                min(float(e), edge - s) for e, edge, s in zip(place[2:], held.size, (x, y), strict=True)
            )
            yield number, _cut(held, np.array([x, y, wide, tall]))
        first = min((self._places[number][1] for number in self._waiting), default=np.inf) / self._shrink
        if first == np.inf:
            self._rows, self._raw = [], None
            return
        drop = max(0, min(int(first) - self._top, held.height))
        self._rows = [held.crop((0, drop, held.width, held.height))] if drop < held.height else []
        self._top += drop


def _under(*parts: Image.Image) -> Image.Image:
    whole = Image.new("RGB", (parts[0].width, sum(part.height for part in parts)))
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole
