"""What is asked of a session's images, and what comes of it: values without behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.classifier import Classifier
from nshot.decision import Decision, Rejection
from nshot.decision.several import Several
from nshot.errors import LabelError, RequestError
from nshot.labels.facets import TAKEN
from nshot.labels.prompts import DEFAULT_TEMPLATE
from nshot.server.session.acts import LABELS
from nshot.types import Floats

NONE = 0xFFFF  # in an answer's labels: none of these
UNREAD = 0xFFFE  # the image could not be read
MOST_LABELS = 5000
UNSURE = 1.0  # logits between the answer and the next one: under it, the odds are less than e to 1


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        labels: each with the phrases that are written for it; without any, the label stands for itself.
        templates: each with {} where the label goes.
        none: whether "none of these" may be answered.
        facet: the name of the question, where several are asked; what is said and learnt belongs to it.
        multi: whether an image may show any number of the labels, each decided by itself.
    """

    labels: tuple[tuple[str, tuple[str, ...]], ...]
    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    none: bool = True
    facet: str = LABELS
    multi: bool = False

    @classmethod
    def of(cls, labels: Sequence[str] | Mapping[str, Sequence[str]], **options: Any) -> Question:
        """From labels as ``zero_shot`` takes them."""
        given = labels if isinstance(labels, Mapping) else {}
        return cls(tuple((label, tuple(given.get(label, ()))) for label in labels), **options)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Question:
        """From JSON: {"labels": ["cat", {"label": "dog", "synonyms": []}], "templates": [], "none": true}.

        ``facet`` and ``multi`` may be there too.

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
            none, multi = bool(content.get("none", True)), bool(content.get("multi", False))
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
        return cls(tuple(labels), templates, none, facet, multi)

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
    def several(self) -> Several | None:
        """How any number of labels is answered; None: one label per image is."""
        return self.classifier.several

    @property
    def decision(self) -> Decision:
        """The rules, as a saved classifier has them."""
        own = self.classifier.decision
        if own is not None and own.several is not None:
            return own
        return Decision(
            calibration=own.calibration if own is not None and self.calibrated else None,
            rejection=self.rejection,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A column each over n images.

    Attributes:
        label: uint16[n], a place among the labels, NONE or UNREAD; of several, the one with most evidence.
        score: float32[n], the best label's share.
        margin: float32[n], distance to the next answer in units of a cosine, "none of these" included.
        fits: float32[n], deviations of the best label's cosine above the same image's with everyday words.
        unsure: the margin under which an answer is unsure.
        shown: uint8[n, (labels + 7) // 8], where an image may show several labels: a bit each, as
            ``numpy.packbits`` makes them.
    """

    label: NDArray[np.uint16]
    score: Floats
    margin: Floats
    fits: Floats
    unsure: float
    shown: NDArray[np.uint8] | None = None
