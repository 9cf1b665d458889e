"""Large folders of vectors asked into one file or stream: row groups side by side, written in their order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from nshot.classifier import bulk
from nshot.classifier.bulk import Answers
from nshot.classifier.classifier import Classifier
from nshot.embeddings.blocks import Block, split_error
from nshot.embeddings.parts import Parts
from nshot.embeddings.stored import HELD
from nshot.errors import NONSENSE, SourceError, brief
from nshot.extras import one_thread_each, pyarrow
from nshot.images.budget import usable_cores
from nshot.output.sinks.many import Many, can, spelled_names
from nshot.output.sinks.sink import InOrder, Sink
from nshot.paths import unspelled
from nshot.types import Failure, LabelScore, Prediction

_COLUMNS = ("source", "error", "notes")


def is_large(folders: Sequence[Parts]) -> bool:
    """Whether folders hold more than is answered one by one, in float64: what does not stay in memory."""
    return sum(parts.bytes for parts in folders) > HELD


def fits(classifier: Any) -> TypeGuard[Classifier]:
    """Whether what is asked can be asked here: labels alone, without a decision."""
    return bulk.can(classifier) and can(classifier.labels)


@dataclass(frozen=True, slots=True)
class Written:
    """A row group's answers, which are written.

    Attributes:
        rows: images, the failed ones among them.
        failures: the failed ones.
    """

    rows: int
    failures: list[Failure]


def ask_into(
    sink: Sink, folders: Sequence[Parts], classifier: Classifier, top_k: int, *, cores: int | None = None
) -> Iterator[Written]:
    """Ask the images of folders, and write what an earlier run has not written.

    Scores and cosines are made in float32, and agree with ``Classifier.predict`` to five decimals; labels and
    their order are the same. The bytes do not depend on the number of cores, nor on interruptions.

    Args:
        sink: where answers go.
        folders: the vectors.
        classifier: without a decision.
        top_k: how many labels to tell of each image, at most.
        cores: row groups that are asked at once; one per core by default.

    Raises:
        OutputError: they cannot be written.
    """
    asking = _Asking(sink, classifier, top_k)
    workers = cores or usable_cores()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="nshot-ask")
    waiting: deque[Future[_Encoded]] = deque()
    with one_thread_each():
        try:
            for job in _Left(folders, sink).jobs():
                waiting.append(pool.submit(asking.one, *job))
                if len(waiting) > 2 * workers:
                    yield _take(sink, waiting.popleft())
            while waiting:
                yield _take(sink, waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Encoded:
    data: bytes
    rows: int
    failures: list[Failure]


def _take(sink: Sink, job: Future[_Encoded]) -> Written:
    made = job.result()
    if made.rows:
        sink.take(made.data, len(made.failures))
    return Written(made.rows, made.failures)


class _Left:
    """Which rows an earlier run has not answered: as a rule those behind as many as it has."""

    def __init__(self, folders: Sequence[Parts], sink: Sink) -> None:
        self._folders = folders
        self._done = self._skipped = 0
        self._names = None
        if sink.recalled.count:
            if self._begins_with(sink.recalled):
                self._done = sink.recalled.count
            else:
                self._names = sink.names_of_answered()

    def jobs(self) -> Iterator[tuple[Block | Failure, NDArray[np.int64] | None]]:
        """Row groups and shards that cannot be read, each with the rows of it that are left; None: all."""
        for parts in self._folders:
            for number in parts.numbers():
                try:
                    for block in parts.blocks(number, _COLUMNS):
                        yield block, self._rows(block.table.column("source"), len(block.there))
                except (SourceError, *NONSENSE) as error:
                    failure = parts.unread(number, _source_error(parts, number, error))
                    yield failure, self._rows([failure.source], 1)

    def _rows(self, sources: Any, count: int) -> Any:
        if self._names is not None:
            kept = []
            for row, name in enumerate(_unspelled(sources)):
                if self._names[name] > 0:
                    self._names[name] -= 1
                else:
                    kept.append(row)
            return None if len(kept) == count else np.array(kept, np.int64)
        done = min(max(self._done - self._skipped, 0), count)
        self._skipped += count
        return None if not done else np.arange(done, count)

    def _begins_with(self, recalled: InOrder) -> bool:
        """Whether the folders begin with the names that are answered, in this order."""
        found = InOrder()
        for parts in self._folders:
            for number in parts.numbers():
                try:
                    for names in parts.names(number):
                        some = spelled_names(names).slice(0, recalled.count - found.count)
                        found.extend(b"".join(f"{name}\n".encode() for name in some.to_pylist()), len(some))
                        if found.count == recalled.count:
                            return found == recalled
                except (SourceError, *NONSENSE) as error:
                    found.add(parts.unread(number, _source_error(parts, number, error)).source)
                if found.count == recalled.count:
                    return found == recalled
        return False


def _unspelled(sources: Any) -> Iterator[str]:
    values = sources if isinstance(sources, list) else map(unspelled, (n or "" for n in sources.to_pylist()))
    return iter(values)


def _source_error(parts: Parts, number: int, error: BaseException) -> SourceError:
    if isinstance(error, SourceError):
        return error
    return SourceError(f"{parts.folder.path(parts.parts[number])} is damaged: {brief(error)}")


class _Asking:
    """A row group's answers as the sink's bytes."""

    def __init__(self, sink: Sink, classifier: Classifier, top_k: int) -> None:
        self._sink = sink
        self._classifier = classifier
        self._columns = bulk.columns(classifier)
        self._top_k = top_k

    def one(self, block: Block | Failure, rows: NDArray[np.int64] | None) -> _Encoded:
        """Ask a row group, whole, so that its numbers do not turn on what is left of it."""
        if rows is not None and not len(rows):
            return _Encoded(b"", 0, [])
        if isinstance(block, Failure):
            none = Answers.none(1, 1)
            many = Many(pyarrow().array([block.source]), self._classifier.labels, none, {0: block})
        else:
            many = self._many(block)
        if rows is not None:
            many = many.rows(rows)
        return _Encoded(self._sink.encode(many), len(many), many.failures)

    def _many(self, block: Block) -> Many:
        labels, there = self._classifier.labels, block.there
        answers = bulk.ask(self._classifier, block.vectors, self._top_k, table=self._columns)
        if not len(block.vectors):
            answers = Answers.none(len(there), 1)
        elif not there.all():  # an answer stands where its image does
            answers = answers.rows(np.maximum(np.cumsum(there) - 1, 0))
        sources = block.table.column("source")
        told = {row: block.column_of("error", row) for row in np.flatnonzero(~there).tolist()}
        noted = {row: tuple(map(str, block.column_of("notes", row))) for row in block.rows_with("notes")}
        odd: dict[int, Prediction | Failure] = {}
        for row in sorted({*told, *noted}):
            name, notes = unspelled(sources[row].as_py() or ""), noted.get(row, ())
            if row in told:
                odd[row] = Failure(name, *split_error(told[row]), notes=notes)
            else:
                odd[row] = _record(name, labels, answers, row, notes)
        return Many(sources, labels, answers, odd)


def _record(
    name: str, labels: Sequence[str], answers: Answers, row: int, notes: tuple[str, ...]
) -> Prediction:
    """One of many answers by itself."""
    numbers = zip(answers.labels[row], answers.scores[row], answers.cosines[row], strict=True)
    told = tuple(LabelScore(labels[label], float(score), float(cosine)) for label, score, cosine in numbers)
    margin = float(answers.margins[row])
    return Prediction(name, told, None if math.isnan(margin) else margin, notes=notes)
