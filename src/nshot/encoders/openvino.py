"""A model on a CPU with OpenVINO; no torch, no onnx."""

from __future__ import annotations

import contextlib
import ctypes
import io
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nshot.encoders import Detections, Precision, digest_of, openvino_graph
from nshot.encoders.runtime import ov
from nshot.models.owlv2 import BoxTower
from nshot.paths import cache_dir
from nshot.types import Floats, Pixels, Tokens

if TYPE_CHECKING:
    from nshot.models.checkpoint import Checkpoint
    from nshot.models.weights import Tensors

_BATCH = 16  # rows in one inference: more are no faster, and take more memory
_PATCHES = (
    1024  # in one inference of images: many patches per image make fewer images as fast, in less memory
)
_STEP = 8  # texts are cut to a multiple of so many tokens
_TICK = 0.01  # seconds between two times that pages are let go of
_MOST_STREAMS = 8  # each holds a batch and its activations


class OpenVINOEncoder:
    """Both towers of a checkpoint, each built when it is first used; see ``nshot.encoders.Encoder``.

    A vector does not depend on what else is in its batch, nor on the size of the batch.

    Args:
        checkpoint: from ``nshot.models.checkpoint.find``.
        precision: "auto" and "bf16" are bf16 where the processor has it natively, else f32. (Elsewhere
            OpenVINO would emulate bf16, thirty times slower than f32 and less exact.) "f32-small" computes in
            f32 too, and holds the weights in 8 bits. "int8" computes the images in 8 bits, by a form that
            was made before (``nshot.encoders.int8``), and texts in f32.

    Raises:
        DeviceError: "int8", and there is no such form.
        threads: the most to compute with; all cores of this process by default.
    """

    device = "cpu"
    batch = _BATCH

    def __init__(
        self, checkpoint: Checkpoint, precision: Precision = "auto", *, threads: int | None = None
    ) -> None:
        with _gate:
            core = _core()
            capabilities = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
            processor = f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} {capabilities}"
        native = "bf16" if "BF16" in capabilities else "f32"
        self.precision: str = native if precision in ("auto", "bf16") else precision
        own: tuple[str, ...] = ()  # digest of an int8 form
        if self.precision == "int8":
            from nshot.encoders import int8  # seldom wanted

            own = (int8.required(checkpoint)["digest"],)
        self.fingerprint = digest_of(checkpoint, "openvino", openvino_graph.VERSION, self.precision, *own)
        self.dimension = checkpoint.config.dimension
        self.streams = min(threads or _cores(), _MOST_STREAMS)
        version = (openvino_graph.VERSION, openvino_graph.FORM, ov.get_version(), *own)
        key = digest_of(checkpoint, *version, processor)[:16]

        form = self.precision.replace("-", "")  # a dash would end the part by which old files are found

        def tower(
            name: str,
            build: Callable[[Tensors], ov.Model],
            streams: int,
            rows: int,
            *more: tuple[int, int],
            shapes: tuple[tuple[int, ...], ...] | None = None,
        ) -> _Tower:
            path = cache_dir() / "compiled" / f"{checkpoint.digest[:16]}-{name}-{form}-{key}.blob"

            def compiling() -> ov.CompiledModel:
                # A mapping of the files of its own: its pages leave memory once they are read.
                tensors = checkpoint.open_tensors()
                with _LettingGo(*tensors.maps()):
                    graph = build(tensors)
                    compiled = _core().compile_model(graph, "CPU", options | {"NUM_STREAMS": streams})
                    _write(compiled, path)
                    return compiled

            return _Tower(
                compiling,
                lambda blob: _core().import_model(blob, "CPU", options | {"NUM_STREAMS": streams}),
                path,
                shapes=shapes or ((self.dimension,), *more),
                streams=streams,
                rows=rows,
            )

        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32"}
        ops = None
        if self.precision == "f32-small":
            ops = openvino_graph.SmallOps()
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0  # nothing but the weights is in 8 bits
        if threads is not None:  # OpenVINO reads no OMP_NUM_THREADS
            options["INFERENCE_NUM_THREADS"] = threads
        vision, text = checkpoint.config.vision, checkpoint.config.text
        mean, std = checkpoint.image_mean, checkpoint.image_std
        # Images come from several threads at once, each of which takes a core; texts come from one.
        at_once = _images_at_once(vision.image_size, getattr(vision, "patch_size", None))
        self._images = tower(
            "images",
            lambda tensors: (
                int8.read(checkpoint)
                if own
                else openvino_graph.image_tower(vision, tensors, mean, std, ops=ops)
            ),
            self.streams,
            at_once,
        )
        self._patches = tower(
            "patches",
            lambda tensors: openvino_graph.image_tower(vision, tensors, mean, std, patches=True, ops=ops),
            self.streams,
            at_once,
            (vision.grid**2, self.dimension),
        )
        self._texts = tower("texts", lambda tensors: openvino_graph.text_tower(text, tensors, ops), 1, _BATCH)
        self._checkpoint = checkpoint
        self._boxes: _Tower | None = None
        if isinstance(vision, BoxTower):
            count = vision.grid**2
            # all cores on one image: each takes seconds, and hundreds of megabytes
            self._boxes = tower(
                "boxes",
                lambda tensors: openvino_graph.box_tower(vision, tensors),
                1,
                1,
                shapes=((count, 4), (count, 1), (count, vision.dimension), (count, 1), (count, 1)),
            )

    def detect(self, pixels: Floats) -> Detections:
        """float32[n,3,s,s], normalised as the checkpoint says -> what is in each."""
        assert self._boxes is not None
        side = self._checkpoint.config.vision.image_size
        _check(pixels, np.float32, (3, side, side))
        return Detections.of(self._boxes(len(pixels), lambda part: [pixels[part]]))

    @property
    def compiled(self) -> Path:
        """Where the compiled image tower is kept, once it is."""
        return self._images.path

    def encode_images(self, pixels: Pixels) -> Floats:
        """uint8[n,3,s,s] (RGB, not normalised) -> float32[n,d], unit norm."""
        side = self._checkpoint.config.vision.image_size
        _check(pixels, np.uint8, (3, side, side))
        if not self._images.started:
            self._texts.leave()  # the labels are known now; what is asked later reads the text tower again
        return self._images(len(pixels), lambda part: [pixels[part]])[0]

    def encode_patches(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """uint8[n,3,s,s] -> float32[n,d] and float32[n,p,d], both of unit norm."""
        side = self._checkpoint.config.vision.image_size
        _check(pixels, np.uint8, (3, side, side))
        vectors, patches = self._patches(len(pixels), lambda part: [pixels[part]])
        return vectors, patches

    def encode_tokens(self, tokens: Tokens) -> Floats:
        """int64[n,context] -> float32[n,d], unit norm."""
        text, tensors = self._checkpoint.config.text, self._checkpoint.tensors()
        _check(tokens, np.int64, (text.context,))
        ends = text.ends(tokens)
        rounded = _bfloat16 if self.precision == "bf16" else np.asarray  # as a table in the graph would be
        lengths = np.full(len(tokens), text.context)
        if text.causal:
            # What follows a text's end changes nothing, and is most of the row: texts of about one length go
            # together, each cut to its own, so that a vector does not depend on its company.
            lengths = (ends // _STEP + 1) * _STEP
        vectors = np.empty((len(tokens), self.dimension), np.float32)
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)

            def inputs(part: slice, rows: NDArray[np.intp] = alike, to: int = length) -> list[NDArray[Any]]:
                cut = np.ascontiguousarray(tokens[rows[part], :to])
                return [rounded(tensors.rows(text.table, cut)), ends[rows[part]]]

            vectors[alike] = self._texts(len(alike), inputs)[0]
        return vectors


_towers: weakref.WeakSet[_Tower] = weakref.WeakSet()
_started: list[ov.Core] = []  # at most one


def _core() -> ov.Core:
    if not _started:
        _started.append(ov.Core())
    return _started[0]


class _Gate:
    """Inference and compiling go through it; a fork closes it, and waits until nobody is inside.

    A child that is made in the midst of them would find OpenVINO's locks held by threads that it lacks.
    """

    def __init__(self) -> None:
        self._inside: list[int] = []  # threads
        self._closed = False
        self._moved = threading.Condition()

    def __enter__(self) -> None:
        with self._moved:
            self._moved.wait_for(lambda: not self._closed)
            self._inside.append(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        with self._moved:
            self._inside.remove(threading.get_ident())
            self._moved.notify_all()

    def close(self) -> None:
        own = threading.get_ident()  # a handler of a signal may fork within
        with self._moved:
            self._closed = True
            self._moved.wait_for(lambda: all(each == own for each in self._inside))

    def open(self) -> None:
        with self._moved:
            self._closed = False
            self._moved.notify_all()


_gate = _Gate()


def _before_fork() -> None:
    """Have OpenVINO forget the idle threads of models that are gone, which it keeps for the next model.

    In a child they would be dead, and its first model would wait for them forever. Ending a plugin clears
    them; nothing but a fork needs that.
    """
    _gate.close()
    if _started:
        with contextlib.suppress(RuntimeError):
            core = ov.Core()
            core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
            core.unload_plugin("CPU")


def _after_fork() -> None:
    """In a child OpenVINO's threads are gone: to call what they served, or to destroy it, waits forever.

    So every tower starts anew there when it is next used, and what the parent had is never destroyed: of
    each object one reference too many is counted. That holds for towers, too, which nobody can reach any
    more and Python has not collected yet.
    """
    global _gate
    _gate = _Gate()
    for tower in list(_towers):
        for held in tower.abandon():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
    while _started:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_started.pop()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=lambda: _gate.open(), after_in_child=_after_fork)


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


class _Tower:
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
        _towers.add(self)

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
        with self._lock, _gate:
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
                with _gate:
                    self._running = self._start()
            running = self._running  # lives on through this call, whoever sends the tower away
        request = running.requests.get()
        try:
            shape = inputs[0].shape
            known = shape in running.packed
            with _gate, contextlib.nullcontext() if known else _LettingGo(running.mapped):
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
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            with self.path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            words = np.frombuffer(mapped, np.uint64)
            length = int(words[-2])
            if words[-1] == _checksum(words[:-1]) and 0 < length <= len(mapped) - 16:
                blob = np.frombuffer(mapped, np.uint8, length)
                with _LettingGo(mapped):
                    compiled = self._importing(ov.Tensor(blob, shared_memory=True))
                return compiled, mapped
        return None


def _images_at_once(side: int, patch: int | None) -> int:
    """Images in one inference: a power of 2 from 2 to the batch, so that their patches stay about as many.

    A ViT-B/16 takes as much processor time by 4 as by 16 (23.6 and 23.3 s for 64 images), and 130 MB less.
    """
    if patch is None:
        return _BATCH
    most = _PATCHES // (side // patch) ** 2
    return min(_BATCH, max(2, 1 << max(0, most.bit_length() - 1)))


def _bfloat16(values: Floats) -> Floats:
    """Rounded to the nearest bfloat16, of two equally near ones to the even one."""
    bits = values.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) & np.uint32(0xFFFF0000)).view(np.float32)


def _check(rows: NDArray[Any], dtype: DTypeLike, row: tuple[int, ...]) -> None:
    if rows.dtype != dtype or rows.shape[1:] != row:
        wanted = ", ".join(map(str, ("n", *row)))
        raise ValueError(f"expected {np.dtype(dtype)}[{wanted}], not {rows.dtype}{list(rows.shape)}")


def _write(compiled: ov.CompiledModel, path: Path) -> None:
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


def _checksum(words: NDArray[np.uint64]) -> np.uint64:
    """The sum modulo 2**64: it finds what disks and kills do to files, at the speed of memory."""
    return np.uint64(words.sum(dtype=np.uint64))


class _LettingGo:
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


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
