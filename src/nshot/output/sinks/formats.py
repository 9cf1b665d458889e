"""Records as lines of JSON or CSV, and back: only as far as resuming needs it.

Numbers have six decimals, so that the noise of float32 does not show. A source's name that is not valid UTF-8
(Python holds its odd bytes as surrogates) survives in both: JSON escapes the surrogates (``\\udcff``), which
``json.loads`` turns back; CSV holds the name's own bytes, to be read with ``errors="surrogateescape"``.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from json.encoder import encode_basestring
from math import isfinite
from typing import BinaryIO, NamedTuple, Protocol, TypeAlias

from nshot.types import Decided, Failure, Prediction

Record: TypeAlias = Prediction | Failure


class Written(NamedTuple):
    """A record found in a file: its source, whether it failed, its length in bytes, the labels it names."""

    source: str
    failed: bool
    size: int
    labels: tuple[str, ...]


class Format(Protocol):
    """How records become bytes, each ending in a newline; ``header`` comes before the first."""

    @property
    def header(self) -> bytes:
        """What a file begins with."""

    def encode(self, record: Record) -> bytes:
        """The record's bytes; ValueError where a number is not finite."""

    def read(self, file: BinaryIO) -> Iterator[Written]:
        """The whole records of a file, after its header; ValueError where one is not of this format."""


class Jsonl:
    """A record a line, as ``to_dict`` gives it."""

    header = b""

    def encode(self, record: Record) -> bytes:
        """The JSON of ``record.to_dict()``, six decimals, written out by hand: several times json's speed."""
        if isinstance(record, Failure):
            line = json.dumps(record.to_dict(), ensure_ascii=False)
        else:
            decided = record if isinstance(record, Decided) else None
            score = score_name(decided is not None and decided.calibrated)
            labels = [
                f'"label": {_quoted(p.label)}, "{score}": {number(p.score)}, "cosine": {number(p.cosine)}'
                for p in record.predictions
            ]
            answer = labels[0] if decided is None else _answer(decided, labels[0])
            margin = "null" if record.margin is None else number(record.margin)
            line = (
                f'{{"source": {encode_basestring(record.source)}, {answer}, "margin": {margin}, '
                f'"predictions": [{{{"}, {".join(labels)}}}]}}'
            )
        try:
            return f"{line}\n".encode()
        except UnicodeEncodeError:  # a lone surrogate: no UTF-8 has it, but JSON's escapes do
            return f"{json.dumps(json.loads(line))}\n".encode()

    def read(self, file: BinaryIO) -> Iterator[Written]:
        """See ``Format.read``."""
        for line in file:
            if not line.endswith(b"\n"):
                return
            record = json.loads(line)
            if not isinstance(record, dict) or not isinstance(record.get("source"), str):
                raise ValueError("no answer of nshot")
            try:
                labels = tuple(told["label"] for told in record.get("predictions", ()))
            except (TypeError, KeyError):
                raise ValueError("no answer of nshot") from None
            yield Written(record["source"], "error" in record, len(line), labels)


class Csv:
    """A record a row: source, label, score, cosine, margin; label_2 ... of the others; the error if any.

    Decided answers have three more columns after the label: answer, labels (with "; " between two), and
    best, the best label whether or not it is answered. A score that is a probability is called so.
    """

    def __init__(self, top_k: int, *, decided: bool = False, calibrated: bool = False) -> None:
        score = score_name(calibrated)
        following = [f"{name}_{rank}" for rank in range(2, top_k + 1) for name in ("label", score, "cosine")]
        answer = ["answer", "labels", "best"] if decided else []
        first = ["source", "label", *answer, score, "cosine", "margin"]
        columns = [*first, *following, "error_type", "error_message"]
        self.header = f"{','.join(columns)}\n".encode()
        self._width = len(columns)
        self._labels = [i for i, name in enumerate(columns) if name == "best" or name.startswith("label_")]
        self._labels += [] if decided else [columns.index("label")]

    def encode(self, record: Record) -> bytes:
        """A row as long as the header, whatever the record lacks."""
        if isinstance(record, Failure):
            cells = [record.source, *[""] * (self._width - 3), record.type, record.message]
        else:
            margin = "" if record.margin is None else number(record.margin)
            cells = [record.source]
            for prediction in record.predictions:
                cells += prediction.label, number(prediction.score), number(prediction.cosine)
            cells.insert(4, margin)
            if isinstance(record, Decided):
                cells[1:1] = record.label or "", record.answer, "; ".join(record.labels)
            cells += [""] * (self._width - len(cells))
        line = ",".join([_cell(cell) for cell in cells]) + "\n"
        try:
            return line.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # a surrogate that stands for no byte
            return line.encode("utf-8", "replace")

    def read(self, file: BinaryIO) -> Iterator[Written]:
        """See ``Format.read``."""
        if (header := file.readline()) != self.header:
            if self.header.startswith(header):  # torn within the header
                return
            raise ValueError("other columns")
        row = b""
        for line in file:
            row += line  # a quoted cell may hold newlines: a row ends where every quote is closed
            if row.endswith(b"\n") and row.count(b'"') % 2 == 0:
                try:
                    (cells,) = csv.reader([row.decode("utf-8", "surrogateescape")], strict=True)
                except csv.Error as error:
                    raise ValueError(str(error)) from error
                if len(cells) != self._width:
                    raise ValueError("other columns")
                labels = tuple(cells[i] for i in self._labels if cells[i])
                yield Written(cells[0], cells[-2] != "", len(row), labels)
                row = b""


def score_name(calibrated: bool) -> str:
    """What a score is called: it is no probability before it was calibrated."""
    return "probability" if calibrated else "score"


def _answer(record: Decided, best: str) -> str:
    """What is answered, with the best label's numbers."""
    label = "null" if record.label is None else _quoted(record.label)
    labels = ", ".join(map(_quoted, record.labels))
    numbers = best.removeprefix(f'"label": {_quoted(record.predictions[0].label)}, ')
    return f'"label": {label}, "answer": "{record.answer}", "labels": [{labels}], {numbers}'


def number(value: float) -> str:
    """Six decimals; ValueError for what JSON has no word for."""
    if not isfinite(value):
        raise ValueError(f"not a finite number: {value}")
    return f"{value:.6f}"


_SPECIAL = re.compile(r'[",\r\n]|^ | $')


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


_quoted = lru_cache(maxsize=8192)(encode_basestring)  # the same few labels stand in every record
