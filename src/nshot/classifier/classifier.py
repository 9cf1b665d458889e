"""A classifier is a labelled matrix: one unit row per label, compared with an image's unit vector."""

from __future__ import annotations

import copy
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier import file
from nshot.classifier.predictions import Predictions
from nshot.decision.checking import check
from nshot.decision.compared import Compared, cosines
from nshot.decision.decision import Decision
from nshot.decision.several import Several
from nshot.embeddings import Embeddings
from nshot.errors import LabelError, RequestError
from nshot.types import (
    Activation,
    Decided,
    Embedded,
    Failure,
    Floats,
    LabelScore,
    Prediction,
    Recipe,
)
from nshot.unit import normalize

_CHUNK = 512  # vectors scored at once: bounds the memory of a run with many labels
_SHOWN = 4  # labels in a classifier's repr
_PATIENCE = 0.2  # seconds that a stream's answers may wait for company


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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
        model: the name of that model, as a person would give it to ``nshot.load``; None if unknown.
        made: how the classifier was made, as JSON holds it.
        examples: sha256 of the images that it was fitted on; empty for zero-shot.
        report: what fitting or calibrating found on the way (``Fitted``, ``CalibrationReport``); not saved.

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
    model: str | None
    made: Mapping[str, Any]
    examples: frozenset[bytes]
    report: Any

    def __init__(
        self,
        labels: Sequence[str],
        matrix: ArrayLike,
        scale: float | ArrayLike,
        bias: float | ArrayLike = 0.0,
        activation: Activation = "softmax",
        space: str | None = None,
        decision: Decision | None = None,
        *,
        model: str | None = None,
        made: Mapping[str, Any] | None = None,
        examples: Iterable[bytes] = (),
    ) -> None:
        labels = tuple(labels)
        if not labels:
            raise LabelError("a classifier needs at least one label")
        if repeated := sorted(label for label, count in Counter(labels).items() if count > 1):
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
            ("model", model),
            ("made", dict(made or {})),
            ("examples", frozenset(examples)),
            ("report", None),
        ):
            object.__setattr__(self, name, value)

    @property
    def several(self) -> Several | None:
        """How any number of labels is answered; None: the classifier answers with one label per image."""
        return None if self.decision is None else self.decision.several

    @property
    def stages(self) -> tuple[str, ...]:
        """What the models of a cascade are called, in their order; empty where there is but one."""
        return ()

    def with_decision(self, decision: Decision | None) -> Classifier:
        """The same classifier, whose answers this decision (or none) is applied to."""
        return self._with(decision=decision)

    def with_activation(self, activation: Activation) -> Classifier:
        """The same classifier, whose logits become scores in this way.

        A model that was trained with one of the two gives scores that mean little under the other until they
        are calibrated; which label is best stays.

        Raises:
            RequestError: no such activation, or a calibration that was learnt for the other one.
        """
        if activation not in ("softmax", "sigmoid"):
            raise RequestError(f"activation must be softmax or sigmoid, not {activation!r}")
        if activation == self.activation:
            return self
        if self.decision is not None and self.decision.calibrated:
            raise RequestError("the scores were calibrated under another activation: calibrate again")
        return self._with(activation=activation)

    def with_provenance(
        self,
        *,
        model: str | None = None,
        made: Mapping[str, Any] | None = None,
        examples: Iterable[bytes] = (),
        report: object = None,
    ) -> Classifier:
        """The same classifier with what is known of how it was made; what is not given stays."""
        return self._with(
            model=model or self.model,
            made={**self.made, **(made or {})},
            examples=self.examples | frozenset(examples),
            report=report or self.report,
        )

    def _with(self, **changes: Any) -> Classifier:
        other = copy.copy(self)
        for name, value in changes.items():
            object.__setattr__(other, name, value)
        return other

    def reordered(self, labels: Sequence[str]) -> Classifier:
        """The same classifier with its labels in another order.

        Raises:
            LabelError: these are not its labels.
        """
        if sorted(labels) != sorted(self.labels):
            raise LabelError(f"these are not the labels of the classifier: {', '.join(map(repr, labels))}")
        rows = [self.labels.index(label) for label in labels]
        return self._with(
            labels=tuple(labels), matrix=self.matrix[rows], scale=self.scale[rows], bias=self.bias[rows]
        )

    def save(self, path: str | Path) -> None:
        """Write the classifier into one file (by convention .nshot), as a whole or not at all.

        Raises:
            OutputError: it cannot be written there.
        """
        file.write(path, {name: getattr(self, name) for name in file.ARRAYS}, self.told())

    def told(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON holds it."""
        return {
            "labels": list(self.labels),
            "activation": self.activation,
            "space": self.space,
            "model": self.model,
            "decision": None if self.decision is None else self.decision.to_dict(),
            "made": dict(self.made),
            "examples": sorted(digest.hex() for digest in self.examples),
        }

    @classmethod
    def open(cls, path: str | Path) -> Classifier:
        """Read a classifier that ``save`` wrote; nothing in the file is run.

        Raises:
            RequestError: there is no such file, or it is not a classifier of nshot's.
        """
        arrays, told = file.read(path)
        with file.opening(path):
            return cls.of_told(arrays, told)

    @classmethod
    def of_told(cls, arrays: Mapping[str, Floats], told: Mapping[str, Any]) -> Classifier:
        """The classifier of these arrays and what ``told`` told of it."""
        labels = told["labels"]
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise TypeError("its labels are no list of texts")
        found = cls(
            labels,
            **arrays,
            activation=told["activation"],
            space=told["space"] if "space" in told else told["fingerprint"],
            decision=None if told["decision"] is None else Decision.from_dict(told["decision"]),
            model=told["model"],
            made=file.check_made(told["made"] if "made" in told else told["recipe"]),
            examples=map(bytes.fromhex, told.get("examples", ())),
        )
        if found.decision is not None:
            check(found.decision, len(found.labels), found.dimension, found.scale)
        return found

    def check_space(self, recipe: Recipe | None, model: str | None, *, name: str = "this classifier") -> None:
        """Refuse vectors of another model; where one side does not say where it is from, nothing is refused.

        Args:
            recipe: that of the vectors; None if unknown.
            model: the name of the model that made them.
            name: what to call this classifier in the error, its file for one.

        Raises:
            RequestError: the weights differ; both models are named.
        """
        if self.space is None or recipe is None or self.space == recipe.space:
            return
        mine = self.model or "another model"
        raise RequestError(
            f"{name} belongs to {mine} (weights {self.space[:12]}), and the vectors are of "
            f"{model or 'another model'} (weights {recipe.space[:12]}): use --model {mine}, or fit again"
        )

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
                "they were made by another model, or are no vectors"
            )
        return cosines(vectors, self.matrix)

    def compare(self, vectors: ArrayLike) -> Compared:
        """The vectors [n, d] and how they compare with the labels, as decisions take them.

        Raises:
            RequestError: as ``cosines``.
        """
        return Compared(np.asarray(vectors), self.cosines(vectors), self.scale, self.bias)

    def logits(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """What labels are ordered and scored by: [n, d] -> float64[n, labels].

        Scaled and shifted cosines; where an image may show several labels, against the background.
        """
        return (self.decision or Decision()).logits(self.compare(vectors))

    def scores(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """[n, d] -> float64[n, labels], each in [0, 1]; under softmax rows sum to 1.

        They are the scores that ``predict`` tells: probabilities once the classifier is calibrated.
        """
        return (self.decision or Decision()).scores(self.logits(vectors), self.activation)

    def predict(
        self, images: Embeddings | ArrayLike | Iterable[Embedded | Failure], *, top_k: int = 5
    ) -> Predictions:
        """The best labels of each image, best first; equal logits keep the labels' order.

        Args:
            images: embeddings (``clip.embed(...)``, ``nshot.open("vectors.npz")``), what
                ``Embedder.embed_images`` yields, or a bare array [n, d] or [d], of which nothing tells
                whether the same model made it. Failures are passed on in their places.
            top_k: how many labels to tell of each, at most; at least 1.

        Raises:
            RequestError: not embeddings; or of another model, where they say so; or ``top_k`` under 1.
        """
        if isinstance(images, Embeddings):
            self.check_space(images.recipe, images.model)
        return Predictions(self.stream(records_of(images), top_k=top_k))

    def stream(
        self, embedded: Iterable[Embedded | Failure], *, top_k: int = 5
    ) -> Iterator[Prediction | Failure]:
        """The same as ``predict`` for a stream: answers come in input order, as vectors do."""
        for items in in_chunks(embedded):
            yield from self.answer(items, top_k)

    def answer(
        self, items: Sequence[Embedded | Failure], top_k: int, compared: Compared | None = None
    ) -> Iterator[Prediction | Failure]:
        """The answers of a few images that are compared at once, in their order.

        Args:
            items: the images.
            top_k: how many labels to tell of each, at most.
            compared: what ``compare`` made of those that are embedded, where that is known already.
        """
        images = [item for item in items if isinstance(item, Embedded)]
        if images:
            if compared is None:
                compared = self.compare(np.stack([image.vector for image in images]))
            answers = iter(self._answers(images, top_k, compared))
        for item in items:
            yield next(answers) if isinstance(item, Embedded) else item

    def _answers(self, images: Sequence[Embedded], top_k: int, compared: Compared) -> list[Prediction]:
        if top_k < 1:
            raise RequestError(f"top_k must be at least 1, not {top_k}")
        decision = self.decision
        logits = (decision or Decision()).logits(compared)
        told = min(top_k, len(self.labels))
        best = _best(logits, max(told, min(2, len(self.labels))))
        scores = (decision or Decision()).scores(logits, self.activation)
        scores_of_best = np.take_along_axis(scores, best, axis=1).tolist()
        cosines_of_best = np.take_along_axis(compared.cosines, best, axis=1).tolist()
        labels = self.labels
        verdicts = None if decision is None else decision.verdicts(compared, scores, logits)
        answers = []
        for row, (image, order, score, cosine) in enumerate(
            zip(images, best.tolist(), scores_of_best, cosines_of_best, strict=True)
        ):
            ranked = tuple(map(LabelScore, [labels[k] for k in order[:told]], score, cosine))
            margin = cosine[0] - cosine[1] if len(order) > 1 else None
            if verdicts is None or decision is None:
                answers.append(
                    Prediction(image.source, ranked, margin, notes=image.notes, beside=image.beside)
                )
                continue
            answer, own = verdicts[row]
            answers.append(
                Decided(
                    image.source,
                    ranked,
                    margin,
                    answer,
                    tuple(labels[k] for k in own),
                    decision.calibrated,
                    notes=image.notes,
                    beside=image.beside,
                )
            )
        return answers

    def __repr__(self) -> str:
        shown = ", ".join(self.labels[:_SHOWN]) + (", ..." if len(self.labels) > _SHOWN else "")
        of = f", {self.model}" if self.model else ""
        decision = "" if self.decision is None else ", with a decision"
        return f"<Classifier: {len(self.labels)} labels ({shown}) x {self.dimension}{of}{decision}>"


def records_of(images: Embeddings | ArrayLike | Iterable[Embedded | Failure]) -> Iterable[Embedded | Failure]:
    """What ``predict`` takes, one record per image.

    Raises:
        RequestError: names, or something else that is not embedded.
    """
    if isinstance(images, Embeddings):
        return images.records()
    if isinstance(images, (str, bytes, os.PathLike)):
        raise _not_embedded(images)
    if isinstance(images, Iterator) or (
        isinstance(images, (list, tuple)) and images and isinstance(images[0], (Embedded, Failure))
    ):
        return images
    rows = np.asarray(images)
    if rows.dtype.kind in "OUS":
        raise _not_embedded(rows.ravel()[0] if rows.size else images)
    if rows.size == 0:
        return ()
    return (Embedded(f"[{i}]", row) for i, row in enumerate(np.atleast_2d(rows)))


def in_chunks(embedded: Iterable[Embedded | Failure]) -> Iterator[list[Embedded | Failure]]:
    """Images that are compared at once: as many as memory allows, or as came within a moment."""
    waiting: list[Embedded | Failure] = []
    since = time.monotonic()
    for item in embedded:
        if not waiting:
            since = time.monotonic()
        waiting.append(item)
        if len(waiting) == _CHUNK or time.monotonic() - since > _PATIENCE:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _not_embedded(given: Any) -> RequestError:
    return RequestError(
        f"predict takes embeddings, not names such as {str(given)!r}: "
        "classifier.predict(clip.embed(names)), or clip.classify(names, labels)"
    )


def _per_label(name: str, value: float | ArrayLike, labels: int) -> Floats:
    with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused
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
