"""A question is labels and how they are asked; its answers are a column each over all images."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.classifier import Classifier
from nshot.classifier.zero_shot import near_synonyms, zero_shot
from nshot.decision import EVERYDAY, Decision, Rejection, default_rejection
from nshot.decision.compared import Compared
from nshot.decision.rejection import against_background
from nshot.embedder import Embedder
from nshot.errors import LabelError, RequestError
from nshot.labels.facets import TAKEN
from nshot.labels.lint import check
from nshot.labels.prompts import DEFAULT_TEMPLATE
from nshot.search import generic_texts
from nshot.server.session.images import Everyday, Snapshot
from nshot.server.session.journal import LABELS
from nshot.types import Floats
from nshot.unit import normalize

NONE = 0xFFFF  # in an answer's labels: none of these
UNREAD = 0xFFFE  # the image could not be read
MOST_LABELS = 5000
UNSURE = 1.0  # logits between the answer and the next one: under it, the odds are less than e to 1
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        labels: each with the phrases that are written for it; without any, the label stands for itself.
        templates: each with {} where the label goes.
        none: whether "none of these" may be answered.
        facet: the name of the question, where several are asked; what is said and learnt belongs to it.
    """

    labels: tuple[tuple[str, tuple[str, ...]], ...]
    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    none: bool = True
    facet: str = LABELS

    @classmethod
    def of(cls, labels: Sequence[str] | Mapping[str, Sequence[str]], **options: Any) -> Question:
        """From labels as ``zero_shot`` takes them."""
        given = labels if isinstance(labels, Mapping) else {}
        return cls(tuple((label, tuple(given.get(label, ()))) for label in labels), **options)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Question:
        """From JSON: {"labels": ["cat", {"label": "dog", "synonyms": []}], "templates": [], "none": true}.

        ``facet`` may be there too.

        Raises:
            RequestError: of another form, or of more labels than are answered here.
        """
        try:
            labels = []
            for item in content.get("labels", ()):
                label, synonyms = (item, ()) if isinstance(item, str) else (item["label"], item["synonyms"])
                if not isinstance(label, str) or not all(isinstance(word, str) for word in synonyms):
                    raise TypeError
                labels.append((label.strip(), tuple(word.strip() for word in synonyms if word.strip())))
            templates = tuple(str(template) for template in content.get("templates") or (DEFAULT_TEMPLATE,))
            none = bool(content.get("none", True))
            facet = content.get("facet", LABELS)
            if not isinstance(facet, str) or not facet:
                raise TypeError
            if facet in TAKEN:
                raise RequestError(f"a facet cannot be called {facet!r}, which every record has of its own")
        except (TypeError, KeyError, AttributeError) as error:
            raise RequestError('a question is {"labels": [...], "templates": [...], "none": true}') from error
        if len({label for label, _ in labels}) < len(labels):
            raise LabelError("a label is given twice: of equal labels only one can ever win")
        if len(labels) > MOST_LABELS:
            raise RequestError(f"at most {MOST_LABELS:,} labels are asked at once here, not {len(labels):,}")
        return cls(tuple(labels), templates, none, facet)

    @property
    def names(self) -> tuple[str, ...]:
        """The labels alone."""
        return tuple(label for label, _ in self.labels)

    @property
    def written(self) -> dict[str, list[str]]:
        """The labels as ``zero_shot`` takes them."""
        return {label: list(words) for label, words in self.labels}


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A question, ready to be answered.

    Attributes:
        key: tells it from every other, for the page to name it by.
        words: the zero-shot classifier of the labels.
        classifier: what answers: the words', or one that was learnt.
        rejection: the rule for "none of these"; None: never.
        calibrated: whether scores are probabilities.
        learnt: whether the classifier is more than the words.
        notes: what a person should know about the labels.
    """

    question: Question
    key: str
    words: Classifier
    classifier: Classifier
    rejection: Rejection | None
    calibrated: bool
    learnt: bool
    notes: tuple[str, ...] = ()

    @property
    def decision(self) -> Decision:
        """The rules, as a saved classifier has them."""
        own = self.classifier.decision
        return Decision(
            calibration=own.calibration if own is not None and self.calibrated else None,
            rejection=self.rejection,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A column each over n images.

    Attributes:
        label: uint16[n], a place among the labels, NONE or UNREAD.
        score: float32[n], the best label's share.
        margin: float32[n], distance to the next answer in units of a cosine, "none of these" included.
        fits: float32[n], deviations of the best label's cosine above the same image's with everyday words.
        unsure: the margin under which an answer is unsure.
    """

    label: NDArray[np.uint16]
    score: Floats
    margin: Floats
    fits: Floats
    unsure: float


class Questions:
    """Questions turned into classifiers, and those into answers; the last ones are kept."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._texts = threading.Lock()  # an embedder is for one thread at a time where texts are concerned
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._answers: OrderedDict[tuple[str, int], Answers] = OrderedDict()
        self._everyday: OrderedDict[tuple[str, ...], Everyday] = OrderedDict()
        self._backgrounds: dict[tuple[str, ...], Classifier] = {}
        self._lock = threading.RLock()

    def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of texts."""
        with self._texts:
            return self.embedder.embed_texts(texts)

    def generic(self) -> Floats:
        """What stands for any text that is searched for."""
        with self._texts:
            return generic_texts(self.embedder)

    def background(self, templates: tuple[str, ...]) -> Classifier:
        """Everyday words in these templates."""
        if templates not in self._backgrounds:
            with self._texts:
                self._backgrounds[templates] = zero_shot(self.embedder, EVERYDAY, templates)
        return self._backgrounds[templates]

    def prepare(self, question: Question, taken: Classifier | None = None, *, state: str = "") -> Asked:
        """The classifier of a question.

        Args:
            question: what is asked.
            taken: a learnt classifier, which answers for the labels that it knows.
            state: tells this classifier from others.

        Raises:
            LabelError, TemplateError: as ``zero_shot``.
        """
        said = json.dumps([question.labels, question.templates, question.none, question.facet, state])
        key = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:20]
        with self._lock:
            if key in self._asked:
                self._asked.move_to_end(key)
                return self._asked[key]
        asked = self._prepared(question, taken, key)
        with self._lock:
            self._asked[key] = asked
            while len(self._asked) > 24:
                self._asked.popitem(last=False)
        return asked

    def known(self, key: str) -> Asked:
        """A question that was prepared before.

        Raises:
            RequestError: it is forgotten.
        """
        with self._lock:
            if key not in self._asked:
                raise RequestError("this question is forgotten: ask it again")
            return self._asked[key]

    def answers(self, asked: Asked, images: Snapshot) -> Answers:
        """The answers for every image."""
        with self._lock:
            if (held := self._answers.get((asked.key, len(images)))) is not None:
                return held
        answers = self._computed(asked, images)
        with self._lock:
            self._answers[asked.key, len(images)] = answers
            while len(self._answers) > 8:
                self._answers.popitem(last=False)
        return answers

    def everyday(self, templates: tuple[str, ...]) -> Everyday:
        """Every image compared with everyday words; kept for the last templates."""
        matrix = self.background(templates).matrix
        with self._lock:
            if templates not in self._everyday:
                self._everyday[templates] = Everyday(matrix)
                while len(self._everyday) > 2:
                    self._everyday.popitem(last=False)
            self._everyday.move_to_end(templates)
            return self._everyday[templates]

    # Inside

    def _prepared(self, question: Question, taken: Classifier | None, key: str) -> Asked:
        if not question.labels:
            raise LabelError("no label given")
        with self._texts:
            words = zero_shot(self.embedder, question.written, question.templates)
        notes = check(question.written, typed=True, alone=True, multilingual=self.embedder.multilingual)
        pairs, _ = near_synonyms(words)
        for first, second, _ in pairs[:1]:
            notes.append(
                f"The model can hardly tell “{first}” from “{second}”. "
                "Other words, or a few corrections, will help."
            )
        classifier, learnt = words, False
        if taken is not None:
            combined = _combined(taken, words)
            if combined is None:
                notes.append(
                    "The classifier that was taken knows other labels: these answers are by words alone."
                )
            else:
                classifier, learnt = combined, True
        rejection = None
        if question.none:
            own = classifier.decision.rejection if classifier.decision is not None else None
            rejection = own or default_rejection(words.matrix, self.background(question.templates).matrix)
            if own is None and words.activation == "sigmoid":
                notes.append(
                    "When an image shows none of the labels was measured on CLIP models: with this model it "
                    "is only a guess."
                )
        calibrated = learnt and classifier.decision is not None and classifier.decision.calibrated
        return Asked(question, key, words, classifier, rejection, calibrated, learnt, tuple(notes))

    def evidence(self, asked: Asked, images: Snapshot) -> Floats:
        """How much speaks for any of the labels, on the scale of the question's rule: float32[n]."""
        return self._evidence(asked, images, self._compared(asked, images)[4])

    def _computed(self, asked: Asked, images: Snapshot) -> Answers:
        label, score, margin, cosines, energy = self._compared(asked, images)
        unsure = UNSURE / float(np.mean(asked.classifier.scale))
        if not images.read.any():
            return Answers(label, score, margin, cosines, unsure)
        if asked.rejection is not None:
            over = self._evidence(asked, images, energy) - asked.rejection.threshold
            rejected = over < 0
            label[rejected] = NONE
            margin = np.where(rejected, -over, np.minimum(margin, over)).astype(np.float32)
        margin = np.minimum(margin, np.float32(2.0))
        label[~images.read] = UNREAD
        mean, spread = self.everyday(asked.question.templates).usual(images)
        fits = ((cosines - mean) / np.maximum(spread, 1e-6)).astype(np.float32)
        for column in (score, margin, fits):
            column[~images.read] = 0
        return Answers(label, score, margin, fits, unsure)

    def _compared(
        self, asked: Asked, images: Snapshot
    ) -> tuple[NDArray[np.uint16], Floats, Floats, Floats, Floats]:
        """Of each image: the best label, its score, its lead, its cosine with the words, the energy."""
        n, of = len(images), asked.classifier
        label = np.full(n, UNREAD, np.uint16)
        score, margin, best, energy = (np.zeros(n, np.float32) for _ in range(4))
        s = float(np.mean(of.scale))
        for start in range(0, n if images.read.any() else 0, _CHUNK):
            part = slice(start, start + _CHUNK)
            vectors = images.vectors[part]
            cosines = vectors @ of.matrix.T
            logits = cosines * of.scale + of.bias
            places = logits.argmax(axis=1)
            at = np.arange(len(places))
            top = logits[at, places]
            shares = np.exp(logits - top[:, None]).sum(axis=1)
            if asked.calibrated or of.activation != "softmax":
                score[part] = asked.decision.scores(logits, of.activation)[at, places]
            else:
                score[part] = 1 / shares
            energy[part] = (top + np.log(shares)) / s
            label[part] = places
            margin[part] = np.inf
            if logits.shape[1] > 1:
                margin[part] = (top - np.partition(logits, -2, axis=1)[:, -2]) / s
            spoken = vectors @ asked.words.matrix.T if asked.learnt else cosines
            best[part] = spoken[at, places]
        return label, score, margin, best, energy

    def _evidence(self, asked: Asked, images: Snapshot, energy: Floats) -> Floats:
        """``Rejection.evidence`` for all images, from cosines with everyday words that are kept anyway."""
        rejection, s = asked.rejection, float(np.mean(asked.classifier.scale))
        assert rejection is not None
        everyday = self.background(asked.question.templates).matrix
        if rejection.rule == "background" and rejection.background is not None:
            place = {row.tobytes(): k for k, row in enumerate(normalize(everyday))}
            kept = [place.get(row.tobytes()) for row in rejection.background]
            if None not in kept:
                mask = np.zeros(len(everyday), np.float32)
                mask[[k for k in kept if k is not None]] = 1
                found = self.everyday(asked.question.templates).against(images, s, mask)
                return against_background(energy, *found).astype(np.float32)
        evidence = np.zeros(len(images), np.float32)
        for start in range(0, len(images), _CHUNK):
            rows = start + np.flatnonzero(images.read[start : start + _CHUNK])
            if len(rows):
                of = asked.classifier
                vectors = images.vectors[rows]
                evidence[rows] = rejection.evidence(Compared(vectors, of.cosines(vectors), of.scale, of.bias))
        return evidence


def _combined(taken: Classifier, words: Classifier) -> Classifier | None:
    """The taken classifier for exactly these labels; None where it does not know them.

    Labels that it does not know answer from their prompts, as long as what it learnt kept the prompts' scale.
    """
    place = {label: k for k, label in enumerate(taken.labels)}
    if not any(label in place for label in words.labels):
        return None
    if set(words.labels) == set(place):
        order = [place[label] for label in words.labels]
        return taken.reordered(words.labels).with_decision(_decision(taken, order))
    missing = [k for k, label in enumerate(words.labels) if label not in place]
    if missing and (np.ptp(taken.bias) > 0 or taken.activation != words.activation):
        return None
    pick = [(taken, place[label]) if label in place else (words, k) for k, label in enumerate(words.labels)]
    return Classifier(
        words.labels,
        np.stack([of.matrix[k] for of, k in pick]),
        scale=np.array([of.scale[k] for of, k in pick]),
        bias=np.array([of.bias[k] for of, k in pick]),
        activation=taken.activation,
        space=taken.space,
        decision=Decision(rejection=taken.decision.rejection) if taken.decision else None,
    )


def _decision(taken: Classifier, order: Sequence[int]) -> Decision | None:
    """Its decision; without the calibration if that has a number per label and their order is another."""
    if taken.decision is None or list(order) == list(range(len(order))):
        return taken.decision
    return Decision(rejection=taken.decision.rejection)
