"""Answers that go as deep into a tree as the evidence allows: arrays of leaves in, nodes out.

The candidates at a threshold t are the leaves with 1 - share <= t, and the best leaf in any case. The answer
is their lowest common ancestor, which only grows with t. The score of an image is the t at which its answer
first contains the truth; the quantile of labelled images' scores is then a threshold at which answers contain
it as often as was asked (split conformal prediction, Vovk et al. 2005), whatever the model. This goes deeper
than the ancestor of a set that was calibrated to hold the leaf itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.decision.softmax import Reals
from nshot.errors import RequestError


class Ancestors:
    """The nodes above each leaf, so that common ancestors of many images are found at once.

    Args:
        paths: of each leaf, the nodes from the root to it; leaves under one node lie side by side.
    """

    def __init__(self, paths: Sequence[Sequence[str]]) -> None:
        numbers: dict[str, int] = {}
        depth = max(map(len, paths))
        self._above = np.full((len(paths), depth), -1, np.int64)
        for row, path in enumerate(paths):
            for level, name in enumerate(path):
                self._above[row, level] = numbers.setdefault(name, len(numbers))
        self._depths = np.array([len(path) for path in paths])
        self._first = np.empty((len(paths), depth + 1), np.int64)  # of each leaf and depth, the node's leaves
        self._end = np.empty_like(self._first)
        self._first[:, 0], self._end[:, 0] = 0, len(paths)
        for level in range(depth):
            column = self._above[:, level]
            edges = np.flatnonzero(np.r_[True, column[1:] != column[:-1]])
            sizes = np.diff(np.r_[edges, len(paths)])
            self._first[:, level + 1] = np.repeat(edges, sizes)
            self._end[:, level + 1] = np.repeat(edges + sizes, sizes)

    def common(self, first: ArrayLike, last: ArrayLike) -> NDArray[np.int64]:
        """Depth of the lowest node above both leaves, 0 for what lies above all roots: int64[n]."""
        first, last = np.asarray(first), np.asarray(last)
        same = (self._above[first] == self._above[last]) & (self._above[first] >= 0)
        found: NDArray[np.int64] = np.cumprod(same, axis=-1).sum(axis=-1)
        return found

    def span(self, leaf: ArrayLike, depth: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The leaves under the node at that depth above a leaf: the first, and the one after the last."""
        at = np.asarray(leaf), np.asarray(depth)
        return self._first[at], self._end[at]

    def answers(self, shares: ArrayLike, threshold: float) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The best leaf of each image, and how deep on the way to it the answer lies.

        Args:
            shares: float[n, leaves], rows that sum to 1.
            threshold: see the module; infinite: nothing is known.
        """
        p = np.asarray(shares, np.float64)
        best = p.argmax(axis=1)
        inside = p >= 1.0 - threshold if math.isfinite(threshold) else np.ones(p.shape, bool)
        inside[np.arange(len(p)), best] = True
        first = inside.argmax(axis=1)
        last = p.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
        return best, self.common(first, last)

    def scores(self, shares: ArrayLike, spans: ArrayLike) -> Reals:
        """The threshold at which each answer first contains the truth: float64[n], 0 at the best leaf.

        Args:
            shares: float[n, leaves].
            spans: int[n, 2], the leaves of the true node: the first, and the one after the last.
        """
        p = np.asarray(shares, np.float64)
        found = np.empty(len(p))
        for row, (share, (first, end)) in enumerate(zip(p, np.asarray(spans), strict=True)):
            order = np.argsort(-share, kind="stable")
            low, high = np.minimum.accumulate(order), np.maximum.accumulate(order)
            begins, ends = self.span(low, self.common(low, high))
            rank = int(np.argmax((begins <= first) & (end <= ends)))  # all leaves together hold every truth
            found[row] = 0.0 if rank == 0 else 1.0 - share[order[rank]]
        return found


def threshold_for(scores: ArrayLike, coverage: float) -> float:
    """The threshold at which answers contain the truth as often as asked; infinite with too few images.

    Raises:
        RequestError: a coverage outside (0, 1), or no image.
    """
    own = np.sort(np.asarray(scores, np.float64))
    if not 0 < coverage < 1:
        raise RequestError(f"a coverage is a share between 0 and 1, such as 0.9, not {coverage}")
    if not len(own):
        raise RequestError("a guaranteed coverage needs labelled images, and there is none")
    rank = math.ceil((len(own) + 1) * coverage - 1e-9)
    return float(own[rank - 1]) if rank <= len(own) else math.inf
