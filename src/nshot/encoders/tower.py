"""One compiled graph: found in its file or compiled, and called by any number of threads."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.encoders import blobs, forks
from nshot.encoders.runtime import ov
from nshot.types import Floats


@dataclass(eq=False)
class _Running:
    """A graph in memory.

    Attributes:
        mapped: the file that it was read from, which OpenVINO reads as long as the graph lives.
        requests: one per stream; who has one computes with it.
        packed: shapes of inputs that the weights were packed for; packing reads the file's pages again.
    """

    mapped: mmap.mmap | None
    requests: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    packed: set[tuple[int, ...]] = field(default_factory=set)


class Tower:
    """One graph, compiled when it is first called, and then called by any number of threads.

    What OpenVINO compiled is kept in a file; the next process maps that and skips the building and most of
    the compiling. The first process goes on from its file too: OpenVINO keeps packed copies of the weights,
    so that the pages of a mapped file can leave memory, which those of a graph could not.
    """

    def __init__(
        self,
        compiling: Callable[[], ov.CompiledModel],
        importing: Callable[[ov.Tensor], ov.CompiledModel],
        path: Path,
        *,
        shapes: tuple[tuple[int, ...], ...],
        streams: int,
        rows: int,
    ) -> None:
        self._compiling = compiling
        self._importing = importing
        self.path = path
        self._shapes = shapes
        self._streams = streams
        self._rows = rows
        self._lock = threading.Lock()
        self._running: _Running | None = None
        forks.towers.add(self)

    def abandon(self) -> list[Any]:
        """Forget what was compiled, and give it: nothing of it may be used or destroyed after a fork."""
        held = [] if self._running is None else [self._running]
        self._running = None
        self._lock = threading.Lock()  # another thread of the parent's may have held it
        return held

    @property
    def started(self) -> bool:
        """Whether the graph is in memory."""
        return self._running is not None

    def leave(self) -> None:
        """Leave memory, once what is being computed is done; the next call starts the graph anew."""
        with self._lock, forks.gate:
            self._running = None

    def __call__(self, count: int, inputs: Callable[[slice], list[NDArray[Any]]]) -> list[Floats]:
        """Each output for as many rows, of which ``inputs`` gives each part as the graph takes it."""
        outputs = [np.empty((count, *shape), np.float32) for shape in self._shapes]
        for start in range(0, count, self._rows):
            part = slice(start, start + self._rows)
            for output, found in zip(outputs, self._infer(inputs(part)), strict=True):
                output[part] = found
        return outputs

    def _infer(self, inputs: list[NDArray[Any]]) -> list[Floats]:
        with self._lock:
            if self._running is None:
                with forks.gate:
                    self._running = self._start()
            running = self._running  # lives on through this call, whoever sends the tower away
        request = running.requests.get()
        try:
            shape = inputs[0].shape
            known = shape in running.packed
            with forks.gate, contextlib.nullcontext() if known else blobs.LettingGo(running.mapped):
                outputs: list[Floats] = list(request.infer(inputs, share_inputs=True).to_tuple())
            running.packed.add(shape)
        finally:
            running.requests.put(request)
        return outputs

    def _start(self) -> _Running:
        found = self._cached()
        if found is None:
            compiled = self._compiling()
            if os.path.exists(self.path):  # noqa: PTH110  (False where it may not be looked at)
                del compiled  # first: both at once would take twice the memory
                found = self._cached()
                compiled = found[0] if found is not None else self._compiling()
        else:
            compiled = found[0]
        running = _Running(mapped=None if found is None else found[1])
        for _ in range(self._streams):
            running.requests.put(compiled.create_infer_request())
        return running

    def _cached(self) -> tuple[ov.CompiledModel, mmap.mmap] | None:
        """The compiled graph of an earlier run and its file; None where there is none, or a damaged one."""
        found = blobs.mapped(self.path)
        if found is not None:
            blob, mapped = found
            with contextlib.suppress(ValueError, RuntimeError):
                with blobs.LettingGo(mapped):
                    compiled = self._importing(ov.Tensor(blob, shared_memory=True))
                return compiled, mapped
        return None
