"""Answers that go as deep into a tree as the evidence allows: arrays of leaves in, nodes out.

The candidates at a threshold t are the leaves with 1 - share <= t, and the best leaf in any case. The answer
is their lowest common ancestor, which only grows with t. The score of an image is the t at which its answer
first contains the truth; the quantile of labelled images' scores is then a threshold at which answers contain
it as often as was asked (split conformal prediction, Vovk et al. 2005), whatever the model. This goes deeper
than the ancestor of a set that was calibrated to hold the leaf itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.decision.softmax import Reals, activate, log_sum_exp
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

    def answers(self, shares: ArrayLike, threshold: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The best leaf of each image, and how deep on the way to it the answer lies.

        Args:
            shares: float[n, leaves], rows that sum to 1.
            threshold: see the module, one for all or float[n]; infinite: nothing is known.
        """
        p = np.asarray(shares, np.float64)
        best = p.argmax(axis=1)
        inside = p >= 1.0 - np.broadcast_to(np.asarray(threshold, np.float64), len(p))[:, None]
        inside[np.arange(len(p)), best] = True
        first = inside.argmax(axis=1)
        last = p.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
        return best, self.common(first, last)

    def at_depth(self, shares: ArrayLike, depth: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The best node of each image at one depth, as a leaf under it and its depth.

        A leaf that lies less deep stands for itself.

        Args:
            shares: float[n, leaves].
            depth: from 1, the roots.
        """
        p = np.asarray(shares, np.float64)
        own = np.minimum(self._depths, depth)
        starts = np.unique(self._first[np.arange(len(own)), own])
        best: NDArray[np.intp] = starts[np.add.reduceat(p, starts, axis=1).argmax(axis=1)]
        return best, own[best]

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


class Siblings:
    """What the prompts of all nodes, inner ones too, say of each leaf: a softmax at every fork above it.

    P(leaf) is the product, over the nodes from the root to the leaf, of each node's share among its siblings.
    A fork without a prompt for each of its nodes says nothing: they share equally.

    Args:
        paths: of each leaf, the nodes from the root to it; leaves under one node lie side by side.
        inner: the inner nodes that have a prompt, in the order of their logits.
    """

    def __init__(self, paths: Sequence[Sequence[str]], inner: Sequence[str]) -> None:
        given = {path[-1]: k for k, path in enumerate(paths)}
        given |= {name: len(paths) + k for k, name in enumerate(inner)}
        above: dict[str, str | None] = {}
        for path in paths:
            for parent, name in zip((None, *path), path, strict=False):
                above.setdefault(name, parent)  # parents come before their children
        forks: dict[str | None, list[str]] = {}
        for name, parent in above.items():
            forks.setdefault(parent, []).append(name)
        place = {name: k for k, name in enumerate(above)}
        self._forks = [
            (
                None if parent is None else place[parent],
                np.array([place[name] for name in below]),
                np.array([given[name] for name in below]) if all(name in given for name in below) else None,
            )
            for parent, below in forks.items()
        ]
        self._nodes = len(place)
        self._leaves = np.array([place[path[-1]] for path in paths])
        self._quick = None
        if all(columns is not None for _, _, columns in self._forks):
            self._quick = _Parents.of(paths, inner, above)

    def log_shares(self, leaves: ArrayLike, inner: ArrayLike) -> Reals:
        """Log of P(leaf): logits float[n, leaves] and float[n, inner] -> float64[n, leaves]."""
        z = np.concatenate([np.asarray(leaves, np.float64), np.asarray(inner, np.float64)], axis=1).T
        told = np.zeros((self._nodes, z.shape[1]))
        for parent, below, columns in self._forks:
            own = told[parent] if parent is not None else 0.0
            if columns is None:
                told[below] = own - math.log(len(below))
            elif len(below) == 1:
                told[below] = own
            else:
                there = z[columns]
                told[below] = own + there - log_sum_exp(there.T).T
        found: Reals = told[self._leaves].T
        return found

    def shares(self, leaves: Reals, inner: Reals, weight: float) -> Reals:
        """``pooled`` of the leaves' softmax and of this, from logits: float64[n, leaves]."""
        if self._quick is not None and (found := self._quick.shares(leaves, inner, weight)) is not None:
            return found
        return pooled(activate(leaves, "softmax"), self.log_shares(leaves, inner), weight)


@dataclass(frozen=True, slots=True, eq=False)
class _Parents:
    """The same sum by parents: with Z the sum over a fork's exponentials and C the log of P(parent), a leaf's
    log of P is z - log Z + C, so that pooling adds weight * (C - log Z) of its parent to the leaf's logit.

    Attributes:
        parent: of each leaf, 0 for none and one more than its place among ``inner`` for others.
        starts: where in the leaves' order the parent changes.
        runs, run_starts, run_parents: those stretches by parent.
        order, order_starts, order_parents: the inner nodes by parent.
        levels: inner nodes from the top on, and the parent of each.
    """

    parent: NDArray[np.intp]
    starts: NDArray[np.intp]
    runs: NDArray[np.intp]
    run_starts: NDArray[np.intp]
    run_parents: NDArray[np.intp]
    order: NDArray[np.intp]
    order_starts: NDArray[np.intp]
    order_parents: NDArray[np.intp]
    levels: tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]

    @classmethod
    def of(
        cls, paths: Sequence[Sequence[str]], inner: Sequence[str], above: Mapping[str, str | None]
    ) -> _Parents:
        number = {name: k for k, name in enumerate(inner, 1)}

        def parents(names: Iterable[str]) -> NDArray[np.intp]:
            held = (above[name] for name in names)
            return np.array([0 if name is None else number[name] for name in held], np.intp)

        parent = parents(path[-1] for path in paths)
        starts = np.flatnonzero(np.r_[True, parent[1:] != parent[:-1]])
        deep: dict[int, list[int]] = {}
        for path in paths:
            for depth, name in enumerate(path[:-1]):
                if number[name] - 1 not in (level := deep.setdefault(depth, [])):
                    level.append(number[name] - 1)
        of_inner = parents(inner)
        levels = [np.array(deep[depth], np.intp) for depth in sorted(deep)]
        return cls(
            parent,
            starts,
            *_grouped(parent[starts]),
            *_grouped(of_inner),
            tuple((own, of_inner[own]) for own in levels),
        )

    def shares(self, leaves: Reals, inner: Reals, weight: float) -> Reals | None:
        """See ``Siblings.shares``; None where the logits are too far apart for one exponential."""
        top = np.maximum(leaves.max(axis=1), inner.max(axis=1))[:, None]
        found: Reals = np.subtract(leaves, top)
        np.exp(found, out=found)
        sums = np.zeros((len(leaves), inner.shape[1] + 1))
        by_parent = np.add.reduceat(found, self.starts, axis=1)[:, self.runs]
        sums[:, self.run_parents] = np.add.reduceat(by_parent, self.run_starts, axis=1)
        nodes = np.exp(inner - top)[:, self.order]
        sums[:, self.order_parents] += np.add.reduceat(nodes, self.order_starts, axis=1)
        if sums.min() < _TINY:
            return None
        logs = np.log(sums) + top
        added = np.zeros_like(logs)
        for own, parent in self.levels:
            added[:, own + 1] = added[:, parent] + inner[:, own] - logs[:, parent]
        added -= logs
        added *= weight
        added -= added.max(axis=1, keepdims=True)
        np.exp(added, out=added)
        found *= added[:, self.parent]
        totals = found.sum(axis=1, keepdims=True)
        if totals.min() < _TINY:
            return None
        found /= totals
        return found


_TINY = 1e-250


def _grouped(parent: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """An order by parent, where in it each parent's begin, and the parents."""
    order = np.argsort(parent, kind="stable")
    names, starts = np.unique(parent[order], return_index=True)
    return order, starts, names


def pooled(shares: ArrayLike, others: ArrayLike, weight: float) -> Reals:
    """Two opinions as one, p^(1 - w) * q^w made to sum to 1: float[n, k] and log q -> float64[n, k]."""
    own = np.log(np.maximum(np.asarray(shares, np.float64), np.finfo(np.float64).tiny))
    return activate((1 - weight) * own + weight * np.asarray(others, np.float64), "softmax")


def threshold_for(scores: ArrayLike, coverage: float, draws: ArrayLike = 0.0) -> Reals:
    """The thresholds at which answers contain the truth as often as asked; infinite with too few images.

    Of n images' scores, the one at rank r covers r / (n + 1). Between two ranks, one of them is drawn for
    each image, so often that the coverage is what was asked for and not the next larger one.

    Args:
        scores: float[n], what ``Ancestors.scores`` found of the labelled images.
        coverage: the wanted rate, in (0, 1).
        draws: one number in [0, 1) per image that is to be answered, uniform; 0: the larger rank, which
            covers what was asked or more.

    Returns:
        float64, in the shape of ``draws``.

    Raises:
        RequestError: a coverage outside (0, 1), or no image.
    """
    own = np.sort(np.asarray(scores, np.float64))
    if not 0 < coverage < 1:
        raise RequestError(f"a coverage is a share between 0 and 1, such as 0.9, not {coverage}")
    if not len(own):
        raise RequestError("a guaranteed coverage needs labelled images, and there is none")
    at = (len(own) + 1) * coverage
    rank = math.ceil(at - 1e-9)
    above = float(own[rank - 1]) if rank <= len(own) else math.inf
    below = float(own[rank - 2]) if rank > 1 else 0.0
    larger = np.asarray(draws, np.float64) < max(at - (rank - 1), 0.0)
    return np.where(larger, above, below)
