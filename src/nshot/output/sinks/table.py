"""Records as a table for a person: fits the terminal's width, and no name can break its lines or colours."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Iterator
from typing import BinaryIO

from nshot.output.sinks.formats import Record, Written
from nshot.paths import spelled
from nshot.types import Decided, Faceted, Failure, Placed, Prediction

_RED, _BOLD, _PLAIN = "\x1b[31m", "\x1b[1m", "\x1b[0m"
_NUMBER = 7  # cells of "-0.1234"
_GAP = "  "


def width_of(stream: BinaryIO | None) -> int:
    """Columns to fill: COLUMNS, or the terminal's, or 80 where there is none."""
    if stream is not None and stream.isatty():
        return shutil.get_terminal_size().columns
    return int(columns) if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns) else 80


def wants_color(stream: BinaryIO | None) -> bool:
    """Whether there is a terminal with colours, and NO_COLOR (no-color.org) does not forbid them."""
    terminal = stream is not None and stream.isatty()
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Table:
    """Lines that fit: source, label, score, cosine, margin; further labels below the first."""

    def __init__(self, *, width: int, color: bool, calibrated: bool = False) -> None:
        text = max(width - 3 * (_NUMBER + len(_GAP)) - len(_GAP), 10)  # a source and a label
        self._label = text * 2 // 5
        self._source = text - self._label
        self._rest = width - self._source - len(_GAP)
        self._color = color
        self._score = "prob." if calibrated else "score"

    @property
    def header(self) -> bytes:
        """The columns' names."""
        numbers = [f"{name:>{_NUMBER}}" for name in (self._score, "cosine", "margin")]
        return self._bytes([self._painted(_BOLD, self._line("source", "label", *numbers))])

    def encode(self, record: Record) -> bytes:
        """One line per label, or a failure's message in red."""
        if isinstance(record, Failure):
            message = list(_wrapped(spelled(f"{record.type}: {record.message}"), max(self._rest, 16)))
            sources = [record.source, *[""] * (len(message) - 1)]
            return self._bytes(
                [
                    _fitted(spelled(source), self._source) + _GAP + self._painted(_RED, part)
                    for source, part in zip(sources, message, strict=True)
                ]
            )
        lines = []
        if isinstance(record, Faceted):
            sources = [record.source, *[""] * (len(record.facets) - 1)]
            for source, (name, answer) in zip(sources, record.facets.items(), strict=True):
                lines.append(self._best(source, answer, f"{name}: "))
            lines += [f"{' ' * self._source}{_GAP}{p}" for note in record.notes for p in self._note(note)]
            return self._bytes(lines)
        if not isinstance(record, Prediction):
            raise TypeError("boxes among answers")
        for rank, prediction in enumerate(record.predictions):
            source, margin = (record.source, record.margin) if rank == 0 else ("", None)
            score = record.score if rank == 0 else prediction.score
            numbers = [_shown(score), f"{prediction.cosine:{_NUMBER}.4f}"]
            if rank == 0:
                numbers.append(f"{'—':>{_NUMBER}}" if margin is None else f"{margin:{_NUMBER}.4f}")
            label = _answered(record) if rank == 0 and isinstance(record, Decided) else prediction.label
            lines.append(self._line(source, label, *numbers))
        lines += [f"{' ' * self._source}{_GAP}{part}" for note in record.notes for part in self._note(note)]
        return self._bytes(lines)

    def read(self, file: BinaryIO) -> Iterator[Written]:
        """A table has dropped what resuming needs."""
        raise ValueError("a table cannot be read back")

    def _best(self, source: str, answer: Prediction, facet: str) -> str:
        """One line per facet: the answer, with the facet's name before it."""
        margin = f"{'—':>{_NUMBER}}" if answer.margin is None else f"{answer.margin:{_NUMBER}.4f}"
        label = _answered(answer) if isinstance(answer, Decided) else answer.label or ""
        return self._line(
            source, f"{facet}{label}", _shown(answer.score), f"{answer.cosine:{_NUMBER}.4f}", margin
        )

    def _line(self, source: str, label: str, *numbers: str) -> str:
        cells = _fitted(spelled(source), self._source), _fitted(spelled(label), self._label), *numbers
        return _GAP.join(cells)

    def _note(self, note: str) -> Iterator[str]:
        """What decoding did, below the answer."""
        return _wrapped(f"note: {spelled(note)}", max(self._rest, 16))

    def _painted(self, color: str, text: str) -> str:
        return f"{color}{text}{_PLAIN}" if self._color else text

    def _bytes(self, lines: list[str]) -> bytes:
        return "".join(f"{line.rstrip()}\n" for line in lines).encode("utf-8", "replace")


def _answered(record: Decided) -> str:
    """The answer in the place of the best label, whose numbers stand beside it."""
    if isinstance(record, Placed):
        return "/".join(record.path) or "not even a root is sure"
    if record.answer == "set":
        return f"{{{', '.join(record.labels)}}}"
    best = record.predictions[0].label
    return {
        "label": best,
        "several": ", ".join(record.labels),
        "none": f"none of these ({best}?)",
        "unsure": f"unsure ({best}?)",
        "ranked": f"not decided ({best}?)",
    }[record.answer]


def cells_of(text: str) -> int:
    """Columns that a terminal takes for the text: two for CJK and emoji, none for combining marks."""
    return len(text) if text.isascii() else sum(cells for _, cells in _clusters(text))


def _clusters(text: str) -> Iterator[tuple[str, int]]:
    """Characters with the marks that belong to them, and their columns."""
    cluster, cells = "", 0
    for char in text:
        if char == "\ufe0f" and cluster:  # asks for the emoji form, which is wide
            cluster, cells = cluster + char, 2
        elif unicodedata.category(char) in ("Mn", "Me", "Cf"):
            cluster += char
        else:
            if cluster:
                yield cluster, cells
            cluster, cells = char, 2 if unicodedata.east_asian_width(char) in "WF" else 1
    if cluster:
        yield cluster, cells


def _fitted(text: str, width: int) -> str:
    """The text in exactly so many columns: padded, or with the middle left out: a path's ends tell most."""
    missing = width - cells_of(text)
    if missing >= 0:
        return text + " " * missing
    clusters = list(_clusters(text))
    head = _taken(clusters, (width - 1) // 3)
    tail = _taken(clusters[::-1], width - 1 - cells_of("".join(head)))[::-1]
    short = "".join([*head, "…", *tail])
    return short + " " * (width - cells_of(short))


def _taken(clusters: list[tuple[str, int]], width: int) -> list[str]:
    taken = []
    for cluster, cells in clusters:
        width -= cells
        if width < 0:
            break
        taken.append(cluster)
    return taken


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Lines of at most so many columns, broken at spaces where there are any."""
    while cells_of(text) > width:
        part = "".join(_taken(list(_clusters(text)), width))
        space = part.rfind(" ")
        if space > 0:
            part = part[: space + 1]
        yield part.rstrip()
        text = text[len(part) :]
    yield text


def _shown(score: float) -> str:
    """A score; one that four decimals would make zero, as a sigmoid model's often are, by its size."""
    return f"{score:{_NUMBER}.4f}" if score == 0 or score >= 5e-5 else f"{score:{_NUMBER}.0e}"
