"""Labels that somebody has put right in a table, laid over those of the data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from nshot.datasets.cells import Cells
from nshot.datasets.labelled import LabelledSet
from nshot.errors import SourceError
from nshot.images.sources import Source
from nshot.images.tables import LABEL_COLUMNS, cell_image, open_table
from nshot.paths import as_written

_LABELS = ("corrected", "correct", *LABEL_COLUMNS)


def read_corrections(path: str | os.PathLike[str], cells: Cells | None = None) -> dict[str, tuple[str, ...]]:
    """The right labels of images, by name: a table of images and labels, such as a corrected doubts.csv.

    Args:
        path: the table; a column ``corrected`` is preferred to ``label``.
        cells: how cells become labels.

    Returns:
        Image -> its labels; none: the image is to be left out.

    Raises:
        SourceError: no such table, or no such columns in it.
    """
    table = open_table(Path(path))
    cells = cells or Cells()
    image = table.image_column()
    label = table.column(None, _LABELS, "labels ({}); call one 'label'")
    found = {}
    for row, (name, cell) in enumerate(table.rows(image, label)):
        held = cell_image(name)
        if isinstance(held, str) and held.strip():
            found[_key(held)] = cells.labels(cell, f"{path}, row {row}")
    return found


def corrected(data: LabelledSet, corrections: Mapping[str, tuple[str, ...]], name: str) -> LabelledSet:
    """The same images with the labels that were put right; those without any are left out, and counted.

    Args:
        data: the set.
        corrections: as ``read_corrections`` gives them.
        name: of their table, for what is said.

    Raises:
        SourceError: not one of the corrected images is in the data.
    """
    met, changed, labels = set(), 0, dict.fromkeys(data.classes or ())
    given = len(corrections)
    corrections = {_key(as_written(name)): own for name, own in corrections.items()} | dict(corrections)
    for source in data:
        if (right := corrections.get(_key(source.name))) is not None:
            met.add(_key(source.name))
            changed += right != source.labels
            labels.update(dict.fromkeys(right))
    if corrections and not met:
        raise SourceError(
            f"{name} corrects no image of {data.name}: its first name is {next(iter(corrections))}; names "
            "are compared as nshot evaluate writes them"
        )
    missed = given - len(met)
    data.remarks.note(
        f"{name} gives {changed} images another label"
        + (f"; {missed} of its images are not there" if missed else "")
    )

    def opened() -> Iterator[Source]:
        for source in data:
            right = corrections.get(_key(source.name), source.labels)
            if right:
                yield replace(source, labels=right)
            else:
                data.remarks.unlabelled[f"left out in {name}"] += 1

    classes = None if data.classes is None else tuple(labels)
    embeddings = data.embeddings
    if embeddings is not None and embeddings.labels is not None:
        own = [
            corrections.get(_key(source), labels)
            for source, labels in zip(embeddings.sources, embeddings.labels, strict=True)
        ]
        rows = [row for row, each in enumerate(own) if each]
        embeddings = embeddings[rows].with_labels([own[row] for row in rows], classes=classes)
    return LabelledSet(data.name, classes, data.multi, opened, data.remarks, embeddings)


def _key(name: str) -> str:
    return os.path.normpath(name.strip())
