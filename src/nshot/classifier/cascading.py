"""Learn when a cheaper classifier may answer for another one, and say whether that pays."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier.cascade import BACKGROUND, Cascade, CascadeClassifier, check_one, verdicts_of
from nshot.classifier.classifier import Classifier
from nshot.decision.background import apart
from nshot.decision.staging import Checked, check, learn, needed
from nshot.embedder import Embedder, ImageLike
from nshot.encoders import Encoder
from nshot.errors import LabelError, RequestError
from nshot.images.sources import Source
from nshot.models.operations import gflop
from nshot.types import Embedded, Failure, Floats

SAMPLE = 1000
"""Images that are asked of both stages: half of them to learn from, half of them to check."""

_PAYS = 0.9  # of the last stage's work for every image: more than that is no gain worth a second model


@dataclass(frozen=True, slots=True)
class Cascaded:
    """What ``cascade`` found.

    Attributes:
        model: what embeds: the cascade, or the last model where a cascade does not pay.
        classifier: what answers, likewise.
        pays: whether it is a cascade.
        reason: one sentence that says what was found.
        learnt_on: images that the margin was learnt on.
        threshold: the margin; infinite where every image goes on.
        agreement: share of the learning images with the same answer of both stages.
        checked: what the cascade does on images that it was not learnt on; None without one.
        work: operations per image, as a share of those of the last model alone.
    """

    model: Embedder
    classifier: Classifier
    pays: bool
    reason: str
    learnt_on: int
    threshold: float
    agreement: float
    checked: Checked | None
    work: float


def cascade(
    first: tuple[Embedder, Classifier],
    last: tuple[Embedder, Classifier],
    images: ImageLike | Iterable[ImageLike],
    *,
    agree: float = 0.99,
    sample: int = SAMPLE,
    seed: int = 0,
    cost: float | None = None,
    background: tuple[ArrayLike, ArrayLike] | None = None,
) -> Cascaded:
    """Put a cheaper classifier before another one, and learn on images when it may answer.

    Args:
        first: a model and its classifier: the cheaper ones.
        last: a model and its classifier, whose answers are wanted: with a decision, "none of these" and
            "unsure" are answers too.
        images: the images that will be asked, or others of their kind; a sample is drawn at random and asked
            of both.
        agree: the share of answers that are to be the last classifier's. The margin that is learnt keeps it
            in at least 95 of 100 draws of the sample.
        sample: images to draw; half of them are learnt from (at least 299 for 0.99), the rest check.
        seed: of the draw.
        cost: the first model's work per image as a share of the last one's; None: by their operations, or by
            their processor time here where they compute in different precisions.
        background: where the last classifier's rule is the background's: the vectors of all background
            labels under the first model and under the last, float[b, d] each, in the same order. Not needed
            where both are one model.

    Returns:
        The cascade, or the last model by itself where it does not pay; ``reason`` says which, and why.

    Raises:
        RequestError: an ``agree`` that is no share; a cascade or a classifier of several labels as a stage; a
            background rule whose labels are not known.
        LabelError: the classifiers have other labels.
    """
    if not 0 < agree < 1:
        raise RequestError(f"the agreement must lie between 0 and 1, not {agree:g}")
    if sorted(first[1].labels) != sorted(last[1].labels):
        only = sorted(set(first[1].labels) ^ set(last[1].labels))
        raise LabelError(
            f"the stages of a cascade have other labels: only one has {', '.join(map(repr, only[:5]))}"
        )
    for _, each in (first, last):
        check_one(each, "a stage of a cascade has")
    small, large = first[0].name, last[0].name
    precisions = {"precision": first[0].encoder.precision, "last precision": last[0].encoder.precision}
    if small == large:  # one model in two precisions
        small, large = (f"{model.name} in {model.encoder.precision}" for model, _ in (first, last))
    timed = precisions["precision"] != precisions["last precision"]
    fewer, work_is = ("less", "processor time") if timed else ("fewer", "operations")
    rows = _background(first[1], last[1], background)
    both = CascadeClassifier.of(first[1].with_decision(None), last[1], math.inf, precisions, rows)
    cost = _cost(first[0], last[0]) if cost is None else cost
    if cost > _PAYS:  # rather now than after a sample was asked of both
        reason = (
            f"a cascade does not pay here: {small} by itself takes {cost:.0%} of the {work_is} of {large}, "
            f"and the first model must be the cheaper one: every image is asked of {large}"
        )
        return Cascaded(last[0], last[1], False, reason, 0, math.inf, math.nan, None, 1.0)
    drawn = draw(last[0].list_images(images), sample, random.Random(seed))
    margins, same = _ask_both(first[0], last, both, drawn)
    least, count = needed(agree), len(same)
    learning = min(count, max(least, count // 2))
    threshold = learn(margins[:learning], same[:learning], agree)
    checked = check(margins[learning:], same[learning:], threshold) if count > learning else None
    if checked is not None:
        went_on = checked.went_on
    else:
        went_on = float((margins < threshold).mean()) if count else 1.0
    work, pays = cost + went_on, count >= least and cost + went_on <= _PAYS
    alike = float(same[:learning].mean()) if learning else math.nan
    if pays:
        reason = (
            f"{small} before {large}: {went_on:.0%} go on, {1 / work:.1f} times {fewer} {work_is}; learnt on "
            f"{learning} images, of which both answer {alike:.1%} alike"
        )
        if checked is not None:
            low, high = checked.interval
            reason += (
                f"; on {checked.images} others {checked.agreement:.1%} of the answers are those of {large} "
                f"({low:.1%} to {high:.1%})"
            )
    elif count == 0:
        reason = f"there is no image that both can be asked of: every image is asked of {large}"
    elif count < least:
        reason = (
            f"{count} images are too few to learn a margin for {agree:.4g}, which takes {least}: every image "
            f"is asked of {large}"
        )
    else:
        reason = (
            f"a cascade does not pay here: {small} and {large} answer {alike:.1%} of {learning} images "
            f"alike, and {went_on:.0%} would have to go on to keep {agree:.4g}. That and {small} itself take "
            f"{work:.0%} of the {work_is} of {large}: every image is asked of {large}"
        )
    found = learning, threshold, alike, checked
    if not pays:
        return Cascaded(last[0], last[1], False, reason, *found, 1.0)
    made = {**precisions, "agree": agree, "learnt on": learning, "alike": alike, "seed": seed, "work": work}
    made["recipes"] = [first[0].recipe.digest, last[0].recipe.digest]
    if checked is not None:
        made["checked"] = {
            "images": checked.images,
            "agreement": checked.agreement,
            "interval": list(checked.interval),
            "went on": checked.went_on,
        }
    both = CascadeClassifier.of(first[1].with_decision(None), last[1], threshold, made, rows)
    return Cascaded(Cascade(first[0], last[0], both), both, True, reason, *found, work)


def draw(items: Iterator[Source | Embedded | Failure], count: int, rng: random.Random) -> list[Source]:
    """A random sample of images, in random order, while they are listed once (reservoir sampling)."""
    kept: list[Source] = []
    seen = 0
    for item in items:
        if not isinstance(item, Source):
            continue
        seen += 1
        if len(kept) < count:
            item.hold()
            kept.append(item)
        elif (place := rng.randrange(seen)) < count:
            item.hold()
            kept[place] = item
    rng.shuffle(kept)
    return kept


def _background(
    first: Classifier, last: Classifier, given: tuple[ArrayLike, ArrayLike] | None
) -> Floats | None:
    """The background of the last classifier's rule, under the first model; None where it has no such rule."""
    rule = None if last.decision is None else last.decision.rejection
    if rule is None or rule.background is None:
        return None
    if first.space is not None and first.space == last.space:
        return rule.background
    if given is not None:
        small, large = (np.asarray(each, np.float32) for each in given)
        kept = apart(large, last.matrix)
        alike = len(small) == len(large) and large[kept].shape == rule.background.shape
        if alike and np.allclose(large[kept], rule.background, atol=1e-4):
            return small[kept]
    raise RequestError(BACKGROUND)


def _ask_both(
    first: Embedder, last: tuple[Embedder, Classifier], both: CascadeClassifier, images: Sequence[Source]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The first stage's margins, and whether both give the same answer, of the images that can be read."""
    small = list(first.embed_images(images))
    large = list(last[0].embed_images(images))
    pairs = [
        (one.vector, other.vector)
        for one, other in zip(small, large, strict=True)
        if isinstance(one, Embedded) and isinstance(other, Embedded)
    ]
    if not pairs:
        return np.empty(0), np.empty(0, bool)
    early = np.stack([one for one, _ in pairs])
    found = both.verdicts(np.pad(early, ((0, 0), (0, last[0].dimension))))
    wanted = verdicts_of(last[1], np.stack([other for _, other in pairs]))
    same = [
        set(one.labels) == set(other.labels) and one.answer == other.answer
        for one, other in zip(found, wanted, strict=True)
    ]
    return both.margins(early), np.array(same)


def _cost(first: Embedder, last: Embedder) -> float:
    """The first model's work per image as a share of the last one's.

    By their operations, which are the same everywhere; where they compute in different precisions, an
    operation is not the same on both sides, and what counts is the processor time that both take here.
    """
    if first.encoder.precision == last.encoder.precision:
        return gflop(first.checkpoint.config.vision) / gflop(last.checkpoint.config.vision)
    times = [_seconds(model.encoder, model.checkpoint.config.vision.image_size) for model in (first, last)]
    return times[0] / times[1]


def _seconds(encoder: Encoder, side: int) -> float:
    """Processor time per image: the quickest of a few batches, after one that loads the tower."""
    pixels = np.random.default_rng(0).integers(0, 256, (encoder.batch, 3, side, side), np.uint8)
    found = []
    for _ in range(4):
        begun = time.process_time()
        encoder.encode_images(pixels)
        found.append(time.process_time() - begun)
    return min(found[1:]) / len(pixels)
