"""Shards of a plan -> parts: which are there, making the others, and looking whether they are whole."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from nshot.datasets.labelled import Columns, LabelledSet, open_labelled
from nshot.distributed.plan import Entry, Maker, Plan, absolute, damage
from nshot.embedder import Embedder
from nshot.embeddings.part_writer import PartWriter, add_to_digest
from nshot.embeddings.parts import Parts, meta_of, part_name
from nshot.errors import NONSENSE, RequestError, SourceError
from nshot.extras import pyarrow
from nshot.images.sources import Source, found_again
from nshot.paths import spelled
from nshot.types import Embedded, Failure

_LOOKS = 16  # at parts, at once


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a shard.

    Attributes:
        shard: its number.
        rows: images, the failed ones among them.
        failed: images without a vector.
        kinds: failures by kind.
        broken: why an archive or a table could not be listed at all; None as a rule.
        made: whether it was made now, and not there already.
        seconds: that it took.
    """

    shard: int
    rows: int
    failed: int
    kinds: dict[str, int] = field(default_factory=dict)
    broken: str | None = None
    made: bool = True
    seconds: float = 0.0

    @classmethod
    def of(cls, said: dict[str, Any], *, made: bool, seconds: float = 0.0) -> Summary:
        """The summary that a part's own metadata gives."""
        return cls(
            said["shard"],
            said["rows"],
            said["failed"],
            said.get("failures", {}),
            said.get("broken"),
            made,
            seconds,
        )


@dataclass(slots=True)
class Total:
    """Summaries added up."""

    shards: int = 0
    rows: int = 0
    failed: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    made: int = 0

    def add(self, summary: Summary) -> None:
        """One more shard."""
        self.shards += 1
        self.rows += summary.rows
        self.failed += summary.failed
        self.kinds.update(summary.kinds)
        self.made += summary.made
        if summary.broken is not None:
            self.broken.append(f"{part_name(summary.shard)}: {summary.broken}")


def shards_of(text: str, shards: int) -> list[int]:
    """The shards of one of several jobs: "3/16" is the third of sixteen; 0/16 is the last as 16/16 is.

    Raises:
        RequestError: it is no such thing.
    """
    own, slash, jobs = text.partition("/")
    if (
        not slash
        or not own.isdecimal()
        or not jobs.isdecimal()
        or not 0 <= int(own) <= int(jobs)
        or jobs == "0"
    ):
        raise RequestError(f"--shard is I/N, such as 3/16 for the third of sixteen jobs, not {text!r}")
    return [number for number in range(shards) if number % int(jobs) == int(own) % int(jobs)]


def done(plan: Plan, number: int) -> Summary | None:
    """What a part says that is there, whole, and of this plan; else None.

    A part comes to its name only when it is finished: its end, which is written last, tells that it is whole.
    """
    pa = pyarrow()
    try:
        with plan.folder.open(part_name(number)) as file, pa.parquet.ParquetFile(file) as opened:
            said = meta_of(opened)
            rows = opened.metadata.num_rows
        if (said.get("plan"), said.get("shard"), said.get("rows")) != (plan.id, number, rows):
            return None
        return Summary.of(said, made=False)
    except (OSError, *NONSENSE, pa.ArrowException):
        return None


def looked_at(plan: Plan, numbers: Iterable[int]) -> Iterator[tuple[int, Summary | None]]:
    """``done`` for each of these shards, several at once: in a store each look takes a while.

    Raises:
        SourceError: the folder cannot be listed.
    """
    there = plan.folder.files()
    with ThreadPoolExecutor(_LOOKS, thread_name_prefix="nshot-look") as pool:

        def look(number: int) -> tuple[int, Summary | None]:
            return number, done(plan, number) if part_name(number) in there else None

        for many in _by(numbers, 64 * _LOOKS):
            yield from pool.map(look, many)


def _by(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    rest = iter(numbers)
    while many := list(islice(rest, size)):
        yield many


class Work:
    """Makes shards of a plan with one model.

    Args:
        plan: what there is to do.
        embedder: what makes vectors; its recipe must be the plan's.
        again: make shards that hold failures once more.

    Raises:
        RequestError: the model is not the plan's, or works in another precision here.
    """

    def __init__(self, plan: Plan, embedder: Embedder, *, again: bool = False) -> None:
        check_recipe(plan, Maker.of(embedder))
        self.plan = plan
        self.embedder = embedder
        self._again = again

    def run(
        self, numbers: Iterable[int], *, told: Callable[[Embedded | Failure], object] = lambda _: None
    ) -> Iterator[Summary]:
        """Make these shards, in rising order; what is there and whole is skipped.

        All of them go through one stream, so that no core waits at the end of a shard.

        Args:
            numbers: which.
            told: called with every image, when it is done.

        Raises:
            OutputError: a part cannot be written.
            SourceError: the plan is damaged.
        """
        skipped: list[Summary] = []
        missing = self._missing(numbers, skipped)
        stream = iter(self.embedder.embed_images(self._items(missing)))
        while True:
            begun = time.monotonic()
            first = next(stream, None)
            while skipped:
                yield skipped.pop(0)
            if first is None:
                return
            assert isinstance(first, _Mark)
            said = self._write(first.shard, stream, told)
            yield Summary.of(said, made=True, seconds=time.monotonic() - begun)

    def _missing(self, numbers: Iterable[int], skipped: list[Summary]) -> Iterator[int]:
        for number in numbers:
            summary = done(self.plan, number)
            if summary is None or (self._again and (summary.failed or summary.broken)):
                yield number
            else:
                skipped.append(summary)

    def _items(self, numbers: Iterable[int]) -> Iterator[Source | Embedded | Failure]:
        """The images of the shards, with a mark before and behind each shard's."""
        for number, entries in self.plan.entries(numbers):
            yield _Mark(number)
            broken = None
            if len(entries) == 1 and entries[0].kind == "whole":
                try:
                    yield from self._whole(entries[0])
                except (SourceError, RequestError) as error:
                    broken = str(error)
                    yield Failure(entries[0].source, "UnreadableImage", broken)
            else:
                yield from map(self._image, entries)
            yield _Mark(number, ends=True, broken=broken)

    def _image(self, entry: Entry) -> Source | Failure:
        if entry.kind == "failed":
            kind, _, message = (entry.error or "").partition(": ")
            return Failure(entry.source, kind, message, entry.labels, entry.domain)
        assert entry.address is not None
        address = absolute(entry.address, self.plan.meta["cwd"])
        source = found_again(address, limits=self.embedder.limits)
        return replace(source, name=entry.source, labels=entry.labels, domain=entry.domain)

    def _whole(self, entry: Entry) -> Iterator[Source | Embedded | Failure]:
        request, cwd = self.plan.meta["request"], self.plan.meta["cwd"]
        assert entry.address is not None
        address, root = absolute(entry.address, cwd), request["image_root"]
        root = None if root is None else absolute(root, cwd)
        listed: Iterable[Source | Embedded | Failure]
        if request["labelled"]:
            listed = labelled(address, request | {"image_root": root})
        else:
            listed = self.embedder.sources(
                [address], image_column=request["image_column"], image_root=root, strict=request["strict"]
            )
        for item in listed:
            name = item.name if isinstance(item, Source) else item.source
            own = f"{entry.source}{name.removeprefix(address)}" if name.startswith(address) else name
            yield replace(item, name=own) if isinstance(item, Source) else replace(item, source=own)

    def _write(
        self,
        number: int,
        stream: Iterator[Embedded | Failure],
        told: Callable[[Embedded | Failure], object],
    ) -> dict[str, Any]:
        plan = self.plan
        meta: dict[str, Any] = {name: plan.meta[name] for name in _CARRIED if name in plan.meta}
        meta |= {"nshot": 1, "plan": plan.id, "shard": number}
        with ExitStack() as until_done:
            draft = until_done.enter_context(plan.folder.drafting(part_name(number)))
            writer = PartWriter(
                draft,
                dimension=self.embedder.dimension,
                width=plan.meta["request"]["width"],
                labelled=plan.meta["request"]["labelled"],
                meta=meta,
            )
            try:
                for item in stream:
                    if isinstance(item, _Mark):
                        if item.broken is not None:
                            writer.say("broken", item.broken)
                        return writer.finish()
                    writer.write(item)
                    told(item)
            except BaseException:
                writer.abandon()
                raise
        raise AssertionError("a shard without an end")


def labelled(source: str, request: Mapping[str, Any]) -> LabelledSet:
    """Labelled images, as a plan's request says that they are read.

    Raises:
        SourceError: nothing there, or no labels to be found.
        LabelError: labels that are numbers, codes, or the parts of a data set.
    """
    return open_labelled(
        source,
        columns=Columns(request["image_column"]),
        image_root=request["image_root"],
        strict=request["strict"],
    )


_CARRIED = ("model", "space", "encoder", "preprocessing", "precision", "dimension", "classes", "multi")


class _Mark(Failure):
    """Where a shard begins or ends, on its way through the stream of images."""

    __slots__ = ("broken", "ends", "shard")

    def __init__(self, shard: int, *, ends: bool = False, broken: str | None = None) -> None:
        super().__init__(part_name(shard), "Mark", "")
        for name, value in (("shard", shard), ("ends", ends), ("broken", broken)):
            object.__setattr__(self, name, value)

    shard: int
    ends: bool
    broken: str | None


def check_recipe(plan: Plan, maker: Maker) -> None:
    """Refuse a model that would not make the plan's vectors.

    Raises:
        RequestError: it says why.
    """
    recipe, meta = maker.recipe, plan.meta
    if recipe.space != meta["space"]:
        raise RequestError(
            f"{plan.folder.name} was planned with {meta['model']} and {maker.name} has other weights: "
            "vectors of two models cannot be compared"
        )
    if recipe.fingerprint != meta["encoder"]:
        raise RequestError(
            f"{plan.folder.name} was planned in {meta['precision']} on {meta['device']}, and here the model "
            f"works in {maker.precision} on {maker.device}, which gives other vectors: plan with "
            "--precision f32 for machines of different kinds, and use the same version of nshot on all"
        )
    if recipe.preprocessing != meta["preprocessing"]:
        raise RequestError(
            f"{plan.folder.name} was planned with other preprocessing: give the same --decode and --fit, and "
            "use the same version of nshot on all machines"
        )


@dataclass(frozen=True, slots=True)
class Status:
    """How far a folder is.

    Attributes:
        plan: the plan.
        total: of the shards that are there.
        missing: the numbers of those that are not.
    """

    plan: Plan
    total: Total
    missing: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether every shard is there."""
        return not self.missing


def status(plan: Plan, *, told: Callable[[int], object] = lambda _: None) -> Status:
    """Which shards are there, by what they say of themselves.

    Args:
        plan: the plan.
        told: called with each shard's number, when it has been looked at.

    Raises:
        SourceError: the folder cannot be listed.
    """
    total, missing = Total(), []
    for number, summary in looked_at(plan, range(plan.shards)):
        if summary is None:
            missing.append(number)
        else:
            total.add(summary)
        told(number)
    return Status(plan, total, tuple(missing))


def failures(plan: Plan) -> Iterator[Failure]:
    """The images without a vector, of the shards that are there.

    Raises:
        SourceError: the folder cannot be listed, or a part cannot be read.
    """
    parts = None
    for number, summary in looked_at(plan, range(plan.shards)):
        if summary is not None and summary.failed:
            parts = parts or Parts(plan.folder.name)
            yield from parts.failures(number)


def verify(plan: Plan, numbers: Sequence[int] | None = None) -> Iterator[tuple[int, str | None]]:
    """Read every part to its end: its digest, and that it holds the plan's images, each once, in order.

    Yields:
        Each shard's number, and what is wrong with it or None.

    Raises:
        SourceError: the plan is damaged.
    """
    wanted = range(plan.shards) if numbers is None else numbers
    for number, entries in plan.entries(wanted):
        yield number, _fault(plan, number, entries)


def _fault(plan: Plan, number: int, entries: Sequence[Entry]) -> str | None:
    pa = pyarrow()
    name = part_name(number)
    if not plan.folder.exists(name):
        return "it is missing"
    digest, names = hashlib.sha256(), list[str]()
    try:
        with plan.folder.open(name) as file, pa.parquet.ParquetFile(file) as opened:
            said = meta_of(opened)
            for group in range(opened.num_row_groups):
                table = opened.read_row_group(group)
                add_to_digest(digest, table)
                names += table.column("source").to_pylist()
    except (OSError, *NONSENSE, pa.ArrowException) as error:
        return f"it is damaged: {damage(error)}"
    if (said.get("plan"), said.get("shard")) != (plan.id, number):
        return "it belongs to another plan"
    if said.get("digest") != digest.hexdigest() or said.get("rows") != len(names):
        return "its content is not what was written"
    if not (len(entries) == 1 and entries[0].kind == "whole") and names != [
        spelled(entry.source) for entry in entries
    ]:
        return "it does not hold the images of the plan, each once"
    return None


def leftover(plan: Plan) -> list[str]:
    """Files in the folder that belong to no plan: parts beyond the last shard."""
    own = {part_name(number) for number in range(plan.shards)}
    return [name for name in plan.folder.files() if name.startswith("part-") and name not in own]
