"""Records as lines of JSON or CSV, and back: only as far as resuming needs it.

Numbers have six decimals, so that the noise of float32 does not show. The name of a source is written as
``paths.spelled`` spells it in every format: valid UTF-8, printable, and turned back by ``paths.unspelled``.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring
from math import isfinite
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, TypeAlias, runtime_checkable

from nshot.bounded import lines, parsed
from nshot.errors import OutputError
from nshot.paths import as_written, spelled, unguarded, unspelled
from nshot.types import Decided, Faceted, Failure, Located, Placed, Prediction

if TYPE_CHECKING:
    from nshot.output.sinks.many import Many
_LONGEST_ROW = 2**26  # bytes

Record: TypeAlias = Prediction | Faceted | Located | Failure


class Written(NamedTuple):
    """A record found in a file: its source, whether it failed, its bytes, the labels and the run it names."""

    source: str
    failed: bool
    size: int
    labels: tuple[str, ...]
    run: str


class Format(Protocol):
    """How records become bytes, each ending in a newline; ``header`` comes before the first."""

    @property
    def header(self) -> bytes:
        """What a file begins with."""

    def encode(self, record: Record) -> bytes:
        """The record's bytes; ValueError where a number is not finite."""

    def read(self, file: BinaryIO) -> Iterator[Written]:
        """The whole records of a file, after its header; ValueError where one is not of this format."""


@runtime_checkable
class ByColumns(Protocol):
    """A format that writes many answers at once."""

    def encode_many(self, many: Many) -> bytes:
        """What ``Format.encode`` would write of each, one after the other."""


class Jsonl:
    """One record per line, as ``to_dict`` gives it, and the ``run`` that it is of.

    Args:
        run: a short name of the request, by which a later run knows whether it may go on; may be empty.
    """

    header = b""

    def __init__(self, run: str = "") -> None:
        self.run = f', "run": "{run}"' if run else ""

    def encode(self, record: Record) -> bytes:
        """The JSON of ``record.to_dict()``, six decimals, written out by hand: several times json's speed."""
        if isinstance(record, Failure):
            error = {"type": record.type, "message": spelled(record.message)}
            line = f'{{"source": {encode_basestring(spelled(record.source))}, "error": {_json(error)}'
        elif isinstance(record, Faceted):
            facets = [f"{_quoted(name)}: {{{_told(answer)}}}" for name, answer in record.facets.items()]
            line = (
                f'{{"source": {encode_basestring(spelled(record.source))}, "facets": {{{", ".join(facets)}}}'
            )
        elif isinstance(record, Located):
            line = _json(_located(record)).removesuffix("}")
        else:
            line = f'{{"source": {encode_basestring(spelled(record.source))}, {_told(record)}'
        if isinstance(record, Prediction) and record.stage is not None:
            line += f', "stage": {_quoted(record.stage)}'
        if record.notes:
            line += f', "notes": {_json([spelled(note) for note in record.notes])}'
        if record.beside is not None:
            cells = {spelled(name): spelled(cell) for name, cell in record.beside.items()}
            line += f', "columns": {_json(cells)}'
        return f"{line}{self.run}}}\n".encode()

    def encode_many(self, many: Many) -> bytes:
        """See ``ByColumns``."""
        from nshot.output.sinks.many import json_lines

        return json_lines(many, self)

    def read(self, file: BinaryIO) -> Iterator[Written]:
        """See ``Format.read``."""
        for line in lines(file):
            if not line.endswith(b"\n"):
                return
            record = parsed(line)
            if not isinstance(record, dict) or not isinstance(record.get("source"), str):
                raise ValueError("no answer of nshot")
            try:
                labels = tuple(told["label"] for told in record.get("predictions", ()))
                error = record.get("error", {"type": "", "message": ""})
                texts = (*labels, record.get("run", ""), error["type"], error["message"])
            except (TypeError, KeyError):
                raise ValueError("no answer of nshot") from None
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("no answer of nshot")
            run = record.get("run", "")
            yield Written(unspelled(record["source"]), "error" in record, len(line), labels, run)


class Csv:
    """One record per row: source, label, score, cosine, margin; label_2 ... of the others; notes; the error.

    Decided answers have three more columns after the label: answer, labels (with "; " between two), and
    best, the best label whether or not it is answered. A score that is a probability is called so. A cell
    that a spreadsheet would take for a formula has an apostrophe before it.

    Args:
        top_k: how many labels each row has room for.
        decided: the answers are ``Decided``.
        calibrated: their scores are probabilities.
        placed: they are ``Placed``: two more columns, path (with "/" between two) and depth, before best.
        staged: they are a cascade's: a column more, stage, before the notes.
        delimiter: what stands between two cells: "," or a tab.
        run: a short name of the request, in a column of its own; no such column if empty.
        kept: columns of the input that go along; "input_" stands before a name that is taken.
    """

    def __init__(
        self,
        top_k: int,
        *,
        decided: bool = False,
        calibrated: bool = False,
        placed: bool = False,
        staged: bool = False,
        delimiter: str = ",",
        run: str = "",
        kept: Sequence[str] = (),
    ) -> None:
        score = score_name(calibrated)
        following = [f"{name}_{rank}" for rank in range(2, top_k + 1) for name in ("label", score, "cosine")]
        answer = ["answer", "labels", *(["path", "depth"] if placed else []), "best"] if decided else []
        first = ["source", "label", *answer, score, "cosine", "margin"]
        last = [*(["stage"] if staged else []), "notes", "error_type", "error_message"]
        columns = [*first, *following, *last, *(["run"] if run else [])]
        self._kept = tuple(kept)
        self._staged = staged
        end = len(columns) - bool(run)
        columns[end:end] = kept_names(kept, columns)
        names = [cell(spelled(name)) for name in columns]
        self.header = f"{delimiter.join(names)}\n".encode()
        self.delimiter = delimiter
        self._run = [run] if run else []
        self._error = columns.index("error_type")
        self._width = len(columns)
        told = columns[: self._error]
        self._labels = [i for i, name in enumerate(told) if name == "best" or name.startswith("label_")]
        self._labels += [] if decided else [columns.index("label")]

    @property
    def ending(self) -> str:
        """What comes behind the error of every row, where no columns of the input are kept."""
        return "".join(self.delimiter + run for run in self._run)

    def encode(self, record: Record) -> bytes:
        """A row as long as the header, whatever the record lacks."""
        notes = spelled("; ".join(record.notes))
        source = spelled(record.source)
        if isinstance(record, Failure):
            cells = [source, *[""] * (self._error - 2), notes, record.type, spelled(record.message)]
        elif isinstance(record, (Faceted, Located)):
            raise TypeError("answers of another kind among those to one question")
        else:
            margin = "" if record.margin is None else number(record.margin)
            cells = [source]
            for prediction in record.predictions:
                cells += prediction.label, number(prediction.score), number(prediction.cosine)
            cells.insert(4, margin)
            if isinstance(record, Placed):
                cells[2] = number(record.score)
                cells[1:1] = "/".join(record.path), str(record.depth)
            if isinstance(record, Decided):
                cells[1:1] = record.label or "", record.answer, "; ".join(record.labels)
            cells += [""] * (self._error - 1 - self._staged - len(cells))
            cells += [record.stage or ""] if self._staged else []
            cells += notes, "", ""
        beside = record.beside or {}
        cells += [spelled(beside.get(name, "")) for name in self._kept]
        try:
            return self._line(cells)
        except UnicodeEncodeError:  # a label from a folder's name that is not UTF-8
            return self._line(map(spelled, cells))

    def encode_many(self, many: Many) -> bytes:
        """See ``ByColumns``."""
        from nshot.output.sinks.many import csv_rows

        return csv_rows(many, self)

    def _line(self, cells: Iterable[str]) -> bytes:
        return (self.delimiter.join([cell(text) for text in (*cells, *self._run)]) + "\n").encode()

    def read(self, file: BinaryIO) -> Iterator[Written]:
        """See ``Format.read``."""
        if (header := file.readline()) != self.header:
            if self.header.startswith(header):  # torn within the header
                return
            raise ValueError("other columns")
        row, quotes = bytearray(), 0
        while line := file.readline(_LONGEST_ROW):
            row += line  # a quoted cell may hold newlines: a row ends where every quote is closed
            quotes += line.count(b'"')
            if len(row) > _LONGEST_ROW:
                raise ValueError("a row without an end")
            if row.endswith(b"\n") and quotes % 2 == 0:
                try:
                    (cells,) = csv.reader([row.decode()], strict=True, delimiter=self.delimiter)
                except (csv.Error, UnicodeDecodeError) as error:
                    raise ValueError(str(error)) from error
                if len(cells) != self._width:
                    raise ValueError("other columns")
                labels = tuple(unguarded(cells[i]) for i in self._labels if cells[i])
                source, failed = as_written(cells[0]), cells[self._error] != ""
                yield Written(source, failed, len(row), labels, cells[-1] if self._run else "")
                row, quotes = bytearray(), 0


class FacetCsv(Csv):
    """One record per row: source; per facet its label, and label, score, cosine and margin under its name.

    A facet's columns are ``NAME``, ``NAME_score``, ``NAME_cosine`` and ``NAME_margin``; where it has a
    decision, ``NAME_answer`` and ``NAME_labels`` too, and its score is called ``NAME_probability`` once it
    is one. Then notes, the error and the run, as ``Csv`` has them.

    Args:
        facets: each facet's name -> whether it is decided, and whether it is calibrated.
        delimiter: what stands between two cells.
        run: a short name of the request.
        kept: columns of the input that go along.
    """

    def __init__(
        self,
        facets: Mapping[str, tuple[bool, bool]],
        *,
        delimiter: str = ",",
        run: str = "",
        kept: Sequence[str] = (),
    ) -> None:
        super().__init__(1, delimiter=delimiter, run=run)
        columns = ["source", *facet_columns(facets)]
        self._error = len(columns) + 1
        columns += ["notes", "error_type", "error_message"]
        self._kept = tuple(kept)
        columns += [*kept_names(kept, columns), *self._run_column]
        self.header = (delimiter.join(cell(spelled(name)) for name in columns) + "\n").encode()
        self._width = len(columns)
        self._labels = []
        self._facets = dict(facets)

    @property
    def _run_column(self) -> list[str]:
        return ["run"] if self._run else []

    def encode(self, record: Record) -> bytes:
        """A row as long as the header, whatever the record lacks."""
        notes, cells = spelled("; ".join(record.notes)), [spelled(record.source)]
        if isinstance(record, Faceted):
            for name, (decided, _) in self._facets.items():
                cells += _facet_cells(record.facets[name], decided=decided)
            cells += notes, "", ""
        elif isinstance(record, Failure):
            cells += [""] * (self._error - 2)
            cells += notes, record.type, spelled(record.message)
        else:
            raise TypeError("an answer to one question among those of facets")
        beside = record.beside or {}
        cells += [spelled(beside.get(name, "")) for name in self._kept]
        try:
            return self._line(cells)
        except UnicodeEncodeError:  # a label that is not UTF-8
            return self._line(map(spelled, cells))


def facet_columns(facets: Mapping[str, tuple[bool, bool]]) -> list[str]:
    """The columns of facets in a table: of each its label, and its numbers under its name.

    Raises:
        OutputError: two columns of one name.
    """
    columns = []
    for name, (decided, calibrated) in facets.items():
        columns += [name, *([f"{name}_answer", f"{name}_labels"] if decided else [])]
        columns += [f"{name}_{what}" for what in (score_name(calibrated), "cosine", "margin")]
    if len(set(columns)) < len(columns):
        raise OutputError("two facets would have a column of the same name: rename one, or write JSON lines")
    return columns


def _facet_cells(answer: Prediction, *, decided: bool) -> list[str]:
    cells = [answer.label or ""]
    if decided:
        cells += [answer.answer, "; ".join(answer.labels)] if isinstance(answer, Decided) else ["", ""]
    cells += [number(answer.score), number(answer.cosine)]
    return [*cells, "" if answer.margin is None else number(answer.margin)]


def kept_names(kept: Iterable[str], own: Iterable[str]) -> list[str]:
    """How the input's columns are called beside our own: "input_" stands before a name that is taken."""
    taken = set(own) | {"run"}
    names = []
    for name in kept:
        while name in taken:
            name = f"input_{name}"
        taken.add(name)
        names.append(name)
    return names


def score_name(calibrated: bool) -> str:
    """What a score is called: it is no probability before it was calibrated."""
    return "probability" if calibrated else "score"


def _told(record: Prediction) -> str:
    """Everything that an answer says, without its source."""
    decided = record if isinstance(record, Decided) else None
    score = score_name(decided is not None and decided.calibrated)
    labels = [
        f'"label": {_quoted(p.label)}, "{score}": {number(p.score)}, "cosine": {number(p.cosine)}'
        for p in record.predictions
    ]
    answer = labels[0] if decided is None else _answer(decided, labels[0])
    if isinstance(record, Placed):
        answer = _place(record)
    margin = "null" if record.margin is None else number(record.margin)
    return f'{answer}, "margin": {margin}, "predictions": [{{{"}, {".join(labels)}}}]'


def _place(record: Placed) -> str:
    """What is answered of a tree."""
    label = "null" if record.label is None else _quoted(record.label)
    labels, path = (", ".join(map(_quoted, names)) for names in (record.labels, record.path))
    coverage = "null" if record.coverage is None else number(record.coverage)
    return (
        f'"label": {label}, "path": [{path}], "depth": {record.depth}, "coverage": {coverage}, '
        f'"answer": "{record.answer}", "labels": [{labels}], '
        f'"score": {number(record.score)}, "cosine": {number(record.cosine)}'
    )


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


_SPECIAL = re.compile(r'[",\t\r\n]|^ | $')
_FORMULA = re.compile("'*[=+\\-@\t\r＝＋－＠]")
_NUMBER = re.compile(r"-?[0-9.]+")


def cell(text: str) -> str:
    """A text as it stands in a row: quoted where it must be, and no formula to a spreadsheet."""
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def _located(record: Located) -> dict[str, Any]:
    """The record without what every record may have; hundredths of a pixel, six decimals of a score."""
    told: dict[str, Any] = {"source": spelled(record.source), "width": record.size[0]}
    told["height"] = record.size[1]
    told["boxes"] = [
        {
            "label": spelled(each.label),
            "score": round(each.score, 6),
            "box": [round(edge, 2) for edge in each.box],
        }
        for each in record.boxes
    ]
    if record.absent is not None:
        told["absent"] = {spelled(label): round(rate, 6) for label, rate in record.absent.items()}
    return told


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=8192)  # the same few labels stand in every record
def _quoted(label: str) -> str:
    try:
        label.encode()
    except UnicodeEncodeError:  # a folder's name that is not UTF-8, taken for a label
        label = spelled(label)
    return encode_basestring(label)
