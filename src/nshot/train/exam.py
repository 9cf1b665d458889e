"""What a model knows: each image of a set looks for its own text among the set's texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nshot.train.batches import Towers
from nshot.train.data import Images
from nshot.train.feeding import Feeder

_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Exam:
    """Images that were not trained on, and the distinct texts to choose from.

    A text is one or several captions whose vectors are averaged: the prompts of a class, or one caption.
    """

    name: str
    images: Images

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The distinct texts, in the order in which they are first met."""
        return list(dict.fromkeys(tuple(texts) for texts in self.images.captions))

    def take(self, towers: Towers, feeder: Feeder, k: int = 1) -> float:
        """The share of images whose own text is among the ``k`` nearest: in [0, 1]."""
        numbers = {text: number for number, text in enumerate(self.texts)}
        targets = torch.tensor([numbers[tuple(texts)] for texts in self.images.captions])
        images = _images(towers, feeder, self.images.pixels)
        texts = _texts(towers, feeder, list(numbers))
        nearest = (images @ F.normalize(texts, dim=1).t()).topk(min(k, len(texts)), dim=1).indices
        return float((nearest == targets[:, None]).any(dim=1).float().mean())


def _images(towers: Towers, feeder: Feeder, pixels: Any) -> Tensor:
    parts = []
    for start in range(0, len(pixels), _AT_ONCE):
        part = np.array(pixels[start : start + _AT_ONCE])
        parts.append(towers.encode_images(feeder.normalised(part)).cpu())
    return F.normalize(torch.cat(parts), dim=1)


def _texts(towers: Towers, feeder: Feeder, texts: Sequence[Sequence[str]]) -> Tensor:
    """The mean of each text's captions, float32[n,d], not of unit norm."""
    captions = list(dict.fromkeys(caption for each in texts for caption in each))
    vectors = F.normalize(towers.encode_texts(*feeder.spelt(captions)).cpu(), dim=1)
    rows = {caption: row for row, caption in enumerate(captions)}
    return torch.stack([vectors[[rows[caption] for caption in each]].mean(dim=0) for each in texts])
