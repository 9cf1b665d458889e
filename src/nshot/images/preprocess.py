"""An image -> the square of pixels that the encoder takes, as the checkpoint's own processor makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from nshot.errors import CheckpointError, RequestError, brief
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

    def __call__(self, image: Image.Image) -> Pixels:
        """One upright RGB image of any size -> uint8[3,size,size], contiguous; safe in several threads."""
        square = (self.size, self.size)
        if self.fit == "squash":
            image = self._resize(image, square)
        elif self.fit == "pad":
            scale = self.size / max(image.size)
            inner = self._resize(image, (_scaled(image.width, scale), _scaled(image.height, scale)))
            image = Image.new("RGB", square, self.fill)
            image.paste(inner, ((self.size - inner.width) // 2, (self.size - inner.height) // 2))
        else:
            image = self._cropped(image)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

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

    def _cropped(self, image: Image.Image) -> Image.Image:
        width, height = self._resized_size(image.size)
        if not self.crop:
            return self._resize(image, (width, height))
        # Rounds down below zero too, and Pillow's crop paints what lies outside of the image black: as
        # the reference does with an image smaller than the crop.
        left, top = (self._start(edge) for edge in (width, height))
        right, bottom = left + self.size, top + self.size
        if self.decode == "exact" and width * height <= _MAX_RESIZED:
            return self._resize(image, (width, height)).crop((left, top, right, bottom))
        # Resize only what is kept, and a margin as wide as the filter reaches.
        # Nearly the same pixels; noise, which makes the filter overshoot, differs most.
        across, down = image.width / width, image.height / height
        x_margin, y_margin = ceil(4 * max(1, 1 / across)), ceil(4 * max(1, 1 / down))
        x0, x1 = max(left - x_margin, 0), min(right + x_margin, width)
        y0, y1 = max(top - y_margin, 0), min(bottom + y_margin, height)
        kept = self._resize(image, (x1 - x0, y1 - y0), (x0 * across, y0 * down, x1 * across, y1 * down))
        return kept.crop((left - x0, top - y0, right - x0, bottom - y0))

    def _start(self, edge: int) -> int:
        return round((edge - self.size) / 2) if self.rounds else (edge - self.size) // 2

    def _resize(
        self,
        image: Image.Image,
        size: tuple[int, int],
        box: tuple[float, float, float, float] | None = None,
    ) -> Image.Image:
        # A gap of 3 shrinks by whole factors first, while three times the size remains.
        gap = 3.0 if self.decode == "fast" else None
        return image.resize(size, Image.Resampling(self.resample), box=box, reducing_gap=gap)


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
