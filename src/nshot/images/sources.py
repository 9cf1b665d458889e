"""What a person names -> the images it holds, listed one at a time.

    file   folder   'glob/**'   -   archive.zip   archive.tar.gz   table.csv   table.parquet   https://...
    s3://bucket/...   gs://bucket/...   az://container/...   all of these there
    hf://datasets/owner/name/folder/    images that are files of a data set on the Hub

Folders, lists, archives and tables are walked while they are asked for, so a million images take no more
memory than ten. Whatever is named one by one, and whatever claims to be an image, gets one Source: what
cannot be read fails in its read(). What plainly is no image in a folder or an archive (a sidecar, a video,
Thumbs.db) is skipped and counted in ``remarks``; only hidden files are left out without a word.
"""

# Names stay as they were typed, odd bytes and leading dots included: pathlib would rewrite them.
# ruff: noqa: PTH116

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from nshot.errors import ImageError, SourceError, UndecodableImage, UnreadableImage
from nshot.images import folders, hub
from nshot.images.archives import Member, gathered
from nshot.images.entries import entry, held, listed
from nshot.images.kinds import is_image, is_image_name, is_plain_text, kind_of, no_image, no_list
from nshot.images.lists import BLOCK, LONGEST_NAME, separated
from nshot.images.remarks import Remarks
from nshot.images.source import Source, is_url, reason
from nshot.objects import Meta, is_object_url
from nshot.types import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from nshot.images.in_tables import InTable
    from nshot.images.tables import Row, Table

__all__ = ["Source", "expand", "found_after", "found_again", "holds_many", "table_sources"]

T = TypeVar("T")

_TELLING = 32  # bytes by which an image is told from a list of names
_MAP = 64  # bytes by which one is told that begins with a line of text, as PPM does


def expand(
    specs: Iterable[str | os.PathLike[str]],
    *,
    limits: Limits = DEFAULT_LIMITS,
    stdin: BinaryIO | None = None,
    image_column: str | None = None,
    image_root: str | os.PathLike[str] | None = None,
    strict: bool = False,
    keep_columns: bool = False,
    remarks: Remarks | None = None,
) -> Iterator[Source]:
    """List the images that the specs name, in their order; a folder's in the order of their names.

    Every spec is checked before this returns; the images are listed and read later.

    Args:
        specs: files, folders, glob patterns (with ** too), "-", .zip and .tar archives, tables (.csv, .tsv,
            .jsonl, .json, .parquet), http and https URLs, and all of it in object stores.
        limits: the limits on one image.
        stdin: where "-" reads names or URLs, separated by NUL or by newlines, whichever there is.
        image_column: the column of tables that holds the images; None looks for a well-known name.
        image_root: the folder that the names in tables are relative to; None: the table's own.
        strict: list what plainly is no image as well, as failures, where it would be skipped.
        keep_columns: let the other cells of a table's row go along with the image.
        remarks: where it is noted what was skipped, how tables were read, and which columns are kept.

    Raises:
        SourceError: a spec that names nothing, or that cannot be listed.
        MissingExtra: a .parquet file, and pyarrow is not installed.
    """
    listing = _Listing(limits, stdin, image_column, image_root, strict, remarks or Remarks(), keep_columns)
    return itertools.chain.from_iterable([listing.spec(os.fspath(spec)) for spec in specs])


def found_again(address: str, *, limits: Limits = DEFAULT_LIMITS) -> Source:
    """The image at an address that ``Source.address`` told; nothing is looked at before it is read.

    What its store said of its version then is not believed: it may have changed since.

    Args:
        address: a path or a URL.
        limits: the limits on one image.
    """
    return entry(address, limits)


def found_after(
    url: str,
    name: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    strict: bool = False,
    remarks: Remarks | None = None,
) -> Iterator[Source]:
    """What ``expand`` lists of a folder or a pattern in an object store behind a name that came before.

    Raises:
        SourceError: it cannot be listed.
    """
    return _Listing(limits, None, None, None, strict, remarks or Remarks())._stored(url, name)


def table_sources(
    table: Table,
    columns: Sequence[str] = (),
    *,
    image_column: str | None = None,
    image_root: str | os.PathLike[str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    remarks: Remarks | None = None,
) -> Iterator[tuple[Source, Row]]:
    """Each row's image and its cells of other columns, in one reading.

    Args:
        table: an opened table.
        columns: what is wanted beside the image.
        image_column: as for ``expand``.
        image_root: as for ``expand``.
        limits: the limits on one image.
        remarks: where it is noted how the table was read.

    Raises:
        SourceError: no such column, or not one of its images can be found; later, a table that is damaged.
    """
    from nshot.images.in_tables import InTable

    return InTable(image_column, image_root, limits, remarks or Remarks()).rows(table, columns)


@dataclass(frozen=True, slots=True)
class _Listing:
    limits: Limits
    stdin: BinaryIO | None
    image_column: str | None
    image_root: str | os.PathLike[str] | None
    strict: bool
    remarks: Remarks
    keep_columns: bool = False

    @property
    def max_bytes(self) -> int:
        """Of one image."""
        return self.limits.max_bytes

    def spec(self, spec: str) -> Iterator[Source]:
        """One spec as the user typed it: checked now, listed later."""
        if spec == "-":
            if self.stdin is None:
                raise SourceError("'-' reads a list on standard input, and there is none")
            return self._list(self.stdin)
        if is_object_url(spec):
            return self._stored(spec)
        if hub.is_hub(spec):
            return self._of_hub(spec)
        if is_url(spec):
            return iter([entry(spec, self.limits)])
        try:
            mode = os.stat(spec).st_mode
        except (OSError, ValueError) as error:
            if folders.is_pattern(spec):
                nothing = f"{spec}: no such file, and nothing matches it as a pattern"
                found = folders.matching(spec, self.remarks.skipped)
                if holds_many(spec):
                    return self._each(_some(found, nothing))
                named = bool(Path(spec).suffix.strip(".*"))  # it names its files by their ending
                return self._found(found, nothing, all_of_it=named)
            scheme, one, rest = spec.partition(":/")
            if one and is_object_url(f"{scheme}://") and not rest.startswith("/"):
                raise SourceError(f"{spec} is no file: write {scheme}://{rest} for a store") from error
            raise SourceError(f"{spec}: {reason(error)}") from error
        if stat.S_ISDIR(mode):
            if not os.access(spec, os.R_OK | os.X_OK):
                raise SourceError(f"{spec}: permission denied")
            return self._found(folders.walk(spec, None, self.remarks.skipped), f"{spec} holds no files")
        if not stat.S_ISREG(mode):
            raise SourceError(f"{spec} is not a regular file or a folder")
        return self._file(spec)

    def _stored(self, url: str, after: str | None = None) -> Iterator[Source]:
        """What lies in an object store; that something does is checked now."""
        from nshot.images import stored, tables

        pattern = stored.is_pattern(url)
        if pattern and holds_many(url):
            files = stored.listed(url, self.remarks, after=after, archives_too=True)
            matched = ((name, found if isinstance(found, ImageError) else None) for name, found in files)
            return self._each(_some(matched, f"{url}: there is no such object"))
        if pattern or stored.is_folder(url):
            below = stored.listed(url, self.remarks, strict=self.strict, after=after)
            first = next(below, None)
            if first is None and after is None:
                skipped = self.remarks.skipped
                raise SourceError(f"{url} holds no images{f': {skipped}' if skipped else ''}")
            return (
                listed(name, self.limits, found.size, found.mark)
                if isinstance(found, Meta)
                else Source.failed(name, found)
                for name, found in itertools.chain(filter(None, [first]), below)
            )
        if stored.is_archive(url):
            return self._members(url, stored.members(url, self.max_bytes))
        if tables.is_table(url):
            return self._of_table(stored.open_table(url, memory=self.limits.memory))
        return iter([entry(url, self.limits)])

    def _of_hub(self, url: str) -> Iterator[Source]:
        """The images in a folder of a data set on the Hub."""
        found = hub.listed(url, self.remarks, strict=self.strict)
        first = next(found, None)
        if first is None:
            raise SourceError(f"{url} holds no images: {self.remarks.skipped}")
        return (
            listed(name, self.limits, None, mark)
            if kind is None
            else Source.failed(name, UndecodableImage(f"no image, by its name ({kind})"))
            for name, mark, kind in itertools.chain([first], found)
        )

    def _each(self, files: Iterator[tuple[str, Exception | None]]) -> Iterator[Source]:
        """What archives and tables hold that a pattern matches; one that cannot be read is a failure."""
        for name, error in files:
            try:
                if error is not None:
                    raise SourceError(f"{name} cannot be listed: {error}")
                yield from self.spec(name)
            except SourceError as wrong:
                yield Source.failed(name, UnreadableImage(str(wrong)))

    def _file(self, spec: str) -> Iterator[Source]:
        from nshot.images import archives, tables

        path, lower = Path(spec), spec.lower()
        if lower.endswith(archives.ZIP):
            return self._members(spec, archives.zip_members(path, self.max_bytes))
        if lower.endswith(archives.TAR):
            return self._members(spec, archives.tar_members(path, self.max_bytes))
        if lower.endswith(tables.ENDINGS):
            return self._of_table(tables.open_table(path, memory=self.limits.memory))
        return iter([entry(spec, self.limits)])

    def _found(
        self, entries: Iterator[folders.Entry], otherwise: str, *, all_of_it: bool = False
    ) -> Iterator[Source]:
        """The images of a folder or a pattern; the first is looked for now, to say if there is none."""
        files = entries if all_of_it else self._images(entries)
        first = next(files, None)
        if first is None:
            skipped = self.remarks.skipped
            raise SourceError(f"{otherwise.replace('files', 'images')}: {skipped}" if skipped else otherwise)
        return (
            entry(name, self.limits)
            if error is None
            else Source.failed(name, UnreadableImage(f"the folder cannot be listed: {reason(error)}"))
            if isinstance(error, OSError)
            else Source.failed(name, UndecodableImage(f"no image, by its name ({error})"))
            for name, error in itertools.chain([first], files)
        )

    def _images(self, entries: Iterator[folders.Entry]) -> Iterator[tuple[str, OSError | str | None]]:
        """The entries without what plainly is no image, which is counted; or, strictly, with what it is."""
        for name, error in entries:
            kind = None if error is not None else kind_of(name)
            if kind is None:
                yield name, error
            elif self.strict:
                yield name, kind
            else:
                self.remarks.skipped.kinds[kind] += 1

    def _list(self, stream: BinaryIO) -> Iterator[Source]:
        more: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        first = b""
        while len(first) < _TELLING and (
            b"\n" not in first or (first.startswith(b"P") and len(first) < _MAP)
        ):
            if not (block := more(BLOCK)):
                break
            first += block
        first = first.removeprefix(b"\xef\xbb\xbf")
        if is_image(first):
            data = gathered(stream, self.max_bytes + 1 - len(first), first)
            yield held("-", data, self.limits)
            return
        if (kind := no_list(first)) is not None:
            told = f"{kind}: '-' takes one image, or a name for each line; name the file itself"
            yield Source.failed("-", UndecodableImage(told))
            return
        for name in separated(stream, first):
            if len(name) > LONGEST_NAME:
                shown = os.fsdecode(name[:60]) + "..."
                yield Source.failed(shown, UnreadableImage(f"a name of more than {LONGEST_NAME:,} bytes"))
            else:
                yield entry(os.fsdecode(name), self.limits)

    def _members(self, archive: str, members: Iterator[Member]) -> Iterator[Source]:
        for member in members:
            name = member.name
            full = f"{archive}/{name}" if name else archive
            kind = _kind_of_member(name, member) if name else None
            if kind is None:
                yield Source(full, None, member, size=member.size)
            elif self.strict:
                yield Source.failed(full, UndecodableImage(f"no image, by its name ({kind})"))
            else:
                self.remarks.skipped.kinds[kind] += 1

    def _of_table(self, table: Table) -> Iterator[Source]:
        return self.in_table.sources(table, keep_columns=self.keep_columns)

    @property
    def in_table(self) -> InTable:
        """How tables are listed."""
        from nshot.images.in_tables import InTable

        return InTable(self.image_column, self.image_root, self.limits, self.remarks)


def holds_many(name: str) -> bool:
    """Whether a file, or what a pattern matches, holds many images or names them: an archive or a table."""
    from nshot.images import archives, tables

    return name.lower().endswith((*archives.ZIP, *archives.TAR, *tables.ENDINGS))


def _some(found: Iterator[T], otherwise: str) -> Iterator[T]:
    """What is found, of which the first is looked for now.

    Raises:
        SourceError: there is nothing.
    """
    first = list(itertools.islice(found, 1))
    if not first:
        raise SourceError(otherwise)
    return itertools.chain(first, found)


def _kind_of_member(name: str, read: Callable[[], bytes]) -> str | None:
    if (kind := no_image(name)) is not None or is_image_name(name):
        return kind
    try:
        return "text" if is_plain_text(read()) else None
    except ImageError:
        return None  # it fails in its place
