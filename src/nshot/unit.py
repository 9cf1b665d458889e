"""Unit vectors: what every comparison in nshot is made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.errors import RequestError
from nshot.types import Floats

_ROWS = 8192  # widened at once


def normalize(rows: ArrayLike, names: Sequence[str] | None = None) -> Floats:
    """Each row divided by its own length: float[n, d] -> float32[n, d], unit norm along the feature axis.

    Args:
        rows: any real dtype; half precision is widened before anything is squared.
        names: what to call the rows in an error; their numbers otherwise.

    Raises:
        RequestError: a row that is zero or not finite has no direction.
    """
    given = np.asarray(rows)
    unit = np.empty(given.shape, np.float32)
    for start in range(0, len(given), _ROWS):
        wide = given[start : start + _ROWS].astype(np.float64)
        unit[start : start + _ROWS] = wide / lengths(wide, names, start)
    return unit


def lengths(
    rows: NDArray[np.float64], names: Sequence[str] | None = None, start: int = 0
) -> NDArray[np.float64]:
    """Each row's Euclidean length: float64[n, d] -> float64[n, 1], none of them zero.

    Args:
        rows: the vectors.
        names: what to call them in an error, and all before them; their numbers otherwise.
        start: the number of the first.

    Raises:
        RequestError: a row that is zero or not finite has no direction.
    """
    length: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    bad = np.flatnonzero(~(np.isfinite(length) & (length > 0)).ravel())
    if bad.size:
        first = start + int(bad[0])
        name = repr(names[first]) if names is not None else str(first)
        raise RequestError(f"the vector of row {name} is zero or not finite, so it has no direction")
    return length
