"""Images into a folder of parts: the plan is made or gone on with, then its shards are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, BinaryIO

from nshot.classifier.classifier import Classifier
from nshot.datasets.labelled import LabelledSet
from nshot.distributed.asking import Answered
from nshot.distributed.plan import (
    SHARD,
    After,
    Changed,
    Entry,
    Maker,
    Plan,
    check_same,
    make_plan,
    tidy,
)
from nshot.distributed.shards import Summary, Work, check_recipe, labelled, looked_at, shards_of
from nshot.embedder import Embedder
from nshot.embeddings import is_vector_file
from nshot.embeddings.part_writer import Width
from nshot.embeddings.parts import Parts
from nshot.errors import RequestError, SourceError
from nshot.images import archives
from nshot.images.remarks import Remarks
from nshot.images.sources import Source, expand, found_after, holds_many
from nshot.images.tables import is_table
from nshot.objects import Folder, Meta, is_object_url, open_folder
from nshot.types import Embedded, Failure, Limits

_TRIED = 100  # rows of a table, by which it is told whether they hold images or name them


@dataclass(frozen=True, slots=True)
class Request:
    """What goes into a folder of parts.

    Attributes:
        sources: files, folders, globs, archives, tables, URLs, object stores, as ``Embedder.sources`` takes
            them.
        labelled: whether they are labelled images, whose labels go along.
        image_column: the column of tables that holds the images.
        image_root: the folder that names in tables are relative to.
        strict: list what plainly is no image as well, as failures.
        width: what vectors are kept as.
        shard_size: images in a shard, about.
    """

    sources: Sequence[str]
    labelled: bool = False
    image_column: str | None = None
    image_root: str | os.PathLike[str] | None = None
    strict: bool = False
    width: Width = "float32"
    shard_size: int = SHARD

    def told(self) -> dict[str, Any]:
        """As the plan holds it."""
        root = None if self.image_root is None else os.fspath(self.image_root)
        said = {"sources": list(self.sources), "labelled": self.labelled, "image_column": self.image_column}
        return said | {
            "image_root": root,
            "strict": self.strict,
            "width": self.width,
            "shard_size": self.shard_size,
        }


def planned(
    folder: str | os.PathLike[str],
    request: Request,
    model: Embedder | Maker,
    *,
    remarks: Remarks | None = None,
    stdin: BinaryIO | None = None,
    told: Callable[[int], object] = lambda _: None,
) -> Plan:
    """The plan of a folder: the one that is there, or a new one.

    Args:
        folder: a folder, or the URL of one in an object store; made if it is not there.
        request: what goes into it.
        model: what makes the vectors, here or on the nodes of a cluster (``maker_there``): the plan pins its
            recipe, precision and device.
        remarks: where it is noted what was skipped.
        stdin: where ``-`` reads its list.
        told: called with the names listed so far.

    Raises:
        OutputError: the folder holds a plan for something else, or cannot be written.
        SourceError: a source cannot be listed.
        RequestError: nothing was named, the folder is a source itself, or the model is not the plan's.
        MissingExtra: pyarrow, or obstore for an object store, is not installed.
    """
    place = open_folder(folder, make=True)
    if request.shard_size < 1:
        raise RequestError(f"a shard needs at least 1 image, not {request.shard_size}")
    said = request.told()
    maker = model if isinstance(model, Maker) else Maker.of(model)
    if (plan := Plan.open(place)) is not None:
        check_same(plan, said)
        check_recipe(plan, maker)
        tidy(plan)
        return plan
    _check_empty(place)
    _check_apart(place, request.sources)
    recipe, classes, multi = maker.recipe, None, False
    remarks = remarks or Remarks()
    if request.labelled:
        sets = [labelled(source, said) for source in request.sources]
        listings = [(each.name, partial(_of_labelled, each, remarks)) for each in sets]
        named = [each.classes for each in sets]
        classes = list(dict.fromkeys(label for each in named for label in each or ()))
        multi = any(each.multi for each in sets)
    else:
        listings = [
            (each, partial(_listed, each, request, maker.limits, remarks, stdin)) for each in request.sources
        ]
    meta = {
        "request": said,
        "shard_size": request.shard_size,
        "model": maker.name,
        "space": recipe.space,
        "encoder": recipe.fingerprint,
        "preprocessing": recipe.preprocessing,
        "precision": maker.precision,
        "device": maker.device,
        "dimension": maker.dimension,
        "classes": classes,
        "multi": multi,
        "cwd": os.getcwd(),  # noqa: PTH109
    }
    return make_plan(place, meta, listings, told=told)


def make_shards(
    plan: Plan,
    embedder: Embedder,
    *,
    shard: str | None = None,
    again: bool = False,
    told: Callable[[Embedded | Failure], object] = lambda _: None,
) -> Iterator[Summary]:
    """Make the shards of a plan that are not there yet, in this process.

    Args:
        plan: from ``planned``.
        embedder: the plan's model.
        shard: "I/N": only every Nth shard, those of the Ith of N jobs.
        again: make shards that hold failures once more.
        told: called with every image, when it is done.

    Yields:
        What became of each shard, in rising order, those that were there among them.

    Raises:
        RequestError: ``shard`` says nothing, or the model is not the plan's.
        OutputError: a part cannot be written.
    """
    numbers: Sequence[int] = range(plan.shards)
    if shard is not None:
        numbers = shards_of(shard, plan.shards)
    return Work(plan, embedder, again=again).run(numbers, told=told)


def maker_there(model: Mapping[str, Any], address: str) -> Maker:
    """What a model is on the nodes of a Ray cluster: on those with a GPU, where there are some and it may be.

    Args:
        model: arguments of ``nshot.load``, for each node.
        address: see ``nshot.distributed.ray.start``.

    Raises:
        RequestError: no cluster, no node with the GPU that was asked for, or what a node finds wrong.
        MissingExtra: Ray is not installed.
    """
    from nshot.distributed import ray

    ray.start(address)
    device = model.get("device", "auto")
    gpu = device in ("auto", "cuda") and ray.gpus() > 0
    if device == "cuda" and not gpu:
        raise RequestError(f"no node of the Ray cluster at {address} has a GPU: leave out --device cuda")
    (maker,) = ray.run(ray.Job(ray.telling, {"model": dict(model)}, gpu=gpu), [0])
    assert isinstance(maker, Maker)
    return maker


def share_out(
    plan: Plan, model: Mapping[str, Any], address: str, *, again: bool = False
) -> Iterator[Summary]:
    """Make the shards of a plan that are not there yet, on the nodes of a Ray cluster.

    Vectors that were planned on a GPU ("cuda") are made by a worker per GPU, others by one per node.

    Args:
        plan: from ``planned``; in a folder that all nodes see.
        model: arguments of ``nshot.load``, for each node.
        address: see ``nshot.distributed.ray.start``.
        again: make shards that hold failures once more.

    Yields:
        What became of each shard: those that were there first, then the others as they are done.

    Raises:
        RequestError: no cluster, or what a node finds wrong with the request.
        MissingExtra: Ray is not installed.
    """
    from nshot.distributed import ray

    ray.start(address)
    try:
        missing = []
        for number, summary in looked_at(plan, range(plan.shards)):
            if summary is None or (again and (summary.failed or summary.broken)):
                missing.append(number)
            else:
                yield summary
        folder = plan.folder.name
        folder = folder if "://" in folder else os.path.abspath(folder)  # noqa: PTH100
        model = dict(model)
        for name in ("device", "precision"):  # what was planned, and not the best of each node
            if model.get(name, "auto") == "auto":
                model[name] = plan.meta[name]
        arguments = {"folder": folder, "model": model, "again": again}
        yield from ray.run(ray.Job(ray.embedding, arguments, gpu=model["device"] == "cuda"), missing)
    finally:
        ray.stop()


def share_out_asking(
    vectors: str, output: str, classifier: Classifier, address: str, *, top_k: int = 5
) -> Iterator[Answered]:
    """Answer the parts of a folder of vectors, on the nodes of a Ray cluster.

    Args:
        vectors: the folder of vectors; all nodes see it.
        output: the folder of answers; all nodes see it.
        classifier: without a decision.
        address: see ``nshot.distributed.ray.start``.
        top_k: how many labels to tell of each image, at most.

    Raises:
        RequestError: no cluster, or what a node finds wrong with the request.
        MissingExtra: Ray is not installed.
    """
    from nshot.distributed import ray

    numbers = Parts(vectors).numbers()
    ray.start(address)
    try:
        arrays = {name: getattr(classifier, name) for name in ("matrix", "scale", "bias")}
        places = [name if "://" in name else os.path.abspath(name) for name in (vectors, output)]  # noqa: PTH100
        arguments = {"vectors": places[0], "output": places[1], "top_k": top_k}
        arguments |= {"classifier": (arrays, classifier.told())}
        yield from ray.run(ray.Job(ray.asking, arguments, at_once=16), numbers)
    finally:
        ray.stop()


def _check_empty(folder: Folder) -> None:
    """A folder without a plan must not hold what reads like its parts."""
    held = [name for name in folder.files() if name.startswith("part-")]
    if held:
        raise RequestError(
            f"{folder.name} holds {held[0]} and no manifest.parquet: name another folder with -o, or "
            "remove what is in it"
        )


def _check_apart(folder: Folder, sources: Sequence[str]) -> None:
    """Images and their vectors in one folder would be taken for vectors alone the next time."""
    for source in sources:
        if not is_table(source) and folder.is_at(source if not _magic(source) else source.rpartition("/")[0]):
            raise RequestError(f"{folder.name} holds the images: name another folder for the vectors with -o")


def _listed(
    source: str,
    request: Request,
    limits: Limits,
    remarks: Remarks,
    stdin: BinaryIO | None,
    after: After | None,
) -> Iterator[Entry]:
    """The entries of one source; those behind what is listed already."""
    if is_vector_file(source):
        raise RequestError(f"{source} holds vectors already: a folder of parts is made of images")
    if holds_many(source) and _magic(source):
        return _files_of(source, after)
    if source.lower().endswith((*archives.ZIP, *archives.TAR)):
        return iter([_file(source)])
    if after is not None and is_object_url(source) and not is_table(source):
        # the store begins its listing there, where a folder on disk is walked again
        found = found_after(source, after.last, limits=limits, strict=request.strict, remarks=remarks)
        return map(Entry.of, found)
    listing = partial(
        expand,
        [source],
        limits=limits,
        stdin=stdin,
        image_column=request.image_column,
        image_root=request.image_root,
        strict=request.strict,
    )
    if is_table(source):
        try:
            first = islice(listing(), _TRIED)
            if any(item.address is None and item.failure is None for item in first):
                return iter([_file(source)])
        except SourceError:
            if len(request.sources) > 1 and os.path.isfile(source):  # noqa: PTH113
                return iter([_file(source)])  # a shard that fails, and stops no other
            raise
    return _after(map(Entry.of, listing(remarks=remarks)), after)


def _after(entries: Iterable[Entry], after: After | None) -> Iterator[Entry]:
    """The entries behind those that are listed already; all, without any.

    Raises:
        Changed: they are others now, as images came or went.
    """
    entries = iter(entries)
    if after is not None:
        last = next(islice(entries, after.names - 1, None), None)
        if last is None or last.source != after.last:
            raise Changed
    return entries


def _files_of(pattern: str, after: After | None) -> Iterator[Entry]:
    """The archives or tables that a pattern names, by name, each a shard.

    Raises:
        SourceError: none.
    """
    from nshot.images import folders, stored

    if is_object_url(pattern):
        last = None if after is None else after.last
        listed = stored.listed(pattern, Remarks(), after=last, archives_too=True)
        first = next(listed, None)
        if first is None and after is None:
            raise SourceError(f"{pattern}: there is no such object")
        return (
            _file(name) if isinstance(found, Meta) else Entry.of(Source.failed(name, found))
            for name, found in chain(filter(None, [first]), listed)
        )
    matched = [name for name, error in folders.matching(pattern) if error is None]
    if not matched:
        raise SourceError(f"{pattern}: no such file, and nothing matches it as a pattern")
    return _after(map(_file, matched), after)


def _file(name: str) -> Entry:
    """An archive, a table of images or a file of vectors, which is a shard of its own."""
    return Entry("whole", name, name)


def _magic(source: str) -> bool:
    from nshot.images import folders, stored

    if is_object_url(source):
        return stored.is_pattern(source)
    return "://" not in source and folders.is_pattern(source)


def _of_labelled(found: LabelledSet, remarks: Remarks, after: After | None) -> Iterator[Entry]:
    """The entries of labelled images; where several lie in one file, the files."""

    def entries() -> Iterator[Entry]:
        if (shards := found.shards or _of_bytes(found)) is not None:
            yield from map(_file, shards)
        else:
            yield from map(Entry.of, found)
        for line in (*found.remarks.news(), *found.remarks.counts()):
            remarks.note(line)

    return _after(entries(), after)


def _of_bytes(found: LabelledSet) -> tuple[str] | None:
    """The table whose rows hold the images themselves; None where they name them, and of all else."""
    if not is_table(found.name):
        return None
    first = islice(found, _TRIED)
    return (found.name,) if any(each.address is None and each.failure is None for each in first) else None
