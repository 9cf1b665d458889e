"""open_clip's files: open_clip_config.json, and the weights of plain transformers or of timm's.

LAION's and DataComp's models, MetaCLIP, DFN, CLIPA, SigLIP in timm's layout, the Perception Encoder and
MobileCLIP 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from nshot.errors import CorruptCheckpoint, UnsupportedArchitecture
from nshot.models.cleaning import Clean, repaired_and_canonical, repaired_lower, repaired_spaces
from nshot.models.family import ImageTower, ModelConfig, Place, Shapes
from nshot.models.files import Files, TokenizerFiles, read_json, side, vocabulary
from nshot.models.ops import Gelu
from nshot.models.timm import timm_places, timm_tower
from nshot.models.tokenizer import Tokenizer
from nshot.models.transformer import Projection, TextTransformer, VisionTransformer, check_sizes

_MEAN = [0.48145466, 0.4578275, 0.40821073]
_STD = [0.26862954, 0.26130258, 0.27577711]

_RESAMPLE = {"bilinear": 2, "bicubic": 3, "nearest": 0, "random": 3}

_CLEAN: dict[str, Clean] = {
    "canonicalize": repaired_and_canonical,
    "lower": repaired_lower,
    "whitespace": repaired_spaces,
}

# what changes a tower, and no model that is published without it has set
_OTHER_PARTS = (
    "ls_init_value",
    "attentional_pool",
    "qk_norm",
    "scaled_cosine_attn",
    "scale_heads",
    "scale_attn_inner",
    "scale_attn",
    "scale_fc",
    "embed_cls",
)

CLIP_TOKENIZER = "openai/clip-vit-base-patch32"
"""Where CLIP's vocabulary stands, for a checkpoint that does not bring its own."""


class OpenClip:
    """open_clip's layout."""

    name = "open_clip"
    version = "1"
    weights: tuple[str, ...] = (
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.safetensors",
        "open_clip_pytorch_model.bin",
        "model.safetensors",
        "pytorch_model.bin",
    )

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Whether this is an open_clip_config.json, of today or of the first days."""
        model = config.get("model_cfg", config)
        return isinstance(model, dict) and {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys()

    def read(self, config: Mapping[str, Any], where: str) -> ModelConfig:
        """See ``Family``."""
        model = config.get("model_cfg", config)
        _refuse(model, where)
        try:
            dimension = int(model["embed_dim"])
            quick = bool(model.get("quick_gelu"))
            texts = _text(model["text_cfg"], dimension, quick, where)
            images = _vision(model["vision_cfg"], dimension, quick, where)
        except (TypeError, ValueError, AttributeError, KeyError, ZeroDivisionError) as error:
            raise CorruptCheckpoint(f"{where} is not the config of an open_clip model: {error!r}.") from error
        if isinstance(images, VisionTransformer):
            check_sizes(images, texts, where)
        custom = bool(model.get("custom_text"))
        has_bias = model.get("init_logit_bias") is not None
        text_settings = _Text.read(model["text_cfg"])
        return ModelConfig(
            family=self,
            vision=images,
            text=texts,
            dimension=dimension,
            activation="sigmoid" if has_bias else "softmax",
            has_bias=has_bias,
            places=_image_places(images, model["vision_cfg"])
            | _text_places(texts, "text." if custom else ""),
            settings={"text": text_settings, "preprocess": config.get("preprocess_cfg") or {}},
        )

    def preprocessor(self, files: Files, config: ModelConfig) -> Mapping[str, Any] | None:
        """See ``Family``: the same in transformers' words."""
        given = config.settings["preprocess"]
        size = config.vision.image_size
        mode, interpolation = given.get("resize_mode", "shortest"), given.get("interpolation", "bicubic")
        if mode not in ("shortest", "squash", "longest") or interpolation not in _RESAMPLE:
            raise UnsupportedArchitecture(
                f"open_clip_config.json: preprocessing by {mode}, {interpolation} is unknown."
            )
        square = {"height": size, "width": size}
        fill = given.get("fill_color", 0)
        padded = {"pad_color": list(fill) if isinstance(fill, list | tuple) else [fill] * 3}
        return {
            "do_resize": True,
            "size": {"shortest_edge": size} if mode == "shortest" else square,
            "resample": _RESAMPLE[interpolation],
            "do_center_crop": mode == "shortest",
            "crop_size": square,
            "image_mean": list(given.get("mean") or _MEAN),
            "image_std": list(given.get("std") or _STD),
            "crop_rounds": True,  # torchvision's half pixel
        } | (padded if mode == "longest" else {})

    def vocabulary(self, files: Files, config: ModelConfig) -> TokenizerFiles | None:
        """See ``Family``: the checkpoint's own, else the one that its settings name, else CLIP's."""
        text: _Text = config.settings["text"]
        return vocabulary(files) or vocabulary(files.elsewhere(text.tokenizer or CLIP_TOKENIZER))

    def tokenizer(self, files: TokenizerFiles, config: ModelConfig) -> Tokenizer:
        """See ``Family``."""
        text: _Text = config.settings["text"]
        if text.tokenizer is None:
            return Tokenizer.of_open_clip(
                files, context=config.text.context, clean=_CLEAN[text.clean or "lower"]
            )
        return Tokenizer.as_stored(
            files,
            context=config.text.context,
            clean=_CLEAN[text.clean or "whitespace"],
            only_end="siglip" in text.tokenizer.lower(),
            without_separator=text.strip_separator,
        )


class _Text(NamedTuple):
    """What text_cfg says of the tokenizer."""

    tokenizer: str | None
    clean: str | None
    strip_separator: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> _Text:
        more = config.get("tokenizer_kwargs") or {}
        name = config.get("hf_tokenizer_name")
        return cls(name, more.get("clean"), bool(more.get("strip_sep_token")))


def _refuse(model: Mapping[str, Any], where: str) -> None:
    """Say by name what is not built."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    known = "nshot reads open_clip's plain transformers, SigLIP, the Perception Encoder and MobileCLIP 2"
    reason = None
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise CorruptCheckpoint(f"{where}: vision_cfg and text_cfg should be tables.")
    if "multimodal_cfg" in model or text.get("embed_cls"):
        reason = "a CoCa model"
    elif text.get("hf_model_name"):
        reason = f"a model whose text tower is {text['hf_model_name']}"
    elif isinstance(vision.get("layers"), list | tuple):
        reason = "a ResNet of OpenAI's kind"
    elif text.get("tokenizer_mode"):
        reason = f"a model with the tokenizer mode {text['tokenizer_mode']}"
    elif (clean := (text.get("tokenizer_kwargs") or {}).get("clean")) not in (None, *_CLEAN):
        reason = f"a model whose texts are cleaned by {clean}"
    else:
        parts = [part for part in _OTHER_PARTS if vision.get(part) or text.get(part)]
        parts += [t["block_type"] for t in (vision, text) if t.get("block_type") not in (None, "default")]
        if vision.get("pos_embed_type", "learnable") not in ("learnable", "sin_cos_2d"):
            parts.append(str(vision["pos_embed_type"]))
        if parts:
            reason = f"a model with {', '.join(map(str, parts))}"
    if reason:
        raise UnsupportedArchitecture(f"{where}: this is {reason}, which nshot does not know: {known}.")


def _text(config: Mapping[str, Any], dimension: int, quick: bool, where: str) -> TextTransformer:
    width = int(config.get("width", 512))
    pool = str(config.get("pool_type", "argmax"))
    pools = {"argmax": "largest", "eos": "eos", "first": "first", "last": "last"}
    if pool not in pools:
        raise UnsupportedArchitecture(f"{where}: texts pooled by {pool}; nshot knows {', '.join(pools)}.")
    projection: Projection = "bias" if config.get("proj_bias") else "plain"
    if config.get("proj_type", "linear") == "none":
        projection = "none"
    return TextTransformer(
        hidden_size=width,
        intermediate_size=int(width * float(config.get("mlp_ratio", 4.0))),
        layers=int(config.get("layers", 12)),
        heads=int(config.get("heads", 8)),
        activation=_gelu(config, quick, where),
        layer_norm_eps=float((config.get("norm_kwargs") or {}).get("eps", 1e-5)),
        dimension=dimension,
        projection=projection,
        context=int(config.get("context_length", 77)),
        vocab_size=int(config.get("vocab_size", 49408)),
        pool=pools[pool],  # type: ignore[arg-type]
        eos_token_id=int(config.get("eos_id", 2)),
        causal=not config.get("no_causal_mask", False),
    )


def _vision(config: Mapping[str, Any], dimension: int, quick: bool, where: str) -> ImageTower:
    size = side(config.get("image_size", 224), where)
    if config.get("timm_model_name"):
        return timm_tower(config, size, dimension, where)
    width = int(config.get("width", 768))
    pool = config.get("pool_type", "tok")
    if pool not in ("tok", "avg"):
        raise UnsupportedArchitecture(f"{where}: images pooled by {pool}; nshot knows tok and avg.")
    return VisionTransformer(
        hidden_size=width,
        intermediate_size=int(width * float(config.get("mlp_ratio", 4.0))),
        layers=int(config.get("layers", 12)),
        heads=width // int(config.get("head_width", 64)),
        activation=_gelu(config, quick, where),
        layer_norm_eps=float((config.get("norm_kwargs") or {}).get("eps", 1e-5)),
        dimension=dimension,
        image_size=size,
        patch_size=side(config.get("patch_size", 16), where),
        pre_norm=not config.get("no_ln_pre", False),
        pool="class" if pool == "tok" else "mean",
        norm_first=not config.get("final_ln_after_pool", False),
    )


def _gelu(config: Mapping[str, Any], quick: bool, where: str) -> Gelu:
    approximate = (config.get("act_kwargs") or {}).get("approximate", "none")
    if quick:
        return "quick_gelu"
    if approximate not in ("none", "tanh"):
        raise UnsupportedArchitecture(f"{where}: a GELU approximated by {approximate}.")
    return "gelu_tanh" if approximate == "tanh" else "gelu"


_EMBEDDINGS = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
}
_NORMS = {
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.final_layer_norm": "ln_final",
}
_LAYER = re.compile(r"(?:text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = {
    "layer_norm1": "ln_1.{}",
    "layer_norm2": "ln_2.{}",
    "self_attn.out_proj": "attn.out_proj.{}",
    "self_attn.q_proj": "attn.in_proj_{}",
    "self_attn.k_proj": "attn.in_proj_{}",
    "self_attn.v_proj": "attn.in_proj_{}",
    "mlp.fc1": "mlp.c_fc.{}",
    "mlp.fc2": "mlp.c_proj.{}",
}


def _image_places(tower: ImageTower, config: Mapping[str, Any]) -> dict[str, Place]:
    if config.get("timm_model_name"):
        return timm_places(tower)
    assert isinstance(tower, VisionTransformer)
    places = _places(tower.shapes(), tower.hidden_size, "visual.transformer", "")
    places["visual_projection.weight"] = Place(
        (tower.dimension, tower.hidden_size), "visual.proj", transpose=True
    )
    return places


def _text_places(tower: TextTransformer, prefix: str) -> dict[str, Place]:
    places = _places(tower.shapes(), tower.hidden_size, f"{prefix}transformer", prefix)
    shape = (tower.dimension, tower.hidden_size)
    if tower.projection == "plain":
        places["text_projection.weight"] = Place(shape, f"{prefix}text_projection", transpose=True)
    elif tower.projection == "bias":
        places["text_projection.weight"] = Place(shape, f"{prefix}text_projection.weight")
        places["text_projection.bias"] = Place(shape[:1], f"{prefix}text_projection.bias")
    return places


def _places(shapes: Shapes, width: int, layers: str, prefix: str) -> dict[str, Place]:
    """Where open_clip's plain transformers keep nshot's tensors, but for the projections."""
    result = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        if match := _LAYER.fullmatch(name):
            number, part, kind = match.groups()
            stored = f"{layers}.resblocks.{number}.{_PARTS[part].format(kind)}"
            order = "qkv".find(part.removeprefix("self_attn.")[0]) if "in_proj" in stored else -1
            rows = (order * width, (order + 1) * width) if order >= 0 else None
            result[name] = Place(shape, stored, rows)
        elif name in _EMBEDDINGS:
            result[name] = Place(shape, prefix + _EMBEDDINGS[name])
        elif module in _NORMS:
            result[name] = Place(shape, f"{prefix}{_NORMS[module]}.{kind}")
    return result


def read_settings(files: Files) -> Mapping[str, Any] | None:
    """The content of open_clip_config.json, if there is one."""
    path = files("open_clip_config.json")
    return None if path is None else read_json(path)
