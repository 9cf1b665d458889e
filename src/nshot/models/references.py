"""What published checkpoints answer, as transformers' own tests record it; see ``nshot models verify``.

A reference is an image that code draws, or a file that a person has, texts, and the logits of the two. Of the
default model there are also parts of the vectors of 25 photographs, in photographs.csv.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw


class Reference(NamedTuple):
    """Recorded logits of one image with some texts.

    Attributes:
        id: short name of the entry.
        model: id on the Hub.
        image: name of the image's file, COCO's, or None for the drawing.
        texts: what it is compared with.
        logits: scale times cosine plus bias, of each text.
        atol: how far each may be off.
        source: where they were read.
    """

    id: str
    model: str
    image: str | None
    texts: tuple[str, ...]
    logits: tuple[float, ...]
    atol: float
    source: str


COCO = "000000039769.png"
"""COCO val2017 000000039769, two cats and two remote controls on a couch, as transformers' tests have it."""

DRAWN = ("a red circle", "a blue triangle", "a green square", "a yellow star")
"""What the drawing is compared with; of no published checkpoint is it recorded what it says to that."""

ABSENT = "a yellow star"
"""What the drawing does not show: a model that puts it first has read something wrong."""

TOKENS: dict[str, tuple[int, ...]] = {
    "a photo of a cat": (49406, 320, 1125, 539, 320, 2368, 49407),
    "a photo of a dog": (49406, 320, 1125, 539, 320, 1929, 49407),
}
"""The ids of CLIP's own vocabulary, as transformers' documentation of CLIPModel shows them."""

TOKENS_OF = ("openai/clip-vit-", "laion/CLIP-")
"""How the ids on the Hub begin whose models have that vocabulary."""

PHOTOGRAPHS = "openai/clip-vit-base-patch32"
"""The model whose vectors of the photographs are recorded, by transformers' CLIPModel and CLIPProcessor."""

MOST_OFF = 0.05
"""How far a photograph's numbers may be off: the difference's length over theirs, as at a cosine of 0.999.
Two programs that prepared images in different ways were seen 0.1 to 0.3 apart (cosines 0.995 to 0.958)."""

_TRANSFORMERS = "huggingface/transformers, tests/models/{}, test_inference"

REFERENCES: tuple[Reference, ...] = (
    Reference(
        "clip-b32-cats",
        "openai/clip-vit-base-patch32",
        COCO,
        ("a photo of a cat", "a photo of a dog"),
        (24.5701, 19.3049),
        1e-2,
        _TRANSFORMERS.format("clip/test_modeling_clip.py"),
    ),
    Reference(
        "siglip-b16-cats",
        "google/siglip-base-patch16-224",
        COCO,
        ("a photo of 2 cats", "a photo of 2 dogs"),
        (-0.7567, -10.3354),
        2e-2,
        _TRANSFORMERS.format("siglip/test_modeling_siglip.py"),
    ),
    Reference(
        "metaclip2-h-cats",
        "facebook/metaclip-2-worldwide-huge-quickgelu",
        COCO,
        ("a photo of a cat", "a photo of a dog"),
        (19.9799, 13.6169),
        1e-2,
        _TRANSFORMERS.format("metaclip_2/test_modeling_metaclip_2.py"),
    ),
    Reference(
        "sketchbook-drawing",
        "sketchbook",
        None,
        DRAWN,
        (5.2035, 8.0045, 1.5811, -2.1902),
        2e-2,
        "nshot's own model, on AVX-512 in f32",
    ),
)


def drawing() -> Image.Image:
    """A circle, a triangle and a square on grey: an image that needs no file."""
    image = Image.new("RGB", (320, 240), (128, 128, 128))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 40, 120, 140), fill=(220, 30, 30))
    draw.polygon([(180, 130), (230, 40), (280, 130)], fill=(30, 30, 220))
    draw.rectangle((120, 150, 200, 230), fill=(30, 180, 30))
    return image


def photographs() -> dict[str, dict[int, float]]:
    """Of each of the 25 photographs, some of its unit vector's 512 numbers, by their places."""
    with Path(__file__).with_name("photographs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["file"]: {int(place): float(value) for place, value in row.items() if place != "file"}
        for row in rows
    }


def off_by(vector: ArrayLike, recorded: dict[int, float]) -> float:
    """How far a unit vector is from what is recorded of it, see ``MOST_OFF``."""
    there = np.asarray(list(recorded.values()), np.float64)
    here = np.asarray(vector, np.float64)[list(recorded)]
    return float(np.linalg.norm(here - there) / np.linalg.norm(there))
