"""Sets of labels that hold the right one as often as was asked for."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.decision.softmax import Reals
from nshot.errors import RequestError
from nshot.unit import normalize

Kind: TypeAlias = Literal["least", "adaptive"]

PER_LABEL = 40  # labelled images of every label from which each label has a threshold of its own

_KEPT = 4000  # scores of labelled images that are kept: a random part of more is as valid, and small on disk
_WEIGHT, _FREE = 0.01, 5  # of the adaptive sets: each rank after the five first ones costs a hundredth


@dataclass(frozen=True, slots=True)
class Conformal:
    """Prediction sets: all labels whose score is at most the quantile of the labelled images' own.

    A set holds the image's own label with a chance of at least the wanted coverage for images that come as
    the labelled ones came (exchangeably), whatever the model. Two kinds::

        least      score = 1 - probability: the smallest sets on average (LAC, Sadinle et al. 2019). With 40
                   labelled images of every label the quantile is each label's own, and the coverage too.
        adaptive   score of the label at rank r (from 1) = the probabilities before it + u * its own
                   + 0.01 * max(0, r - 5): larger sets for harder images (RAPS, Angelopoulos et al. 2021)

    Where the best label alone is right more often than asked for, exact coverage means that a set is empty
    now and then. ``u`` in [0, 1) is drawn from the digest of the image's vector, so that a vector has the
    same set whenever and with whatever others it is asked. Without (``randomized=False``) no set is empty,
    and sets cover more.

    Attributes:
        scores: the labelled images' own scores, growing: they serve any coverage.
        labels: the label of each, as its column.
        kind: one of the above.
        randomized: whether sets are of exact coverage and may be empty.
        seed: another seed draws other u.
    """

    scores: tuple[float, ...]
    labels: tuple[int, ...]
    kind: Kind = "least"
    randomized: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.scores:
            raise RequestError("prediction sets need labelled images, and there is none")
        if len(self.scores) != len(self.labels) or self.kind not in ("least", "adaptive"):
            raise RequestError("each score of prediction sets has a label; kinds are least and adaptive")

    def quantiles(self, coverage: float, labels: int) -> Reals:
        """The largest score of each label in a set: float64[labels]; infinite with too few images."""
        scores, own = np.array(self.scores), np.array(self.labels)
        needed = max(PER_LABEL, least_images(coverage))
        if self.kind == "least" and np.bincount(own, minlength=labels).min() >= needed:
            return np.array([_quantile(scores[own == label], coverage) for label in range(labels)])
        return np.full(labels, _quantile(scores, coverage))

    def sets(self, probabilities: ArrayLike, vectors: ArrayLike, coverage: float) -> list[tuple[int, ...]]:
        """The labels of each image's set, best first.

        Args:
            probabilities: float[n, labels].
            vectors: float[n, d].
            coverage: the wanted rate, in (0, 1).
        """
        order, score = self._ranked(probabilities, vectors)
        inside = score <= self.quantiles(coverage, score.shape[1])[order]
        if not self.randomized and len(inside):
            inside[:, 0] = True
        return [tuple(row[held].tolist()) for row, held in zip(order, inside, strict=True)]

    def own_scores(self, probabilities: ArrayLike, vectors: ArrayLike, targets: ArrayLike) -> Reals:
        """The score of each image's own label: float64[n]."""
        order, score = self._ranked(probabilities, vectors)
        own: Reals = score[order == np.asarray(targets)[:, None]]
        return own

    def _ranked(self, probabilities: ArrayLike, vectors: ArrayLike) -> tuple[NDArray[np.intp], Reals]:
        """Columns by falling probability, and the score of each."""
        chance = np.asarray(probabilities, np.float64)
        order = np.argsort(-chance, axis=1, kind="stable")
        ranked = np.take_along_axis(chance, order, axis=1)
        if self.kind == "least":
            return order, 1.0 - ranked
        u = draws(vectors, self.seed)[:, None] if self.randomized else 0.0
        penalty = _WEIGHT * np.maximum(0, np.arange(1, chance.shape[1] + 1) - _FREE)
        before = np.cumsum(ranked, axis=1) - ranked
        before[:, 0] = 0.0  # not a rounding error
        score: Reals = before + u * ranked + penalty
        return order, score

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "scores": list(self.scores),
            "labels": list(self.labels),
            "kind": self.kind,
            "randomized": self.randomized,
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Conformal:
        """What ``to_dict`` made."""
        return cls(**{**content, "scores": tuple(content["scores"]), "labels": tuple(content["labels"])})


def _quantile(scores: Reals, coverage: float) -> float:
    """Of growing scores, the one at rank ceil((n + 1) * coverage); infinite where there is none."""
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


def least_images(coverage: float) -> int:
    """How many labelled images a coverage needs; with fewer, sets hold every label."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def fit_conformal(
    probabilities: ArrayLike,
    vectors: ArrayLike,
    targets: ArrayLike,
    *,
    kind: Kind = "least",
    randomized: bool = True,
    seed: int = 0,
) -> Conformal:
    """Prediction sets from labelled images.

    Args:
        probabilities: float[n, labels], as they will be when sets are asked for.
        vectors: float[n, d], the same images' vectors.
        targets: int[n], each image's own label.
        kind: the smallest sets, or sets that are larger for harder images; see ``Conformal``.
        randomized: whether sets are of exact coverage and may be empty.
        seed: see ``Conformal``.

    Raises:
        RequestError: there is no image.
    """
    chance, y = np.asarray(probabilities, np.float64), np.asarray(targets, np.int64)
    unfitted = Conformal((0.0,), (0,), kind, randomized, seed)
    own = unfitted.own_scores(chance, vectors, y)
    if len(own) > _KEPT:
        kept = np.random.default_rng(seed).choice(len(own), _KEPT, replace=False)
        own, y = own[kept], y[kept]
    order = np.argsort(own, kind="stable")
    return Conformal(tuple(own[order].tolist()), tuple(y[order].tolist()), kind, randomized, seed)


def draws(vectors: ArrayLike, seed: int) -> Reals:
    """One number in [0, 1) for each vector, from its digest: uniform, and no secret.

    Args:
        vectors: float[n, d].
        seed: another seed draws other numbers.
    """
    key = seed.to_bytes(8, "little", signed=True)
    rows = np.ascontiguousarray(normalize(vectors), dtype="<f4")
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest() for row in rows)
    drawn: Reals = (np.frombuffer(digests, "<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return drawn
