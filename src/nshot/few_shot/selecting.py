"""Which images to label next: those that the classifier is unsure of, and no two alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier.classifier import Classifier
from nshot.decision.softmax import activate
from nshot.errors import RequestError
from nshot.unit import normalize


def select(
    vectors: ArrayLike,
    classifier: Classifier,
    count: int,
    *,
    labelled: ArrayLike | None = None,
) -> NDArray[np.intp]:
    """The images whose labels would tell the classifier most, best first.

    One at a time, the image of the largest  unsureness * distance: one minus the gap between its two best
    labels' shares of the softmax, times its distance to the nearest image that is chosen or labelled
    already (greedy k-centre, weighted). The softmax is taken of a sigmoid model's logits too: the question is
    which of the labels an image has; its own scores, all near 0, say how likely each is by itself.

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
    shares = np.sort(activate(classifier.logits(rows), "softmax"), axis=1)
    unsure = 1.0 - (shares[:, -1] - shares[:, -2])
    units = normalize(rows).astype(np.float64)
    nearest = np.full(len(rows), 2.0)
    if labelled is not None and len(known := np.asarray(labelled)):
        nearest = np.minimum(nearest, 1.0 - (units @ normalize(known).astype(np.float64).T).max(axis=1))
    left = np.ones(len(rows), dtype=bool)
    chosen = []
    for _ in range(min(count, len(rows))):
        worth = np.where(left, (unsure + 1e-6) * np.maximum(nearest, 1e-6), -1.0)
        best = int(worth.argmax())
        chosen.append(best)
        left[best] = False
        nearest = np.minimum(nearest, 1.0 - units @ units[best])
    return np.array(chosen, dtype=np.intp)
