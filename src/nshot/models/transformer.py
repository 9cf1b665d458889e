"""The two transformers of CLIP and its kin: their sizes, their tensors, and their graphs.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021: two
pre-norm transformers, each with a linear map into the common space. Tensors have the names that they have in
transformers' CLIPModel, whatever the checkpoint calls them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nshot.errors import CorruptCheckpoint
from nshot.models.family import Shapes, Tensors
from nshot.models.ops import Gelu, Node, Ops
from nshot.types import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig:
    """One transformer; ``dimension`` is the length of its vectors."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    activation: Gelu
    layer_norm_eps: float
    dimension: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTransformer(TowerConfig):
    """The text tower.

    Attributes:
        context: tokens in a text, the two specials included.
        vocab_size: number of token ids.
        eos_token_id: the text's vector is taken at the first of these; 2, the convention of 2021, means
            at the largest id instead.
        causal: whether a token sees only what precedes it.
    """

    context: int
    vocab_size: int
    eos_token_id: int
    causal: bool = True

    @property
    def table(self) -> str:
        """Name of the token table."""
        return "text_model.embeddings.token_embedding.weight"

    def ends(self, tokens: Tokens) -> Tokens:
        """The first end token's position. Configs of 2021 name a wrong one: the right one is the largest."""
        marks = tokens if self.eos_token_id == 2 else tokens == self.eos_token_id
        ends: Tokens = marks.argmax(axis=1).astype(np.int64)
        return ends

    def shapes(self) -> Shapes:
        """Every tensor of the tower and its shape."""
        shapes = _layer_shapes(self, "text_model")
        shapes[self.table] = (self.vocab_size, self.hidden_size)
        shapes["text_model.embeddings.position_embedding.weight"] = (self.context, self.hidden_size)
        shapes |= _norm_shapes("text_model.final_layer_norm", self.hidden_size)
        shapes["text_projection.weight"] = (self.dimension, self.hidden_size)
        return shapes

    def __call__(self, ops: Ops, tensors: Tensors, x: Node, ends: Node) -> Node:
        """float[n,t,width], int64[n] -> float[n,d]."""
        layers = Layers(self, ops, tensors, "text_model")
        x = ops.add(x, ops.prefix(layers["embeddings.position_embedding.weight"], x))
        x = layers(x, causal=self.causal)
        x = layers.norm(ops.at(x, ends), "final_layer_norm")
        return ops.linear(x, ops.weight(tensors["text_projection.weight"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionTransformer(TowerConfig):
    """The image tower.

    Attributes:
        image_size: side of the image, in pixels.
        patch_size: side of a patch, in pixels.
    """

    image_size: int
    patch_size: int

    @property
    def positions(self) -> int:
        """Patches in an image, and one for the class embedding."""
        return (self.image_size // self.patch_size) ** 2 + 1

    def shapes(self) -> Shapes:
        """Every tensor of the tower and its shape."""
        size, patch = self.hidden_size, self.patch_size
        shapes = _layer_shapes(self, "vision_model")
        shapes["vision_model.embeddings.class_embedding"] = (size,)
        shapes["vision_model.embeddings.patch_embedding.weight"] = (size, 3, patch, patch)
        shapes["vision_model.embeddings.position_embedding.weight"] = (self.positions, size)
        shapes |= _norm_shapes("vision_model.pre_layrnorm", size)  # spelt so in every checkpoint
        shapes |= _norm_shapes("vision_model.post_layernorm", size)
        shapes["visual_projection.weight"] = (self.dimension, size)
        return shapes

    def __call__(self, ops: Ops, tensors: Tensors, x: Node) -> Node:
        """float[n,3,s,s], normalised -> float[n,d]."""
        layers = Layers(self, ops, tensors, "vision_model")
        x = ops.tokens(ops.convolution(x, layers["embeddings.patch_embedding.weight"], self.patch_size))
        x = ops.prepend(layers["embeddings.class_embedding"], x)
        x = ops.add(x, layers["embeddings.position_embedding.weight"])
        x = layers(layers.norm(x, "pre_layrnorm"), first_only=True)
        x = layers.norm(ops.pick(x, 0), "post_layernorm")
        return ops.linear(x, ops.weight(tensors["visual_projection.weight"]))


class Layers:
    """The transformer of either tower: names in, nodes out."""

    def __init__(self, config: TowerConfig, ops: Ops, tensors: Tensors, prefix: str) -> None:
        self.config = config
        self.ops = ops
        self.tensors = tensors
        self.prefix = prefix

    def __getitem__(self, name: str) -> Node:
        return self.ops.weight(self.tensors[f"{self.prefix}.{name}"])

    def __call__(self, x: Node, *, causal: bool = False, first_only: bool = False) -> Node:
        """n,t,width -> the same; with ``first_only`` maybe n,1,width: no more than the first."""
        for i in range(self.config.layers):
            name = f"encoder.layers.{i}"
            known = asking = self.norm(x, f"{name}.layer_norm1")
            if first_only and self.ops.prunes and i == self.config.layers - 1:
                x, asking = self.ops.first(x), self.ops.first(known)
            x = self.ops.add(x, self.attention(asking, known, f"{name}.self_attn", causal))
            x = self.ops.add(x, self.mlp(self.norm(x, f"{name}.layer_norm2"), f"{name}.mlp"))
        return x

    def attention(self, asking: Node, known: Node, name: str, causal: bool) -> Node:
        """One attention with its four linear maps."""
        q, k, v = (
            self.linear(x, f"{name}.{part}_proj") for x, part in ((asking, "q"), (known, "k"), (known, "v"))
        )
        y = self.ops.attention(q, k, v, self.config.heads, causal=causal)
        return self.linear(y, f"{name}.out_proj")

    def mlp(self, x: Node, name: str) -> Node:
        """The two layers after an attention."""
        return self.linear(
            self.ops.gelu(self.linear(x, f"{name}.fc1"), self.config.activation), f"{name}.fc2"
        )

    def linear(self, x: Node, name: str) -> Node:
        """A linear map with a bias."""
        return self.ops.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def norm(self, x: Node, name: str) -> Node:
        """A layer norm."""
        return self.ops.norm(x, self[f"{name}.weight"], self[f"{name}.bias"], self.config.layer_norm_eps)


def check_sizes(images: VisionTransformer, texts: TextTransformer, where: str) -> None:
    """Sizes that no model can have.

    Raises:
        CorruptCheckpoint: naming the file, ``where``.
    """
    sizes = [images.dimension, texts.context, texts.vocab_size, images.patch_size]
    for tower in (texts, images):
        sizes += [tower.hidden_size, tower.intermediate_size, tower.layers, tower.heads]
    if min(sizes) < 1 or images.image_size < images.patch_size:
        raise CorruptCheckpoint(f"{where} holds a size that cannot be.")
    for tower in (texts, images):
        if tower.hidden_size % tower.heads:
            raise CorruptCheckpoint(f"{where}: {tower.heads} heads cannot share {tower.hidden_size} values.")


def _layer_shapes(tower: TowerConfig, name: str) -> Shapes:
    shapes: Shapes = {}
    size, wide = tower.hidden_size, tower.intermediate_size
    linears = {f"self_attn.{part}_proj": (size, size) for part in ("q", "k", "v", "out")}
    linears |= {"mlp.fc1": (wide, size), "mlp.fc2": (size, wide)}
    for layer in range(tower.layers):
        prefix = f"{name}.encoder.layers.{layer}"
        shapes |= _norm_shapes(f"{prefix}.layer_norm1", size) | _norm_shapes(f"{prefix}.layer_norm2", size)
        for part, shape in linears.items():
            shapes |= {f"{prefix}.{part}.weight": shape, f"{prefix}.{part}.bias": shape[:1]}
    return shapes


def _norm_shapes(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
