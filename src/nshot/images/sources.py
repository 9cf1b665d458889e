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
# ruff: noqa: PTH116, PTH120

from __future__ import annotations

import itertools
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from nshot.errors import ImageError, ImageTooLarge, SourceError, UndecodableImage, UnreadableImage, bearable
from nshot.images import folders, hub
from nshot.images.archives import Member, gathered
from nshot.images.kinds import is_image, is_image_name, is_plain_text, kind_of, no_image
from nshot.images.remarks import Remarks
from nshot.objects import is_object_url
from nshot.paths import as_url
from nshot.types import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from nshot.images.resolve import Resolver
    from nshot.images.tables import Row, Table

_BLOCK = 2**16
_LONGEST_NAME = 2**16  # bytes; no system has longer ones
_TELLING = 32  # bytes by which an image is told from a list of names
_TRIED = 2000  # of a table's rows, before it is said that none of its images can be found


@dataclass(frozen=True, slots=True)
class Source:
    """One image that has not been read yet.

    Attributes:
        name: as the user would write it; a member is "archive.zip/inner/name.jpg", a row's bytes
            "table.parquet[7]".
        path: the plain local file that it is, or None.
        labels: the image's own labels, where it comes from a labelled set; None: unlabelled.
        domain: where it comes from (photograph, sketch ...), if the data says so.
        size: bytes that it holds, or will once it is read; None where nobody knows before. A file's is asked
            of the file.
        beside: the other cells of its row, where it comes from a table and they are to be kept.
        mark: of an object in a store: a number that changes whenever the object does; None: not known.
    """

    name: str
    path: str | None
    _read: Callable[..., bytes]
    labels: tuple[str, ...] | None = None
    domain: str | None = None
    size: int | None = 0
    beside: Mapping[str, str] | None = None
    mark: int | None = None

    @property
    def address(self) -> str | None:
        """The path or URL that it can be found by again; None for what lies in memory or in an archive."""
        return self.path if self.path is not None else self.name if _is_url(self.name) else None

    @property
    def remote(self) -> bool:
        """Whether reading it waits for a network more than for this machine."""
        return self.path is None and _is_url(self.name)

    @property
    def failure(self) -> ImageError | None:
        """Why its image is known to be out of reach, where that is known before it is read."""
        read = self._read
        return read.args[0] if isinstance(read, partial) and read.func is _fail else None

    def read(self, before_more: tuple[int, Callable[[], object]] | None = None) -> bytes:
        """The encoded image; may be called once, from any thread.

        Args:
            before_more: (bytes, what to call once before more than these are held), for an image whose size
                is None; whatever that call waits for.

        Raises:
            ImageError: it is not there, not to be read, too large, or could not be fetched.
        """
        return self._read() if self.size is not None else self._read(before_more=before_more)

    def hold(self) -> None:
        """Read now what cannot be read in its turn: a member of a tar archive. For the thread that lists."""
        if isinstance(self._read, Member):
            self._read.hold()

    def emptied(self) -> Source:
        """The same without the image, so that its bytes leave memory."""
        return replace(self, _read=_emptied, size=0)

    def expected(self) -> int | None:
        """Bytes that reading it will take; None where nobody knows."""
        if self.path is None:
            return self.size
        try:
            return os.stat(self.path).st_size
        except (OSError, ValueError):
            return 0  # reading it will say so

    @classmethod
    def of(cls, image: Any, *, name: str = "image") -> Source:
        """An image in memory: encoded bytes, a PIL image, or an array uint8[h,w], [h,w,3] or [h,w,4]."""
        if isinstance(image, (bytes, bytearray, memoryview)):
            data = bytes(image)
            return cls(name, None, lambda: data, size=len(data))
        from nshot.images.in_memory import encoded, takes

        return cls(name, None, partial(encoded, image), size=takes(image))

    @classmethod
    def file(cls, name: str, *, max_bytes: int = DEFAULT_LIMITS.max_bytes) -> Source:
        """A file, which is opened only if it is a regular one."""
        return cls(name, name, partial(_read_file, name, max_bytes))

    @classmethod
    def failed(cls, name: str, error: ImageError) -> Source:
        """A place in the list whose image is known to be out of reach."""
        return cls(name, None, partial(_fail, error))


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


def found_again(
    address: str, *, limits: Limits = DEFAULT_LIMITS, size: int | None = None, mark: int | None = None
) -> Source:
    """The image at an address that ``Source.address`` told; nothing is looked at before it is read.

    Args:
        address: a path or a URL.
        limits: the limits on one image.
        size: what its store said of its size.
        mark: what its store said of its version.
    """
    listing = _Listing(limits, None, None, None, False, Remarks())
    known = is_object_url(address) or hub.is_hub(address)
    return listing._object(address, size, mark) if known else listing._entry(address)


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
    listing = _Listing(limits, None, image_column, image_root, False, remarks or Remarks())
    return listing.rows(table, columns)


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
        if _is_url(spec):
            return iter([self._entry(spec)])
        try:
            mode = os.stat(spec).st_mode
        except (OSError, ValueError) as error:
            if folders.is_pattern(spec):
                nothing = f"{spec}: no such file, and nothing matches it as a pattern"
                found = folders.matching(spec, self.remarks.skipped)
                named = bool(Path(spec).suffix.strip(".*"))  # it names its files by their ending
                return self._found(found, nothing, all_of_it=named)
            raise SourceError(f"{spec}: {_reason(error)}") from error
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

        if stored.is_pattern(url) or stored.is_folder(url):
            found = stored.listed(url, self.remarks, strict=self.strict, after=after)
            first = next(found, None)
            if first is None and after is None:
                skipped = self.remarks.skipped
                raise SourceError(f"{url} holds no images{f': {skipped}' if skipped else ''}")
            return (
                self._object(name, meta.size, meta.mark)
                if kind is None
                else Source.failed(name, UndecodableImage(f"no image, by its name ({kind})"))
                for name, meta, kind in itertools.chain(filter(None, [first]), found)
            )
        if stored.is_archive(url):
            return self._members(url, stored.members(url, self.max_bytes))
        if tables.is_table(url):
            return self._stored_table(url)
        return iter([self._entry(url)])

    def _of_hub(self, url: str) -> Iterator[Source]:
        """The images in a folder of a data set on the Hub."""
        found = hub.listed(url, self.remarks, strict=self.strict)
        first = next(found, None)
        if first is None:
            raise SourceError(f"{url} holds no images: {self.remarks.skipped}")
        return (
            self._object(name, None, mark)
            if kind is None
            else Source.failed(name, UndecodableImage(f"no image, by its name ({kind})"))
            for name, mark, kind in itertools.chain([first], found)
        )

    def _stored_table(self, url: str) -> Iterator[Source]:
        """A table in a store: a name in it is a URL, or lies beside the table."""
        from nshot.images import stored, tables

        base = url.rpartition("/")[0] if self.image_root is None else as_url(self.image_root).rstrip("/")
        with stored.here(url) as path:
            table = tables.open_table(path, memory=self.limits.memory)
            image = table.image_column(self.image_column)
            kept = [name for name in table.columns if self.keep_columns and name and name != image]
            self.remarks.kept += [name for name in kept if name not in self.remarks.kept]
            for number, (cell, *cells) in enumerate(table.rows(image, *kept)):
                value = tables.cell_image(cell)
                if isinstance(value, bytes):
                    source = self._held(f"{url}[{number}]", value)
                elif not value or not value.strip():
                    source = Source.failed(f"{url}[{number}]", UnreadableImage("the row names no image"))
                else:
                    source = self._entry(value if _is_url(value) else f"{base}/{value.lstrip('/')}")
                texts = {name: _text(cell) for name, cell in zip(kept, cells, strict=True)}
                yield replace(source, beside=texts) if kept else source

    def _object(self, url: str, size: int | None, mark: int | None) -> Source:
        from nshot.images import stored

        read = partial(hub.read if hub.is_hub(url) else stored.read, url, self.max_bytes)
        return Source(url, None, read, size=None if size is None else min(size, self.max_bytes), mark=mark)

    def _file(self, spec: str) -> Iterator[Source]:
        from nshot.images import archives, tables

        path, lower = Path(spec), spec.lower()
        if lower.endswith(archives.ZIP):
            return self._members(spec, archives.zip_members(path, self.max_bytes))
        if lower.endswith(archives.TAR):
            return self._members(spec, archives.tar_members(path, self.max_bytes))
        if lower.endswith(tables.ENDINGS):
            return self._table(tables.open_table(path, memory=self.limits.memory))
        return iter([self._entry(spec)])

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
            self._entry(name)
            if error is None
            else Source.failed(name, UnreadableImage(f"the folder cannot be listed: {_reason(error)}"))
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

    def _entry(self, name: str) -> Source:
        """One file or URL of a list, whether it is there or not."""
        if not _is_url(name):
            return Source.file(name, max_bytes=self.max_bytes)
        if is_object_url(name) or hub.is_hub(name):
            return self._object(name, None, None)
        from nshot.images.fetch import fetch

        read = partial(fetch, name, max_bytes=self.max_bytes, allow_private=self.limits.allow_private)
        return Source(name, None, read, size=None)

    def _list(self, stream: BinaryIO) -> Iterator[Source]:
        more: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        first = b""
        while len(first) < _TELLING and b"\n" not in first and (block := more(_BLOCK)):
            first += block
        first = first.removeprefix(b"\xef\xbb\xbf")
        if is_image(first):
            data = gathered(stream, self.max_bytes + 1 - len(first), first)
            yield self._held("-", data)
            return
        for name in _separated(stream, first):
            if len(name) > _LONGEST_NAME:
                shown = os.fsdecode(name[:60]) + "..."
                yield Source.failed(shown, UnreadableImage(f"a name of more than {_LONGEST_NAME:,} bytes"))
            else:
                yield self._entry(os.fsdecode(name))

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

    def _table(self, table: Table) -> Iterator[Source]:
        image = table.image_column(self.image_column)
        kept = [name for name in table.columns if self.keep_columns and name and name != image]
        rows = self._to_the_end(table, self.rows(table, kept))
        if not kept:
            return (source for source, _ in rows)
        self.remarks.kept += [name for name in kept if name not in self.remarks.kept]
        return (
            replace(source, beside={name: _text(cell) for name, cell in zip(kept, cells, strict=True)})
            if cells
            else source
            for source, cells in rows
        )

    def _to_the_end(self, table: Table, rows: Iterator[tuple[Source, Row]]) -> Iterator[tuple[Source, Row]]:
        try:
            yield from rows
        except SourceError as error:  # damaged further on; the rows before have been listed
            yield Source.failed(str(table.path), UnreadableImage(str(error))), ()

    def rows(self, table: Table, columns: Sequence[str] = ()) -> Iterator[tuple[Source, Row]]:
        """Images and cells; that one image at least can be found is checked now."""
        from nshot.images import tables
        from nshot.images.resolve import Resolver

        image = table.image_column(self.image_column)
        resolver = Resolver(os.path.dirname(table.path), self.image_root, table.encoding)
        self._check(table, image, resolver)
        return self._rows(table, image, columns, resolver, tables.cell_image)

    def _rows(
        self,
        table: Table,
        image: str,
        columns: Sequence[str],
        resolver: Resolver,
        read: Callable[[Any], str | bytes | None],
    ) -> Iterator[tuple[Source, Row]]:
        for number, (cell, *cells) in enumerate(table.rows(image, *columns)):
            yield self._row(f"{table.path}[{number}]", read(cell), resolver), tuple(cells)
            if number == 0:
                self._remember(table, resolver)
        self._remember(table, resolver)

    def _remember(self, table: Table, resolver: Resolver) -> None:
        for note in table.notes:
            self.remarks.note(note)
        if resolver.notes:
            self.remarks.note(f"the names of images in {table.path}: {'; '.join(resolver.notes)}")

    def _row(self, name: str, value: str | bytes | None, resolver: Resolver) -> Source:
        if isinstance(value, bytes):
            return self._held(name, value)
        if not value or not value.strip():
            return Source.failed(name, UnreadableImage("the row names no image"))
        if _is_url(value):
            return self._entry(value)
        try:
            return self._entry(resolver.find(value) or resolver.written(value))
        except LookupError as error:
            return Source.failed(resolver.written(value), UnreadableImage(str(error)))

    def _check(self, table: Table, image: str, resolver: Resolver) -> None:
        """Say at once that no image of a table can be found, and why that may be."""
        from nshot.images import tables

        first = doubt = None
        for cell, *_ in itertools.islice(table.rows(image), _TRIED):
            value = tables.cell_image(cell)
            if isinstance(value, bytes) or (value and _is_url(value)):
                return
            if not value or not value.strip():
                continue
            first = first or value
            try:
                if resolver.find(value) is not None:
                    return
            except LookupError as error:
                doubt = doubt or str(error)
        if first is None:
            raise SourceError(f"{table.path}: column {image!r} names no image in any row")
        raise SourceError(
            f"{table.path}: none of the images in column {bearable(image)!r} can be found. The first is "
            f"'{bearable(first)}', looked for at {bearable(str(resolver.written(first.strip())))}: "
            f"{doubt or _cause(table, image, first)}"
        )

    def _held(self, name: str, data: bytes) -> Source:
        if len(data) > self.max_bytes:
            return Source.failed(name, ImageTooLarge(f"more than the limit of {self.max_bytes:,} bytes"))
        return Source.of(data, name=name)


def _kind_of_member(name: str, read: Callable[[], bytes]) -> str | None:
    if (kind := no_image(name)) is not None or is_image_name(name):
        return kind
    try:
        return "text" if is_plain_text(read()) else None
    except ImageError:
        return None  # it fails in its place


def _text(cell: Any) -> str:
    """A cell of any table, as text."""
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False, default=str)


def _cause(table: Table, image: str, first: str) -> str:
    """The likeliest reason why a table's images are not there, and what helps."""
    others = []
    row = next(table.rows(*table.columns), ())
    for name, cell in zip(table.columns, row, strict=False):
        if name != image and isinstance(cell, str) and (is_image_name(cell) or _is_url(cell)):
            others.append(name)
    if others and not is_image_name(first):
        return f"column {others[0]!r} looks like names of images, so try --image-column {others[0]!r}"
    if not is_image_name(first) and " " in first.strip():
        return "that is no name of a file: name the column of images with --image-column"
    ending = "" if is_image_name(first) else ", with their endings if there are several of one name,"
    return f"say which folder the names{ending} are relative to with --image-root FOLDER"


def _read_file(name: str, max_bytes: int) -> bytes:
    path = Path(name)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableImage("a folder; name it as a source of its own to read what it holds")
        if not stat.S_ISREG(mode):  # opening a pipe may wait for ever, and a device may act
            raise UnreadableImage("not a regular file")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise UnreadableImage(_reason(error)) from error
    if len(data) > max_bytes:
        raise ImageTooLarge(f"more than the limit of {max_bytes:,} bytes")
    return data


def _separated(stream: BinaryIO, block: bytes) -> Iterator[bytes]:
    """A list's entries: split at NUL where its beginning has one, else into lines without the blank ones.

    Of one longer than any name only the beginning is held.
    """
    more: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    separator, held = b"", b""
    while block:
        held += block
        if not separator:
            separator = (
                b"\0" if b"\0" in held else b"\n" if b"\n" in held or len(held) > _LONGEST_NAME else b""
            )
        if separator:
            *whole, held = held.split(separator)
            yield from filter(None, (_trimmed(name, separator) for name in whole))
        held = held[: _LONGEST_NAME + 1]
        block = more(_BLOCK)
    if name := _trimmed(held, separator):
        yield name


def _trimmed(name: bytes, separator: bytes) -> bytes:
    if separator == b"\0":
        return name
    return name.removesuffix(b"\r") if name.strip() else b""


def _is_url(name: str) -> bool:
    return name[:8].lower().startswith(("http://", "https://")) or is_object_url(name) or hub.is_hub(name)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return str(error)


def _fail(error: ImageError) -> NoReturn:
    raise error


def _emptied() -> bytes:
    raise UnreadableImage("it has been read already")
