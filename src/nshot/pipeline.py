"""Images to vectors, in parallel and in order.

    known to the store? -> read, decode, preprocess (threads) -> encode (batches) -> keep in the store -> out

Everything is bounded: a few batches of pixels exist at once, however many images there are. The caller's
thread moves the slots along; it never decodes or encodes itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Semaphore
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from nshot.encoders import Encoder
from nshot.errors import DeviceError, ImageError, UndecodableImage
from nshot.images.budget import Budget
from nshot.images.decode import Limits
from nshot.images.prepare import Preparing, Small
from nshot.images.preprocess import Preprocessor
from nshot.images.sources import Source
from nshot.store.memory import Memory
from nshot.store.store import Stamp
from nshot.types import Embedded, Failure, Floats, Pixels, Recipe

if TYPE_CHECKING:
    from nshot.images.stored import Object

_READERS = 16  # images that are read from a network at once
_LOOKUP = 512  # files asked of the store in one query, and answers passed on at once
_AHEAD = 8 * _LOOKUP  # images that are known, or have failed, behind one that is being decoded

_RESULTS = (Embedded, Failure)

log = logging.getLogger("nshot")


@dataclass(slots=True, eq=False)
class _Slot:
    """One image's place in the queue: what is known of it so far.

    Slots are looked up many at a time and leave together, so none keeps its pixels once they are in a batch.
    """

    name: str
    source: Source | None = None
    stamp: Stamp | None = None
    digest: bytes | None = None
    held: int = 0
    decoding: Future[Pixels | None] | None = None
    read: bool = False
    pixels: Pixels | None = None
    encoded: bool = False
    notes: tuple[str, ...] = ()
    result: Embedded | Failure | None = None

    def finish(self, vector: Floats, digest: bytes | None) -> None:
        """The vector is known; what belongs to the image comes along."""
        source = self.source
        assert source is not None
        self.result = Embedded(
            self.name, vector, source.labels, source.domain, digest, notes=self.notes, beside=source.beside
        )

    def fail(self, type: str, message: str) -> None:
        """There is no vector; what belongs to the image comes along."""
        source = self.source
        assert source is not None
        self.result = Failure(self.name, type, message, source.labels, source.domain, beside=source.beside)


@dataclass(slots=True, eq=False)
class _Batch:
    """Slots that leave together, and the vectors of those among them that have pixels."""

    slots: list[_Slot]
    vectors: Future[Floats] | None


class Thumbnails(Protocol):
    """Where small images go that are made while their large ones are decoded. Called from several threads."""

    def wanted(self, source: Source, digest: bytes) -> Small | None:
        """What small image to make of one that is about to be decoded for its vector; None: none."""

    def put(self, digest: bytes, pixels: NDArray[np.uint8]) -> None:
        """Take one: uint8[h,w,3], and the sha256 of the encoded image."""

    def passed(self, source: Source, digest: bytes, data: bytes) -> None:
        """An encoded image went by that is not decoded, since its vector is known."""


class Pipeline:
    """The moving parts behind ``Embedder.embed_images``.

    Args:
        encoder: what turns pixels into vectors.
        preprocessor: what turns an image into pixels.
        recipe: both of them, as vectors are kept by it.
        memory: where vectors are found and kept.
        batch_size: images encoded at once.
        workers: threads that read and decode.
        limits: what a single image may take.
        thumbnails: takes a small image of each that is decoded; None: none are made.
        processes: whether each thread decodes by a process of its own.
    """

    def __init__(
        self,
        encoder: Encoder,
        preprocessor: Preprocessor,
        recipe: Recipe,
        memory: Memory,
        *,
        batch_size: int,
        workers: int,
        limits: Limits,
        thumbnails: Thumbnails | None = None,
        processes: bool = False,
    ) -> None:
        self.encoder = encoder
        self.preprocessor = preprocessor
        self.memory = memory
        self.batch_size = batch_size
        self.workers = workers
        self.limits = limits
        self.recipe = recipe
        self._thumbnails = thumbnails
        self._processes = processes
        earlier = replace(recipe, preprocessing=preprocessor.earlier).digest
        self._earlier = earlier if memory.holds(earlier) else None
        self._prepare = Preparing(preprocessor, limits, Budget(limits.memory))
        self._cores = Semaphore(workers)

    def run(self, items: Iterable[Source | Embedded | Failure]) -> Iterator[Embedded | Failure]:
        """One result for each item, in order; what already is a result passes through."""
        decoders = ThreadPoolExecutor(self.workers, thread_name_prefix="nshot-decode")
        # A read that waits for a network must not keep a core from decoding.
        readers = ThreadPoolExecutor(max(self.workers, _READERS), thread_name_prefix="nshot-read")
        encoders = ThreadPoolExecutor(self.encoder.streams, thread_name_prefix="nshot-encode")
        try:
            running: deque[_Batch] = deque()
            for batch in self._batches(self._decoding(items, decoders, readers), encoders):
                running.append(batch)
                if len(running) > self.encoder.streams:  # one more waits, so that no stream does
                    yield from self._finish(running.popleft())
            for batch in running:
                yield from self._finish(batch)
        finally:  # also on Ctrl-C, and where the caller stops asking
            decoders.shutdown(cancel_futures=True)
            readers.shutdown(wait=False, cancel_futures=True)  # a store that hangs keeps nobody waiting
            encoders.shutdown(cancel_futures=True)

    def _decoding(
        self, items: Iterable[Source | Embedded | Failure], pool: Executor, readers: Executor
    ) -> Iterator[_Slot]:
        """Slots in order, with decoding under way some batches ahead of the one that is asked for."""
        ahead: deque[_Slot] = deque()
        budget = Budget(self.limits.memory)
        self._prepare = Preparing(self.preprocessor, self.limits, budget, processes=self._processes)
        waiting = self.limits.memory // (32 * self.preprocessor.size**2)  # images in a tenth of it
        undecoded, most = 0, max(self.batch_size, min(self.batch_size * (self.encoder.streams + 1), waiting))
        for slot in self._looked_up(items):
            if slot.source is not None and slot.result is None:
                size = slot.source.expected()
                if size == 0 and not slot.source.remote:  # a failure, which is not worth a thread
                    slot.source.hold()
                    slot.pixels, slot.read = self._decode(slot, slot.source, budget), True
                else:
                    take = budget.unsized if size is None else min(size, self.limits.max_bytes)
                    slot.held = budget.hold(take)
                    slot.source.hold()
                    chosen = readers if slot.source.remote else pool
                    slot.decoding = chosen.submit(self._decode, slot, slot.source, budget)
                    undecoded += 1
            ahead.append(slot)
            while undecoded > most or len(ahead) > _AHEAD or (ahead and ahead[0].decoding is None):
                undecoded -= ahead[0].decoding is not None
                yield ahead.popleft()
        yield from ahead

    def _looked_up(self, items: Iterable[Source | Embedded | Failure]) -> Iterator[_Slot]:
        """Slots in order; files that the store knows unchanged have their vectors already, unread."""
        waiting: list[_Slot] = []
        for item in items:
            slot = _Slot(item.source, result=item) if isinstance(item, _RESULTS) else _Slot(item.name, item)
            if self.memory and slot.source is not None and slot.source.path is not None:
                with suppress(OSError):  # reading it will tell
                    slot.stamp = Stamp.of(slot.source.path)
            elif self.memory and slot.source is not None and slot.source.mark is not None:
                slot.stamp = Stamp.marked(slot.source.name, slot.source.size or 0, slot.source.mark)
            waiting.append(slot)
            # a source without a path may hold its bytes: many of those must not gather here
            if slot.stamp is None or len(waiting) == _LOOKUP:
                yield from self._recalled(waiting)
                waiting = []
        yield from self._recalled(waiting)

    def _recalled(self, slots: list[_Slot]) -> list[_Slot]:
        if stamps := [slot.stamp for slot in slots if slot.stamp is not None]:
            digests = self.memory.known_files(stamps)
            vectors = self.memory.vectors(list(digests.values()), self.recipe.digest)
            notes = self.memory.notes(list(vectors), self.recipe.digest)
            for slot in slots:
                digest = digests.get(slot.stamp.path) if slot.stamp is not None else None
                if digest is not None and digest in vectors:
                    slot.notes = notes.get(digest, ())
                    slot.finish(vectors[digest], digest)
        return slots

    def _decode(self, slot: _Slot, source: Source, budget: Budget) -> Pixels | None:
        """In a worker thread: the pixels, or None where the slot got its result without them."""
        with ExitStack() as until_done:
            until_done.callback(budget.release, slot.held)
            more = budget.unsized, partial(until_done.enter_context, budget.large)
            pixels = self._read(slot, source, more)
            slot.source = source.emptied()
            return pixels

    def _read(
        self, slot: _Slot, source: Source, before_more: tuple[int, Callable[[], object]]
    ) -> Pixels | None:
        try:
            if self.memory and source.named is not None and self._known(slot, source.named):
                return None
            data = source.read(before_more)
            if self.memory and source.named is not None and (meta := source.named.meta) is not None:
                slot.stamp = Stamp.marked(source.name, meta.size, meta.mark)
            slot.digest = hashlib.sha256(data).digest()
            if self.memory:
                known = self.memory.vectors([slot.digest], self.recipe.digest)
                if slot.digest in known:
                    slot.notes = self.memory.notes([slot.digest], self.recipe.digest).get(slot.digest, ())
                    slot.finish(known[slot.digest], slot.digest)
                    if self._thumbnails is not None:
                        self._thumbnails.passed(source, slot.digest, data)
                    return None
            small = None if self._thumbnails is None else self._thumbnails.wanted(source, slot.digest)
            with self._cores if source.remote else nullcontext():
                prepared = self._prepare(data, small)
            if self._thumbnails is not None and prepared.small is not None:
                self._thumbnails.put(slot.digest, prepared.small)
            slot.notes = prepared.notes
            if self._earlier is not None and not prepared.changed:
                known = self.memory.vectors([slot.digest], self._earlier)
                if slot.digest in known:  # of an earlier version, which saw the same pixels
                    slot.finish(known[slot.digest], slot.digest)
                    return None
            return prepared.pixels
        except ImageError as error:
            slot.fail(type(error).__name__, str(error))
        except Exception as error:  # whatever one image does to a decoder, the others are answered
            log.debug("unexpected, in %s", slot.name, exc_info=True)
            slot.fail(UndecodableImage.__name__, f"{type(error).__name__}: {error}")
        return None

    def _known(self, slot: _Slot, named: Object) -> bool:
        """Whether an object that was named is known unchanged; its store is asked if its name is known."""
        if not self.memory.knows(slot.name):
            return False
        named.ask()
        assert named.meta is not None
        slot.stamp = Stamp.marked(slot.name, named.meta.size, named.meta.mark)
        self._recalled([slot])
        return slot.result is not None

    def _batches(self, slots: Iterable[_Slot], pool: Executor) -> Iterator[_Batch]:
        group: list[_Slot] = []
        wanting = 0
        for slot in slots:
            if slot.decoding is not None:
                slot.pixels, slot.decoding, slot.read = slot.decoding.result(), None, True
            wanting += slot.pixels is not None
            group.append(slot)
            if wanting == self.batch_size or len(group) == _LOOKUP:
                yield self._encode(group, pool)
                group, wanting = [], 0
        if group:
            yield self._encode(group, pool)

    def _encode(self, slots: list[_Slot], pool: Executor) -> _Batch:
        wanting = [slot for slot in slots if slot.pixels is not None]
        if not wanting:
            return _Batch(slots, None)
        batch = np.stack([slot.pixels for slot in wanting if slot.pixels is not None])
        for slot in wanting:
            slot.pixels, slot.encoded = None, True
        return _Batch(slots, pool.submit(self.encoder.encode_images, batch))

    def _finish(self, batch: _Batch) -> Iterator[Embedded | Failure]:
        if batch.vectors is not None:
            fresh = (slot for slot in batch.slots if slot.encoded)
            for slot, vector in zip(fresh, batch.vectors.result(), strict=True):
                slot.finish(vector, slot.digest)
        self._remember(batch.slots)
        begun = os.getpid()
        for slot in batch.slots:
            assert slot.result is not None
            yield slot.result
            if os.getpid() != begun:
                raise DeviceError(
                    "these vectors were begun in another process, whose threads this one does not have: "
                    "embed the images here anew, or start processes with 'spawn' in place of 'fork'"
                )

    def _remember(self, slots: list[_Slot]) -> None:
        vectors, files, notes = {}, {}, {}
        for slot in slots:
            if slot.digest is not None and isinstance(slot.result, Embedded):
                if slot.encoded or (self._earlier is not None and slot.read):
                    vectors[slot.digest] = slot.result.vector
                    if slot.notes:
                        notes[slot.digest] = slot.notes
                if slot.stamp is not None:
                    files[slot.stamp] = slot.digest
        self.memory.keep(vectors, files, self.recipe.digest, notes)
