"""Which images to label next: those that the classifier is least sure of, and none twice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier.classifier import Classifier
from nshot.decision.softmax import activate
from nshot.errors import RequestError
from nshot.unit import normalize

_SAME = 0.02  # one minus the cosine of two images of which one label would do
_CHUNK = 1024  # images compared at once


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
    rows: Any = vectors if hasattr(vectors, "take_rows") else np.asarray(vectors)  # stored ones stay there
    if count < 1 or not len(rows):
        raise RequestError("an image at least is needed, and one at least to choose")
    if len(classifier.labels) < 2:
        raise RequestError("one label leaves nothing to be unsure of")
    unsure = np.concatenate(
        [_entropy(classifier, rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK)]
    )
    known = np.asarray([] if labelled is None else labelled)
    near = normalize(known).astype(np.float64) if len(known) else np.empty((0, rows.shape[1]))
    chosen: list[int] = []
    alike: list[int] = []
    order = np.argsort(-unsure, kind="stable")
    for start in range(0, len(order), _CHUNK):
        some = order[start : start + _CHUNK]
        units = normalize(rows[some]).astype(np.float64)
        cosines = (units @ near.T).max(axis=1, initial=-1.0)
        for place, row in enumerate(some.tolist()):
            if len(chosen) == count:
                break
            if 1.0 - cosines[place] <= _SAME:
                alike.append(row)
                continue
            chosen.append(row)
            near = np.concatenate([near, units[place][None]])
            cosines = np.maximum(cosines, units @ units[place])
        if len(chosen) == count:
            break
    return np.array([*chosen, *alike][:count], dtype=np.intp)


def _entropy(classifier: Classifier, vectors: NDArray[Any]) -> NDArray[np.float64]:
    shares = activate(classifier.logits(vectors), "softmax")
    entropy: NDArray[np.float64] = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1)
    return entropy
