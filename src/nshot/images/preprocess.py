"""An image -> the square of pixels that the encoder takes, as the checkpoint's own processor makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nshot.errors import CheckpointError, RequestError, brief
from nshot.images.decode import upright
from nshot.images.resample import Box, Region, resized
from nshot.types import Pixels

Decode: TypeAlias = Literal["exact", "fast"]
Fit: TypeAlias = Literal["own", "crop", "pad", "squash"]

# Part of every fingerprint: raise it with any change here or in decode.py that changes a pixel.
# 2: profiles, 10 to 14 bits in 16, white-is-zero, alpha that is zero everywhere, blank first pages. Images
# without such a thing have the pixels of version 1, so vectors kept under it are good for them.
_VERSION = 2
_EARLIER = 1

_LITTLE = 0.5  # a crop that leaves less of an image than this is worth a note

# CLIP's own, for a checkpoint whose preprocessor config leaves them out.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_SIZE = 224
_BICUBIC = 3

# `exact` resizes the whole image and then crops, as the reference does. A strip of 65500 x 1 pixels would
# become one of 14,672,000 x 224 on the way; above this many pixels only the part that is kept gets resized.
_MAX_RESIZED = 2**25

# `fast` shrinks by whole factors first, while so many times the size remain.
_GAP = 3.0


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Resizes and fits images; values are not normalised (mean and deviation are the encoder's matter).

    Attributes:
        size: the edge s of the square result, in pixels.
        edge: what the image is resized to before it is cropped: an int for the shorter edge, (height,
            width) for both, None for no resizing.
        crop: whether the middle square is cut out after resizing; a smaller image gets black borders.
        resample: Pillow's number of the filter, 0 to 5.
        decode: "exact" is bit for bit what transformers' PIL processor gives; "fast" lets the decoder and the
            resizer shrink big images coarsely first, to no less than twice the size.
        fit: "crop" follows `edge` and `crop`; "pad" keeps the whole image, with borders in `fill`; "squash"
            keeps all of it and changes its proportions.
        fill: the RGB colour of `pad`'s borders: the checkpoint's mean, which the encoder sees as zeros.
        rounds: whether the crop begins at half a pixel rounded to even, as torchvision has it, and not at the
            pixel before, as transformers has it.
    """

    size: int
    edge: int | tuple[int, int] | None
    crop: bool
    resample: int
    decode: Decode
    fit: Fit
    fill: tuple[int, int, int]
    rounds: bool = False

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        decode: Decode = "exact",
        fit: Fit = "own",
        size: int | None = None,
    ) -> Preprocessor:
        """Read a checkpoint's preprocessor_config.json, in its old form (integers) or new (dictionaries).

        Args:
            config: the file's content; what it leaves out is as in CLIP.
            decode: "exact" or "fast".
            fit: "own" is the checkpoint's way, which most do by "crop" and SigLIP by "squash"; or one of
                "crop" (the middle), "pad" (all of it, with borders) and "squash" (all of it, squeezed).
            size: the model's own image size, for a config that does not say.

        Raises:
            CheckpointError: the config asks for something else than a square of fixed size.
            RequestError: an unknown decode or fit.
        """
        if decode not in ("exact", "fast"):
            raise RequestError(f"decode {decode!r} is unknown: choose exact or fast")
        if fit not in ("own", "crop", "pad", "squash"):
            raise RequestError(f"fit {fit!r} is unknown: choose own, crop, pad or squash")
        try:
            return cls._read(config, decode, fit, size or _SIZE)
        except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise CheckpointError(f"the preprocessor config makes no sense: {brief(error)}") from error

    @classmethod
    def _read(cls, config: Mapping[str, Any], decode: Decode, fit: Fit, fallback: int) -> Preprocessor:
        crop = bool(_given(config, "do_center_crop", True))
        edge = _edge(_given(config, "size", fallback)) if _given(config, "do_resize", True) else None
        target = _both(_given(config, "crop_size", fallback)) if crop else edge
        if not isinstance(target, tuple) or target[0] != target[1]:
            raise CheckpointError(
                "the preprocessor config does not give squares of one size "
                f"(size {config.get('size')}, crop_size {config.get('crop_size')}): CLIP models need that"
            )
        resample = _given(config, "resample", _BICUBIC)
        if resample not in range(6):
            raise CheckpointError(f"the preprocessor config's resample is {resample!r}, not 0 to 5")
        fill = [round(float(channel) * 255) for channel in _given(config, "image_mean", _MEAN)]
        if fit == "own":
            fit = "pad" if "pad_color" in config else "crop"
            fill = config.get("pad_color", fill)
        elif fit == "crop" and not crop:
            edge, crop = target[0], True
        red, green, blue = fill
        rounds = bool(config.get("crop_rounds"))
        return cls(target[0], edge, crop, int(resample), decode, fit, (red, green, blue), rounds)

    @property
    def draft(self) -> int | None:
        """What to hand to images.decode: the shorter edge below which the decoder must not shrink, or None.

        Twice the size is enough for cosines of 0.9999; at once the size they fall to 0.999.
        """
        if self.decode == "exact" or (self.edge is None and self.fit == "crop"):
            return None
        return 2 * max(self._edges())

    @property
    def fingerprint(self) -> str:
        """Changes with everything here that can change a pixel."""
        return self._fingerprint(_VERSION)

    @property
    def earlier(self) -> str:
        """The fingerprint of the version before: good for images that are not ``Decoded.changed``."""
        return self._fingerprint(_EARLIER)

    def notes(self, size: tuple[int, int]) -> tuple[str, ...]:
        """What to say of how an image of this size (width, height) becomes square."""
        if self.fit != "crop" or not self.crop or isinstance(self.edge, tuple):
            return ()
        share = min(size) / max(size) if self.edge is not None else self.size**2 / (size[0] * size[1])
        if share >= _LITTLE:
            return ()
        return (f"the square crop leaves less than half: {share:.0%} of the image; --fit pad keeps all",)

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Which part of an image of this size (width, height) becomes the square.

        Returns:
            Left, top, right and bottom in the image's own pixels; beyond its edges where there are borders.
        """
        width, height = size
        if self.fit == "squash":
            return 0.0, 0.0, float(width), float(height)
        if self.fit == "pad":
            scale = self.size / max(width, height)
            resized = _scaled(width, scale), _scaled(height, scale)
            left, top = (-((self.size - edge) // 2) for edge in resized)
        else:
            resized = self._resized_size(size)
            left, top = (self._start(edge) if self.crop else 0 for edge in resized)
        across, down = width / resized[0], height / resized[1]
        return left * across, top * down, (left + self.size) * across, (top + self.size) * down

    def _fingerprint(self, version: int) -> str:
        edge = "x".join(map(str, self.edge)) if isinstance(self.edge, tuple) else self.edge
        parts = (
            f"{self.decode};{self.fit};size={self.size};edge={edge};crop={self.crop};resample={self.resample}"
        )
        if self.fit == "pad":
            parts += ";fill=" + ",".join(map(str, self.fill))
        if self.fit == "crop" and self.crop and self.rounds:
            parts += ";rounds"
        return f"v{version};{parts}"

    def __call__(self, image: Image.Image, turn: int = 1) -> Pixels:
        """One RGB image of any size -> uint8[3,size,size], contiguous; safe in several threads.

        Args:
            image: as it is in the file.
            turn: the EXIF orientation, 1 to 8, that makes it upright.
        """
        size = image.size[::-1] if turn >= 5 else image.size
        if self.fit == "squash":
            left, top, fill = 0, 0, (0, 0, 0)
            inner = self._resized(image, turn, (self.size, self.size))
        elif self.fit == "pad":
            scale = self.size / max(size)
            inner = self._resized(image, turn, (_scaled(size[0], scale), _scaled(size[1], scale)))
            left, top, fill = (self.size - inner.shape[1]) // 2, (self.size - inner.shape[0]) // 2, self.fill
        else:
            inner, left, top = self._cropped(image, turn, size)
            fill = 0, 0, 0  # what the reference shows beyond the edges of an image smaller than the crop
        pixels = np.empty((3, self.size, self.size), np.uint8)
        pixels[:] = np.array(fill, np.uint8)[:, None, None]
        pixels[:, top : top + inner.shape[0], left : left + inner.shape[1]] = inner.transpose(2, 0, 1)
        return pixels

    def _edges(self) -> tuple[int, int]:
        if self.fit != "crop" or self.edge is None:
            return self.size, self.size
        return self.edge if isinstance(self.edge, tuple) else (self.edge, self.edge)

    def _resized_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) before cropping; the longer edge is cut to whole pixels as the reference does."""
        width, height = size
        if self.edge is None:
            return width, height
        if isinstance(self.edge, tuple):
            return self.edge[1], self.edge[0]
        if width <= height:
            return self.edge, int(self.edge * height / width)
        return int(self.edge * width / height), self.edge

    def _cropped(
        self, image: Image.Image, turn: int, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], int, int]:
        """What is kept of the resized image, and where in the square it begins."""
        width, height = self._resized_size(size)
        if not self.crop:
            return self._resized(image, turn, (width, height)), 0, 0
        # rounds down below zero too, as the reference does
        left, top = (self._start(edge) for edge in (width, height))
        x0, y0, x1, y1 = (
            *(max(left, 0), max(top, 0)),
            *(min(left + self.size, width), min(top + self.size, height)),
        )
        if self.decode == "exact" and width * height <= _MAX_RESIZED:
            return self._resized(image, turn, (width, height), keep=(x0, y0, x1, y1)), x0 - left, y0 - top
        # Resize only what is kept, and a margin as wide as the filter reaches.
        # Nearly the same pixels; noise, which makes the filter overshoot, differs most.
        across, down = size[0] / width, size[1] / height
        x_margin, y_margin = ceil(4 * max(1, 1 / across)), ceil(4 * max(1, 1 / down))
        over_x, over_y = max(x0 - x_margin, 0), max(y0 - y_margin, 0)
        wide, high = min(x1 + x_margin, width) - over_x, min(y1 + y_margin, height) - over_y
        box = (over_x * across, over_y * down, (over_x + wide) * across, (over_y + high) * down)
        keep = (x0 - over_x, y0 - over_y, x1 - over_x, y1 - over_y)
        return self._resized(image, turn, (wide, high), box, keep), x0 - left, y0 - top

    def _start(self, edge: int) -> int:
        return round((edge - self.size) / 2) if self.rounds else (edge - self.size) // 2

    def _resized(
        self,
        image: Image.Image,
        turn: int,
        size: tuple[int, int],
        box: Box | None = None,
        keep: Region | None = None,
    ) -> NDArray[np.uint8]:
        """The upright image, or a box of it, in that size; of the result what is kept, uint8[h,w,3]."""
        keep = keep or (0, 0, *size)
        whole = image.size[::-1] if turn >= 5 else image.size
        wide, high = (box[2] - box[0], box[3] - box[1]) if box else whole
        if self.decode == "exact" or (int(wide / size[0] / _GAP) <= 1 and int(high / size[1] / _GAP) <= 1):
            found = resized(image, size, self.resample, box or (0, 0, *whole), keep, turn)
            if found is not None:
                return found
        gap = _GAP if self.decode == "fast" else None
        image = upright(image, turn)
        image = image.resize(size, Image.Resampling(self.resample), box=box, reducing_gap=gap)
        return np.asarray(image.crop(keep))


def _given(config: Mapping[str, Any], key: str, default: Any) -> Any:
    value = config.get(key)
    return default if value is None else value


def _scaled(edge: int, scale: float) -> int:
    return max(1, round(edge * scale))


def _edge(value: Any) -> int | tuple[int, int]:
    """The config's size: a number or shortest_edge -> int; height and width -> (height, width)."""
    if isinstance(value, Mapping) and value.keys() == {"shortest_edge"}:
        value = value["shortest_edge"]
    if isinstance(value, int) and value > 0:
        return value
    return _both(value)


def _both(value: Any) -> tuple[int, int]:
    """The config's crop size: a number, a pair, or height and width -> (height, width)."""
    match value:
        case {"height": int(height), "width": int(width)} | [int(height), int(width)] if (
            min(height, width) > 0
        ):
            return height, width
        case int() if value > 0:
            return value, value
    raise CheckpointError(f"the preprocessor config has a size that nshot does not know: {value!r}")
