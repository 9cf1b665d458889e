"""A model with torch, for GPUs; on a CPU the reference that the other runtime is held to.

On a cuda GPU two calls at once each have a lane: a stream of their own, and pinned memory, through which
pixels go up and vectors come down without waiting. So one call's copies run beside the other's computing, and
each batch waits for the GPU once, for its vectors. In bf16 the matrices of the image tower lie on the device
in bfloat16, as autocast would make them anew for each batch: the same vectors, and half the memory.
Everything else is the same code on every device.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nshot.encoders import Detections, Precision, digest_of
from nshot.encoders.torch_ops import TorchOps, multiplied
from nshot.errors import DeviceError
from nshot.models.owlv2 import BoxTower
from nshot.types import Floats, Pixels, Tokens

if TYPE_CHECKING:
    from nshot.models.checkpoint import Checkpoint
    from nshot.models.family import ImageTower, TextTower
    from nshot.models.ops import Node

_PATCHES = 16384  # in one batch on a GPU, to begin with: where memory is short, fewer
_MOST = 256  # images in it

log = logging.getLogger("nshot")


def best_device() -> str:
    """The first that torch sees here of cuda, mps and cpu."""
    return next(name for name in ("cuda", "mps", "cpu") if name in _devices())


def describe() -> list[str]:
    """Each GPU that torch sees here, in words."""
    found = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            told = torch.cuda.get_device_properties(number)
            native = "bf16" if torch.cuda.is_bf16_supported(False) else "no native bf16"
            found.append(f"cuda:{number} {told.name}, {told.total_memory / 2**30:.0f} GiB, {native}")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


class TorchEncoder:
    """Both towers of a checkpoint, each loaded when it is first used; see ``nshot.encoders.Encoder``.

    Where the device's memory is short, batches are halved, and stay so.

    Args:
        checkpoint: from ``nshot.models.checkpoint.find``.
        device: "cuda", "mps" or "cpu".
        precision: "bf16" is torch's autocast; "auto" is bf16 on a cuda GPU that has it, else f32.
        compiled: let ``torch.compile`` make the image tower's kernels when it is first used, which takes a
            minute or so. All batches then have one size, the last one filled up with zeros.

    Raises:
        DeviceError: torch does not see the device; later, not even one image fits into its memory.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str, precision: Precision = "auto", *, compiled: bool = False
    ) -> None:
        if device not in _devices():
            raise DeviceError(
                f"torch {torch.__version__} sees no {device} device here: it has {' and '.join(_devices())}."
            )
        if precision == "auto":
            precision = "bf16" if device == "cuda" and torch.cuda.is_bf16_supported(False) else "f32"
        self.device = device
        self.precision: str = precision
        self.dimension = checkpoint.config.dimension
        self.streams = 2 if device == "cuda" else 1
        self.batch = 16 if device == "cpu" else _images_at_once(checkpoint.config.vision)
        self.fingerprint = digest_of(checkpoint, "torch", self.precision, *(["compiled"] if compiled else []))
        self._checkpoint = checkpoint
        self._rows = self.batch  # in one go: fewer where memory was short
        self._lock = threading.Lock()
        self._loaded: dict[str, dict[str, torch.Tensor]] = {}
        self._shift, self._scale = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (checkpoint.image_mean, checkpoint.image_std)
        )
        self._lanes: SimpleQueue[_Lane] = SimpleQueue()
        for _ in range(self.streams):
            self._lanes.put(_Lane(device))
        self._compiled = compiled
        self._tower: Callable[..., Node] = checkpoint.config.vision
        if compiled:
            self._tower = torch.compile(checkpoint.config.vision, dynamic=False)

    def encode_images(self, pixels: Pixels) -> Floats:
        """uint8[n,3,s,s] (RGB, not normalised) -> float32[n,d], unit norm."""
        tower = self._checkpoint.config.vision

        def run(lane: _Lane, part: slice) -> list[Node]:
            rows = pixels[part]
            if self._compiled and len(rows) < self._rows:
                rows = np.concatenate([rows, np.zeros((self._rows - len(rows), *rows.shape[1:]), np.uint8)])
            return [self._tower(TorchOps(), self._weights("images", tower), self._normalised(lane, rows))]

        return self._batches(len(pixels), run)[0]

    def encode_patches(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """uint8[n,3,s,s] -> float32[n,d] and float32[n,p,d], both of unit norm."""
        tower = self._checkpoint.config.vision

        def run(lane: _Lane, part: slice) -> tuple[Node, Node]:
            x = self._normalised(lane, pixels[part])
            return tower.dense(TorchOps(), self._weights("images", tower), x)

        vectors, patches = self._batches(len(pixels), run, (tower.grid**2, self.dimension))
        return vectors, patches

    def detect(self, pixels: Floats) -> Detections:
        """float32[n,3,s,s], normalised as the checkpoint says -> what is in each."""
        tower = self._checkpoint.config.vision
        assert isinstance(tower, BoxTower)
        parts = []
        with self._lane() as lane:
            for row in range(len(pixels)):
                x = lane.send(pixels[row : row + 1])
                found = tower.detect(TorchOps(), self._weights("images", tower), x)
                parts.append(lane.fetch([each.float() for each in found]))
        return Detections.of([np.concatenate(each) for each in zip(*parts, strict=True)])

    def encode_tokens(self, tokens: Tokens) -> Floats:
        """int64[n,context] -> float32[n,d], unit norm."""
        tower, tensors = self._checkpoint.config.text, self._checkpoint.tensors()
        ends = tower.ends(tokens)

        def run(lane: _Lane, part: slice) -> list[Node]:
            x, last = lane.send(tensors.rows(tower.table, tokens[part])), lane.send(ends[part], "ends")
            return [tower(TorchOps(), self._weights("texts", tower), x, last)]

        return self._batches(len(tokens), run)[0]

    def _normalised(self, lane: _Lane, pixels: Pixels) -> Node:
        return (lane.send(pixels).float() / 255 - self._shift) / self._scale

    def _batches(
        self, count: int, run: Callable[[_Lane, slice], Iterable[Node]], *more: tuple[int, ...]
    ) -> list[Floats]:
        """What ``run`` gives for each part, to unit norm: a vector per row, and perhaps ``more``."""
        outputs = [np.empty((count, *shape), np.float32) for shape in ((self.dimension,), *more)]
        start = 0
        with self._lane() as lane:
            while start < count:
                part = slice(start, min(start + self._rows, count))
                found = self._tried(lane, run, part)
                if found is None:
                    continue  # in smaller parts
                for output, each in zip(outputs, found, strict=True):
                    output[part] = each[: part.stop - start]
                start = part.stop
        return outputs

    def _tried(
        self, lane: _Lane, run: Callable[[_Lane, slice], Iterable[Node]], part: slice
    ) -> list[Floats] | None:
        """What ``run`` gives for one part; None where memory was short, and parts are smaller from now on."""
        try:
            return lane.fetch([_unit(each.float()) for each in run(lane, part)])
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            rows = part.stop - part.start
            if rows == 1:
                raise DeviceError(
                    f"the memory of {self.device} is too short for one image or text of "
                    f"{self._checkpoint.name}: end what else uses it, or take --device cpu"
                ) from error
        with self._lock:  # the error is gone here, and with it what its frames held in memory
            self._rows = min(self._rows, rows // 2)
        log.info("out of memory on %s: batches of %d from now on", self.device, self._rows)
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return None

    @contextmanager
    def _lane(self) -> Iterator[_Lane]:
        lane = self._lanes.get()
        try:
            with ExitStack() as context:
                context.enter_context(torch.inference_mode())
                # f32 means f32: cudnn would take TensorFloat-32 for the patches
                context.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
                if self.precision == "bf16":
                    context.enter_context(torch.autocast(self.device, torch.bfloat16))
                if lane.stream is not None:
                    context.enter_context(torch.cuda.stream(lane.stream))
                yield lane
        finally:
            self._lanes.put(lane)

    def _weights(self, name: str, tower: ImageTower | TextTower) -> dict[str, torch.Tensor]:
        """A tower's weights on the device, read by nshot's own reader: nothing in the files is executed."""
        with self._lock:
            if name not in self._loaded:
                weights = tower.prepare(self._checkpoint.tensors())
                low: frozenset[str] = frozenset()
                if name == "images" and self.precision == "bf16":
                    shapes = {key: value.shape for key, value in weights.items()}
                    low = multiplied(self._checkpoint.config.vision, shapes)
                self._loaded[name] = {
                    key: torch.from_numpy(np.array(value)).to(
                        device=self.device, dtype=torch.bfloat16 if key in low else torch.float32
                    )
                    for key, value in weights.items()
                }
                if self.device == "cuda":
                    torch.cuda.synchronize()  # the other lane's stream may use them next
            return self._loaded[name]


class _Lane:
    """What one call computes in: on a cuda GPU a stream, and pinned memory for what goes up and down."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.stream = torch.cuda.Stream() if device == "cuda" else None
        self._pinned: dict[str, torch.Tensor] = {}

    def send(self, values: NDArray[Any], name: str = "") -> torch.Tensor:
        """To the device; ``name`` tells apart what is sent for one batch."""
        if self.stream is None:
            return torch.from_numpy(np.array(values)).to(self.device)
        host = self._host(f"up {name}", values.nbytes)[: values.nbytes]
        np.copyto(host.numpy(), np.ascontiguousarray(values).reshape(-1).view(np.uint8))
        kind = torch.from_numpy(np.empty(0, values.dtype)).dtype
        return host.to(self.device, non_blocking=True).view(kind).view(values.shape)

    def fetch(self, outputs: list[torch.Tensor]) -> list[Floats]:
        """From the device, float32, all of them with one wait."""
        if self.stream is None:
            return [each.cpu().numpy() for each in outputs]
        hosts = []
        for number, each in enumerate(outputs):
            size = each.numel() * each.element_size()
            host = self._host(f"down {number}", size)[:size].view(each.dtype).view(each.shape)
            hosts.append(host.copy_(each, non_blocking=True))
        self.stream.synchronize()
        return [each.numpy().copy() for each in hosts]

    def _host(self, name: str, size: int) -> torch.Tensor:
        """Pinned bytes, at least so many. The lane's last batch is done with them: it was waited for."""
        if name not in self._pinned or len(self._pinned[name]) < size:
            self._pinned[name] = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return self._pinned[name]


def _unit(found: torch.Tensor) -> torch.Tensor:
    return found / found.norm(dim=-1, keepdim=True).clamp_min(1e-6)


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says so: on cuda by a type of its own, elsewhere in words."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error).lower() for words in ("out of memory", "can't allocate memory")
    )


def _images_at_once(tower: ImageTower) -> int:
    """Images in a batch on a GPU: a power of 2, so that their patches stay about as many."""
    patch = getattr(tower, "patch_size", None)
    if patch is None:
        return _MOST // 4
    most: int = _PATCHES // (tower.image_size // patch) ** 2
    return min(_MOST, max(8, 1 << max(0, most.bit_length() - 1)))


def _devices() -> list[str]:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, available in there.items() if available]
