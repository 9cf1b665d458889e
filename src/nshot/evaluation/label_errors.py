"""Images whose given label the others contradict: often the label is what is wrong.

Two witnesses are asked: the classifier, at the temperature at which it explains the given labels best, and a
linear probe that has learnt the labels from the other images, so that no image speaks for its own label.
An image is doubtful where their probabilities together (the geometric mean, normalised) give another label
more than its own, and the more so the smaller its own label's share is of the two. (Northcutt, Jiang and
Chuang 2021 rank by the own label's probability alone, which finds fewer labels swapped for likely ones.)
The classifier must not have learnt from these labels; a zero-shot one has not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.decision.calibration import Calibration, fit_calibration
from nshot.decision.folds import fold_numbers
from nshot.decision.softmax import Reals, activate
from nshot.few_shot.heads import Shown
from nshot.few_shot.logistic import plain_probe
from nshot.unit import normalize

_FOLDS = 5
_C = 10.0  # of the probe; on recorded sets with labels swapped 1 and 100 find fewer (bench/decisions.py)
_MOST = 2_000_000  # images times labels from which the classifier is asked alone: a probe would take minutes
_PROBED = 50_000  # images from which it is so too: their vectors would take a gigabyte
_TEMPERED = 4_000_000  # scores by which a temperature is told; more are asked for block by block
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Suspect:
    """An image whose label is in doubt.

    Attributes:
        row: which image.
        given: the label it has.
        suggested: the label that it would rather be given.
        given_score: the probability of the given label, in [0, 1].
        suggested_score: that of the suggested one, in [0, 1].
    """

    row: int
    given: int
    suggested: int
    given_score: float
    suggested_score: float


def find(
    scores: ArrayLike, targets: ArrayLike, vectors: ArrayLike | None = None, *, seed: int = 0
) -> list[Suspect]:
    """The images that are rather of another label than of the one given, most doubtful first.

    Args:
        scores: float[n, c] in [0, 1], the classifier's; rows sum to 1.
        targets: int[n], the given labels.
        vectors: float[n, d], the images', for the second witness; None asks the classifier alone.
        seed: of the probe's folds.
    """
    return _sorted(_doubtful(probabilities(scores, targets, vectors, seed=seed), targets))


def sampled(images: int, labels: int, *, seed: int = 0) -> NDArray[np.int64] | None:
    """The images whose scores tell the temperature of so many, in order; None: all of them are held.

    A temperature is one number: a part of millions tells it as well as all.
    """
    most = max(_TEMPERED // max(labels, 1), 1)
    if images <= most:
        return None
    return np.sort(np.random.default_rng(seed).choice(images, most, replace=False))


def find_in_blocks(
    blocks: Iterable[tuple[Reals, NDArray[np.int64]]], some: Reals, targets: NDArray[np.int64]
) -> list[Suspect]:
    """As ``find`` by the classifier alone, for more images than there is room for.

    Args:
        blocks: scores float64[m, c] and given labels int64[m], block by block.
        some: float64[k, c], the scores of images that tell the temperature; see ``sampled``.
        targets: int64[k], the labels given to those.
    """
    calibration = fit_calibration(_log(some), targets) if some.shape[1] > 1 and len(some) else None
    found, start = [], 0
    for scores, given in blocks:
        said = _log(scores) if calibration is None else _applied(_log(scores), calibration)
        found += _doubtful(activate(said, "softmax"), given, start)
        start += len(given)
    return _sorted(found)


def _doubtful(chance: Reals, targets: ArrayLike, start: int = 0) -> list[Suspect]:
    given = np.asarray(targets, np.int64)
    rows, best = np.arange(len(given)), chance.argmax(axis=1)
    own, other = chance[rows, given], chance[rows, best]
    return [
        Suspect(start + i, int(given[i]), int(best[i]), float(own[i]), float(other[i]))
        for i in np.flatnonzero(other > own).tolist()
    ]


def _sorted(found: list[Suspect]) -> list[Suspect]:
    return sorted(found, key=lambda each: each.given_score / each.suggested_score)


def probabilities(
    scores: ArrayLike, targets: ArrayLike, vectors: ArrayLike | None = None, *, seed: int = 0
) -> Reals:
    """What both witnesses say of every image: float64[n, c], rows that sum to 1. Arguments as ``find``."""
    y = np.asarray(targets, np.int64)
    said = _log(scores)
    if said.shape[1] < 2 or not len(y):
        return activate(said, "softmax")
    together = _tempered(said, y)
    few = len(y) * said.shape[1] <= _MOST and len(y) <= _PROBED
    if vectors is not None and few and len(np.unique(y)) > 1:
        learnt, rows = _held_out(normalize(vectors).astype(np.float64), y, seed)
        other = np.full((len(rows), said.shape[1]), np.log(_TINY))
        other[:, np.unique(y)] = learnt[rows]
        together[rows] = (together[rows] + _tempered(other, y[rows])) / 2 if len(rows) else 0.0
    return activate(together, "softmax")


def _held_out(vectors: Reals, y: NDArray[np.int64], seed: int) -> tuple[Reals, NDArray[np.intp]]:
    """Log probabilities of a probe taught by the other folds, [n, labels present], and whose they are.

    An only image of its label has nobody to speak for it, and is left to the classifier.
    """
    _, places = np.unique(y, return_inverse=True)
    counts = np.bincount(places)
    folds = fold_numbers(places, min(_FOLDS, len(y)), np.random.default_rng(seed))
    found = np.zeros((len(y), len(counts)))
    for fold in np.unique(folds):
        out = folds == fold
        [head] = plain_probe(
            Shown.of(vectors[~out], places[~out]), len(counts), strengths=[_C], tolerance=1e-2
        )
        found[out] = np.log(np.maximum(activate(head.logits(vectors[out]), "softmax"), _TINY))
    return found, np.flatnonzero(counts[places] > 1)


def _tempered(logits: Reals, y: NDArray[np.int64]) -> Reals:
    """Log probabilities at the temperature that explains the given labels best."""
    if not len(y):
        return logits
    return _applied(logits, fit_calibration(logits, y))


def _applied(logits: Reals, calibration: Calibration) -> Reals:
    return _log(activate(calibration.apply(logits), "softmax"))


def _log(scores: ArrayLike) -> Reals:
    logs: Reals = np.log(np.maximum(np.asarray(scores, np.float64), _TINY))
    return logs
