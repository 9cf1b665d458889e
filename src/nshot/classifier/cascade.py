"""Two classifiers as one: a small model answers, and what it is not sure of goes on to a large one.

How sure it must be is learnt on the person's own images (``nshot.decision.staging``), so that the answers are
the large one's in a promised share of them. A ``Cascade`` takes the place of a loaded model, and a
``CascadeClassifier`` that of a classifier: whatever takes embeddings and a classifier takes them.

A vector of a cascade has a part per stage, [first, last], and is zero in the part that did not answer.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier import file
from nshot.classifier.classifier import Classifier
from nshot.decision.decision import Decision
from nshot.decision.staging import Checked, check, learn, margins_of, needed
from nshot.embedder import Embedder, ImageLike
from nshot.encoders import Encoder
from nshot.errors import LabelError, RequestError
from nshot.images.remarks import Remarks
from nshot.images.sources import Source
from nshot.models.operations import gflop
from nshot.types import Embedded, Failure, Floats, Recipe

SAMPLE = 1000
"""Images that are asked of both stages: half of them to learn from, half of them to check."""

BACKGROUND = "the background rule compares with texts of one model, and a cascade has two: use another rule"

_CHUNK = 256  # images that go through the stages together
_PAYS = 0.9  # of the last stage's work for every image: more than that is no gain worth a second model


class CascadeClassifier(Classifier):
    """Two classifiers of the same labels, seen as one.

    What an image's vector holds says which stage answers. Logits are on the last stage's scale: a first stage
    of another scale, bias or activation is brought there, so that its scores stay its own. The cosine that
    is told of an image is the one that the last stage would need for that logit.

    Build it with ``cascade``.
    """

    __slots__ = ()

    @classmethod
    def of(
        cls, first: Classifier, last: Classifier, threshold: float, made: Mapping[str, Any]
    ) -> CascadeClassifier:
        """The cascade of two classifiers of the same labels; the first is brought into the last's order."""
        first = first.reordered(last.labels)
        stage = {
            "threshold": threshold,
            "dimension": first.dimension,
            "scale": first.scale.tolist(),
            "bias": first.bias.tolist(),
            "activation": first.activation,
            "space": first.space,
            "model": first.model,
            "last space": last.space,
            "last model": last.model,
            **made,
        }
        return cls(
            last.labels,
            np.hstack([first.matrix, last.matrix]),
            last.scale,
            last.bias,
            last.activation,
            _joint(first.space, last.space),
            last.decision,
            model=f"{last.model} after {first.model}",
            made={**last.made, "cascade": stage},
            examples=first.examples | last.examples,
        )

    @property
    def stage(self) -> Mapping[str, Any]:
        """What is known of the first stage, as JSON holds it."""
        told: Mapping[str, Any] = self.made["cascade"]
        return told

    @property
    def threshold(self) -> float:
        """The margin (best logit less the second) from which the first stage answers."""
        return float(self.stage["threshold"])

    @property
    def first(self) -> Classifier:
        """The first stage by itself."""
        told = self.stage
        return Classifier(
            self.labels,
            self.matrix[:, : told["dimension"]],
            told["scale"],
            told["bias"],
            told["activation"],
            told["space"],
            model=told["model"],
        )

    @property
    def last(self) -> Classifier:
        """The last stage by itself."""
        return Classifier(
            self.labels,
            self.matrix[:, self.stage["dimension"] :],
            self.scale,
            self.bias,
            self.activation,
            self.stage["last space"],
            self.decision,
            model=self.stage["last model"],
        )

    def cosines(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """What the last stage would have to see for the logits of the stage that answers: [n, labels].

        Raises:
            RequestError: vectors of another length, or one that is zero or not finite.
        """
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            return super().cosines(vectors)  # refuses it
        split = self.stage["dimension"]
        went_on = vectors[:, split:].any(axis=1)
        found = np.empty((len(vectors), len(self.labels)))
        found[went_on] = self.last.cosines(vectors[went_on, split:])
        if not went_on.all():
            first = self.first
            logits = first.logits(vectors[~went_on, :split])
            if first.activation != self.activation == "sigmoid":  # sigmoid(log(p / (1 - p))) is p
                shares = np.clip(Decision().scores(logits, "softmax"), 1e-300, 1 - 1e-16)
                logits = np.log(shares) - np.log1p(-shares)
            found[~went_on] = (logits - self.bias) / self.scale
        return found

    def reordered(self, labels: Sequence[str]) -> Classifier:
        """The same cascade with its labels in another order."""
        if list(labels) == list(self.labels):
            return self
        told = {name: value for name, value in self.stage.items() if name not in ("threshold", "last space")}
        return CascadeClassifier.of(self.first, self.last.reordered(labels), self.threshold, told)

    def save(self, path: str | Path) -> None:
        """Write the cascade into one file, as a whole or not at all; its models are loaded by name again."""
        file.write(
            path, {name: getattr(self, name) for name in file.ARRAYS}, self.told(), format=file.CASCADE
        )

    @classmethod
    def open(cls, path: str | Path) -> CascadeClassifier:
        """Read a cascade that ``save`` wrote.

        Raises:
            RequestError: there is no such file, or it holds something else.
        """
        arrays, told = file.read(path, format=file.CASCADE)
        with file.opening(path):
            found = cls.of_told({name: arrays[name] for name in file.ARRAYS}, told)
            assert isinstance(found, CascadeClassifier)
            shape = (len(found.labels), found.stage["dimension"])
            if not 0 < shape[1] < found.dimension or math.isnan(found.threshold):
                raise ValueError("the parts of its vectors do not fit")
            _ = found.first, found.last
            return found


class Cascade(Embedder):
    """Two loaded models as one; see the module. Safe to use from one thread at a time.

    Attributes:
        first: the model that every image is asked of.
        last: the model that some go on to.
        classifier: the labels, under both.
        asked: images that the first stage has embedded so far.
        sent: how many of them went on.
    """

    def __init__(self, first: Embedder, last: Embedder, classifier: CascadeClassifier) -> None:
        self.first = first
        self.last = last
        self.classifier = classifier
        self.asked = self.sent = 0
        for name in (
            *("checkpoint", "encoder", "preprocessor", "memory", "batch_size", "workers", "limits"),
            "_tokenizer",
        ):
            setattr(self, name, getattr(last, name))
        stages = [first.recipe.digest, last.recipe.digest, _digest(classifier)]
        fingerprint = hashlib.sha256(json.dumps(stages).encode()).hexdigest()
        preprocessing = f"{first.recipe.preprocessing} {last.recipe.preprocessing}"
        self.recipe = Recipe(fingerprint, preprocessing, self.space)

    @property
    def name(self) -> str:
        """Both models' names."""
        return f"{self.last.name} after {self.first.name}"

    @property
    def dimension(self) -> int:
        """Length of the vectors: both models' together."""
        return self.first.dimension + self.last.dimension

    @property
    def space(self) -> str:
        """What the vectors belong to: the weights of both models."""
        return _joint(self.first.space, self.last.space)

    @property
    def logit_scale(self) -> float:
        """The last model's, and what its part of a text's unit vector falls short of 1."""
        return self.last.logit_scale * math.sqrt(2)

    def embed_texts(self, texts: str | Iterable[str]) -> Floats:
        """Unit vectors of texts under both models, side by side: float32[n, d].

        Other labels than those that the margin was learnt for can so be compared with the same vectors; only
        for those is anything promised.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        both = np.hstack([self.first.embed_texts(texts), self.last.embed_texts(texts)])
        return (both / np.float32(math.sqrt(2))).astype(np.float32)

    def _stream(
        self, sources: ImageLike | Iterable[ImageLike], remarks: Remarks
    ) -> Iterator[Embedded | Failure]:
        listed = self.list_images(sources, remarks)
        first, threshold = self.classifier.first, self.classifier.threshold
        while items := list(islice(listed, _CHUNK)):
            for item in items:
                if isinstance(item, Source):
                    item.hold()  # it may be read twice
            seen = list(self.first.embed_images(item for item in items if isinstance(item, Source)))
            fresh = [row for row, item in enumerate(items) if isinstance(item, Source)]
            there = [(row, each) for row, each in zip(fresh, seen, strict=True) if isinstance(each, Embedded)]
            results: list[Any] = list(items)
            for row, each in zip(fresh, seen, strict=True):
                results[row] = each
            if there:
                margins = margins_of(first.logits(np.stack([each.vector for _, each in there])))
                unsure = [row for (row, _), margin in zip(there, margins, strict=True) if margin < threshold]
                again = self.last.embed_images(items[row] for row in unsure)
                for row, each in zip(unsure, again, strict=True):
                    results[row] = self._joined(each, first=False)
                for row, each in there:
                    if results[row] is each:
                        results[row] = self._joined(each, first=True)
                self.asked += len(there)
                self.sent += len(unsure)
            yield from results

    def _joined(self, image: Embedded | Failure, *, first: bool) -> Embedded | Failure:
        if isinstance(image, Failure):
            return image
        vector = np.zeros(self.dimension, np.float32)
        part = slice(None, self.first.dimension) if first else slice(self.first.dimension, None)
        vector[part] = image.vector
        return replace(image, vector=vector)


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
) -> Cascaded:
    """Put a cheaper classifier before another one, and learn on images when it may answer.

    Args:
        first: a model and its classifier: the cheaper ones.
        last: a model and its classifier, whose answers are wanted.
        images: the images that will be asked, or others of their kind; a sample is drawn at random and asked
            of both.
        agree: the share of answers that are to be the last classifier's. The margin that is learnt keeps it
            in at least 95 of 100 draws of the sample.
        sample: images to draw; half of them are learnt from (at least 299 for 0.99), the rest check.
        seed: of the draw.
        cost: the first model's work per image as a share of the last one's; None: by their operations, or by
            their processor time here where they compute in different precisions.

    Returns:
        The cascade, or the last model by itself where it does not pay; ``reason`` says which, and why.

    Raises:
        RequestError: an ``agree`` that is no share.
        LabelError: the classifiers have other labels.
    """
    if not 0 < agree < 1:
        raise RequestError(f"the agreement must lie between 0 and 1, not {agree:g}")
    if sorted(first[1].labels) != sorted(last[1].labels):
        only = sorted(set(first[1].labels) ^ set(last[1].labels))
        raise LabelError(
            f"the stages of a cascade have other labels: only one has {', '.join(map(repr, only[:5]))}"
        )
    cost = _cost(first[0], last[0]) if cost is None else cost
    drawn = draw(last[0].list_images(images), sample, random.Random(seed))
    margins, same = _ask_both(first, last, drawn)
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
    small, large = first[0].name, last[0].name
    if small == large:  # one model in two precisions
        small, large = (f"{model.name} in {model.encoder.precision}" for model, _ in (first, last))
    timed = first[0].encoder.precision != last[0].encoder.precision
    less = "less processor time" if timed else "fewer operations"
    if pays:
        reason = (
            f"{small} before {large}: {went_on:.0%} go on, {1 / work:.1f} times {less}; learnt on "
            f"{learning} images, of which both answer {alike:.1%} alike"
        )
        if checked is not None:
            low, high = checked.interval
            reason += (
                f"; on {checked.images} others {checked.agreement:.1%} of the answers are those of {large} "
                f"({low:.1%} to {high:.1%})"
            )
    elif count < least:
        reason = (
            f"{count} images are too few to learn a margin for {agree:.4g}, which takes {least}: every image "
            f"is asked of {large}"
        )
    else:
        reason = (
            f"a cascade does not pay here: {small} and {large} answer {alike:.1%} of {learning} images "
            f"alike, and {went_on:.0%} would have to go on to keep {agree:.4g}: every image is asked of "
            f"{large}"
        )
    found = learning, threshold, alike, checked
    if not pays:
        return Cascaded(last[0], last[1], False, reason, *found, 1.0)
    precision = first[0].encoder.precision
    made = {"agree": agree, "learnt on": learning, "seed": seed, "precision": precision}
    both = CascadeClassifier.of(first[1], last[1], threshold, made)
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


def _ask_both(
    first: tuple[Embedder, Classifier], last: tuple[Embedder, Classifier], images: Sequence[Source]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The first stage's margins, and whether both give the same answer, of the images that can be read."""
    small = list(first[0].embed_images(images))
    large = list(last[0].embed_images(images))
    pairs = [
        (one.vector, other.vector)
        for one, other in zip(small, large, strict=True)
        if isinstance(one, Embedded) and isinstance(other, Embedded)
    ]
    if not pairs:
        return np.empty(0), np.empty(0, bool)
    logits = first[1].reordered(last[1].labels).logits(np.stack([one for one, _ in pairs]))
    wanted = last[1].logits(np.stack([other for _, other in pairs]))
    return margins_of(logits), logits.argmax(axis=1) == wanted.argmax(axis=1)


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


def _joint(*spaces: str | None) -> str:
    return hashlib.sha256(json.dumps(spaces).encode()).hexdigest()


def _digest(classifier: CascadeClassifier) -> str:
    """Of all that says which stage answers."""
    found = hashlib.sha256(json.dumps([classifier.threshold, classifier.labels]).encode())
    stage = classifier.first
    for numbers in (stage.matrix, stage.scale, stage.bias):
        found.update(numbers.tobytes())
    return found.hexdigest()
