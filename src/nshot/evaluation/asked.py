"""Labelled images asked block by block: of each image what figures need, and no more.

Memory grows by some hundred bytes per image, whatever the number of labels and the length of the vectors;
only for images with several labels are all scores held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nshot import metrics
from nshot.classifier.classifier import Classifier
from nshot.decision import Decision
from nshot.decision.compared import Compared
from nshot.embeddings import Embeddings
from nshot.errors import LabelError, RequestError
from nshot.evaluation import label_errors
from nshot.evaluation.label_errors import Suspect
from nshot.metrics import Bools, Counts, Reals
from nshot.types import Floats

_CHUNK = 4096  # images scored at once


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The own labels of n images, as numbers.

    Attributes:
        ends: int64[n + 1], where each image's numbers end.
        numbers: int32[m], of all images one after the other.
        labels: how many labels there are.
    """

    ends: NDArray[np.int64]
    numbers: NDArray[np.int32]
    labels: int

    @classmethod
    def of(cls, images: Embeddings, labels: Sequence[str]) -> Truth:
        """The truth about labelled images.

        Raises:
            RequestError: none, or without labels.
            LabelError: a label that is none of these.
        """
        column = {label: k for k, label in enumerate(labels)}
        if images.labels is None or not len(images):
            raise RequestError(
                "evaluating needs labelled images: embed a labelled set, or use with_labels(...)"
            )
        sizes = np.fromiter(map(len, images.labels), np.int64, len(images))
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        numbers = np.empty(int(ends[-1]), np.int32)
        place = 0
        for row, own in enumerate(images.labels):
            for label in own:
                if label not in column:
                    raise LabelError(
                        f"{images.sources[row]} is labelled {label!r}, none of the {len(labels)} labels"
                    )
                numbers[place] = column[label]
                place += 1
        return cls(ends, numbers, len(labels))

    def __len__(self) -> int:
        return len(self.ends) - 1

    @property
    def sizes(self) -> Counts:
        """int64[n], how many labels each image has."""
        return self.ends[1:] - self.ends[:-1]

    def dense(self, start: int = 0, stop: int | None = None) -> Bools:
        """bool[n, labels] of these images, all by default."""
        stop = len(self) if stop is None else min(stop, len(self))
        relevant = np.zeros((stop - start, self.labels), dtype=bool)
        rows = np.repeat(np.arange(stop - start), np.diff(self.ends[start : stop + 1]))
        relevant[rows, self.numbers[self.ends[start] : self.ends[stop]]] = True
        return relevant


@dataclass(slots=True, eq=False)
class Asked:
    """What came of asking n images.

    Attributes:
        answers: int64[n], the best label.
        own: int64[n], the own label (the best-scored one of several); -1 where there is none.
        place: int64[n], the place of the own label; -1 where there is none.
        confidence: float64[n], the best label's score.
        own_scores: float64[n], the own label's; nan where there is none.
        surprise: float64[n], of the own label, in nats; nan where there is none.
        squares: float64[n], squared distance of the scores from the truth; nan where there is none.
        known: int64[k], images that have a label.
        hits: bool[k, ways], whether each other way to ask is right about them.
        decided: figures of the classifier's own decision.
        scores, logits: float64[n, c] each, of images with several labels; None otherwise.
        suspects: labels in doubt, most doubtful first; of images with one label each.
    """

    answers: Counts
    own: Counts
    place: Counts
    confidence: Reals
    own_scores: Reals
    surprise: Reals
    squares: Reals
    known: NDArray[np.intp]
    hits: Bools
    decided: dict[str, float]
    scores: Reals | None
    logits: Reals | None
    suspects: list[Suspect]


def ask(
    classifier: Classifier,
    images: Embeddings,
    truth: Truth,
    ways: Mapping[str, Classifier],
    *,
    several: bool,
    seed: int,
) -> Asked:
    """Ask a classifier, and other ways to ask the same, about labelled images; each vector is read once.

    Where there are more scores than are held at once, a second reading looks for labels in doubt.

    Args:
        classifier: the one that is evaluated.
        images: the images.
        truth: their labels.
        ways: other classifiers with the same labels.
        several: an image may have any number of labels.
        seed: of the label errors.
    """
    n = len(images)
    sizes = truth.sizes
    known = np.flatnonzero(sizes)
    counts = [np.full(n, -1, np.int64) for _ in range(3)]
    answers, own, place = counts
    confidence, own_scores, surprise, squares = (np.full(n, np.nan) for _ in range(4))
    hits = np.zeros((n, len(ways)), dtype=bool)
    verdicts = _Verdicts(classifier)
    some = label_errors.sampled(n, truth.labels, seed=seed)
    hold = several or some is None
    held: list[Reals] = []
    raw: list[Reals] = []
    for start, vectors, relevant in _blocks(images, truth):
        rows = slice(start, start + len(vectors))
        compared = classifier.compare(vectors)
        means = classifier.decision or Decision()
        logits = means.logits(compared)  # order by logits: scores that are rounded to 1 would tie
        scores = means.scores(logits, classifier.activation)
        line = np.arange(len(vectors))
        has_own: Bools = sizes[rows] > 0
        best = logits.argmax(axis=1)
        mine = np.where(relevant, logits, -np.inf).argmax(axis=1)
        answers[rows] = best
        own[rows] = np.where(has_own, mine, -1)
        place[rows] = np.where(has_own, metrics.ranks(logits, mine), -1)
        confidence[rows] = scores[line, best]
        of_own = scores[line, mine]
        own_scores[rows] = np.where(has_own, of_own, np.nan)
        surprise[rows] = np.where(has_own, -np.log(np.maximum(of_own, np.finfo(np.float64).tiny)), np.nan)
        squares[rows] = np.where(has_own, (scores**2).sum(axis=1) - 2 * of_own + 1, np.nan)
        for column, way in enumerate(ways.values()):
            hits[rows, column] = relevant[line, way.logits(vectors).argmax(axis=1)]
        verdicts.add(compared, scores, relevant, has_own)
        if hold:
            held.append(scores)
        elif some is not None:
            low, high = np.searchsorted(some, (rows.start, rows.stop))
            held.append(scores[some[low:high] - start])
        if several:
            raw.append(logits)
    suspects: list[Suspect] = []
    if not several and some is None:
        suspects = label_errors.find(np.concatenate(held), own, images.vectors, seed=seed)
    elif not several:

        def again() -> Iterator[tuple[Reals, Counts]]:
            for start, vectors, _ in _blocks(images, truth):
                yield classifier.scores(vectors), own[start : start + len(vectors)]

        suspects = label_errors.find_in_blocks(again(), np.concatenate(held), own[some])
    return Asked(
        answers,
        own,
        place,
        confidence,
        own_scores,
        surprise,
        squares,
        known,
        hits if len(known) == n else hits[known],
        verdicts.figures(),
        np.concatenate(held) if several else None,
        np.concatenate(raw) if several else None,
        suspects,
    )


def _blocks(images: Embeddings, truth: Truth) -> Iterator[tuple[int, Floats, Bools]]:
    for start in range(0, len(images), _CHUNK):
        yield start, images.vectors[start : start + _CHUNK], truth.dense(start, start + _CHUNK)


class _Verdicts:
    """What comes of a classifier's own decision: how much it answers, and how much of that is right."""

    def __init__(self, classifier: Classifier) -> None:
        decision = classifier.decision
        one_rule = decision is not None and (decision.rejection is not None or decision.surest is not None)
        self._decision = decision if decision is not None and (decision.coverage or one_rule) else None
        self._sizes: list[Counts] = []
        self._held: list[Bools] = []

    def add(self, compared: Compared, scores: Reals, relevant: Bools, known: Bools) -> None:
        """Some more images; those without a label of their own do not count."""
        if self._decision is None or not known.any():
            return
        if not known.all():
            compared, scores, relevant = compared.rows(known), scores[known], relevant[known]
        verdicts = self._decision.verdicts(compared, scores)
        self._sizes.append(np.array([len(verdict.labels) for verdict in verdicts], np.int64))
        held = [any(own[list(verdict.labels)]) for verdict, own in zip(verdicts, relevant, strict=True)]
        self._held.append(np.array(held, dtype=bool))

    def figures(self) -> dict[str, float]:
        """By their names."""
        if self._decision is None:
            return {}
        sizes = np.concatenate([np.empty(0, np.int64), *self._sizes])
        held = np.concatenate([np.empty(0, dtype=bool), *self._held])
        if self._decision.coverage is not None:
            return {"set_coverage": metrics.share(held), "mean_set_size": metrics.share(sizes)}
        answered = sizes > 0
        return {"answered": metrics.share(answered), "right_of_answered": metrics.share(held[answered])}
