"""Webdataset shards: tars in which files of one name belong together (7.jpg, 7.cls), read in a stream.

A sample is complete when the next name begins; only one is held at a time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nshot.bounded import MOST, parsed
from nshot.errors import RequestError, SourceError, UnreadableImage
from nshot.images.archives import Member, tar_members
from nshot.images.kinds import is_image_name
from nshot.images.sources import Source
from nshot.objects import ObjectPath, is_object_url

_LABELS = ("cls", "cls.txt", "label", "label.txt", "labels.txt", "json", "txt")  # the surest first
_KEYS = ("label", "labels", "class", "cls", "category", "class_name", "class_id", "target")
_MOST_SAID = 2**20  # bytes of what is said of an image
_LOOKED_AT = 60  # members by which a tar is known for what it is


def is_webdataset(path: Path | ObjectPath, max_bytes: int) -> bool:
    """Whether a tar holds images with a file of the same name that says what they are."""
    images: set[str] = set()
    others: set[str] = set()
    for number, member in enumerate(tar_members(path, max_bytes)):
        if number >= _LOOKED_AT:
            break
        key, ending = _cut(member.name)
        (images if is_image_name(f"x.{ending}") else others).add(key)
        if ending in _LABELS[:5] and key in images:
            return True
    return bool(images) and len(images & others) > len(images) / 2


def samples(
    paths: Sequence[Path | ObjectPath],
    max_bytes: int,
    *,
    endings: Sequence[str] = _LABELS,
    keys: Sequence[str] = _KEYS,
) -> Iterator[tuple[Source, Any]]:
    """Each image with what is said of it, shard after shard; one of several that is no tar is a failure.

    Args:
        paths: the shards.
        max_bytes: of one member.
        endings: of the files that say something, the surest first.
        keys: of a .json, likewise.

    Raises:
        SourceError: the only shard cannot be opened.
    """
    for path in paths:
        try:
            yield from _of_shard(path, max_bytes, endings, keys)
        except SourceError as error:
            if len(paths) == 1:
                raise
            yield Source.failed(str(path), UnreadableImage(str(error))), None


def _of_shard(
    path: Path | ObjectPath, max_bytes: int, endings: Sequence[str], keys: Sequence[str]
) -> Iterator[tuple[Source, Any]]:
    key, held, image = "", dict[str, Member](), None
    for member in tar_members(path, max_bytes):
        name = member.name
        if not name:  # the damage that ends a tar
            yield Source(str(path), None, member), None
            continue
        own, ending = _cut(name)
        if own != key:
            if image is not None:
                yield image, _said(held, endings, keys)
            key, held, image = own, {}, None
        if is_image_name(f"x.{ending}"):
            if image is not None:
                yield image, _said(held, endings, keys)
            image = Source(f"{path}/{name}", None, member, size=member.size)
        elif ending in endings and member.size <= _MOST_SAID:
            held[ending] = member
    if image is not None:
        said = _said(held, endings, keys)
        if said is None and member.damage is not None:  # else the rest would be lost as unlabelled
            image = Source(str(path), None, member)
        yield image, said


def class_names(shard: Path | ObjectPath) -> list[str] | None:
    """The names of the numbers in .cls files, where a list of them lies beside the shards or above."""
    folder = str(shard).rpartition("/")[0]
    for at in (folder, folder.rpartition("/")[0]):
        for name in ("classnames.txt", "classes.txt", "labels.txt"):
            place = f"{at}/{name}" if at else name
            try:
                with (ObjectPath(place) if is_object_url(place) else Path(place)).open("rb") as file:
                    lines = file.read(MOST).decode("utf-8-sig").splitlines()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                continue
            except (OSError, UnicodeDecodeError, RequestError) as error:
                raise SourceError(f"{place} cannot be read: {error}") from error
            return [line.strip() for line in lines if line.strip()]
    return None


def _said(held: dict[str, Member], endings: Sequence[str], keys: Sequence[str]) -> Any:
    """What the files beside an image say that it is; None where they say nothing."""
    for ending in endings:
        if ending not in held:
            continue
        if ending == "npy":
            try:
                return np.load(io.BytesIO(held[ending]()), allow_pickle=False).tolist()
            except Exception:  # numpy raises whatever its parsing runs into
                continue
        try:
            text = held[ending]().decode("utf-8").strip()
        except (UnreadableImage, UnicodeDecodeError):
            continue
        if ending != "json":
            return text
        try:
            content = parsed(text)
        except ValueError:
            continue
        if isinstance(content, dict):
            content = next((content[key] for key in keys if key in content), None)
        if content is not None:
            return content
    return None


def _cut(name: str) -> tuple[str, str]:
    """(key, ending): the base name is cut at its first dot."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending.lower()
