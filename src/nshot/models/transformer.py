"""The transformers of CLIP and its kin: their sizes, their tensors, and their graphs.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021: two
pre-norm transformers, each with a linear map into the common space. What came later differs in a few places,
each of which is a field here. Tensors have the names that they have in transformers' CLIPModel, whatever the
checkpoint calls them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from nshot.errors import CorruptCheckpoint
from nshot.models.family import Shapes, Tensors
from nshot.models.ops import Gelu, Node, Ops, Rope
from nshot.types import Floats, Tokens

Projection: TypeAlias = Literal["none", "plain", "bias"]
"""The linear map into the common space: there is none, one without a bias, or one with it."""

_HEAD = "vision_model.head"


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
    projection: Projection = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTransformer(TowerConfig):
    """The text tower.

    Attributes:
        context: tokens in a text, the two specials included.
        vocab_size: number of token ids.
        pool: the token that becomes the text's vector: the first one of the largest id, the first one that is
            ``eos_token_id``, the first of all, or the last of the whole context.
        eos_token_id: see ``pool``.
        causal: whether a token sees only what precedes it.
    """

    context: int
    vocab_size: int
    pool: Literal["largest", "eos", "first", "last"] = "largest"
    eos_token_id: int | None = None
    causal: bool = True

    @property
    def table(self) -> str:
        """Name of the token table."""
        return "text_model.embeddings.token_embedding.weight"

    def ends(self, tokens: Tokens) -> Tokens:
        """The position of each text's vector: int64[n,context] -> int64[n]."""
        if self.pool in ("first", "last"):
            return np.full(len(tokens), 0 if self.pool == "first" else self.context - 1, np.int64)
        marks = tokens if self.pool == "largest" else tokens == self.eos_token_id
        ends: Tokens = marks.argmax(axis=1).astype(np.int64)
        return ends

    def shapes(self) -> Shapes:
        """Every tensor of the tower and its shape."""
        shapes = _layer_shapes(self, "text_model")
        shapes[self.table] = (self.vocab_size, self.hidden_size)
        shapes["text_model.embeddings.position_embedding.weight"] = (self.context, self.hidden_size)
        shapes |= _norm_shapes("text_model.final_layer_norm", self.hidden_size)
        return shapes | _projection_shapes(self, "text_projection")

    def prepare(self, tensors: Tensors) -> Mapping[str, Floats]:
        """The tensors as they are."""
        return {name: tensors[name] for name in self.shapes() if name != self.table}

    def __call__(self, ops: Ops, weights: Mapping[str, Floats], x: Node, ends: Node) -> Node:
        """float[n,t,width], int64[n] -> float[n,d]."""
        layers = Layers(self, ops, weights, "text_model")
        x = ops.add(x, ops.prefix(layers["embeddings.position_embedding.weight"], x))
        x = layers(x, causal=self.causal)
        x = layers.norm(ops.at(x, ends), "final_layer_norm")
        return layers.project(x, "text_projection")


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionTransformer(TowerConfig):
    """The image tower.

    Attributes:
        image_size: side of the image, in pixels; what a whole number of patches leaves over is not seen.
        patch_size: side of a patch, in pixels.
        patch_bias: whether the patches' linear map has a bias.
        class_token: "positioned" has a row of the position table, "bare" comes after the positions are added.
        pre_norm: whether a layer norm precedes the layers.
        pool: what becomes the image's vector: the class token, the mean of the patches, or the answer to one
            learnt question, by an attention and two layers of its own ("map": Lee et al. 2019).
        norm_first: whether the last layer norm comes before the mean, which matters for a mean only.
        pool_heads: heads of the "map".
        pool_intermediate_size: width of its hidden layer.
        rope: whether positions also turn queries and keys (Su et al. 2021), as in the Perception Encoder.
    """

    image_size: int
    patch_size: int
    patch_bias: bool = False
    class_token: Literal["none", "positioned", "bare"] = "positioned"
    pre_norm: bool = True
    pool: Literal["class", "mean", "map"] = "class"
    norm_first: bool = True
    pool_heads: int = 0
    pool_intermediate_size: int = 0
    rope: bool = False

    @property
    def side(self) -> int:
        """Patches along each side."""
        return self.image_size // self.patch_size

    @property
    def positions(self) -> int:
        """Rows of the position table: patches, and one for the class token."""
        return self.side**2 + (self.class_token == "positioned")

    def shapes(self) -> Shapes:
        """Every tensor of the tower and its shape."""
        size = self.hidden_size
        shapes = _layer_shapes(self, "vision_model") | self.patch_shapes()
        shapes["vision_model.embeddings.position_embedding.weight"] = (self.positions, size)
        if self.class_token != "none":
            shapes["vision_model.embeddings.class_embedding"] = (size,)
        if self.pre_norm:
            shapes |= _norm_shapes("vision_model.pre_layrnorm", size)  # spelt so in every checkpoint
        shapes |= _norm_shapes("vision_model.post_layernorm", size)
        if self.pool == "map":
            shapes[f"{_HEAD}.probe"] = (1, size)
            shapes |= _block_shapes(f"{_HEAD}.attention", f"{_HEAD}.mlp", size, self.pool_intermediate_size)
            shapes |= _norm_shapes(f"{_HEAD}.layernorm", size)
        return shapes | _projection_shapes(self, "visual_projection")

    def patch_shapes(self) -> Shapes:
        """The tensors that make tokens of pixels."""
        name = "vision_model.embeddings.patch_embedding"
        shapes: Shapes = {f"{name}.weight": (self.hidden_size, 3, self.patch_size, self.patch_size)}
        return shapes | ({f"{name}.bias": (self.hidden_size,)} if self.patch_bias else {})

    def prepare(self, tensors: Tensors) -> Mapping[str, Floats]:
        """The tensors as they are; with ``rope``, queries and keys in the order that turning wants."""
        weights = {name: tensors[name] for name in self.shapes()}
        if self.rope:
            order = _halves(self.hidden_size, self.heads)
            for name in weights:
                if ".self_attn.q_proj." in name or ".self_attn.k_proj." in name:
                    weights[name] = np.ascontiguousarray(weights[name][order])
        return weights

    def patches(self, ops: Ops, layers: Layers, x: Node) -> Node:
        """float[n,3,s,s] -> float[n,patches,width]."""
        x = ops.convolution(x, layers["embeddings.patch_embedding.weight"], self.patch_size)
        x = ops.tokens(x)
        return ops.add(x, layers["embeddings.patch_embedding.bias"]) if self.patch_bias else x

    @property
    def grid(self) -> int:
        """Patches along each side."""
        return self.side

    @property
    def seen(self) -> float:
        """The share of the side that whole patches cover."""
        return self.side * self.patch_size / self.image_size

    def __call__(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Node:
        """float[n,3,s,s], normalised -> float[n,d]."""
        return self._run(ops, weights, x, None)

    def dense(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> tuple[Node, Node]:
        """See ``ImageTower``: MaskCLIP's value path (Zhou et al. 2022).

        The class token is a mean of the patches' values, weighed by the last attention, through the map that
        follows. So a patch's own value, through the same map, is what the image's vector is made of; what the
        last layer makes of the patch itself was never trained to mean anything (below chance, measured). With
        "map", the same is done with the pooling head's attention, and what follows it.
        """
        patches: list[Node] = []
        return self._run(ops, weights, x, patches), patches[0]

    def _run(self, ops: Ops, weights: Mapping[str, Floats], x: Node, patches: list[Node] | None) -> Node:
        """The image's vector; the patches' vectors are put into ``patches`` where there is such a list."""
        layers = Layers(self, ops, weights, "vision_model")
        x = self.patches(ops, layers, x)
        if self.class_token == "positioned":
            x = ops.prepend(layers["embeddings.class_embedding"], x)
        x = ops.add(x, layers["embeddings.position_embedding.weight"])
        if self.class_token == "bare":
            x = ops.prepend(layers["embeddings.class_embedding"], x)
        if self.pre_norm:
            x = layers.norm(x, "pre_layrnorm")
        values: list[Node] | None = None if patches is None else []
        of_class = self.pool == "class"
        x = layers(x, first_only=of_class, rope=self._rope(), values=values if of_class else None)
        if of_class:
            x = layers.norm(ops.pick(x, 0), "post_layernorm")
        elif self.pool == "map":
            x = self._answer(ops, layers, layers.norm(x, "post_layernorm"), values)
        else:
            tokens = x = layers.norm(x, "post_layernorm") if self.norm_first else x
            x = ops.mean(x, skip=self.class_token != "none")
            x = x if self.norm_first else layers.norm(x, "post_layernorm")
            if values is not None:  # the vector is their mean
                values.append(tokens)
        if patches is not None and values is not None:
            each = values[0] if self.class_token == "none" else ops.rest(values[0])
            if of_class or not (self.pool == "map" or self.norm_first):
                each = layers.norm(each, "post_layernorm")
            patches.append(layers.project(each, "visual_projection"))
        return layers.project(x, "visual_projection")

    def _answer(self, ops: Ops, layers: Layers, x: Node, values: list[Node] | None) -> Node:
        """n,t,width -> n,width: what the learnt question finds among the tokens."""

        def finished(x: Node) -> Node:
            return ops.add(x, layers.mlp(layers.norm(x, "head.layernorm"), "head.mlp"))

        asking = ops.repeat(layers["head.probe"], x)
        x = layers.attention(asking, x, "head.attention", heads=self.pool_heads, values=values)
        if values is not None:
            values[0] = finished(values[0])
        return ops.pick(finished(x), 0)

    def _rope(self) -> Rope | None:
        """How far each patch is turned: by its column, then by its row, from 1; the class token is not."""
        if not self.rope:
            return None
        bands = self.hidden_size // self.heads // 4
        speeds = 10000.0 ** -(np.arange(bands, dtype=np.float32) / bands)
        rows, columns = np.meshgrid(*2 * [np.arange(1, self.side + 1, dtype=np.float32)], indexing="ij")
        places = np.stack([columns.ravel(), rows.ravel()], axis=1)
        angles = (places[:, :, None] * speeds.astype(np.float32)).reshape(len(places), -1)
        if self.class_token != "none":
            angles = np.concatenate([np.zeros((1, angles.shape[1]), np.float32), angles])
        angles = np.concatenate([angles, angles], axis=1)
        return Rope(np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))


class Layers:
    """The transformer of either tower: names in, nodes out."""

    def __init__(self, config: TowerConfig, ops: Ops, weights: Mapping[str, Floats], prefix: str) -> None:
        self.config = config
        self.ops = ops
        self.weights = weights
        self.prefix = prefix

    def __getitem__(self, name: str) -> Node:
        return self.ops.weight(self.weights[f"{self.prefix}.{name}"])

    def __call__(
        self,
        x: Node,
        *,
        causal: bool = False,
        first_only: bool = False,
        rope: Rope | None = None,
        values: list[Node] | None = None,
    ) -> Node:
        """n,t,width -> the same; with ``first_only`` maybe n,1,width: no more than the first.

        The last attention's values go into ``values``, see ``attention``.
        """
        for i in range(self.config.layers):
            name = f"encoder.layers.{i}"
            known = asking = self.norm(x, f"{name}.layer_norm1")
            last = i == self.config.layers - 1
            if first_only and self.ops.prunes and last:
                x, asking = self.ops.first(x), self.ops.first(known)
            attended = self.attention(
                asking,
                known,
                f"{name}.self_attn",
                causal=causal,
                rope=rope,
                values=values if last else None,
            )
            x = self.ops.add(x, attended)
            x = self.ops.add(x, self.mlp(self.norm(x, f"{name}.layer_norm2"), f"{name}.mlp"))
        return x

    def attention(
        self,
        asking: Node,
        known: Node,
        name: str,
        *,
        heads: int | None = None,
        causal: bool = False,
        rope: Rope | None = None,
        values: list[Node] | None = None,
    ) -> Node:
        """One attention with its four linear maps.

        Where there is a list ``values``, what each known token would give if it were alone is put there.
        """
        q, k, v = (
            self.linear(x, f"{name}.{part}_proj") for x, part in ((asking, "q"), (known, "k"), (known, "v"))
        )
        if values is not None:
            values.append(self.linear(v, f"{name}.out_proj"))
        y = self.ops.attention(q, k, v, heads or self.config.heads, causal=causal, rope=rope)
        return self.linear(y, f"{name}.out_proj")

    def mlp(self, x: Node, name: str) -> Node:
        """The two layers after an attention."""
        x = self.ops.gelu(self.linear(x, f"{name}.fc1"), self.config.activation)
        return self.linear(x, f"{name}.fc2")

    def linear(self, x: Node, name: str) -> Node:
        """A linear map with a bias."""
        return self.ops.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def norm(self, x: Node, name: str) -> Node:
        """A layer norm."""
        return self.ops.norm(x, self[f"{name}.weight"], self[f"{name}.bias"], self.config.layer_norm_eps)

    def project(self, x: Node, name: str) -> Node:
        """Into the common space."""
        if self.config.projection == "none":
            return x
        bias = self.ops.weight(self.weights[f"{name}.bias"]) if self.config.projection == "bias" else None
        return self.ops.linear(x, self.ops.weight(self.weights[f"{name}.weight"]), bias)


def check_sizes(
    images: VisionTransformer, texts: TextTransformer, where: str, *, projected: bool = True
) -> None:
    """Refuse sizes that no model can have.

    Args:
        images: the image tower.
        texts: the text tower.
        where: the file's name, for messages.
        projected: whether a tower without a projection must be as wide as its vectors are long.

    Raises:
        CorruptCheckpoint: naming the file, ``where``.
    """
    sizes = [images.dimension, texts.context, texts.vocab_size, images.patch_size]
    for tower in (texts, images):
        sizes += [tower.hidden_size, tower.intermediate_size, tower.layers, tower.heads]
    if min(sizes) < 1 or images.image_size < images.patch_size:
        raise CorruptCheckpoint(f"{where} holds a size that cannot be.")
    shared = [(tower.heads, tower.hidden_size) for tower in (texts, images)]
    shared += [(images.pool_heads, images.hidden_size)] if images.pool == "map" else []
    for heads, size in shared:
        if heads < 1 or size % heads:
            raise CorruptCheckpoint(f"{where}: {heads} heads cannot share {size} values.")
    for tower in (texts, images):
        if projected and tower.projection == "none" and tower.hidden_size != tower.dimension:
            raise CorruptCheckpoint(
                f"{where}: a tower of width {tower.hidden_size} without a projection gives no vectors of "
                f"{tower.dimension} values."
            )


def _layer_shapes(tower: TowerConfig, name: str) -> Shapes:
    shapes: Shapes = {}
    for layer in range(tower.layers):
        prefix, size = f"{name}.encoder.layers.{layer}", tower.hidden_size
        shapes |= _norm_shapes(f"{prefix}.layer_norm1", size) | _norm_shapes(f"{prefix}.layer_norm2", size)
        shapes |= _block_shapes(f"{prefix}.self_attn", f"{prefix}.mlp", size, tower.intermediate_size)
    return shapes


def _block_shapes(attention: str, mlp: str, size: int, wide: int) -> Shapes:
    linears = {f"{attention}.{part}_proj": (size, size) for part in ("q", "k", "v", "out")}
    linears |= {f"{mlp}.fc1": (wide, size), f"{mlp}.fc2": (size, wide)}
    return {f"{name}.weight": shape for name, shape in linears.items()} | {
        f"{name}.bias": shape[:1] for name, shape in linears.items()
    }


def _norm_shapes(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _projection_shapes(tower: TowerConfig, name: str) -> Shapes:
    if tower.projection == "none":
        return {}
    shapes: Shapes = {f"{name}.weight": (tower.dimension, tower.hidden_size)}
    return shapes | ({f"{name}.bias": (tower.dimension,)} if tower.projection == "bias" else {})


def _halves(size: int, heads: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The order that takes pairs of neighbours, in each head, into two halves; products stay the same."""
    within = np.arange(size // heads).reshape(-1, 2).T.ravel()
    return (np.arange(heads)[:, None] * (size // heads) + within).ravel()
