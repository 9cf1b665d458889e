"""Logits -> probabilities that mean what they say: one temperature, and a bias for sigmoid models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.decision.softmax import Reals, activate
from nshot.errors import RequestError
from nshot.types import Activation

_SHARPEST = 1000.0  # 1 / temperature is looked for in [1 / _SHARPEST, _SHARPEST]


@dataclass(frozen=True, slots=True)
class Calibration:
    """probability = activation(logit / temperature + bias) (Guo et al. 2017; Platt 1999 with a bias).

    Neither changes which label is best.

    Attributes:
        temperature: over 1 tones the scores down, under 1 sharpens them.
        bias: added to every logit of a sigmoid model; it would change nothing under softmax.
    """

    temperature: float
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0 and np.isfinite(self.bias)):
            raise RequestError(f"a temperature is a positive number, not {self.temperature}")

    def apply(self, logits: ArrayLike) -> Reals:
        """Calibrated logits: float[n, labels] -> float64[n, labels]."""
        return np.asarray(logits, np.float64) / self.temperature + self.bias

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"temperature": self.temperature, "bias": self.bias}


def fit_calibration(logits: ArrayLike, targets: ArrayLike, activation: Activation = "softmax") -> Calibration:
    """The temperature (and bias) with the least negative log-likelihood on labelled images.

    With few images, all of them right, the likelihood alone would call every answer certain. So one more
    image is supposed whose own label came second (under sigmoid: one of each label that belongs to it and
    one that does not, by Platt's smoothing), which is Laplace's rule of succession for mistakes.

    Args:
        logits: float[n, labels], uncalibrated.
        targets: int[n], each image's own label.
        activation: how the classifier turns logits into scores.

    Raises:
        RequestError: fewer than two labels under softmax, where every score is 1, or no image.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(targets, np.int64)
    if not len(z):
        raise RequestError("calibration needs labelled images, and there is none")
    if activation == "sigmoid":
        return _fit_sigmoid(z, y)
    if z.shape[1] < 2:
        raise RequestError("calibration needs at least two labels: the score of a single one is always 1")
    z = z - z.max(axis=1, keepdims=True)
    second = np.partition(z, -2, axis=1)[:, -2]
    own = (z[np.arange(len(z)), y].sum() + second.mean()) / (len(z) + 1)

    def slope(sharpness: float) -> float:
        """Derivative of the mean NLL by 1 / temperature; the NLL is convex in it, so the slope grows."""
        chance = activate(sharpness * z, "softmax")
        expected = np.einsum("nk,nk->n", chance, z)
        return float((expected.sum() + expected.mean()) / (len(z) + 1) - own)

    low, high = -np.log(_SHARPEST), np.log(_SHARPEST)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(np.exp(middle)) < 0 else (low, middle)
    return Calibration(temperature=float(np.exp(-(low + high) / 2)))


def _fit_sigmoid(z: Reals, y: NDArray[np.int64]) -> Calibration:
    """Platt's two numbers by damped Newton steps; the loss is convex in (1 / temperature, bias)."""
    own = np.zeros(z.shape, dtype=bool)
    own[np.arange(len(z)), y] = True
    yes, no = own.sum(), own.size - own.sum()
    target = np.where(own, (yes + 1) / (yes + 2), 1 / (no + 2)).ravel()
    logit = z.ravel()
    centre, spread = logit.mean(), max(float(logit.std()), 1e-12)
    x = np.stack([(logit - centre) / spread, np.ones_like(logit)], axis=1)

    def loss(w: Reals) -> float:
        t = x @ w
        return float(np.mean(np.logaddexp(0.0, t) - target * t))

    w = np.array([spread, centre])  # temperature 1 and no bias
    for _ in range(100):
        p = activate(x @ w, "sigmoid")
        gradient = x.T @ (p - target) / len(x)
        hessian = (x * (p * (1 - p))[:, None]).T @ x / len(x) + 1e-9 * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while loss(w - size * step) > loss(w) and size > 1e-9:
            size /= 2
        w = w - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    sharpness = float(np.clip(w[0] / spread, 1 / _SHARPEST, _SHARPEST))
    return Calibration(temperature=1 / sharpness, bias=float(w[1] - sharpness * centre))
