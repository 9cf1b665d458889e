"""Folders on disk or in an archive -> which are labels, which are parts of a data set or mere wrapping.

photos/cat/1.jpg                       the folder is the label
shapes/train/star/1.png                train, val and test are parts; one of them is read, as is said
unpacked/shapes/star/1.png             one folder around everything is no label
photo/cat/1.jpg  sketch/cat/1.jpg      the outer folder is a domain, where the person says so
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from nshot.errors import SourceError
from nshot.images.folders import subfolders, walk
from nshot.images.kinds import is_image_name, kind_of, left_behind, no_image
from nshot.images.remarks import Remarks
from nshot.images.tables import LABEL_COLUMNS, PARQUET, TEXT, open_table
from nshot.labels.parts import part_of

PREFERRED = ("test", "val", "train")
"""The order in which a part is chosen to measure on."""

_SORTED = ".nshot-sort.jsonl"  # what nshot sort leaves in a folder that it made
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_WRAPPINGS = frozenset(
    [
        "images",
        "image",
        "imgs",
        "img",
        "photos",
        "pictures",
        "data",
        "dataset",
        "datasets",
        "jpg",
        "jpegimages",
        "png",
        "files",
        "labels",
        "annotations",
        "masks",
        "labels_cache",
        "meta",
    ]
)
_VERSIONS = frozenset(
    [
        *("mask", "segmentation", "segmentations", "depth", "original", "originals", "resized", "small"),
        *("thumbnail", "thumbnails", "thumbs", "large", "medium", "full", "crop", "crops", "cropped"),
        *("processed", "augmented", "raw", "edited", "export", "exports"),
    ]
)  # the same images once more, in another way
_DEEPEST = 6  # wrappings around wrappings


class Tree(Protocol):
    """A folder, wherever it is."""

    @property
    def name(self) -> str:
        """Its own name."""

    @property
    def place(self) -> str:
        """Its path as a person would write it."""

    def folders(self) -> Sequence[Tree]:
        """The folders in it that may hold somebody's images, by name."""

    def files(self) -> Sequence[str]:
        """The names of the files right in it, hidden ones among them."""

    def says_labels(self, table: str) -> bool:
        """Whether a table right in it has a column of labels."""

    def left_behind(self) -> Sequence[str]:
        """The names of the folders in it that an operating system left, without hidden ones."""

    def holds_images(self) -> bool:
        """Whether there is an image somewhere below."""


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A folder on disk."""

    path: Path

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path.name

    @property
    def place(self) -> str:
        """Its path."""
        return str(self.path)

    def folders(self) -> list[OnDisk]:
        """The folders in it, without what an operating system leaves."""
        try:
            return [OnDisk(self.path / name) for name in subfolders(str(self.path))]
        except OSError as error:
            raise SourceError(f"{self.path} cannot be listed: {error.strerror}") from error

    def files(self) -> list[str]:
        """The files right in it."""
        try:
            return sorted(entry.name for entry in self.path.iterdir() if not entry.is_dir())
        except OSError as error:
            raise SourceError(f"{self.path} cannot be listed: {error.strerror}") from error

    def says_labels(self, table: str) -> bool:
        """Whether a table right in it has a column of labels."""
        return bool(open_table(self.path / table).known(LABEL_COLUMNS))

    def left_behind(self) -> list[str]:
        """What an operating system left beside them."""
        inside = sorted(entry.name for entry in self.path.iterdir() if entry.is_dir())
        return [name for name in inside if left_behind(name) and not name.startswith(".")]

    def holds_images(self) -> bool:
        """Whether a file below may be an image; the walk ends at the first."""
        return any(error is None and kind_of(name) is None for name, error in walk(str(self.path)))


@dataclass(slots=True)
class InArchive:
    """A folder in an archive."""

    place: str
    name: str
    inside: dict[str, InArchive] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, archive: str, members: Iterable[str]) -> InArchive:
        """The tree of an archive's members."""
        top = cls(archive, Path(archive).name)
        for member in members:
            *parts, last = [part for part in member.split("/") if part not in ("", ".")] or [""]
            at = top
            for part in parts:
                at = at.inside.setdefault(part, cls(f"{at.place}/{part}", part))
            at.held.append(last)
        return top

    def folders(self) -> list[InArchive]:
        """The folders in it, without what an operating system leaves."""
        return [self.inside[name] for name in sorted(self.inside) if not left_behind(name)]

    def files(self) -> list[str]:
        """The files right in it."""
        return sorted(self.held)

    def says_labels(self, table: str) -> bool:
        """Not looked at in an archive: it is taken to."""
        return bool(table)

    def left_behind(self) -> list[str]:
        """What an operating system left beside them."""
        return [name for name in sorted(self.inside) if left_behind(name) and not name.startswith(".")]

    def holds_images(self) -> bool:
        """Whether a file below may be an image."""
        return any(_may_be(name) for name in self.held) or any(f.holds_images() for f in self.folders())


_Class: TypeAlias = tuple[Tree, str, str | None]  # a folder, its label, its domain


@dataclass(frozen=True, slots=True)
class Classes:
    """Folders that hold images of one label each.

    Attributes:
        place: the folder that they are in.
        folders: a folder, its label, its domain.
        loose: images beside the folders, which have no label.
        left_behind: folders beside them that an operating system left.
    """

    place: str
    folders: list[_Class]
    loose: int
    left_behind: tuple[str, ...] = ()


def layout(
    top: Tree,
    *,
    by_domain: bool = False,
    split: str | None = None,
    prefer: Sequence[str] = PREFERRED,
    remarks: Remarks,
) -> Classes | str:
    """What the folders below mean: classes; or the path of the table that says what each image is.

    Raises:
        SourceError: no labels to be found, and where they may be; or folders that ``nshot sort`` made.
    """
    at, level = top, 0
    while level < _DEEPEST:
        level += 1
        files = at.files()
        if _SORTED in files:
            raise SourceError(
                f"{at.place} was made by nshot sort: its folders are answers, not labels that somebody has "
                f"checked. If you have corrected them, delete {at.place}/{_SORTED} (the sort can then no "
                "longer be undone)"
            )
        subs = list(at.folders())
        shown = [sub for sub in subs if sub.holds_images() or _lists(sub)]
        if (listed := next((name for name in _METADATA if name in files), None)) is not None and (
            not shown or at.says_labels(listed)
        ):
            remarks.note(f"labels are those of {at.place}/{listed}")
            return f"{at.place}/{listed}"
        if (part := _part(at, shown, split, prefer, remarks)) is not None:
            at, split = part, None
            continue
        if len(shown) == 1 and not by_domain and _is_wrapping(shown[0]):
            _without_boxes(shown[0], subs)
            at = shown[0]
            remarks.note(f"labels are the folders in {at.place}")
            continue
        break
    if split is not None:
        raise SourceError(f"{top.place} has no part {split!r}: --split names a folder such as train or test")
    if by_domain:
        nested: list[_Class] = [(s, s.name, outer.name) for outer in subs for s in outer.folders()]
        return Classes(at.place, _found(at, nested, "domain/label/image.jpg"), 0)
    found: list[_Class] = [(sub, sub.name, None) for sub in _without_wrappings(subs, shown)]
    found = _inside(at, found, prefer, remarks)
    _found(at, found, "label/image.jpg")
    return Classes(at.place, found, sum(map(_may_be, files)), tuple(at.left_behind()))


def _part(
    at: Tree, shown: list[Tree], split: str | None, prefer: Sequence[str], remarks: Remarks
) -> Tree | None:
    """The part of a data set to go on in, if these folders are its parts."""
    parts = {sub.name: part_of(sub.name) for sub in shown}
    if split is not None:
        named = [sub for sub in shown if sub.name == split] or [
            sub for sub in shown if parts[sub.name] is not None and parts[sub.name] == part_of(split)
        ]
        if len(named) == 1 and parts[named[0].name] is not None:
            return named[0]
        if any(parts.values()) and all(parts.values()):
            raise SourceError(f"{at.place} has no part {split!r}; there is: {', '.join(parts)}")
        return None
    divided = [sub for sub in shown if parts[sub.name] is not None and _is_wrapping(sub)]
    if divided and not all(parts.values()):
        others = ", ".join(name for name, part in parts.items() if part is None)
        raise SourceError(
            f"{at.place}: {divided[0].name!r} looks like a part of a data set, and {others} does not; name "
            f"one folder, such as {divided[0].place}"
        )
    if not shown or not all(parts.values()) or (len(shown) == 1 and not divided):
        return None
    for wanted in prefer:
        for sub in divided or shown:
            if parts[sub.name] == wanted:
                others = ", ".join(name for name in parts if name != sub.name)
                beside = f", not {others} (--split names another)" if others else ""
                remarks.note(f"images are those of the part {sub.name!r} of {at.place}{beside}")
                return sub
    return None


def _is_wrapping(sub: Tree) -> bool:
    """Whether a folder is the only one, and holds folders of images rather than images."""
    return (
        not any(map(_may_be, sub.files())) and any(inner.holds_images() for inner in sub.folders())
    ) or _lists(sub)


def _lists(folder: Tree) -> bool:
    return any(name in _METADATA for name in folder.files())


def _without_wrappings(subs: list[Tree], shown: list[Tree]) -> list[Tree]:
    """The folders that are labels; those that belong to data for detection end it."""
    names = [sub.name.lower() for sub in subs]
    if subs and (
        (all(name in _WRAPPINGS for name in names) and len(shown) <= 1)
        or (len(shown) > 1 and all(name in _WRAPPINGS or name in _VERSIONS for name in names))
    ):
        raise _no_labels(subs)
    return subs


def _without_boxes(wrapping: Tree, subs: list[Tree]) -> None:
    """Refuse images/train with labels/train beside it, where no part holds a folder per label."""
    inner = [folder for folder in wrapping.folders() if folder.holds_images()]
    beside = any(sub.name.lower() in ("labels", "annotations") for sub in subs if sub is not wrapping)
    if beside and all(part_of(folder.name) and not _is_wrapping(folder) for folder in inner):
        raise _no_labels(subs)


def _no_labels(subs: list[Tree]) -> SourceError:
    held = ", ".join(sub.name for sub in subs)
    return SourceError(
        f"{Path(subs[0].place).parent} holds {held}, and no folder per label: this looks like images with "
        "boxes, masks or a list beside them, or in several sizes; give the list (COCO JSON, a table) or a "
        "folder with a folder per label"
    )


def _inside(at: Tree, found: list[_Class], prefer: Sequence[str], remarks: Remarks) -> list[_Class]:
    """What lies a level deeper than labels do: parts of each label, domains, or finer labels."""
    deep = {label: [sub for sub in folder.folders() if sub.holds_images()] for folder, label, _ in found}
    deep = {label: subs for label, subs in deep.items() if subs}
    direct = [label for folder, label, _ in found if any(map(_may_be, folder.files()))]
    if not deep or direct:
        return found
    inner = [{sub.name for sub in subs} for subs in deep.values()]
    if all(part_of(name) for names in inner for name in names):
        if any(_is_wrapping(sub) for subs in deep.values() for sub in subs):
            raise SourceError(f"{at.place} holds several data sets ({_some(deep)}): name one of them")
        kinds = {part_of(name) for names in inner for name in names}
        wanted = next(part for part in prefer if part in kinds)
        remarks.note(f"each label's folder is divided into parts: images are those of its part {wanted!r}")
        return [
            (sub, label, None) for label, subs in deep.items() for sub in subs if part_of(sub.name) == wanted
        ]
    if len(deep) > 1 and len(inner[0]) > 1 and all(names == inner[0] for names in inner):
        raise SourceError(
            f"{at.place}: {_some(deep)} hold the same folders ({_some(sorted(inner[0]))}). If those are "
            "the labels, add --domain-folders; if the outer ones are, put the images right into them"
        )
    example = next((label, subs[0].name) for label, subs in deep.items())
    remarks.note(
        f"labels are the outer folders of {at.place}: {example[0]}/{example[1]} counts as {example[0]!r}"
    )
    return found


def _found(at: Tree, found: list[_Class], shape: str) -> list[_Class]:
    if found:
        return found
    files = at.files()
    message = f"{at.place} holds no folders to take labels from: images are looked for at {shape}"
    if tables := [name for name in files if name.lower().endswith((*TEXT, ".jsonl", ".json", *PARQUET))]:
        raise SourceError(
            f"{message}. If {tables[0]} says what each image is, give it: {at.place}/{tables[0]}"
        )
    if pattern := _pattern([name for name in files if is_image_name(name)]):
        raise SourceError(
            f"{message}. If names such as {pattern[1]} hold labels: --label-pattern '{pattern[0]}'"
        )
    raise SourceError(message)


def _pattern(names: list[str]) -> tuple[str, str] | None:
    """How labels may stand in names, where words in front of numbers recur."""
    heads = [re.match(r"([A-Za-z]+(?:[ _-][A-Za-z]+)*)([._ -]?)\d", name) for name in names]
    words = [head[1] for head in heads if head]
    if len(words) < len(names) or len(names) < 4 or not 1 < len(set(words)) <= len(names) / 2:
        return None
    separator = heads[0][2] if heads[0] else ""
    return ("{label}" + separator + "*", names[0]) if separator else None


def _may_be(name: str) -> bool:
    return not name.startswith(".") and no_image(name) is None and (is_image_name(name) or "." not in name)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (", ..." if len(listed) > 4 else "")


def chosen(classes: Classes, member: str) -> Iterator[tuple[str, str | None]]:
    """The label and domain of an archive's member, by the folder that it is in."""
    for folder, label, domain in classes.folders:
        if member.startswith(f"{folder.place}/"):
            yield label, domain
