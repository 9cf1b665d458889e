"""What a person names as training data -> images with captions, one at a time."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nshot.datasets.labelled import open_labelled
from nshot.datasets.webdataset import samples
from nshot.errors import SourceError
from nshot.images.archives import TAR
from nshot.images.sources import table_sources
from nshot.images.tables import is_table, open_table
from nshot.labels.prompts import write_prompts
from nshot.train.data import Pair
from nshot.types import DEFAULT_LIMITS

log = logging.getLogger("nshot")

_CAPTIONS = ("caption", "captions", "text", "title", "sentence", "description", "label")
_BESIDE = ("txt", "text", "caption", "json")  # files of a webdataset sample that hold its caption
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def listed(
    name: str | os.PathLike[str],
    *,
    templates: Sequence[str],
    image_column: str | None = None,
    caption_column: str | None = None,
) -> Iterator[Pair]:
    """The images that a person names, with their captions; checked now, listed later.

    Args:
        name: a folder with a folder per class; a .csv, .tsv, .jsonl or .parquet table of images and captions;
            webdataset shards: a .tar, a pattern of them, "pairs-{000..012}.tar", or a folder of them.
        templates: what the names of classes are written into.
        image_column: the table's column of images; None looks for a well-known name.
        caption_column: the table's column of captions; None looks for a well-known name.

    Raises:
        SourceError: nothing there, no captions, or a file of another kind.
        MissingExtra: a Parquet table, and pyarrow is not installed.
    """
    path, named = Path(name), str(name)
    if is_classes(path):
        return _classes(path, templates)
    if path.is_dir() or named.lower().endswith(TAR):
        shards = _shards(named if not path.is_dir() else os.path.join(glob.escape(named), "*.tar*"))  # noqa: PTH118
        pairs = samples(shards, DEFAULT_LIMITS.max_bytes, endings=_BESIDE, keys=_CAPTIONS)
        return ((source, _caption(said, source.name)) for source, said in pairs)
    if not path.is_file():
        raise SourceError(f"{name} is not there: give a table of images and captions, or a folder of classes")
    if not is_table(named):
        raise SourceError(
            f"{name} is not of a kind that training reads: give a folder with a folder per class, a .csv, "
            ".tsv, .jsonl or .parquet table, or webdataset .tar files"
        )
    table = open_table(path)
    otherwise = "captions ({}); name one with --caption-column, or call it 'caption'"
    column = table.column(caption_column, _CAPTIONS, otherwise)
    classes = table.names.get(column)
    rows = table_sources(table, [column], image_column=image_column)
    return ((source, _caption(_named(cell, classes), source.name)) for source, (cell,) in rows)


def is_classes(name: str | os.PathLike[str]) -> bool:
    """Whether it is a folder with a folder per class, and none of shards."""
    path = Path(name)
    return path.is_dir() and not any(each.name.lower().endswith(TAR) for each in path.iterdir())


def _classes(folder: Path, templates: Sequence[str]) -> Iterator[Pair]:
    found = open_labelled(folder, prefer=("train", "val", "test"))
    for note in found.remarks.news():
        log.warning(note)
    if len(found.classes or ()) < 2:
        raise SourceError(
            f"{folder} holds {len(found.classes or ())} class: give one folder per class, two at least"
        )
    prompts = {each.label: each.prompts for each in write_prompts(list(found.classes or ()), templates)}
    return ((source, prompts[label]) for source in found for label in source.labels or ())


def _named(cell: Any, classes: Sequence[str] | None) -> Any:
    """The name of a class that a number stands for, where the table itself has the names."""
    inside = classes is not None and isinstance(cell, int) and 0 <= cell < len(classes)
    return classes[cell] if inside and classes else cell


def _caption(value: Any, where: str) -> list[str]:
    """One caption or a list of them; null is none."""
    values = value if isinstance(value, (list, tuple)) else [value]
    for each in values:
        if each is not None and not isinstance(each, str):
            raise SourceError(
                f"{where}: a caption is a text, not {each!r}; name the column of texts with --caption-column "
                "or give a folder with a folder per class"
            )
    return [each for each in values if each]


def _shards(pattern: str) -> list[Path]:
    """The files of a name, a pattern (``pairs-*.tar``) or a range (``pairs-{000..012}.tar``), in order."""
    if span := _RANGE.search(pattern):
        first, last = span.groups()
        numbers = range(int(first), int(last) + 1)
        names = [pattern.replace(span[0], str(number).zfill(len(first))) for number in numbers]
    else:
        names = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern))  # noqa: PTH207
    if missing := [name for name in names if not Path(name).is_file()]:
        raise SourceError(f"{missing[0]} is not there")
    if not names:
        raise SourceError(f"{pattern} is not there, and nothing matches it as a pattern")
    return [Path(name) for name in names]
