"""Images of numbers as inline SVG, drawn for the width of a phone and scaled up from there.

Colours are the page's own variables, so that a chart follows the reader's light or dark setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nshot.pages.report import Html, escape

_WIDTH, _HEIGHT = 360, 260  # units of a drawing: one is a pixel on a small phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 340, 10, 218  # the frame of the axes inside it
_COLOURS = 6  # --c0 ... --c5 of report.css


@dataclass(frozen=True, slots=True)
class Series:
    """A named line: points (x, y), with a band from ``low`` to ``high`` where they are given."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dots: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """A direction of a chart.

    Attributes:
        label: what it measures.
        low, high: its ends; taken from the points where None.
        ticks: where to write numbers; round ones are chosen where None.
        log: logarithmic (all values over 0).
        share: values in [0, 1], written in per cent.
    """

    label: str
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] | None = None
    log: bool = False
    share: bool = False


def lines(
    title: str, series: Sequence[Series], x: Axis, y: Axis, *, diagonal: bool = False, legend: bool = True
) -> Html:
    """Lines over two axes; with ``diagonal``, a dashed line where y equals x."""
    across = _Scale(x, [v for s in series for v in s.x], _LEFT, _RIGHT)
    ends = [v for s in series for v in (*s.y, *(s.low or ()), *(s.high or ()))]
    upward = _Scale(y, ends, _BOTTOM, _TOP)
    parts = [_frame(across, upward)]
    if diagonal:
        low, high = max(across.low, upward.low), min(across.high, upward.high)
        path = f"M{across(low):.1f} {upward(low):.1f}L{across(high):.1f} {upward(high):.1f}"
        parts.append(f'<path d="{path}" stroke="var(--soft)" stroke-dasharray="4 4"/>')
    names = []
    for i, s in enumerate(series):
        colour = f"var(--c{i % _COLOURS})"
        parts.append(_series(s, colour, across, upward))
        names.append(f'<li><i style="background:{colour}"></i>{escape(s.name)}</li>')
    key = f'<ul class="legend">{"".join(names)}</ul>' if legend else ""
    return _chart(title, _svg(title, _WIDTH, _HEIGHT, "".join(parts)) + key)


def heatmap(
    title: str,
    matrix: ArrayLike,
    names: Sequence[str],
    *,
    rows: str,
    columns: str,
    totals: ArrayLike | None = None,
) -> Html:
    """Counts as shades of each row's share; the diagonal in another colour than the rest.

    Args:
        title: what it shows.
        matrix: int[c, c].
        names: the c names of rows and columns, cut where they are long.
        rows: what a row stands for.
        columns: what a column stands for.
        totals: int[c], what a row's shares are of, where the matrix is a part of a larger one.
    """
    counts = np.asarray(matrix)
    whole = counts.sum(axis=1) if totals is None else np.asarray(totals)
    of_row = counts / np.maximum(whole, 1)[:, None]
    cell = 26 if len(names) <= 12 else 15
    short = [name if len(name) <= 18 else name[:17] + "…" for name in names]
    margin = 16 + 6.3 * max(map(len, short), default=0)
    side = len(names) * cell
    parts = [
        f'<rect x="{margin - 1:.1f}" y="{margin - 1:.1f}" width="{side + 1}" height="{side + 1}" '
        'fill="none" stroke="var(--line)"/>'
    ]
    for i, name in enumerate(short):
        middle = margin + (i + 0.5) * cell + 4
        parts.append(_text(margin - 6, middle, name, anchor="end"))
        parts.append(_text(middle, margin - 6, name, anchor="start", turned=True))
    for i, j in zip(*np.nonzero(counts), strict=True):
        x, y, count, shade = margin + j * cell, margin + i * cell, int(counts[i, j]), of_row[i, j]
        tip = f"{names[i]} answered {names[j]}: {count:,} ({100 * shade:.0f} %)"
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell - 1}" height="{cell - 1}" '
            f'fill="var({"--c2" if i == j else "--c1"})" fill-opacity="{0.12 + 0.68 * shade:.2f}">'
            f"<title>{escape(tip)}</title></rect>"
        )
        if cell > 20 and count < 1000:
            parts.append(_text(x + cell / 2, y + cell / 2 + 4, f"{count}"))
    drawing = _svg(title, margin + side + 4, margin + side + 4, "".join(parts), fixed=True)
    note = escape(f"Rows: {rows}. Columns: {columns}. Shade: share of the row.")
    return _chart(title, f'<div class="wide" tabindex="0">{drawing}</div><p class="note">{note}</p>')


def whisker(
    value: float, low: float, high: float, *, span: tuple[float, float], mark: float | None = None
) -> Html:
    """A value with its interval as a small image for a table's cell.

    Args:
        value: where the dot stands; nothing is drawn for nan.
        low: the left end of the line.
        high: its right end.
        span: what the cell's edges stand for; equal in all rows that are compared.
        mark: where a thin line stands for comparison.
    """
    if math.isnan(value):
        return Html()
    scale = _Scale(Axis("", *span), [], 5, 139)
    rule = (
        ""
        if mark is None
        else f'<path d="M{scale(mark):.1f} 0v20" stroke="var(--soft)" stroke-dasharray="2"/>'
    )
    line = f"M{scale(low):.1f} 10H{scale(high):.1f}"
    return Html(
        '<svg viewBox="0 0 144 20" preserveAspectRatio="xMinYMid" aria-hidden="true">'
        f'{rule}<path d="{line}" stroke="var(--c0)" stroke-width="2"/>'
        f'<circle cx="{scale(value):.1f}" cy="10" r="3.5" fill="var(--c0)"/></svg>'
    )


class _Scale:
    """Maps values of an axis to units of the drawing, clipped to its ends."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, stop: float) -> None:
        finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
        self.axis, self.start, self.stop = axis, start, stop
        self.low = min(finite) if axis.low is None else axis.low
        self.high = max(finite) if axis.high is None else axis.high
        if not self.high > self.low:
            around = self.low
            self.low, self.high = (around / 2, around * 2) if axis.log else (around - 0.5, around + 0.5)

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.axis.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (self.stop - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        if self.axis.ticks is not None:
            return list(self.axis.ticks)
        if self.axis.log:
            base = 2.0 if self.high / self.low < 1000 else 10.0
            low, high = math.log(self.low, base), math.log(self.high, base)
            return [base**k for k in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]

    def text(self, tick: float) -> str:
        return f"{100 * tick:.3g} %" if self.axis.share else f"{tick:.4g}"


def _frame(across: _Scale, upward: _Scale) -> str:
    parts = []
    for tick in upward.ticks():
        y = upward(tick)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" stroke="var(--grid)"/>')
        parts.append(_text(_LEFT - 5, y + 4, upward.text(tick), anchor="end", soft=True))
    for tick in across.ticks():
        x = across(tick)
        parts.append(f'<path d="M{x:.1f} {_TOP}V{_BOTTOM}" stroke="var(--grid)"/>')
        parts.append(_text(x, _BOTTOM + 16, across.text(tick), soft=True))
    parts.append(_text((_LEFT + _RIGHT) / 2, _HEIGHT - 8, across.axis.label))
    parts.append(_text(11, (_TOP + _BOTTOM) / 2, upward.axis.label, turned=True))
    return "".join(parts)


def _series(series: Series, colour: str, across: _Scale, upward: _Scale) -> str:
    def path(xs: Sequence[float], ys: Sequence[float]) -> str:
        there = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
        return " ".join(f"{across(x):.1f},{upward(y):.1f}" for x, y in there)

    parts = []
    if series.low is not None and series.high is not None:
        band = path(series.x, series.high) + " " + path(series.x[::-1], series.low[::-1])
        parts.append(f'<polygon points="{band}" fill="{colour}" fill-opacity=".15"/>')
    line = path(series.x, series.y)
    parts.append(
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
    )
    for x, y in zip(series.x, series.y, strict=True) if series.dots else ():
        if math.isfinite(y):
            at = f"{across.axis.label} {across.text(x)}, {upward.axis.label} {upward.text(y)}"
            parts.append(
                f'<circle cx="{across(x):.1f}" cy="{upward(y):.1f}" r="3.5" fill="{colour}">'
                f"<title>{escape(f'{series.name}: {at}')}</title></circle>"
            )
    return "".join(parts)


def _text(
    x: float, y: float, words: str, *, anchor: str = "middle", soft: bool = False, turned: bool = False
) -> str:
    place = f'transform="translate({x:.1f} {y:.1f}) rotate(-90)"' if turned else f'x="{x:.1f}" y="{y:.1f}"'
    style = ' class="soft"' if soft else ""
    return f'<text {place} text-anchor="{anchor}"{style}>{escape(words)}</text>'


def _svg(title: str, width: float, height: float, body: str, *, fixed: bool = False) -> str:
    size = f' width="{width:.0f}" height="{height:.0f}"' if fixed else ""
    box = f'viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg {box}{size} role="img" aria-label="{escape(title)}">{body}</svg>'


def _chart(title: str, body: str) -> Html:
    return Html(f'<figure class="chart">\n<figcaption>{escape(title)}</figcaption>\n{body}\n</figure>\n')
