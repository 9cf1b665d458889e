"""Answers of many images at once: the bytes that record by record would give, made by columns.

Numbers are written in eight digits by tables, texts are joined by pyarrow; only a row that is out of the
ordinary (a failure, notes, a name with characters that are spelled) goes the way of a single record.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.bulk import Answers
from nshot.extras import pyarrow
from nshot.output.sinks.formats import Csv, Jsonl, cell
from nshot.paths import spelled, unspelled
from nshot.types import Failure, Floats, Prediction

Bytes = NDArray[np.uint8]

_SPELLED = [*range(32), ord("\\"), *range(127, 256)]  # bytes of which ``spelled`` may make something else
_QUOTED = [ord('"')]
_APART = [ord(each) for each in '",']
_FIRST = [ord(each) for each in "'=+-@ "]


@dataclass(frozen=True, slots=True)
class Many:
    """Answers of m images that follow each other.

    Attributes:
        sources: the images' names as a part has them, an array of pyarrow.
        labels: all labels that can be answered.
        answers: of all m images; what it says of those in ``odd`` is not looked at.
        odd: images that are written by themselves: those without an answer, and those with notes.
    """

    sources: Any
    labels: tuple[str, ...]
    answers: Answers
    odd: Mapping[int, Prediction | Failure]

    def __len__(self) -> int:
        return len(self.sources)

    def rows(self, which: NDArray[Any]) -> Many:
        """Some of the images, by index, in order."""
        places = {row: place for place, row in enumerate(which.tolist())}
        odd = {places[row]: record for row, record in self.odd.items() if row in places}
        return Many(self.sources.take(pyarrow().array(which)), self.labels, self.answers.rows(which), odd)

    @property
    def failures(self) -> list[Failure]:
        """The images without an answer, in their order."""
        return [record for _, record in sorted(self.odd.items()) if isinstance(record, Failure)]


def can(labels: Sequence[str]) -> bool:
    """Whether answers with these labels can be written by columns: names of folders need not be UTF-8."""
    try:
        for label in labels:
            label.encode()
    except UnicodeEncodeError:
        return False
    return sys.byteorder == "little"


def json_lines(many: Many, format: Jsonl) -> bytes:
    """As ``Jsonl.encode`` writes each of them."""

    def written(name: str) -> str:
        return encode_basestring(spelled(name))[1:-1]

    names = _names(many.sources, (*_SPELLED, *_QUOTED), (), written)
    answers = many.answers
    told = answers.labels.shape[1]
    pa = pyarrow()
    scores, cosines = _words(answers.scores), _words(answers.cosines)
    quoted = tuple(map(encode_basestring, many.labels))
    best, first, next_ = (
        _between(quoted, *around)
        for around in (
            ('", "label": ', ', "score": '),
            (', "predictions": [{"label": ', ', "score": '),
            ('}, {"label": ', ', "score": '),
        )
    )
    numbers = [
        _text(_Digits(scores[:, k]), b', "cosine": ', _Digits(cosines[:, k], answers.cosines[:, k]))
        for k in range(told)
    ]
    labels = [pa.array(np.ascontiguousarray(answers.labels[:, k])) for k in range(told)]
    pieces = [
        '{"source": "',
        names,
        best.take(labels[0]),
        numbers[0],
        _margins(answers, ', "margin": ', "null"),
    ]
    pieces += [first.take(labels[0]), numbers[0]]
    for label, number in zip(labels[1:], numbers[1:], strict=True):
        pieces += [next_.take(label), number]
    return _joined([*pieces, f"}}]{format.run}}}\n"], many, format.encode)


def csv_rows(many: Many, format: Csv) -> bytes:
    """As ``Csv.encode`` writes each of them."""

    def written(name: str) -> str:
        return cell(spelled(name))

    apart = format.delimiter
    names = _names(many.sources, (*_SPELLED, *_APART), _FIRST, written)
    answers = many.answers
    pa = pyarrow()
    scores, cosines = _words(answers.scores), _words(answers.cosines)
    labels = _between(tuple(map(cell, many.labels)), apart, apart)
    pieces = [names]
    for k in range(answers.labels.shape[1]):
        pieces.append(labels.take(pa.array(np.ascontiguousarray(answers.labels[:, k]))))
        pieces.append(
            _text(_Digits(scores[:, k]), apart.encode(), _Digits(cosines[:, k], answers.cosines[:, k]))
        )
        if k == 0:
            pieces.append(_margins(answers, apart, ""))
    return _joined([*pieces, f"{3 * apart}{format.ending}\n"], many, format.encode)


def spelled_names(sources: Any) -> Any:
    """Names as every sink spells them, an array of pyarrow."""
    return _names(sources, _SPELLED, (), spelled)


def as_written(numbers: Floats) -> NDArray[np.float64]:
    """The numbers that six decimals leave."""
    written: NDArray[np.float64] = np.rint(np.asarray(numbers, np.float64) * 1e6) / 1e6
    return written


class _Digits:
    """Numbers of eight digits each, with room for a sign before them where one of them has one."""

    def __init__(self, words: NDArray[np.uint64], signed: Floats | None = None) -> None:
        self.bytes = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 8)
        self.minus = None
        if signed is not None and (minus := np.signbit(signed)).any():
            self.minus = minus


def _words(numbers: Floats) -> NDArray[np.uint64]:
    """Each number without its sign as eight characters, in the bytes of an integer: "0.123456"."""
    if not np.isfinite(numbers).all():
        raise ValueError("not a finite number")
    high, low = _digits()
    # exact in float64, so that halves are rounded as Python's own formatting rounds them
    millionths = np.rint(np.abs(numbers).astype(np.float64) * 1e6).astype(np.int32)
    thousands = millionths // 1000
    return high[thousands] | low[millionths - 1000 * thousands]  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _digits() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first five characters of a number by its thousandths, and the last three, in their places."""
    high = [f"{n // 1000}.{n % 1000:03}".encode().ljust(8, b"\0") for n in range(10_000)]
    low = [f"{n:03}".encode().rjust(8, b"\0") for n in range(1000)]
    first, second = (np.frombuffer(b"".join(each), "<u8") for each in (high, low))
    return first, second


def _text(*parts: _Digits | bytes) -> Any:
    """Numbers and what stands between them, as an array of pyarrow."""
    rows = next(len(part.bytes) for part in parts if isinstance(part, _Digits))
    width, signs = 0, []
    for part in parts:
        if isinstance(part, _Digits):
            if part.minus is not None:
                signs.append(width)
                width += 1
            width += 8
        else:
            width += len(part)
    held = np.empty((rows, width), np.uint8)
    at = 0
    for part in parts:
        if isinstance(part, _Digits):
            if part.minus is not None:
                held[:, at] = np.where(part.minus, ord("-"), 0)
                at += 1
            held[:, at : at + 8] = part.bytes
            at += 8
        else:
            held[:, at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
    if not signs:
        return _strings(held, np.arange(0, rows * width + 1, width or 1, dtype=np.int32))
    there = np.ones(held.shape, bool)
    for at in signs:
        there[:, at] = held[:, at] != 0
    ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(there.sum(axis=1), dtype=np.int32)])
    return _strings(held[there], ends)


def _strings(data: Bytes, ends: NDArray[np.int32]) -> Any:
    pa = pyarrow()
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.Array.from_buffers(pa.string(), len(ends) - 1, buffers)


def _margins(answers: Answers, before: str, none: str) -> Any:
    if answers.labels.shape[1] and np.isnan(answers.margins).all():  # there is but one label
        return before + none
    return _text(before.encode(), _Digits(_words(answers.margins), answers.margins))


@lru_cache(maxsize=16)
def _between(texts: tuple[str, ...], before: str, after: str) -> Any:
    return pyarrow().array([before + text + after for text in texts], pyarrow().string())


def _names(sources: Any, special: Sequence[int], first: Sequence[int], written: Callable[[str], str]) -> Any:
    """Names as they are but for those with a special byte, or with one of ``first`` or a space at an edge."""
    pa = pyarrow()
    array = sources.combine_chunks() if isinstance(sources, pa.ChunkedArray) else sources
    if array.null_count or array.type != pa.string():
        array = pa.array([each or "" for each in array.to_pylist()], pa.string())
    _, ends, data = array.buffers()
    ends = np.frombuffer(ends, np.int32)[array.offset : array.offset + len(array) + 1]
    if not len(array) or ends[0] == ends[-1]:
        return array
    held = np.frombuffer(data, np.uint8)
    found = np.flatnonzero(_one_of(tuple(special))[held[ends[0] : ends[-1]]]) + ends[0]
    rows = np.unique(np.searchsorted(ends, found, side="right") - 1)
    if first:
        some = np.flatnonzero(np.diff(ends))
        edge = _one_of(tuple(first))[held[ends[some]]] | (held[ends[some + 1] - 1] == ord(" "))
        rows = np.union1d(rows, some[edge])
    if not len(rows):
        return array
    texts = array.to_pylist()
    for row in rows.tolist():
        texts[row] = written(unspelled(texts[row]))
    return pa.array(texts, pa.string())


@lru_cache(maxsize=8)
def _one_of(some: tuple[int, ...]) -> NDArray[np.bool_]:
    table = np.zeros(256, bool)
    table[list(some)] = True
    return table


def _joined(pieces: Sequence[Any], many: Many, encode: Callable[[Any], bytes]) -> bytes:
    """The lines, those of odd images by themselves."""
    pa = pyarrow()
    lines = pa.compute.binary_join_element_wise(*pieces, "")
    if not many.odd:
        _, ends, data = lines.buffers()
        return data.slice(0, int(np.frombuffer(ends, np.int32)[len(lines)])).to_pybytes()  # type: ignore[no-any-return]
    held = lines.cast(pa.binary()).to_pylist()
    for row, record in many.odd.items():
        held[row] = encode(record)
    return b"".join(held)
