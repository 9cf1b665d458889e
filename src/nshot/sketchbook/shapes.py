"""The sketchbook's shapes, as polygons in a square from -1 to 1 (y points down)."""

from __future__ import annotations

import math
from functools import cache
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
Part: TypeAlias = tuple[bool, tuple[Point, ...]]
"""Points of a polygon, and whether it is filled (True) or cut out of what is there (False)."""


def _arc(
    cx: float, cy: float, rx: float, ry: float | None = None, start: float = 0.0, stop: float = 360.0
) -> tuple[Point, ...]:
    ry = rx if ry is None else ry
    steps = max(6, round(abs(stop - start) / 12))
    angles = (math.radians(start + (stop - start) * i / steps) for i in range(steps + 1))
    return tuple((cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles)


def _box(left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _star() -> tuple[Point, ...]:
    radii = (1.0, 0.42)
    return tuple(
        (radii[i % 2] * math.sin(math.pi * i / 5), -radii[i % 2] * math.cos(math.pi * i / 5))
        for i in range(10)
    )


def _heart() -> tuple[Point, ...]:
    turns = (2 * math.pi * i / 36 for i in range(36))
    return tuple(
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 - 0.1,
        )
        for t in turns
    )


@cache
def parts(shape: str) -> tuple[Part, ...]:
    """The polygons of a shape, in the order in which they are filled and cut.

    Raises:
        KeyError: the sketchbook has no such shape.
    """
    return {
        "circle": ((True, _arc(0, 0, 0.92)),),
        "square": ((True, _box(-0.82, -0.82, 0.82, 0.82)),),
        "triangle": ((True, ((0, -0.92), (0.98, 0.8), (-0.98, 0.8))),),
        "star": ((True, _star()),),
        "heart": ((True, _heart()),),
        "crescent": ((True, _arc(-0.1, 0, 0.96)), (False, _arc(0.36, -0.06, 0.78))),
        "arrow": (
            (
                True,
                ((-1, -0.27), (0.1, -0.27), (0.1, -0.76), (1, 0), (0.1, 0.76), (0.1, 0.27), (-1, 0.27)),
            ),
        ),
        "cross": ((True, _box(-0.3, -0.92, 0.3, 0.92)), (True, _box(-0.92, -0.3, 0.92, 0.3))),
        "ring": ((True, _arc(0, 0, 0.95)), (False, _arc(0, 0, 0.52))),
        "house": (
            (True, _box(-0.68, -0.12, 0.68, 0.92)),
            (True, ((0, -0.98), (0.98, -0.1), (-0.98, -0.1))),
            (False, _box(-0.18, 0.32, 0.18, 0.92)),
        ),
        "tree": (
            (True, _box(-0.15, 0.4, 0.15, 1.0)),
            (True, ((0, -1.0), (0.5, -0.3), (-0.5, -0.3))),
            (True, ((0, -0.62), (0.68, 0.14), (-0.68, 0.14))),
            (True, ((0, -0.2), (0.84, 0.58), (-0.84, 0.58))),
        ),
        "fish": (
            (True, _arc(-0.22, 0, 0.76, 0.48)),
            (True, ((0.3, 0), (1.0, -0.56), (0.84, 0), (1.0, 0.56))),
            (False, _arc(-0.6, -0.12, 0.11)),
        ),
        "cup": (
            (True, _arc(0.56, 0.0, 0.42, 0.44)),
            (False, _arc(0.56, 0.0, 0.22, 0.24)),
            (True, ((-0.86, -0.7), (0.56, -0.7), (0.4, 0.84), (-0.7, 0.84))),
        ),
        "key": (
            (True, _arc(-0.56, 0, 0.44)),
            (False, _arc(-0.56, 0, 0.2)),
            (True, _box(-0.2, -0.13, 1.0, 0.13)),
            (True, _box(0.42, 0.1, 0.58, 0.46)),
            (True, _box(0.76, 0.1, 0.94, 0.52)),
        ),
        "mushroom": (
            (True, _arc(0, 0.02, 0.96, 0.9, 180, 360)),
            (True, ((-0.24, 0), (0.24, 0), (0.34, 0.92), (-0.34, 0.92))),
        ),
        "umbrella": (
            (True, _arc(0, 0.0, 0.98, 0.92, 180, 360)),
            (False, _arc(-0.65, 0.06, 0.32, 0.2)),
            (False, _arc(0, 0.06, 0.32, 0.2)),
            (False, _arc(0.65, 0.06, 0.32, 0.2)),
            (True, _box(-0.06, -0.2, 0.06, 0.8)),
            (True, (*_arc(0.16, 0.72, 0.22, 0.24, 0, 180), *_arc(0.16, 0.72, 0.1, 0.1, 180, 0))),
        ),
    }[shape]
