"""Tip-Adapter's cache (Zhang et al. 2022): an image is like the examples that it resembles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nshot.few_shot.heads import Array, Head, Targets, class_means, one_hot

SHARPNESS = 5.5  # the paper's beta


def cache_logits(
    queries: Array,
    vectors: Array,
    targets: Targets,
    start: Array,
    *,
    strength: float,
    sharpness: float = SHARPNESS,
) -> Array:
    """The cache as published: start @ q + strength * sum_i exp(-sharpness * (1 - q @ x_i)) * one_hot(y_i).

    It keeps every example and is no matrix, so nshot uses it to compare with, not to classify.

    Returns:
        float64[queries, labels].
    """
    affinity = np.exp(-sharpness * (1.0 - queries @ vectors.T))
    return queries @ start.T + strength * affinity @ one_hot(targets, len(start))


def linear_cache(
    vectors: Array,
    targets: Targets,
    start: Array,
    *,
    strengths: Sequence[float],
    sharpness: float = SHARPNESS,
) -> list[Head]:
    """The cache to first order about the examples' mean cosine c, where it is a matrix::

        exp(-sharpness (1 - q @ x))  ~  g * (1 + sharpness * (q @ x - c)),   g = exp(-sharpness (1 - c))

    Labels weigh the same however many examples each has; the additions are centred over the labels that
    have any.

    Args:
        vectors: float64[n, d].
        targets: int[n], rows of ``start``.
        start: float64[labels, d], the prompts' matrix times its scale.
        strengths: the paper's alpha.
        sharpness: the paper's beta.

    Returns:
        One head a strength, in the order given.
    """
    means, counts = class_means(vectors, targets, len(start))
    present = counts > 0
    centre = vectors.mean(axis=0)
    slope = sharpness * np.exp(-sharpness * (1.0 - float(centre @ centre))) * len(vectors) / present.sum()
    rows = np.where(present[:, None], slope * (means - means[present].mean(axis=0)), 0.0)
    # The constant part is the same for every label here, and so changes no answer.
    return [Head(start + strength * rows, np.zeros(len(start))) for strength in strengths]
