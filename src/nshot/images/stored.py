"""Images in object stores: a folder, a pattern, one object, an archive, a table, by its URL.

    s3://bucket/photos/   s3://bucket/**/*.jpg   gs://bucket/a.jpg   az://container/shards/0001.tar

Names are listed in pages while they are asked for, in the order of their names, and read later.
"""

# Names stay as the store has them: pathlib would rewrite them.
# ruff: noqa: PTH122

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import IO, NamedTuple, cast

from nshot.atomic import Scratch
from nshot.errors import (
    FetchError,
    ImageError,
    ImageTooLarge,
    SourceError,
    UndecodableImage,
    UnreadableImage,
)
from nshot.images import archives, tables
from nshot.images.kinds import is_image_name, left_behind, no_image
from nshot.images.remarks import Remarks
from nshot.objects import Meta, ObjectPath, Place, StoreFailure, unsayable
from nshot.types import DEFAULT_LIMITS

_MAGIC = re.compile(r"[*?\[]")


def read(
    url: str,
    max_bytes: int,
    *,
    before_more: tuple[int, Callable[[], object]] | None = None,
    told: Callable[[Meta], object] = lambda _: None,
) -> bytes:
    """All bytes of an object.

    Args:
        url: which.
        max_bytes: the most to take; what is larger is known before it is read.
        before_more: (bytes, what to call once before more than these are held).
        told: called with what the store says of the version that is read.

    Raises:
        ImageTooLarge: more than max_bytes.
        UnreadableImage: it is not there, or the store denies access.
        FetchError: it did not come, although it was asked for several times.
    """

    def too_large(size: int) -> Exception:
        return ImageTooLarge(f"{size:,} bytes are more than the limit of {max_bytes:,} bytes")

    with _told():
        return Place.of(url).read(max_bytes, too_large, before_more, told)


@contextmanager
def _told() -> Iterator[None]:
    """Within it, a store's failure is one of an image."""
    try:
        yield
    except StoreFailure as error:
        kind = UnreadableImage if error.kind in ("missing", "denied") else FetchError
        raise kind("no such object" if error.kind == "missing" else str(error)) from error


class Object:
    """Reads an object that was named, not listed, and learns from the store which version of it that is.

    Args:
        url: which.
        max_bytes: the most to take.

    Attributes:
        url: which.
        meta: what the store says of it, once it was asked or read.
    """

    def __init__(self, url: str, max_bytes: int) -> None:
        self.url = url
        self._max_bytes = max_bytes
        self.meta: Meta | None = None

    def __call__(self, *, before_more: tuple[int, Callable[[], object]] | None = None) -> bytes:
        return read(self.url, self._max_bytes, before_more=before_more, told=self._take)

    def ask(self) -> None:
        """Ask the store, without reading the object.

        Raises:
            UnreadableImage: it is not there, or the store denies access.
            FetchError: the store gave no answer.
        """
        with _told():
            self.meta = Place.of(self.url).head()

    def _take(self, meta: Meta) -> None:
        self.meta = meta


def is_archive(url: str) -> bool:
    """Whether a URL is an archive, by its name."""
    return url.lower().endswith((*archives.ZIP, *archives.TAR))


def is_folder(url: str) -> bool:
    """Whether a URL is to be listed: it ends in a slash, or no object has the name.

    Raises:
        SourceError: the store cannot be asked.
    """
    place = Place.of(url)
    if url.endswith("/") or not place.key:
        return True
    if is_image_name(place.key) or is_archive(url) or tables.is_table(url):
        return False
    try:
        place.head()
    except StoreFailure as error:
        if error.kind == "missing":
            return True
        raise SourceError(f"{url}: {error}") from error
    return False


def is_pattern(url: str) -> bool:
    """Whether a URL is a glob pattern, and neither an object nor a folder has that very name."""
    place = Place.of(url)
    if not _MAGIC.search(place.key):
        return False
    try:
        if not url.endswith("/"):
            with suppress(FileNotFoundError):
                ObjectPath(url).open().close()
                return False
        return next(place.listing(), None) is None
    except (OSError, StoreFailure):  # whoever lists it says so
        return True


def listed(
    url: str,
    remarks: Remarks,
    *,
    strict: bool = False,
    after: str | None = None,
    archives_too: bool = False,
) -> Iterator[tuple[str, Meta | ImageError]]:
    """What lies below a folder or fits a pattern, by name: URL, and what the store says or what is wrong.

    A folder below that cannot be listed stands in its place, as what is wrong.

    Args:
        url: a folder or a pattern.
        remarks: where it is counted what is no image.
        strict: list what plainly is no image as well.
        after: only names behind this one.
        archives_too: list what a pattern matches whatever it is.

    Raises:
        SourceError: at once where the store cannot be asked, or later where it stops answering.
    """
    place = Place.of(url)
    pattern = place.key if is_pattern(url) else None
    if pattern is not None:
        place = place._replace(key=pattern[: _MAGIC.search(pattern).start()].rpartition("/")[0])  # type: ignore[union-attr]
    fits = re.compile(_expression(pattern)).fullmatch if pattern is not None else None
    named = pattern is not None and bool(os.path.splitext(pattern)[1].strip(".*"))
    below = f"{place.key.rstrip('/')}/" if place.key else ""
    last = None if after is None else Place.of(after).key
    try:
        for meta in _below(place, last):
            if isinstance(meta, _Unlisted):
                yield place.url(meta.key), UnreadableImage(f"the folder cannot be listed: {meta.why}")
                continue
            rest = meta.key.removeprefix(below)
            marker = not meta.size and not os.path.splitext(rest)[1]  # what consoles make for a folder
            if marker or _hidden(rest, remarks) or (fits and not fits(meta.key)):
                continue
            kind = None if named or archives_too else no_image(meta.key)
            if kind is not None and not strict:
                remarks.skipped.kinds[kind] += 1
                continue
            said = meta if kind is None else UndecodableImage(f"no image, by its name ({kind})")
            yield place.url(meta.key), said
    except StoreFailure as error:
        raise SourceError(f"{url} cannot be listed: {error}") from error


class _Unlisted(NamedTuple):
    """A folder that cannot be listed.

    Attributes:
        key: the beginning of the names in it.
        why: what the store, or obstore, says of it.
    """

    key: str
    why: str


def _below(place: Place, after: str | None) -> Iterator[Meta | _Unlisted]:
    """All objects below, by name; level by level where an object's name keeps obstore from listing a page."""
    try:
        for meta in place.listing(after):
            after = meta.key
            yield meta
    except StoreFailure as error:
        if error.kind != "name":
            raise
        yield from _by_level(place, after)


def _by_level(place: Place, after: str | None) -> Iterator[Meta | _Unlisted]:
    """The same objects in the same order, of which one level is held."""
    folders, objects = place.level()
    start = f"{place.key.rstrip('/')}/".removeprefix("/")
    entries: list[tuple[str, Meta | None]] = [(meta.key, meta) for meta in objects]
    entries += [(f"{start}{name}/", None) for name in folders if name]
    if "" in folders and (after is None or after.startswith("/")):
        yield _Unlisted("/", unsayable("/"))
    for key, meta in sorted(entries, key=itemgetter(0)):
        if after is not None and key <= after and not (meta is None and after.startswith(key)):
            continue
        if meta is not None:
            yield meta
            continue
        try:
            yield from _by_level(place._replace(key=key), after)
        except StoreFailure as error:
            if error.kind != "name":
                raise
            yield _Unlisted(key, str(error))


def members(url: str, max_bytes: int) -> Iterator[archives.Member]:
    """The files in an archive, which is read as a stream.

    Raises:
        SourceError: it is not there, or no archive.
    """
    opened = ObjectPath(url)
    if url.lower().endswith(archives.ZIP):
        return archives.zip_members(opened, max_bytes)
    return archives.tar_members(opened, max_bytes)


def open_table(url: str, *, memory: int = DEFAULT_LIMITS.memory) -> tables.Table:
    """A table in a store, copied to this machine for as long as somebody has it: it is read more than once.

    Raises:
        SourceError: it cannot be read, there is no room, or it is no table.
        MissingExtra: Parquet without pyarrow.
    """
    try:
        folder = Scratch()
        path = folder.path / url.rpartition("/")[2]
        with ObjectPath(url).open() as source, path.open("wb") as target:
            shutil.copyfileobj(cast(IO[bytes], source), target, 2**22)
    except OSError as error:
        raise SourceError(f"{url}: {error.strerror or error}") from error
    return tables.open_table(path, memory=memory).copied(url, folder)


def _hidden(rest: str, remarks: Remarks) -> bool:
    """Whether a part of the name is hidden, or a folder that an operating system leaves."""
    *folders, base = rest.split("/")
    if base.startswith(".") or any(part.startswith(".") for part in folders):
        return True
    for part in folders:
        if left_behind(part):
            remarks.skipped.kinds[part] += 1
            return True
    return False


def _expression(pattern: str) -> str:
    """A glob as a regular expression: ** stands for any number of folders, * for no slash."""
    parts = []
    for part in pattern.split("/"):
        if part == "**":
            parts.append("(?:[^/]+/)*")
            continue
        inner = fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z").removesuffix(r")\z")
        parts.append(inner.replace(".*", "[^/]*").replace("(?>", "(?:") + "/")
    joined = "".join(parts)
    if pattern.endswith("**"):
        return joined + "[^/]+"
    return joined.removesuffix("/")
