"""The plan: every image or archive that was named, in shards, listed once and kept beside the vectors.

    shard   kind                  source   size   mark    labels   domain   error
    0       image                 a.jpg    7351
    0       failed                x/       0                                 UnreadableImage: the folder ...
    1       whole                 b.tar

A listing of millions is kept in pieces while it is made, so that one that is interrupted goes on.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from nshot.embedder import Embedder
from nshot.embeddings.parts import MANIFEST, is_plan, meta_of
from nshot.errors import NONSENSE, OutputError, RequestError, SourceError, brief
from nshot.extras import pyarrow
from nshot.images.footer import Chunk, row_groups
from nshot.images.sources import Source
from nshot.objects import Folder
from nshot.paths import spelled, unspelled
from nshot.types import Limits, Recipe

SHARD = 2000  # images in a shard
_PIECE = 50_000  # names in a piece of the listing, and in a row group of the plan


class Entry(NamedTuple):
    """A row of the plan.

    Attributes:
        kind: "image"; "whole": an archive, a table of images or a file of vectors, which is a shard of its
            own; "failed": a place in the list whose image is known to be out of reach.
        source: its name, as it is told with the vector.
        address: the path or URL where it is found.
        size: bytes, where that is known.
        mark: of an object in a store, what changes whenever it does.
        labels: its labels, where they are known.
        domain: where it comes from, if the data says so.
        error: why it is out of reach.
    """

    kind: str
    source: str
    address: str | None = None
    size: int | None = None
    mark: int | None = None
    labels: tuple[str, ...] | None = None
    domain: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, source: Source) -> Entry:
        """A listed image.

        Raises:
            SourceError: it cannot be found again by its name.
        """
        if (failure := source.failure) is not None:
            error = f"{type(failure).__name__}: {failure}"
            return cls("failed", source.name, labels=source.labels, domain=source.domain, error=error)
        address = source.address
        if address is None:
            raise SourceError(
                f"{source.name} lies inside of another file, and a plan holds images that are files of their "
                "own: write these to one file, -o vectors.parquet"
            )
        size = source.size if source.path is None else source.expected()
        return cls("image", source.name, address, size, source.mark, source.labels, source.domain)


class After(NamedTuple):
    """Where the listing of a source goes on.

    Attributes:
        names: how many of it are listed already.
        last: the last of them.
    """

    names: int
    last: str


Listing: TypeAlias = Callable[[After | None], Iterable[Entry]]
"""Lists a source, from the beginning or from a place on; raises ``Changed`` where that place is gone."""


class Changed(Exception):
    """A source does not hold what was listed of it, so that its listing cannot go on."""


@dataclass(frozen=True, slots=True)
class Maker:
    """What a plan pins of the model that makes its vectors, as it is loaded here or on another machine.

    Attributes:
        name: the model as it was asked for.
        recipe: everything that can change a vector.
        precision: what it computes in.
        device: where it runs.
        dimension: length of the vectors.
        limits: what a single image may take.
    """

    name: str
    recipe: Recipe
    precision: str
    device: str
    dimension: int
    limits: Limits

    @classmethod
    def of(cls, embedder: Embedder) -> Maker:
        """A model that is loaded here."""
        encoder = embedder.encoder
        return cls(
            embedder.name,
            embedder.recipe,
            encoder.precision,
            encoder.device,
            embedder.dimension,
            embedder.limits,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``manifest.parquet`` says.

    Attributes:
        folder: where it is, and where the parts go.
        meta: the request, the recipe, and the counts.
    """

    folder: Folder
    meta: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Digest of the plan: a part says which plan it belongs to."""
        return str(self.meta["plan"])

    @property
    def shards(self) -> int:
        """How many there are."""
        return int(self.meta["shards"])

    @property
    def images(self) -> int:
        """Names in the plan; archives may hold more."""
        return int(self.meta["images"])

    def told(self) -> str:
        """Such as "12,000 images in 6 shards", or "1 image and 2 files of images in 3 shards"."""
        files = int(self.meta.get("files", 0))
        names = [counted(self.images - files, "image")] if self.images > files else []
        names += [f"{counted(files, 'file')} of images"] if files else []
        return f"{' and '.join(names)} in {counted(self.shards, 'shard')}"

    @classmethod
    def open(cls, folder: Folder) -> Plan | None:
        """The plan of a folder; None where there is none yet.

        Raises:
            SourceError: it is damaged, or not one of nshot's.
        """
        pa = pyarrow()
        if not folder.exists(MANIFEST):
            return None
        try:
            with folder.open(MANIFEST) as file, pa.parquet.ParquetFile(file) as opened:
                meta, rows = meta_of(opened), opened.metadata.num_rows
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SourceError(f"{folder.path(MANIFEST)} is damaged: {damage(error)}") from error
        if not is_plan(meta, rows) or not isinstance(meta.get("request"), dict):
            raise SourceError(f"{folder.path(MANIFEST)} is no plan that nshot made: name another folder")
        return cls(folder, meta)

    def entries(self, numbers: Iterable[int]) -> Iterator[tuple[int, list[Entry]]]:
        """What belongs to each of these shards, which must be in rising order; a row group is held at a time.

        Raises:
            SourceError: the plan is damaged.
        """
        pa = pyarrow()
        try:
            with self.folder.open(MANIFEST) as file:
                spans = _spans(row_groups(file))
            with self.folder.open(MANIFEST) as file, pa.parquet.ParquetFile(file) as opened:
                groups: dict[int, dict[str, list[Any]]] = {}
                for number in numbers:
                    wanted = [group for group, (first, last) in enumerate(spans) if first <= number <= last]
                    groups = {group: rows for group, rows in groups.items() if group in wanted}
                    found: list[Entry] = []
                    for group in wanted:
                        if group not in groups:
                            groups[group] = opened.read_row_group(group).to_pydict()
                        rows = groups[group]
                        shards = np.array(rows["shard"])
                        first, last = np.searchsorted(shards, (number, number + 1))
                        found += (_entry(rows, row) for row in range(first, last))
                    yield number, found
        except (OSError, *NONSENSE, pa.ArrowException) as error:
            raise SourceError(f"{self.folder.path(MANIFEST)} is damaged: {damage(error)}") from error


def counted(count: int, noun: str) -> str:
    """Such as "1 shard" and "2,000 shards"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def tidy(plan: Plan) -> None:
    """Remove what a process left that was killed between writing the plan and putting its listing away."""
    plan.folder.clear(MANIFEST)
    pieces = _Pieces(plan.folder, _digest(plan.meta["request"]))
    while pieces.there():
        pieces.remove()


def check_same(plan: Plan, request: Mapping[str, Any]) -> None:
    """Refuse to go on with a plan that was made for something else.

    Raises:
        OutputError: what differs is named.
    """
    planned = plan.meta["request"]
    differing = [name for name, value in request.items() if planned.get(name) != value]
    if differing:
        told = "; ".join(f"{name}: {planned.get(name)!r}, now {request[name]!r}" for name in differing[:3])
        raise OutputError(
            f"{plan.folder.name} holds a plan for something else ({told}): repeat that request, or name "
            "another folder with -o"
        )


def make_plan(
    folder: Folder,
    meta: Mapping[str, Any],
    listings: Sequence[tuple[str, Listing]],
    *,
    told: Callable[[int], object] = lambda _: None,
) -> Plan:
    """List everything and write the plan; of several processes that do so at once, the first one's stands.

    Args:
        folder: where it goes.
        meta: the request, the recipe, ``shard_size``, and what else every part says.
        listings: of each source its name, and what lists it.
        told: called with the names so far.

    Raises:
        RequestError: nothing was named.
        SourceError: a source cannot be listed.
    """
    pieces = _Pieces(folder, _digest(meta["request"]))
    try:
        pieces.fill(listings, told)
        if not pieces.rows:
            raise RequestError(f"no image in {' '.join(name for name, _ in listings)}")
        with folder.drafting(MANIFEST, over=False) as draft:
            _compose(draft, pieces, meta)
    except _PutAway as error:
        pieces.remove()  # those that were written since
        if (plan := Plan.open(folder)) is not None:
            return plan
        raise SourceError(f"the listing in {folder.name} is gone: begin again") from error
    plan = Plan.open(folder)
    assert plan is not None
    pieces.remove()
    return plan


class _PutAway(Exception):
    """Another process has made the plan meanwhile, and put the pieces of the listing away.

    It is no OSError, which would be told as one of the file that is being written.
    """


class _At(NamedTuple):
    """How far the listing is behind a piece.

    Attributes:
        source: the number of the source that comes next, or is under way.
        names: how many of it are listed.
        last: the last of them.
    """

    source: int = 0
    names: int = 0
    last: str | None = None


class _Pieces:
    """The listing as it is made: pieces of names, each with what comes next.

    Of two processes that write the same piece the first one's stands, and the other goes on behind it: what
    they list may differ where images come and go meanwhile.
    """

    def __init__(self, folder: Folder, request: str) -> None:
        self._folder = folder
        self._request = request
        self.count = self.rows = 0

    def _name(self, number: int) -> str:
        return f".listing-{self._request[:12]}-{number:05}.parquet"

    def fill(self, listings: Sequence[tuple[str, Listing]], told: Callable[[int], object]) -> None:
        """List, after what an earlier process listed; from the beginning where that is not there any more."""
        at: _At | None = _At()
        while at is not None:
            at = self._standing(at)
            told(self.rows)
            try:
                at = self._go_on(listings, at, told)
            except Changed:
                self.there()  # also pieces that another process has added
                self.remove()
                self.rows, at = 0, _At()

    def _standing(self, at: _At) -> _At:
        """Take the pieces that are there."""
        while self._folder.exists(self._name(self.count)):
            try:
                with self._opened(self.count) as file:
                    at = self._behind(file)
                    self.rows += file.metadata.num_rows
            except (OSError, *NONSENSE, pyarrow().ArrowException) as error:
                raise SourceError(
                    f"{self._folder.path(self._name(self.count))} is damaged ({brief(error)}): remove it, "
                    "and the listing begins anew"
                ) from error
            self.count += 1
        return at

    @staticmethod
    def _behind(file: Any) -> _At:
        source, names, last = meta_of(file)["after"]
        return _At(source, names, last)

    def _go_on(
        self, listings: Sequence[tuple[str, Listing]], at: _At, told: Callable[[int], object]
    ) -> _At | None:
        """List from a place on. None: to the end; a place: another process has written what comes next."""
        while at.source < len(listings):
            entries = iter(listings[at.source][1](None if at.last is None else After(at.names, at.last)))
            while True:
                piece = list(islice(entries, _PIECE))
                ends = len(piece) < _PIECE
                at = _At(at.source + 1) if ends else _At(at.source, at.names + len(piece), piece[-1].source)
                if piece:
                    if not self._write(piece, at):
                        return at
                    told(self.rows)
                if ends:
                    break
        return None

    def _write(self, piece: list[Entry], at: _At) -> bool:
        """Write the next piece; whether it stands, and not another process's."""
        pa = pyarrow()
        schema = _schema(pa, {"nshot": json.dumps({"after": at})}, shard=False)
        with self._folder.drafting(self._name(self.count), over=False) as draft:
            pa.parquet.write_table(_table(pa, piece, schema), draft, compression="zstd")
        with self._opened(self.count) as file:
            if self._behind(file) != at:
                return False
            self.rows += file.metadata.num_rows
        self.count += 1
        return True

    def _opened(self, number: int) -> Any:
        try:
            with self._folder.open(self._name(number)) as file:
                content = file.read()
        except FileNotFoundError as error:
            raise _PutAway from error
        return pyarrow().parquet.ParquetFile(io.BytesIO(content))

    def read(self) -> Iterator[Entry]:
        """All that was listed."""
        for number in range(self.count):
            with self._opened(number) as file:
                rows = file.read().to_pydict()
            yield from (_entry(rows, row) for row in range(len(rows["kind"])))

    def there(self) -> bool:
        """Whether there are pieces, which are counted."""
        while self._folder.exists(self._name(self.count)):
            self.count += 1
        return self.count > 0

    def remove(self) -> None:
        """The plan is there: the pieces go, the first one last."""
        for number in reversed(range(self.count)):
            self._folder.remove(self._name(number))
        self.count = 0


def _digest(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _compose(draft: Any, pieces: _Pieces, meta: Mapping[str, Any]) -> None:
    """The plan out of the pieces."""
    pa = pyarrow()
    schema = _schema(pa, None, shard=True)
    told = {name: value for name, value in meta.items() if name != "cwd"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    shard, filled, images, files = -1, meta["shard_size"], 0, 0
    waiting: list[Entry] = []
    numbers: list[int] = []
    with pa.parquet.ParquetWriter(draft, schema, compression="zstd", write_statistics=["shard"]) as writer:

        def write() -> None:
            digest.update(json.dumps([numbers, waiting]).encode())
            writer.write_table(_table(pa, waiting, schema, numbers))
            waiting.clear()
            numbers.clear()

        for entry in pieces.read():
            if entry.kind == "whole" or filled >= meta["shard_size"]:
                shard, filled = shard + 1, 0
            waiting.append(entry)
            numbers.append(shard)
            images += 1
            files += entry.kind == "whole"
            filled = meta["shard_size"] if entry.kind == "whole" else filled + 1
            if len(waiting) == _PIECE:
                write()
        if waiting:
            write()
        said = {"nshot": 1, **meta, "plan": digest.hexdigest(), "shards": shard + 1, "images": images}
        said["files"] = files
        writer.add_key_value_metadata({"nshot": json.dumps(said)})


def _schema(pa: Any, metadata: Mapping[str, str] | None, *, shard: bool) -> Any:
    text, whole = pa.string(), pa.int64()
    fields = [("shard", pa.int32())] if shard else []
    fields += [("kind", text), ("source", text), ("address", text), ("size", whole), ("mark", whole)]
    fields += [("labels", pa.list_(text)), ("domain", text), ("error", text)]
    return pa.schema(fields, metadata=metadata)


def _table(pa: Any, entries: Sequence[Entry], schema: Any, numbers: Sequence[int] = ()) -> Any:
    columns = [pa.array(numbers, pa.int32())] if numbers else []
    columns.append(pa.array([entry.kind for entry in entries], pa.string()))
    columns.append(pa.array([spelled(entry.source) for entry in entries], pa.string()))
    # mostly the same as the name: then it is not repeated
    addresses = [None if entry.address == entry.source else entry.address for entry in entries]
    columns.append(pa.array([each and spelled(each) for each in addresses], pa.string()))
    columns.append(pa.array([entry.size for entry in entries], pa.int64()))
    columns.append(pa.array([entry.mark for entry in entries], pa.int64()))
    columns.append(pa.array([entry.labels for entry in entries], pa.list_(pa.string())))
    columns.append(pa.array([entry.domain for entry in entries], pa.string()))
    errors = [None if entry.error is None else spelled(entry.error) for entry in entries]
    columns.append(pa.array(errors, pa.string()))
    return pa.Table.from_arrays(columns, schema=schema)


def _entry(rows: Mapping[str, Sequence[Any]], row: int) -> Entry:
    labels, address, error = rows["labels"][row], rows["address"][row], rows["error"][row]
    texts = (rows["source"][row], rows["kind"][row], address, error, rows["domain"][row], *(labels or ()))
    if not all(isinstance(each, str) for each in texts[:2]) or not all(_is_text(each) for each in texts):
        raise TypeError(f"row {row} holds what no plan does")
    source = unspelled(rows["source"][row])
    return Entry(
        rows["kind"][row],
        source,
        source if address is None else unspelled(address),
        rows["size"][row],
        rows["mark"][row],
        None if labels is None else tuple(labels),
        rows["domain"][row],
        None if error is None else unspelled(error),
    )


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _spans(groups: Iterable[tuple[int, Sequence[Chunk]]]) -> list[tuple[int, int]]:
    """The first and the last shard of each row group, which its first column tells."""
    spans = []
    for _, (shard, *_) in groups:
        if shard.least is None or shard.most is None:
            raise ValueError("its shards are not told")
        spans.append((int.from_bytes(shard.least, "little"), int.from_bytes(shard.most, "little")))
    return spans


def damage(error: BaseException) -> str:
    """What is wrong with a Parquet file, in a few words."""
    said = str(error)
    return "cut off, or not Parquet" if "magic bytes" in said or "Parquet file size" in said else brief(error)


def absolute(path: str, folder: str) -> str:
    """A path as it was typed in a folder, for a process that works in another."""
    return path if "://" in path else os.path.join(folder, path)  # noqa: PTH118
