"""Without any label: prompts improved by the unlabelled images themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nshot.classifier.cascade import check_one
from nshot.classifier.classifier import Classifier
from nshot.decision.softmax import activate
from nshot.errors import RequestError
from nshot.few_shot.gaussian import shared_gaussian
from nshot.few_shot.heads import Head
from nshot.unit import normalize

PER_LABEL = 20  # images per label, on average, below which the labels' spread is not known well enough
LEAST = 8  # images that the rarest label must have

_STRENGTH = 0.2
_ROUNDS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """What ``adapt`` made of the prompts.

    Attributes:
        classifier: the adapted one, or the prompts' own where adapting was refused.
        used: whether it was adapted.
        reason: why, or why not, in words.
        changed: how many of the images get another answer than from the prompts.
    """

    classifier: Classifier
    used: bool
    reason: str
    changed: int


def adapt(vectors: ArrayLike, prompts: Classifier) -> Adapted:
    """Move a zero-shot classifier toward how its own images lie, by expectation maximisation.

    Each image has a share in each label, at first the prompts' softmax; the shares give one Gaussian a
    label with a shared covariance; its discriminant is added to the prompts' logits, which gives the next
    shares (after Zanella et al. 2024, Boosting Vision-Language Models with Transduction, without its
    neighbours' term, so that the result is a labelled matrix).

    It helps where every label has its images, and does harm where labels are rare or absent: their
    Gaussians take images from the others. So it is refused below an average of 20 images per label, and
    where the prompts give a label fewer than 8. Whether it helped cannot be known without labels.

    Args:
        vectors: float[n, d], all images at once; the answer depends on all of them.
        prompts: a zero-shot classifier under softmax.

    Raises:
        RequestError: vectors that do not fit the prompts, a single label, or prompts of a sigmoid model.
    """
    check_adaptable(prompts)
    before = prompts.logits(vectors).argmax(axis=1)
    labels, n = len(prompts.labels), len(before)
    counts = np.bincount(before, minlength=labels)
    if n < PER_LABEL * labels:
        return Adapted(
            prompts,
            False,
            f"{n} images for {labels} labels are too few to adapt to: {PER_LABEL * labels} are needed",
            0,
        )
    if counts.min() < LEAST:
        rare = prompts.labels[int(counts.argmin())]
        return Adapted(
            prompts,
            False,
            f"only {counts.min()} images look like {rare!r}: adapting would draw others to a label so rare",
            0,
        )
    rows = normalize(vectors).astype(np.float64)
    start = prompts.matrix.astype(np.float64) * prompts.scale[:, None]
    head = Head(start, prompts.bias.astype(np.float64))
    for _ in range(_ROUNDS):
        gained, bias = shared_gaussian(rows, activate(head.logits(rows), "softmax"))
        head = Head(start + _STRENGTH * gained, prompts.bias + _STRENGTH * bias)
    adapted = head.classifier(prompts.labels, prompts.space)
    changed = int((adapted.logits(vectors).argmax(axis=1) != before).sum())
    return Adapted(adapted, True, f"adapted to {n} images; {changed} answers changed", changed)


def check_adaptable(prompts: Classifier) -> None:
    """Refuse prompts that nothing can be adapted of, before any image is read.

    Raises:
        RequestError: a single label, or labels that do not exclude each other.
    """
    check_one(prompts, "what is adapted is of")
    if prompts.activation != "softmax":
        raise RequestError(
            "adapting needs labels that exclude each other, and this model scores each label by itself (by "
            "a sigmoid, as SigLIP does): leave adapting out, or take a CLIP model"
        )
    if len(prompts.labels) < 2:
        raise RequestError("adapting needs two labels or more")
