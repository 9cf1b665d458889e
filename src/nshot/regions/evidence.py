"""How much of something one label has, in odds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]


def log_odds(logits: Reals, background: Reals | None = None) -> Reals:
    """The logarithm of each label's odds against all others under softmax: 0 is one to one.

    Args:
        logits: float64[n, labels].
        background: float64[n, m], logits of other things that there may be; with one label they are needed.

    Returns:
        float64[n, labels], exact also where a label has nearly everything.
    """
    count = logits.shape[1]
    every = logits if background is None else np.concatenate([logits, background], axis=1)
    if every.shape[1] < 2:
        raise ValueError("odds of one label against nothing")
    rows = np.arange(len(every))
    best = every.argmax(axis=1)
    most = every[rows, best]
    shares = np.exp(every - most[:, None])
    rest = shares.sum(axis=1, keepdims=True) - shares
    rest[rows, best] = 1  # a small difference of large numbers there: summed anew
    others = most[:, None] + np.log(rest)
    without = every.copy()
    without[rows, best] = -np.inf
    second = without.max(axis=1)
    others[rows, best] = second + np.log(np.exp(without - second[:, None]).sum(axis=1))
    result: Reals = (every - others)[:, :count]
    return result


def sigmoid(values: Reals) -> Reals:
    """1 / (1 + exp(-x)), without overflow."""
    result: Reals = 0.5 * (1 + np.tanh(0.5 * values))
    return result
