"""Models to begin with, and the files that training leaves: transformers' own, which nshot reads as well."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nshot.atomic import replace, writing
from nshot.bounded import read_bytes
from nshot.errors import CorruptCheckpoint, OutputError, RequestError, UnsupportedArchitecture
from nshot.models.checkpoint import Checkpoint, Mean, find
from nshot.models.clip import Clip
from nshot.models.family import ModelConfig
from nshot.models.siglip import Siglip
from nshot.models.tokenizer import Tokenizer
from nshot.train import vocabulary
from nshot.train.initial import initialise

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)

SMALL: dict[str, Any] = {
    "projection_dim": 128,
    "text_config": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 48,
        "hidden_act": "gelu",
    },
    "vision_config": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 48,
        "patch_size": 8,
        "hidden_act": "gelu",
    },
}
"""The sketchbook's model: 1.6 million parameters."""


_TOKENIZER = (
    *("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "spiece.model"),
)


@dataclass(frozen=True, slots=True)
class Start:
    """A model to train, and what stands beside it.

    Attributes:
        model: transformers' CLIPModel or SiglipModel, float32.
        tokenizer: texts -> tokens.
        config: what nshot reads of the same model.
        preprocessor: the content of preprocessor_config.json.
        mean: what is taken from each channel's value in [0, 1].
        std: what the rest is divided by.
        files: small files that are written beside the weights, name -> content.
        digest: of the weights and all that stands beside them, hexadecimal.
    """

    model: Any
    tokenizer: Tokenizer
    config: ModelConfig
    preprocessor: dict[str, Any]
    mean: Mean
    std: Mean
    files: dict[str, bytes]
    digest: str


def anew(config: dict[str, Any], corpus: Iterable[str], seed: int) -> Start:
    """A model with random weights, and a vocabulary learnt from ``corpus``.

    Raises:
        RequestError: the configuration is not one of a CLIPModel.
    """
    from transformers import CLIPConfig, CLIPModel

    tokenizer = vocabulary.learn(corpus)
    size = tokenizer.get_vocab_size()
    special = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    try:
        text = {**config.get("text_config", {}), **special, "vocab_size": size}
        model = CLIPModel(CLIPConfig(**{**config, "text_config": text}))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RequestError(f"the configuration is not one of a CLIP model: {error}") from error
    initialise(model, seed)
    edge = model.config.vision_config.image_size
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": edge},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": edge, "width": edge},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(_MEAN),
        "image_std": list(_STD),
    }
    about = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": vocabulary.START,
        "eos_token": vocabulary.END,
        "pad_token": vocabulary.END,
        "unk_token": vocabulary.END,
        "model_max_length": model.config.text_config.max_position_embeddings,
    }
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=False).encode(),
        "tokenizer_config.json": _json(about),
        "preprocessor_config.json": _json(preprocessor),
    }
    about_all = [model.config.to_json_string().encode(), *(files[name] for name in sorted(files))]
    digest = hashlib.sha256(b"".join(about_all)).hexdigest()
    own = Clip().read(model.config.to_dict(), "the configuration")
    spelling = Tokenizer(tokenizer, own.text.context, special["pad_token_id"])
    return Start(model, spelling, own, preprocessor, _MEAN, _STD, files, digest)


def of(name: str | Path) -> Start:
    """The model of a checkpoint on the Hub or in a folder, as nshot finds and reads it.

    Raises:
        CheckpointError: it cannot be found or read.
    """
    import transformers

    checkpoint = find(name)
    family = checkpoint.config.family
    kind = {Clip: "CLIP", Siglip: "Siglip"}.get(type(family))
    if kind is None:
        raise UnsupportedArchitecture(
            f"{name} is a {family.name} model: training starts from CLIP and SigLIP in transformers' layout "
            "(CLIPModel, SiglipModel)."
        )
    config = getattr(transformers, f"{kind}Config").from_pretrained(checkpoint.folder)
    model = getattr(transformers, f"{kind}Model")(config)
    _fill(model, checkpoint)
    files = {
        path.name: read_bytes(path) for name in _TOKENIZER if (path := checkpoint.folder / name).exists()
    }
    preprocessor = {"image_processor_type": f"{kind}ImageProcessor", **checkpoint.preprocessor}
    files["preprocessor_config.json"] = _json(preprocessor)
    beside = b"".join(files[name] for name in sorted(files))
    return Start(
        model,
        checkpoint.tokenizer(),
        checkpoint.config,
        dict(checkpoint.preprocessor),
        checkpoint.image_mean,
        checkpoint.image_std,
        files,
        hashlib.sha256(checkpoint.digest.encode() + beside).hexdigest(),
    )


def _fill(model: Any, checkpoint: Checkpoint) -> None:
    """Puts the checkpoint's tensors into the model, as nshot's own reader finds them."""
    own, tensors = model.state_dict(), checkpoint.tensors()
    left = set(own)
    for name, place in checkpoint.config.tensors().items():
        value = torch.tensor(tensors[name])
        target = own[place.name] if place.rows is None else own[place.name][slice(*place.rows)]
        target.copy_(value.reshape(target.shape))
        left.discard(place.name)
    if left:
        raise CorruptCheckpoint(f"{checkpoint.name} has no {min(left)}, which its model needs.")


def write(start: Start, folder: Path, *, half: bool = False) -> None:
    """Write a checkpoint that transformers and nshot load; config.json, by which it is known, comes last.

    Raises:
        OutputError: it cannot be written; nothing half written is left.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    unfinished = folder / ".unfinished"
    model = start.model.half() if half else start.model
    try:
        with writing(folder):
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            model.save_pretrained(unfinished)
            for name, content in start.files.items():
                (unfinished / name).write_bytes(content)
            for path in sorted(
                unfinished.iterdir(), key=lambda path: (path.name == "config.json", path.name)
            ):
                path.chmod(0o644)  # safetensors writes for the owner's eyes alone
                replace(path, folder / path.name)
    except SafetensorError as error:
        raise OutputError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if half:
            model.float()


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
