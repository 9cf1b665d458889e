"""A model's towers as OpenVINO graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nshot.encoders.runtime import op, ov
from nshot.types import Floats

if TYPE_CHECKING:
    from nshot.models.family import ImageTower, Tensors, TextTower
    from nshot.models.ops import Gelu, Node, Rope
    from nshot.models.owlv2 import BoxTower

VERSION = "3"
"""To be raised by whatever changes a vector."""

FORM = "6"
"""To be raised by whatever changes the graphs, their inputs or outputs, and no vector."""


def image_tower(
    tower: ImageTower,
    tensors: Tensors,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    patches: bool = False,
    ops: OpenVINOOps | None = None,
) -> ov.Model:
    """uint8[n,3,s,s] RGB -> float32[n,d], unit norm; with ``patches`` float32[n,p,d] as well."""
    ops = ops or OpenVINOOps()
    side = tower.image_size
    pixels = op.parameter([-1, 3, side, side], np.uint8, name="pixels")
    # (x / 255 - mean) / std in two steps
    shift = np.array(mean, np.float64).reshape(1, 3, 1, 1) * 255
    scale = 1 / (np.array(std, np.float64).reshape(1, 3, 1, 1) * 255)
    x = op.multiply(op.subtract(op.convert(pixels, "f32"), _float(shift)), _float(scale))
    if patches:
        both = tower.dense(ops, tower.prepare(tensors), x)
        return ov.Model([_unit(each) for each in both], [pixels])
    return ov.Model([_unit(tower(ops, tower.prepare(tensors), x))], [pixels])


def box_tower(tower: BoxTower, tensors: Tensors, ops: OpenVINOOps | None = None) -> ov.Model:
    """float32[n,3,s,s], normalised -> float32: boxes [n,p,4], objectness, classes, shift, scale [n,p,...]."""
    side = tower.image_size
    pixels = op.parameter([-1, 3, side, side], np.float32, name="pixels")
    return ov.Model(list(tower.detect(ops or OpenVINOOps(), tower.prepare(tensors), pixels)), [pixels])


def text_tower(tower: TextTower, tensors: Tensors, ops: OpenVINOOps | None = None) -> ov.Model:
    """Rows of the token table and the positions of the texts' ends -> float32[n,d], unit norm.

    The table stays outside of the graph (CLIP's takes 101 MB, SigLIP 2's 786): its rows come as
    float32[n,t,width].
    """
    ends = op.parameter([-1], np.int64, name="ends")
    rows = op.parameter([-1, -1, tower.hidden_size], np.float32, name="rows")
    return ov.Model([_unit(tower(ops or OpenVINOOps(), tower.prepare(tensors), rows, ends))], [rows, ends])


class OpenVINOOps:
    """See ``nshot.models.ops.Ops``."""

    prunes = True

    def weight(self, values: Floats) -> Node:
        """The array's own memory: the mapped file, not a copy of it."""
        return op.constant(np.asarray(_Writeable(values)), shared_memory=True)

    def add(self, x: Node, y: Node) -> Node:
        """Sum."""
        return op.add(x, y)

    def multiply(self, x: Node, y: Node) -> Node:
        """Product."""
        return op.multiply(x, y)

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
        where = ([stride, stride], [padding, padding], [padding, padding], [1, 1])
        if groups == 1:
            x = op.convolution(x, weight, *where)
        else:
            outputs, *rest = weight.get_output_shape(0)
            x = op.group_convolution(
                x, op.reshape(weight, _ints(groups, outputs // groups, *rest), False), *where
            )
        return x if bias is None else op.add(x, op.reshape(bias, _ints(1, -1, 1, 1), False))

    def tokens(self, x: Node) -> Node:
        """n,c,h,w -> n,h*w,c."""
        channels = x.get_output_partial_shape(0)[1].get_length()
        return op.transpose(op.reshape(x, _ints(0, channels, -1), special_zero=True), _ints(0, 2, 1))

    def grid(self, x: Node, side: int) -> Node:
        """n,side*side,c -> n,c,side,side."""
        return op.reshape(op.transpose(x, _ints(0, 2, 1)), _ints(0, 0, side, side), special_zero=True)

    def scale(self, x: Node, factors: Node) -> Node:
        """n,c,h,w times n,c."""
        return op.multiply(x, op.unsqueeze(factors, _ints(2, 3)))

    def relu(self, x: Node) -> Node:
        """Zero where negative."""
        return op.relu(x)

    def sigmoid(self, x: Node) -> Node:
        """Logistic function."""
        return op.sigmoid(x)

    def elu_and_one(self, x: Node) -> Node:
        """1 + x where x is positive, else exp(x)."""
        return op.add(op.elu(x, 1.0), op.constant(np.float32(1)))

    def prepend(self, row: Node, x: Node) -> Node:
        """n,t,c -> n,1+t,c."""
        rows = op.gather(op.shape_of(x), _ints(0), _ints(0))
        width = row.get_output_shape(0)[-1]
        return op.concat([op.broadcast(row, op.concat([rows, _ints(1, width)], 0)), x], 1)

    def repeat(self, rows: Node, x: Node) -> Node:
        """s,c -> n,s,c."""
        count = op.gather(op.shape_of(x), _ints(0), _ints(0))
        return op.broadcast(rows, op.concat([count, _ints(*rows.get_output_shape(0))], 0))

    def prefix(self, table: Node, x: Node) -> Node:
        """The first t rows of a table."""
        length = op.gather(op.shape_of(x), _ints(1), _ints(0))
        return op.slice(table, _ints(0), length, _ints(1), _ints(0))

    def first(self, x: Node) -> Node:
        """n,t,c -> n,1,c."""
        return op.gather(x, _ints(0), _ints(1))

    def rest(self, x: Node) -> Node:
        """n,t,c -> n,t-1,c."""
        return op.slice(x, _ints(1), _ints(2**31), _ints(1), _ints(1))

    def pick(self, x: Node, position: int) -> Node:
        """n,t,c -> n,c."""
        return op.gather(x, op.constant(np.int64(position)), op.constant(np.int64(1)))

    def mean(self, x: Node, *, skip: bool) -> Node:
        """n,t,c -> n,c."""
        return op.reduce_mean(self.rest(x) if skip else x, _ints(1), False)

    def at(self, x: Node, positions: Node) -> Node:
        """n,t,c -> n,c."""
        return op.gather(x, positions, op.constant(np.int64(1)), 1)

    def linear(self, x: Node, weight: Node, bias: Node | None = None) -> Node:
        """Matrix product and sum: x W^T + b."""
        x = op.matmul(x, weight, False, True)
        return x if bias is None else op.add(x, bias)

    def norm(self, x: Node, weight: Node, bias: Node, epsilon: float) -> Node:
        """Layer norm."""
        return op.add(op.multiply(op.mvn(x, _ints(-1), True, epsilon, "inside_sqrt"), weight), bias)

    def gelu(self, x: Node, kind: Gelu) -> Node:
        """The activation; x * sigmoid(1.702 x) is swish with that beta."""
        if kind == "quick_gelu":
            return op.swish(x, op.constant(np.float32(1.702)))
        return op.gelu(x, "erf" if kind == "gelu" else "tanh")

    def attention(
        self, q: Node, k: Node, v: Node, heads: int, *, causal: bool = False, rope: Rope | None = None
    ) -> Node:
        """n,s,c and n,t,c and n,t,c -> n,s,c."""
        width = q.get_output_partial_shape(0)[2].get_length()

        def split(x: Node) -> Node:  # n, t, width -> n, heads, t, width / heads
            y = op.reshape(x, _ints(0, 0, heads, width // heads), special_zero=True)
            return op.transpose(y, _ints(0, 2, 1, 3))

        q, k, v = split(q), split(k), split(v)
        if rope is not None:
            q, k = _turned(q, rope), _turned(k, rope)
        y = op.scaled_dot_product_attention(q, k, v, causal=causal)  # scales by head size ** -0.5
        return op.reshape(op.transpose(y, _ints(0, 2, 1, 3)), _ints(0, 0, width), special_zero=True)


class SmallOps(OpenVINOOps):
    """The same with the linear maps' weights in 8 bits, which are widened again where they are used.

    Each row has a scale and a zero point of its own, and the arithmetic stays float32.
    """

    def linear(self, x: Node, weight: Node, bias: Node | None = None) -> Node:
        """Matrix product and sum: x W^T + b."""
        rows = weight.data
        low = np.minimum(rows.min(axis=1, keepdims=True), 0)
        scale = np.maximum(np.maximum(rows.max(axis=1, keepdims=True), 0) - low, 1e-12) / 255
        zero = np.rint(-low / scale)
        small = np.clip(np.rint(rows / scale) + zero, 0, 255).astype(np.uint8)
        widened = op.subtract(
            op.convert(op.constant(small), "f32"), op.convert(op.constant(zero.astype(np.uint8)), "f32")
        )
        return super().linear(x, op.multiply(widened, _float(scale)), bias)


def _turned(x: Node, rope: Rope) -> Node:
    """n,heads,t,c -> the same."""
    a, b = op.split(x, op.constant(np.int64(-1)), 2).outputs()
    other = op.concat([op.multiply(b, op.constant(np.float32(-1))), a], -1)
    return op.add(op.multiply(x, _float(rope.cos)), op.multiply(other, _float(rope.sin)))


def _unit(x: Node) -> Node:
    """To unit norm along the features: each row by itself."""
    return op.normalize_l2(x, _ints(-1), 1e-12, "max")


class _Writeable:
    """A read-only array's memory, called writeable: OpenVINO shares no other, though it never writes."""

    def __init__(self, array: Floats) -> None:
        self.array = array  # keeps the memory for as long as anybody uses it
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}


def _float(values: NDArray[Any]) -> Node:
    return op.constant(values.astype(np.float32))


def _ints(*values: int) -> Node:
    return op.constant(np.array(values, np.int64))
