"""CLIP in the layout of transformers: OpenAI's models, LAION's, and their kin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from nshot.errors import CorruptCheckpoint, UnsupportedArchitecture
from nshot.models.family import Get, ModelConfig, TokenizerFiles
from nshot.models.files import image_processor, vocabulary
from nshot.models.ops import Gelu
from nshot.models.tokenizer import Tokenizer
from nshot.models.transformer import TextTransformer, VisionTransformer, check_sizes

# what transformers assumes where a config is silent; old configs hold little more than what differs
_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


class Clip:
    """CLIPModel in the layout of transformers."""

    name = "CLIP"
    weights: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Whether this is the config.json of a CLIPModel, of 2021 or of now."""
        architectures = config.get("architectures") or []
        kind = config.get("model_type")
        return (kind == "clip" and not architectures) or (
            kind in ("clip", None) and "CLIPModel" in architectures
        )

    def read(self, config: Mapping[str, Any], where: str) -> ModelConfig:
        """See ``Family``."""
        try:
            text = _section(config, "text_config", _TEXT)
            vision = _section(config, "vision_config", _VISION)
            end = text["eos_token_id"]
            dimension = int(config.get("projection_dim") or 512)
            texts = TextTransformer(
                **_tower(text, where),
                dimension=dimension,
                context=int(text["max_position_embeddings"]),
                vocab_size=int(text["vocab_size"]),
                eos_token_id=int(end[0] if isinstance(end, list) else end),
            )
            images = VisionTransformer(
                **_tower(vision, where),
                dimension=dimension,
                image_size=_side(vision["image_size"], where),
                patch_size=_side(vision["patch_size"], where),
            )
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise CorruptCheckpoint(f"{where} is not the config of a CLIP model: {error}.") from error
        if vision["num_channels"] != 3:
            raise UnsupportedArchitecture(
                f"{where}: images of {vision['num_channels']} channels; nshot reads RGB."
            )
        check_sizes(images, texts, where)
        return ModelConfig(family=self, vision=images, text=texts, dimension=dimension)

    def preprocessor(self, get: Get, config: ModelConfig) -> Mapping[str, Any] | None:
        """See ``Family``."""
        return image_processor(get)

    def vocabulary(self, get: Get) -> TokenizerFiles | None:
        """See ``Family``."""
        return vocabulary(get)

    def tokenizer(self, files: TokenizerFiles, config: ModelConfig) -> Tokenizer:
        """See ``Family``."""
        return Tokenizer.from_files(**files, context=config.text.context)


def _section(config: Mapping[str, Any], name: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """One tower's settings. As in transformers, a ``text_config_dict`` replaces all of ``text_config``."""
    override = config.get(f"{name}_dict")
    given = (config.get(name) or {}) if override is None else override
    return defaults | {key: given[key] for key in defaults if given.get(key) is not None}


def _tower(section: Mapping[str, Any], where: str) -> dict[str, Any]:
    activation = section["hidden_act"]
    if activation not in ("quick_gelu", "gelu"):
        raise UnsupportedArchitecture(
            f"{where}: the activation {activation}; nshot knows quick_gelu and gelu."
        )
    return {
        "hidden_size": int(section["hidden_size"]),
        "intermediate_size": int(section["intermediate_size"]),
        "layers": int(section["num_hidden_layers"]),
        "heads": int(section["num_attention_heads"]),
        "activation": cast(Gelu, activation),
        "layer_norm_eps": float(section["layer_norm_eps"]),
    }


def _side(size: Any, where: str) -> int:
    """The side of a square, which newer configs may write as [height, width]."""
    height, width = size if isinstance(size, list) else (size, size)
    if height != width:
        raise UnsupportedArchitecture(f"{where}: {height} x {width}; nshot knows square images and patches.")
    return int(height)
