"""Published data sets in the layout of CLIP_benchmark: hf://clip-benchmark/wds_<name>, or a folder.

test/nshards.txt, test/0.tar ...    images with a number (.cls) or, of several labels, zeros and ones (.npy)
classnames.txt                      the names of the numbers
zeroshot_classification_templates.txt    prompts, in which {c} is the name
dataset_type.txt                    classification if absent; multilabel; retrieval, which has no labels
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, overload

from nshot.bounded import read_bytes
from nshot.datasets import webdataset
from nshot.datasets.reading import LabelledSet, Reading
from nshot.errors import NONSENSE, HubUnavailable, SourceError, brief
from nshot.images.sources import Source

HUB = "clip-benchmark/wds_"

SETS = (
    *("imagenet1k", "imagenetv2", "imagenet_sketch", "imagenet-a", "imagenet-r", "imagenet-o", "objectnet"),
    *("fer2013", "voc2007", "voc2007_multilabel", "sun397", "cars", "fgvc_aircraft", "mnist", "stl10"),
    *("gtsrb", "country211", "renderedsst2", "vtab-caltech101", "vtab-cifar10", "vtab-cifar100"),
    *("vtab-clevr_count_all", "vtab-clevr_closest_object_distance", "vtab-diabetic_retinopathy"),
    *("vtab-dmlab", "vtab-dsprites_label_orientation", "vtab-dsprites_label_x_position"),
    *("vtab-dsprites_label_y_position", "vtab-dtd", "vtab-eurosat", "vtab-kitti_closest_vehicle_distance"),
    *("vtab-flowers", "vtab-pets", "vtab-pcam", "vtab-resisc45", "vtab-smallnorb_label_azimuth"),
    *("vtab-smallnorb_label_elevation", "vtab-svhn"),
)
"""The sets with labels that CLIP_benchmark lists, without their wds_."""

_TEMPLATES = "zeroshot_classification_templates.txt"


def is_benchmark(folder: Path) -> bool:
    """Whether a folder is in this layout."""
    return (folder / "classnames.txt").is_file() and any(folder.glob("*/nshards.txt"))


def of_hub(name: str, read: Reading, revision: str | None) -> LabelledSet:
    """A data set of the Hub, its shards downloaded as they are read.

    Raises:
        SourceError: no such data set, or it is in another layout.
        HubUnavailable: the Hub cannot be reached, and it is not cached.
    """
    from nshot.datasets.hub import get

    wanted = name.removeprefix(HUB)
    try:
        return _open(f"hf://{name}", lambda file: get(name, file, revision), read)
    except (SourceError, HubUnavailable) as error:
        if wanted in SETS:
            raise
        near = meant(wanted)
        named = f"did you mean hf://{HUB}{near}?" if near else f"known are: {', '.join(SETS)}"
        raise type(error)(f"{error}; {named}") from error


def meant(wanted: str) -> str | None:
    """The set whose name is nearest to one that is none; None where none is near."""
    plain = wanted.lower().replace("/", "-")
    same = [name for name in SETS if plain in (name, name.rpartition("-")[2]) or name == f"vtab-{plain}"]
    close = get_close_matches(plain, SETS, 1) or get_close_matches(f"vtab-{plain}", SETS, 1)
    return next(iter(same or close), None)


def set_of(name: str) -> str | None:
    """Which of the sets a path or a name on the Hub ends in; None if in none of them."""
    last = name.rstrip("/").rpartition("/")[2].removeprefix("wds_")
    return last if last in SETS else None


def of_folder(folder: Path, read: Reading) -> LabelledSet:
    """The same from a folder."""

    def found(file: str) -> Path | None:
        return folder / file if (folder / file).is_file() else None

    return _open(str(folder), found, read)


class _Shards(Sequence[Path]):
    """Tars, each fetched when it is asked for."""

    def __init__(self, count: int, split: str, get: Callable[[str], Path | None], name: str) -> None:
        self._count, self._split, self._get, self._name = count, split, get, name

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, item: int) -> Path: ...
    @overload
    def __getitem__(self, item: slice) -> tuple[Path, ...]: ...
    def __getitem__(self, item: int | slice) -> Path | tuple[Path, ...]:
        if isinstance(item, slice):
            return tuple(self[number] for number in range(*item.indices(len(self))))
        if not 0 <= item < self._count:
            raise IndexError(item)
        file = f"{self._split}/{item}.tar"
        path = self._get(file)
        if path is None:
            raise SourceError(f"{self._name} lacks {file}, one of its {self._count} shards")
        return path


def _open(name: str, get: Callable[[str], Path | None], read: Reading) -> LabelledSet:
    split = read.split or "test"
    kind = _lines(get("dataset_type.txt"))
    if kind[:1] == ["retrieval"]:
        raise SourceError(f"{name} has captions and no labels: it is a set for retrieval")
    counted = _lines(get(f"{split}/nshards.txt"))
    if not counted or not re.fullmatch("[0-9]{1,9}", counted[0]):
        raise SourceError(f"{name} has no {split}/nshards.txt, which CLIP_benchmark's layout has (--split?)")
    classes = tuple(_lines(get("classnames.txt")))
    if not classes:
        raise SourceError(f"{name} has no classnames.txt: its numbers have no names")
    multi = kind[:1] == ["multilabel"]
    shards = _Shards(int(counted[0]), split, get, name)

    def opened() -> Iterator[Source]:
        for source, said in webdataset.samples(shards, read.limits.max_bytes, endings=("cls", "npy")):
            yield replace(source, labels=_labels(said, classes, source.name, multi=multi))

    templates = tuple(line.replace("{c}", "{}") for line in _lines(get(_TEMPLATES)))
    return LabelledSet(name, classes, multi, opened, read.remarks, templates=templates or None)


def _labels(said: Any, classes: tuple[str, ...], source: str, *, multi: bool) -> tuple[str, ...]:
    if multi and isinstance(said, list) and len(said) == len(classes):
        return tuple(label for label, value in zip(classes, said, strict=True) if value)
    with suppress(*NONSENSE):
        number = int(said)
        if number >= 0:
            return (classes[number],)
    raise SourceError(
        f"{source}: what stands beside it, {str(said)[:60]!r}, is none of {len(classes)} classes"
    )


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        text = read_bytes(path).decode()
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {brief(error)}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
