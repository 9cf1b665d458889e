"""Tiny seeded checkpoints in the other layouts of the Hub, for tests; their weights are random."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import tiny_checkpoint, write_safetensors
from numpy.typing import NDArray

from nshot.models.family import ModelConfig
from nshot.models.open_clip import OpenClip
from nshot.models.owlv2 import Owlv2
from nshot.models.siglip import Siglip

SIGLIP: dict[str, Any] = {
    "architectures": ["SiglipModel"],
    "model_type": "siglip",
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
        "vocab_size": 60,
        "projection_size": 48,
    },
    "vision_config": {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 36,
        "patch_size": 16,
    },
}
"""36 pixels in patches of 16: the last four are not seen, as in so400m-patch14-384."""

OPEN_CLIP_TINY: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 48, "head_width": 12, "layers": 2},
    "text_cfg": {"width": 32, "heads": 4, "layers": 2, "context_length": 77, "vocab_size": 553},
}


def stored(config: ModelConfig, *, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Random tensors under the names and in the shapes of the layout."""
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {}
    for place in config.tensors().values():
        shape = place.shape[::-1] if place.transpose else place.shape
        if place.rows:
            before = shapes.get(place.name, (0,))
            shape = (max(before[0], place.rows[1]), *shape[1:])
        shapes[place.name] = shape
    tensors = {}
    for name in sorted(shapes):
        shape = shapes[name]
        scale = np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.2
        value = random.standard_normal(shape, np.float32) * np.float32(scale)
        if len(shape) == 1 and name.endswith("weight"):
            value += 1
        if name.endswith("running_var"):
            value = np.abs(value) + 1
        tensors[name] = np.asarray(value, np.float32)
    tensors["logit_scale"] = np.asarray(4.6 if "logit_bias" not in tensors else 4.7, np.float32)
    return tensors


def tiny_siglip(
    folder: Path,
    *,
    config: Mapping[str, Any] = SIGLIP,
    preprocessor: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """A SiglipModel with a tokenizer of words; scale and bias are lists of one number, as in real ones."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "config.json", config)
    given = {"size": {"height": 36, "width": 36}, "resample": 2}
    write(folder / "preprocessor_config.json", given if preprocessor is None else preprocessor)
    word_tokenizer(folder)
    tensors = stored(Siglip().read(config, "config.json"), seed=seed)
    tensors["logit_scale"] = np.asarray([4.7], np.float32)
    tensors["logit_bias"] = np.asarray([-12.5], np.float32)
    tensors["vision_model.head.probe"] = tensors["vision_model.head.probe"][None]
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


OWLV2: dict[str, Any] = {
    "architectures": ["Owlv2ForObjectDetection"],
    "model_type": "owlv2",
    "projection_dim": 32,
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
        "vocab_size": 553,
    },
    "vision_config": {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
    },
}


def tiny_owlv2(folder: Path, *, config: Mapping[str, Any] = OWLV2, seed: int = 0) -> Path:
    """An Owlv2ForObjectDetection with CLIP's tokenizer: 16 boxes per image."""
    tiny_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    write(folder / "config.json", config)
    side = config["vision_config"]["image_size"]
    write(folder / "preprocessor_config.json", {"size": {"height": side, "width": side}, "do_pad": True})
    tensors = stored(Owlv2().read(config, "config.json"), seed=seed)
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def tiny_open_clip(
    folder: Path, *, model: Mapping[str, Any] = OPEN_CLIP_TINY, preprocess: Mapping[str, Any] | None = None
) -> Path:
    """An open_clip checkpoint: plain transformers, CLIP's tokenizer."""
    tiny_checkpoint(folder)
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (folder / name).unlink()
    content = {"model_cfg": model, "preprocess_cfg": preprocess} if preprocess is not None else model
    write(folder / "open_clip_config.json", content)
    write_safetensors(folder / "open_clip_model.safetensors", stored(OpenClip().read(model, "config")))
    return folder


def word_tokenizer(folder: Path) -> None:
    """A tokenizer.json of whole words: ids 0 <pad>, 1 </s>, 2 <unk>, then the words."""
    words = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "cat", "dog", "t", "shirt", "hot", "hotdog", "the"]
    special = [
        {"id": i, "content": words[i], "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for i in range(3)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(words)}, "unk_token": "<unk>"},
    }
    write(folder / "tokenizer.json", tokenizer)
    write(folder / "tokenizer_config.json", {"pad_token": "</s>", "eos_token": "</s>"})


def sentence_transformers(folder: Path) -> Path:
    """CLIP as sentence-transformers keeps it: inside of a folder."""
    tiny_checkpoint(folder / "0_CLIPModel")
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (folder / "modules.json").write_text(json.dumps([module]))
    return folder


def write(path: Path, content: Any) -> None:
    """As JSON."""
    path.write_text(json.dumps(content))


def copy(source: Path, target: Path) -> Path:
    """A folder anew."""
    shutil.copytree(source, target)
    return target
