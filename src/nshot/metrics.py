"""Figures of a classification: pure functions from scores and targets to numbers. numpy alone.

Wherever it matters, ties are resolved so that no figure depends on the order of the images: equal scores
of one image keep the labels' order (as ``Classifier.predict`` does), equal confidences of several
images are taken together.

Shapes: n images, c classes. ``scores`` is float[n, c], higher is better; ``targets`` is int[n], each in
[0, c). A share of nothing is nan.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.errors import RequestError

Reals: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]


class Interval(NamedTuple):
    """A lower and an upper end."""

    low: float
    high: float


# How often is it right?


def ranks(scores: ArrayLike, targets: ArrayLike) -> Counts:
    """Place of each image's own label among its scores: int64[n], 0 is the best."""
    scores, targets = _pair(scores, targets)
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    ahead = scores > own
    tied = (scores == own) & (np.arange(scores.shape[1]) < targets[:, None])
    place: Counts = np.count_nonzero(ahead | tied, axis=1).astype(np.int64)
    return place


def top_k(scores: ArrayLike, targets: ArrayLike, k: int = 1) -> float:
    """Share of images whose own label is among the k best."""
    return share(ranks(scores, targets) < k)


def share(hits: ArrayLike) -> float:
    """Mean of what is true; nan of nothing."""
    values = np.asarray(hits, dtype=np.float64)
    return float(values.mean()) if values.size else float("nan")


def wilson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> Reals:
    """Wilson's interval of a share, corrected for continuity: [...] -> float64[..., 2], both in [0, 1].

    Sound for few trials and for shares near 0 and 1 (Wilson 1927; Newcombe 1998, method 4): it covers the
    true share in 95.7 to 98.7 of 100 cases at n of 10 to 100 and shares of .5 to .98, where the interval
    without the correction falls to 93.0 and a bootstrap to 20. No trials: the whole of [0, 1].
    """
    won, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    z = NormalDist().inv_cdf(0.5 + level / 2)

    def lower(won: Reals) -> Reals:
        under = z**2 - 2 - 1 / np.maximum(n, 1) + 4 * won / np.maximum(n, 1) * (n - won + 1)
        end = (2 * won + z**2 - 1 - z * np.sqrt(np.maximum(under, 0))) / (2 * (n + z**2))
        return np.where(won <= 0, 0.0, np.clip(end, 0.0, 1.0))

    ends: Reals = np.stack([lower(won), 1 - lower(n - won)], axis=-1)
    return ends


def clustered_wilson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> Reals:
    """Wilson's interval of a share whose trials come in groups: int[n], int[n] -> float64[2], in [0, 1].

    The trials of one group, such as the labels of one image, succeed or fail together, so they count for
    fewer than they are: as many as independent trials would need for the variance that the groups show
    (Korn & Graubard 1998). Groups that never differ show none; they count as one trial each. No trials: all
    of [0, 1].
    """
    won, of = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    groups, total = int(np.count_nonzero(of)), float(of.sum())
    if not groups:
        return np.array([0.0, 1.0])
    rate = float(won.sum()) / total
    spread = float(((won - rate * of) ** 2).sum()) * groups / max(1, groups - 1) / total**2
    counted = float(groups)
    if spread > 0:
        counted = min(rate * (1 - rate) / spread, total)
    return wilson(rate * counted, counted, level)


def paired_gain(right: ArrayLike, reference: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the difference of two shares on the same images: bool[n], bool[n] -> ends in [-1, 1].

    Agresti & Min 2005: half an image is added to each cell of the two-by-two table, so that a few images on
    which the two agree prove nothing. No image: [-1, 1].
    """
    one, other = np.asarray(right, dtype=bool), np.asarray(reference, dtype=bool)
    n = len(one)
    if not n:
        return Interval(-1.0, 1.0)
    only, lost = np.count_nonzero(one & ~other), np.count_nonzero(other & ~one)
    centre = (only - lost) / (n + 2)
    half = NormalDist().inv_cdf(0.5 + level / 2)
    half *= np.sqrt(only + lost + 1 - (only - lost) ** 2 / (n + 2)) / (n + 2)
    return Interval(float(max(-1.0, centre - half)), float(min(1.0, centre + half)))


# Which class is taken for which?


def confusion(predicted: ArrayLike, targets: ArrayLike, classes: int) -> Counts:
    """Counts[c, c]: row = the image's own class, column = the class answered."""
    predicted, targets = np.asarray(predicted, np.int64), np.asarray(targets, np.int64)
    counts: Counts = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def most_confused(matrix: ArrayLike, count: int = 10) -> list[tuple[int, int, int]]:
    """(own class, answered class, images) of the most frequent mistakes, most frequent first."""
    wrong = np.array(matrix, dtype=np.int64)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = np.stack(np.unravel_index(order, wrong.shape), axis=1)
    return [(int(own), int(said), int(wrong[own, said])) for own, said in pairs if wrong[own, said]]


@dataclass(frozen=True, slots=True, eq=False)
class PerClass:
    """One row per class, in the classes' order.

    Attributes:
        support: int64[c], images of the class.
        predicted: int64[c], images answered with it.
        precision, recall, f1: float64[c] in [0, 1]; nan where nothing was answered, or there is no image.
        precision_interval, recall_interval, f1_interval: float64[c, 2], Wilson at 95 %.
    """

    support: Counts
    predicted: Counts
    precision: Reals
    recall: Reals
    f1: Reals
    precision_interval: Reals
    recall_interval: Reals
    f1_interval: Reals

    @property
    def mean_recall(self) -> float:
        """Mean of the recalls of the classes that have images: each class counts the same."""
        return share(self.recall[self.support > 0])


def per_class(matrix: ArrayLike) -> PerClass:
    """Precision, recall and F1 of each class, from a confusion matrix."""
    counts = np.asarray(matrix, dtype=np.int64)
    return _counted(np.diag(counts), counts.sum(axis=1), counts.sum(axis=0))


def per_label(shown: ArrayLike, relevant: ArrayLike) -> PerClass:
    """Precision, recall and F1 of each label where an image may have several: bool[n, c], bool[n, c]."""
    said, truth = np.asarray(shown, dtype=bool), np.asarray(relevant, dtype=bool)
    return _counted((said & truth).sum(axis=0), truth.sum(axis=0), said.sum(axis=0))


def _counted(hit: Counts, support: Counts, predicted: Counts) -> PerClass:
    """The shares of counts, and their intervals.

    F1 is no binomial share, but J = TP / (TP + FP + FN) is one and F1 = 2J / (1 + J) grows with it, so
    Wilson's ends of J are carried over.
    """
    jaccard = wilson(hit, support + predicted - hit)
    with np.errstate(invalid="ignore"):
        return PerClass(
            support=support,
            predicted=predicted,
            precision=hit / predicted,
            recall=hit / support,
            f1=2 * hit / (support + predicted),
            precision_interval=wilson(hit, predicted),
            recall_interval=wilson(hit, support),
            f1_interval=2 * jaccard / (1 + jaccard),
        )


# An image with several labels


def average_precision(scores: ArrayLike, relevant: ArrayLike) -> float:
    """Area under the precision-recall steps of one class: [n], bool[n] -> [0, 1]; nan without a positive."""
    scores, relevant = np.asarray(scores), np.asarray(relevant, dtype=bool)
    if not relevant.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(relevant[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # ties are taken together
    precision, recall = found[ends] / (ends + 1), found[ends] / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def average_precisions(scores: ArrayLike, relevant: ArrayLike) -> Reals:
    """float64[c] of ``average_precision``: [n, c], bool[n, c]; the mean without nan is the mAP."""
    scores, relevant = np.asarray(scores), np.asarray(relevant, dtype=bool)
    return np.array([average_precision(scores[:, k], relevant[:, k]) for k in range(scores.shape[1])])


# Does the score mean what it says?


def nll(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Mean negative log-likelihood of each image's own label, in nats."""
    chance, targets = _pair(probabilities, targets)
    own = np.take_along_axis(chance, targets[:, None], axis=1)
    return float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean()) if own.size else float("nan")


def brier(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Mean squared distance between the probabilities and the one-hot truth, in [0, 2]."""
    chance, targets = _pair(probabilities, targets)
    own = np.take_along_axis(chance, targets[:, None], axis=1)[:, 0]
    return share((chance**2).sum(axis=1) - 2 * own + 1)  # sum (p - y)^2 without writing y down


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Bins of equal mass: what was promised, and what was kept.

    Attributes:
        confidence: float64[bins], mean confidence, growing.
        accuracy: float64[bins], share of right answers.
        count: int64[bins], images.
    """

    confidence: Reals
    accuracy: Reals
    count: Counts

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap over images, in [0, 1]."""
        if not self.count.sum():
            return float("nan")
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.count))


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Sort by confidence and cut into bins of equal numbers of images (Nixon et al. 2019).

    Bins of equal width leave most bins to a handful of images, since confidences crowd near 1. Equal
    confidences stay in one bin, so there may be fewer bins than asked for.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    order = np.argsort(confidence, kind="stable")
    confidence, correct = confidence[order], correct[order]
    cuts = np.arange(bins) * len(order) // max(bins, 1)
    starts = np.unique(np.searchsorted(confidence, confidence[cuts])) if len(order) else cuts[:0]
    count = np.diff(starts, append=len(order))
    if not len(starts):
        return Reliability(np.empty(0), np.empty(0), count)
    sums = np.add.reduceat(np.stack([confidence, correct]), starts, axis=1)
    return Reliability(sums[0] / count, sums[1] / count, count)


# When should one not believe it?


def auroc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Chance that a positive scores above a negative; ties count half. [p], [q] -> [0, 1]."""
    positive, negative = np.asarray(positive, np.float64), np.sort(np.asarray(negative, np.float64))
    if not positive.size or not negative.size:
        return float("nan")
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.mean() / 2 / negative.size)


def fpr_at_tpr(positive: ArrayLike, negative: ArrayLike, tpr: float = 0.95) -> float:
    """Share of the negatives accepted by the strictest threshold that accepts ``tpr`` of the positives."""
    positive, negative = np.sort(np.asarray(positive, np.float64)), np.asarray(negative, np.float64)
    if not positive.size or not negative.size:
        return float("nan")
    needed = int(np.ceil(tpr * positive.size - 1e-9))
    return share(negative >= positive[positive.size - max(needed, 1)])


@dataclass(frozen=True, slots=True, eq=False)
class RiskCoverage:
    """The surest first: share answered, and share of those that are wrong.

    Attributes:
        coverage: float64[n], 1/n ... 1.
        risk: float64[n] in [0, 1].
        threshold: float64[n], the least confidence answered at that coverage.
    """

    coverage: Reals
    risk: Reals
    threshold: Reals

    @property
    def area(self) -> float:
        """AURC, the mean risk over all coverages (Geifman and El-Yaniv 2017); lower is better."""
        return share(self.risk)

    def at(self, coverage: float) -> tuple[float, float]:
        """(risk, threshold) when at least this share of the images, in (0, 1], is answered."""
        if not len(self.coverage):
            return float("nan"), float("nan")
        row = int(np.ceil(coverage * len(self.coverage) - 1e-9)) - 1
        row = min(max(row, 0), len(self.coverage) - 1)
        return float(self.risk[row]), float(self.threshold[row])


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """Answer only the surest, and see how often they are wrong: [n], bool[n] -> curve."""
    confidence, wrong = np.asarray(confidence, np.float64), 1.0 - np.asarray(correct, np.float64)
    order = np.argsort(-confidence, kind="stable")
    confidence, wrong = confidence[order], wrong[order]
    # Equal confidences come in no order of their own: each carries the mean of its block.
    _, block, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = (np.bincount(block, weights=wrong) / size)[block] if len(order) else wrong
    answered = np.arange(1, len(order) + 1)
    return RiskCoverage(answered / max(len(order), 1), np.cumsum(wrong) / answered, confidence)


def _pair(scores: ArrayLike, targets: ArrayLike) -> tuple[Reals, Counts]:
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets, dtype=np.int64)
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise RequestError(f"scores [n, classes] and targets [n] do not fit: {scores.shape}, {targets.shape}")
    if targets.size and not 0 <= targets.min() <= targets.max() < scores.shape[1]:
        raise RequestError(f"targets must be in [0, {scores.shape[1]})")
    return scores, targets
