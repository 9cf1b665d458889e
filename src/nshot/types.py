"""The frozen results that stages hand to each other and to the caller."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Pixels: TypeAlias = NDArray[np.uint8]
Tokens: TypeAlias = NDArray[np.int64]

Activation: TypeAlias = Literal["softmax", "sigmoid"]

Answer: TypeAlias = Literal["label", "set", "none", "unsure", "several", "ranked"]

CORRECTED = "corrected: a person said so"
"""The note of an answer that is a person's, from a journal of corrections."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image and a run may take, and where from: what takes more is a failure before it does.

    Attributes:
        max_bytes: bytes of the encoded image (a file, an archive's member, a download).
        max_pixels: width times height, read from the header before anything is decoded. An image takes four
            bytes per pixel while it is decoded. Pillow itself refuses more than 178,956,970.
        memory: bytes that reading, decoding and queueing may hold at once, over what the model takes; shared
            by all images of a run. An image that cannot fit is a failure.
        timeout: seconds of processor time for decoding one image; what takes longer is a failure.
        allow_private: let URLs point into private networks.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 2**27
    memory: int = 900_000_000
    timeout: float = 10.0
    allow_private: bool = False


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything but the image's own bytes that can change its vector.

    Two vectors are comparable if their space is the same; a stored one is reused only if all of it is.

    Attributes:
        fingerprint: the encoder's: weights, graph, precision.
        preprocessing: the preprocessor's: sizes, resampling, decode and fit.
        space: digest of the weights alone: vectors of two spaces must not be compared.
    """

    fingerprint: str
    preprocessing: str
    space: str

    @property
    def digest(self) -> str:
        """Hexadecimal sha256 of the recipe: the store's key beside the image's own."""
        said = {"fingerprint": self.fingerprint, "preprocessing": self.preprocessing}  # space: in fingerprint
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that got no answer, in the place of its answer.

    It has what a ``Prediction`` and an ``Embedded`` have, empty, so that a loop over answers survives it.

    Attributes:
        source: the image's name as the user would write it.
        type: the error's class name, one of the ImageError family.
        message: what is wrong and what to do.
        labels: the image's own labels, where it came from a labelled set.
        domain: its domain, likewise.
        notes: what was done with the image before it failed.
        beside: the other cells of its row, where it comes from a table and they are to be kept.
    """

    source: str
    type: str
    message: str
    labels: tuple[str, ...] | None = field(default=None, compare=False)
    domain: str | None = field(default=None, compare=False)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    beside: Mapping[str, str] | None = field(default=None, kw_only=True, compare=False)

    label: ClassVar[None] = None
    score: ClassVar[float] = math.nan
    cosine: ClassVar[float] = math.nan
    margin: ClassVar[None] = None
    predictions: ClassVar[tuple[LabelScore, ...]] = ()
    vector: ClassVar[None] = None

    @classmethod
    def of(cls, source: str, error: Exception) -> Failure:
        """The failure that an exception means for this source."""
        return cls(source, type(error).__name__, str(error))

    def to_dict(self) -> dict[str, Any]:
        """The record as the JSONL sink writes it."""
        error = {"type": self.type, "message": self.message}
        return {"source": self.source, "error": error, **_noted(self.notes, self.beside)}


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """One embedded image.

    Attributes:
        source: the image's name.
        vector: float32[d], unit norm.
        labels: its labels, where it came from a labelled set; None: unlabelled.
        domain: where it comes from (photograph, sketch ...), if the data says so.
        digest: sha256 of the image's bytes, where they were read.
        notes: what decoding did that a person should know, one short sentence each; mostly none.
        beside: the other cells of its row, where it comes from a table and they are to be kept.
    """

    source: str
    vector: Floats
    labels: tuple[str, ...] | None = None
    domain: str | None = None
    digest: bytes | None = None
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    beside: Mapping[str, str] | None = field(default=None, kw_only=True, compare=False)


class LabelScore(NamedTuple):
    """One label's answer: ``score`` in [0, 1], ``cosine`` in [-1, 1]."""

    label: str
    score: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """An image's answer.

    Attributes:
        source: the image's name.
        predictions: the best labels, best first.
        margin: the best label's cosine minus the second best's; None where there is only one label.
        notes: what decoding did that a person should know, one short sentence each; mostly none.
        stage: of a cascade, the name of the model that answered; None where there is but one.
        label: the best label; None only where a decision (see ``Decided``) answers with no single label.
        score: the best label's score, in [0, 1]: its share of the softmax over the given labels, or its own
            sigmoid. Not a calibrated probability.
        cosine: the best label's cosine, in [-1, 1], which does not depend on the other labels.
        beside: the other cells of its row, where it comes from a table and they are to be kept.
    """

    source: str
    predictions: tuple[LabelScore, ...]
    margin: float | None
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    beside: Mapping[str, str] | None = field(default=None, kw_only=True, compare=False)
    stage: str | None = field(default=None, kw_only=True)
    label: str | None = field(init=False)
    score: float = field(init=False)
    cosine: float = field(init=False)

    def __post_init__(self) -> None:
        label, score, cosine = self.predictions[0]
        object.__setattr__(self, "label", label)
        object.__setattr__(self, "score", score)
        object.__setattr__(self, "cosine", cosine)

    def to_dict(self) -> dict[str, Any]:
        """The record as the JSONL sink writes it."""
        return {
            "source": self.source,
            "label": self.label,
            "score": self.score,
            "cosine": self.cosine,
            "margin": self.margin,
            "predictions": [p._asdict() for p in self.predictions],
            **_staged(self.stage),
            **_noted(self.notes, self.beside),
        }


@dataclass(frozen=True, slots=True)
class Decided(Prediction):
    """An image's answer where a decision was applied.

    Attributes:
        answer: "label": one label. "set": as many labels as the wanted coverage takes, perhaps none.
            "none": the image shows none of these labels. "unsure": not one of the surest. "several": every
            label that the image shows, one or more. "ranked": no label can be decided, so ``predictions``
            is all there is.
        labels: what is answered, best first; empty for "none", "unsure" and "ranked".
        calibrated: whether the scores are probabilities.
    """

    answer: Answer
    labels: tuple[str, ...]
    calibrated: bool

    def __post_init__(self) -> None:
        Prediction.__post_init__(self)  # a class with slots has no super() before Python 3.14
        object.__setattr__(self, "label", self.labels[0] if len(self.labels) == 1 else None)

    def to_dict(self) -> dict[str, Any]:
        """The record as the JSONL sink writes it; ``score`` is called ``probability`` once it is one."""
        score = "probability" if self.calibrated else "score"
        return {
            "source": self.source,
            "label": self.label,
            "answer": self.answer,
            "labels": list(self.labels),
            score: self.score,
            "cosine": self.cosine,
            "margin": self.margin,
            "predictions": [{"label": p.label, score: p.score, "cosine": p.cosine} for p in self.predictions],
            **_staged(self.stage),
            **_noted(self.notes, self.beside),
        }


@dataclass(frozen=True, slots=True)
class Placed(Decided):
    """An image's place in a tree of labels: the deepest node for which the evidence suffices.

    ``label`` is that node; None where not even the root of a branch is sure. ``cosine``, ``margin`` and
    ``predictions`` are of the best leaves.

    Attributes:
        path: the names from the root to the node, which is the last.
        score: the share of the leaves under the node, in [0, 1].
        coverage: how often such answers contain the truth; None: not calibrated, so nothing is guaranteed.
    """

    path: tuple[str, ...]
    share: float
    coverage: float | None

    def __post_init__(self) -> None:
        Decided.__post_init__(self)
        object.__setattr__(self, "score", self.share)

    @property
    def depth(self) -> int:
        """How many nodes the path has."""
        return len(self.path)

    def to_dict(self) -> dict[str, Any]:
        """The record as the JSONL sink writes it."""
        told = Decided.to_dict(self)
        after = {"path": list(self.path), "depth": self.depth, "coverage": self.coverage}
        return {"source": self.source, "label": self.label, **after, **told}


class Box(NamedTuple):
    """A place in an image.

    Attributes:
        label: what is there.
        score: in [0, 1].
        box: x, y, width and height, in pixels of the upright image.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Located:
    """Where things are in an image.

    Attributes:
        source: the image's name.
        boxes: what was found, best first; each lies within the image.
        size: width and height of the upright image, in pixels.
        absent: the labels of which nothing was found, where thresholds per label were learnt: each with how
            often such an answer was wrong when they were.
        notes: what decoding did that a person should know, one short sentence each; mostly none.
        beside: the other cells of its row, where it comes from a table and they are to be kept.
    """

    source: str
    boxes: tuple[Box, ...]
    size: tuple[int, int]
    absent: Mapping[str, float] | None = field(default=None, kw_only=True, compare=False)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    beside: Mapping[str, str] | None = field(default=None, kw_only=True, compare=False)

    @property
    def label(self) -> str | None:
        """The label of the best box; None where nothing was found (and on a ``Failure``)."""
        return self.boxes[0].label if self.boxes else None

    def to_dict(self) -> dict[str, Any]:
        """The record as the JSONL sink writes it."""
        boxes = [{"label": each.label, "score": each.score, "box": list(each.box)} for each in self.boxes]
        said: dict[str, Any] = {"source": self.source, "width": self.size[0], "height": self.size[1]}
        said["boxes"] = boxes
        if self.absent is not None:
            said["absent"] = dict(self.absent)
        return {**said, **_noted(self.notes, self.beside)}


@dataclass(frozen=True, slots=True)
class Faceted:
    """An image's answers to several independent questions.

    Attributes:
        source: the image's name.
        facets: the answer to each question by its name, exactly what it would be if asked alone.
        notes: what decoding did that a person should know, one short sentence each; mostly none.
        beside: the other cells of its row, where it comes from a table and they are to be kept.
    """

    source: str
    facets: Mapping[str, Prediction]
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    beside: Mapping[str, str] | None = field(default=None, kw_only=True, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The record as the JSONL sink writes it."""
        facets = {}
        for name, answer in self.facets.items():
            facets[name] = answer.to_dict()
            for key in ("source", "notes", "columns"):
                facets[name].pop(key, None)
        return {"source": self.source, "facets": facets, **_noted(self.notes, self.beside)}


def _staged(stage: str | None) -> dict[str, Any]:
    """Which model of a cascade answered, as a record holds it."""
    return {} if stage is None else {"stage": stage}


def _noted(notes: tuple[str, ...], beside: Mapping[str, str] | None) -> dict[str, Any]:
    """The notes and the row as a record holds them: each key is there only where there is something."""
    said: dict[str, Any] = {"notes": list(notes)} if notes else {}
    return said if beside is None else said | {"columns": dict(beside)}
