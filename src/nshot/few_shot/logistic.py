"""Multinomial logistic regression: the plain linear probe, and the probe pulled toward a given matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nshot.few_shot.descent import minimise
from nshot.few_shot.heads import Array, Head, Shown

TOLERANCE = 1e-3  # accuracies no longer change; scores agree to the third decimal

_SAME = 1e-6  # a direction with less than this share of the largest spread is rounding


def plain_probe(
    shown: Shown,
    labels: int,
    *,
    strengths: Sequence[float] = (1.0,),
    tolerance: float = TOLERANCE,
) -> list[Head]:
    """Logistic regression with a free intercept, as scikit-learn's ``LogisticRegression(C=strength)``.

    Minimises  C * sum_i cross_entropy(W x_i + b, y_i) + |W|^2 / 2.

    Args:
        shown: the examples, their targets in [0, labels).
        labels: how many there are.
        strengths: the values of C to answer for, each more than 0.
        tolerance: how flat the end must be, as in ``minimise``.

    Returns:
        One head per strength, in the order given.
    """
    mean = _mean(shown)  # b takes up any shift, so centring is for the numbers' sake
    start = _Start(np.zeros((labels, len(mean))), np.zeros(labels), mean)
    heads = _path(shown, start, [1 / c for c in strengths], None, tolerance)
    return [Head(weights, bias - weights @ mean) for weights, bias in heads]


def pulled_probe(
    shown: Shown,
    start: Array,
    *,
    pulls: Sequence[float],
    known: NDArray[np.bool_] | None = None,
    tolerance: float = TOLERANCE,
) -> list[Head]:
    """Logistic regression that starts from a matrix and pays for leaving it.

    Minimises  sum_i cross_entropy(W x_i + log n, y_i) + pull * |W - start|^2 / 2,  n_k the examples of
    label k. The offset log n says that a label's share of the examples is how they were collected, not how
    the world is (balanced softmax, Ren et al. 2020); it is left out afterwards. There is no intercept: a
    free one is what a few examples fit worst, and images' vectors share a direction that serves as one
    which is paid for.

    A label without examples takes no part, and its row stays as it was. What the others' rows gain sums to
    zero (the gradient of softmax does), so that label's logit stays comparable with theirs.

    Args:
        shown: the examples, their targets rows of ``start``.
        start: float64[labels, d], the prompts' matrix times its scale.
        pulls: how strongly the rows are held, each more than 0.
        known: bool[labels], False for a label without a prompt; its row is held a hundredth as strongly.
        tolerance: how flat the end must be, as in ``minimise``.

    Returns:
        One head per pull, in the order given; bias zero.
    """
    counts = shown.counts(len(start))
    present = np.flatnonzero(counts)
    offset = np.log(counts[present])
    held = np.ones(len(present)) if known is None else np.where(known[present], 1.0, 0.01)
    begin = _Start(start[present], offset, None)
    renumbered = shown._replace(targets=np.searchsorted(present, shown.targets))
    heads = []
    for gained, _ in _path(renumbered, begin, pulls, held, tolerance):
        weights = start.copy()
        weights[present] += gained
        heads.append(Head(weights, np.zeros(len(start))))
    return heads


class _Start(NamedTuple):
    """The logits before anything is learnt: rows @ x + bias, and what is taken off of every vector x then.

    Attributes:
        rows: float64[labels, d].
        bias: float64[labels].
        mean: [d], which is taken off; None: nothing.
    """

    rows: Array
    bias: Array
    mean: Array | None

    def shifted(self, vectors: Array) -> Array:
        """Vectors without the mean."""
        return vectors if self.mean is None else vectors - self.mean.astype(vectors.dtype, copy=False)


def _mean(shown: Shown) -> Array:
    """The vectors' mean, [d]."""
    blocks = shown.blocks(1)
    if len(blocks) == 1:
        mean: Array = shown.working(blocks[0]).mean(axis=0)
        return mean
    total: Array = sum((shown.wide(block).sum(axis=0) for block in blocks), np.zeros(shown.vectors.shape[1]))
    return total / len(shown.vectors)


def _path(
    shown: Shown,
    start: _Start,
    pulls: Sequence[float],
    held: Array | None,
    tolerance: float,
) -> list[tuple[Array, Array]]:
    """What to add to the rows and the bias of ``start``, for each pull: [labels, d] weights and [labels].

    ``held`` weighs each row's pull and means no intercept; without it, an intercept that costs nothing.

    Weights outside the examples' span cost and buy nothing, so there are min(n, d) directions to search. The
    Hessian is at most X'X / 2 + pull (Böhning 1992), which is diagonal along the singular directions:
    scaled by it, every direction asks for the same step. The strongest pull comes first, and each answer
    starts the next.
    """
    labels, free = len(start.rows), held is None
    spread, directions = _singular(shown, start)
    examples = _Examples(shown, start, directions)
    weight = shown.weights.astype(examples.dtype)
    row_pull = np.ones((labels, 1)) if held is None else held[:, None]
    level = 1 / np.sqrt(0.5 * weight.sum()) if free else 0.0
    gained, lift = np.zeros((labels, len(spread))), np.zeros(labels)
    answers: dict[float, tuple[Array, Array]] = {}
    for pull in sorted(set(pulls), reverse=True):
        cost = pull * row_pull
        step = 1 / np.sqrt(0.5 * spread**2 + cost)

        def objective(flat: Array, cost: Array = cost, step: Array = step) -> tuple[float, Array]:
            variables = flat.reshape(labels, -1)
            weights = variables[:, :-1] * step
            slopes, falls, loss = examples.none(), np.zeros(labels), 0.0
            for block, inside, logits in examples.blocks(weights):
                targets, own = shown.targets[block], weight[block]
                if free:
                    logits += (level * variables[:, -1]).astype(inside.dtype)
                logits -= logits.max(axis=1, keepdims=True)
                rows = np.arange(len(targets))
                right = logits[rows, targets]
                shares = np.exp(logits, out=logits)
                total = shares.sum(axis=1, keepdims=True)
                loss += float(((np.log(total[:, 0]) - right) * own).sum(dtype=np.float64))
                shares /= total
                shares[rows, targets] -= 1.0  # what is left is the error
                shares *= own[:, None]
                slopes += shares.T @ inside
                falls += shares.sum(axis=0)
            gradient = np.empty_like(variables)
            gradient[:, :-1] = (examples.turned(slopes) + cost * weights) * step
            gradient[:, -1] = level * falls
            return loss + 0.5 * float((cost * weights**2).sum()), gradient.ravel()

        begin = np.column_stack([gained / step, lift / level if free else lift])
        found = minimise(objective, begin.ravel(), tolerance=tolerance).reshape(labels, -1)
        gained, lift = found[:, :-1] * step, found[:, -1] * level
        answers[pull] = (gained @ directions, lift)
    return [answers[pull] for pull in pulls]


class _Examples:
    """The examples and their logits, block by block.

    A few are turned into the directions once, and what they start from is computed once. Of many there is no
    second copy: the weights are turned instead, each time they are asked for.
    """

    def __init__(self, shown: Shown, start: _Start, directions: Array) -> None:
        self._shown, self._start, self._directions = shown, start, directions
        self._blocks = shown.blocks(len(start.rows))
        self.dtype = np.dtype(np.float64) if shown.exact else shown.vectors.dtype
        self._inside: Array | None = None
        if len(self._blocks) == 1:
            vectors = start.shifted(shown.working(self._blocks[0]))
            self._inside = vectors @ directions.T.astype(vectors.dtype)
            self._given = (vectors @ start.rows.T + start.bias).astype(self.dtype)

    def none(self) -> Array:
        """Room for the errors' products with the examples."""
        width = self._directions.shape[0] if self._inside is not None else self._directions.shape[1]
        return np.zeros((len(self._start.rows), width))

    def blocks(self, weights: Array) -> Iterator[tuple[slice, Array, Array]]:
        """Each block: its rows, what its errors are multiplied with, and its logits, which may be used up.

        Args:
            weights: float64[labels, directions].
        """
        if self._inside is not None:
            inside = self._inside
            yield self._blocks[0], inside, self._given + inside @ weights.T.astype(inside.dtype)
            return
        rows = (self._start.rows + weights @ self._directions).T.astype(self.dtype)
        bias = self._start.bias.astype(self.dtype)
        for block in self._blocks:
            vectors = self._start.shifted(self._shown.working(block))
            yield block, vectors, vectors @ rows + bias

    def turned(self, slopes: Array) -> Array:
        """The errors' products with the examples, along the directions."""
        return slopes if self._inside is not None else slopes @ self._directions.T


def _singular(shown: Shown, start: _Start) -> tuple[Array, Array]:
    """Singular values [r] and right singular vectors [r, d], through the smaller of the two Gram matrices."""
    blocks, root = shown.blocks(1), np.sqrt(shown.weights)[:, None]

    def weighed(block: slice) -> Array:
        # squares of single precision would lose the small ones
        vectors: Array = (start.shifted(shown.working(block)) * root[block]).astype(np.float64, copy=False)
        return vectors

    if len(shown.vectors) <= shown.vectors.shape[1]:
        vectors = weighed(slice(None))
        squares, left = np.linalg.eigh(vectors @ vectors.T)
        kept = squares > _SAME**2 * max(float(squares.max(initial=0.0)), 1e-300)
        spread = np.sqrt(squares[kept])
        return spread, (left[:, kept] / spread).T @ vectors
    gram = np.zeros((shown.vectors.shape[1],) * 2)
    for block in blocks:
        vectors = weighed(block)
        gram += vectors.T @ vectors
    squares, right = np.linalg.eigh(gram)
    kept = squares > _SAME**2 * max(float(squares.max(initial=0.0)), 1e-300)
    return np.sqrt(squares[kept]), right[:, kept].T
