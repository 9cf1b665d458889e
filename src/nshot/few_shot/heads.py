"""Examples in, a head out: what every method of this package is given and hands back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier.classifier import Classifier
from nshot.decision.softmax import log_sum_exp

Array: TypeAlias = NDArray[np.float64]
Targets: TypeAlias = NDArray[np.intp]

_AT_ONCE = 2**22  # numbers of examples that are widened, or compared with labels, at once
_ALIKE = 4  # first numbers of a vector by which examples are put in order
_FEW = 64  # examples alike in these that are compared one with another


class Shown(NamedTuple):
    """The examples. Of many, one copy is held; what is computed of them is computed block by block.

    Attributes:
        vectors: float32[n, d] or float64[n, d], unit rows.
        targets: int[n], each one's label.
        weights: float64[n]: how many images like it there are; 0 for one that is not learnt from.
        exact: compute in float64, in which form ever the vectors are held.
    """

    vectors: NDArray[Any]
    targets: Targets
    weights: Array
    exact: bool = True

    @classmethod
    def of(cls, vectors: ArrayLike, targets: ArrayLike) -> Shown:
        """Examples that weigh 1 each."""
        rows = np.asarray(vectors, np.float64)
        return cls(rows, np.asarray(targets, np.intp), np.ones(len(rows)))

    def rows(self, which: NDArray[np.bool_]) -> Shown:
        """Some of them."""
        return self._replace(
            vectors=self.vectors[which], targets=self.targets[which], weights=self.weights[which]
        )

    def but(self, which: NDArray[np.bool_]) -> Shown:
        """All but some of them; of many without a copy of the others."""
        if len(self.blocks(1)) == 1:
            return self.rows(~which)
        return self._replace(weights=np.where(which, 0.0, self.weights))

    def blocks(self, width: int) -> list[slice]:
        """Rows that are worked on at once, each with ``width`` numbers beside; few examples are one block."""
        rows = max(_AT_ONCE // max(self.vectors.shape[1], width, 1), 256)
        return [slice(start, start + rows) for start in range(0, max(len(self.vectors), 1), rows)]

    def wide(self, rows: slice) -> Array:
        """The vectors of a block in float64."""
        return self.vectors[rows].astype(np.float64, copy=False)

    def working(self, rows: slice) -> Array:
        """The vectors of a block as they are computed with."""
        return self.wide(rows) if self.exact else self.vectors[rows]

    def counts(self, labels: int) -> Array:
        """What the examples of each label weigh together: float64[labels]."""
        return np.bincount(self.targets, self.weights, minlength=labels).astype(np.float64)

    def merged(self) -> Shown:
        """The same examples in an order of their own, equal ones as a single one that weighs more.

        Whatever is learnt from them then depends neither on their order nor on whether an example was
        given twice or weighed double, and no copy of an example is held out while the other is learnt from.
        """
        order, new = self._order()
        first = order[new]
        weights = np.bincount(np.cumsum(new) - 1, self.weights[order]).astype(np.float64)
        return self._replace(vectors=self.vectors[first], targets=self.targets[first], weights=weights)

    def _order(self) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """The examples by label and by the bytes of their vectors, and which are unlike the one before.

        By the first numbers, and by all of them only where these are equal: keys of all the numbers would
        take as much again as the vectors.
        """
        keys = np.column_stack([self.targets.astype(np.float64), self.vectors[:, :_ALIKE].astype(np.float64)])
        as_bytes = np.ascontiguousarray(keys).view(f"V{keys.shape[1] * 8}").ravel()
        order = np.argsort(as_bytes, kind="stable")
        ordered = as_bytes[order]
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        starts = np.flatnonzero(new)
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
            if end - start > 1:
                order[start:end], new[start + 1 : end] = self._alike(order[start:end], _ALIKE)
        return order, new

    def _alike(self, rows: NDArray[np.intp], column: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Examples equal up to a column, in order, and which but the first are unlike the one before."""
        if len(rows) <= _FEW or column >= self.vectors.shape[1]:
            held = [(self.vectors[row, column:].astype(np.float64).tobytes(), row) for row in rows.tolist()]
            held.sort()
            unlike = [one[0] != two[0] for one, two in itertools.pairwise(held)]
            return np.array([row for _, row in held], np.intp), np.array(unlike, bool)
        keys = np.ascontiguousarray(self.vectors[rows, column : column + _FEW].astype(np.float64))
        as_bytes = keys.view(f"V{keys.shape[1] * 8}").ravel()
        order = np.argsort(as_bytes, kind="stable")
        rows, ordered = rows[order], as_bytes[order]
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        starts = np.flatnonzero(new)
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
            if end - start > 1:
                rows[start:end], new[start + 1 : end] = self._alike(rows[start:end], column + _FEW)
        return rows, new[1:]


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
