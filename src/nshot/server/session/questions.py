"""Questions turned into classifiers, and those into a column each over all images."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.cascade import Cascade, CascadeClassifier
from nshot.classifier.classifier import Classifier
from nshot.classifier.several import several_labels
from nshot.classifier.zero_shot import near_synonyms, zero_shot
from nshot.decision import EVERYDAY, Decision, Rejection, default_rejection
from nshot.decision.background import apart
from nshot.decision.compared import Compared
from nshot.decision.rejection import DEFAULT_THRESHOLD, against_background
from nshot.decision.several import Several
from nshot.decision.softmax import Reals, activate, log_sum_exp
from nshot.decision.staging import margins_of
from nshot.embedder import Embedder
from nshot.errors import LabelError, RequestError
from nshot.labels.lint import check
from nshot.search import generic_texts
from nshot.server.session.asked import NONE, UNREAD, UNSURE, Answers, Asked, Question
from nshot.server.session.images import Everyday, Snapshot
from nshot.types import Floats
from nshot.unit import normalize

_CHUNK = 4096
_AT_ONCE = 2**21  # numbers of a product
_TEXTS = 20_000  # texts whose vectors are kept
_FEW = 64  # labels that are gone through one by one
_MANY = "any number of labels per image"


class Words:
    """A model's texts, each encoded once: a label that is asked beside others again is known.

    What ``zero_shot`` needs of a model. For one thread at a time.

    Args:
        embedder: the model.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.name, self.space, self.activation = embedder.name, embedder.space, embedder.activation
        self.logit_scale, self.logit_bias = embedder.logit_scale, embedder.logit_bias
        self._embedder = embedder
        self._known: OrderedDict[str, Floats] = OrderedDict()

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Texts -> float32[n, d], unit norm."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            self._known.update(zip(missing, self._embedder.embed_texts(missing), strict=True))
        found = np.stack([self._known[text] for text in texts])
        while len(self._known) > _TEXTS:
            self._known.popitem(last=False)
        return found


class Questions:
    """Questions turned into classifiers, and those into answers; the last ones are kept.

    Of a cascade, the one question that it was learnt for is answered by both models; all else is asked of the
    first, which has seen every image.

    Args:
        embedder: the model.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.cascade = embedder if isinstance(embedder, Cascade) else None
        embedder = embedder if self.cascade is None else self.cascade.first
        self.embedder = embedder
        self._words = Words(embedder)
        self._texts = threading.Lock()  # an embedder is for one thread at a time where texts are concerned
        self._asked: OrderedDict[str, Asked] = OrderedDict()
        self._answers: OrderedDict[tuple[str, int], Answers] = OrderedDict()
        self._everyday: OrderedDict[tuple[str, ...], Everyday] = OrderedDict()
        self._backgrounds: dict[tuple[str, ...], Classifier] = {}
        self._lock = threading.RLock()

    def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of texts."""
        with self._texts:
            return self._words.embed_texts(texts)

    def generic(self) -> Floats:
        """What stands for any text that is searched for."""
        with self._texts:
            return generic_texts(self.embedder)

    def background(self, templates: tuple[str, ...]) -> Classifier:
        """Everyday words in these templates."""
        if templates not in self._backgrounds:
            with self._texts:
                self._backgrounds[templates] = zero_shot(self._words, EVERYDAY, templates)
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
        said = json.dumps([*astuple(question), state])
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
            words = zero_shot(self._words, question.written, question.templates)
        if question.multi:
            alone = words.activation == "sigmoid"
            words = several_labels(words, None if alone else self.background(question.templates))
        notes = check(question.written, typed=True, alone=True, multilingual=self.embedder.multilingual)
        pairs, _ = near_synonyms(words)
        for first, second, _ in pairs[:1]:
            notes.append(
                f"The model can hardly tell “{first}” from “{second}”. "
                "Other words, or a few corrections, will help."
            )
        classifier, learnt = words, False
        if isinstance(taken, CascadeClassifier):
            if question.multi or not _same(question, taken):
                first, last = taken.stages
                notes.insert(
                    0,
                    f"{last} was asked about the labels at the start alone: these answers are those of "
                    f"{first}. For others, start anew with them.",
                )
            else:
                order = [taken.labels.index(label) for label in words.labels]
                classifier = taken.reordered(words.labels).with_decision(_decision(taken, order))
                learnt = True
                assert self.cascade is not None
                notes.insert(0, f"{self.cascade.promise}.")
        elif taken is not None:
            alike = (taken.several is not None) == question.multi
            combined = _combined(taken, words) if alike else None
            if combined is None:
                knows = "other labels" if alike else _MANY if taken.several else "one label per image"
                notes.append(
                    f"The classifier that was taken knows {knows}: these answers are by words alone."
                )
            else:
                classifier, learnt = combined, True
        rejection = None
        if question.none and not question.multi:
            own = classifier.decision.rejection if classifier.decision is not None else None
            rejection = own or self._usual(classifier, words, question.templates)
            if own is None and words.activation == "sigmoid":
                notes.append(
                    "When an image shows none of the labels was measured on CLIP models: with this model it "
                    "is only a guess."
                )
        calibrated = learnt and classifier.decision is not None and classifier.decision.calibrated
        return Asked(question, key, words, classifier, rejection, calibrated, learnt, tuple(notes))

    def _usual(self, classifier: Classifier, words: Classifier, templates: tuple[str, ...]) -> Rejection:
        """The rule of "none of these" where none was learnt."""
        if not isinstance(classifier, CascadeClassifier):
            return default_rejection(words.matrix, self.background(templates).matrix)
        assert self.cascade is not None
        with self._texts:
            rows = self.cascade.background(EVERYDAY, templates)
        return Rejection("background", DEFAULT_THRESHOLD, rows[apart(rows, classifier.matrix)])

    def each(self, asked: Asked, images: Snapshot) -> Iterator[tuple[slice, Reals]]:
        """What speaks for each label, where an image may show several: some rows, float64[m, k], and so on.

        As ``Several.evidence``, from cosines with everyday words that are kept anyway.
        """
        several, of, k = asked.several, asked.classifier, len(asked.question.labels)
        assert several is not None
        background = self._background_of(asked)
        kept = None
        if background is not None:
            scale, mask = background
            kept = np.float64(scale) * self.everyday(asked.question.templates).together(images, scale, mask)
        for part in parts(images, k):
            vectors = images.vectors[part]
            logits = (vectors @ of.matrix.T * of.scale + of.bias).astype(np.float64)
            if several.rivals is None:
                yield part, logits
            elif kept is None:
                rows = np.where(images.read[part, None], vectors, of.matrix[:1])  # a failure has no direction
                yield part, logits - several.against(rows)
            else:
                labels = (vectors @ several.rivals[:k].T).astype(np.float64)
                total = np.logaddexp(log_sum_exp(labels), kept[part])[:, None]
                own = np.minimum(np.exp(labels - total), 1 - 1e-9)
                yield part, logits - total - np.log1p(-own)

    def _background_of(self, asked: Asked) -> tuple[float, Floats] | None:
        """The scale of everyday words among what the labels stand against, and 1 for each that is among it.

        None where something else stands there.
        """
        several, templates = asked.several, asked.question.templates
        if several is None or several.rivals is None:
            return None
        rivals = several.rivals[len(asked.question.labels) :]
        background = self.background(templates)
        scale = background.scale[0]
        place = {row.tobytes(): k for k, row in enumerate(normalize(background.matrix) * scale)}
        there = [place.get(row.tobytes()) for row in rivals]
        if not there or None in there:
            return None
        mask = np.zeros(len(place), np.float32)
        mask[[k for k in there if k is not None]] = 1
        return float(scale), mask

    def evidence(self, asked: Asked, images: Snapshot) -> Floats:
        """How much speaks for any of the labels, on the scale of the question's rule: float32[n]."""
        return self._evidence(asked, images, self._compared(asked, images)[4])

    def _several(self, asked: Asked, images: Snapshot) -> Answers:
        """All labels of each image whose evidence reaches their thresholds."""
        several, n = asked.several, len(images)
        assert several is not None
        s = max(float(np.mean(asked.classifier.scale)), 1e-9)
        label, shown = (
            np.full(n, UNREAD, np.uint16),
            np.zeros((n, -(-len(several.thresholds) // 8)), np.uint8),
        )
        score, best = np.zeros(n, np.float32), np.zeros(n, np.float32)
        margin = np.full(n, np.inf, np.float32)
        for part, evidence in self.each(asked, images):
            own: NDArray[np.bool_] = several.shown(evidence) & images.read[part, None]
            shown[part] = np.packbits(own, axis=1)
            any_shown, at = np.asarray(own.any(axis=1)), np.arange(len(own))
            places = np.where(own | ~any_shown[:, None], evidence, -np.inf).argmax(axis=1)
            label[part] = np.where(any_shown, places, NONE)
            score[part] = activate(evidence[at, places], "sigmoid")
            best[part] = np.einsum("nd,nd->n", images.vectors[part], asked.words.matrix[places])
            if several.decided.any():
                apart = np.abs(evidence - several.thresholds)[:, several.decided]
                margin[part] = apart.min(axis=1) / s
        return self._finished(asked, images, Answers(label, score, margin, best, UNSURE / s, shown))

    def _finished(self, asked: Asked, images: Snapshot, made: Answers) -> Answers:
        """The answers, whose ``fits`` are cosines still, where images that could not be read have none."""
        mean, spread = self.everyday(asked.question.templates).usual(images)
        made.label[~images.read] = UNREAD
        margin = np.minimum(made.margin, np.float32(2.0))
        fits = ((made.fits - mean) / np.maximum(spread, 1e-6)).astype(np.float32)
        for column in (made.score, margin, fits):
            column[~images.read] = 0
        return replace(made, margin=margin, fits=fits)

    def _computed(self, asked: Asked, images: Snapshot) -> Answers:
        if asked.several is not None and images.read.any():
            return self._several(asked, images)
        if isinstance(asked.classifier, CascadeClassifier):
            return self._finished(asked, images, self._staged(asked, asked.classifier, images))
        label, score, margin, cosines, energy = self._compared(asked, images)
        unsure = UNSURE / float(np.mean(asked.classifier.scale))
        if not images.read.any():
            return Answers(label, score, margin, cosines, unsure)
        if asked.rejection is not None:
            over = self._evidence(asked, images, energy) - asked.rejection.threshold
            rejected = over < 0
            label[rejected] = NONE
            margin = np.where(rejected, -over, np.minimum(margin, over)).astype(np.float32)
        return self._finished(asked, images, Answers(label, score, margin, cosines, unsure))

    def _staged(self, asked: Asked, of: CascadeClassifier, images: Snapshot) -> Answers:
        """Answers of a cascade; ``fits`` are cosines with the words under the first model."""
        n, s = len(images), float(np.mean(of.scale))
        label = np.full(n, UNREAD, np.uint16)
        score, margin, best = (np.zeros(n, np.float32) for _ in range(3))
        decision = asked.decision
        for start in range(0, n, _CHUNK):
            rows = start + np.flatnonzero(images.read[start : start + _CHUNK])
            if not len(rows):
                continue
            compared = of.compare(images.joined(rows))
            logits = compared.logits
            places = logits.argmax(axis=1)
            at = np.arange(len(rows))
            score[rows] = decision.scores(logits, of.activation)[at, places]
            lead = margins_of(logits) / s
            if asked.rejection is not None:
                over = asked.rejection.evidence(compared) - asked.rejection.threshold
                lead = np.where(over < 0, -over, np.minimum(lead, over))
                label[rows] = np.where(over < 0, NONE, places)
            else:
                label[rows] = places
            margin[rows] = lead
            best[rows] = np.einsum("nd,nd->n", images.vectors[rows], asked.words.matrix[places])
        return Answers(label, score, margin, best, UNSURE / s)

    def _compared(
        self, asked: Asked, images: Snapshot
    ) -> tuple[NDArray[np.uint16], Floats, Floats, Floats, Floats]:
        """Of each image: the best label, its score, its lead, its cosine with the words, the energy."""
        n, of = len(images), asked.classifier
        label = np.full(n, UNREAD, np.uint16)
        score, margin, best, energy = (np.zeros(n, np.float32) for _ in range(4))
        s = float(np.mean(of.scale))
        for part in parts(images, len(of.labels)):
            vectors = images.vectors[part]
            # a row per label: with few labels that is quickest
            cosines = np.ascontiguousarray((vectors @ of.matrix.T).T)
            logits = cosines * of.scale[:, None] + of.bias[:, None]
            places, top, second = two_best(logits)
            at = np.arange(len(places))
            shares = np.exp(logits - top).sum(axis=0)
            if asked.calibrated or of.activation != "softmax":
                score[part] = asked.decision.scores(logits.T, of.activation)[at, places]
            else:
                score[part] = 1 / shares
            energy[part] = (top + np.log(shares)) / s
            label[part] = places
            margin[part] = (top - second) / s
            best[part] = (vectors @ asked.words.matrix.T)[at, places] if asked.learnt else cosines[places, at]
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


def parts(images: Snapshot, labels: int) -> Iterator[slice]:
    """The rows in few parts: the threads of a product wait for each other at the end of each."""
    step = max(_AT_ONCE // labels, 1)
    for start in range(0, len(images) if images.read.any() else 0, step):
        yield slice(start, start + step)


def two_best(logits: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Of each column: the row of its greatest number, that number, and the next one (-inf of one row).

    Args:
        logits: float32[k, m]; of equal numbers the first row counts.
    """
    if len(logits) > _FEW:
        places = logits.argmax(axis=0)
        top = logits[places, np.arange(len(places))]
        return places, top, np.partition(logits, -2, axis=0)[-2]
    places, top = np.zeros(logits.shape[1], np.intp), logits[0].copy()
    second = np.full_like(top, -np.inf)
    for row in range(1, len(logits)):
        each = logits[row]
        np.copyto(places, row, where=each > top)
        np.maximum(second, np.minimum(each, top), out=second)
        np.maximum(top, each, out=top)
    return places, top, second


def _same(question: Question, taken: CascadeClassifier) -> bool:
    """Whether a question is the one that a cascade was learnt for, as far as the cascade tells."""
    if set(question.names) != set(taken.labels):
        return False
    asked = taken.made.get("asked")
    if asked is None:
        return True
    told = {label: list(words) for label, words in question.labels}
    return told == dict(asked["labels"]) and list(question.templates) == list(asked["templates"])


def _combined(taken: Classifier, words: Classifier) -> Classifier | None:
    """The taken classifier for exactly these labels; None where it does not know them.

    Labels that it does not know answer from their prompts, as long as what it learnt kept the prompts' scale.
    """
    place = {label: k for k, label in enumerate(taken.labels)}
    if not any(label in place for label in words.labels):
        return None
    several = taken.several
    if several is not None:  # each label's threshold was learnt against all the others
        if set(words.labels) != set(place):
            return None
        order = [place[label] for label in words.labels]
        rivals = several.rivals
        if rivals is not None:
            rivals = np.concatenate([rivals[order], rivals[len(place) :]])
        positives = None if several.positives is None else several.positives[order]
        held = Several(several.thresholds[order], positives, several.least, rivals)
        return taken.reordered(words.labels).with_decision(Decision(several=held))
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
