"""A Gaussian discriminant on top of the prompts (Wang et al. 2024, "A Hard-to-Beat Baseline")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nshot.few_shot.heads import Array, Head, Shown


def discriminant(shown: Shown, start: Array, *, strengths: Sequence[float]) -> list[Head]:
    """The Bayes classifier of one Gaussian per label with a shared covariance, added to a given matrix.

    With label means m_k, the examples' covariance S about them, and  P = d * ((n - 1) S + trace(S) I)^-1
    in the place of its inverse (Kubokawa & Srivastava's estimate, which needs no more examples than there
    are)::

        weights_k = start_k + strength * P m_k         bias_k = -strength * m_k' P m_k / 2

    Labels weigh the same however many examples each has. The additions are centred over the labels that
    have any, and a label without gets none: its logit stays comparable with theirs.

    Args:
        shown: the examples, their targets rows of ``start``.
        start: float64[labels, d], the prompts' matrix times its scale; zeros for none.
        strengths: how much the examples count, each at least 0.

    Returns:
        One head per strength, in the order given.
    """
    shares = np.zeros((len(shown.targets), len(start)))
    shares[np.arange(len(shares)), shown.targets] = shown.weights
    rows, bias = shared_gaussian(shown.vectors, shares)
    return [Head(start + strength * rows, strength * bias) for strength in strengths]


def shared_gaussian(vectors: Array, shares: Array) -> tuple[Array, Array]:
    """The rows P m_k and biases of ``discriminant`` from each vector's share in each label, centred.

    Args:
        vectors: float64[n, d].
        shares: float64[n, labels], rows that sum to each vector's weight; a label whose column is zero
            gets nothing.

    Returns:
        float64[labels, d] and float64[labels].
    """
    counts = shares.sum(axis=0)
    present = counts > 0
    means = (shares.T @ vectors) / np.where(present, counts, 1.0)[:, None]
    scatter = (vectors.T * shares.sum(axis=1)) @ vectors - (means.T * counts) @ means  # (n - 1) S
    dimension = vectors.shape[1]
    ridge = float(np.trace(scatter)) / max(float(counts.sum()) - 1, 1.0)
    if ridge < 1e-9:  # one example per label: nothing is known of the spread, so all directions count alike
        rows = means.copy()
    else:
        rows = dimension * np.linalg.solve(scatter + ridge * np.eye(dimension), means.T).T
    bias = -0.5 * (means * rows).sum(axis=1)
    rows = np.where(present[:, None], rows - rows[present].mean(axis=0), 0.0)
    return rows, np.where(present, bias - bias[present].mean(), 0.0)
