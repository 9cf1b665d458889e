"""A few-shot curve as an SVG file that stands alone."""

from __future__ import annotations

from collections.abc import Sequence

from nshot.few_shot.curve import ZERO_SHOT, Point, Shots
from nshot.pages import charts


def draw(points: Sequence[Point], title: str) -> str:
    """Accuracy against examples per label: a line per method, a band from the worst draw to the best.

    Args:
        points: what ``curve`` gave.
        title: the heading.

    Returns:
        An SVG document.
    """
    shots: list[Shots] = list(dict.fromkeys(p.shots for p in sorted(points, key=_by_shots)))
    series = []
    for method in dict.fromkeys(p.method for p in points):
        mine = sorted((p for p in points if p.method == method), key=_by_shots)
        across = [float(shots.index(p.shots)) for p in mine]
        if method == ZERO_SHOT:  # it needs no examples: the same at every number of them
            across, mine = [0.0, float(len(shots) - 1)], [mine[0], mine[0]]
        series.append(
            charts.Series(
                method, across, [p.mean for p in mine], [p.low for p in mine], [p.high for p in mine]
            )
        )
    return charts.alone(
        title,
        series,
        charts.Axis("examples per label", ticks=range(len(shots)), names=[str(count) for count in shots]),
        charts.Axis("accuracy", int(10 * min(p.low for p in points)) / 10, 1.0, share=True),
        note="Lines: mean of the draws. Bands: worst to best.",
    )


def _by_shots(point: Point) -> float:
    return float("inf") if isinstance(point.shots, str) else point.shots
