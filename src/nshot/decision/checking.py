"""Whether a decision that was read from a file is one, and fits the classifier that it was read with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.decision.decision import Decision
from nshot.decision.rejection import Rejection
from nshot.decision.several import Several
from nshot.types import Floats

_LARGEST = 1e12  # of a temperature, or of one over it, and of a bias: no logit becomes infinite by it


def check(decision: Decision, labels: int, dimension: int, scale: Floats) -> None:
    """Refuse what would end in a traceback, or in answers that mean nothing, when an image is asked.

    Args:
        decision: what was read.
        labels: how many the classifier has.
        dimension: length of its vectors.
        scale: float32[labels], the classifier's.

    Raises:
        ValueError: it is damaged, or of another classifier.
    """
    if (calibration := decision.calibration) is not None:
        _numbers("temperature", [calibration.temperature, 1 / calibration.temperature], _LARGEST)
        _numbers("bias", [calibration.bias], _LARGEST)
    if (surest := decision.surest) is not None:
        _numbers("threshold of the surest", [surest.share, surest.threshold, surest.risk])
    if (sets := decision.sets) is not None:
        _numbers("scores of its sets", sets.scores)
        if any(after < before for before, after in zip(sets.scores, sets.scores[1:], strict=False)):
            raise ValueError("the scores of its sets do not grow")
        if not all(type(label) is int and 0 <= label < labels for label in sets.labels):
            raise ValueError("its sets are of other labels")
        if type(sets.seed) is not int or not -(2**63) <= sets.seed < 2**63:
            raise ValueError("the seed of its sets is none")
    if decision.rejection is not None:
        _check_rejection(decision.rejection, labels, dimension, scale)
    if decision.several is not None:
        _check_several(decision.several, labels, dimension)


def _check_rejection(rule: Rejection, labels: int, dimension: int, scale: Floats) -> None:
    if math.isnan(rule.threshold):
        raise ValueError("the threshold of its rule is no number")
    if rule.rule == "margin" and labels < 2:
        raise ValueError("the margin rule needs at least two labels")
    if rule.rule in ("energy", "background") and not scale.mean(dtype=np.float64) > 0:
        raise ValueError(f"the {rule.rule} rule needs a scale over zero")
    if rule.background is not None:
        _vectors("its background", rule.background, 1, dimension)


def _check_several(several: Several, labels: int, dimension: int) -> None:
    shapes = [several.thresholds.shape, *([] if several.positives is None else [several.positives.shape])]
    if any(shape != (labels,) for shape in shapes) or np.isnan(several.thresholds).any():
        raise ValueError("its thresholds are not one number for each label")
    if several.rivals is not None:
        _vectors("its rivals", several.rivals, labels, dimension)


def _numbers(name: str, values: Sequence[Any], largest: float = math.inf) -> None:
    wrong = [each for each in values if isinstance(each, bool) or not isinstance(each, (int, float))]
    if wrong or not all(abs(float(each)) <= largest for each in values):
        raise ValueError(f"the {name} makes no sense")


def _vectors(name: str, rows: NDArray[Any], least: int, dimension: int) -> None:
    if rows.ndim != 2 or len(rows) < least or rows.shape[1] != dimension or not np.isfinite(rows).all():
        raise ValueError(f"{name} is of another classifier")
