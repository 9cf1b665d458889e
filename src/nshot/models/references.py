"""What published checkpoints answer, as transformers' own tests record it; see ``nshot models verify``.

A reference is an image that code draws, or a file that a person has, texts, and the logits of the two.
"""

from __future__ import annotations

from typing import NamedTuple

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
)


def drawing() -> Image.Image:
    """A circle, a triangle and a square on grey: an image that needs no file."""
    image = Image.new("RGB", (320, 240), (128, 128, 128))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 40, 120, 140), fill=(220, 30, 30))
    draw.polygon([(180, 130), (230, 40), (280, 130)], fill=(30, 30, 220))
    draw.rectangle((120, 150, 200, 230), fill=(30, 180, 30))
    return image
