"""Bytes -> the pixels that an encoder takes, or an image, within the run's memory and the image's time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nshot.errors import UndecodableImage
from nshot.images import apart
from nshot.images.budget import Budget, too_large
from nshot.images.cost import cost
from nshot.images.decode import Decoded, decode, opened, upright
from nshot.images.preprocess import Preprocessor
from nshot.types import DEFAULT_LIMITS, Limits, Pixels

_OWN = 0.9  # of an image's time: the rest is for sending it to another process, and for what follows
_LEAST = 2**25  # bytes for a process that decodes a modest image: its heap grows by more than the image
_WANT = "decoder error -9"  # as Pillow says that there was no memory


class Maker(Protocol):
    """What makes bytes of an image: the square that an encoder takes, or other views. It can be pickled."""

    @property
    def draft(self) -> int | None:
        """As for ``nshot.images.decode``."""

    def notes(self, size: tuple[int, int]) -> tuple[str, ...]:
        """What to say of how an image of this size (width, height) is fitted."""

    def __call__(self, image: Image.Image) -> Pixels:
        """One upright RGB image -> an array of any shape; safe in several threads."""


class Small(NamedTuple):
    """A small image that is made of the same decoded pixels as the square, to be looked at.

    Attributes:
        side: it fits into a square of so many pixels.
        least: pixels of an image from which on it is made; a smaller image is soon decoded again.
    """

    side: int
    least: int = 0


class Prepared(NamedTuple):
    """What became of one image.

    Attributes:
        pixels: what the maker made: a preprocessor uint8[3,s,s].
        notes: what a person should know of how it was decoded and fitted.
        changed: see ``nshot.images.decode.Decoded``.
        size: width and height of the upright image, in pixels, whatever the decoder shrank it to.
        small: uint8[h,w,3], the upright image made small, where that was asked for.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()
    changed: bool = False
    size: tuple[int, int] = (0, 0)
    small: NDArray[np.uint8] | None = None


def prepare(data: bytes, preprocessor: Maker, limits: Limits) -> Prepared:
    """Decode and preprocess, here and now, with no limit but the image's size.

    Raises:
        ImageError: it cannot be decoded.
    """
    return _Preparation(preprocessor, limits)(data)


class Preparing:
    """What a run decodes with; safe to use from several threads.

    What is surely modest is decoded in the caller's thread. All else is decoded in a process of its own,
    which is killed when it takes longer than ``limits.timeout`` or more memory than the budget has.

    Args:
        preprocessor: what turns an image into pixels.
        limits: what a single image may take.
        budget: the run's memory; None: that of all callers in this process.
        processes: decode every image in a process of its own: for many cores, which would wait for
            each other's Python.
    """

    def __init__(
        self,
        preprocessor: Maker,
        limits: Limits = DEFAULT_LIMITS,
        budget: Budget | None = None,
        *,
        processes: bool = False,
    ) -> None:
        self._preparation = _Preparation(preprocessor, limits)
        self._draft = preprocessor.draft
        self._limits = limits
        self._budget = budget or _shared(limits.memory)
        self._processes = processes

    def __call__(self, data: bytes, small: Small | None = None) -> Prepared:
        """The pixels of one image.

        Args:
            data: the encoded image.
            small: make a small image as well, of the same decoded pixels.

        Raises:
            ImageError: it cannot be decoded, or not within the limits.
        """
        work = self._preparation if small is None else replace(self._preparation, small=small)
        found = _within(
            work, work.apart, data, self._limits, self._draft, self._budget, processes=self._processes
        )
        if isinstance(found, Prepared):
            return found
        told, pixels = found
        width, height = map(int, told["size"])
        made = None
        if "small" in told:  # the two of them came one after the other
            shape = tuple(map(int, told["pixels"]))
            both, pixels = pixels, pixels[: math.prod(shape)].reshape(shape)
            made = both[pixels.size :].reshape(tuple(map(int, told["small"])))
        return Prepared(pixels, tuple(map(str, told["notes"])), bool(told["changed"]), (width, height), made)


def load(
    data: bytes, limits: Limits = DEFAULT_LIMITS, *, draft: int | None = None, side: int | None = None
) -> Decoded:
    """Decode one image as ``decode`` does, within the limits of memory and time as well.

    All callers in a process share one budget of memory, beside that of a run.

    Args:
        data: the encoded image.
        limits: what it may take.
        draft: see ``decode``.
        side: scale it down into a square of so many pixels.

    Raises:
        ImageError: it cannot be decoded, or not within the limits.
    """
    work = _Loading(limits, draft, side)
    found = _within(work, work.apart, data, limits, draft, _shared(limits.memory))
    if isinstance(found, Decoded):
        return found
    told, pixels = found
    width, height = map(int, told["size"])
    return Decoded(Image.fromarray(pixels), tuple(map(str, told["notes"])), (width, height))


class Header(NamedTuple):
    """What an image says of itself.

    Attributes:
        size: width and height of the upright image, in pixels.
        taken: when, as its EXIF block has it; "" where it does not say.
    """

    size: tuple[int, int]
    taken: str = ""


def header(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """What an image says of itself, read within the limits that decoding has.

    Raises:
        ImageError: it is none, or takes more than the limits to find out.
    """
    work = _Heading(limits)
    found = _within(work, work.apart, data, limits, None, _shared(limits.memory))
    if isinstance(found, Header):
        return found
    told, _ = found
    width, height = map(int, told["size"])
    return Header((width, height), str(told["taken"]))


_budgets: dict[int, Budget] = {}


def _shared(memory: int) -> Budget:
    return _budgets.setdefault(memory, Budget(memory))


@dataclass(frozen=True, slots=True)
class _Preparation:
    """Here, and as another process tells of it."""

    preprocessor: Maker
    limits: Limits
    small: Small | None = None

    def __call__(self, data: bytes) -> Prepared:
        make = self.preprocessor
        if isinstance(make, Preprocessor):  # it turns the image while it resizes it
            decoded = decode(data, limits=self.limits, draft=make.draft, turn=False)
            pixels = make(decoded.image, decoded.turn)
        else:
            decoded = decode(data, limits=self.limits, draft=make.draft)
            pixels = make(decoded.image)
        notes = (*decoded.notes, *make.notes(decoded.upright))
        return Prepared(pixels, notes, decoded.changed, _upright(decoded), self._small(decoded))

    def _small(self, decoded: Decoded) -> NDArray[np.uint8] | None:
        if self.small is None or math.prod(decoded.size) < self.small.least:
            return None
        decoded.image.thumbnail((self.small.side, self.small.side))  # the last that is done with it
        return np.asarray(upright(decoded.image, decoded.turn))

    def apart(self, data: bytes) -> tuple[dict[str, Any], Pixels]:
        prepared = self(data)
        told = {"notes": prepared.notes, "changed": prepared.changed, "size": prepared.size}
        if prepared.small is None:
            return told, prepared.pixels
        told |= {"pixels": prepared.pixels.shape, "small": prepared.small.shape}
        return told, np.concatenate([prepared.pixels.reshape(-1), prepared.small.reshape(-1)])


def _upright(decoded: Decoded) -> tuple[int, int]:
    """Width and height of the whole image, turned upright."""
    (width, height), now = decoded.size, decoded.upright
    if now in ((width, height), (height, width)) or max(now) > max(width, height):
        return now
    turned = (now[0] > now[1]) != (width > height)  # shrunk by the decoder, and turned by its EXIF block
    return (height, width) if turned else (width, height)


@dataclass(frozen=True, slots=True)
class _Loading:
    limits: Limits
    draft: int | None
    side: int | None

    def __call__(self, data: bytes) -> Decoded:
        decoded = decode(data, limits=self.limits, draft=self.draft)
        if self.side is not None:
            decoded.image.thumbnail((self.side, self.side))
        return decoded

    def apart(self, data: bytes) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        decoded = self(data)
        return {"notes": decoded.notes, "size": decoded.size}, np.asarray(decoded.image)


@dataclass(frozen=True, slots=True)
class _Heading:
    limits: Limits

    def __call__(self, data: bytes) -> Header:
        return Header(*opened(data, limits=self.limits))

    def apart(self, data: bytes) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        return self(data)._asdict(), np.zeros(0, np.uint8)


def _within(
    here: Callable[[bytes], Any],
    there: apart.Work,
    data: bytes,
    limits: Limits,
    draft: int | None,
    budget: Budget,
    *,
    processes: bool = False,
) -> Any:
    """What one of the two makes of an image, by what the image takes: in this thread, or in a process."""
    found = cost(data, limits, draft)
    most = budget.most
    if found.alone and apart.available():
        return _apart(there, data, found.size or most // 2, limits, budget)
    size = min(found.size or 0, most)
    if (processes or size > most // 4) and apart.available():
        return _apart(there, data, max(found.size or 0, _LEAST), limits, budget)
    with budget.decoding(size):
        return here(data)


def _apart(work: apart.Work, data: bytes, wanted: int, limits: Limits, budget: Budget) -> Any:
    most, allowed = budget.most, apart.Time(_OWN * limits.timeout)
    for allowance in dict.fromkeys((min(wanted, most), most)):
        with budget.decoding(allowance):
            try:
                return apart.done(work, data, allowance, allowed)
            except apart.Starved:
                continue
            except apart.Expired as error:
                raise UndecodableImage(
                    f"decoding it takes longer than {limits.timeout:g} s: give more with --timeout, "
                    "or convert it first"
                ) from error
            except UndecodableImage as error:
                if _WANT in str(error) or wanted > most == allowance:
                    continue
                if allowance == most:  # else other libraries' decoders may have wanted memory
                    raise
            except apart.Crashed as error:
                if allowance == most:  # else it may have been for want of memory
                    raise UndecodableImage("damaged: the decoder broke down over it") from error
    raise too_large(None, most, budget.total)
