"""A Gaussian discriminant on top of the prompts (Wang et al. 2024, "A Hard-to-Beat Baseline")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    moments = Moments.none(*start.shape)
    for block in shown.blocks(len(start)):
        targets = shown.targets[block]
        shares = np.zeros((len(targets), len(start)))
        shares[np.arange(len(shares)), targets] = shown.weights[block]
        moments.add(shown.wide(block), shares)
    rows, bias = moments.gaussian()
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
    moments = Moments.none(shares.shape[1], vectors.shape[1])
    moments.add(vectors, shares)
    return moments.gaussian()


@dataclass(slots=True)
class Moments:
    """What a Gaussian per label is made of, added up over the examples.

    Attributes:
        counts: float64[labels], what the examples of each label weigh.
        sums: float64[labels, d], of their vectors.
        squares: float64[d, d], of all vectors' products with themselves.
    """

    counts: Array
    sums: Array
    squares: Array

    @classmethod
    def none(cls, labels: int, dimension: int) -> Moments:
        """Of no example yet."""
        return cls(np.zeros(labels), np.zeros((labels, dimension)), np.zeros((dimension, dimension)))

    def add(self, vectors: Array, shares: Array) -> None:
        """Some examples more, as ``shared_gaussian`` has them."""
        self.counts += shares.sum(axis=0)
        self.sums += shares.T @ vectors
        self.squares += (vectors.T * shares.sum(axis=1)) @ vectors

    def gaussian(self) -> tuple[Array, Array]:
        """The rows and biases, as ``shared_gaussian`` returns them."""
        present = self.counts > 0
        means = self.sums / np.where(present, self.counts, 1.0)[:, None]
        scatter = self.squares - (means.T * self.counts) @ means  # (n - 1) S
        dimension = means.shape[1]
        ridge = float(np.trace(scatter)) / max(float(self.counts.sum()) - 1, 1.0)
        if (
            ridge < 1e-9
        ):  # one example per label: nothing is known of the spread, so all directions count alike
            rows = means.copy()
        else:
            rows = dimension * np.linalg.solve(scatter + ridge * np.eye(dimension), means.T).T
        bias = -0.5 * (means * rows).sum(axis=1)
        rows = np.where(present[:, None], rows - rows[present].mean(axis=0), 0.0)
        return rows, np.where(present, bias - bias[present].mean(), 0.0)
