"""CLIP in the layout of transformers: OpenAI's models, LAION's, and their kin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nshot.errors import CorruptCheckpoint, UnsupportedArchitecture
from nshot.models.family import ModelConfig
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
    version = ""
    weights = TRANSFORMERS_WEIGHTS

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
            text = section(config, "text_config", _TEXT)
            vision = section(config, "vision_config", _VISION)
            end = text["eos_token_id"]
            end = int(end[0] if isinstance(end, list) else end)
            dimension = int(config.get("projection_dim") or 512)
            texts = TextTransformer(
                **tower(text, where),
                dimension=dimension,
                context=int(text["max_position_embeddings"]),
                vocab_size=int(text["vocab_size"]),
                # configs of 2021 name a wrong end token, 2: the right one has the largest id
                pool="largest" if end == 2 else "eos",
                eos_token_id=end,
            )
            images = VisionTransformer(
                **tower(vision, where),
                dimension=dimension,
                image_size=side(vision["image_size"], where),
                patch_size=side(vision["patch_size"], where),
            )
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise CorruptCheckpoint(f"{where} is not the config of a CLIP model: {error}.") from error
        if vision["num_channels"] != 3:
            raise UnsupportedArchitecture(
                f"{where}: images of {vision['num_channels']} channels; nshot reads RGB."
            )
        check_sizes(images, texts, where)
        return ModelConfig(family=self, vision=images, text=texts, dimension=dimension)

    def preprocessor(self, files: Files, config: ModelConfig) -> Mapping[str, Any] | None:
        """See ``Family``."""
        return image_processor(files)

    def vocabulary(self, files: Files, config: ModelConfig) -> TokenizerFiles | None:
        """See ``Family``."""
        return vocabulary(files)

    def tokenizer(self, files: TokenizerFiles, config: ModelConfig) -> Tokenizer:
        """See ``Family``."""
        return Tokenizer.from_files(
            files["tokenizer_json"], files["vocab"], files["merges"], context=config.text.context
        )


class MetaClip2(Clip):
    """MetaClip2Model: CLIP in many languages. Its tokenizer is XLM-V's, and 2 is indeed its end token."""

    name = "MetaCLIP 2"
    version = "1"

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Whether this is the config.json of a MetaClip2Model."""
        return config.get("model_type") == "metaclip_2" or "MetaClip2Model" in (
            config.get("architectures") or []
        )

    def read(self, config: Mapping[str, Any], where: str) -> ModelConfig:
        """See ``Family``."""
        found = super().read(config, where)
        assert isinstance(found.text, TextTransformer)
        return replace(found, text=replace(found.text, pool="eos"))

    def tokenizer(self, files: TokenizerFiles, config: ModelConfig) -> Tokenizer:
        """See ``Family``: the file's own."""
        return Tokenizer.as_stored(files, context=config.text.context)
