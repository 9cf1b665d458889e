"""What is said of an image: one word, or all that it shows; and an answer that a word puts right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nshot.errors import RequestError
from nshot.types import CORRECTED, Answer, Decided, Failure, Placed, Prediction

if TYPE_CHECKING:
    from nshot.classifier.tree import TreeClassifier

LONGEST = 4096  # characters of a label, a note or a facet's name


class Word(NamedTuple):
    """What was said of an image: a label, "none" (it shows none of the labels), "skip", or all that it shows.

    Attributes:
        answer: which of them.
        label: of "label".
        labels: of "labels": any number.
        asked: of "labels": those that the person could have named; those among them that are not in
            ``labels`` are not shown.
    """

    answer: Literal["label", "none", "skip", "labels"]
    label: str = ""
    labels: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """The labels that the image shows, as it was said."""
        return (self.label,) if self.answer == "label" else self.labels

    def tells_of(self, labels: Iterable[str]) -> bool:
        """Whether it is said of each of these labels if the image shows it."""
        return self.answer == "labels" and set(labels) <= set(self.asked)

    def alone(self) -> Word | None:
        """The word where an image has one label; None where it has several."""
        if self.answer != "labels":
            return self
        if len(self.labels) > 1:
            return None
        return Word("label", self.labels[0]) if self.labels else Word("none")

    def to_dict(self) -> dict[str, Any]:
        """As the journal and the page hold it."""
        if self.answer == "labels":
            return {"labels": list(self.labels)}
        return {"label": self.label} if self.answer == "label" else {"answer": self.answer}


def told_of(said: Mapping[int, Word], count: int) -> list[int]:
    """The rows, of the first ``count``, of which more was said than "skip"."""
    return [row for row, word in said.items() if row < count and word.answer != "skip"]


def corrected(
    record: Prediction | Failure, word: Word | None, tree: TreeClassifier | None = None
) -> Prediction | Failure:
    """The record with a person's word as its answer; what the model scores stays, and a note says so.

    Args:
        record: the model's answer.
        word: what was said of the image; None or a skipped image changes nothing.
        tree: the tree that the answer is a node of, if any.
    """
    if word is None or word.answer == "skip" or isinstance(record, Failure):
        return record
    notes = (*record.notes, CORRECTED)
    if tree is not None and isinstance(record, Placed):
        put_right = tree.put_right(record, word.shown[0] if word.shown else None)
        return replace(put_right, notes=(*put_right.notes, CORRECTED))
    kind: Answer = "none" if not word.shown else "several" if word.answer == "labels" else "label"
    calibrated = isinstance(record, Decided) and record.calibrated
    return Decided(
        record.source,
        record.predictions,
        record.margin,
        kind,
        word.shown,
        calibrated,
        notes=notes,
        beside=record.beside,
        stage=record.stage,
    )


def read_word(said: Any, asked: tuple[str, ...] = ()) -> Word | None:
    """A word as the journal and the page hold it; None takes back what had been said.

    Args:
        said: a label, an answer or labels, as ``Word.to_dict`` gives it.
        asked: the labels that were asked, where an image may show several.

    Raises:
        RequestError: it is none of these.
    """
    if said is None:
        return None
    if isinstance(said, Mapping) and "labels" in said:
        labels = labels_asked(said["labels"])
        if asked and (strange := sorted(set(labels) - set(asked))):
            raise RequestError(f"{strange[0]!r} is not among the labels that were asked")
        return Word("labels", labels=labels, asked=asked)
    if isinstance(said, Mapping):
        label, answer = said.get("label"), said.get("answer")
        if isinstance(label, str) and label.strip() and len(label) <= LONGEST:
            return Word("label", label)
        if answer in ("none", "skip"):
            return Word(answer)
    raise RequestError(
        'what is said is {"label": "..."}, {"labels": [...]}, {"answer": "none"} or {"answer": "skip"}, '
        f"not {said!r}"
    )


def labels_asked(given: Any) -> tuple[str, ...]:
    """The labels that a person could have named, each once.

    Raises:
        RequestError: it is no list of labels.
    """
    labels = tuple(given) if isinstance(given, (list, tuple)) else (None,)
    if not all(isinstance(each, str) and each.strip() and len(each) <= LONGEST for each in labels):
        raise RequestError("what was asked is a list of labels")
    return tuple(dict.fromkeys(str(each) for each in labels))
