"""Images compared with a matrix of labels: the arrays that every decision is made from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.unit import lengths

_ALONE = 262_144  # multiplications up to which OpenBLAS stays with one thread
_LEAST = 32  # rows of a part; under that the parts cost more than the threads


class Compared(NamedTuple):
    """n images of d numbers, compared with k labels.

    Attributes:
        vectors: float[n, d], of any length.
        cosines: float64[n, k], each in [-1, 1].
        scale: float[k], what a cosine is multiplied with.
        bias: float[k], what is added then.
    """

    vectors: NDArray[Any]
    cosines: NDArray[np.float64]
    scale: NDArray[Any]
    bias: NDArray[Any]

    @property
    def logits(self) -> NDArray[np.float64]:
        """Scaled and shifted cosines: float64[n, k]."""
        logits: NDArray[np.float64] = self.cosines * self.scale + self.bias
        return logits

    def rows(self, which: NDArray[Any]) -> Compared:
        """Some of the images, by index or mask."""
        return self._replace(vectors=self.vectors[which], cosines=self.cosines[which])

    def without(self, label: int) -> Compared:
        """The same images, compared with one label fewer."""
        return Compared(
            self.vectors,
            np.delete(self.cosines, label, axis=1),
            np.delete(self.scale, label),
            np.delete(self.bias, label),
        )


def compare(
    vectors: ArrayLike, matrix: ArrayLike, scale: float | ArrayLike = 1.0, bias: float | ArrayLike = 0.0
) -> Compared:
    """Compare images with labels.

    Args:
        vectors: float[n, d].
        matrix: float[k, d], unit rows.
        scale: one number, or one per label.
        bias: likewise.

    Raises:
        RequestError: a zero or non-finite vector.
    """
    rows = np.asarray(vectors)
    found = cosines(rows, matrix)
    shape = found.shape[1:]
    return Compared(rows, found, np.broadcast_to(scale, shape), np.broadcast_to(bias, shape))


def cosines(vectors: ArrayLike, matrix: ArrayLike) -> NDArray[np.float64]:
    """Cosine of each vector with each unit row: float[n, d], float[k, d] -> float64[n, k] in [-1, 1].

    The product is made in float64 and rounded to nine decimals, more than float32 vectors carry, so that
    an answer does not depend on how many were asked with it.

    Raises:
        RequestError: a zero or non-finite vector.
    """
    wide = np.asarray(vectors, np.float64)
    product = _product(wide, np.asarray(matrix, np.float64).T) / lengths(wide)
    return np.clip(product.round(9), -1.0, 1.0)


def _product(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix product; a small one in parts for which OpenBLAS wakes no threads, which would cost more."""
    at_once = _ALONE // max(columns.size, 1)
    if not _LEAST <= at_once < len(rows):
        product: NDArray[np.float64] = rows @ columns
        return product
    product = np.empty((len(rows), columns.shape[1]))
    for start in range(0, len(rows), at_once):
        np.matmul(rows[start : start + at_once], columns, out=product[start : start + at_once])
    return product
