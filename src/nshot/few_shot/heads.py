"""Examples in, a head out: what every method of this package is given and hands back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier.classifier import Classifier
from nshot.decision.softmax import log_sum_exp

Array: TypeAlias = NDArray[np.float64]
Targets: TypeAlias = NDArray[np.intp]


class Shown(NamedTuple):
    """The examples.

    Attributes:
        vectors: float64[n, d], unit rows.
        targets: int[n], each one's label.
        weights: float64[n], each more than 0: how many images like it there are.
    """

    vectors: Array
    targets: Targets
    weights: Array

    @classmethod
    def of(cls, vectors: ArrayLike, targets: ArrayLike) -> Shown:
        """Examples that weigh 1 each."""
        rows = np.asarray(vectors, np.float64)
        return cls(rows, np.asarray(targets, np.intp), np.ones(len(rows)))

    def rows(self, which: NDArray[np.bool_]) -> Shown:
        """Some of them."""
        return Shown(self.vectors[which], self.targets[which], self.weights[which])

    def counts(self, labels: int) -> Array:
        """What the examples of each label weigh together: float64[labels]."""
        return np.bincount(self.targets, self.weights, minlength=labels).astype(np.float64)

    def merged(self) -> Shown:
        """The same examples in an order of their own, equal ones as a single one that weighs more.

        Whatever is learnt from them then depends neither on their order nor on whether an example was
        given twice or weighed double, and no copy of an example is held out while the other is learnt from.
        """
        keys = np.column_stack([self.targets.astype(np.float64), self.vectors])
        as_bytes = np.ascontiguousarray(keys).view(f"V{keys.shape[1] * 8}").ravel()
        _, first, place = np.unique(as_bytes, return_index=True, return_inverse=True)
        return Shown(
            self.vectors[first], self.targets[first], np.bincount(place, self.weights).astype(np.float64)
        )


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


def log_loss(logits: Array, targets: Targets) -> Array:
    """Negative log of the softmax at each row's target: [n, labels], [n] -> [n], in nats."""
    loss: Array = log_sum_exp(logits) - logits[np.arange(len(targets)), targets]
    return loss
