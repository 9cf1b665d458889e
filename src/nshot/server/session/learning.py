"""Corrections -> a classifier, shown as what it would change before it is taken; which images come next."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.classifier import Classifier
from nshot.decision import Decision
from nshot.few_shot import Fitted, fit
from nshot.metrics import wilson
from nshot.server.session import several
from nshot.server.session.asked import NONE, UNREAD, Answers, Asked
from nshot.server.session.images import Snapshot
from nshot.server.session.questions import Questions
from nshot.server.session.words import Word, told_of
from nshot.types import Floats

NEXT = 48  # images offered to be labelled next
AUDIT = 100  # images of an audit
_POOL = 2000  # images that the next ones are chosen among
_SHARPNESS = 4.0  # how quickly an image ceases to stand for others


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A classifier that may be taken.

    Attributes:
        token: names it.
        asked: the question, answered by it.
        examples: corrections that it was learnt from.
        reason: which method was chosen, and why.
        seconds: how long it took.
        moves: (answer before, answer after) -> rows, for every image that nobody has spoken about; where an
            image may show several labels, (label, 1 or 0) -> rows that show it now, or do not any more.
        rows: the rows that it was learnt from.
        fitted: what ``fit`` gave; None where only the line to "none of these" moved, and of several labels.
        labels: of several labels: what is known of each, in their order.
        left: of several labels: rows of corrections that do not tell of every label.
    """

    token: str
    asked: Asked
    examples: int
    reason: str
    seconds: float
    moves: Mapping[tuple[int, int], NDArray[np.intp]]
    rows: tuple[int, ...]
    fitted: Fitted | None
    labels: Sequence[Mapping[str, Any]] = ()
    left: Sequence[int] = ()

    @property
    def changed(self) -> int:
        """How many images would have another answer."""
        return len(np.unique(np.concatenate(list(self.moves.values())))) if self.moves else 0


class Audited(NamedTuple):
    """How often the answers are right on images drawn at random, with Wilson's 95 % interval.

    Attributes:
        more: of several labels, where ``right`` counts the images of which all are: what ``several.audited``
            tells beside.
    """

    asked: int
    right: int
    low: float
    high: float
    more: Mapping[str, Any] = MappingProxyType({})

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        told = {"asked": self.asked, "right": self.right, "low": self.low, "high": self.high}
        return {**told, **self.more}


def learn(
    questions: Questions,
    now: Asked,
    images: Snapshot,
    said: Mapping[int, Word],
    apart: frozenset[int],
    *,
    seed: int = 0,
) -> Proposal | None:
    """A classifier from what was said; None where nothing was said of these labels yet.

    Args:
        questions: where answers are computed and kept.
        now: the question as it is answered now.
        images: all of them.
        said: row -> what was said of it.
        apart: rows that nothing is learnt from: those of the audit.
        seed: of the cross-validation.
    """
    began = time.perf_counter()
    if now.several is not None:
        return _learn_several(questions, now, images, said, apart, seed)
    words, labels = now.words, now.question.names
    known = [
        (row, word)
        for row, each in sorted(said.items())
        if row < len(images) and row not in apart and (word := each.alone()) is not None
    ]
    examples = [
        (r, w.label) for r, w in known if w.answer == "label" and w.label in labels and images.read[r]
    ]
    strangers = [row for row, word in known if word.answer == "none" and images.read[row]]
    if not examples and not strangers:
        return None
    fitted = None
    classifier, reason = words, "No label was corrected yet; only the line to “none of these” moved."
    if examples and len(labels) > 1:
        vectors = images.vectors[[row for row, _ in examples]]
        fitted = fit(vectors, [label for _, label in examples], words, labels=labels, seed=seed)
        classifier, reason = fitted.classifier, f"{fitted.candidate}: {fitted.reason}"
    asked = replace(
        now, classifier=classifier, learnt=True, calibrated=False, key=f"{now.key}+{began}", notes=()
    )
    if now.rejection is not None:
        asked = _with_line(questions, now, asked, images, examples, strangers)
    before, after = questions.answers(now, images).label, questions.answers(asked, images).label
    changed = before != after
    changed[told_of(said, len(images))] = False
    moved = np.flatnonzero(changed)
    moves = {
        (int(a), int(b)): moved[(before[moved] == a) & (after[moved] == b)]
        for a, b in {(a, b) for a, b in zip(before[moved].tolist(), after[moved].tolist(), strict=True)}
    }
    seconds = time.perf_counter() - began
    rows = (*(row for row, _ in examples), *strangers)
    return Proposal(asked.key, asked, len(rows), reason, seconds, moves, rows, fitted)


def _learn_several(
    questions: Questions,
    now: Asked,
    images: Snapshot,
    said: Mapping[int, Word],
    apart: frozenset[int],
    seed: int,
) -> Proposal | None:
    made = several.learn(questions, now, images, said, apart, seed=seed)
    if made is None:
        return None
    pull = made.asked.classifier.report.pull
    reason = (
        "What the words say stays: it did best on corrections held out. Only the thresholds are learnt."
        if pull is None
        else "A probe per label that starts from its words; its strength is chosen on corrections held out."
    )
    return Proposal(
        made.asked.key,
        made.asked,
        len(made.rows),
        reason,
        made.seconds,
        made.moves,
        made.rows,
        None,
        made.labels,
        made.left,
    )


def _with_line(
    questions: Questions,
    now: Asked,
    asked: Asked,
    images: Snapshot,
    examples: list[tuple[int, str]],
    strangers: list[int],
) -> Asked:
    """The threshold of "none of these" on the learnt classifier's own scale.

    A fitted matrix has other scales than the prompts', so their threshold means nothing for it. As many
    images stay rejected as were; then the threshold moves, as little as it can, to where it separates the
    fewest corrections wrongly: images that show a label from images that show none.
    """
    assert asked.rejection is not None
    evidence = questions.evidence(asked, images)
    rejected = (
        float((questions.answers(now, images).label[images.read] == NONE).mean()) if len(images) else 0.0
    )
    line = float(np.quantile(evidence[images.read], rejected)) if rejected > 0 else float("-inf")
    if rejected == 0:
        line = float(evidence[images.read].min()) - 1e-3
    if strangers:
        shown, strange = evidence[[row for row, _ in examples]], evidence[strangers]
        cuts = np.unique(np.concatenate([[line], shown, np.nextafter(strange, np.float32(np.inf))]))
        wrong = (strange[None] >= cuts[:, None]).sum(axis=1) + (shown[None] < cuts[:, None]).sum(axis=1)
        best = np.flatnonzero(wrong == wrong.min())
        line = float(cuts[best[np.abs(cuts[best] - line).argmin()]])
    rejection = replace(asked.rejection, threshold=line)
    classifier = asked.classifier.with_decision(Decision(rejection=rejection))
    return replace(asked, classifier=classifier, rejection=rejection)


def next_images(
    asked: Asked, answers: Answers, images: Snapshot, said: Mapping[int, Word], apart: frozenset[int]
) -> list[int]:
    """Rows worth a look, best first; none that somebody spoke about.

    Chosen among a random 2,000 by ``cover``, so that every image has its chance.
    """
    free = images.read.copy()
    free[[row for row in (*said, *apart) if row < len(images)]] = False
    pool = np.flatnonzero(free)
    if not len(pool):
        return []
    pool = np.sort(np.random.default_rng(len(said)).permutation(pool)[:_POOL])
    spoken = told_of(said, len(images))
    known = [row for row in spoken if images.read[row]]
    unsure = np.clip(1 - answers.margin[pool] / max(5 * answers.unsure, 1e-9), 0, 1)
    chosen = cover(images.vectors[pool], unsure, NEXT, images.vectors[known])
    return [int(row) for row in pool[chosen]]


def cover(vectors: Floats, unsure: Floats, count: int, known: Floats) -> NDArray[np.intp]:
    """Images that stand for many others, unsure ones twice as much: greedy facility location.

    Asking for unsure images alone never meets a label that the words are surely wrong about; asking for
    many different ones does. See bench/people.py for the figures.

    Args:
        vectors: float32[n, d], unit rows.
        unsure: float32[n] in [0, 1].
        count: how many.
        known: float32[m, d], images that were spoken about: what is like them is covered already.

    Returns:
        min(count, n) rows.
    """
    middle = vectors.mean(axis=0)
    units = vectors - middle
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-9)
    alike = np.exp(_SHARPNESS * (units @ units.T - 1))
    covered = np.zeros(len(vectors), np.float32)
    if len(known):
        others = known - middle
        others /= np.maximum(np.linalg.norm(others, axis=1, keepdims=True), 1e-9)
        covered = np.exp(_SHARPNESS * (units @ others.T - 1)).max(axis=1)
    chosen: list[int] = []
    for _ in range(min(count, len(vectors))):
        gain = (1 + unsure) @ np.maximum(alike - covered[:, None], 0)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        covered = np.maximum(covered, alike[:, chosen[-1]])
    return np.array(chosen, dtype=np.intp)


def draw(images: Snapshot, seed: int, count: int = AUDIT) -> list[int]:
    """Rows drawn at random, each readable image with the same chance."""
    rows = np.flatnonzero(images.read)
    drawn = np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False)
    return [int(row) for row in drawn]


def audit(asked: Asked, answers: Answers, sample: list[int], audited: Mapping[int, Word]) -> Audited:
    """The answers against what a person said of the sample without seeing them; skipped ones do not count."""
    labels = asked.question.names
    if answers.shown is not None:
        told = several.audited(asked, answers, sample, audited)
        return Audited(told.pop("asked"), told.pop("right"), told.pop("low"), told.pop("high"), told)
    right = count = 0
    for row in sample:
        said = audited.get(row)
        word = None if said is None else said.alone()
        if word is None or word.answer == "skip" or row >= len(answers.label):
            continue
        count += 1
        answer = int(answers.label[row])
        if word.answer == "none":
            right += answer == NONE
        else:
            right += answer not in (NONE, UNREAD) and labels[answer] == word.label
    low, high = wilson(right, count) if count else (0.0, 1.0)
    return Audited(count, right, float(low), float(high))


def saved(asked: Asked) -> Classifier:
    """The classifier with its rules, as it is written to a file."""
    decision = asked.decision
    return asked.classifier.with_decision(None if decision == Decision() else decision)
