"""How much work one image is: the operations of a tower's products, counted by running it over shapes."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from nshot.models.family import ImageTower
from nshot.models.ops import Gelu, Rope
from nshot.types import Floats

Shape: TypeAlias = tuple[int, ...]


def gflop(tower: ImageTower) -> float:
    """Billions of multiplications and additions for one image, in convolutions, linear maps and attention."""
    ops = _Counting()
    side = tower.image_size
    # weights that take no memory: of each, one zero seen everywhere
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in tower.shapes().items()}
    with np.errstate(all="ignore"):
        tower(ops, tower.prepare(tensors), (1, 3, side, side))
    return 2 * ops.products / 1e9


class _Counting:
    """See ``nshot.models.ops.Ops``: a node is the shape of its value."""

    prunes = True

    def __init__(self) -> None:
        self.products = 0

    def weight(self, values: Floats) -> Shape:
        return values.shape

    def add(self, x: Shape, y: Shape) -> Shape:
        return np.broadcast_shapes(x, y)

    def multiply(self, x: Shape, y: Shape) -> Shape:
        return np.broadcast_shapes(x, y)

    def convolution(
        self,
        x: Shape,
        weight: Shape,
        stride: int,
        *,
        bias: Shape | None = None,
        padding: int = 0,
        groups: int = 1,
    ) -> Shape:
        height, width = ((side + 2 * padding - weight[-1]) // stride + 1 for side in x[2:])
        self.products += height * width * math.prod(weight)
        return (x[0], weight[0], height, width)

    def tokens(self, x: Shape) -> Shape:
        return (x[0], x[2] * x[3], x[1])

    def grid(self, x: Shape, side: int) -> Shape:
        return (x[0], x[2], side, side)

    def scale(self, x: Shape, factors: Shape) -> Shape:
        return x

    def relu(self, x: Shape) -> Shape:
        return x

    def sigmoid(self, x: Shape) -> Shape:
        return x

    def elu_and_one(self, x: Shape) -> Shape:
        return x

    def prepend(self, row: Shape, x: Shape) -> Shape:
        return (x[0], x[1] + 1, x[2])

    def repeat(self, rows: Shape, x: Shape) -> Shape:
        return (x[0], *rows)

    def prefix(self, table: Shape, x: Shape) -> Shape:
        return (x[1], table[1])

    def first(self, x: Shape) -> Shape:
        return (x[0], 1, x[2])

    def rest(self, x: Shape) -> Shape:
        return (x[0], x[1] - 1, x[2])

    def pick(self, x: Shape, position: int) -> Shape:
        return (x[0], x[2])

    def mean(self, x: Shape, *, skip: bool) -> Shape:
        return (x[0], x[2])

    def at(self, x: Shape, positions: Any) -> Shape:
        return (x[0], x[2])

    def linear(self, x: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
        self.products += math.prod(x) * weight[0]
        return (*x[:-1], weight[0])

    def norm(self, x: Shape, weight: Shape, bias: Shape, epsilon: float) -> Shape:
        return x

    def gelu(self, x: Shape, kind: Gelu) -> Shape:
        return x

    def attention(
        self, q: Shape, k: Shape, v: Shape, heads: int, *, causal: bool = False, rope: Rope | None = None
    ) -> Shape:
        self.products += q[1] * k[1] * (q[2] + v[2])
        return q
