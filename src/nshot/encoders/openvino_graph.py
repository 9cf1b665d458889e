"""CLIP's two towers as OpenVINO graphs, built from a checkpoint's tensors.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021: two
pre-norm transformers, each with a linear map into the common space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as op

from nshot.types import Floats

if TYPE_CHECKING:
    from nshot.models.clip import TextConfig, TowerConfig, VisionConfig

Node: TypeAlias = Any  # an OpenVINO node; any count of rows n is dynamic
Tensors: TypeAlias = Mapping[str, Floats]

VERSION = "3"
"""To be raised by whatever changes a vector or the form of the graphs."""


def image_tower(
    config: VisionConfig, tensors: Tensors, mean: Sequence[float], std: Sequence[float]
) -> ov.Model:
    """uint8[n,3,s,s] RGB -> float32[n,d], unit norm."""
    tower = _Tower(config, tensors, "vision_model")
    side, patch, width = config.image_size, config.patch_size, config.hidden_size
    pixels = op.parameter([-1, 3, side, side], np.uint8, name="pixels")
    # (x / 255 - mean) / std in two steps
    shift = np.array(mean, np.float64).reshape(1, 3, 1, 1) * 255
    scale = 1 / (np.array(std, np.float64).reshape(1, 3, 1, 1) * 255)
    x = op.multiply(op.subtract(op.convert(pixels, "f32"), _float(shift)), _float(scale))

    x = op.convolution(
        x, tower["embeddings.patch_embedding.weight"], [patch, patch], [0, 0], [0, 0], [1, 1]
    )  # n, width, s/patch, s/patch
    x = op.transpose(op.reshape(x, _ints(0, width, -1), special_zero=True), _ints(0, 2, 1))
    rows = op.gather(op.shape_of(x), _ints(0), _ints(0))
    first = op.broadcast(tower["embeddings.class_embedding"], op.concat([rows, _ints(1, width)], 0))
    x = op.add(op.concat([first, x], 1), tower["embeddings.position_embedding.weight"])

    # the name is spelt so in every checkpoint
    x = tower.layers(tower.norm(x, "pre_layrnorm"), first_only=True)
    x = op.gather(x, op.constant(np.int64(0)), op.constant(np.int64(1)))
    return _model(tower.norm(x, "post_layernorm"), tensors["visual_projection.weight"], pixels)


def text_tower(config: TextConfig, tensors: Tensors) -> ov.Model:
    """int64[n,t], t up to the context length -> float32[n,d], unit norm.

    A token sees only what precedes it, so whatever follows a text's end may be cut off beforehand.
    """
    tower = _Tower(config, tensors, "text_model")
    tokens = op.parameter([-1, -1], np.int64, name="tokens")
    length = op.gather(op.shape_of(tokens), _ints(1), _ints(0))
    x = op.gather(tower["embeddings.token_embedding.weight"], tokens, op.constant(np.int64(0)))
    positions = op.slice(tower["embeddings.position_embedding.weight"], _ints(0), length, _ints(1), _ints(0))
    x = tower.layers(op.add(x, positions), causal=True)

    # The text's vector is its end token's. Configs of 2021 name a wrong one, 2; the right one has the largest
    # id. The first of several is the end, what follows is padding: hence "value" is stable.
    if config.eos_token_id == 2:
        marks = tokens
    else:
        marks = op.convert(op.equal(tokens, op.constant(np.int64(config.eos_token_id))), "i32")
    one = op.constant(np.int64(1))
    _, end = op.topk(marks, one, 1, "max", "value", "i64", stable=True).outputs()
    x = op.squeeze(op.gather(x, end, one, 1), one)  # n, 1 -> n
    return _model(tower.norm(x, "final_layer_norm"), tensors["text_projection.weight"], tokens)


class _Tower:
    """The transformer of either tower: names in, nodes out."""

    def __init__(self, config: TowerConfig, tensors: Tensors, prefix: str) -> None:
        self.config = config
        self.tensors = tensors
        self.prefix = prefix

    def __getitem__(self, name: str) -> Node:
        return _shared(self.tensors[f"{self.prefix}.{name}"])

    def layers(self, x: Node, *, causal: bool = False, first_only: bool = False) -> Node:
        """n, t, width -> the same; with ``first_only`` n, 1, width, and the last layer spares the others."""
        for i in range(self.config.layers):
            name = f"encoder.layers.{i}"
            known = asking = self.norm(x, f"{name}.layer_norm1")
            if first_only and i == self.config.layers - 1:
                x, asking = (op.gather(rows, _ints(0), _ints(1)) for rows in (x, known))
            x = op.add(x, self.attention(asking, known, f"{name}.self_attn", causal))
            x = op.add(x, self.mlp(self.norm(x, f"{name}.layer_norm2"), f"{name}.mlp"))
        return x

    def attention(self, asking: Node, known: Node, name: str, causal: bool) -> Node:
        heads, width = self.config.heads, self.config.hidden_size

        def split(x: Node, part: str) -> Node:  # n, t, width -> n, heads, t, width / heads
            y = op.reshape(
                self.linear(x, f"{name}.{part}"), _ints(0, 0, heads, width // heads), special_zero=True
            )
            return op.transpose(y, _ints(0, 2, 1, 3))

        q, k, v = split(asking, "q_proj"), split(known, "k_proj"), split(known, "v_proj")
        y = op.scaled_dot_product_attention(q, k, v, causal=causal)  # scales by head size ** -0.5
        y = op.reshape(op.transpose(y, _ints(0, 2, 1, 3)), _ints(0, 0, width), special_zero=True)
        return self.linear(y, f"{name}.out_proj")

    def mlp(self, x: Node, name: str) -> Node:
        x = self.linear(x, f"{name}.fc1")
        # quick_gelu is x * sigmoid(1.702 x), which is swish with that beta
        quick = self.config.activation == "quick_gelu"
        x = op.swish(x, op.constant(np.float32(1.702))) if quick else op.gelu(x, "erf")
        return self.linear(x, f"{name}.fc2")

    def linear(self, x: Node, name: str) -> Node:
        return op.add(op.matmul(x, self[f"{name}.weight"], False, True), self[f"{name}.bias"])

    def norm(self, x: Node, name: str) -> Node:
        x = op.mvn(x, _ints(-1), True, self.config.layer_norm_eps, "inside_sqrt")
        return op.add(op.multiply(x, self[f"{name}.weight"]), self[f"{name}.bias"])


def _model(x: Node, projection: Floats, parameter: Node) -> ov.Model:
    """Into the common space, and to unit norm along the features: each row by itself."""
    x = op.matmul(x, _shared(projection), False, True)
    return ov.Model([op.normalize_l2(x, _ints(-1), 1e-12, "max")], [parameter])


class _Writeable:
    """A read-only array's memory, called writeable: OpenVINO shares no other, though it never writes."""

    def __init__(self, array: Floats) -> None:
        self.array = array  # keeps the memory for as long as anybody uses it
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}


def _shared(array: Floats) -> Node:
    """A constant that is the array's own memory: the mapped file, not a copy of it."""
    return op.constant(np.asarray(_Writeable(array)), shared_memory=True)


def _float(values: NDArray[Any]) -> Node:
    return op.constant(values.astype(np.float32))


def _ints(*values: int) -> Node:
    return op.constant(np.array(values, np.int64))
