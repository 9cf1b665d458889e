"""Parts of labelled images for cross-validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def fold_numbers(targets: ArrayLike, folds: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """A fold for each image, so that every fold is as large and every label spread as evenly as can be.

    Args:
        targets: int[n], each image's label.
        folds: how many folds, at least 1.
        generator: shuffles the images.

    Returns:
        int[n] in [0, folds).
    """
    labels = np.asarray(targets)
    order = generator.permutation(len(labels))
    dealt = order[np.argsort(labels[order], kind="stable")]
    numbers = np.empty(len(labels), dtype=np.intp)
    numbers[dealt] = np.arange(len(labels)) % folds
    return numbers
