"""Telling images of none of the labels: a number that is high for the others, and a threshold for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from nshot.decision.background import packed, unlike, unpacked
from nshot.decision.compared import Compared
from nshot.decision.softmax import Reals, log_sum_exp
from nshot.errors import RequestError
from nshot.types import Floats
from nshot.unit import lengths

Rule: TypeAlias = Literal["cosine", "margin", "energy", "background"]

RULES: tuple[Rule, ...] = ("background", "cosine", "margin", "energy")

DEFAULT_THRESHOLD = 0.07  # of the background rule, without any labelled image; see docs/trust.md

# How much of the background's energy counts. All of it rejects images that show a label among other things;
# none of it is the energy rule. Chosen on recorded vectors (bench/decisions.py).
_WEIGHT = 0.75
# How much it counts that the labels stand out among the background's words, in cosines per standard
# deviation: photographs of many things are like nothing in particular, and like each word a little.
_STANDING = 0.007
_LEAST_SPREAD = 0.01  # of an image's cosines with the background; a word or two have none


@dataclass(frozen=True, slots=True, eq=False)
class Rejection:
    """An image whose evidence is under the threshold shows none of the labels.

    The evidence, in units of a cosine, with s the labels' mean scale and lse(z) = log sum exp z::

        cosine       largest cosine
        margin       largest cosine minus the second largest
        energy       lse(logits) / s                                        (Liu et al. 2020)
        background   energy - 0.75 * lse(s * b) / s                         (after Jiang et al. 2024)
                     + 0.007 * (energy - mean(b)) / std(b),  b the image's cosines with the background

    Attributes:
        rule: one of the above.
        threshold: an image with less evidence is not answered.
        background: float32[n, d], unit rows; for the background rule only.
    """

    rule: Rule
    threshold: float
    background: Floats | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise RequestError(f"no rule {self.rule!r}: there are {', '.join(RULES)}")
        if (self.rule == "background") != (self.background is not None):
            raise RequestError("the background rule needs background vectors, and only that one does")

    def evidence(self, images: Compared) -> Reals:
        """How much speaks for any of the labels: n images, compared with them -> float64[n].

        Raises:
            RequestError: the margin rule with a single label, or a background of another length.
        """
        cosines = images.cosines
        if self.rule == "cosine":
            largest: Reals = cosines.max(axis=1)
            return largest
        if self.rule == "margin":
            if cosines.shape[1] < 2:
                raise RequestError("the margin rule needs at least two labels")
            best = np.partition(cosines, -2, axis=1)
            return best[:, -1] - best[:, -2]
        s = float(np.mean(images.scale, dtype=np.float64))
        energy = log_sum_exp(images.logits) / s
        if self.background is None:
            return energy
        if self.background.shape[1] != images.vectors.shape[1]:
            raise RequestError("the background labels were embedded by another model than the classifier's")
        wide = images.vectors.astype(np.float64)
        elsewhere = (wide @ self.background.T.astype(np.float64)) / lengths(wide)
        lse = log_sum_exp(s * elsewhere) / s
        return against_background(energy, lse, elsewhere.mean(axis=1), elsewhere.std(axis=1))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; vectors as base64 of little-endian float32."""
        content: dict[str, Any] = {"rule": self.rule, "threshold": self.threshold}
        if self.background is not None:
            content["background"] = packed(self.background)
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Rejection:
        """What ``to_dict`` made."""
        background = None if (held := content.get("background")) is None else unpacked(held)
        return cls(content["rule"], float(content["threshold"]), background)


def against_background(energy: ArrayLike, lse: ArrayLike, mean: ArrayLike, deviation: ArrayLike) -> Reals:
    """The background rule's evidence from what was made of an image's cosines b with the background.

    Args:
        energy: float[n], lse(logits) / s of the labels.
        lse: float[n], lse(s * b) / s.
        mean: float[n], of b.
        deviation: float[n], of b.
    """
    speaks = np.asarray(energy, np.float64)
    standing = (speaks - np.asarray(mean)) / np.maximum(np.asarray(deviation), _LEAST_SPREAD)
    evidence: Reals = speaks - _WEIGHT * np.asarray(lse) + _STANDING * standing
    return evidence


def default_rejection(matrix: ArrayLike, background: ArrayLike) -> Rejection:
    """The background rule with the threshold for no labelled image at all.

    The threshold was measured on recorded vectors of OpenAI's ViT-B/32, where it keeps nine tenths of the
    images that show a label; other models differ, and ``nshot calibrate`` finds their own. The figures are
    in docs/trust.md.

    Args:
        matrix: float[labels, d], a zero-shot classifier's: its rows must be text vectors for the threshold
            to mean anything.
        background: float[n, d], such as ``zero_shot(clip, EVERYDAY).matrix``; what is like a label is
            left out.
    """
    return Rejection("background", DEFAULT_THRESHOLD, unlike(background, matrix))


def threshold_for(
    known: ArrayLike, unknown: ArrayLike | None, *, wrong: float = 0.05, kept: float = 0.95
) -> float:
    """The threshold for a wanted rate, from the evidence of labelled images.

    Args:
        known: float[n], of images that show a label.
        unknown: float[m], of images that show none; None if there are none to learn from.
        wrong: with ``unknown``: the wanted rate of wrong acceptances. A further image that shows no label
            is accepted with at most this chance, if it comes as these came (the conformal quantile).
        kept: without: the share of ``known`` that is to be answered.

    Raises:
        RequestError: rates outside (0, 1), or fewer images than the rate can be told with.
    """
    if not (0 < wrong < 1 and 0 < kept < 1):
        raise RequestError("a wanted rate is a share between 0 and 1, such as 0.05")
    if unknown is None:
        evidence = np.sort(np.asarray(known, np.float64))
        if not len(evidence):
            raise RequestError("a threshold needs labelled images, and there is none")
        return float(evidence[len(evidence) - int(np.ceil(kept * len(evidence) - 1e-9))])
    against = np.sort(np.asarray(unknown, np.float64))[::-1]
    accepted = int(np.floor(wrong * (len(against) + 1) + 1e-9)) - 1
    if accepted < 0:
        raise RequestError(
            f"a rate of {wrong:g} needs at least {int(np.ceil(1 / wrong - 1e-9)) - 1} images that show "
            f"none of the labels, and there are {len(against)}"
        )
    return float(np.nextafter(against[accepted], np.inf))
