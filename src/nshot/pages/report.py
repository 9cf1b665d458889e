"""Building blocks of one self-contained HTML page: figures in, markup out, nothing fetched.

A page is made of sections, a section of parts; ``charts`` draws the parts that are images of numbers::

    page("Title", section("How good", headline(Figure("91.2 %", "top-1")), table(["label"], [["cat"]])))

Every string is escaped on its way in, unless it is ``Html``, which only this module and ``charts`` make.
A page forbids itself every request (Content-Security-Policy), follows the reader's light or dark setting,
and is legible from 400 to 1600 px.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape as _escape
from importlib import resources
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from PIL import Image

Tone: TypeAlias = Literal["", "good", "bad"]


class Html(str):
    """Markup: a string that is not escaped again."""

    __slots__ = ()


def escape(text: object) -> Html:
    """Text made safe inside an element or an attribute; ``Html`` as it is."""
    return text if isinstance(text, Html) else Html(_escape(str(text)))


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
    files = resources.files("nshot.pages") / "assets"
    style = (files / "report.css").read_text("utf-8")
    script = (files / "report.js").read_text("utf-8")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style>\n</head>\n"
        f"<body>\n<header>\n<h1>{escape(title)}</h1>\n{_tag('p', subtitle)}</header>\n<main>\n"
        f"{''.join(sections)}</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str, note: str = "") -> Html:
    """A heading, a sentence that says how to read what follows, and the parts."""
    body = "".join(part if isinstance(part, Html) else paragraph(part) for part in parts)
    return Html(
        f"<section>\n<h2>{escape(heading)}</h2>\n{_tag('p', note, 'note')}{body}</section>\n",
    )


def paragraph(text: str, tone: Tone = "") -> Html:
    """A paragraph of text."""
    return _tag("p", text, tone)


def side_by_side(*parts: Html) -> Html:
    """Parts beside each other where there is room, below each other where there is none."""
    return Html(f'<div class="beside">\n{"".join(f"<div>{part}</div>" for part in parts)}\n</div>\n')


def folded(summary: str, *parts: Html) -> Html:
    """Parts that are there when asked for."""
    return Html(f"<details>\n<summary>{escape(summary)}</summary>\n{''.join(parts)}</details>\n")


def facts(items: Mapping[str, object]) -> Html:
    """Names and what they are: what was run, with what."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>\n" for name, value in items.items())
    return Html(f'<dl class="facts">\n{rows}</dl>\n') if rows else Html()


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
    cards = "".join(
        f'<div class="figure {figure.tone}"><span class="name">{escape(figure.name)}</span>'
        f'<span class="value">{escape(figure.value)}</span>'
        f'<span class="aside">{escape(figure.note)}</span></div>\n'
        for figure in figures
    )
    return Html(f'<div class="headline">\n{cards}</div>\n')


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell | str | int]], *, caption: str = "") -> Html:
    """A table whose columns sort on a click.

    Args:
        columns: the heads.
        rows: one cell a column; a bare string sorts as text, a bare int as a number. A long table
            scrolls inside itself under its heads.
        caption: what the table shows, for those who hear it instead of seeing it; also shown.
    """
    heads = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="scroll" tabindex="0"><table>{title}\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>\n"
    )


def _cell(cell: Cell | str | int) -> str:
    if isinstance(cell, int):
        cell = Cell(f"{cell:,}", cell)
    elif isinstance(cell, str):
        cell = Cell(cell, cell)
    if isinstance(cell.key, str):
        return f"<td>{escape(cell.content)}</td>"  # sorted by the text that is shown
    key = "" if cell.key is None or math.isnan(cell.key) else f"{cell.key:.9g}"
    return f'<td class="n" data-key="{key}">{escape(cell.content)}</td>'


# Images


@dataclass(frozen=True, slots=True)
class Card:
    """An image and what is said about it.

    Attributes:
        image: what ``thumbnail`` made, or None where the image could not be shown.
        title: the first line, large.
        lines: the lines below it.
        tone: a good answer, a bad one, or neither.
        hint: the whole name, shown where a pointer rests.
    """

    image: str | None
    title: str
    lines: Sequence[str] = ()
    tone: Tone = ""
    hint: str = ""


def cards(items: Iterable[Card]) -> Html:
    """A grid of images with their lines."""
    shown = "".join(
        f'<figure class="card {card.tone}" title="{escape(card.hint)}">{_image(card)}'
        f"<figcaption><b>{escape(card.title)}</b>"
        f"{''.join(f'<span>{escape(line)}</span>' for line in card.lines)}</figcaption></figure>\n"
        for card in items
    )
    return Html(f'<div class="cards">\n{shown}</div>\n') if shown else Html()


def _image(card: Card) -> str:
    if card.image is None:
        return '<div class="nothing">no image</div>'
    return f'<img src="{escape(card.image)}" alt="{escape(card.hint or card.title)}" loading="lazy">'


def thumbnail(image: Image.Image, side: int = 192) -> str:
    """An image inside a square of ``side`` pixels as a data URI: a JPEG of some 5 KB, no metadata."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    held = io.BytesIO()
    small.save(held, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode("ascii")


def _tag(name: str, text: str, style: str = "") -> Html:
    """An element around a text; nothing around none."""
    attribute = f' class="{style}"' if style else ""
    return Html(f"<{name}{attribute}>{escape(text)}</{name}>\n" if text else "")
