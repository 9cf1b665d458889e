"""Images whose given label a model contradicts with confidence: often the label is what is wrong.

Confident learning (Northcutt, Jiang and Chuang 2021): a class's own images say what score is usual for it,
so a model that is sure of everything, or of nothing, is judged by its own habits. The scores must come from
a model that has not learnt from these labels; a zero-shot classifier has not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Suspect:
    """An image whose label is in doubt.

    Attributes:
        row: which image.
        given: the label it has.
        suggested: the label that the model would rather give.
        given_score: the model's score of the given label, in [0, 1].
        suggested_score: its score of the suggested one, in [0, 1].
    """

    row: int
    given: int
    suggested: int
    given_score: float
    suggested_score: float


def find(scores: ArrayLike, targets: ArrayLike) -> list[Suspect]:
    """The off-diagonal of the confident joint, most doubtful first.

    A class's threshold is the mean score of the class over the images that are labelled with it. An image
    counts confidently for the best-scored class among those whose threshold it reaches; where that is another
    than the given one, the label is in doubt. Ranked by score of the given label minus score of the other.

    Args:
        scores: float[n, c] in [0, 1].
        targets: int[n], the given labels.
    """
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets, np.int64)
    n, c = scores.shape
    rows = np.arange(n)
    own = scores[rows, targets]
    support = np.bincount(targets, minlength=c)
    # A class without an image has no usual score, so nothing is confidently of it.
    usual = np.where(support > 0, np.bincount(targets, own, c) / np.maximum(support, 1), np.inf)
    confident = np.where(scores >= usual, scores, -np.inf)
    best = confident.argmax(axis=1)
    doubtful = np.flatnonzero((confident[rows, best] > own) & (best != targets))
    order = doubtful[np.argsort((own - scores[rows, best])[doubtful], kind="stable")]
    return [
        Suspect(int(i), int(targets[i]), int(best[i]), float(own[i]), float(scores[i, best[i]]))
        for i in order
    ]
