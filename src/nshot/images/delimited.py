"""Text tables: .csv, .tsv and their kin, in whatever encoding, with whatever separator, one record per row.

Spreadsheets write the encoding and the separator of the country they are in, programs leave out the header,
and a single quotation mark too many would swallow every row below it: what was found is noted, and each row
stays a record.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, TextIO

from nshot.bounded import read_bytes
from nshot.errors import SourceError
from nshot.images.kinds import is_image_name

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_BLOCK = 2**20
_PART = 2**16  # characters that are cut into lines at once
LONGEST = 2**24  # characters of a line
_MOST_NOTES = 20  # a file that is wrong in every line need not say so of each
_SHOWN = 100  # characters of a longer one
_LINE = re.compile(r"(?:[ \t]*\n)+|[^\n]+\n?")
_SAMPLE = 30  # lines that a separator is judged by
_MOST_LINES = 1000  # of one cell in quotation marks

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)


@dataclass(slots=True)
class Delimited:
    """A text table whose form is known.

    Attributes:
        path: the file.
        columns: their names; "1", "2", ... where the file has no header.
        headless: whether the file has no header.
        encoding: Python's name of it.
        separator: between two cells; " " is any run of blanks.
        notes: what a person should know about how it was read; grows while rows are read.
    """

    path: Path
    columns: list[str]
    headless: bool
    encoding: str
    separator: str
    notes: list[str] = field(default_factory=list)
    _first: int = 1  # line of the first row of cells

    def rows(self) -> Iterator[list[str | None]]:
        """Each row's cells, as many as there are columns; None for a cell that is missing."""
        width, long = len(self.columns), 0
        for number, cells in self._records():
            if len(cells) > width and any(cell.strip() for cell in cells[width:]):
                long += 1
                if long == 1:
                    self._note(
                        f"{self.path}, line {number} has {len(cells)} cells where the header has {width}: "
                        "its cells cannot be told apart, so only the first is used; put quotation marks "
                        f"around a cell that holds {_SEPARATORS.get(self.separator, 'blanks')}"
                    )
                yield [cells[0], *[None] * (width - 1)]
            else:
                yield [*cells[:width], *[None] * (width - len(cells))]

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        with opened(self.path, self.encoding) as file:
            records = _records(file, self.separator, len(self.columns), self._note, self.path)
            for number, cells in records:
                if number >= self._first and any(cells):
                    yield number, cells

    def _note(self, text: str) -> None:
        if len(self.notes) < _MOST_NOTES and text not in self.notes:
            self.notes.append(text)


def open_delimited(path: Path, known: frozenset[str], *, blanks: bool = False) -> Delimited:
    """Find out how a text table is written.

    Args:
        path: the file.
        known: names that a header may hold, plain (lower case); a first row that holds none of them, but the
            name of an image, is no header.
        blanks: whether blanks may separate the cells.

    Raises:
        SourceError: it cannot be read, or holds nothing.
    """
    try:
        encoding, notes = encoding_of(path)
        lines = _sample(path, encoding)
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise SourceError(f"{path} cannot be read: {reason}") from error
    if any("\0" in line for line in lines) or (
        lines and lines[0].lstrip().lower().startswith(("<", "{\\rtf"))
    ):
        raise SourceError(f"{path} is not a text table, whatever its name says: save it as CSV")
    first, separator = 1, None
    while lines and (not lines[0].strip() or lines[0].startswith("#")):
        if lines[0].startswith("#") and "," in lines[0] and plain(lines[0].split(",")[0]) in known:
            lines[0] = lines[0].lstrip("# ")
            break
        lines.pop(0)
        first += 1
    if lines and (told := re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE)):
        separator = told[1]
        lines.pop(0)
        first += 1
    if not lines:
        raise SourceError(f"{path} is empty: a table has a line of column names and a line per image")
    if separator is None:
        separator = _separator(lines, path.suffix.lower(), blanks=blanks)
    found: list[str] = []
    rows = [cells for _, cells in _records(lines, separator, None, found.append, path) if any(cells)]
    if not rows:
        raise SourceError(f"{path} holds no rows")
    header = [cell.strip() for cell in rows[0]]
    headless = not any(plain(cell) in known for cell in header) and any(map(_names_image, rows[0]))
    if headless:
        header = [str(number) for number in range(1, len(header) + 1)]
        notes.append(f"{path} has no header: its columns are called {', '.join(header)}")
    else:
        first += 1
        body = rows[1:]
        if (
            body
            and all(len(cells) == len(header) + 1 for cells in body)
            and not any(_names_image(c[0]) for c in body)
        ):
            header = ["", *header]
            notes.append(f"{path} has a row's number in front of each row, and no name for it in the header")
    if separator != {".tsv": "\t"}.get(path.suffix.lower(), ",") and len(header) > 1:
        notes.append(f"{path} is read with {_SEPARATORS.get(separator, f'{separator!r}')} between its cells")
    return Delimited(path, header, headless, encoding, separator, notes, first)


def encoding_of(path: Path) -> tuple[str, list[str]]:
    """The encoding of a text file, and what a person should know about it.

    By its byte order mark; else UTF-8, where it is; else UTF-16, where every second byte of its beginning is
    zero; else the code page of Windows in western Europe, which is said.
    """
    with path.open("rb") as file:
        return _encoding(file, path)


def _encoding(file: BinaryIO, path: Path) -> tuple[str, list[str]]:
    start = file.read(_BLOCK)
    for mark, encoding, told in _BOMS:
        if start.startswith(mark):
            return encoding, [f"{path} is read as {told}"] if told != "UTF-8" else []
    zeros = (start[1::2].count(0), start[0::2].count(0))
    for encoding, these, others in (("utf-16-le", *zeros), ("utf-16-be", *zeros[::-1])):
        if these > len(start) / 5 and not others:
            return encoding, [f"{path} is read as UTF-16"]
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    odd = letters = 0
    while start:
        if not start.isascii():
            text = decoder.decode(start)
            odd += len(text) - len(text.encode("utf-8", "ignore").decode())
            letters += len(text) - len(text.encode("ascii", "ignore"))
        start = file.read(_BLOCK)
    if not odd:
        return "utf-8", []
    if letters > 2 * odd:
        return "utf-8", [f"{path} is read as UTF-8, although {odd} bytes of it are not"]
    return "cp1252", [
        f"{path} is not UTF-8: it is read as Windows-1252 (western Europe); if its names look wrong, save "
        "it as UTF-8"
    ]


def read_text(path: Path, most: int) -> tuple[str, list[str]]:
    """A whole text file, decoded, and what a person should know about its encoding.

    Raises:
        OSError: it cannot be read, or has more than so many bytes.
        ValueError: it is not of the encoding that its beginning says.
    """
    data = read_bytes(path, most)
    encoding, notes = _encoding(io.BytesIO(data), path)
    with _text(io.BytesIO(data), encoding) as file:
        return file.read(), notes


def opened(path: Path, encoding: str) -> io.TextIOWrapper:
    """A text file of that encoding; what of it is not, is kept (UTF-8) or replaced."""
    return _text(path.open("rb"), encoding)


def lines_of(file: TextIO) -> Iterator[str]:
    """The lines of a text; of one that is longer than ``LONGEST``, its parts of at least so many characters.

    Blank lines that follow each other come as one text, as there may be millions of them.
    """
    begun: list[str] = []
    size = 0
    while block := file.read(_PART):
        for found in _LINE.finditer(block):
            line = found[0]
            if begun and (end := line.find("\n") + 1):  # of several where they are blank
                yield "".join([*begun, line[:end]])
                begun, size, line = [], 0, line[end:]
            if line.endswith("\n"):
                yield line
                continue
            if not line:
                continue
            begun.append(line)
            size += len(line)
            if size >= LONGEST:
                yield "".join(begun)
                begun, size = [], 0
    if begun:
        yield "".join(begun)


def _text(file: BinaryIO, encoding: str) -> io.TextIOWrapper:
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    return io.TextIOWrapper(file, encoding, errors, newline=None)


def _sample(path: Path, encoding: str) -> list[str]:
    with opened(path, encoding) as file:
        lines: list[str] = []
        while len(lines) < _SAMPLE and (line := file.readline(LONGEST)):
            lines.append(line)
    return lines


def _separator(lines: list[str], suffix: str, *, blanks: bool) -> str:
    """What cuts most lines into the same number of cells, more than one; the usual one where several do."""
    usual = "\t" if suffix == ".tsv" else ","
    best, most = usual, 0.0
    for separator in sorted(_SEPARATORS, key=lambda each: each != usual):
        counts = [
            len(cells) for _, cells in _records(lines, separator, None, lambda _: None, Path()) if any(cells)
        ]
        width = counts[0] if counts else 1
        if width > 1:
            agree = sum(count == width for count in counts) / len(counts)
            if agree > most + 0.01:
                best, most = separator, agree
    if blanks and most < 0.9 and all(len(line.split()) == 2 for line in lines if line.strip()):
        return " "
    return best


def _records(
    lines: TextIO | list[str],
    separator: str,
    width: int | None,
    note: Callable[[str], object],
    path: Path,
) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each record; a quotation mark that is opened and never closed costs its line alone."""
    source = iter(lines) if isinstance(lines, list) else lines_of(lines)
    ahead = _Ahead(source, separator)
    number, opened = 0, False
    while (line := ahead.take()) is not None:
        number += 1
        if line.isspace():
            number += max(0, line.count("\n") - 1)
            continue
        if len(line) >= LONGEST:
            note(f"{path}, line {number} is longer than {LONGEST:,} characters: it names no image")
            yield number, [f"{line[:_SHOWN]}..."]
            while not line.endswith("\n") and (line := ahead.take() or "\n"):
                pass
            continue
        bare = line.rstrip("\n")
        if separator == " ":
            yield number, bare.split()
            continue
        if '"' not in bare:
            yield number, bare.split(separator) if bare.strip() else []
            continue
        cells = _parsed([line], separator)
        if cells is not None:
            if opened and any(cell.endswith('"') and cell.count('"') == 1 for cell in cells):
                cells, opened = [cell.removesuffix('"') for cell in cells], False  # it closes what was opened
            yield number, cells
            continue
        if not _is_open([line], separator):
            try:
                yield number, next(csv.reader([line], delimiter=separator), [])
            except csv.Error:  # a cell that is longer than Python's reader takes
                yield number, bare.split(separator)
            continue
        more = ahead.closing(line)
        if more is not None:
            columns = width or len(_parsed([line, *more], separator) or ())
            if not ahead.are_rows(bare, more, columns):
                cells = _parsed([line, *more], separator)
        if more is not None and cells is not None:
            yield number, cells
            number += sum(each.count("\n") for each in more)
            ahead.skip(len(more))
            continue
        note(f"{path}, line {number}: a quotation mark is opened and never closed; the line is read alone")
        opened = True
        yield number, [cell.strip().strip('"') if '"' in cell else cell for cell in bare.split(separator)]


class _Ahead:
    """The lines below the one that is read: whether one of them closes a quotation mark.

    Every line on the way to the answer has the same answer, so each line is looked at once, however many
    lines above it open a quotation mark.
    """

    def __init__(self, source: Iterator[str], separator: str) -> None:
        self._source = source
        self._separator = separator
        self._waiting: deque[str] = deque()
        self._held = 0  # characters that wait
        self._seen = 0  # lines that wait and were looked at from within a cell
        self._end: Literal["open", "closed", "broken"] = "open"  # what they lead to
        self._alike: tuple[str, int] | None = None  # the ending and width of which they are rows

    def take(self) -> str | None:
        """The next line."""
        if not self._waiting:
            return next(self._source, None)
        line = self._waiting[0]
        self.skip(1)
        return line

    def skip(self, count: int) -> None:
        """Leave out lines that were looked at."""
        for _ in range(count):
            self._held -= len(self._waiting.popleft())
        self._seen = max(0, self._seen - count)

    def closing(self, line: str) -> list[str] | None:
        """The lines that belong to the record which this one begins; None where it has no end."""
        first = line if not self._seen else '"\n'  # it ends within a cell, as those that were looked at
        if not self._seen:
            self._end, self._alike = "open", None
        if self._end == "open":
            try:
                next(csv.reader(self._within(first), delimiter=self._separator, strict=True))
                self._end = "closed"
            except csv.Error as error:
                self._end = "open" if "unexpected end" in str(error) else "broken"
        return list(islice(self._waiting, self._seen)) if self._end == "closed" else None

    def are_rows(self, line: str, more: list[str], width: int) -> bool:
        """Whether the lines that a quotation mark would swallow look like rows of their own."""
        ending = Path(line.split(self._separator)[0].strip('" ')).suffix
        if self._alike != (ending, width):
            alike = _are_rows(ending, more, self._separator, width)
            self._alike = (ending, width) if alike else None
        return self._alike is not None

    def _within(self, first: str) -> Iterator[str]:
        yield first
        while self._seen < _MOST_LINES:
            if self._seen == len(self._waiting):
                if self._held > LONGEST or (line := next(self._source, None)) is None:
                    return
                self._waiting.append(line)
                self._held += len(line)
            self._seen += 1
            yield self._waiting[self._seen - 1]


def _parsed(lines: list[str], separator: str) -> list[str] | None:
    """The one record that the lines are, strictly; None where they are not."""
    for blanks in (False, True):  # a blank before the quotation mark is common, and no part of the cell
        try:
            rows = list(csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=blanks))
        except csv.Error:
            return None
        if len(rows) != 1:
            return None
        if blanks or not any(cell.lstrip().startswith('"') and cell[:1].isspace() for cell in rows[0]):
            return rows[0]
    return None


def _is_open(lines: list[str], separator: str) -> bool:
    """Whether a cell of the lines opens a quotation mark that they do not close."""
    try:
        list(csv.reader(lines, delimiter=separator, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _are_rows(ending: str, lines: list[str], separator: str, width: int) -> bool:
    def is_row(text: str) -> bool:
        cells = text.rstrip("\n").split(separator)
        head = cells[0].strip('" ')
        alike = Path(head).suffix == ending if ending else " " not in head
        return len(cells) == max(width, 2) and bool(head) and alike

    return width > 1 and all(map(is_row, lines))


def _names_image(cell: str) -> bool:
    return is_image_name(cell) or cell.strip().lower().startswith(("http://", "https://", "s3://", "file://"))


def plain(name: str) -> str:
    """A column's name as it is compared: in lower case, without blanks around it, `_` between words."""
    return re.sub(r"[\s_-]+", "_", name.strip().strip('"').lower())
