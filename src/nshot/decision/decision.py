"""What is fitted on labelled images and then said of every other: part of a classifier and of its file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nshot.decision.calibration import Calibration
from nshot.decision.compared import Compared
from nshot.decision.conformal import Conformal
from nshot.decision.rejection import Rejection
from nshot.decision.several import Several
from nshot.decision.softmax import Reals, activate
from nshot.errors import NONSENSE, RequestError, brief
from nshot.metrics import risk_coverage
from nshot.types import Activation, Answer


@dataclass(frozen=True, slots=True)
class Surest:
    """Answer only the surest images: those whose best score reaches the threshold.

    Attributes:
        share: of images like the labelled ones, how many are answered, in (0, 1].
        threshold: the least score, after calibration where there is one.
        risk: how many of the answers were wrong on the labelled images.
    """

    share: float
    threshold: float
    risk: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"share": self.share, "threshold": self.threshold, "risk": self.risk}


def fit_surest(confidence: ArrayLike, correct: ArrayLike, share: float) -> Surest:
    """The threshold that answers a share of the images, from labelled ones: float[n], bool[n].

    Raises:
        RequestError: no image, or a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise RequestError(f"the share to be answered is between 0 and 1, such as 0.8, not {share}")
    if not len(np.asarray(confidence)):
        raise RequestError("answering only the surest needs labelled images, and there is none")
    risk, threshold = risk_coverage(confidence, correct).at(share)
    return Surest(share, threshold, risk)


class Verdict(NamedTuple):
    """What is answered of one image: the kind of answer, and the columns of the labels, best first."""

    answer: Answer
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """How scores become answers. Whatever is None is not applied; an empty decision changes nothing.

    With a ``coverage``, the answer is a set of labels, and neither ``rejection`` nor ``surest`` takes from
    it: the set's guarantee would not survive that.

    Attributes:
        calibration: scores become probabilities.
        rejection: "none of these" under a threshold.
        surest: "unsure" under another.
        sets: what prediction sets with guaranteed coverage need.
        coverage: the wanted rate; None answers without sets.
        several: an image may show any number of labels, each decided by itself; goes with none of the others.
    """

    calibration: Calibration | None = None
    rejection: Rejection | None = None
    surest: Surest | None = None
    sets: Conformal | None = None
    coverage: float | None = None
    several: Several | None = None

    def __post_init__(self) -> None:
        if self.several is not None and any(
            part is not None for part in (self.calibration, self.rejection, self.surest, self.coverage)
        ):
            raise RequestError(
                "where images may show several labels, each label is decided by itself: no other rule applies"
            )
        if self.coverage is None:
            return
        if not 0 < self.coverage < 1:
            raise RequestError(f"a coverage is a share between 0 and 1, such as 0.9, not {self.coverage}")
        if self.sets is None:
            raise RequestError(
                "sets with a wanted coverage are learnt from labelled images: run nshot calibrate first"
            )

    @property
    def calibrated(self) -> bool:
        """Whether scores are probabilities."""
        return self.calibration is not None

    def with_coverage(self, coverage: float | None) -> Decision:
        """The same with sets of another coverage, or without sets.

        Raises:
            RequestError: nothing to make sets with, or a coverage outside (0, 1).
        """
        return replace(self, coverage=coverage)

    def logits(self, images: Compared) -> Reals:
        """What labels are ordered and scored by: n images, compared with the labels -> float64[n, labels]."""
        return images.logits if self.several is None else self.several.evidence(images)

    def scores(self, logits: ArrayLike, activation: Activation) -> Reals:
        """Scores, calibrated where they can be: float[n, labels] -> float64[n, labels] in [0, 1].

        Args:
            logits: what ``logits`` made of the images.
            activation: the classifier's; where images may show several labels each is scored by itself.
        """
        if self.several is not None:
            return activate(np.asarray(logits, np.float64), "sigmoid")
        z = np.asarray(logits, np.float64) if self.calibration is None else self.calibration.apply(logits)
        return activate(z, activation)

    def verdicts(self, images: Compared, scores: Reals, logits: Reals | None = None) -> list[Verdict]:
        """What is answered of each image.

        Args:
            images: n images, compared with the labels.
            scores: float64[n, labels], what ``scores`` made of their logits.
            logits: float64[n, labels], what ``logits`` made of them, where that is known already.
        """
        if self.several is not None:
            return _several(self.several, self.logits(images) if logits is None else logits)
        if self.sets is not None and self.coverage is not None:
            total = scores.sum(axis=1, keepdims=True)  # not 1 under sigmoid, and perhaps 0
            shares = scores / np.maximum(total, np.finfo(np.float64).tiny)
            sets = self.sets.sets(shares, images.vectors, self.coverage)
            return [Verdict("set", labels) for labels in sets]
        best = np.argmax(images.logits, axis=1).tolist()
        known = np.ones(len(best), dtype=bool)
        if self.rejection is not None:
            known = self.rejection.evidence(images) >= self.rejection.threshold
        sure = np.ones(len(best), dtype=bool)
        if self.surest is not None:
            sure = scores.max(axis=1) >= self.surest.threshold
        return [
            Verdict("label", (label,))
            if of_these and certain
            else Verdict("unsure" if of_these else "none", ())
            for label, of_these, certain in zip(best, known.tolist(), sure.tolist(), strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: only what is there."""
        parts = (
            ("calibration", self.calibration),
            ("rejection", self.rejection),
            ("surest", self.surest),
            ("sets", self.sets),
            ("several", self.several),
        )
        held = {name: part.to_dict() for name, part in parts if part is not None}
        return {"version": 1, **held, "coverage": self.coverage}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Decision:
        """What ``to_dict`` made.

        Raises:
            RequestError: it is of a later version, or damaged.
        """
        if content.get("version") != 1:
            raise RequestError(
                "this decision was saved by a later nshot: install that one, or calibrate again"
            )
        makers: dict[str, Any] = {
            "calibration": lambda held: Calibration(**held),
            "rejection": Rejection.from_dict,
            "surest": lambda held: Surest(**held),
            "sets": Conformal.from_dict,
            "several": Several.from_dict,
            "coverage": lambda held: held,
        }
        try:
            return cls(**{name: make(content[name]) for name, make in makers.items() if name in content})
        except NONSENSE as error:
            raise RequestError(f"the saved decision is damaged: {brief(error)}") from error


def _several(several: Several, evidence: Reals) -> list[Verdict]:
    """Every label that each image shows, best first."""
    if not several.decided.any():
        return [Verdict("ranked", ())] * len(evidence)
    verdicts = []
    for own, shown in zip(evidence, several.shown(evidence), strict=True):
        places = np.flatnonzero(shown)
        places = places[np.argsort(-own[places], kind="stable")]
        verdicts.append(Verdict("several" if len(places) else "none", tuple(places.tolist())))
    return verdicts
