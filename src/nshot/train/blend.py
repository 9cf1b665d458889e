"""The weights between two models: what fine-tuning won, with what it cost given back.

Wortsman et al., "Robust fine-tuning of zero-shot models" (2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Weights = Mapping[str, Tensor]

SHARES = tuple(share / 10 for share in range(11))
_LOST = 0.01  # of the untouched images


@dataclass(frozen=True, slots=True)
class Point:
    """A blend and how it does: shares of images nearest to their own text, in [0, 1]; None: not measured.

    Attributes:
        share: of the way from the weights before to those after.
        held_out: on held-out images of what was trained on.
        untouched: on the images that the model should not get worse at.
        lost: how much of the untouched ones it may have lost: the upper end of the 95 % interval.
    """

    share: float
    held_out: float | None = None
    untouched: float | None = None
    lost: float | None = None


def blend(before: Weights, after: Weights, share: float) -> dict[str, Tensor]:
    """``(1 - share) * before + share * after`` for every weight; 0 gives before, 1 after, exactly."""
    if share in (0, 1):
        return dict(after if share else before)
    return {name: weight + share * (after[name] - weight) for name, weight in before.items()}


def recommended(curve: Sequence[Point]) -> tuple[float, str]:
    """Which point of a curve to use, and why in words.

    The best on held-out images among those that surely lose at most one point on the untouched ones; the
    smallest of equals. Without untouched images nobody knows what is lost, and halfway is a safe habit.
    """
    if curve[0].untouched is None:
        return 0.5, "halfway: no --untouched images say what is lost"
    if curve[0].held_out is None:
        return 0.5, "halfway: no held-out images say what is won"
    most = max(_LOST, curve[0].lost or 0)  # of a few images none may be lost, which proves no more
    safe = [each for each in curve if each.lost is not None and each.lost <= most]
    best = max(safe, key=lambda each: (each.held_out or 0, -each.share))
    return best.share, "the best on held-out images that surely loses at most one point on untouched ones"
