"""The contrastive loss: each image finds its caption, each caption its images."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def contrastive(images: Tensor, texts: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy over a batch in which equal captions are one text: each other's positives.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021), but for
    the equal captions, which that paper treats as negatives.

    Args:
        images: float32[n,d], any norm.
        texts: float32[u,d], the batch's distinct captions, any norm.
        targets: int64[n], which of the texts is the image's; every text is some image's.
        scale: the temperature's inverse, a scalar.

    Returns:
        a scalar: the mean over images of -log p(text | image) and of -log p(image | its text), halved.
    """
    logits = scale * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).t()
    to_text = F.cross_entropy(logits, targets)
    rows = torch.arange(len(targets), device=targets.device)
    to_image = -logits.log_softmax(dim=0)[rows, targets].mean()
    return (to_text + to_image) / 2


def recall(images: Tensor, texts: Tensor, targets: Tensor, k: int = 1) -> float:
    """The share of images whose own text is among the ``k`` nearest: in [0, 1]."""
    nearest = (
        (F.normalize(images, dim=1) @ F.normalize(texts, dim=1).t()).topk(min(k, len(texts)), dim=1).indices
    )
    return float((nearest == targets[:, None]).any(dim=1).float().mean())
