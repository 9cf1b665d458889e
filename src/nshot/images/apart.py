"""Decoding in a process of its own, which can be killed and whose memory has a limit.

A decoder in a thread cannot be interrupted. So what may be slow or large goes to a worker: an interpreter
that reads an image on its standard input and writes pixels on its standard output. Workers are started when
the first such image comes, and kept for the next. What a worker answers is JSON and raw pixels, never a
pickle: it has read a stranger's bytes. What a worker does with an image, it is sent (``Work``).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nshot import errors
from nshot.errors import ImageError, UndecodableImage

_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); import nshot.images.apart as a; a.serve()"
_REQUEST = struct.Struct("<QQQd")  # bytes of the settings and of the image, bytes of memory, seconds
_ANSWER = struct.Struct("<QQ")  # bytes of the JSON, and of the pixels
_READY = b"nshot"
_KEPT = 2**28  # a worker that has grown larger is not used again
_LARGEST_ANSWER = 2**20
_LOOKS = 0.1  # seconds between two looks at the time that workers take
_LARGEST_PIXELS = 2**30

_Told: TypeAlias = dict[str, Any]
_Answer: TypeAlias = tuple[_Told, bytes]  # what is told, and pixels
Work: TypeAlias = Callable[[bytes], tuple[_Told, NDArray[np.uint8]]]
"""An encoded image -> what JSON can tell of it, and its pixels; it can be pickled."""


@dataclass(slots=True)
class Time:
    """What an image may still take, over all tries.

    Attributes:
        left: seconds of processor time.
    """

    left: float


class Starved(Exception):
    """The image takes more memory than it was allowed."""


class Expired(Exception):
    """The image takes longer than it was allowed."""


class Crashed(Exception):
    """The worker is gone, and left no answer."""


class _Worker:
    def __init__(self) -> None:
        paths = [str(Path(path).absolute()) for path in sys.path]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, json.dumps(paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.expired = False
        if self._out.read(len(_READY)) != _READY:
            self.end()
            raise OSError("no worker could be started")

    @property
    def _in(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def _out(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def ask(self, settings: bytes, data: bytes, allowance: int, seconds: float) -> _Answer:
        """Send an image, and wait for the answer.

        Raises:
            Crashed: there is none.
        """
        # the worker counts its processor time; this is for one that waits for what never comes
        patience = 10 * seconds + 10 if hasattr(signal, "setitimer") else seconds
        watch = _ours().watch
        watch.begin(self, time.monotonic() + patience)
        try:
            self._in.write(_REQUEST.pack(len(settings), len(data), allowance, seconds))
            self._in.write(settings)
            self._in.write(data)
            self._in.flush()
            told, size = _ANSWER.unpack(_exactly(self._out, _ANSWER.size))
            if told > _LARGEST_ANSWER or size > _LARGEST_PIXELS:
                raise Crashed
            return json.loads(_exactly(self._out, told)), _exactly(self._out, size)
        except (OSError, EOFError, ValueError) as error:
            raise Crashed from error
        finally:
            watch.end(self)

    def expire(self) -> None:
        """It has had its time."""
        self.expired = True
        self.process.kill()

    def end(self) -> int:
        """Kill it; what it ended with if it had ended before."""
        with contextlib.suppress(OSError):
            self._in.close()
        try:
            code = self.process.wait(0.2 if self.process.poll() is None else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._out.close()
        return code


class _Watch:
    """One thread that ends the workers which take longer than they may; a thread for each image is dear."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._ends: dict[_Worker, float] = {}
        self._running = False

    def begin(self, worker: _Worker, end: float) -> None:
        with self._turn:
            self._ends[worker] = end
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="nshot-watch", daemon=True).start()

    def end(self, worker: _Worker) -> None:
        with self._turn:
            self._ends.pop(worker, None)

    def _run(self) -> None:
        while True:
            time.sleep(_LOOKS)
            with self._turn:
                now = time.monotonic()
                for worker in [each for each, end in self._ends.items() if end < now]:
                    self._ends.pop(worker)
                    worker.expire()
                if not self._ends:
                    self._running = False
                    return


class _Workers:
    """The idle workers of this process."""

    def __init__(self) -> None:
        self.watch = _Watch()
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.idle: list[_Worker] = []
        self.usable = True

    def take(self) -> _Worker:
        with self.lock:
            if self.idle:
                return self.idle.pop()
        return _Worker()

    def keep(self, worker: _Worker) -> None:
        with self.lock:
            if len(self.idle) < (os.cpu_count() or 1):
                self.idle.append(worker)
                return
        worker.end()

    def end(self) -> None:
        if self.pid == os.getpid():  # a fork's are its parent's
            while self.idle:
                self.idle.pop().end()


_workers = _Workers()
_parents: list[_Workers] = []  # of the processes that this one was forked from: not ours to end
atexit.register(lambda: _workers.end())


def _ours() -> _Workers:
    global _workers
    if _workers.pid != os.getpid():
        _parents.append(_workers)
        _workers = _Workers()
    return _workers


def available() -> bool:
    """Whether processes can be started here: not where the program is no Python interpreter."""
    return _ours().usable and bool(sys.executable)


def done(work: Work, data: bytes, allowance: int, allowed: Time) -> tuple[_Told, NDArray[np.uint8]]:
    """What a worker makes of an image.

    Args:
        work: what to do with it.
        data: the encoded image.
        allowance: bytes of memory for it.
        allowed: the time for it; what it takes is taken off, down to a second for a worker's start.

    Raises:
        Starved: it takes more memory than that.
        Expired: it takes longer than that.
        Crashed: the worker broke down.
        ImageError: it cannot be decoded.
    """
    workers = _ours()
    try:
        worker = workers.take()
    except OSError:
        workers.usable = False
        return work(data)
    try:
        told, pixels = worker.ask(pickle.dumps(work), data, allowance, allowed.left)
    except Crashed:
        code = worker.end()
        if worker.expired or -code in _TIMES:
            raise Expired from None
        if code in (0, -signal.SIGINT, -signal.SIGTERM):  # not of itself: the whole run is being ended
            raise UndecodableImage("the process that decoded it was ended") from None
        raise
    except BaseException:  # Ctrl-C: nobody will read the answer
        worker.process.kill()
        worker.end()
        raise
    if told.pop("keep", False) and not worker.expired:  # it may have been killed over its answer
        workers.keep(worker)
    else:
        worker.end()
    allowed.left = max(1.0, allowed.left - float(told.pop("spent", 0)))
    if "starved" in told:
        raise Starved
    if "error" in told:
        kind = getattr(errors, str(told["error"]), UndecodableImage)
        raise (kind if issubclass(kind, ImageError) else UndecodableImage)(str(told["message"]))
    try:
        shape = [int(edge) for edge in told.pop("shape")]
        return told, np.frombuffer(pixels, np.uint8).reshape(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise Crashed from error


_TIMES = {int(getattr(signal, name)) for name in ("SIGPROF", "SIGXCPU") if hasattr(signal, name)}


# In the worker


def serve() -> None:
    """Answer until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not print into the answer
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    limit = _Limit()
    answers.write(_READY)
    answers.flush()
    while head := requests.read(_REQUEST.size):
        settings, size, allowance, seconds = _REQUEST.unpack(head)
        work: Work = pickle.loads(_exactly(requests, settings))  # from our own parent; before any limit
        begun = time.process_time()
        told, pixels = limit.within(allowance, seconds, partial(_answer, requests, work, size))
        told["spent"] = time.process_time() - begun
        told["keep"] = limit.memory() < _KEPT
        said = json.dumps(told).encode()
        answers.write(_ANSWER.pack(len(said), len(pixels)) + said)
        answers.write(pixels)
        answers.flush()
        del pixels


def _end_with(parent: int) -> None:
    """A parent that was killed leaves nobody to read the answer."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(8)


def _answer(requests: IO[bytes], work: Work, size: int) -> tuple[_Told, Any]:
    data = _exactly(requests, size)
    try:
        told, pixels = work(data)
        return told | {"shape": pixels.shape}, np.ascontiguousarray(pixels).reshape(-1).data
    except ImageError as error:
        cause = error.__cause__
        if isinstance(cause, MemoryError):
            return {"starved": True}, b""
        return {"error": type(error).__name__, "message": str(error)}, b""
    except MemoryError:
        return {"starved": True}, b""
    except Exception as error:
        return {"error": "UndecodableImage", "message": f"{type(error).__name__}: {error}"[:200]}, b""


class _Limit:
    """The memory and the time of one request, where the system can limit them."""

    def __init__(self) -> None:
        try:
            import resource
        except ImportError:  # Windows: the parent kills by the clock
            self._resource: Any = None
            return
        self._resource = resource
        self._page = resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self._hard = resource.getrlimit(resource.RLIMIT_AS)[1]

    def within(self, allowance: int, seconds: float, work: Any) -> Any:
        if self._resource is None:
            return work()
        self._allow(self.memory(0) + allowance)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process, whatever C code it is in
        try:
            return work()
        except MemoryError:
            os._exit(7)  # before the image was read whole: the next request would begin in its middle
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._allow(None)

    def memory(self, column: int = 1) -> int:
        """Bytes in address space (column 0) or resident (1)."""
        try:
            return int(Path("/proc/self/statm").read_text().split()[column]) * self._page
        except (OSError, AttributeError):  # no Linux
            return 0

    def _allow(self, size: int | None) -> None:
        if size is None:
            size = self._hard
        elif not Path("/proc/self/statm").exists() or 0 <= self._hard < size:
            return
        with contextlib.suppress(ValueError, OSError):
            self._resource.setrlimit(self._resource.RLIMIT_AS, (size, self._hard))


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data
