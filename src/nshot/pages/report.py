"""Building blocks of one self-contained HTML page: figures in, markup out, nothing fetched.

A page is made of sections, a section of parts; ``charts`` draws the parts that are images of numbers::

    page("Title", section("Accuracy", headline(Figure("91.2 %", "top-1")), table(["label"], [["cat"]])))

The markup is in ``templates``; every string is escaped on its way in, unless a template or ``charts``
made it. A page forbids itself every request (Content-Security-Policy), follows the reader's light or dark
setting, and is legible from 400 to 1600 px.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from nshot.pages.engine import Html, asset, environment, part

if TYPE_CHECKING:
    from PIL import Image

Tone: TypeAlias = Literal["", "good", "bad"]


class Cell(NamedTuple):
    """A table's cell: what is shown, and what it is sorted by."""

    content: str
    key: float | str | None = None


def percent(value: float, digits: int = 1) -> Cell:
    """0.912 -> "91.2 %", sorted by the number; not a number -> a dash."""
    return Cell("–", None) if math.isnan(value) else Cell(f"{100 * value:.{digits}f} %", value)


def number(value: float, digits: int = 3) -> Cell:
    """A number with a fixed count of digits, sorted by itself; not a number -> a dash."""
    return Cell("–", None) if math.isnan(value) else Cell(f"{value:,.{digits}f}", value)


def between(low: float, high: float, digits: int = 1) -> str:
    """Two shares as one interval: "88.1 to 93.4 %"."""
    return "–" if math.isnan(low) else f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %"


# The page and its sections


def page(title: str, *sections: Html, subtitle: str = "") -> str:
    """A whole HTML document, with its style and its script inside."""
    style, script = asset("theme.css") + asset("report.css"), asset("report.js")
    return (
        environment()
        .get_template("report.html")
        .render(
            title=title,
            subtitle=subtitle,
            sections=sections,
            style=Html(style),
            script=Html(script),
            style_hash=_digest(style),
            script_hash=_digest(script),
        )
    )


def section(heading: str, *parts: str, note: str = "") -> Html:
    """A heading, a sentence that says how to read what follows, and the parts."""
    return part("section", heading, note, [p if isinstance(p, Html) else paragraph(p) for p in parts])


def paragraph(text: str, tone: Tone = "") -> Html:
    """A paragraph of text."""
    return part("paragraph", text, tone)


def side_by_side(*parts: Html) -> Html:
    """Parts beside each other where there is room, below each other where there is none."""
    return part("side_by_side", parts)


def folded(summary: str, *parts: Html) -> Html:
    """Parts that are there when asked for."""
    return part("folded", summary, parts)


def facts(items: Mapping[str, object]) -> Html:
    """Names and what they are: what was run, with what."""
    return part("facts", items)


# Figures and tables


@dataclass(frozen=True, slots=True)
class Figure:
    """One large number: its text, what it is, and what to know beside it."""

    value: str
    name: str
    note: str = ""
    tone: Tone = ""


def headline(*figures: Figure) -> Html:
    """The few numbers to read first."""
    return part("headline", figures)


class _Column(NamedTuple):
    name: str
    numeric: bool


class _Shown(NamedTuple):
    """A cell as the template takes it."""

    content: str
    numeric: bool
    key: str = ""


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell | str | int]], *, caption: str = "") -> Html:
    """A table whose columns sort on a click.

    Args:
        columns: the heads.
        rows: one cell per column; a bare string sorts as text, a bare int as a number. A long table
            scrolls inside itself under its heads.
        caption: what the table shows, for those who hear it instead of seeing it; also shown.
    """
    shown = [[_cell(cell) for cell in row] for row in rows]
    numeric = [bool(shown) and all(row[k].numeric for row in shown) for k in range(len(columns))]
    return part("table", list(map(_Column, columns, numeric)), shown, caption)


def _cell(cell: Cell | str | int) -> _Shown:
    if isinstance(cell, int):
        cell = Cell(f"{cell:,}", cell)
    elif isinstance(cell, str):
        cell = Cell(cell, cell)
    if isinstance(cell.key, str):
        return _Shown(cell.content, numeric=False)  # sorted by the text that is shown
    known = cell.key is not None and not math.isnan(cell.key)
    return _Shown(cell.content, numeric=True, key=f"{cell.key:.9g}" if known else "")


# Images


@dataclass(frozen=True, slots=True)
class Card:
    """An image and what is said about it.

    Attributes:
        image: what ``thumbnail`` made, or None where the image could not be shown.
        title: the first line, large.
        lines: the lines below it.
        tone: a good answer, a bad one, or neither.
        hint: the name of the image: the card ends with the file's, and shows all of it under a pointer.
    """

    image: str | None
    title: str
    lines: Sequence[str] = ()
    tone: Tone = ""
    hint: str = ""

    @property
    def file(self) -> str:
        """The name without its folders."""
        return self.hint.replace("\\", "/").rstrip("/").rpartition("/")[2]


def cards(items: Iterable[Card]) -> Html:
    """A grid of images with their lines."""
    return part("cards", list(items))


def thumbnail(image: Image.Image, side: int = 192) -> str:
    """An image inside a square of ``side`` pixels as a data URI: a JPEG of some 5 KB, no metadata."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    held = io.BytesIO()
    small.save(held, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode("ascii")


def _digest(text: str) -> str:
    """What a Content-Security-Policy calls an element of exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
