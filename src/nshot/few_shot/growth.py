"""What more images would still bring to a fitted classifier, and what fine-tuning the model would cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from nshot.classifier.classifier import Classifier
from nshot.decision.folds import fold_numbers
from nshot.few_shot.fitting import Fitted, fit, unit_rows
from nshot.metrics import paired_gain

if TYPE_CHECKING:
    from nshot.embedder import Embedder

FEWEST = 20  # images per label, below which the answer is: more images
_FOLDS = 5
_MANY = 3000  # images from which one part is held out, once
_AT_ONCE = 4096  # held-out images that are asked at once
_BACK = 3  # a step forward and back takes about three times the way forward
_EPOCHS = 20  # of `nshot train --from`, unless it stops early
_TIMED = 0.3  # seconds of encoding


@dataclass(frozen=True, slots=True)
class Growth:
    """A fitted method with half of the images and with all, on images that were held out.

    Attributes:
        half: the share named right with half of the images, in [0, 1].
        whole: with all of them.
        low: lower end of the 95 % interval of the difference, paired.
        high: its upper end.
        images: held out in all.
    """

    half: float
    whole: float
    low: float
    high: float
    images: int

    @property
    def grows(self) -> bool:
        """Whether more images surely helped."""
        return self.low > 0


def growth(
    vectors: ArrayLike,
    labels_of: Sequence[str],
    fitted: Fitted,
    prompts: Classifier | None = None,
    *,
    seed: int = 0,
) -> Growth | None:
    """How a fitted classifier's method does with half of its images, and with all.

    Args:
        vectors: float[n, d], the images that it was fitted on.
        labels_of: the label of each.
        fitted: what ``fit`` chose; its method and strength stay.
        prompts: the zero-shot classifier that ``fit`` was given.
        seed: of the folds.

    Returns:
        None where a label has fewer than ``FEWEST`` images: more images are what helps.
    """
    if not fitted.examples or min(fitted.examples.values()) < FEWEST:
        return None
    rows, own = unit_rows(np.asarray(vectors)), np.array(labels_of)
    folds = fold_numbers(own, _FOLDS, np.random.default_rng(seed))
    right: list[list[bool]] = [[], []]
    for fold in range(_FOLDS if len(rows) <= _MANY else 1):
        asked, shown = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        halved = shown[fold_numbers(own[shown], 2, np.random.default_rng((seed, fold))) == 0]
        for answers, part in zip(right, (halved, shown), strict=True):
            found = fit(
                rows[part], own[part].tolist(), prompts, method=fitted.method, strength=fitted.strength
            )
            names = np.array(found.classifier.labels)
            for start in range(0, len(asked), _AT_ONCE):
                some = asked[start : start + _AT_ONCE]
                named = names[found.classifier.logits(rows[some]).argmax(axis=1)]
                answers += (named == own[some]).tolist()
    low, high = paired_gain(right[1], right[0])
    half, whole = (float(np.mean(answers)) for answers in right)
    return Growth(half, whole, low, high, len(right[0]))


@dataclass(frozen=True, slots=True)
class Cost:
    """What fine-tuning takes here at least, in seconds of processor time, from what encoding takes now.

    The optimizer comes on top, and for a small model more time between the steps than in them.

    Attributes:
        text: the text tower alone, on vectors that are there.
        whole: all weights.
    """

    text: float
    whole: float


def fine_tuning_cost(model: Embedder, images: int, prompts: Sequence[str]) -> Cost:
    """What `nshot train --from` would take at least, with its defaults: both towers are timed, here and now.

    Args:
        model: the model; its encoder goes through a few blank images and some of the prompts.
        images: in the training set.
        prompts: of the labels.
    """
    pixels = np.zeros((model.encoder.batch, 3, *2 * (model.preprocessor.size,)), np.uint8)
    tokens = model.tokenizer.encode(list(prompts)[:64], cut=True)
    image = _seconds(lambda: model.encoder.encode_images(pixels)) / len(pixels)
    text = _seconds(lambda: model.encoder.encode_tokens(tokens)) / len(tokens)
    batch = min(128, max(2, images // 8))
    texts = _BACK * _EPOCHS * (images // batch) * min(batch, len(prompts)) * text
    return Cost(texts, texts + _BACK * _EPOCHS * images * image)


def _seconds(run: Callable[[], object]) -> float:
    """Processor time of one call, the mean over some, the first left out."""
    run()
    begun, calls = time.process_time(), 0
    while calls == 0 or time.process_time() - begun < _TIMED:
        run()
        calls += 1
    return (time.process_time() - begun) / calls
