"""The one place that turns what a table or a folder says into labels.

0, "0", 0.0 and "0.0" are the same number; numbers, True and False are labels where somebody says what they
mean, by their place in a list of names or by the numbers of a labels file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nshot.errors import SourceError

_MISSING = frozenset(("", "nan", "null", "none", "n/a", "#n/a", "na", "<na>", "#na", "nil"))
_NUMBER = re.compile(r"[-+]?\d+(\.0*)?")
_NAMES = ("name", "label", "class", "title", "value")  # of an object that stands for a label
_TRUTHS = {"true": 1, "false": 0}


class Cells:
    """Cells of a column of labels -> labels.

    Args:
        names: the labels in their order, where the data holds numbers; of a mapping, its keys.
        numbers: the label of each number, where they do not count from 0.
        separator: cuts a text into several labels; None: a text is one label.

    Attributes:
        lowest: the least number that was met.
    """

    def __init__(
        self,
        names: Iterable[str] | None = None,
        numbers: Mapping[int, str] | None = None,
        separator: str | None = None,
    ) -> None:
        self.names = None if names is None else tuple(names)
        self.numbers = dict(numbers) if numbers else dict(enumerate(self.names or ()))
        self.separator = separator
        self.lowest: int | None = None
        self._counted = not numbers
        self._written = {_folded(name): name for name in reversed(self.names or ())}

    def labels(self, cell: Any, where: str) -> tuple[str, ...]:
        """The labels that a cell holds, each once; none where it says nothing.

        Args:
            cell: a text, a number, a list of them, or what an exported cell holds.
            where: the file and the row, for messages.

        Raises:
            SourceError: a number that has no name here, or a cell that is nothing of these.
        """
        try:
            return tuple(dict.fromkeys(self._label(each, where) for each in self._given(cell, where)))
        except (RecursionError, OverflowError) as error:
            raise SourceError(f"{where}: a cell that holds no label") from error

    def name(self, text: str, where: str) -> str:
        """The label that a folder's or a file's name means: its own, or that of the number that it is.

        Raises:
            SourceError: a number that has no name here.
        """
        return self._label(text, where)

    def doubt(self) -> str | None:
        """That numbers may count from 1, where the names were taken to count from 0."""
        if not self._counted or not self.lowest:
            return None
        return (
            f"the labels are numbers from {self.lowest}, and names are counted from 0 ({self.lowest} is "
            f"{self.numbers[self.lowest]!r}): number the names in the labels file if they count otherwise"
        )

    def _given(self, cell: Any, where: str) -> list[Any]:
        if isinstance(cell, str):
            text = cell.strip()
            if text.startswith(("[", "{")) and (opened := _opened(text)) is not None:
                return self._given(opened, where)
            if self.separator is not None:
                return [part.strip() for part in cell.split(self.separator) if not missing(part)]
            return [] if missing(text) else [text]
        if cell is None or cell != cell:  # NaN is not itself
            return []
        if isinstance(cell, Mapping):
            if isinstance(cell.get("choices"), list):
                return self._given(cell["choices"], where)
            if named := next((cell[key] for key in _NAMES if isinstance(cell.get(key), str)), None):
                return self._given(named, where)
            values = [value for value in cell.values() if not missing(value)]
            if len(values) == 1:
                return self._given(values[0], where)
            if values and all(isinstance(value, bool) for value in values):
                return [name for name, ticked in cell.items() if ticked]
            if not values:
                return []
            raise SourceError(f"{where}: {str(dict(cell))[:80]!r} holds several attributes, not a label")
        if isinstance(cell, (list, tuple, set)):
            return [one for each in cell for one in self._given(each, where)]
        return [cell]

    def _label(self, value: Any, where: str) -> str:
        text = str(value).strip()
        if self.names is None and not self.numbers:
            return _whole(text)
        if text in self._written.values():
            return text
        number = _TRUTHS.get(text.lower()) if not _NUMBER.fullmatch(text) else int(float(text))
        if number is None:
            return self._written.get(_folded(text), text)
        if number in self.numbers:
            self.lowest = number if self.lowest is None else min(number, self.lowest)
            return self.numbers[number]
        if self.names and len(self.numbers) > 0:
            raise SourceError(
                f"{where}: label {text}, but there are {len(self.numbers)} names, for {min(self.numbers)} to "
                f"{max(self.numbers)}"
            )
        return _whole(text)


def missing(cell: Any) -> bool:
    """Whether a cell says that there is no label."""
    if cell is None or cell != cell:
        return True
    return isinstance(cell, str) and cell.strip().lower() in _MISSING


def one_hot(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str] | None:
    """The columns that hold 0 and 1, a column for each label, if there are two at least.

    Args:
        columns: the names of those that may be.
        rows: the first rows' cells.
    """
    held = list(rows)
    if not held:
        return None
    fitting = [
        name
        for place, name in enumerate(columns)
        if name and all(_bit(row[place]) is not None for row in held)
    ]
    return fitting if len(fitting) > 1 else None


def ticked(columns: Sequence[str], cells: Sequence[Any]) -> list[str]:
    """The columns whose cell is 1."""
    return [name for name, cell in zip(columns, cells, strict=True) if _bit(cell)]


def _bit(cell: Any) -> int | None:
    if isinstance(cell, bool):
        return int(cell)
    text = str(cell).strip().lower()
    if text in ("true", "false"):
        return int(text == "true")
    return int(float(text)) if re.fullmatch(r"[01](\.0*)?", text) else None


def _opened(text: str) -> Any:
    """What a cell of JSON holds, or of Python as data frames write lists; None where it is just text."""
    for candidate in (text, text.replace("'", '"')):
        try:
            content = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, (list, dict)):
            return content
    return None


def _whole(text: str) -> str:
    """0.0 is 0."""
    return str(int(float(text))) if re.fullmatch(r"[-+]?\d+\.0*", text) else text


def _folded(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text).strip().casefold()
