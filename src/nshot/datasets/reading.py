"""What labelled images are, and how a person wants them read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nshot.datasets.cells import Cells
from nshot.embeddings import Embeddings
from nshot.images.remarks import Remarks
from nshot.images.sources import Source, expand
from nshot.labels.lint import check
from nshot.types import Limits


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Images with labels, listed afresh at each iteration: each a ``Source`` with its ``labels``.

    Attributes:
        name: as the user would write it.
        classes: all labels, in their order, where they are known beforehand; None where they are met on the
            way.
        multi: whether an image may have any number of labels.
        remarks: how the data was understood; counts what the last iteration passed over.
        embeddings: the images' vectors, where the data is a file of vectors; nothing has to be embedded then.
        templates: the prompts that the data brings along, if it does.
        shards: the files that hold the images, where several images lie in one, and each can be opened as a
            labelled set of its own; None elsewhere.
    """

    name: str
    classes: tuple[str, ...] | None
    multi: bool
    _open: Callable[[], Iterator[Source]]
    remarks: Remarks = field(default_factory=Remarks)
    embeddings: Embeddings | None = None
    templates: tuple[str, ...] | None = None
    shards: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[Source]:
        self.remarks.start()
        return self._open()


class Columns(NamedTuple):
    """Which columns of a table hold what; None: a well-known name is looked for (no domain, otherwise).

    Attributes:
        image: paths, URLs or bytes.
        label: names, or numbers that ``names`` resolves; lists hold several labels.
        domain: any text.
        separator: cuts a text into several labels; None: a text is one label.
        names: the name of label 0, 1, ..., where the data does not hold them itself.
        numbers: the name of each number, where they do not count from 0.
    """

    image: str | None = None
    label: str | None = None
    domain: str | None = None
    separator: str | None = None
    names: Iterable[str] | None = None
    numbers: Mapping[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How the data is to be read, whatever it is."""

    columns: Columns
    split: str | None
    prefer: Sequence[str]
    image_root: str | os.PathLike[str] | None
    strict: bool
    limits: Limits
    remarks: Remarks
    cells: Cells

    def sources(self, specs: Iterable[str | os.PathLike[str]]) -> Iterator[Source]:
        """Images without labels."""
        return expand(
            specs,
            limits=self.limits,
            strict=self.strict,
            remarks=self.remarks,
        )

    def checked(self, found: Iterable[str], name: str) -> None:
        """Refuse labels of the data that nobody can mean; those that were named are what they are."""
        if doubt := self.cells.doubt():
            self.remarks.note(doubt)
        given = set(self.columns.names or ())
        if fresh := [label for label in found if label not in given]:
            # whether their language is one that the model knows is for who has the model to say
            for note in check(fresh, source=name, alone=True, multilingual=True):
                self.remarks.note(note)
