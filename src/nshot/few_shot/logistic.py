"""Multinomial logistic regression: the plain linear probe, and the probe pulled toward a given matrix."""

from __future__ import annotations

from collections.abc import Sequence

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
    mean = shown.vectors.mean(axis=0)  # b takes up any shift, so centring is for the numbers' sake
    nothing = np.zeros((len(shown.vectors), labels))
    centred = shown._replace(vectors=shown.vectors - mean)
    heads = _path(centred, nothing, [1 / c for c in strengths], None, tolerance)
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
    given = shown.vectors @ start[present].T + offset
    renumbered = shown._replace(targets=np.searchsorted(present, shown.targets))
    heads = []
    for gained, _ in _path(renumbered, given, pulls, held, tolerance):
        weights = start.copy()
        weights[present] += gained
        heads.append(Head(weights, np.zeros(len(start))))
    return heads


def _path(
    shown: Shown,
    given: Array,
    pulls: Sequence[float],
    held: Array | None,
    tolerance: float,
) -> list[tuple[Array, Array]]:
    """What to add to the logits ``given``, for each pull: [labels, d] weights and [labels] intercepts.

    ``held`` weighs each row's pull and means no intercept; without it, an intercept that costs nothing.

    Weights outside the examples' span cost and buy nothing, so there are min(n, d) directions to search. The
    Hessian is at most X'X / 2 + pull (Böhning 1992), which is diagonal along the singular directions:
    scaled by it, every direction asks for the same step. The strongest pull comes first, and each answer
    starts the next.
    """
    vectors, targets, weight = shown
    spread, directions = _singular(vectors * np.sqrt(weight)[:, None])
    inside = vectors @ directions.T.astype(vectors.dtype)
    given = given.astype(vectors.dtype)
    labels, free = given.shape[1], held is None
    row_pull = np.ones((labels, 1)) if held is None else held[:, None]
    rows, weight = np.arange(len(targets)), weight.astype(vectors.dtype)
    level = 1 / np.sqrt(0.5 * weight.sum()) if free else 0.0
    gained, lift = np.zeros((labels, len(spread))), np.zeros(labels)
    answers: dict[float, tuple[Array, Array]] = {}
    for pull in sorted(set(pulls), reverse=True):
        cost = pull * row_pull
        step = 1 / np.sqrt(0.5 * spread**2 + cost)

        def objective(flat: Array, cost: Array = cost, step: Array = step) -> tuple[float, Array]:
            variables = flat.reshape(labels, -1)
            weights = variables[:, :-1] * step
            logits = given + inside @ weights.T.astype(inside.dtype)
            if free:
                logits += (level * variables[:, -1]).astype(inside.dtype)
            logits -= logits.max(axis=1, keepdims=True)
            right = logits[rows, targets]
            shares = np.exp(logits, out=logits)
            total = shares.sum(axis=1, keepdims=True)
            loss = float(((np.log(total[:, 0]) - right) * weight).sum(dtype=np.float64))
            shares /= total
            shares[rows, targets] -= 1.0  # what is left is the error
            shares *= weight[:, None]
            gradient = np.empty_like(variables)
            gradient[:, :-1] = (shares.T @ inside + cost * weights) * step
            gradient[:, -1] = level * shares.sum(axis=0)
            return loss + 0.5 * float((cost * weights**2).sum()), gradient.ravel()

        begin = np.column_stack([gained / step, lift / level if free else lift])
        found = minimise(objective, begin.ravel(), tolerance=tolerance).reshape(labels, -1)
        gained, lift = found[:, :-1] * step, found[:, -1] * level
        answers[pull] = (gained @ directions, lift)
    return [answers[pull] for pull in pulls]


def _singular(vectors: Array) -> tuple[Array, Array]:
    """Singular values [r] and right singular vectors [r, d], through the smaller of the two Gram matrices."""
    vectors = vectors.astype(np.float64)  # squares of single precision would lose the small ones
    if len(vectors) <= vectors.shape[1]:
        squares, left = np.linalg.eigh(vectors @ vectors.T)
        kept = squares > _SAME**2 * max(float(squares.max(initial=0.0)), 1e-300)
        spread = np.sqrt(squares[kept])
        return spread, (left[:, kept] / spread).T @ vectors
    squares, right = np.linalg.eigh(vectors.T @ vectors)
    kept = squares > _SAME**2 * max(float(squares.max(initial=0.0)), 1e-300)
    return np.sqrt(squares[kept]), right[:, kept].T
