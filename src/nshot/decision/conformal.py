"""Sets of labels that hold the right one as often as was asked for (RAPS, Angelopoulos et al. 2021)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.decision.softmax import Reals
from nshot.errors import RequestError
from nshot.unit import normalize

_KEPT = 2000  # scores of labelled images that are kept: a random part of more is as valid, and small on disk


@dataclass(frozen=True, slots=True)
class Conformal:
    """Prediction sets: all labels whose RAPS score is at most the quantile of the labelled images' own.

    The score of the label at rank r (from 1) of an image is::

        sum of the probabilities before it + u * its own probability + weight * max(0, r - free)

    A set holds the image's own label with a chance of at least the wanted coverage for images that come
    as the labelled ones came (exchangeably), whatever the model; it may be empty. ``u`` in [0, 1) is drawn
    from the digest of the image's vector, so that a vector has the same set whenever and with whatever
    others it is asked. Without it (``randomized=False``, u = 0) no set is empty, and sets cover more than
    asked for where the best label alone is right more often than that.

    Attributes:
        scores: the labelled images' own scores, growing: they serve any coverage.
        weight, free: the regularisation: each rank after the ``free`` first ones costs ``weight``.
        randomized: whether u is drawn.
        seed: another seed draws other u.
    """

    scores: tuple[float, ...]
    weight: float = 0.01
    free: int = 5
    randomized: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.scores:
            raise RequestError("prediction sets need labelled images, and there is none")

    def quantile(self, coverage: float) -> float:
        """The largest score of a label in a set; infinite, so every label, with too few labelled images."""
        rank = math.ceil((len(self.scores) + 1) * coverage - 1e-9)
        return self.scores[rank - 1] if rank <= len(self.scores) else math.inf

    def sets(self, probabilities: ArrayLike, vectors: ArrayLike, coverage: float) -> list[tuple[int, ...]]:
        """The labels of each image's set, best first.

        Args:
            probabilities: float[n, labels].
            vectors: float[n, d].
            coverage: the wanted rate, in (0, 1).
        """
        order, score = self._ranked(probabilities, vectors)
        inside = (score <= self.quantile(coverage)).sum(axis=1).tolist()  # scores grow along a row
        return [tuple(row[:count]) for row, count in zip(order.tolist(), inside, strict=True)]

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
        u = _draws(vectors, self.seed)[:, None] if self.randomized else 0.0
        penalty = self.weight * np.maximum(0, np.arange(1, chance.shape[1] + 1) - self.free)
        before = np.cumsum(ranked, axis=1) - ranked
        before[:, 0] = 0.0  # not a rounding error
        score: Reals = before + u * ranked + penalty
        return order, score

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "scores": list(self.scores),
            "weight": self.weight,
            "free": self.free,
            "randomized": self.randomized,
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Conformal:
        """What ``to_dict`` made."""
        return cls(**{**content, "scores": tuple(content["scores"])})


def least_images(coverage: float) -> int:
    """How many labelled images a coverage needs; with fewer, sets hold every label."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def fit_conformal(
    probabilities: ArrayLike,
    vectors: ArrayLike,
    targets: ArrayLike,
    *,
    randomized: bool = True,
    seed: int = 0,
) -> Conformal:
    """Prediction sets from labelled images.

    Args:
        probabilities: float[n, labels], as they will be when sets are asked for.
        vectors: float[n, d], the same images' vectors.
        targets: int[n], each image's own label.
        randomized: see ``Conformal``.
        seed: see ``Conformal``.

    Raises:
        RequestError: there is no image.
    """
    chance, y = np.asarray(probabilities, np.float64), np.asarray(targets, np.int64)
    unfitted = Conformal((0.0,), randomized=randomized, seed=seed)
    own = unfitted.own_scores(chance, vectors, y)
    if len(own) > _KEPT:
        own = np.random.default_rng(seed).choice(own, _KEPT, replace=False)
    return Conformal(tuple(np.sort(own).tolist()), randomized=randomized, seed=seed)


def _draws(vectors: ArrayLike, seed: int) -> Reals:
    """One number in [0, 1) for each vector, from its digest: uniform, and no secret."""
    key = seed.to_bytes(8, "little", signed=True)
    rows = np.ascontiguousarray(normalize(vectors), dtype="<f4")
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest() for row in rows)
    draws: Reals = (np.frombuffer(digests, "<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return draws
