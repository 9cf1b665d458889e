"""The weights between two models: what fine-tuning won, with what it cost given back.

Wortsman et al., "Robust fine-tuning of zero-shot models" (2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Weights = Mapping[str, Tensor]

SHARES = tuple(share / 10 for share in range(11))
_LOST = 0.005  # of the untouched images, at most: one point is promised, and the figure is an estimate


@dataclass(frozen=True, slots=True)
class Point:
    """A blend and how it does: shares of images nearest to their own text, in [0, 1]; None: not measured."""

    share: float
    held_out: float | None = None
    untouched: float | None = None


def blend(before: Weights, after: Weights, share: float) -> dict[str, Tensor]:
    """``(1 - share) * before + share * after`` for every weight; 0 gives before, 1 after, exactly."""
    if share in (0, 1):
        return dict(after if share else before)
    return {name: weight + share * (after[name] - weight) for name, weight in before.items()}


def recommended(curve: Sequence[Point]) -> tuple[float, str]:
    """Which point of a curve to use, and why in words.

    The best on held-out images among those that lose at most half a point on the untouched ones; the
    smallest of equals. Without untouched images nobody knows what is lost, and halfway is a safe habit.
    """
    zero = curve[0]
    if zero.untouched is None:
        return 0.5, "no --untouched images say what is lost, so it is halfway"
    if zero.held_out is None:
        return 0.5, "no held-out images say what is won, so it is halfway"
    safe = [each for each in curve if each.untouched is not None and each.untouched >= zero.untouched - _LOST]
    best = max(safe, key=lambda each: (each.held_out or 0, -each.share))
    return best.share, "the best on held-out images of those that lose at most half a point on untouched ones"
