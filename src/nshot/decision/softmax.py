"""Logits -> scores: the one softmax, the one sigmoid."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nshot.types import Activation

Reals: TypeAlias = NDArray[np.float64]


def activate(logits: NDArray[Any], activation: Activation) -> Reals:
    """float[..., labels] -> float64[..., labels], each in [0, 1]; rows sum to 1 under softmax."""
    if activation == "sigmoid":
        each: Reals = np.exp(-np.logaddexp(0.0, -logits))
        return each
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    share: Reals = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return share


def log_sum_exp(logits: NDArray[Any]) -> Reals:
    """Log of the sum of the exponentials along the last axis: [..., labels] -> [...]."""
    top = logits.max(axis=-1)
    total: Reals = top + np.log(np.exp(logits - top[..., None]).sum(axis=-1))
    return total
