"""A training run of seconds: a tiny configuration, drawings with captions, folders of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from nshot import sketchbook
from nshot.train.options import Options

TINY: dict[str, Any] = {
    "projection_dim": 16,
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
    },
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 24,
        "patch_size": 8,
    },
}
QUICK = Options(steps=6, batch=8, seed=3, threads=2, piece=3, minutes=0, lr=1e-3)


def scenes(count: int, start: int = 0) -> list[sketchbook.Scene]:
    """Of the sketchbook, the same each time."""
    return [sketchbook.sample(number) for number in range(start, start + count)]


def pairs(count: int = 24) -> list[tuple[Image.Image, str]]:
    """Drawings and a caption of each."""
    return [(sketchbook.draw(scene, 24), sketchbook.caption(scene, 0)) for scene in scenes(count)]


def weights(folder: Path) -> dict[str, Any]:
    """Of the checkpoint in a folder, as transformers reads it."""
    import transformers

    return dict(transformers.CLIPModel.from_pretrained(folder).state_dict())


def class_folders(folder: Path) -> Path:
    """Two classes of eight drawings."""
    for label in ("star", "fish"):
        (folder / label).mkdir(parents=True)
        for number in range(8):
            scene = sketchbook.sample(number, styles=("flat",), pairs=[("red", label)], several=0)
            sketchbook.draw(scene, 30).save(folder / label / f"{number}.png")
    return folder
