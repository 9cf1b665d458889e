"""The losses: each image finds its caption, each caption its images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nshot.train.towers import is_siglip


def loss_of(model: Any, images: Tensor, texts: Tensor, targets: Tensor) -> Tensor:
    """The loss that the model's kind was trained with; arguments as of ``contrastive``."""
    scale = model.logit_scale.exp()
    if is_siglip(model):
        return sigmoid(images, texts, targets, scale, model.logit_bias)
    return contrastive(images, texts, targets, scale)


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


def sigmoid(images: Tensor, texts: Tensor, targets: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss: each image and each text is a question of its own, yes where they belong together.

    Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (2023). Arguments as of ``contrastive``, and
    the bias, a scalar. A caption that several images share counts once for each of them, as there.

    Returns:
        a scalar: the sum over all pairs of -log sigmoid(+-(scale * cosine + bias)), over n.
    """
    logits = scale * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).t() + bias
    same = F.one_hot(targets, len(texts)).to(logits.dtype)
    times = same.sum(dim=0)  # how many images have each text
    return -(F.logsigmoid((2 * same - 1) * logits) * times).sum() / len(targets)
