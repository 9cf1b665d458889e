"""config.json of a CLIPModel -> sizes, and the tensors that they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from nshot.errors import CorruptCheckpoint, UnsupportedArchitecture

Activation: TypeAlias = Literal["quick_gelu", "gelu"]

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


@dataclass(frozen=True, slots=True)
class TowerConfig:
    """One transformer."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    activation: Activation
    layer_norm_eps: float


@dataclass(frozen=True, slots=True)
class TextConfig(TowerConfig):
    """The text tower.

    Attributes:
        context: tokens in a text, the two specials included.
        vocab_size: number of token ids.
        eos_token_id: the text's vector is taken at the first of these; 2, the convention of 2021, means
            at the largest id instead.
    """

    context: int
    vocab_size: int
    eos_token_id: int


@dataclass(frozen=True, slots=True)
class VisionConfig(TowerConfig):
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


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """A CLIPModel's sizes; ``projection_dim`` is the length of its vectors."""

    text: TextConfig
    vision: VisionConfig
    projection_dim: int

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, where: str) -> ClipConfig:
        """Read a config.json, of 2021 or of now; ``where`` names it in messages.

        Raises:
            UnsupportedArchitecture: another kind of model, or a CLIP with parts that nshot does not know.
            CorruptCheckpoint: sizes that are not there or do not fit.
        """
        _refuse_others(config, where)
        try:
            text = _section(config, "text_config", _TEXT)
            vision = _section(config, "vision_config", _VISION)
            end = text["eos_token_id"]
            result = cls(
                text=TextConfig(
                    **_tower(text, where),
                    context=int(text["max_position_embeddings"]),
                    vocab_size=int(text["vocab_size"]),
                    eos_token_id=int(end[0] if isinstance(end, list) else end),
                ),
                vision=VisionConfig(
                    **_tower(vision, where),
                    image_size=_side(vision["image_size"], where),
                    patch_size=_side(vision["patch_size"], where),
                ),
                projection_dim=int(config.get("projection_dim") or 512),
            )
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise CorruptCheckpoint(f"{where} is not the config of a CLIP model: {error}.") from error
        if vision["num_channels"] != 3:
            raise UnsupportedArchitecture(
                f"{where}: images of {vision['num_channels']} channels; nshot reads RGB."
            )
        sizes = [result.projection_dim, result.text.context, result.text.vocab_size, result.vision.patch_size]
        for tower in (result.text, result.vision):
            sizes += [tower.hidden_size, tower.intermediate_size, tower.layers, tower.heads]
        if min(sizes) < 1 or result.vision.image_size < result.vision.patch_size:
            raise CorruptCheckpoint(f"{where} holds a size that cannot be.")
        for tower in (result.text, result.vision):
            if tower.hidden_size % tower.heads:
                raise CorruptCheckpoint(
                    f"{where}: {tower.heads} heads cannot share {tower.hidden_size} values."
                )
        return result

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of such a model, by the name it has in a checkpoint, and its shape."""
        text, vision, patch = self.text, self.vision, self.vision.patch_size
        shapes: dict[str, tuple[int, ...]] = {
            "logit_scale": (),
            "text_projection.weight": (self.projection_dim, text.hidden_size),
            "visual_projection.weight": (self.projection_dim, vision.hidden_size),
            "text_model.embeddings.token_embedding.weight": (text.vocab_size, text.hidden_size),
            "text_model.embeddings.position_embedding.weight": (text.context, text.hidden_size),
            "vision_model.embeddings.class_embedding": (vision.hidden_size,),
            "vision_model.embeddings.patch_embedding.weight": (vision.hidden_size, 3, patch, patch),
            "vision_model.embeddings.position_embedding.weight": (vision.positions, vision.hidden_size),
        }
        norms = {"text_model.final_layer_norm": text.hidden_size}
        norms |= {"vision_model.pre_layrnorm": vision.hidden_size}  # spelt so in every checkpoint
        norms |= {"vision_model.post_layernorm": vision.hidden_size}
        towers: tuple[tuple[str, TowerConfig], ...] = (("text_model", text), ("vision_model", vision))
        for name, tower in towers:
            for layer in range(tower.layers):
                prefix, size, wide = (
                    f"{name}.encoder.layers.{layer}",
                    tower.hidden_size,
                    tower.intermediate_size,
                )
                norms |= {f"{prefix}.layer_norm1": size, f"{prefix}.layer_norm2": size}
                linears = {
                    f"self_attn.{part}": (size, size) for part in ("q_proj", "k_proj", "v_proj", "out_proj")
                }
                linears |= {"mlp.fc1": (wide, size), "mlp.fc2": (size, wide)}
                for part, shape in linears.items():
                    shapes |= {f"{prefix}.{part}.weight": shape, f"{prefix}.{part}.bias": shape[:1]}
        for norm, size in norms.items():
            shapes |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
        return shapes


def _refuse_others(config: Mapping[str, Any], where: str) -> None:
    architectures = config.get("architectures") or []
    kind = config.get("model_type")
    if kind == "clip" and (not architectures or "CLIPModel" in architectures):
        return
    if kind is None and "CLIPModel" in architectures:
        return
    name = ", ".join(map(str, architectures)) or kind or "a model without a name"
    raise UnsupportedArchitecture(
        f"{where}: this is {name}, which nshot does not know. It reads CLIPModel checkpoints, both towers, "
        "in the layout of transformers: OpenAI's CLIP ViT-B/32, B/16, L/14, L/14@336, LAION's, and their kin."
    )


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
        "activation": cast(Activation, activation),
        "layer_norm_eps": float(section["layer_norm_eps"]),
    }


def _side(size: Any, where: str) -> int:
    """The side of a square, which newer configs may write as [height, width]."""
    height, width = size if isinstance(size, list) else (size, size)
    if height != width:
        raise UnsupportedArchitecture(f"{where}: {height} x {width}; nshot knows square images and patches.")
    return int(height)
