"""Bytes -> the pixels that an encoder takes, within the run's memory and the image's time."""

from __future__ import annotations

import time
from typing import NamedTuple

from nshot.errors import UndecodableImage
from nshot.images import apart
from nshot.images.budget import Budget, too_large
from nshot.images.cost import cost
from nshot.images.decode import decode
from nshot.images.preprocess import Preprocessor
from nshot.types import Limits, Pixels

_OWN = 0.9  # of an image's time: the rest is for sending it to another process, and for what follows
_WANT = "decoder error -9"


class Prepared(NamedTuple):
    """What became of one image.

    Attributes:
        pixels: uint8[3,s,s].
        notes: what a person should know of how it was decoded and fitted.
        changed: see ``nshot.images.decode.Decoded``.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()
    changed: bool = False


def prepare(data: bytes, preprocessor: Preprocessor, limits: Limits) -> Prepared:
    """Decode and preprocess, here and now.

    Raises:
        ImageError: it cannot be decoded.
    """
    decoded = decode(data, limits=limits, draft=preprocessor.draft)
    notes = (*decoded.notes, *preprocessor.notes(decoded.image.size))
    return Prepared(preprocessor(decoded.image), notes, decoded.changed)


class Preparing:
    """What a run decodes with; safe to use from several threads.

    What is surely modest is decoded in the caller's thread. All else is decoded in a process of its own,
    which is killed when it takes longer than ``limits.timeout`` or more memory than the budget has.

    Args:
        preprocessor: what turns an image into pixels.
        limits: what a single image may take.
        budget: the run's memory.
    """

    def __init__(self, preprocessor: Preprocessor, limits: Limits, budget: Budget) -> None:
        self.preprocessor = preprocessor
        self.limits = limits
        self.budget = budget

    def __call__(self, data: bytes) -> Prepared:
        """The pixels of one image.

        Raises:
            ImageError: it cannot be decoded, or not within the limits.
        """
        found = cost(data, self.limits, self.preprocessor.draft)
        most = self.budget.most
        if found.alone and apart.available():
            return self._apart(data, found.size or most // 2)
        size = min(found.size or 0, most)
        if size > most // 4 and apart.available():
            return self._apart(data, size)
        with self.budget.decoding(size):
            return prepare(data, self.preprocessor, self.limits)

    def _apart(self, data: bytes, wanted: int) -> Prepared:
        most, left = self.budget.most, _OWN * self.limits.timeout
        for allowance in dict.fromkeys((min(wanted, most), most)):
            with self.budget.decoding(allowance):
                begun = time.monotonic()
                try:
                    return apart.prepared(data, self.preprocessor, self.limits, allowance, left)
                except apart.Starved:
                    left = max(1.0, left - (time.monotonic() - begun))
                except apart.Expired as error:
                    raise UndecodableImage(
                        f"decoding it takes longer than {self.limits.timeout:g} s: give more with --timeout, "
                        "or convert it first"
                    ) from error
                except UndecodableImage as error:
                    if (
                        _WANT in str(error) or wanted > most == allowance
                    ):  # as Pillow says that there was no memory
                        continue
                    if allowance == most:  # else other libraries' decoders may have wanted memory
                        raise
                    left = max(1.0, left - (time.monotonic() - begun))
                except apart.Crashed as error:
                    if allowance == most:  # else it may have been for want of memory
                        raise UndecodableImage("damaged: the decoder broke down over it") from error
        raise too_large(None, most, self.budget.total)
