"""Many requests, one model: images are decoded in threads, and encoded together with whatever else waits."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from nshot.embedder import Embedder
from nshot.errors import NshotError
from nshot.images.budget import Budget
from nshot.images.prepare import Preparing
from nshot.types import Floats, Pixels

log = logging.getLogger("nshot")

_FETCHING = 8  # threads that wait for other servers, apart from those that decode

Read = Callable[..., bytes]


class Busy(NshotError):
    """More waits than the server takes on: ask again later."""


class Vector(NamedTuple):
    """What became of one image.

    Attributes:
        vector: float32[d], unit norm.
        notes: what a person should know of how it was decoded.
    """

    vector: Floats
    notes: tuple[str, ...] = ()


class Reading(NamedTuple):
    """How an image is read.

    Attributes:
        read: gives its encoded bytes; called once, in a thread.
        far: whether that waits for another server; then it takes ``before_more``, as ``Source.read`` does.
        size: bytes of memory that it takes, until it is decoded.
    """

    read: Read
    far: bool = False
    size: int = 0


class Kept:
    """The bytes of an image that may be read twice: by the first model of a cascade, and by the last.

    Args:
        reading: how it is read the first time.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._data: bytes | None = None

    def once(self) -> Reading:
        """How it is read the first time."""

        def read(**more: Any) -> bytes:
            self._data = self._reading.read(**more)
            return self._data

        return self._reading._replace(read=read)

    def again(self) -> Reading:
        """How it is read after that."""
        data = self._data or b""
        return Reading(lambda: data, size=len(data))


class _Item(NamedTuple):
    pixels: Pixels
    notes: tuple[str, ...]
    answer: Future[Vector]


class Batcher:
    """Encodes the images of all requests; safe to use from several threads.

    There is no timer: a stream that is free takes what waits, up to the encoder's batch, so an image never
    waits for company. An image that cannot be decoded fails before it meets others.

    Args:
        model: a loaded model; its encoder and its preprocessor are used, nothing else of it.
        most: images that may be between their arrival and their answer.
        memory: bytes that reading and decoding may hold at once; None: as the model's limits say.
    """

    def __init__(self, model: Embedder, *, most: int = 256, memory: int | None = None) -> None:
        self.most = most
        self.waiting = 0
        """Images between their arrival and their answer."""
        self.batches = 0
        self.encoded = 0
        self.answered_at = -float("inf")
        """When an image was last encoded, on the monotonic clock."""
        self.recipe = model.recipe
        """Of the vectors."""
        self._encoder = model.encoder
        self._size = model.preprocessor.size
        self._budget = Budget(model.limits.memory if memory is None else memory)
        self._fetched = Budget(self._budget.total)  # of its own: a slow server keeps nobody else waiting
        self._cores = threading.Semaphore(model.workers)
        self._prepare = Preparing(model.preprocessor, model.limits, self._budget)
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._decoders = ThreadPoolExecutor(model.workers, thread_name_prefix="nshot-serve-decode")
        self._fetchers = ThreadPoolExecutor(_FETCHING, thread_name_prefix="nshot-serve-fetch")
        self._streams = [
            threading.Thread(target=self._encode, name=f"nshot-serve-encode-{k}", daemon=True)
            for k in range(max(1, self._encoder.streams))
        ]
        for stream in self._streams:
            stream.start()

    def submit(self, reads: Sequence[Reading], *, taken_on: bool = False) -> list[Future[Vector]]:
        """Take on images; each future gets its vector, or the ``ImageError`` that says why there is none.

        Args:
            reads: how each image is read.
            taken_on: they were taken on before, by another model.

        Raises:
            Busy: more images than may wait; none of them was taken on.
        """
        with self._lock:
            if not taken_on and self.waiting + len(reads) > self.most:
                raise Busy(f"{self.waiting} images are waiting, and at most {self.most} may")
            self.waiting += len(reads)
        answers = []
        for reading in reads:
            answer: Future[Vector] = Future()
            answer.add_done_callback(self._done)
            answers.append(answer)
            try:
                (self._fetchers if reading.far else self._decoders).submit(self._decode, reading, answer)
            except RuntimeError:  # closed meanwhile
                answer.set_exception(Busy("the server is stopping"))
        return answers

    def probe(self) -> Future[Vector]:
        """One grey image, encoded like any other: whether real answers are to be had."""
        with self._lock:
            self.waiting += 1
        answer: Future[Vector] = Future()
        answer.add_done_callback(self._done)
        self._queue.put(_Item(np.full((3, self._size, self._size), 128, np.uint8), (), answer))
        return answer

    def close(self) -> None:
        """Stop; what waits is still answered."""
        self._fetchers.shutdown()
        self._decoders.shutdown()
        for _ in self._streams:
            self._queue.put(None)
        for stream in self._streams:
            stream.join()

    def _done(self, _: Future[Vector]) -> None:
        with self._lock:
            self.waiting -= 1

    def _decode(self, reading: Reading, answer: Future[Vector]) -> None:
        if answer.cancelled():
            return
        with ExitStack() as until_done:
            budget = self._fetched if reading.far else self._budget
            size = budget.unsized if reading.far else reading.size
            until_done.callback(budget.release, budget.hold(size))
            try:
                if reading.far:
                    more = budget.unsized, partial(until_done.enter_context, budget.large)
                    data = reading.read(before_more=more)
                else:
                    data = reading.read()
                with self._cores:
                    prepared = self._prepare(data)
            except BaseException as error:
                _fail(answer, error)
                return
        self._queue.put(_Item(prepared.pixels, prepared.notes, answer))

    def _encode(self) -> None:
        while True:
            items = [self._queue.get()]
            with suppress(queue.Empty):
                while items[-1] is not None and len(items) < self._encoder.batch:
                    items.append(self._queue.get_nowait())
            batch = [item for item in items if item is not None and not item.answer.cancelled()]
            if batch:
                self._encode_batch(batch)
            if items[-1] is None:
                return

    def _encode_batch(self, batch: list[_Item]) -> None:
        try:
            vectors = self._encoder.encode_images(np.stack([item.pixels for item in batch]))
        except BaseException as error:
            log.exception("encoding %d images failed", len(batch))
            for item in batch:
                _fail(item.answer, error)
            return
        with self._lock:
            self.batches += 1
            self.encoded += len(batch)
            self.answered_at = time.monotonic()
        for item, vector in zip(batch, vectors, strict=True):
            with suppress(Exception):  # given up meanwhile
                item.answer.set_result(Vector(vector, item.notes))


def _fail(answer: Future[Vector], error: BaseException) -> None:
    with suppress(Exception, CancelledError):
        answer.set_exception(error)
