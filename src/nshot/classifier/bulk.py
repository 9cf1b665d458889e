"""Many vectors asked at once: the answers as arrays, at nearly the speed of the product itself.

The product is made in float32, where ``Classifier.predict`` makes it in float64. Labels and their order are
the same: where two cosines are so near that float32 might turn them around, the image is asked again exactly.
Scores and cosines agree to six decimals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.classifier import Classifier
from nshot.errors import RequestError
from nshot.types import Floats

_ROWS = 4096  # vectors of one product
_NEARBY = 128  # of those, how many are looked at together: their logits stay near the processor
_NEAR = 1e-6  # in cosines: several times what float32 gets wrong


@dataclass(frozen=True, slots=True)
class Answers:
    """The best labels of n images, best first.

    Attributes:
        labels: int[n, k], rows of the classifier's matrix.
        scores: float32[n, k], as ``Prediction.score``.
        cosines: float32[n, k].
        margins: float32[n], the best cosine minus the second best's; nan where there is only one label.
    """

    labels: NDArray[np.int32]
    scores: Floats
    cosines: Floats
    margins: Floats

    @classmethod
    def none(cls, count: int, told: int) -> Answers:
        """So many rows that say nothing yet."""
        return cls(
            np.zeros((count, told), np.int32),
            np.zeros((count, told), np.float32),
            np.zeros((count, told), np.float32),
            np.full(count, np.nan, np.float32),
        )

    def rows(self, which: NDArray[Any]) -> Answers:
        """Some of the images, by index."""
        return Answers(self.labels[which], self.scores[which], self.cosines[which], self.margins[which])


def can(classifier: Any) -> bool:
    """Whether it is asked here: a classifier without a decision."""
    return isinstance(classifier, Classifier) and classifier.decision is None


def columns(classifier: Classifier) -> Floats:
    """The labels as the product takes them, scaled, float32[d, labels]: once for many calls of ``ask``."""
    return np.ascontiguousarray(classifier.matrix.T * classifier.scale, np.float32)


def ask(classifier: Classifier, vectors: Floats, top_k: int = 5, *, table: Floats | None = None) -> Answers:
    """The best labels of each vector.

    Args:
        classifier: without a decision.
        vectors: float32[n, d], unit rows.
        top_k: how many labels to tell of each, at most.
        table: the classifier's ``columns``, where they are made already.

    Raises:
        RequestError: vectors of another length, or ``top_k`` under 1.
    """
    if top_k < 1:
        raise RequestError(f"top_k must be at least 1, not {top_k}")
    if vectors.ndim != 2 or vectors.shape[1] != classifier.dimension:
        raise RequestError(
            f"this classifier reads vectors [n, {classifier.dimension}], not {list(vectors.shape)}: "
            "they were made by another model, or are no vectors"
        )
    count, told = len(vectors), min(top_k, len(classifier.labels))
    answers = Answers.none(count, told)
    table = columns(classifier) if table is None else table
    near: list[int] = []
    # one piece of memory for all products: a fresh one each time costs a fifth of the product
    held = np.empty((min(count, _ROWS), len(classifier.labels)), np.float32)
    for start in range(0, count, _ROWS):
        rows = slice(start, min(start + _ROWS, count))
        logits = np.matmul(vectors[rows], table, out=held[: rows.stop - rows.start])
        near += _block(classifier, logits, rows, answers)
    if near:
        _exactly(classifier, vectors, near, answers)
    return answers


def _block(classifier: Classifier, logits: Floats, rows: slice, answers: Answers) -> list[int]:
    """Answer some rows; those come back that float32 cannot tell.

    Args:
        classifier: what is asked.
        logits: float32[m, labels], the bias not yet added; used up.
        rows: which they are.
        answers: where their answers go.
    """
    labels, told = logits.shape[1], answers.labels.shape[1]
    scale, bias = classifier.scale, classifier.bias
    if bias.any():
        logits += bias
    # One label more than is told: the margin, and whether the last one told is surely before the next.
    wanted = min(told + 1, labels) if told > 1 else min(2, labels)
    best, high, others = _best(logits, wanted)
    with np.errstate(divide="ignore", invalid="ignore"):  # a label that weighs nothing: asked again below
        cosines = (high - bias[best]) / scale[best]
    if classifier.activation == "softmax":
        weights = np.exp(high - high[:, :1])
        scores = weights[:, :told] / (weights.sum(axis=1, keepdims=True) + others)
    else:
        scores = 1 / (1 + np.exp(-high[:, :told].astype(np.float64)))
    answers.labels[rows], answers.cosines[rows] = best[:, :told], np.clip(cosines[:, :told], -1, 1)
    answers.scores[rows] = scores
    if wanted == 1:
        return []
    answers.margins[rows] = cosines[:, 0] - cosines[:, 1]
    width = _NEAR * float(np.abs(scale).max() + np.abs(bias).max())
    again = ~(high[:, :-1] - high[:, 1:] >= width).all(axis=1) | (scale[best] == 0).any(axis=1)
    return (np.flatnonzero(again) + rows.start).tolist()  # type: ignore[no-any-return]


def _best(logits: Floats, wanted: int) -> tuple[NDArray[np.intp], Floats, Floats]:
    """The greatest logits of each row; ``logits`` is used up.

    Returns:
        Their columns, int[m, wanted]; themselves, float32[m, wanted], greatest first; and float32[m, 1], the
        sum of exp(logit - the greatest) over all others.
    """
    count, labels = logits.shape
    best = np.empty((count, wanted), np.intp)
    high = np.empty((count, wanted), np.float32)
    others = np.empty((count, 1), np.float32)
    begins = np.arange(0, _NEARBY * labels, labels)  # where each row begins
    one = np.ones((labels, 1), np.float32)
    for start in range(0, count, _NEARBY):
        rows = slice(start, min(start + _NEARBY, count))
        piece = logits[rows]
        flat = piece.reshape(-1)
        for rank in range(wanted):
            best[rows, rank] = at = piece.argmax(axis=1)
            at += begins[: len(at)]
            high[rows, rank] = flat[at]
            flat[at] = -np.inf
        piece -= high[rows, :1]
        np.exp(piece, out=piece)
        np.matmul(piece, one, out=others[rows])  # faster than sum(axis=1)
    return best, high, others


def _exactly(classifier: Classifier, vectors: Floats, rows: list[int], answers: Answers) -> None:
    """These images as ``Classifier.predict`` answers them."""
    places = {label: place for place, label in enumerate(classifier.labels)}
    exact = classifier.predict(vectors[rows], top_k=answers.labels.shape[1])
    for row, answer in zip(rows, exact, strict=True):
        answers.labels[row] = [places[told.label] for told in answer.predictions]
        answers.scores[row] = [told.score for told in answer.predictions]
        answers.cosines[row] = [told.cosine for told in answer.predictions]
        if answer.margin is not None:
            answers.margins[row] = answer.margin
