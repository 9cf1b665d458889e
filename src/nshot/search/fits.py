"""How unusual an image's likeness to a question is: what lets a search say that nothing fits.

Cosines of two questions cannot be compared: some texts are near to every image. So each image's cosine is
measured against the same image's cosines with generic names::

    z = (cosine - mean) / deviation

where the deviation is the root mean square of the image's own and of the whole collection's: an image that is
equally far from all names would otherwise exceed them all by many of its own tiny deviations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.types import Floats

FITS = 4.0
"""Deviations from which an image counts as fitting; measured in docs/search.md."""

GENERIC = "a {}"
"""How a generic name is written: as bare as a question. In a longer template the names differ less."""

_SAMPLE = 4096  # rows that tell the collection's deviation


def unusual(cosines: Floats, images: NDArray[Any], background: Floats, everything: NDArray[Any]) -> Floats:
    """Z of some images.

    Args:
        cosines: float32[n], of the images with the question.
        images: float[n, d], the images, unit rows.
        background: float32[m, d], generic questions of the same form, unit rows.
        everything: float[N, d], the collection that the images are from.

    Returns:
        float32[n], deviations.
    """
    step = max(1, len(everything) // _SAMPLE)
    common = np.asarray(everything[::step], np.float32) @ background.T
    usual = float(np.mean(common.var(axis=1)))
    own = np.asarray(images, np.float32) @ background.T
    deviation = np.sqrt((own.var(axis=1) + usual) / 2)
    z: Floats = ((cosines - own.mean(axis=1)) / np.maximum(deviation, 1e-6)).astype(np.float32)
    return z
