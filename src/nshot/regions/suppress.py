"""Of boxes that overlap, the best one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.float64]
"""float64[n, 4]: left, top, right, bottom."""


def overlaps(one: Corners, many: Corners) -> NDArray[np.float64]:
    """Intersection over union of each pair: float64[n, m] in [0, 1]; of nothing with nothing 0."""
    left_top = np.maximum(one[:, None, :2], many[None, :, :2])
    right_bottom = np.minimum(one[:, None, 2:], many[None, :, 2:])
    shared = np.prod(np.maximum(right_bottom - left_top, 0), axis=2)
    areas = [np.prod(np.maximum(each[:, 2:] - each[:, :2], 0), axis=1) for each in (one, many)]
    union = areas[0][:, None] + areas[1][None] - shared
    result: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result


def suppressed(corners: Corners, scores: NDArray[np.float64], most: float) -> NDArray[np.intp]:
    """The boxes that stay, best first: none overlaps a better one by more than ``most``."""
    left = np.argsort(-scores, kind="stable")
    stay = []
    while len(left):
        best, left = left[0], left[1:]
        stay.append(best)
        left = left[overlaps(corners[best : best + 1], corners[left])[0] <= most]
    return np.array(stay, np.intp)
