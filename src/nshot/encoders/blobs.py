"""Compiled graphs in files: written whole or not at all, checked, mapped, and let go of page by page."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import tempfile
import threading
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from nshot.encoders.runtime import ov

_TICK = 0.01  # seconds between two times that pages are let go of


def write(compiled: ov.CompiledModel, path: Path) -> None:
    """Keep a compiled graph: its bytes, zeros up to a whole word, their length, the sum of all these words.

    It appears whole or not at all; where it cannot be written, the next run compiles again.
    """
    unfinished = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # of another version of OpenVINO or of the graph, or left by a run that was killed
        for old in path.parent.glob(f"{path.name.rpartition('-')[0]}-*"):
            old.unlink()
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.", delete=False) as file:
            unfinished = Path(file.name)
            compiled.export_model(_Stream(cast(BinaryIO, file)))
            length = file.seek(0, os.SEEK_END)
            file.write(bytes(-length % 8) + length.to_bytes(8, "little"))
            file.seek(0)
            chunks = iter(lambda: file.read(1 << 20), b"")
            checksum = sum(int(_checksum(np.frombuffer(chunk, np.uint64))) for chunk in chunks)
            file.write((checksum % 2**64).to_bytes(8, "little"))
        unfinished.replace(path)
    except (OSError, RuntimeError):
        if unfinished is not None:
            with contextlib.suppress(OSError):
                unfinished.unlink()


def mapped(path: Path) -> tuple[NDArray[np.uint8], mmap.mmap] | None:
    """A kept graph, its bytes and their mapping; None where there is none, or a damaged one."""
    with contextlib.suppress(OSError, ValueError):
        with path.open("rb") as file:
            found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        words = np.frombuffer(found, np.uint64)
        length = int(words[-2])
        if words[-1] == _checksum(words[:-1]) and 0 < length <= len(found) - 16:
            return np.frombuffer(found, np.uint8, length), found
    return None


def _checksum(words: NDArray[np.uint64]) -> np.uint64:
    """The sum modulo 2**64: it finds what disks and kills do to files, at the speed of memory."""
    return np.uint64(words.sum(dtype=np.uint64))


class LettingGo:
    """While OpenVINO reads a mapped file, let go of the pages that it has read.

    What is needed again is read again. Without this the whole file stands in memory beside what OpenVINO
    makes of it.
    """

    def __init__(self, *mapped: mmap.mmap | None) -> None:
        there = hasattr(mmap, "MADV_DONTNEED")
        self._mapped = [each for each in mapped if each is not None and there]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nshot-pages", daemon=True)

    def __enter__(self) -> None:
        if self._mapped:
            self._let_go()
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        if self._mapped:
            self._done.set()
            self._thread.join()
            self._let_go()

    def _run(self) -> None:
        while not self._done.wait(_TICK):
            self._let_go()

    def _let_go(self) -> None:
        for each in self._mapped:
            each.madvise(mmap.MADV_DONTNEED)


class _Stream(io.BytesIO):
    """A file behind the one class that OpenVINO exports to: the graph never stands in memory as a whole."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:  # it goes back to fill in its header
        return self._file.seek(offset, whence)
