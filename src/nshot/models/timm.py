"""timm's image towers, as open_clip names them: which sizes a name stands for, and where its tensors stand.

The names say all but the sizes, and no file of a checkpoint says how many heads a tower has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from nshot.errors import UnsupportedArchitecture
from nshot.models.family import ImageTower, Place
from nshot.models.mobileclip import StemTransformer, fastvit, fastvit_places
from nshot.models.transformer import VisionTransformer


class _Size(NamedTuple):
    width: int
    layers: int
    heads: int
    intermediate: int


_SIZES = {
    "tiny": _Size(192, 12, 3, 768),
    "small": _Size(384, 12, 6, 1536),
    "base": _Size(768, 12, 12, 3072),
    "large": _Size(1024, 24, 16, 4096),
    "huge": _Size(1280, 32, 16, 5120),
    "so400m": _Size(1152, 27, 16, 4304),
    "giantopt": _Size(1536, 40, 16, 6144),
    "gigantic": _Size(1536, 50, 16, 8960),
}
_SIGLIP = re.compile(r"vit_(base|large|so400m|giantopt)_patch(\d+)_siglip_\d+")
_CLIP = re.compile(r"vit_(base|large|huge)_patch(\d+)_clip_(?:quickgelu_)?\d+")
_PERCEPTION = re.compile(r"vit_pe_core_(tiny|small|base|large|gigantic)_patch(\d+)_\d+")
# timm has the tanh form in these and the exact one in the others, where transformers has tanh in all: 2e-5
_TANH = {
    "vit_base_patch32_siglip_256",
    "vit_large_patch16_siglip_512",
    "vit_so400m_patch16_siglip_256",
    "vit_so400m_patch16_siglip_384",
    "vit_so400m_patch16_siglip_512",
}
_PE_POOL_HEADS = 8  # for every size, whatever the tower has


def timm_tower(config: Mapping[str, Any], image_size: int, dimension: int, where: str) -> ImageTower:
    """The tower that ``vision_cfg`` of an open_clip config names.

    Raises:
        UnsupportedArchitecture: another one.
    """
    name = str(config["timm_model_name"]).partition(".")[0]
    pool, projection = config.get("timm_pool", "avg"), config.get("timm_proj", "linear")

    def vit(size: _Size, patch: int, **more: Any) -> dict[str, Any]:
        return {
            "hidden_size": size.width,
            "intermediate_size": size.intermediate,
            "layers": size.layers,
            "heads": size.heads,
            "activation": "gelu",
            "dimension": dimension,
            "image_size": image_size,
            "patch_size": patch,
        } | more

    if (match := _SIGLIP.fullmatch(name)) and pool == "map" and projection == "none":
        size = _SIZES[match[1]]
        return VisionTransformer(
            **vit(
                size,
                int(match[2]),
                activation="gelu_tanh" if name in _TANH or match[1] == "giantopt" else "gelu",
                layer_norm_eps=1e-6,
                projection="none",
                patch_bias=True,
                class_token="none",
                pre_norm=False,
                pool="map",
                pool_heads=size.heads,
                pool_intermediate_size=size.intermediate,
            )
        )
    if (match := _PERCEPTION.fullmatch(name)) and pool == "map" and projection is None:
        size = _SIZES[match[1]]
        return VisionTransformer(
            **vit(
                size,
                int(match[2]),
                layer_norm_eps=1e-5,
                projection="bias",
                class_token="none" if match[1] == "gigantic" else "positioned",
                pool="map",
                pool_heads=_PE_POOL_HEADS,
                pool_intermediate_size=4 * size.width,
                rope=True,
            )
        )
    if (match := _CLIP.fullmatch(name)) and pool == "token" and projection is None:
        quick = "quickgelu" in name
        size = _SIZES[match[1]]
        return VisionTransformer(
            **vit(
                size,
                int(match[2]),
                activation="quick_gelu" if quick else "gelu",
                layer_norm_eps=1e-5,
                projection="bias",
            )
        )
    if name == "vit_base_mci_224" and pool == "token" and projection is None:
        return StemTransformer(
            **vit(
                _SIZES["base"],
                16,
                layer_norm_eps=1e-6,
                projection="bias",
                class_token="bare",
                pre_norm=False,
            )
        )
    if projection is None and pool == "avg" and (tower := fastvit(name, image_size, dimension)):
        return tower
    raise UnsupportedArchitecture(
        f"{where}: this model's image tower is timm's {name}, which nshot does not know. Of timm's it reads "
        "SigLIP's, the Perception Encoder's, MobileCLIP's and MobileCLIP 2's, and CLIP's ViT."
    )


_TRUNK = {
    "vision_model.embeddings.class_embedding": "cls_token",
    "vision_model.embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "vision_model.embeddings.patch_embedding.bias": "patch_embed.proj.bias",
    "vision_model.embeddings.position_embedding.weight": "pos_embed",
    "vision_model.head.probe": "attn_pool.latent",
}
_MODULES = {
    "vision_model.pre_layrnorm": "norm_pre",
    "vision_model.post_layernorm": "norm",
    "vision_model.head.layernorm": "attn_pool.norm",
    "vision_model.head.mlp.fc1": "attn_pool.mlp.fc1",
    "vision_model.head.mlp.fc2": "attn_pool.mlp.fc2",
    "vision_model.head.attention.q_proj": "attn_pool.q",
    "vision_model.head.attention.k_proj": "attn_pool.kv",
    "vision_model.head.attention.v_proj": "attn_pool.kv",
    "vision_model.head.attention.out_proj": "attn_pool.proj",
    "visual_projection": "head",
}
_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.(.+)")
_PARTS = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.q_proj": "attn.qkv",
    "self_attn.k_proj": "attn.qkv",
    "self_attn.v_proj": "attn.qkv",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def timm_places(tower: ImageTower) -> dict[str, Place]:
    """Where timm keeps nshot's tensors of a tower."""
    if not isinstance(tower, VisionTransformer):
        return fastvit_places(tower)
    width, result = tower.hidden_size, {}
    for name, shape in tower.shapes().items():
        module, _, kind = name.rpartition(".")
        rows = None
        if name in _TRUNK:
            stored = _TRUNK[name]
        elif match := _LAYER.fullmatch(module):
            stored = f"blocks.{match[1]}.{_PARTS[match[2]]}.{kind}"
            if ".attn.qkv." in stored:
                order = "qkv".index(match[2].removeprefix("self_attn.")[0])
                rows = (order * width, (order + 1) * width)
        elif module in _MODULES:
            stored = f"{_MODULES[module]}.{kind}"
            if stored.startswith("attn_pool.kv."):
                order = "kv".index(module.removeprefix("vision_model.head.attention.")[0])
                rows = (order * width, (order + 1) * width)
        else:
            stored = name  # MobileCLIP's stem has timm's names
        result[name] = Place(shape, f"visual.trunk.{stored}", rows)
    return result
