"""Models worth knowing, with short names that stand for their ids.

ImageNet figures are zero-shot top-1 with the authors' prompts, in per cent, from: (1) open_clip's
docs/openclip_results.csv, (2) big_vision's README of SigLIP 2, (3) MobileCLIP 2's paper.
Figures on CLIP_benchmark's other data sets are in published.csv, from (1).
GFLOP are those of one image, computed from the sizes; parameters are those of both towers, in millions.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import NamedTuple

_ENGLISH, _MANY = "English", "100 and more"
_APPLE = "Apple's own: research only, see its model card"
_NC = "CC-BY-NC 4.0: not for commercial use"


class Entry(NamedTuple):
    """One model.

    Attributes:
        short: the name that ``--model`` takes.
        id: on the Hub.
        family: as nshot calls it.
        imagenet: published zero-shot top-1, in per cent; None where none was read.
        source: number of the source, see the module.
        gflop: of one image.
        parameters: in millions.
        pixels: side of an image.
        languages: of its labels.
        licence: of its weights.
    """

    short: str
    id: str
    family: str
    imagenet: float | None
    source: int | None
    gflop: float
    parameters: int
    pixels: int
    languages: str
    licence: str

    @property
    def restricted(self) -> bool:
        """Whether the licence does not allow every use."""
        return self.licence in (_APPLE, _NC)


def _clip(
    short: str, id: str, top: float | None, source: int | None, *size: float, licence: str = "MIT"
) -> Entry:
    gflop, parameters, pixels = size
    return Entry(short, id, "CLIP", top, source, gflop, int(parameters), int(pixels), _ENGLISH, licence)


def _siglip2(short: str, id: str, top: float, gflop: float, parameters: int, pixels: int) -> Entry:
    return Entry(short, id, "SigLIP", top, 2, gflop, parameters, pixels, _MANY, "Apache-2.0")


def _open(short: str, id: str, top: float | None, source: int | None, *size: float, licence: str) -> Entry:
    gflop, parameters, pixels = size
    return Entry(short, id, "open_clip", top, source, gflop, int(parameters), int(pixels), _ENGLISH, licence)


CATALOGUE: tuple[Entry, ...] = (
    _clip("clip-b32", "openai/clip-vit-base-patch32", 63.3, 1, 8.8, 151, 224),
    _clip("clip-b16", "openai/clip-vit-base-patch16", 68.3, 1, 35.1, 150, 224),
    _clip("clip-l14", "openai/clip-vit-large-patch14", 75.5, 1, 162.0, 428, 224),
    _clip("clip-l14-336", "openai/clip-vit-large-patch14-336", 76.6, 1, 381.9, 428, 336),
    _clip("laion-b32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", 66.6, 1, 8.8, 151, 224),
    _clip("laion-b16", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", 70.2, 1, 35.1, 150, 224),
    _clip("laion-h14", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 78.0, 1, 334.6, 986, 224),
    _clip("datacomp-b32", "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K", 69.2, 1, 8.8, 151, 224),
    _clip("datacomp-b32-256", "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K", 72.8, 1, 11.5, 151, 256),
    _clip("datacomp-b16", "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", 73.5, 1, 35.1, 150, 224),
    _clip("datacomp-l14", "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", 79.2, 1, 162.0, 428, 224),
    _clip("metaclip-b16", "facebook/metaclip-b16-fullcc2.5b", 72.1, 1, 35.1, 150, 224, licence=_NC),
    _open("dfn-b16", "apple/DFN2B-CLIP-ViT-B-16", 76.2, 1, 35.1, 150, 224, licence=_APPLE),
    _open("dfn-l14", "apple/DFN2B-CLIP-ViT-L-14", 81.4, 1, 162.0, 428, 224, licence=_APPLE),
    _open("dfn-h14-378", "apple/DFN5B-CLIP-ViT-H-14-378", 84.4, 1, 1007.0, 987, 378, licence=_APPLE),
    Entry(
        "siglip-b16",
        "google/siglip-base-patch16-224",
        "SigLIP",
        76.0,
        1,
        35.4,
        203,
        224,
        _ENGLISH,
        "Apache-2.0",
    ),
    _siglip2("siglip2-b32", "google/siglip2-base-patch32-256", 74.0, 11.5, 377, 256),
    _siglip2("siglip2-b16", "google/siglip2-base-patch16-224", 78.2, 35.4, 375, 224),
    _siglip2("siglip2-b16-256", "google/siglip2-base-patch16-256", 79.1, 46.8, 375, 256),
    _siglip2("siglip2-b16-384", "google/siglip2-base-patch16-384", 80.6, 112.1, 375, 384),
    _siglip2("siglip2-l16", "google/siglip2-large-patch16-256", 82.5, 162.5, 882, 256),
    _siglip2("siglip2-so400m", "google/siglip2-so400m-patch14-224", 83.2, 220.3, 1135, 224),
    _siglip2("siglip2-so400m-384", "google/siglip2-so400m-patch14-384", 84.1, 670.3, 1136, 384),
    _siglip2("siglip2-giant", "google/siglip2-giant-opt-patch16-256", 84.5, 599.0, 1871, 256),
    _open("mobileclip2-s0", "timm/MobileCLIP2-S0-OpenCLIP", 71.5, 3, 4.8, 75, 256, licence=_APPLE),
    _open("mobileclip2-s2", "timm/MobileCLIP2-S2-OpenCLIP", 77.2, 3, 15.7, 99, 256, licence=_APPLE),
    _open("mobileclip2-b", "timm/MobileCLIP2-B-OpenCLIP", 79.4, 3, 35.1, 150, 224, licence=_APPLE),
    _open("pe-b16", "timm/PE-Core-B-16", 78.4, 1, 35.6, 448, 224, licence="Apache-2.0"),
    _open("bioclip", "imageomics/bioclip", None, None, 35.1, 150, 224, licence="MIT"),
)

SHORT = {entry.short: entry for entry in CATALOGUE}


def full_name(name: str) -> str:
    """The id that a short name stands for; any other name is its own."""
    return SHORT[name].id if name in SHORT else name


def entry(name: str) -> Entry | None:
    """What the table knows of a model, by its id or its short name."""
    return next((each for each in CATALOGUE if name in (each.short, each.id)), None)


class Published(NamedTuple):
    """A published zero-shot figure.

    Attributes:
        value: in per cent.
        per_label: it is the mean of the labels' own shares, and not top-1.
    """

    value: float
    per_label: bool


_PER_LABEL = ("vtab-caltech101", "fgvc_aircraft", "vtab-flowers", "vtab-pets")


def published(model: str, data_set: str) -> Published | None:
    """What is published for a model on one of CLIP_benchmark's data sets, with the set's own prompts.

    Args:
        model: an id or a short name.
        data_set: its name there, such as "vtab-pets".
    """
    known = entry(model)
    if known is None:
        return None
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        row = next((row for row in csv.DictReader(file) if row["model"] == known.short), None)
    if row is not None and data_set in row:
        return Published(float(row[data_set]), data_set in _PER_LABEL)
    if data_set == "imagenet1k" and known.imagenet is not None:
        return Published(known.imagenet, False)
    return None


_NAMED_SO = re.compile(
    r"siglip-?2|siglip.*i18n|worldwide|xlm|nllb|multilingual|\bm-?clip|jina-clip-v2", re.IGNORECASE
)
_LARGE = 200_000  # tokens: vocabularies of many languages begin there, English ones have 32,000 to 50,000


def is_multilingual(name: str, vocabulary: int = 0) -> bool:
    """Whether a model has learnt texts in many languages, as far as can be told.

    Args:
        name: an id on the Hub, a short name, or a folder.
        vocabulary: how many tokens its texts are made of.
    """
    if (known := entry(name)) is not None:
        return known.languages == _MANY
    return vocabulary >= _LARGE or _NAMED_SO.search(name.rstrip("/").rsplit("/", 1)[-1]) is not None
