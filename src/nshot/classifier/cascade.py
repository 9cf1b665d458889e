"""Two classifiers as one: a small model answers, and what it is not sure of goes on to a large one.

How sure it must be is learnt on the person's own images (``nshot.decision.staging``), so that the answers are
the large one's in a promised share of them. A ``Cascade`` takes the place of a loaded model, and a
``CascadeClassifier`` that of a classifier: whatever takes embeddings and a classifier takes them.

A vector of a cascade has a part per stage, [first, last]: the first stage's is always there, the last one's
where the image went on, and zeros where it did not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier import file
from nshot.classifier.classifier import Classifier
from nshot.classifier.zero_shot import zero_shot
from nshot.decision.compared import Compared
from nshot.decision.decision import Decision, Verdict
from nshot.decision.staging import margins_of
from nshot.embedder import Embedder, ImageLike
from nshot.errors import RequestError
from nshot.images.remarks import Remarks
from nshot.images.sources import Source
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels
from nshot.pipeline import Thumbnails
from nshot.types import Embedded, Failure, Floats, Prediction, Recipe
from nshot.unit import normalize

BACKGROUND = (
    "the background rule compares with texts under both models of a cascade, and which texts this "
    "classifier's rule has is not known: calibrate the cascade with nshot calibrate DATA --first MODEL"
)

_CHUNK = 256  # images that go through the stages together


class CascadeClassifier(Classifier):
    """Two classifiers of the same labels, seen as one.

    What an image's vector holds says which stage answers. Logits are on the last stage's scale: a first stage
    of another scale, bias or activation is brought there, so that its scores stay its own. The cosine that
    is told of an image is the one that the last stage would need for that logit.

    The last classifier's decision is that of the cascade. What seems to show none of the labels to another
    model at the first stage, or is not among the surest, goes on: by the decision as it was when the cascade
    was made.

    Build it with ``cascade``.
    """

    __slots__ = ("_stages",)

    @classmethod
    def of(
        cls,
        first: Classifier,
        last: Classifier,
        threshold: float,
        made: Mapping[str, Any],
        background: ArrayLike | None = None,
    ) -> CascadeClassifier:
        """The cascade of two classifiers of the same labels; the first is brought into the last's order.

        Args:
            first: the first stage.
            last: the last stage, with its decision.
            threshold: the margin from which the first stage answers.
            made: what else is known of it, as JSON holds it.
            background: float[b, d], where the last stage's rule is the background's: vectors of the same
                labels, in the same order, under the first model.

        Raises:
            RequestError: a background rule without the first model's vectors, or a classifier that answers
                with several labels per image.
        """
        if first.several is not None or last.several is not None:
            raise RequestError("a cascade answers with one label per image, and this classifier with several")
        first = first.reordered(last.labels)
        decision = last.decision
        rule = None if decision is None else decision.rejection
        if decision is not None and rule is not None and rule.background is not None:
            if background is None or len(np.asarray(background)) != len(rule.background):
                raise RequestError(BACKGROUND)
            both = joint_rows(normalize(np.asarray(background)), rule.background, first, last)
            decision = replace(decision, rejection=replace(rule, background=both))
        stage = {
            "threshold": threshold,
            "sure": _sure(decision),
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
            decision,
            model=f"{last.model} after {first.model}",
            made={**last.made, "cascade": stage},
            examples=first.examples | last.examples,
        )

    @property
    def about(self) -> Mapping[str, Any]:
        """What is known of both stages, as JSON holds it; "last" is in the name of what is the second's."""
        told: Mapping[str, Any] = self.made["cascade"]
        return told

    @property
    def threshold(self) -> float:
        """The margin (best logit less the second) from which the first stage answers."""
        return float(self.about["threshold"])

    @property
    def stages(self) -> tuple[str, str]:
        """What both stages are called: their models, with their precisions where it is one model."""
        told = self.about
        if told["model"] != told["last model"]:
            return str(told["model"]), str(told["last model"])
        return tuple(f"{told['model']} in {told.get(key, 'f32')}" for key in ("precision", "last precision"))  # type: ignore[return-value]

    @property
    def promise(self) -> str:
        """How often the answers are the last model's, how that was checked, and what went on: a sentence."""
        told, (small, large) = self.about, self.stages
        if "agree" not in told:
            return f"{small} answers first, and what it is not sure of goes on to {large}"
        said = (
            f"{small} before {large}: {told['agree']:.4g} of the answers are promised to be those of "
            f"{large}; learnt on {told['learnt on']} images"
        )
        if (checked := told.get("checked")) is not None:
            low, high = checked["interval"]
            said += (
                f"; on {checked['images']} others {checked['agreement']:.1%} were ({low:.1%} to {high:.1%}), "
                f"and {checked['went on']:.0%} went on"
            )
        return said

    def promise_with(self, first: Recipe, last: Recipe) -> str:
        """The promise, and whether the stages are those that it was learnt with.

        Another precision, another int8 form or another way to make an image square gives other vectors.

        Args:
            first: of the model that answers first.
            last: of the model that the rest goes on to.
        """
        learnt = self.about.get("recipes")
        if learnt is None or list(learnt) == [first.digest, last.digest]:
            return self.promise
        return (
            f"{self.promise}. This was learnt with other settings (--precision, --decode, --fit, or another "
            "int8 form), and is not promised with these"
        )

    def check_space(self, recipe: Recipe | None, model: str | None, *, name: str = "this classifier") -> None:
        """Refuse vectors that were not made by both models; see ``Classifier.check_space``."""
        if recipe is not None and recipe.space != self.space:
            raise RequestError(
                f"{name} is a cascade of {' and '.join(self.stages)}, and the vectors are of "
                f"{model or 'another model'}: they must come from both (nshot.classifier.cascade.Cascade)"
            )

    def went_on(self, vectors: ArrayLike) -> NDArray[np.bool_]:
        """Which images the last stage answers: [n, d] -> bool[n]."""
        return np.asarray(np.asarray(vectors)[:, self.about["dimension"] :].any(axis=1), bool)

    def answered_by(self, vectors: ArrayLike) -> list[str]:
        """The name of the stage that answers each image; see ``stages``."""
        names = self.stages
        return [names[int(each)] for each in self.went_on(vectors)]

    def _answers(self, images: Sequence[Embedded], top_k: int, compared: Compared) -> list[Prediction]:
        answers = super()._answers(images, top_k, compared)
        stages = self.answered_by([image.vector for image in images])
        return [replace(answer, stage=stage) for answer, stage in zip(answers, stages, strict=True)]

    def compare(self, vectors: ArrayLike) -> Compared:
        """As ``Classifier.compare``; vectors are zero in the part of the stage that does not answer."""
        vectors = np.asarray(vectors)
        cosines = self.cosines(vectors)
        answering = vectors.copy()
        answering[self.went_on(vectors), : self.about["dimension"]] = 0
        return Compared(answering, cosines, self.scale, self.bias)

    def joined(self, first: Floats, last: Floats | None = None) -> Floats:
        """The vector of one image, of unit norm, from the first model's and, where it went on, the last's."""
        split = self.about["dimension"]
        vector = np.zeros(self.dimension, np.float32)
        vector[:split] = first
        if last is not None:
            vector[split:] = last
            vector /= np.float32(math.sqrt(2))
        return vector

    def verdicts(self, vectors: ArrayLike) -> list[Verdict]:
        """What is answered of each image: [n, d] -> n verdicts; without a decision, the best label."""
        return verdicts_of(self, vectors)

    def margins(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """How sure the first stage is, in logits: [n, the first model's d] -> float64[n].

        Its best logit less the second; where there is a rule of "none of these", no more than what speaks
        for any label over the rule's threshold. Below zero, an image goes on whatever the margin: so does
        what seems to show none of the labels, unless both stages are one model in two precisions.
        """
        vectors = np.asarray(vectors)
        found = margins_of(self.first.logits(vectors))
        if (held := self.about.get("sure")) is None or not len(vectors):
            return found
        sure = Decision.from_dict(held)
        compared = self.compare(np.pad(vectors, ((0, 0), (0, self.dimension - vectors.shape[1]))))
        if sure.rejection is not None:
            over = sure.rejection.evidence(compared) - sure.rejection.threshold
            lead = over * float(np.mean(self.scale))
            found = np.minimum(found, lead)
            if self.about["space"] is not None and self.about["space"] == self.about["last space"]:
                found = np.where(lead < 0, -lead, found)  # one model: its line is the last stage's
        if sure.surest is not None:
            best = sure.scores(compared.logits, self.activation).max(axis=1)
            found = np.where(best < sure.surest.threshold, -np.inf, found)
        return found

    @property
    def first(self) -> Classifier:
        """The first stage by itself, without a decision."""
        return self._both()[0]

    @property
    def last(self) -> Classifier:
        """The last stage by itself, without a decision."""
        return self._both()[1]

    def first_alone(self) -> Classifier:
        """The first stage for every image of the cascade, whichever answers."""
        first = self.first
        rows = np.pad(first.matrix, ((0, 0), (0, self.dimension - first.dimension)))
        return Classifier(self.labels, rows, first.scale, first.bias, first.activation, self.space)

    def _both(self) -> tuple[Classifier, Classifier]:
        held: tuple[Classifier, Classifier] | None = getattr(self, "_stages", None)
        if held is None:
            told, split = self.about, self.about["dimension"]
            early = Classifier(
                self.labels,
                self.matrix[:, :split],
                told["scale"],
                told["bias"],
                told["activation"],
                told["space"],
                model=told["model"],
            )
            late = Classifier(
                self.labels,
                self.matrix[:, split:],
                self.scale,
                self.bias,
                self.activation,
                told["last space"],
                model=told["last model"],
            )
            held = early, late
            object.__setattr__(self, "_stages", held)
        return held

    def _with(self, **changes: Any) -> Classifier:
        other = super()._with(**changes)
        object.__setattr__(other, "_stages", None)
        return other

    def cosines(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """What the last stage would have to see for the logits of the stage that answers: [n, labels].

        Raises:
            RequestError: vectors of another length, or one that is zero or not finite.
        """
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            return super().cosines(vectors)  # refuses it
        split = self.about["dimension"]
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
        order = [self.labels.index(label) for label in super().reordered(labels).labels]
        told = dict(self.about)
        told |= {name: [told[name][place] for place in order] for name in ("scale", "bias")}
        return super().reordered(labels)._with(made={**self.made, "cascade": told})

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
            shape = (len(found.labels), found.about["dimension"])
            if not 0 < shape[1] < found.dimension or math.isnan(found.threshold):
                raise ValueError("the parts of its vectors do not fit")
            if not found.scale.all():  # the first stage's logits are brought to it
                raise ValueError("a scale of zero")
            _ = found.first, found.last, found.promise
            found.margins(found.first.matrix)
            return found


class Cascade(Embedder):
    """Two loaded models as one; see the module. Safe to use from one thread at a time.

    Attributes:
        first: the model that every image is asked of.
        last: the model that some go on to.
        classifier: the labels under both, for which the margin was learnt.
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
    def promise(self) -> str:
        """What the classifier promises with these two models; see ``CascadeClassifier.promise_with``."""
        return self.classifier.promise_with(self.first.recipe, self.last.recipe)

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

        Other labels than those that the margin was learnt for can so be compared with the same vectors, by
        both models where both have seen an image; nothing is promised for them.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        both = np.hstack([self.first.embed_texts(texts), self.last.embed_texts(texts)])
        return (both / np.float32(math.sqrt(2))).astype(np.float32)

    def background(self, words: Labels, templates: Sequence[str] = (DEFAULT_TEMPLATE,)) -> Floats:
        """Vectors of background labels for a rule of this cascade's classifier: float32[n, d]."""
        rows = [zero_shot(model, words, templates).matrix for model in (self.first, self.last)]
        return joint_rows(rows[0], rows[1], self.classifier.first, self.classifier.last)

    def _stream(
        self,
        sources: ImageLike | Iterable[ImageLike],
        remarks: Remarks,
        thumbnails: Thumbnails | None = None,
    ) -> Iterator[Embedded | Failure]:
        listed = self.list_images(sources, remarks)
        classifier, threshold = self.classifier, self.classifier.threshold
        while items := list(islice(listed, _CHUNK)):
            for item in items:
                if isinstance(item, Source):
                    item.hold()  # it may be read twice
            new = (item for item in items if isinstance(item, Source))
            seen = list(self.first.embed_images(new, thumbnails=thumbnails))
            fresh = [row for row, item in enumerate(items) if isinstance(item, Source)]
            there = [(row, each) for row, each in zip(fresh, seen, strict=True) if isinstance(each, Embedded)]
            results: list[Any] = list(items)
            for row, each in zip(fresh, seen, strict=True):
                results[row] = each
            if there:
                margins = classifier.margins(np.stack([each.vector for _, each in there]))
                unsure = [
                    (row, each)
                    for (row, each), sure in zip(there, margins >= threshold, strict=True)
                    if not sure
                ]
                for row, each in there:
                    results[row] = replace(each, vector=classifier.joined(each.vector))
                again = self.last.embed_images(items[row] for row, _ in unsure)
                for (row, each), other in zip(unsure, again, strict=True):
                    results[row] = other
                    if isinstance(other, Embedded):
                        results[row] = replace(other, vector=classifier.joined(each.vector, other.vector))
                self.asked += len(there)
                self.sent += len(unsure)
            yield from results


def check_one(classifier: Classifier, what: str) -> None:
    """Refuse a cascade where a classifier of one model is needed.

    Args:
        classifier: any.
        what: what needs it, to begin the sentence with.

    Raises:
        RequestError: it is a cascade.
    """
    if isinstance(classifier, CascadeClassifier):
        raise RequestError(f"{what} one model, and this classifier is a cascade of two")


def verdicts_of(classifier: Classifier, vectors: ArrayLike) -> list[Verdict]:
    """What a classifier answers of each image: [n, d] -> n verdicts."""
    if not len(np.asarray(vectors)):
        return []
    compared, decision = classifier.compare(vectors), classifier.decision or Decision()
    return decision.verdicts(compared, decision.scores(decision.logits(compared), classifier.activation))


def joint_rows(first_rows: ArrayLike, last_rows: ArrayLike, first: Classifier, last: Classifier) -> Floats:
    """Vectors of texts under both models, side by side, as the background rule compares with: float32[n, d].

    An image has one part, so a cosine with such a row is one with the text under the model that answers. The
    logits of a first stage are read on the last's scale, and so are its cosines.
    """
    ratio = float(np.mean(first.scale)) / float(np.mean(last.scale))
    return np.hstack([np.asarray(first_rows) * np.float32(ratio), np.asarray(last_rows)]).astype(np.float32)


def _sure(decision: Decision | None) -> dict[str, Any] | None:
    """What of a decision keeps the first stage from answering, as JSON holds it."""
    if decision is None or decision.coverage is not None:  # sets take nothing away
        return None
    if decision.rejection is None and decision.surest is None:
        return None
    return Decision(decision.calibration, decision.rejection, decision.surest).to_dict()


def _joint(*spaces: str | None) -> str:
    return hashlib.sha256(json.dumps(spaces).encode()).hexdigest()


def _digest(classifier: CascadeClassifier) -> str:
    """Of all that says which stage answers."""
    told = [classifier.threshold, classifier.labels, classifier.about.get("sure")]
    found = hashlib.sha256(json.dumps(told).encode())
    stage = classifier.first
    for numbers in (stage.matrix, stage.scale, stage.bias):
        found.update(numbers.tobytes())
    return found.hexdigest()
