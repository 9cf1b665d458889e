"""Several labels per image: each label against everything else, with a threshold of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.decision.background import packed, unpacked
from nshot.decision.compared import Compared
from nshot.decision.folds import fold_numbers
from nshot.decision.softmax import Reals, log_sum_exp
from nshot.errors import RequestError
from nshot.types import Floats
from nshot.unit import lengths

UNLEARNT = 0.05
"""The score from which a label is shown where nothing was learnt; see docs/labels.md for its F1."""

LEAST = 20
"""Images of a label from which its threshold is believed; under it, the label is ranked and not decided."""

_SHRINK = 10  # images of a label whose own threshold counts as much as the common one
_WINDOW = 0.1  # of a label's images: how far its F1 curve is smoothed to either side
_ALL = 1e-9  # what is left to the rivals at least, so that evidence is finite
_AT_ONCE = 4096  # images compared with the rivals at once


@dataclass(frozen=True, slots=True, eq=False)
class Several:
    """An image shows every label whose evidence reaches the label's threshold: any number of them, or none.

    A label's evidence is a logit, whose sigmoid is the score. With l[k] its scaled and shifted cosine and r
    the image's scaled cosines with the rivals, which are the prompts of all labels and then the background::

        evidence[k] = l[k] - log sum over j != k of exp r[j]       with rivals
        evidence[k] = l[k]                                         without: sigmoid models, and examples alone

    So without examples a label's score is its share of the softmax over labels and background together.

    Attributes:
        thresholds: float64[k], the least evidence of each label.
        positives: int64[k], images that showed each label where the thresholds were learnt; None: nothing
            was learnt, and nothing says how often the answers are right.
        least: labels with fewer positives are ranked, not decided: they are never among the answers.
        rivals: float32[k + b, d], the rows of the labels' prompts and of the background, times their scale;
            None: each label stands alone.
    """

    thresholds: Reals
    positives: NDArray[np.int64] | None = None
    least: int = LEAST
    rivals: Floats | None = None

    @classmethod
    def unlearnt(cls, labels: int, rivals: Floats | None = None, threshold: float = UNLEARNT) -> Several:
        """Without any labelled image: every label whose score reaches one threshold.

        Args:
            labels: how many there are.
            rivals: as the attribute.
            threshold: of the score, in (0, 1).

        Raises:
            RequestError: a threshold outside (0, 1).
        """
        if not 0 < threshold < 1:
            raise RequestError(f"the threshold of a score is between 0 and 1, such as 0.1, not {threshold:g}")
        return cls(np.full(labels, np.log(threshold / (1 - threshold))), rivals=rivals)

    @property
    def learnt(self) -> bool:
        """Whether the thresholds were learnt from labelled images."""
        return self.positives is not None

    @property
    def decided(self) -> NDArray[np.bool_]:
        """bool[k]: the labels that may be answered; the others are ranked only."""
        if self.positives is None:
            return np.ones(len(self.thresholds), dtype=bool)
        enough: NDArray[np.bool_] = self.positives >= self.least
        return enough

    def evidence(self, images: Compared) -> Reals:
        """What speaks for each label: n images, compared with k labels -> float64[n, k].

        Raises:
            RequestError: rivals of another length than the images' vectors.
        """
        return images.logits if self.rivals is None else images.logits - self.against(images.vectors)

    def against(self, vectors: NDArray[Any]) -> Reals:
        """What speaks for everything but each label: float[n, d] -> float64[n, k].

        Raises:
            RequestError: rivals of another length than the vectors, or none at all.
        """
        if self.rivals is None or self.rivals.shape[1] != vectors.shape[1]:
            raise RequestError("the background labels were embedded by another model than the classifier's")
        rows, labels = self.rivals.T.astype(np.float64), len(self.thresholds)
        found = np.empty((len(vectors), labels))
        for start in range(0, len(vectors), _AT_ONCE):
            wide = vectors[start : start + _AT_ONCE].astype(np.float64)
            logits = (wide @ rows) / lengths(wide)[:, :1]
            total = log_sum_exp(logits)[:, None]
            own = np.minimum(np.exp(logits[:, :labels] - total), 1 - _ALL)
            found[start : start + _AT_ONCE] = total + np.log1p(-own)
        return found

    def shown(self, evidence: Reals) -> NDArray[np.bool_]:
        """The labels that are answered: float[n, k] -> bool[n, k]."""
        shown: NDArray[np.bool_] = (evidence >= self.thresholds) & self.decided
        return shown

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; vectors as base64 of little-endian float32."""
        content: dict[str, Any] = {
            "thresholds": self.thresholds.tolist(),
            "positives": None if self.positives is None else self.positives.tolist(),
            "least": self.least,
        }
        if self.rivals is not None:
            content["rivals"] = packed(self.rivals)
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Several:
        """What ``to_dict`` made."""
        rivals = None if (held := content.get("rivals")) is None else unpacked(held)
        positives = content["positives"]
        return cls(
            np.asarray(content["thresholds"], np.float64),
            None if positives is None else np.asarray(positives, np.int64),
            int(content["least"]),
            rivals,
        )


def fit_thresholds(evidence: ArrayLike, relevant: ArrayLike) -> Reals:
    """A threshold for each label, from labelled images that the evidence was not learnt on.

    A label's own threshold is where its smoothed F1 is greatest; the common one is where the mean F1 of all
    labels is. With few images of a label its own says little, so the two are mixed::

        threshold = w * own + (1 - w) * common,    w = positives / (positives + 10)

    Args:
        evidence: float[n, k], finite.
        relevant: bool[n, k], which labels each image shows.

    Returns:
        float64[k]; a label without images has the common threshold.

    Raises:
        RequestError: no image shows any label.
    """
    found, truth = np.asarray(evidence, np.float64), np.asarray(relevant, dtype=bool)
    positives = truth.sum(axis=0)
    if not positives.any():
        raise RequestError("thresholds are learnt from images that show the labels, and none does")
    common = common_threshold(found[:, positives > 0], truth[:, positives > 0])
    thresholds = np.full(len(positives), common)
    for k in np.flatnonzero(positives):
        weight = positives[k] / (positives[k] + _SHRINK)
        thresholds[k] = weight * own_threshold(found[:, k], truth[:, k]) + (1 - weight) * common
    return thresholds


def held_out(evidence: ArrayLike, relevant: ArrayLike, *, folds: int = 5, seed: int = 0) -> NDArray[np.bool_]:
    """What thresholds that were learnt on the other folds answer of each image: bool[n, k].

    Args:
        evidence: float[n, k].
        relevant: bool[n, k].
        folds: how many parts, at most the number of images.
        seed: of the parts.
    """
    found, truth = np.asarray(evidence, np.float64), np.asarray(relevant, dtype=bool)
    parts = several_folds(truth, folds, seed)
    shown = np.zeros_like(truth)
    for part in np.unique(parts):
        out = parts == part
        if truth[~out].any():
            shown[out] = found[out] >= fit_thresholds(found[~out], truth[~out])
    return shown


def several_folds(relevant: NDArray[np.bool_], folds: int, seed: int) -> NDArray[np.intp]:
    """A fold for each image, its rarest label spread as evenly as can be: bool[n, k] -> int[n]."""
    frequency = np.where(relevant, relevant.sum(axis=0), len(relevant) + 1)
    rarest = np.where(relevant.any(axis=1), frequency.argmin(axis=1), -1)
    return fold_numbers(rarest, max(min(folds, len(relevant)), 1), np.random.default_rng(seed))


def own_threshold(evidence: Reals, truth: NDArray[np.bool_]) -> float:
    """A label's own threshold: between the two images where its smoothed F1 curve is highest.

    Args:
        evidence: float64[n].
        truth: bool[n], not all False.
    """
    order = np.argsort(-evidence, kind="stable")
    ranked, hits = evidence[order], np.cumsum(truth[order])
    answered = np.arange(1, len(ranked) + 1)
    curve = 2 * hits / (answered + hits[-1])
    reach = int(np.ceil(_WINDOW * hits[-1]))
    width = 2 * reach + 1
    padded = np.pad(curve, reach, mode="edge")
    smooth = np.convolve(padded, np.full(width, 1 / width), mode="valid")
    best = int(np.argmax(smooth))
    following = ranked[best + 1] if best + 1 < len(ranked) else ranked[best]
    return float((ranked[best] + following) / 2)


def common_threshold(evidence: Reals, truth: NDArray[np.bool_]) -> float:
    """The one threshold at which the mean F1 of the labels is greatest: float64[n, k], bool[n, k]."""
    candidates = np.unique(np.quantile(evidence, np.linspace(0, 1, 513)))
    positives = truth.sum(axis=0)
    total = np.zeros(len(candidates))
    for k in range(evidence.shape[1]):
        ranked = np.sort(evidence[:, k])
        own = np.sort(evidence[truth[:, k], k])
        answered = len(ranked) - np.searchsorted(ranked, candidates, "left")
        hits = len(own) - np.searchsorted(own, candidates, "left")
        total += 2 * hits / (answered + positives[k])
    return float(candidates[int(np.argmax(total))])
