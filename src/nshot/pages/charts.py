"""Images of numbers as inline SVG, drawn for the width of a phone and scaled up from there.

Colours are the page's own variables, so that a chart follows the reader's light or dark setting.
``alone`` makes a file of a chart, for any viewer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup as Html
from markupsafe import escape
from numpy.typing import ArrayLike

from nshot.pages.engine import asset, part

_WIDTH, _HEIGHT = 360, 260  # units of a drawing: one is a pixel on a small phone
_RIGHT, _TOP, _BOTTOM = (
    340,
    10,
    218,
)  # the frame of the axes inside it; the left edge leaves room for the numbers
_LETTER = 6.7  # width of a digit or a letter of the charts' text, generously
_COLOURS = 6  # --c0 ... --c5 of theme.css
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 4", "1 4")


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
        label: what it measures, with its unit.
        low, high: its ends; taken from the points where None.
        ticks: where to write numbers; round ones are chosen where None.
        names: what to write at the ticks; the numbers themselves where None.
        log: logarithmic (all values over 0).
        share: values in [0, 1], written in per cent; the axis never leaves them.
    """

    label: str
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] | None = None
    names: Sequence[str] | None = None
    log: bool = False
    share: bool = False


def lines(
    title: str, series: Sequence[Series], x: Axis, y: Axis, *, diagonal: bool = False, legend: bool = True
) -> Html:
    """Lines over two axes; with ``diagonal``, a dashed line where y equals x."""
    marks = _marks(len(series))
    drawing = _svg(title, _WIDTH, _HEIGHT, _plot(series, marks, x, y, diagonal=diagonal))
    key = [(_sample(mark), s.name) for mark, s in zip(marks, series, strict=True)] if legend else []
    return part("chart", title, drawing, key, "", False)


def alone(title: str, series: Sequence[Series], x: Axis, y: Axis, *, note: str = "") -> str:
    """The same lines as an SVG document that stands alone, with its title, its legend and a note below it."""
    marks, row, top = _marks(len(series)), 17, 30
    parts = [
        f"<style>{asset('theme.css')} text {{ fill: var(--ink); font: 12px system-ui, sans-serif }} "
        "text.soft { fill: var(--soft) } text.title { font-size: 15px; font-weight: 600 }</style>",
        '<rect width="100%" height="100%" fill="var(--sheet)"/>',
        f'<text x="12" y="22" class="title">{escape(title)}</text>',
        f'<g transform="translate(0 {top})">{_plot(series, marks, x, y)}</g>',
    ]
    at = top + _HEIGHT + 12
    for mark, s in zip(marks, series, strict=True):
        parts.append(f'<path d="M14 {at - 4}h26" {mark.stroke}/>')
        parts.append(_text(48, at, s.name, anchor="start"))
        at += row
    if note:
        parts.append(_text(14, at + 2, note, anchor="start", soft=True))
        at += row
    size = f'viewBox="0 0 {_WIDTH} {at}" width="{2 * _WIDTH}" height="{2 * at}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>\n"
    )


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
    note = f"Rows: {rows}. Columns: {columns}. Shade: share of the row."
    return part("chart", title, drawing, [], note, True)


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


@dataclass(frozen=True, slots=True)
class _Mark:
    """How one line is told from the others: equal lines show as stripes, since later ones are thinner."""

    colour: str
    width: float
    dash: str

    @property
    def stroke(self) -> str:
        dash = f' stroke-dasharray="{self.dash}"' if self.dash else ""
        return f'fill="none" stroke="{self.colour}" stroke-width="{self.width:.1f}"{dash}'


def _marks(count: int) -> list[_Mark]:
    step = min(2.0, 3 / max(count - 1, 1))
    return [
        _Mark(f"var(--c{i % _COLOURS})", 2 + step * (count - 1 - i), _DASHES[i % len(_DASHES)])
        for i in range(count)
    ]


def _sample(mark: _Mark) -> Html:
    """A piece of the line, for the legend."""
    return Html(
        f'<svg class="sample" viewBox="0 0 26 12" aria-hidden="true"><path d="M0 6h26" {mark.stroke}/></svg>'
    )


def _plot(
    series: Sequence[Series], marks: Sequence[_Mark], x: Axis, y: Axis, *, diagonal: bool = False
) -> str:
    """The axes and the lines, in a frame of _WIDTH x _HEIGHT."""
    ends = [v for s in series for v in (*s.y, *(s.low or ()), *(s.high or ()))]
    upward = _Scale(y, ends, _BOTTOM, _TOP)
    left = 28 + _LETTER * max((len(upward.said(tick)) for tick in upward.ticks()), default=0)
    across = _Scale(x, [v for s in series for v in s.x], left, _RIGHT)
    parts = [_frame(across, upward)]
    if diagonal:
        low, high = max(across.low, upward.low), min(across.high, upward.high)
        path = f"M{across(low):.1f} {upward(low):.1f}L{across(high):.1f} {upward(high):.1f}"
        parts.append(f'<path d="{path}" stroke="var(--soft)" stroke-dasharray="4 4"/>')
    parts += [_series(s, mark, across, upward) for s, mark in zip(series, marks, strict=True)]
    return "".join(parts)


class _Scale:
    """Maps values of an axis to units of the drawing, clipped to its ends."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, stop: float) -> None:
        finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
        self.axis, self.start, self.stop = axis, start, stop
        self.low = min(finite) if axis.low is None else axis.low
        self.high = max(finite) if axis.high is None else axis.high
        if not self.high > self.low:
            self._widen()
        if axis.share:
            self.low, self.high = max(self.low, 0.0), min(self.high, 1.0)

    def _widen(self) -> None:
        """One value is no axis: leave room around it, but at no end that was asked for."""
        value, by = self.low, 0.1 if self.axis.share else 0.5
        low, high = (value / 2, value * 2) if self.axis.log else (value - by, value + by)
        if self.axis.low is None or self.axis.high is not None:
            self.low = low
        if self.axis.high is None:
            self.high = high

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

    def said(self, value: float) -> str:
        """A value in words: by its tick's name where ticks have names."""
        if self.axis.names is not None and value in self.ticks():
            return self.axis.names[self.ticks().index(value)]
        return f"{100 * value:.3g} %" if self.axis.share else f"{value:.4g}"


def _frame(across: _Scale, upward: _Scale) -> str:
    parts, left = [], across.start
    for tick in upward.ticks():
        y = upward(tick)
        parts.append(f'<path d="M{left:.1f} {y:.1f}H{_RIGHT}" stroke="var(--grid)"/>')
        parts.append(_text(left - 5, y + 4, upward.said(tick), anchor="end", soft=True))
    for tick in across.ticks():
        x = across(tick)
        parts.append(f'<path d="M{x:.1f} {_TOP}V{_BOTTOM}" stroke="var(--grid)"/>')
        parts.append(_text(x, _BOTTOM + 16, across.said(tick), soft=True))
    parts.append(_text((left + _RIGHT) / 2, _HEIGHT - 8, across.axis.label))
    parts.append(_text(11, (_TOP + _BOTTOM) / 2, upward.axis.label, turned=True))
    return "".join(parts)


def _series(series: Series, mark: _Mark, across: _Scale, upward: _Scale) -> str:
    def path(xs: Sequence[float], ys: Sequence[float]) -> str:
        there = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
        return " ".join(f"{across(x):.1f},{upward(y):.1f}" for x, y in there)

    parts, colour = [], mark.colour
    if series.low is not None and series.high is not None:
        band = path(series.x, series.high) + " " + path(series.x[::-1], series.low[::-1])
        parts.append(f'<polygon points="{band}" fill="{colour}" fill-opacity=".15"/>')
    line = path(series.x, series.y)
    parts.append(f'<polyline points="{line}" {mark.stroke} stroke-linejoin="round"/>')
    for x, y in zip(series.x, series.y, strict=True) if series.dots else ():
        if math.isfinite(y):
            radius = 2 + mark.width / 2
            at = f"{across.axis.label} {across.said(x)}, {upward.axis.label} {upward.said(y)}"
            parts.append(
                f'<circle cx="{across(x):.1f}" cy="{upward(y):.1f}" r="{radius:.1f}" fill="{colour}">'
                f"<title>{escape(f'{series.name}: {at}')}</title></circle>"
            )
    return "".join(parts)


def _text(
    x: float, y: float, words: str, *, anchor: str = "middle", soft: bool = False, turned: bool = False
) -> str:
    place = f'transform="translate({x:.1f} {y:.1f}) rotate(-90)"' if turned else f'x="{x:.1f}" y="{y:.1f}"'
    style = ' class="soft"' if soft else ""
    return f'<text {place} text-anchor="{anchor}"{style}>{escape(words)}</text>'


def _svg(title: str, width: float, height: float, body: str, *, fixed: bool = False) -> Html:
    size = f' width="{width:.0f}" height="{height:.0f}"' if fixed else ""
    box = f'viewBox="0 0 {width:.0f} {height:.0f}"'
    return Html(f'<svg {box}{size} role="img" aria-label="{escape(title)}">{body}</svg>')
