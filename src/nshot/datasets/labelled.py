"""Labelled images, wherever their labels are: in folders, a table, an archive, on the Hub, in names of files.

    photos/cat/1.jpg      the folder is the label; train/, val/ and test/ are parts of the set
    test.csv              a column of images and one of labels; .tsv, .jsonl, .json and .parquet too
    coco.json             COCO, and exports of Label Studio, VIA, Datumaro and CVAT
    shards/0001.tar       webdataset: 7.jpg with 7.cls, 7.txt or 7.json; or an archive of folders
    hf://owner/name       Parquet on the Hugging Face Hub, a shard at a time
    hf://clip-benchmark/wds_vtab-pets     the published sets of CLIP_benchmark, with their own prompts

Each is checked before any image is read: what would be measured as something else is refused, and how the
data was understood is noted in ``LabelledSet.remarks``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from nshot.datasets import clip_benchmark, layouts, webdataset
from nshot.datasets.cells import Cells
from nshot.datasets.in_store import InStore
from nshot.datasets.layouts import PREFERRED, Classes, InArchive, OnDisk, Tree, layout
from nshot.datasets.patterns import by_pattern
from nshot.datasets.reading import Columns, LabelledSet, Reading
from nshot.datasets.rows import Rows, of_shards, of_table, opened_table
from nshot.embeddings import is_parts, is_vector_file, read_vectors
from nshot.errors import SourceError
from nshot.images import archives, stored
from nshot.images.remarks import Remarks
from nshot.images.sources import Source
from nshot.images.tables import PARQUET, is_table, open_table
from nshot.labels.parts import part_of
from nshot.objects import ObjectPath, is_object_url
from nshot.types import DEFAULT_LIMITS, Limits

__all__ = ["Columns", "LabelledSet", "open_labelled"]

Shard: TypeAlias = Path | ObjectPath

_HUB = "hf://"
_SAMPLE = 200  # rows by which it is judged what a column holds
_LISTS = (".txt", ".lst", ".list", ".tab", ".dat", ".psv")


def open_labelled(
    spec: str | os.PathLike[str],
    *,
    columns: Columns = Columns(),  # noqa: B008  (immutable)
    domain_folders: bool = False,
    label_pattern: str | None = None,
    image_root: str | os.PathLike[str] | None = None,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    prefer: Sequence[str] = PREFERRED,
    strict: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> LabelledSet:
    """The labelled images that a person names.

    Args:
        spec: a folder, a table, an export, an archive, or "hf://owner/name"; see the module.
        columns: what a table's columns are.
        domain_folders: the folders are domain/label/image, not label/image.
        label_pattern: where the label stands in a file's name, such as "{label}_*".
        image_root: the folder that the names of images in a table are relative to; None: the table's own.
        config: the Hub data set's configuration; needed where it has several.
        split: the part to read (train, validation, test): a folder, the rows of a table, a split on the Hub.
        revision: branch, tag, commit, or refs/convert/parquet.
        prefer: which part is read where folders are divided into parts and ``split`` names none, by "train",
            "val" and "test", the best first.
        strict: list what plainly is no image in folders too, as failures.
        limits: the limits on one image.

    Raises:
        SourceError: nothing there, or no labels to be found.
        LabelError: labels that are numbers, codes, or the parts of a data set.
        MissingExtra: Parquet without pyarrow.
        HubUnavailable: a Hub data set that cannot be reached.
    """
    name, remarks = os.fspath(spec), Remarks()
    cells = Cells(columns.names, columns.numbers, columns.separator)
    read = Reading(columns, split, prefer, image_root, strict, limits, remarks, cells)
    vectors = is_parts(name) or (name.lower().endswith((".npz", ".npy", *PARQUET)) and is_vector_file(name))
    if split is not None and (vectors or label_pattern is not None):
        raise SourceError(
            f"{name}: --split chooses among folders, shards or rows, and there is nothing to choose from"
        )
    if label_pattern is not None:
        return _patterned(name, label_pattern, read)
    if name.startswith(_HUB):
        from nshot.datasets.hub import Shards

        if name.startswith(_HUB + clip_benchmark.HUB):
            return clip_benchmark.of_hub(name.removeprefix(_HUB), read, revision)
        shards = Shards.of(name.removeprefix(_HUB), config=config, split=split, revision=revision)
        return of_shards(name, shards, replace(read, split=None))
    path = Path(name)
    if vectors:
        return _of_vectors(path, name, read)
    if is_object_url(name):
        return _in_store(name, domain_folders, config, read)
    if path.is_dir() and clip_benchmark.is_benchmark(path):
        return clip_benchmark.of_folder(path, read)
    if path.is_dir():
        return _folder(path, name, domain_folders, config, read)
    if not path.exists():
        raise SourceError(
            f"{name}: no such file or folder (a data set on the Hub is written hf://owner/name)"
        )
    lower = name.lower()
    if lower.endswith((*archives.TAR, *archives.ZIP)):
        return _archive(path, name, domain_folders, read)
    if is_table(name) or lower.endswith(_LISTS) or lower.endswith((".xlsx", ".xls", ".ods")):
        return of_table(
            Rows(open_table(path, blanks=lower.endswith(_LISTS), memory=limits.memory), read), name
        )
    raise SourceError(
        f"{name} has no labels: give a folder with a folder per label, a table (.csv, .tsv, .jsonl, "
        ".parquet), an archive, or hf://owner/name"
    )


# Folders and archives


def _folder(path: Path, name: str, by_domain: bool, config: str | None, read: Reading) -> LabelledSet:
    here = OnDisk(path)
    if not by_domain and not here.holds_images():
        if tars := _files(path, archives.TAR):
            return _webdataset(_of_part(name, tars, read), name, read)
        files = [(each.relative_to(path).as_posix(), str(each)) for each in sorted(path.rglob("*.parquet"))]
        if shards := _parquet(name, files, config, read):
            return of_shards(name, shards, replace(read, split=None))
    return _tree(here, name, by_domain, read)


def _tree(here: Tree, name: str, by_domain: bool, read: Reading) -> LabelledSet:
    """A folder on disk or in an object store."""
    found = layout(here, by_domain=by_domain, split=read.split, prefer=read.prefer, remarks=read.remarks)
    if isinstance(found, str):
        return of_table(Rows(opened_table(found, read), replace(read, split=None)), name)

    def listed(label: str, folder: Tree) -> Iterator[Source]:
        try:
            yield from read.sources([f"{folder.place}/"])
        except SourceError as error:
            if not folder.holds_images():
                return  # a label without an image yet
            raise SourceError(f"the images of {label!r}: {error}") from error

    def opened() -> Iterator[Source]:
        _count_loose(found, read)
        for folder, label, domain in found.folders:
            own = (read.cells.name(label, folder.place),)
            for source in listed(label, folder):
                yield replace(source, labels=own, domain=domain)

    return _classes(name, found, read, opened)


def _in_store(name: str, by_domain: bool, config: str | None, read: Reading) -> LabelledSet:
    """What lies in an object store: a table, an archive, shards of either kind, or folders of labels.

    Raises:
        SourceError: a pattern, or nothing with labels.
    """
    if stored.is_archive(name):
        return _archive(ObjectPath(name), name, by_domain, read)
    if is_table(name):
        return of_table(Rows(stored.open_table(name, memory=read.limits.memory), read), name)
    if stored.is_pattern(name) or not stored.is_folder(name):
        raise SourceError(f"{name} has no labels: name a folder with a folder per label, a table, an archive")
    here = InStore(name.rstrip("/"))
    if not by_domain and not here.holds_images():
        tars = [f"{here.place}/{file}" for file in here.files() if file.lower().endswith(archives.TAR)]
        if tars:
            return _webdataset(_of_part(name, list(map(ObjectPath, tars)), read), name, read)
        files = [(each, f"{here.place}/{each}") for each in here.below(PARQUET)]
        if shards := _parquet(name, files, config, read):
            return of_shards(name, shards, replace(read, split=None))
        if not here.folders() and not here.files():
            raise SourceError(f"{name} holds nothing")
    return _tree(here, name, by_domain, read)


def _archive(path: Path | ObjectPath, name: str, by_domain: bool, read: Reading) -> LabelledSet:
    most = read.limits.max_bytes
    is_zip = name.lower().endswith(archives.ZIP)
    if not is_zip and webdataset.is_webdataset(path, most):
        return _webdataset(_of_part(name, [path], read), name, read)
    members = archives.zip_members(path, most) if is_zip else archives.tar_members(path, most)
    tree = InArchive.of(name, (member.name for member in members if member.name))
    found = layout(tree, by_domain=by_domain, split=read.split, prefer=read.prefer, remarks=read.remarks)
    if isinstance(found, str):
        raise SourceError(f"{found} says what the images are: unpack the archive, and give the folder")

    def opened() -> Iterator[Source]:
        _count_loose(found, read)
        for source in read.sources([name]):
            if source.name == name:  # the rest of it, which is lost
                yield source
            for label, domain in layouts.chosen(found, source.name):
                yield replace(source, labels=(read.cells.name(label, source.name),), domain=domain)

    return replace(_classes(name, found, read, opened), shards=(name,))


def _count_loose(found: Classes, read: Reading) -> None:
    for name in found.left_behind:
        read.remarks.skipped.kinds[name] += 1
    if found.loose:
        read.remarks.unlabelled[f"right in {found.place}, beside the folders of labels"] = found.loose


def _classes(name: str, found: Classes, read: Reading, opened: Callable[[], Iterator[Source]]) -> LabelledSet:
    labels = {read.cells.name(label, folder.place) for folder, label, _ in found.folders}
    read.checked(sorted(labels), found.place)
    return LabelledSet(name, tuple(sorted(labels)), False, opened, read.remarks)


def _files(path: Path, endings: tuple[str, ...]) -> list[Path]:
    return sorted(each for each in path.iterdir() if each.is_file() and each.name.lower().endswith(endings))


def _of_part(path: str, files: Sequence[Shard], read: Reading) -> Sequence[Shard]:
    """The shards of one part, where their names say what part they are of."""
    parts = {file: part_of(str(file).rpartition("/")[2].partition(".")[0]) for file in files}
    there = set(parts.values()) - {None}
    if read.split is not None:
        chosen = [file for file, part in parts.items() if part == part_of(read.split)]
        if not chosen:
            raise SourceError(f"{path} has no shards of the part {read.split!r}")
        return chosen
    if len(there) < 2:
        return files
    wanted = next(part for part in read.prefer if part in there)
    read.remarks.note(f"images are those of the part {wanted!r} of {path} (--split names another)")
    return [file for file, part in parts.items() if part == wanted]


def _webdataset(shards: Sequence[Shard], name: str, read: Reading) -> LabelledSet:
    names = read.columns.names or webdataset.class_names(shards[0])
    cells = Cells(names, read.columns.numbers, read.columns.separator)
    most, whole = read.limits.max_bytes, frozenset(map(str, shards))

    def opened() -> Iterator[Source]:
        for source, said in webdataset.samples(shards, most):
            labels = cells.labels(said, source.name)
            if source.name in whole:  # the rest of it, which is lost
                yield source
            elif labels:
                yield replace(source, labels=labels)
            else:
                read.remarks.unlabelled["with nothing beside them that says what they are"] += 1

    first = [label for source in islice(opened(), _SAMPLE) for label in source.labels or ()]
    if not first:
        raise SourceError(f"{name} holds no image with a .cls, .txt or .json that says what it is")
    read.checked(dict.fromkeys(first), name)
    classes = None if names is None else tuple(names)
    return LabelledSet(name, classes, False, opened, read.remarks, shards=tuple(map(str, shards)))


def _parquet(
    place: str, files: Sequence[tuple[str, str]], config: str | None, read: Reading
) -> Sequence[str]:
    """Of Parquet files below a folder, as the Hub's data sets keep them, those of one part.

    Args:
        place: the folder.
        files: each one's name within it, and its path or URL.
        config: the configuration to read, where there are several.
        read: which part.
    """
    from nshot.datasets.hub import placed

    found: dict[tuple[str, str], list[str]] = {}
    for name, file in files:
        found.setdefault(placed(name) or ("", ""), []).append(file)
    configs = sorted({of for of, _ in found})
    if len(configs) > 1 and config is None:
        raise SourceError(f"{place} has several: choose with --config, one of: {', '.join(configs)}")
    splits = {split: held for (of, split), held in found.items() if config is None or of == config}
    if read.split is not None and read.split in splits:
        return splits[read.split]
    if read.split is not None or len(splits) > 1:
        for wanted in [part_of(read.split)] if read.split is not None else read.prefer:
            for split, held in splits.items():
                if part_of(split) == wanted:
                    read.remarks.note(f"images are those of {split!r} in {place} (--split names another)")
                    return held
        raise SourceError(f"{place} has no part {read.split!r}; there is: {', '.join(splits)}")
    return next(iter(splits.values()), [])


def _patterned(name: str, pattern: str, read: Reading) -> LabelledSet:
    find = by_pattern(pattern)
    below = name if is_object_url(name) or Path(name).is_dir() else ""

    def opened() -> Iterator[Source]:
        for source in read.sources([name]):
            label = find(os.path.relpath(source.name, below) if below else source.name)
            if label is None:
                read.remarks.unlabelled[f"named otherwise than {pattern}"] += 1
            else:
                yield replace(source, labels=(read.cells.name(label, source.name),))

    labels = {label for source in opened() for label in source.labels or ()}
    if not labels:
        raise SourceError(f"{name}: no image is named like {pattern}")
    read.checked(sorted(labels), name)
    return LabelledSet(name, tuple(sorted(labels)), False, opened, read.remarks)


# Vectors


def _of_vectors(path: Path, name: str, read: Reading) -> LabelledSet:
    """Embeddings from elsewhere, with their labels."""
    found = read_vectors(name if is_object_url(name) else path)
    if found.labels is None:
        raise SourceError(
            f"{name} holds vectors without labels: put them into an array or a column 'labels', or give "
            "the images"
        )
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # millions of images have a few labels
    given = []
    for at, own in zip(found.sources, found.labels, strict=True):
        if own not in known:
            known[own] = read.cells.labels(list(own), f"{name}, {at}")
        given.append(known[own])
    rows = [row for row, own in enumerate(given) if own]
    if len(rows) < len(given):
        read.remarks.unlabelled["rows of vectors"] = len(given) - len(rows)
        found = found[rows]
    met = sorted({label for own in known.values() for label in own})
    read.checked(met, name)
    classes = tuple(read.columns.names) if read.columns.names is not None else found.classes
    classes = classes if set(classes) >= set(met) else tuple(met)
    found = found.with_labels([given[row] for row in rows], classes=classes)

    def opened() -> Iterator[Source]:
        for source, own in zip(found.sources, found.labels or (), strict=True):
            yield replace(Source.file(source), labels=own)

    return LabelledSet(name, classes, found.multi, opened, read.remarks, found)
