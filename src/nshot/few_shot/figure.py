"""The curve as an image: one SVG file that stands alone, in any viewer and on any page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from nshot.few_shot.curve import NSHOT, ZERO_SHOT, Point, Shots

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 740, 56, 330
_COLOURS = ("#64748b", "#d97706", "#2563eb", "#7c3aed", "#be185d")  # of the lines beside nshot's
_OWN = "#0f766e"
_LINE = 18  # height of a line of the legend


def draw(points: Sequence[Point], title: str) -> str:
    """Accuracy against examples a label: a line a method through the draws' means, a band from worst to best.

    Args:
        points: what ``curve`` gave.
        title: the heading.

    Returns:
        An SVG document.
    """
    shots: list[Shots] = list(dict.fromkeys(p.shots for p in sorted(points, key=_by_shots)))
    methods = list(dict.fromkeys(p.method for p in points))
    lowest = min(p.low for p in points)
    floor = max(0.0, int(lowest * 10) / 10)

    def x(count: Shots) -> float:
        return _LEFT + (_RIGHT - _LEFT) * shots.index(count) / max(len(shots) - 1, 1)

    def y(accuracy: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (accuracy - floor) / (1.0 - floor)

    parts = [f'<text x="{_LEFT}" y="28" font-size="17" font-weight="600">{escape(title)}</text>']
    for tenth in range(round(floor * 10), 11):
        level = y(tenth / 10)
        parts.append(f'<path d="M{_LEFT} {level:.1f}H{_RIGHT}" stroke="#e2e8f0"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{10 * tenth} %</text>')
    for count in shots:
        parts.append(f'<text x="{x(count):.1f}" y="{_BOTTOM + 20}" text-anchor="middle">{count}</text>')
    middle = (_LEFT + _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_BOTTOM + 40}" text-anchor="middle">examples a label</text>')
    others = iter(_COLOURS * 3)
    for number, method in enumerate(methods):
        colour = _OWN if method == NSHOT else next(others)
        mine = sorted((p for p in points if p.method == method), key=_by_shots)
        parts += _line(mine, colour, x, y, across=method == ZERO_SHOT)
        at = _BOTTOM + 64 + _LINE * number
        parts.append(f'<path d="M{_LEFT} {at - 4}h26" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{_LEFT + 36}" y="{at}">{escape(method)}</text>')
    note = "lines: means of the draws; bands: from the worst to the best draw"
    height = max(_HEIGHT, _BOTTOM + 64 + _LINE * (len(methods) + 1))
    parts.append(f'<text x="{_RIGHT}" y="{height - 10}" text-anchor="end" fill="#64748b">{note}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img" font-family="system-ui, sans-serif" font-size="13" fill="#0f172a">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _line(
    mine: Sequence[Point],
    colour: str,
    x: Callable[[Shots], float],
    y: Callable[[float], float],
    *,
    across: bool,
) -> list[str]:
    if across:  # no examples: the same at every number of them
        [point] = mine
        band = f"M{_LEFT} {y(point.high):.1f}H{_RIGHT}V{y(point.low):.1f}H{_LEFT}Z"
        line = f"M{_LEFT} {y(point.mean):.1f}H{_RIGHT}"
        return [
            f'<path d="{band}" fill="{colour}" fill-opacity=".10"/>',
            f'<path d="{line}" stroke="{colour}" stroke-width="2" stroke-dasharray="6 4"/>',
        ]
    up = " ".join(f"{x(p.shots):.1f},{y(p.high):.1f}" for p in mine)
    down = " ".join(f"{x(p.shots):.1f},{y(p.low):.1f}" for p in reversed(mine))
    means = " ".join(f"{x(p.shots):.1f},{y(p.mean):.1f}" for p in mine)
    dots = [
        f'<circle cx="{x(p.shots):.1f}" cy="{y(p.mean):.1f}" r="3.5" fill="{colour}">'
        f"<title>{escape(p.method)}, {p.shots}: {100 * p.mean:.1f} %</title></circle>"
        for p in mine
    ]
    return [
        f'<polygon points="{up} {down}" fill="{colour}" fill-opacity=".13"/>',
        f'<polyline points="{means}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *dots,
    ]


def _by_shots(point: Point) -> float:
    return float("inf") if isinstance(point.shots, str) else point.shots
