"""Features of a supervised network, to compare with: a ResNet before its head, through the torch extra."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from nshot.errors import CheckpointNotFound, MissingExtra
from nshot.types import Floats

if TYPE_CHECKING:
    from PIL.Image import Image

RESNET = "microsoft/resnet-50"

_BATCH = 16


class Supervised:
    """An image classification model of the Hub, without its head.

    Args:
        model: a Hub id or a folder, such as ``microsoft/resnet-50``.

    Raises:
        MissingExtra: torch or transformers is not installed.
        CheckpointNotFound: the model cannot be found, or is of another kind.
    """

    def __init__(self, model: str = RESNET) -> None:
        try:
            import torch
            from transformers import AutoImageProcessor, AutoModelForImageClassification
        except ImportError as error:
            raise MissingExtra('a supervised model needs torch: pip install "nshot[torch]"') from error
        self.name = model
        self._torch: Any = torch
        try:
            # The PIL processor gives the same pixels whether or not torchvision is there.
            self._processor = AutoImageProcessor.from_pretrained(model, backend="pil")
            whole = AutoModelForImageClassification.from_pretrained(model)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointNotFound(f"{model} cannot be loaded as an image classifier: {error}") from error
        self._network = getattr(whole, whole.base_model_prefix).eval()

    def features(self, images: Iterable[Image]) -> Floats:
        """What the head would see of each upright RGB image: float32[n, d], as the network gives it."""
        found = []
        left = iter(images)
        while batch := list(islice(left, _BATCH)):
            inputs = self._processor(images=batch, return_tensors="pt")
            with self._torch.inference_mode():
                pooled = self._network(**inputs).pooler_output
            found.append(pooled.flatten(1).float().numpy())
        return np.concatenate(found)
