"""SigLIP, and SigLIP 2 at fixed sizes, in the layout of transformers.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023; Tschannen et al., "SigLIP 2", 2025. Each
label is scored by itself, by a sigmoid with a learnt scale and bias. Texts are canonicalised and always
padded to the whole context: no mask hides the padding, and the last position becomes the text's vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nshot.errors import CorruptCheckpoint, UnsupportedArchitecture
from nshot.models.cleaning import canonical
from nshot.models.family import ModelConfig, Place
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
from nshot.models.tokenizer import Tokenizer
from nshot.models.transformer import TextTransformer, VisionTransformer, check_sizes

# what transformers assumes where a config is silent
_TEXT = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "projection_size": None,
}
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}

_PREPROCESSOR = {
    "do_center_crop": False,
    "resample": 3,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


class Siglip:
    """SiglipModel, which the fixed-size checkpoints of SigLIP 2 are too."""

    name = "SigLIP"
    version = "1"
    weights = TRANSFORMERS_WEIGHTS

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Whether this is the config.json of a SiglipModel."""
        architectures = config.get("architectures") or []
        kind = config.get("model_type")
        return kind in ("siglip", None) and (
            "SiglipModel" in architectures or bool(kind and not architectures)
        )

    def read(self, config: Mapping[str, Any], where: str) -> ModelConfig:
        """See ``Family``."""
        try:
            text = section(config, "text_config", _TEXT)
            vision = section(config, "vision_config", _VISION)
            images = VisionTransformer(
                **tower(vision, where),
                dimension=int(vision["hidden_size"]),
                projection="none",
                image_size=side(vision["image_size"], where),
                patch_size=side(vision["patch_size"], where),
                patch_bias=True,
                class_token="none",
                pre_norm=False,
                pool="map",
                pool_heads=int(vision["num_attention_heads"]),
                pool_intermediate_size=int(vision["intermediate_size"]),
            )
            texts = TextTransformer(
                **tower(text, where),
                dimension=int(text["projection_size"] or text["hidden_size"]),
                projection="bias",
                context=int(text["max_position_embeddings"]),
                vocab_size=int(text["vocab_size"]),
                pool="last",
                causal=False,
            )
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise CorruptCheckpoint(f"{where} is not the config of a SigLIP model: {error}.") from error
        if vision["num_channels"] != 3 or not vision["vision_use_head"]:
            raise UnsupportedArchitecture(
                f"{where}: nshot reads SigLIP of RGB images and with its pooling head."
            )
        if texts.dimension != images.dimension:
            raise CorruptCheckpoint(
                f"{where}: vectors of {images.dimension} and of {texts.dimension} values cannot be compared."
            )
        check_sizes(images, texts, where)
        return ModelConfig(
            family=self,
            vision=images,
            text=texts,
            dimension=images.dimension,
            activation="sigmoid",
            has_bias=True,
            places=_places(images, texts),
        )

    def preprocessor(self, files: Files, config: ModelConfig) -> Mapping[str, Any] | None:
        """See ``Family``."""
        found = image_processor(files)
        side = config.vision.image_size
        given = {key: value for key, value in (found or {}).items() if value is not None}
        return (
            _PREPROCESSOR | {"size": {"height": side, "width": side}} | given if found is not None else None
        )

    def vocabulary(self, files: Files, config: ModelConfig) -> TokenizerFiles | None:
        """See ``Family``."""
        return vocabulary(files)

    def tokenizer(self, files: TokenizerFiles, config: ModelConfig) -> Tokenizer:
        """See ``Family``: the file's own tokenizer, its end token behind the text."""
        return Tokenizer.as_stored(files, context=config.text.context, clean=canonical, only_end=True)


def _places(images: VisionTransformer, texts: TextTransformer) -> dict[str, Place]:
    width = images.hidden_size
    head = "vision_model.head.attention"
    places = {f"text_projection.{part}": f"text_model.head.{part}" for part in ("weight", "bias")}
    shapes = images.shapes() | texts.shapes()
    result = {ours: Place(shapes[ours], theirs) for ours, theirs in places.items()}
    for number, part in enumerate("qkv"):
        for kind in ("weight", "bias"):
            ours = f"{head}.{part}_proj.{kind}"
            rows = (number * width, (number + 1) * width)
            result[ours] = Place(shapes[ours], f"{head}.in_proj_{kind}", rows)
    return result
