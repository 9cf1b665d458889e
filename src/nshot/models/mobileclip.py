"""The image towers of MobileCLIP and MobileCLIP 2, with timm's names.

Vasu et al., "FastViT", 2023, and "MobileCLIP", 2024; Faghri et al., "MobileCLIP2", 2025. In training every
convolution has branches, each with a batch norm; they are linear, so one convolution is made of them here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nshot.models.family import ImageTower, Place, Shapes, Tensors
from nshot.models.ops import Node, Ops
from nshot.models.transformer import Layers, VisionTransformer
from nshot.types import Floats

_EPSILON = 1e-5  # of every batch norm
_HEAD = 32  # width of FastViT's heads

Weights = dict[str, Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class StemTransformer(VisionTransformer):
    """MobileCLIP-B: a plain transformer whose patches three convolutions make."""

    def patch_shapes(self) -> Shapes:
        """The tensors that make tokens of pixels."""
        size, narrow, name = self.hidden_size, self.hidden_size // 4, "patch_embed.backbone"
        shapes = _normed(f"{name}.0", (narrow, 3, 4, 4)) | _normed(f"{name}.1", (narrow, narrow, 2, 2))
        return shapes | {f"{name}.2.conv.weight": (size, narrow, 2, 2), f"{name}.2.conv.bias": (size,)}

    def prepare(self, tensors: Tensors) -> Mapping[str, Floats]:
        """Each batch norm becomes part of the convolution before it."""
        weights = {name: tensors[name] for name in self.shapes() if ".bn." not in name}
        for number in (0, 1):
            name = f"patch_embed.backbone.{number}"
            weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"] = _folded(tensors, name)
        return weights

    def patches(self, ops: Ops, layers: Layers, x: Node) -> Node:
        """float[n,3,s,s] -> float[n,patches,width]."""
        for number, stride in enumerate((4, 2, 2)):
            weight, bias = (
                ops.weight(layers.weights[f"patch_embed.backbone.{number}.conv.{kind}"])
                for kind in ("weight", "bias")
            )
            x = ops.convolution(x, weight, stride, bias=bias)
            x = x if number == 2 else ops.gelu(x, "gelu")
        return ops.tokens(x)


class _Step(Protocol):
    """A part of FastViT."""

    def shapes(self) -> Shapes: ...
    def fold(self, tensors: Tensors) -> Weights: ...
    def run(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Node: ...


@dataclass(frozen=True)
class _Convolution:
    """Branches of convolutions with a batch norm each, and perhaps one that is a batch norm alone.

    Attributes:
        branches: each by its name and kernel size.
        skip: name of the batch norm alone.
        squeeze: width of the layer that weighs the channels by their means; 0 for none.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1
    branches: tuple[tuple[str, int], ...] = ()
    skip: str | None = None
    squeeze: int = 0
    gelu: bool = True

    def shapes(self) -> Shapes:
        shapes: Shapes = {}
        for branch, kernel in self.branches:
            shape = (self.outputs, self.inputs // self.groups, kernel, kernel)
            shapes |= _normed(f"{self.name}.{branch}", shape)
        if self.skip:
            shapes |= _norm(f"{self.name}.{self.skip}", self.inputs)
        if self.squeeze:
            shapes |= _pointwise(f"{self.name}.se.fc1", self.squeeze, self.outputs)
            shapes |= _pointwise(f"{self.name}.se.fc2", self.outputs, self.squeeze)
        return shapes

    def folded(self, tensors: Tensors) -> tuple[Floats, Floats]:
        weight = np.zeros((self.outputs, self.inputs // self.groups, self.kernel, self.kernel), np.float32)
        bias = np.zeros(self.outputs, np.float32)
        for branch, kernel in self.branches:
            part, shift = _folded(tensors, f"{self.name}.{branch}")
            edge = (self.kernel - kernel) // 2
            weight[:, :, edge : edge + kernel, edge : edge + kernel] += part
            bias += shift
        if self.skip:
            scale, shift = _affine(tensors, f"{self.name}.{self.skip}")
            weight += _identity(weight) * scale[:, None, None, None]
            bias += shift
        return weight, bias

    def fold(self, tensors: Tensors) -> Weights:
        weight, bias = self.folded(tensors)
        names = [name for name in self.shapes() if ".se." in name]
        squeeze = {name: np.ascontiguousarray(np.squeeze(tensors[name])) for name in names}
        return {f"{self.name}.weight": weight, f"{self.name}.bias": bias} | squeeze

    def run(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Node:
        def of(name: str) -> Node:
            return ops.weight(weights[f"{self.name}.{name}"])

        x = ops.convolution(
            x, of("weight"), self.stride, bias=of("bias"), padding=self.kernel // 2, groups=self.groups
        )
        if self.squeeze:
            means = ops.mean(ops.tokens(x), skip=False)
            inner = ops.relu(ops.linear(means, of("se.fc1.weight"), of("se.fc1.bias")))
            x = ops.scale(x, ops.sigmoid(ops.linear(inner, of("se.fc2.weight"), of("se.fc2.bias"))))
        return ops.gelu(x, "gelu") if self.gelu else x


@dataclass(frozen=True)
class _Mixer:
    """x + gamma (convolution(x) - norm(x)), all of which is one convolution."""

    name: str
    width: int

    @property
    def _inner(self) -> _Convolution:
        branches = (("conv_kxk.0", 3), ("conv_scale", 1))
        return _Convolution(
            f"{self.name}.mixer",
            self.width,
            self.width,
            3,
            groups=self.width,
            branches=branches,
            skip="identity",
        )

    def shapes(self) -> Shapes:
        gamma: Shapes = {f"{self.name}.layer_scale.gamma": (self.width, 1, 1)}
        return self._inner.shapes() | _norm(f"{self.name}.norm.identity", self.width) | gamma

    def fold(self, tensors: Tensors) -> Weights:
        weight, bias = self._inner.folded(tensors)
        scale, shift = _affine(tensors, f"{self.name}.norm.identity")
        identity = _identity(weight)
        gamma = tensors[f"{self.name}.layer_scale.gamma"].reshape(-1)
        weight = identity + gamma[:, None, None, None] * (weight - identity * scale[:, None, None, None])
        return {f"{self.name}.weight": weight, f"{self.name}.bias": gamma * (bias - shift)}

    def run(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Node:
        weight, bias = (ops.weight(weights[f"{self.name}.{kind}"]) for kind in ("weight", "bias"))
        return ops.convolution(x, weight, 1, bias=bias, padding=1, groups=self.width)


@dataclass(frozen=True)
class _Position:
    """x + convolution(x), which is one."""

    name: str
    width: int

    def shapes(self) -> Shapes:
        return {
            f"{self.name}.pos_enc.weight": (self.width, 1, 7, 7),
            f"{self.name}.pos_enc.bias": (self.width,),
        }

    def fold(self, tensors: Tensors) -> Weights:
        weight = tensors[f"{self.name}.pos_enc.weight"]
        return {
            f"{self.name}.weight": weight + _identity(weight),
            f"{self.name}.bias": tensors[f"{self.name}.pos_enc.bias"],
        }

    def run(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Node:
        weight, bias = (ops.weight(weights[f"{self.name}.{kind}"]) for kind in ("weight", "bias"))
        return ops.convolution(x, weight, 1, bias=bias, padding=3, groups=self.width)


@dataclass(frozen=True)
class _Mlp:
    """x + gamma mlp(convolution(x))."""

    name: str
    width: int
    wide: int
    gamma: str

    def shapes(self) -> Shapes:
        return (
            _normed(f"{self.name}.conv", (self.width, 1, 7, 7))
            | _pointwise(f"{self.name}.fc1", self.wide, self.width)
            | _pointwise(f"{self.name}.fc2", self.width, self.wide)
            | {self.gamma: (self.width, 1, 1)}
        )

    def fold(self, tensors: Tensors) -> Weights:
        weight, bias = _folded(tensors, f"{self.name}.conv")
        gamma = tensors[self.gamma].reshape(-1)
        return {
            f"{self.name}.conv.weight": weight,
            f"{self.name}.conv.bias": bias,
            f"{self.name}.fc1.weight": tensors[f"{self.name}.fc1.weight"],
            f"{self.name}.fc1.bias": tensors[f"{self.name}.fc1.bias"],
            f"{self.name}.fc2.weight": tensors[f"{self.name}.fc2.weight"] * gamma[:, None, None, None],
            f"{self.name}.fc2.bias": tensors[f"{self.name}.fc2.bias"] * gamma,
        }

    def run(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Node:
        def convolved(y: Node, part: str, **more: int) -> Node:
            weight, bias = (ops.weight(weights[f"{self.name}.{part}.{kind}"]) for kind in ("weight", "bias"))
            return ops.convolution(y, weight, 1, bias=bias, **more)

        y = convolved(x, "conv", padding=3, groups=self.width)
        return ops.add(x, convolved(ops.gelu(convolved(y, "fc1"), "gelu"), "fc2"))


@dataclass(frozen=True)
class _Attention:
    """x + gamma attention(norm(x)), over the places of the image.

    Attributes:
        layer_norm: a layer norm over the channels, rather than a batch norm.
        side: places along each side.
    """

    name: str
    width: int
    layer_norm: bool
    side: int

    def shapes(self) -> Shapes:
        width, mixer = self.width, f"{self.name}.token_mixer"
        norm = _norm(f"{self.name}.norm", width)
        if self.layer_norm:
            norm = {name: shape for name, shape in norm.items() if ".running_" not in name}
        linear: Shapes = {f"{mixer}.qkv.weight": (3 * width, width), f"{mixer}.proj.weight": (width, width)}
        linear |= {f"{mixer}.proj.bias": (width,), f"{self.name}.layer_scale_1.gamma": (width, 1, 1)}
        return norm | linear

    def fold(self, tensors: Tensors) -> Weights:
        mixer = f"{self.name}.token_mixer"
        gamma = tensors[f"{self.name}.layer_scale_1.gamma"].reshape(-1)
        qkv = tensors[f"{mixer}.qkv.weight"]
        weights: Weights = {}
        if self.layer_norm:
            bias = np.zeros(len(qkv), np.float32)
            weights |= {
                f"{self.name}.norm.{kind}": tensors[f"{self.name}.norm.{kind}"] for kind in ("weight", "bias")
            }
        else:
            scale, shift = _affine(tensors, f"{self.name}.norm")
            qkv, bias = qkv * scale, qkv @ shift
        for part, rows, values in zip("qkv", np.split(qkv, 3), np.split(bias, 3), strict=True):
            weights |= {f"{mixer}.{part}.weight": np.ascontiguousarray(rows), f"{mixer}.{part}.bias": values}
        weights[f"{mixer}.proj.weight"] = tensors[f"{mixer}.proj.weight"] * gamma[:, None]
        weights[f"{mixer}.proj.bias"] = tensors[f"{mixer}.proj.bias"] * gamma
        return weights

    def run(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Node:
        def linear(y: Node, part: str) -> Node:
            name = f"{self.name}.token_mixer.{part}"
            return ops.linear(y, ops.weight(weights[f"{name}.weight"]), ops.weight(weights[f"{name}.bias"]))

        y = ops.tokens(x)
        if self.layer_norm:
            weight, bias = (ops.weight(weights[f"{self.name}.norm.{kind}"]) for kind in ("weight", "bias"))
            y = ops.norm(y, weight, bias, _EPSILON)
        q, k, v = (linear(y, part) for part in "qkv")
        y = ops.attention(q, k, v, self.width // _HEAD)
        return ops.add(x, ops.grid(linear(y, "proj"), self.side))


@dataclass(frozen=True)
class FastViT:
    """FastViT as MobileCLIP has it.

    Attributes:
        image_size: side of the image, in pixels.
        dimension: length of the vectors.
        layers: blocks in each stage.
        widths: channels of each stage.
        ratio: how much wider the hidden layer of a block is.
        attentions: how many of the last stages have attentions.
        squeezed: stages that weigh their channels when they begin.
        layer_norm: layer norms in place of batch norms before attentions.
        stem_scale: whether the first three convolutions have a branch of size 1.
    """

    image_size: int
    dimension: int
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    ratio: int
    attentions: int
    squeezed: tuple[int, ...]
    layer_norm: bool
    stem_scale: bool
    steps: tuple[_Step, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """List the parts once."""
        object.__setattr__(self, "steps", tuple(self._stem() + self._stages()))

    def _stem(self) -> list[_Step]:
        width = self.widths[0]
        scale = (("conv_scale", 1),) if self.stem_scale else ()
        three = (("conv_kxk.0", 3), *scale)
        return [
            _Convolution("stem.0", 3, width, 3, stride=2, branches=three),
            _Convolution("stem.1", width, width, 3, stride=2, groups=width, branches=three),
            _Convolution("stem.2", width, width, 1, branches=(("conv_kxk.0", 1),), skip="identity"),
        ]

    def _stages(self) -> list[_Step]:
        steps: list[_Step] = []
        before, side = self.widths[0], self.image_size // 4
        for stage, (depth, width) in enumerate(zip(self.layers, self.widths, strict=True)):
            name = f"stages.{stage}"
            if stage:
                side //= 2
                squeeze = _divisible(width / 4) if stage in self.squeezed else 0
                branches = (("large_conv", 7), ("small_conv", 3))
                steps += [
                    _Convolution(
                        f"{name}.downsample.proj.0", before, width, 7, 2, before, branches, squeeze=squeeze
                    ),
                    _Convolution(
                        f"{name}.downsample.proj.1",
                        width,
                        width,
                        1,
                        branches=(("conv_kxk.0", 1),),
                        skip="identity",
                    ),
                ]
            attends = stage >= len(self.layers) - self.attentions
            if attends:
                steps.append(_Position(f"{name}.pos_emb", width))
            for block in range(depth):
                part = f"{name}.blocks.{block}"
                gamma = "layer_scale_2" if attends else "layer_scale"
                if attends:
                    steps.append(_Attention(part, width, self.layer_norm, side))
                else:
                    steps.append(_Mixer(f"{part}.token_mixer", width))
                steps.append(_Mlp(f"{part}.mlp", width, self.ratio * width, f"{part}.{gamma}.gamma"))
            before = width
        branches = (("conv_kxk.0", 3), ("conv_scale", 1))
        squeeze = round(2 * before / 16)
        steps.append(_Convolution("final_conv", before, 2 * before, 3, 1, before, branches, squeeze=squeeze))
        return steps

    def shapes(self) -> Shapes:
        """Every tensor of the tower and its shape."""
        shapes: Shapes = {}
        for step in self.steps:
            shapes |= step.shapes()
        last = 2 * self.widths[-1]
        return shapes | {"head.fc.weight": (self.dimension, last), "head.fc.bias": (self.dimension,)}

    def prepare(self, tensors: Tensors) -> Mapping[str, Floats]:
        """One convolution of all branches and norms, wherever there are such."""
        weights: Weights = {name: tensors[name] for name in ("head.fc.weight", "head.fc.bias")}
        for step in self.steps:
            weights |= step.fold(tensors)
        return {name: value.astype(np.float32, copy=False) for name, value in weights.items()}

    @property
    def grid(self) -> int:
        """Places along each side after the last stage."""
        return self.image_size >> (len(self.layers) + 1)

    @property
    def seen(self) -> float:
        """All of the image."""
        return 1.0

    def __call__(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Node:
        """float[n,3,s,s], normalised -> float[n,d]."""
        x = ops.mean(self._places(ops, weights, x), skip=False)
        return self._projected(ops, weights, x)

    def dense(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> tuple[Node, Node]:
        """See ``ImageTower``: the vector is the mean of these (Zhou et al. 2016, class activation maps)."""
        places = self._places(ops, weights, x)
        return (
            self._projected(ops, weights, ops.mean(places, skip=False)),
            self._projected(ops, weights, places),
        )

    def _places(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Node:
        for step in self.steps:
            x = step.run(ops, weights, x)
        return ops.tokens(x)

    def _projected(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Node:
        return ops.linear(x, ops.weight(weights["head.fc.weight"]), ops.weight(weights["head.fc.bias"]))


def fastvit(name: str, image_size: int, dimension: int) -> FastViT | None:
    """The tower that timm calls so, if it is one."""
    small = {
        "fastvit_mci0": ((2, 6, 10, 2), (64, 128, 256, 512)),
        "fastvit_mci1": ((4, 12, 20, 4), (64, 128, 256, 512)),
        "fastvit_mci2": ((4, 12, 24, 4), (80, 160, 320, 640)),
    }
    large = {
        "fastvit_mci3": ((2, 12, 24, 4, 2), (96, 192, 384, 768, 1536)),
        "fastvit_mci4": ((2, 12, 24, 4, 4), (128, 256, 512, 1024, 2048)),
    }
    if name in small:
        return FastViT(image_size, dimension, *small[name], 3, 1, (2, 3), layer_norm=False, stem_scale=True)
    if name in large:
        return FastViT(image_size, dimension, *large[name], 4, 2, (), layer_norm=True, stem_scale=False)
    return None


def fastvit_places(tower: ImageTower) -> dict[str, Place]:
    """Where open_clip keeps the tensors."""
    return {name: Place(shape, f"visual.trunk.{name}") for name, shape in tower.shapes().items()}


def _norm(name: str, size: int) -> Shapes:
    """A batch norm."""
    return {f"{name}.{part}": (size,) for part in ("weight", "bias", "running_mean", "running_var")}


def _normed(name: str, shape: tuple[int, ...]) -> Shapes:
    """A convolution with a batch norm."""
    return {f"{name}.conv.weight": shape} | _norm(f"{name}.bn", shape[0])


def _pointwise(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, 1, 1), f"{name}.bias": (outputs,)}


def _affine(tensors: Tensors, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A batch norm as what each channel is multiplied by, and what is added then."""
    mean, variance = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
    scale = tensors[f"{name}.weight"] / np.sqrt(variance + np.float32(_EPSILON))
    return scale, tensors[f"{name}.bias"] - mean * scale


def _folded(tensors: Tensors, name: str) -> tuple[Floats, Floats]:
    scale, shift = _affine(tensors, f"{name}.bn")
    return tensors[f"{name}.conv.weight"] * scale[:, None, None, None], shift


def _identity(weight: Floats) -> Floats:
    """The convolution of this shape that changes nothing."""
    same = np.zeros_like(weight)
    rows = np.arange(len(weight))
    same[rows, rows % weight.shape[1], weight.shape[2] // 2, weight.shape[3] // 2] = 1
    return same


def _divisible(size: float, by: int = 8) -> int:
    return max(by, int(size + by / 2) // by * by)
