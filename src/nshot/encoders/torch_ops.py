"""The operations of a tower in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from nshot.models.family import ImageTower
    from nshot.models.ops import Gelu, Node, Rope


def multiplied(tower: ImageTower, shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Names of the weights of linear maps and convolutions, which may lie in the precision of the products.

    Args:
        tower: an image tower; it runs over shapes here, without values.
        shapes: of each of its weights.
    """
    ops = _Noting()
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    tower(ops, weights, torch.empty((1, 3, tower.image_size, tower.image_size), device="meta"))
    return frozenset(name for name, each in weights.items() if id(each) in ops.weights)


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


class _Noting(TorchOps):
    """Notes what products multiply with."""

    def __init__(self) -> None:
        self.weights: set[int] = set()

    def linear(self, x: Node, weight: Node, bias: Node | None = None) -> Node:
        self.weights.add(id(weight))
        return super().linear(x, weight, bias)

    def convolution(self, x: Node, weight: Node, stride: int, **settings: Any) -> Node:
        self.weights.add(id(weight))
        return super().convolution(x, weight, stride, **settings)
