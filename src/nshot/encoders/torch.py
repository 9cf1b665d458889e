"""A model with torch, for GPUs; on a CPU the reference that the other runtime is held to."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from nshot.encoders import Detections, Precision, digest_of
from nshot.errors import DeviceError
from nshot.models.owlv2 import BoxTower
from nshot.types import Floats, Pixels, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nshot.models.checkpoint import Checkpoint
    from nshot.models.family import ImageTower, TextTower
    from nshot.models.ops import Gelu, Node, Rope


def best_device() -> str:
    """The first that torch sees here of cuda, mps and cpu."""
    return next(name for name in ("cuda", "mps", "cpu") if name in _devices())


class TorchEncoder:
    """Both towers of a checkpoint, each loaded when it is first used; see ``nshot.encoders.Encoder``.

    Args:
        checkpoint: from ``nshot.models.checkpoint.find``.
        device: "cuda", "mps" or "cpu".
        precision: "bf16" is torch's autocast; "auto" is bf16 on a cuda GPU that has it, else f32.

    Raises:
        DeviceError: torch does not see the device.
    """

    streams = 1

    def __init__(self, checkpoint: Checkpoint, device: str, precision: Precision = "auto") -> None:
        if device not in _devices():
            raise DeviceError(
                f"torch {torch.__version__} sees no {device} device here: it has {' and '.join(_devices())}."
            )
        if precision == "auto":
            precision = "bf16" if device == "cuda" and torch.cuda.is_bf16_supported(False) else "f32"
        self.device = device
        self.precision: str = precision
        self.dimension = checkpoint.config.dimension
        self.batch = 16 if device == "cpu" else 64
        self.fingerprint = digest_of(checkpoint, "torch", self.precision)
        self._checkpoint = checkpoint
        self._lock = threading.Lock()
        self._loaded: dict[str, dict[str, torch.Tensor]] = {}
        self._shift, self._scale = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (checkpoint.image_mean, checkpoint.image_std)
        )

    def encode_images(self, pixels: Pixels) -> Floats:
        """uint8[n,3,s,s] (RGB, not normalised) -> float32[n,d], unit norm."""
        tower = self._checkpoint.config.vision

        def run(part: slice) -> list[Node]:
            return [tower(TorchOps(), self._weights("images", tower), self._normalised(pixels[part]))]

        return self._batches(len(pixels), run)[0]

    def encode_patches(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """uint8[n,3,s,s] -> float32[n,d] and float32[n,p,d], both of unit norm."""
        tower = self._checkpoint.config.vision

        def run(part: slice) -> tuple[Node, Node]:
            return tower.dense(TorchOps(), self._weights("images", tower), self._normalised(pixels[part]))

        vectors, patches = self._batches(len(pixels), run, (tower.grid**2, self.dimension))
        return vectors, patches

    def detect(self, pixels: Floats) -> Detections:
        """float32[n,3,s,s], normalised as the checkpoint says -> what is in each."""
        tower = self._checkpoint.config.vision
        assert isinstance(tower, BoxTower)
        parts = []
        with ExitStack() as context:
            self._enter(context)
            for row in range(len(pixels)):
                x = self._there(pixels[row : row + 1])
                found = tower.detect(TorchOps(), self._weights("images", tower), x)
                parts.append([each.float().cpu().numpy() for each in found])
        return Detections.of([np.concatenate(each) for each in zip(*parts, strict=True)])

    def encode_tokens(self, tokens: Tokens) -> Floats:
        """int64[n,context] -> float32[n,d], unit norm."""
        tower, tensors = self._checkpoint.config.text, self._checkpoint.tensors()
        ends = tower.ends(tokens)

        def run(part: slice) -> list[Node]:
            x = self._there(tensors.rows(tower.table, tokens[part]))
            return [tower(TorchOps(), self._weights("texts", tower), x, self._there(ends[part]))]

        return self._batches(len(tokens), run)[0]

    def _normalised(self, pixels: Pixels) -> Node:
        return (self._there(pixels).float() / 255 - self._shift) / self._scale

    def _batches(
        self, count: int, run: Callable[[slice], Iterable[Node]], *more: tuple[int, ...]
    ) -> list[Floats]:
        """What ``run`` gives for each part, to unit norm: a vector per row, and perhaps ``more``."""
        outputs = [np.empty((count, *shape), np.float32) for shape in ((self.dimension,), *more)]
        with ExitStack() as context:
            self._enter(context)
            for start in range(0, count, self.batch):
                part = slice(start, start + self.batch)
                for output, each in zip(outputs, run(part), strict=True):
                    found = each.float()
                    found = found / found.norm(dim=-1, keepdim=True).clamp_min(1e-6)
                    output[part] = found.cpu().numpy()
        return outputs

    def _enter(self, context: ExitStack) -> None:
        context.enter_context(torch.inference_mode())
        # f32 means f32: cudnn would take TensorFloat-32 for the patches
        context.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        if self.precision == "bf16":
            context.enter_context(torch.autocast(self.device, torch.bfloat16))

    def _there(self, values: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.array(values)).to(self.device)

    def _weights(self, name: str, tower: ImageTower | TextTower) -> dict[str, torch.Tensor]:
        """A tower's weights on the device, read by nshot's own reader: nothing in the files is executed."""
        with self._lock:
            if name not in self._loaded:
                weights = tower.prepare(self._checkpoint.tensors())
                self._loaded[name] = {key: self._there(value) for key, value in weights.items()}
            return self._loaded[name]


class TorchOps:
    """See ``nshot.models.ops.Ops``; the weights are torch's already."""

    prunes = False

    def weight(self, values: Any) -> Node:
        """The tensor itself."""
        return values

    def add(self, x: Node, y: Node) -> Node:
        """Sum."""
        return x + y

    def multiply(self, x: Node, y: Node) -> Node:
        """Product."""
        return x * y

    def convolution(
        self,
        x: Node,
        weight: Node,
        stride: int,
        *,
        bias: Node | None = None,
        padding: int = 0,
        groups: int = 1,
    ) -> Node:
        """n,c,h,w -> n,o,h/stride,w/stride."""
        return functional.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups)

    def tokens(self, x: Node) -> Node:
        """n,c,h,w -> n,h*w,c."""
        return x.flatten(2).transpose(1, 2)

    def grid(self, x: Node, side: int) -> Node:
        """n,side*side,c -> n,c,side,side."""
        return x.transpose(1, 2).unflatten(2, (side, side))

    def scale(self, x: Node, factors: Node) -> Node:
        """n,c,h,w times n,c."""
        return x * factors[:, :, None, None]

    def relu(self, x: Node) -> Node:
        """Zero where negative."""
        return functional.relu(x)

    def sigmoid(self, x: Node) -> Node:
        """Logistic function."""
        return torch.sigmoid(x)

    def elu_and_one(self, x: Node) -> Node:
        """1 + x where x is positive, else exp(x)."""
        return functional.elu(x) + 1

    def prepend(self, row: Node, x: Node) -> Node:
        """n,t,c -> n,1+t,c."""
        return torch.cat([row.expand(len(x), 1, -1), x], dim=1)

    def repeat(self, rows: Node, x: Node) -> Node:
        """s,c -> n,s,c."""
        return rows.expand(len(x), -1, -1)

    def prefix(self, table: Node, x: Node) -> Node:
        """The first t rows of a table."""
        return table[: x.shape[1]]

    def first(self, x: Node) -> Node:
        """n,t,c -> n,1,c."""
        return x[:, :1]

    def rest(self, x: Node) -> Node:
        """n,t,c -> n,t-1,c."""
        return x[:, 1:]

    def pick(self, x: Node, position: int) -> Node:
        """n,t,c -> n,c."""
        return x[:, position]

    def mean(self, x: Node, *, skip: bool) -> Node:
        """n,t,c -> n,c."""
        return x[:, int(skip) :].mean(dim=1)

    def at(self, x: Node, positions: Node) -> Node:
        """n,t,c -> n,c."""
        return x[torch.arange(len(x), device=x.device), positions]

    def linear(self, x: Node, weight: Node, bias: Node | None = None) -> Node:
        """Matrix product and sum: x W^T + b."""
        return functional.linear(x, weight, bias)

    def norm(self, x: Node, weight: Node, bias: Node, epsilon: float) -> Node:
        """Layer norm."""
        return functional.layer_norm(x, weight.shape, weight, bias, epsilon)

    def gelu(self, x: Node, kind: Gelu) -> Node:
        """The activation."""
        if kind == "quick_gelu":
            return x * torch.sigmoid(1.702 * x)
        return functional.gelu(x, approximate="none" if kind == "gelu" else "tanh")

    def attention(
        self, q: Node, k: Node, v: Node, heads: int, *, causal: bool = False, rope: Rope | None = None
    ) -> Node:
        """n,s,c and n,t,c and n,t,c -> n,s,c."""

        def split(x: Node) -> Node:
            return x.unflatten(2, (heads, -1)).transpose(1, 2)

        q, k, v = split(q), split(k), split(v)
        if rope is not None:
            cos, sin = (torch.from_numpy(values).to(v.device) for values in rope)
            q, k = (x * cos + torch.cat([-x.chunk(2, -1)[1], x.chunk(2, -1)[0]], -1) * sin for x in (q, k))
            q, k = q.to(v.dtype), k.to(v.dtype)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return y.transpose(1, 2).flatten(2)


def _devices() -> list[str]:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, available in there.items() if available]
