"""Whether a first, cheaper classifier may answer for a last one: margins and agreements in, a margin out.

An image whose margin under the first classifier reaches the threshold t is answered by it, and every other
one by the last. The answers then differ from the last classifier's for a share R(t) = P(margin >= t and both
differ) of the images, which only grows as t falls. Thresholds are tried from the largest down, on images
drawn at random: at each, the hypothesis R(t) > 1 - agree is tested by the binomial distribution, and the
search ends with the first that cannot be rejected. Since the order is fixed beforehand, all that are rejected
hold at once (fixed-sequence testing: Angelopoulos et al., "Learn then Test", 2021). Conformal risk control
would keep the mean over many draws only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.errors import RequestError
from nshot.metrics import wilson

# the margins that are tried, in units of logits: fixed before any image is seen
THRESHOLDS: tuple[float, ...] = (*(64 * 2 ** (-step / 16) for step in range(16 * 12)), 0.0)

LEVEL = 0.95
"""How often the promise holds, over the draws of the images that it was learnt on."""


def needed(agree: float, level: float = LEVEL) -> int:
    """The fewest images from which any threshold can be learnt: 299 for 0.99."""
    return math.ceil(math.log(1 - level) / math.log(agree))


def learn(margins: ArrayLike, same: ArrayLike, agree: float, *, level: float = LEVEL) -> float:
    """The smallest margin that the first classifier may be believed from.

    Args:
        margins: float[n], of images drawn at random: its best logit less its second.
        same: bool[n], whether its answer is the last classifier's.
        agree: the promised share of answers that are the last classifier's, between 0 and 1.
        level: how often the promise is to hold.

    Returns:
        The threshold; infinity where none can be promised, so that every image goes on.

    Raises:
        RequestError: ``agree`` is not between 0 and 1.
    """
    if not 0 < agree < 1:
        raise RequestError(f"the agreement must lie between 0 and 1, not {agree:g}")
    margins, same = np.asarray(margins, np.float64), np.asarray(same, bool)
    wrong = np.sort(margins[~same])
    found = math.inf
    for threshold in THRESHOLDS:
        differing = len(wrong) - int(np.searchsorted(wrong, threshold))
        if _at_most(differing, len(margins), 1 - agree) > 1 - level:
            break
        found = threshold
    return found


@dataclass(frozen=True, slots=True)
class Checked:
    """What a threshold did with images that it was not learnt on.

    Attributes:
        images: how many they are.
        agreement: the share of answers that are the last classifier's.
        interval: its 95 % interval (Wilson's, corrected for continuity).
        went_on: the share of images that went on to the last classifier.
    """

    images: int
    agreement: float
    interval: tuple[float, float]
    went_on: float


def check(margins: ArrayLike, same: ArrayLike, threshold: float) -> Checked:
    """How a threshold does on images with margins float[n] and agreements bool[n]; n is at least 1."""
    goes_on = np.asarray(margins) < threshold
    right = goes_on | np.asarray(same, bool)
    low, high = wilson(right.sum(), len(right))
    interval = (float(low), float(high))
    return Checked(len(right), float(right.mean()), interval, float(goes_on.mean()))


def margins_of(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """float[n, k] -> float[n]: the best less the second; infinite where there is only one label."""
    if logits.shape[1] < 2:
        return np.full(len(logits), math.inf)
    two = np.partition(logits, -2, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def _at_most(count: int, trials: int, share: float) -> float:
    """P(X <= count) for a binomial X."""
    logs = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(share) + (trials - k) * math.log1p(-share)
        for k in range(count + 1)
    ]  # fmt: skip
    return math.fsum(map(math.exp, logs))
