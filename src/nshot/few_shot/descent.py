"""Minimise a smooth convex function: limited-memory BFGS, enough of it for the heads of this package."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Objective: TypeAlias = Callable[[Array], tuple[float, Array]]

_MEMORY = 5
_SUFFICIENT = 1e-4  # Armijo's constant


def minimise(objective: Objective, start: Array, *, tolerance: float = 1e-6, steps: int = 200) -> Array:
    """Where ``objective`` is least, from ``start``.

    Args:
        objective: a flat float64 vector -> (value, gradient); smooth and convex, its Hessian near or
            below the identity (the callers scale their variables so), so that a unit step fits.
        start: where to begin, float64.
        tolerance: stop once no entry of the gradient is larger.
        steps: stop after that many in any case.

    Source: Nocedal & Wright, Numerical Optimization, algorithms 7.4 and 3.1.
    """
    point, (value, gradient) = start, objective(start)
    history: deque[tuple[Array, Array, float]] = deque(maxlen=_MEMORY)
    for _ in range(steps):
        if np.abs(gradient).max(initial=0.0) <= tolerance:
            break
        direction = -_curved(gradient, history)
        slope = float(gradient @ direction)
        length = 1.0
        while True:
            moved = point + length * direction
            there, steep = objective(moved)
            if there <= value + _SUFFICIENT * length * slope:
                break
            length /= 2
            if length < 1e-4:  # the floor of rounding: no lower point can be told from this one
                return point
        change, bend = moved - point, steep - gradient
        if (curvature := float(change @ bend)) > 0:
            history.append((change, bend, 1.0 / curvature))
        point, value, gradient = moved, there, steep
    return point


def _curved(gradient: Array, history: deque[tuple[Array, Array, Any]]) -> Array:
    """The two-loop recursion: the inverse Hessian that the steps so far suggest, times the gradient."""
    result = gradient.copy()
    weights = []
    for change, bend, inverse in reversed(history):
        weight = inverse * float(change @ result)
        weights.append(weight)
        result -= weight * bend
    if history:
        change, bend, inverse = history[-1]
        result /= inverse * float(bend @ bend)
    for (change, bend, inverse), weight in zip(history, reversed(weights), strict=True):
        result += (weight - inverse * float(bend @ result)) * change
    return result
