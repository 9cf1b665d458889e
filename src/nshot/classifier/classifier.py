"""A classifier is a labelled matrix: one unit row a label, compared with an image's unit vector."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.decision.calibration import activate
from nshot.decision.compared import Compared, cosines
from nshot.decision.decision import Decision
from nshot.errors import LabelError, RequestError
from nshot.types import Activation, Decided, Embedded, Failure, Floats, LabelScore, Prediction
from nshot.unit import normalize

_CHUNK = 512  # vectors scored at once: bounds the memory of a run with many labels
_PATIENCE = 0.2  # seconds that a stream's answers may wait for company


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Labels, their matrix, and how a cosine becomes a score.

    For an image x and label k, with both normalised along the feature axis::

        cosine[k] = matrix[k] . x                       in [-1, 1], independent of the other labels
        logit[k]  = scale[k] * cosine[k] + bias[k]
        score     = softmax(logit)  or  sigmoid(logit)  in [0, 1]; not a calibrated probability

    A per-label ``scale`` holds the row norms of a linear probe, so zero-shot and few-shot are one thing.

    Args:
        labels: n distinct names.
        matrix: float[n, d]; rows are normalised here, so a raw bank of text vectors will do.
        scale: the checkpoint's logit scale (about 100 for OpenAI's CLIP), one number or one per label.
        bias: added to the logits, one number or one per label.
        activation: softmax over the labels (CLIP), or each label by itself (SigLIP).
        space: digest of the weights of the model that the matrix belongs to; None if unknown.
        decision: when not to believe an answer; answers are ``Decided`` then.

    Raises:
        LabelError: no label, or one given twice.
        RequestError: a matrix that does not fit the labels, or holds a zero or non-finite row.
    """

    labels: tuple[str, ...]
    matrix: Floats
    scale: Floats
    bias: Floats
    activation: Activation
    space: str | None
    decision: Decision | None

    def __init__(
        self,
        labels: Sequence[str],
        matrix: ArrayLike,
        scale: float | ArrayLike,
        bias: float | ArrayLike = 0.0,
        activation: Activation = "softmax",
        space: str | None = None,
        decision: Decision | None = None,
    ) -> None:
        labels = tuple(labels)
        if not labels:
            raise LabelError("a classifier needs at least one label")
        if repeated := sorted({label for label in labels if labels.count(label) > 1}):
            raise LabelError(f"label given twice: {', '.join(map(repr, repeated))}")
        if activation not in ("softmax", "sigmoid"):
            raise RequestError(f"activation must be softmax or sigmoid, not {activation!r}")
        rows = np.asarray(matrix)
        if rows.ndim != 2 or len(rows) != len(labels):
            raise RequestError(f"{len(labels)} labels need a matrix of {len(labels)} rows, not {rows.shape}")
        for name, value in (
            ("labels", labels),
            ("matrix", normalize(rows, names=labels)),
            ("scale", _per_label("scale", scale, len(labels))),
            ("bias", _per_label("bias", bias, len(labels))),
            ("activation", activation),
            ("space", space),
            ("decision", decision),
        ):
            object.__setattr__(self, name, value)

    def with_decision(self, decision: Decision | None) -> Classifier:
        """The same classifier, whose answers this decision (or none) is applied to."""
        other = copy.copy(self)
        object.__setattr__(other, "decision", decision)
        return other

    @property
    def dimension(self) -> int:
        """Length d of the vectors that this classifier reads."""
        return int(self.matrix.shape[1])

    def cosines(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """Cosine of each vector with each label: [n, d] -> float64[n, labels], each in [-1, 1].

        Raises:
            RequestError: another length than the matrix has, or a zero or non-finite vector.
        """
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise RequestError(
                f"this classifier reads vectors [n, {self.dimension}], not {list(vectors.shape)}: "
                "were they made by another model?"
            )
        return cosines(vectors, self.matrix)

    def compare(self, vectors: ArrayLike) -> Compared:
        """The vectors [n, d] and how they compare with the labels, as decisions take them.

        Raises:
            RequestError: as ``cosines``.
        """
        return Compared(np.asarray(vectors), self.cosines(vectors), self.scale, self.bias)

    def logits(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """Scaled and shifted cosines: [n, d] -> float64[n, labels]."""
        return self.cosines(vectors) * self.scale + self.bias

    def scores(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """[n, d] -> float64[n, labels], each in [0, 1]; rows sum to 1 under softmax. Never calibrated."""
        return activate(self.logits(vectors), self.activation)

    def predict(
        self, vectors: ArrayLike | Iterable[Embedded | Failure], *, top_k: int = 5
    ) -> list[Prediction | Failure]:
        """The best labels of each vector, best first; equal logits keep the labels' order.

        Args:
            vectors: [n, d] or [d], normalised here; or what ``Embedder.embed_images`` yields, whose
                failures are passed on in their places.
            top_k: how many labels to tell of each, at most; at least 1.

        Raises:
            RequestError: vectors that do not fit this classifier, or ``top_k`` under 1.
        """
        if isinstance(vectors, Iterator) or (
            isinstance(vectors, (list, tuple)) and vectors and isinstance(vectors[0], (Embedded, Failure))
        ):
            return list(self.stream(vectors, top_k=top_k))
        rows = np.asarray(vectors)
        if rows.size == 0:
            return []
        rows = np.atleast_2d(rows)
        answers: list[Prediction | Failure] = []
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            answers += self._answers([f"[{start + i}]" for i in range(len(chunk))], chunk, top_k)
        return answers

    def stream(
        self, embedded: Iterable[Embedded | Failure], *, top_k: int = 5
    ) -> Iterator[Prediction | Failure]:
        """The same as ``predict`` for a stream: answers come in input order, as vectors do."""
        waiting: list[Embedded | Failure] = []
        since = time.monotonic()
        for item in embedded:
            if not waiting:
                since = time.monotonic()
            waiting.append(item)
            if len(waiting) == _CHUNK or time.monotonic() - since > _PATIENCE:
                yield from self._answer(waiting, top_k)
                waiting = []
        yield from self._answer(waiting, top_k)

    def _answer(self, items: Sequence[Embedded | Failure], top_k: int) -> Iterator[Prediction | Failure]:
        images = [item for item in items if isinstance(item, Embedded)]
        if images:
            vectors = np.stack([image.vector for image in images])
            answers = iter(self._answers([image.source for image in images], vectors, top_k))
        for item in items:
            yield next(answers) if isinstance(item, Embedded) else item

    def _answers(self, sources: Sequence[str], vectors: NDArray[Any], top_k: int) -> list[Prediction]:
        if top_k < 1:
            raise RequestError(f"top_k must be at least 1, not {top_k}")
        images = self.compare(vectors)
        logits = images.logits
        told = min(top_k, len(self.labels))
        best = _best(logits, max(told, min(2, len(self.labels))))
        decision = self.decision
        scores = (decision or Decision()).scores(logits, self.activation)
        scores_of_best = np.take_along_axis(scores, best, axis=1).tolist()
        cosines_of_best = np.take_along_axis(images.cosines, best, axis=1).tolist()
        labels = self.labels
        answers = []
        for source, order, score, cosine in zip(
            sources, best.tolist(), scores_of_best, cosines_of_best, strict=True
        ):
            ranked = tuple(LabelScore(labels[k], score[i], cosine[i]) for i, k in enumerate(order[:told]))
            answers.append(Prediction(source, ranked, cosine[0] - cosine[1] if len(order) > 1 else None))
        if decision is None:
            return answers
        verdicts = decision.verdicts(images, scores)
        return [
            Decided(
                answer.source,
                answer.predictions,
                answer.margin,
                verdict.answer,
                tuple(labels[k] for k in verdict.labels),
                decision.calibrated,
            )
            for answer, verdict in zip(answers, verdicts, strict=True)
        ]


def _per_label(name: str, value: float | ArrayLike, labels: int) -> Floats:
    numbers = np.asarray(value, dtype=np.float32)
    if numbers.ndim > 1 or numbers.size not in (1, labels) or not np.isfinite(numbers).all():
        raise RequestError(f"{name} must be one finite number, or one for each of the {labels} labels")
    return np.broadcast_to(numbers, (labels,))


def _best(logits: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Columns of the ``count`` highest logits of each row, best first; ties keep the columns' order."""
    if count == logits.shape[1]:
        return np.argsort(-logits, axis=1, kind="stable")
    found = np.sort(np.argpartition(-logits, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(logits, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)
