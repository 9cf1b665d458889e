"""OWLv2: a CLIP that finds boxes (Minderer et al., "Scaling Open-Vocabulary Object Detection", 2023).

Its image tower has no pooling: each patch, times the class token, says where a box is, how much it looks like
a thing at all, and what vector the thing has. Texts are compared with those vectors afterwards, so that an
image is encoded once and asked anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nshot.errors import CorruptCheckpoint, UnsupportedArchitecture
from nshot.models.family import ModelConfig, Place, Shapes
from nshot.models.files import (
    TRANSFORMERS_WEIGHTS,
    Files,
    TokenizerFiles,
    image_processor,
    section,
    side,
    tower,
    vocabulary,
)
from nshot.models.ops import Node, Ops
from nshot.models.tokenizer import Tokenizer
from nshot.models.transformer import Layers, TextTransformer, VisionTransformer, check_sizes
from nshot.types import Floats

# what transformers assumes where a config is silent
_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 16,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 768,
    "patch_size": 16,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_HEADS = {"class_head": ("dense0", "logit_shift", "logit_scale"), "box_head": ("dense0", "dense1", "dense2")}
_HEADS["objectness_head"] = _HEADS["box_head"]


class Found(NamedTuple):
    """What the image tower says of each patch, before any question is known: nodes of a graph.

    Attributes:
        boxes: float[n,p,4], middle x and y, width and height, as shares of the padded square's side.
        objectness: float[n,p], logits of showing a thing at all.
        classes: float[n,p,d], vectors of what is there, of any length.
        shift: float[n,p], added to a cosine.
        scale: float[n,p], what the sum is multiplied by, positive.
    """

    boxes: Node
    objectness: Node
    classes: Node
    shift: Node
    scale: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxTower(VisionTransformer):
    """The image tower with its three heads."""

    def shapes(self) -> Shapes:
        """Every tensor of the tower and its shape."""
        # no super() without arguments in a dataclass with slots before Python 3.14
        shapes = VisionTransformer.shapes(self)
        width = self.hidden_size
        outputs = {
            "class_head.dense0": self.dimension,
            "class_head.logit_shift": 1,
            "class_head.logit_scale": 1,
        }
        outputs |= {"box_head.dense2": 4, "objectness_head.dense2": 1}
        shapes |= {"layer_norm.weight": (width,), "layer_norm.bias": (width,)}
        for head, parts in _HEADS.items():
            for name in (f"{head}.{part}" for part in parts):
                rows = outputs.get(name, width)
                shapes |= {f"{name}.weight": (rows, width), f"{name}.bias": (rows,)}
        return shapes

    def detect(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Found:
        """float[n,3,s,s], normalised -> what is in it."""
        layers = Layers(self, ops, weights, "vision_model")
        x = ops.prepend(layers["embeddings.class_embedding"], self.patches(ops, layers, x))
        x = layers.norm(ops.add(x, layers["embeddings.position_embedding.weight"]), "pre_layrnorm")
        x = layers.norm(layers(x), "post_layernorm")
        x = ops.multiply(ops.rest(x), ops.first(x))
        x = ops.norm(
            x,
            ops.weight(weights["layer_norm.weight"]),
            ops.weight(weights["layer_norm.bias"]),
            self.layer_norm_eps,
        )

        def linear(y: Node, name: str) -> Node:
            return ops.linear(y, ops.weight(weights[f"{name}.weight"]), ops.weight(weights[f"{name}.bias"]))

        def head(name: str) -> Node:
            y = ops.gelu(linear(x, f"{name}.dense0"), "gelu")
            return linear(ops.gelu(linear(y, f"{name}.dense1"), "gelu"), f"{name}.dense2")

        return Found(
            ops.sigmoid(ops.add(head("box_head"), ops.weight(weights["box_bias"]))),
            head("objectness_head"),
            linear(x, "class_head.dense0"),
            linear(x, "class_head.logit_shift"),
            ops.elu_and_one(linear(x, "class_head.logit_scale")),
        )

    def prepare(self, tensors: Mapping[str, Floats]) -> Mapping[str, Floats]:
        """The tensors, and the boxes from which those that are found start: one per patch, at its corner."""
        return dict(VisionTransformer.prepare(self, tensors)) | {"box_bias": self._bias()}

    def _bias(self) -> Floats:
        """float32[p,4]: logits of a box as large as a patch, around the patch's lower right corner."""
        places = np.arange(1, self.side + 1, dtype=np.float32) / np.float32(self.side)
        across, down = np.meshgrid(places, places)
        sizes = np.full(self.side**2, 1 / self.side, np.float32)
        boxes = np.stack([across.ravel(), down.ravel(), sizes, sizes], axis=1)
        little = np.float32(1e-4)
        bias: Floats = np.log(boxes + little) - np.log1p(-boxes + little)
        return bias

    def __call__(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> Node:
        """There is no vector of the whole image."""
        raise UnsupportedArchitecture(WHAT)

    def dense(self, ops: Ops, weights: Mapping[str, Floats], x: Node) -> tuple[Node, Node]:
        """There is no vector of the whole image."""
        raise UnsupportedArchitecture(WHAT)


WHAT = "this model finds boxes: use `nshot locate`, or nshot.load_detector in Python"


class Owlv2:
    """Owlv2ForObjectDetection in the layout of transformers."""

    name = "OWLv2"
    version = "1"
    weights = TRANSFORMERS_WEIGHTS

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Whether this is the config.json of an Owlv2ForObjectDetection."""
        return config.get("model_type") == "owlv2" or "Owlv2ForObjectDetection" in (
            config.get("architectures") or []
        )

    def read(self, config: Mapping[str, Any], where: str) -> ModelConfig:
        """See ``Family``."""
        try:
            text = section(config, "text_config", _TEXT)
            vision = section(config, "vision_config", _VISION)
            dimension = int(config.get("projection_dim") or 512)
            texts = TextTransformer(
                **tower(text, where),
                dimension=dimension,
                context=int(text["max_position_embeddings"]),
                vocab_size=int(text["vocab_size"]),
            )
            images = BoxTower(
                **tower(vision, where),
                dimension=int(text["hidden_size"]),
                projection="none",
                image_size=side(vision["image_size"], where),
                patch_size=side(vision["patch_size"], where),
            )
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise CorruptCheckpoint(f"{where} is not the config of an OWLv2 model: {error}.") from error
        if vision["num_channels"] != 3:
            raise UnsupportedArchitecture(
                f"{where}: images of {vision['num_channels']} channels; nshot reads RGB."
            )
        if images.dimension != dimension:
            raise CorruptCheckpoint(
                f"{where}: boxes' vectors of {images.dimension} and texts' of {dimension} values cannot be "
                "compared."
            )
        check_sizes(images, texts, where, projected=False)
        return ModelConfig(
            family=self,
            vision=images,
            text=texts,
            dimension=dimension,
            activation="sigmoid",
            places=_places(images, texts),
        )

    def preprocessor(self, files: Files, config: ModelConfig) -> Mapping[str, Any] | None:
        """See ``Family``; what is done to an image is in ``nshot.regions.padded``."""
        found = image_processor(files)
        if found is None:
            return None
        size = config.vision.image_size
        given = {key: value for key, value in found.items() if value is not None}
        return (
            {"size": {"height": size, "width": size}} | given | {"do_center_crop": False, "crop_size": None}
        )

    def vocabulary(self, files: Files, config: ModelConfig) -> TokenizerFiles | None:
        """See ``Family``."""
        return vocabulary(files)

    def tokenizer(self, files: TokenizerFiles, config: ModelConfig) -> Tokenizer:
        """See ``Family``: CLIP's; what follows a text's end changes nothing."""
        return Tokenizer.from_files(
            files["tokenizer_json"], files["vocab"], files["merges"], context=config.text.context
        )


def _places(images: BoxTower, texts: TextTransformer) -> dict[str, Place]:
    shapes = images.shapes() | texts.shapes() | {"logit_scale": ()}
    places = {}
    for name, shape in shapes.items():
        inside = (
            name.startswith(("vision_model.", "text_model.", "text_projection.")) or name == "logit_scale"
        )
        stored = name.replace(".pre_layrnorm.", ".pre_layernorm.")
        places[name] = Place(shape, f"owlv2.{stored}" if inside else stored)
    return places
