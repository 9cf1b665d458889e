"""The few operations that a tower is made of: a tower is written once in these, and each runtime brings them.

n is the number of rows, of images or of texts, and t that of tokens in a row.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from nshot.types import Floats

Node: TypeAlias = Any
"""A value inside of a graph: an OpenVINO node, or a torch tensor."""

Gelu: TypeAlias = Literal["gelu", "quick_gelu", "gelu_tanh"]
"""x * Phi(x), exactly; x * sigmoid(1.702 x), OpenAI's; and its approximation by tanh, SigLIP's."""


class Rope(NamedTuple):
    """Turns of queries and keys by their tokens' places: float32[t, c / heads], each its two halves alike.

    A vector's halves a, b become a cos - b sin, b cos + a sin.
    """

    cos: Floats
    sin: Floats


class Ops(Protocol):
    """What a runtime computes. No operation lets one row see another one."""

    prunes: bool
    """Whether the last layer should be spared what does not reach the vector. On torch it is not: its matrix
    products give other last bits for fewer rows."""

    def weight(self, values: Floats) -> Node:
        """A constant."""

    def add(self, x: Node, y: Node) -> Node:
        """Sum, broadcast as numpy does."""

    def multiply(self, x: Node, y: Node) -> Node:
        """Product, broadcast as numpy does."""

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
        """n,c,h,w with weights o,c/groups,k,k -> n,o,h/stride,w/stride."""

    def tokens(self, x: Node) -> Node:
        """n,c,h,w -> n,h*w,c."""

    def grid(self, x: Node, side: int) -> Node:
        """n,side*side,c -> n,c,side,side."""

    def scale(self, x: Node, factors: Node) -> Node:
        """n,c,h,w times n,c."""

    def relu(self, x: Node) -> Node:
        """Zero where negative."""

    def sigmoid(self, x: Node) -> Node:
        """1 / (1 + exp(-x))."""

    def elu_and_one(self, x: Node) -> Node:
        """1 + x where x is positive, else exp(x)."""

    def prepend(self, row: Node, x: Node) -> Node:
        """The constant c before the tokens of each row: n,t,c -> n,1+t,c."""

    def repeat(self, rows: Node, x: Node) -> Node:
        """The constant s,c for each row of x: n,s,c."""

    def prefix(self, table: Node, x: Node) -> Node:
        """The first t rows of a table, t being the number of tokens in x."""

    def first(self, x: Node) -> Node:
        """n,t,c -> n,1,c."""

    def rest(self, x: Node) -> Node:
        """n,t,c -> n,t-1,c: all tokens but the first."""

    def pick(self, x: Node, position: int) -> Node:
        """n,t,c -> n,c: of each row the same token, counted from the end if negative."""

    def mean(self, x: Node, *, skip: bool) -> Node:
        """n,t,c -> n,c, over the tokens, or all but the first."""

    def at(self, x: Node, positions: Node) -> Node:
        """n,t,c and int64[n] -> n,c: of each row one token."""

    def linear(self, x: Node, weight: Node, bias: Node | None = None) -> Node:
        """Matrix product and sum over the last axis: x W^T + b."""

    def norm(self, x: Node, weight: Node, bias: Node, epsilon: float) -> Node:
        """Layer norm over the last axis."""

    def gelu(self, x: Node, kind: Gelu) -> Node:
        """The activation."""

    def attention(
        self, q: Node, k: Node, v: Node, heads: int, *, causal: bool = False, rope: Rope | None = None
    ) -> Node:
        """softmax(q k^T / sqrt(c / heads)) v in each head: n,s,c and n,t,c and n,t,c -> n,s,c."""
