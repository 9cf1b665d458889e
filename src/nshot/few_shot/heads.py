"""A head: what every method of this package hands back, one weight row and one bias a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.classifier import Classifier

Array: TypeAlias = NDArray[np.float64]
Targets: TypeAlias = NDArray[np.intp]


class Head(NamedTuple):
    """Weights float64[labels, d] and bias float64[labels]: logit = weights @ x + bias."""

    weights: Array
    bias: Array

    def logits(self, vectors: Array) -> Array:
        """[n, d] -> [n, labels]."""
        return vectors @ self.weights.T + self.bias

    def classifier(self, labels: Sequence[str], space: str | None) -> Classifier:
        """The same head as a labelled matrix: the rows' lengths become its scale."""
        lengths = np.linalg.norm(self.weights, axis=1)
        rows = self.weights.copy()
        rows[lengths == 0.0, 0] = (
            1.0  # a label that nothing speaks for: any direction will do, its scale is 0
        )
        return Classifier(labels, rows, scale=lengths, bias=self.bias, space=space)


def one_hot(targets: Targets, labels: int) -> Array:
    """[n] -> float64[n, labels], a one in each row."""
    chosen = np.zeros((len(targets), labels))
    chosen[np.arange(len(targets)), targets] = 1.0
    return chosen


def log_loss(logits: Array, targets: Targets) -> Array:
    """Negative log of the softmax at each row's target: [n, labels], [n] -> [n], in nats."""
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    loss: Array = total - logits[np.arange(len(targets)), targets]
    return loss


def class_means(vectors: Array, targets: Targets, labels: int) -> tuple[Array, Array]:
    """Each label's mean vector, zeros for none, and its number of examples: [labels, d], [labels]."""
    chosen = one_hot(targets, labels)
    counts = chosen.sum(axis=0)
    return (chosen.T @ vectors) / np.maximum(counts, 1.0)[:, None], counts


def softmax(logits: Array) -> Array:
    """[n, labels] -> shares, rows that sum to 1."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares
