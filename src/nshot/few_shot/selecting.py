"""Which images to label next: those that the classifier is least sure of, and none twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier.classifier import Classifier
from nshot.decision.softmax import activate
from nshot.errors import RequestError
from nshot.unit import normalize

_SAME = 0.02  # one minus the cosine of two images of which one label would do
_LAST = 1e6  # takes an image behind all others


def select(
    vectors: ArrayLike,
    classifier: Classifier,
    count: int,
    *,
    labelled: ArrayLike | None = None,
) -> NDArray[np.intp]:
    """The images whose labels would tell the classifier most, best first.

    One at a time, the image whose labels' shares of the softmax have the largest entropy, of those that no
    chosen or labelled image is nearly the same as (cosine over 0.98); those come last. The softmax is taken
    of a sigmoid model's logits too: the question is which label is best. On six recorded sets this finds more
    than the gap between the two best labels times the distance to what is known (bench/few_shot.py).

    Args:
        vectors: float[n, d], images without labels.
        classifier: the one to improve.
        count: how many to choose; all, if there are no more.
        labelled: float[m, d], images that have labels already.

    Returns:
        Rows of ``vectors``, int[min(count, n)].

    Raises:
        RequestError: no image, a count under 1, or vectors that do not fit the classifier.
    """
    rows = np.asarray(vectors)
    if count < 1 or not len(rows):
        raise RequestError("an image at least is needed, and one at least to choose")
    if len(classifier.labels) < 2:
        raise RequestError("one label leaves nothing to be unsure of")
    shares = activate(classifier.logits(rows), "softmax")
    unsure = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1)
    units = normalize(rows).astype(np.float64)
    nearest = np.full(len(rows), 2.0)
    if labelled is not None and len(known := np.asarray(labelled)):
        nearest = np.minimum(nearest, 1.0 - (units @ normalize(known).astype(np.float64).T).max(axis=1))
    left = np.ones(len(rows), dtype=bool)
    chosen = []
    for _ in range(min(count, len(rows))):
        worth = np.where(left, np.where(nearest > _SAME, unsure, unsure - _LAST), -np.inf)
        best = int(worth.argmax())
        chosen.append(best)
        left[best] = False
        nearest = np.minimum(nearest, 1.0 - units @ units[best])
    return np.array(chosen, dtype=np.intp)
