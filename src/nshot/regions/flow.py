"""Images through something that is not one vector each: read and decoded ahead, encoded in batches, in order.

It is the pipeline's way (see ``nshot.pipeline``), for arrays and results of any kind.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from nshot.errors import ImageError, UndecodableImage
from nshot.images.budget import Budget
from nshot.images.prepare import Maker, Preparing
from nshot.images.sources import Source
from nshot.images.windows import Bands
from nshot.store.store import Stamp
from nshot.types import Failure, Limits, Pixels

R = TypeVar("R")

log = logging.getLogger("nshot")

Recall = Callable[[bytes], "Any | None"]
"""What is known of an image by the sha256 of its bytes; None where nothing is."""


@dataclass(slots=True, eq=False)
class Seen:
    """One image that was read.

    Attributes:
        source: where it is from, its bytes gone.
        digest: sha256 of its bytes.
        stamp: its file as it was before it was read, if it is a file.
        values: what the maker made of it; None where ``known`` is there.
        size: width and height of the upright image, in pixels.
        notes: what decoding did that a person should know.
        known: what was recalled, so that nothing was decoded.
        bands: a large image that is to be read in bands, in the place of ``values``.
    """

    source: Source
    digest: bytes
    stamp: Stamp | None
    values: Pixels | None = None
    size: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    known: Any = None
    bands: Bands | None = None


class Flow(Generic[R]):
    """The moving parts.

    Args:
        maker: what makes an array of an image.
        work: what makes results of some images at once, one each; called from several threads.
        limits: what an image and the run may take.
        workers: threads that read and decode.
        streams: calls of ``work`` at once.
        batch: images in one call of ``work``.
        recall: asked before an image is decoded.
        digest_of: the sha256 of a file's bytes, if it is known by its stamp: it is not read then, where
            ``recall`` knows the rest.
        bands: a file that is to be read in bands; None: in the usual way.
    """

    def __init__(
        self,
        maker: Maker,
        work: Callable[[Sequence[Seen]], Sequence[R]],
        *,
        limits: Limits,
        workers: int,
        streams: int,
        batch: int,
        recall: Recall | None = None,
        digest_of: Callable[[Stamp], bytes | None] | None = None,
        bands: Callable[[str], Bands | None] | None = None,
    ) -> None:
        self.maker = maker
        self.work = work
        self.limits = limits
        self.workers = workers
        self.streams = streams
        self.batch = batch
        self.recall = recall
        self.digest_of = digest_of
        self.bands = bands

    def run(self, items: Iterable[Source | Failure]) -> Iterator[tuple[Seen, R] | Failure]:
        """A result for each item, in order; failures pass through."""
        readers = ThreadPoolExecutor(self.workers, thread_name_prefix="nshot-read")
        encoders = ThreadPoolExecutor(self.streams, thread_name_prefix="nshot-encode")
        running: deque[tuple[list[Seen | Failure], Future[Sequence[R]]]] = deque()

        def finish() -> Iterator[tuple[Seen, R] | Failure]:
            group, future = running.popleft()
            results = iter(future.result())
            for each in group:
                yield each if isinstance(each, Failure) else (each, next(results))

        try:
            group: list[Seen | Failure] = []
            for each in self._reading(items, readers):
                group.append(each)
                if len(group) == self.batch:
                    running.append((group, encoders.submit(self._worked, group)))
                    group = []
                    if len(running) > self.streams:
                        yield from finish()
            if group:
                running.append((group, encoders.submit(self._worked, group)))
            while running:
                yield from finish()
        finally:  # also on Ctrl-C, and where the caller stops asking
            readers.shutdown(cancel_futures=True)
            encoders.shutdown(cancel_futures=True)

    def _worked(self, group: Sequence[Seen | Failure]) -> Sequence[R]:
        seen = [each for each in group if not isinstance(each, Failure)]
        return self.work(seen) if seen else []

    def _reading(
        self, items: Iterable[Source | Failure], pool: ThreadPoolExecutor
    ) -> Iterator[Seen | Failure]:
        budget = Budget(self.limits.memory)
        prepare = Preparing(self.maker, self.limits, budget)
        ahead: deque[Failure | Future[Seen | Failure]] = deque()
        for item in items:
            if isinstance(item, Failure):
                ahead.append(item)
            else:
                size = item.expected()
                held = budget.hold(budget.unsized if size is None else min(size, self.limits.max_bytes))
                item.hold()
                ahead.append(pool.submit(self._read, item, held, budget, prepare))
            if len(ahead) > self.batch + self.workers:
                yield _done(ahead.popleft())
        while ahead:
            yield _done(ahead.popleft())

    def _read(self, source: Source, held: int, budget: Budget, prepare: Preparing) -> Seen | Failure:
        """In a thread: one image, read and decoded, or why it is not."""
        stamp = None
        if source.path is not None:
            with suppress(OSError):
                stamp = Stamp.of(source.path)
        with ExitStack() as until_done:
            until_done.callback(budget.release, held)
            try:
                if stamp is not None and self.digest_of is not None and self.recall is not None:
                    digest = self.digest_of(stamp)
                    known = None if digest is None else self.recall(digest)
                    if digest is not None and known is not None:
                        return Seen(source.emptied(), digest, stamp, known=known)
                large = (
                    self.bands(source.path) if self.bands is not None and source.path is not None else None
                )
                if source.path is not None and large is not None:
                    with Path(source.path).open("rb") as file:
                        digest = hashlib.file_digest(file, "sha256").digest()
                    known = None if self.recall is None else self.recall(digest)
                    return Seen(source.emptied(), digest, stamp, size=large.size, known=known, bands=large)
                data = source.read((budget.unsized, partial(until_done.enter_context, budget.large)))
                seen = Seen(source.emptied(), hashlib.sha256(data).digest(), stamp)
                if self.recall is not None:
                    seen.known = self.recall(seen.digest)
                if seen.known is None:
                    prepared = prepare(data)
                    seen.values, seen.size, seen.notes = prepared.pixels, prepared.size, prepared.notes
                return seen
            except ImageError as error:
                return failed(source, type(error).__name__, str(error))
            except Exception as error:  # whatever one image does to a decoder, the others are answered
                log.debug("unexpected, in %s", source.name, exc_info=True)
                return failed(source, UndecodableImage.__name__, f"{type(error).__name__}: {error}")


def failed(source: Source, type: str, message: str) -> Failure:
    """An image without an answer; what belongs to it comes along."""
    return Failure(source.name, type, message, source.labels, source.domain, beside=source.beside)


def _done(each: Failure | Future[Seen | Failure]) -> Seen | Failure:
    return each if isinstance(each, Failure) else each.result()
