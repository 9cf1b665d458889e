"""Any number of labels per image: answers as sets, what corrections teach, how often it is right."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nshot.embeddings import Embeddings
from nshot.few_shot.several import fit_several
from nshot.metrics import clustered_wilson, per_label, share, wilson
from nshot.server.session.asked import Answers, Asked
from nshot.server.session.images import Snapshot
from nshot.server.session.questions import Questions
from nshot.server.session.words import Word, told_of
from nshot.types import Floats


class Sets(NamedTuple):
    """Which labels the images show, each combination once.

    Attributes:
        labels: the places of the labels of each combination, in the labels' order.
        of: uint32[n], each image's combination.
    """

    labels: list[list[int]]
    of: NDArray[np.uint32]


def sets(shown: NDArray[np.uint8], labels: int) -> Sets:
    """The combinations that are there: uint8[n, (labels + 7) // 8], a bit per label."""
    wide = np.zeros((len(shown), max(8, shown.shape[1])), np.uint8)
    wide[:, : shown.shape[1]] = shown
    keys = wide.view(np.uint64)[:, 0] if wide.shape[1] == 8 else wide.view(f"V{wide.shape[1]}")[:, 0]
    _, first, of = np.unique(keys, return_index=True, return_inverse=True)
    bits = np.unpackbits(shown[first], axis=1, count=labels) if len(shown) else shown[:0]
    return Sets([np.flatnonzero(row).tolist() for row in bits], of.astype(np.uint32))


def ranked(questions: Questions, asked: Asked, images: Snapshot, place: int) -> NDArray[np.uint32]:
    """Rows in the order of what speaks for one label, most first; without those that could not be read."""
    found = np.zeros(len(images))
    for part, evidence in questions.each(asked, images):
        found[part] = evidence[:, place]
    rows = np.flatnonzero(images.read)
    return rows[np.argsort(-found[rows], kind="stable")].astype(np.uint32)


class Taught(NamedTuple):
    """What corrections make of a question with any number of labels.

    Attributes:
        asked: the question, answered by what was learnt.
        rows: the rows that it was learnt from.
        moves: (label, 1) -> rows that show it only now; (label, 0) -> rows that do not any more.
        labels: of each label: how many images showed it, whether that is enough, and held-out figures.
        left: corrections that do not say of every label whether the image shows it.
        seconds: how long it took.
    """

    asked: Asked
    rows: tuple[int, ...]
    moves: dict[tuple[int, int], NDArray[np.intp]]
    labels: list[dict[str, Any]]
    left: list[int]
    seconds: float


def learn(
    questions: Questions,
    now: Asked,
    images: Snapshot,
    said: Mapping[int, Word],
    apart: frozenset[int],
    *,
    seed: int = 0,
) -> Taught | None:
    """A classifier from what was said; None where nothing was said of all these labels yet.

    Args:
        questions: where answers are computed and kept.
        now: the question as it is answered now.
        images: all of them.
        said: row -> what was said of it.
        apart: rows that nothing is learnt from: those of the audit.
        seed: of the cross-validation.
    """
    began = time.perf_counter()
    labels = now.question.names
    spoken = [
        (row, said[row])
        for row in sorted(told_of(said, len(images)))
        if row not in apart and images.read[row]
    ]
    known = [(row, word) for row, word in spoken if word.tells_of(labels)]
    if not any(set(word.labels) & set(labels) for _, word in known):
        return None
    rows = tuple(row for row, _ in known)
    own = [tuple(label for label in labels if label in word.labels) for _, word in known]
    examples = Embeddings.of(images.vectors[list(rows)], own, model=questions.embedder.name)
    fitted = fit_several(examples, now.words, labels=labels, seed=seed)
    asked = replace(now, classifier=fitted, learnt=True, key=f"{now.key}+{began}", notes=())
    moves = _moves(
        questions.answers(now, images), questions.answers(asked, images), images, said, len(labels)
    )
    told = fitted.report.to_dict()["labels"]
    left = sorted({row for row, _ in spoken} - set(rows))
    seconds = time.perf_counter() - began
    return Taught(asked, rows, moves, [told[label] for label in labels], left, seconds)


def _moves(
    before: Answers, after: Answers, images: Snapshot, said: Mapping[int, Word], labels: int
) -> dict[tuple[int, int], NDArray[np.intp]]:
    assert before.shown is not None
    assert after.shown is not None
    changed = before.shown ^ after.shown
    changed[told_of(said, len(images))] = 0
    moves = {}
    for place in range(labels):
        bit = np.uint8(128 >> place % 8)
        column = changed[:, place // 8] & bit
        for now in (1, 0):
            rows = np.flatnonzero((column > 0) & ((after.shown[:, place // 8] & bit > 0) == bool(now)))
            if len(rows):
                moves[place, now] = rows
    return moves


def audited(asked: Asked, answers: Answers, sample: list[int], words: Mapping[int, Word]) -> dict[str, Any]:
    """The answers against what a person said of the sample without seeing them.

    Returns:
        ``asked`` images of which every label was told, ``right``: of how many all labels are right, ``low``
        and ``high``, Wilson's interval of that share; ``micro`` and of each label ``each``: precision, recall
        and F1 with the interval of F1. That of all labels together allows for an image's labels being right
        or wrong together.
    """
    labels = asked.question.names
    assert answers.shown is not None
    rows = [
        row
        for row in sample
        if row < len(answers.label)
        and (word := words.get(row)) is not None
        and word.answer != "skip"
        and word.tells_of(labels)
    ]
    truth = np.array([[label in words[row].labels for label in labels] for row in rows], dtype=bool)
    truth = truth.reshape(len(rows), len(labels))
    shown = np.unpackbits(answers.shown[rows], axis=1, count=len(labels)).astype(bool)
    right = int((truth == shown).all(axis=1).sum())
    low, high = wilson(right, len(rows)) if rows else (0.0, 1.0)
    of = per_label(shown, truth)
    hits, all_of = (truth & shown).sum(axis=1), (truth | shown).sum(axis=1)
    ends = clustered_wilson(hits, all_of)
    micro = {
        "precision": _or_none(share(truth[shown])),
        "recall": _or_none(share(shown[truth])),
        "f1": _or_none(float(2 * hits.sum() / max(hits.sum() + all_of.sum(), 1)) if all_of.any() else np.nan),
        "f1_interval": [float(2 * end / (1 + end)) for end in ends],
    }
    each = [
        {
            "label": label,
            "images": int(of.support[k]),
            "answered": int(of.predicted[k]),
            "precision": _or_none(of.precision[k]),
            "recall": _or_none(of.recall[k]),
            "f1": _or_none(of.f1[k]),
            "f1_interval": of.f1_interval[k].tolist(),
        }
        for k, label in enumerate(labels)
    ]
    told = {"asked": len(rows), "right": right, "low": float(low), "high": float(high)}
    return told | {"micro": micro, "each": each}


def _or_none(value: float) -> float | None:
    """A figure as JSON holds it, which has no word for nan."""
    return None if np.isnan(value) else float(value)


def told(asked: Asked, answers: Answers) -> tuple[dict[str, Any], list[bytes]]:
    """What a page is told of these answers beside the usual columns: a part of the header, and a column."""
    several = asked.several
    assert several is not None
    assert answers.shown is not None
    there = sets(answers.shown, len(asked.question.labels))
    scores: Floats = (1 / (1 + np.exp(-several.thresholds))).astype(np.float32)
    header = {
        "sets": there.labels,
        "decided": several.decided.tolist(),
        "positives": None if several.positives is None else several.positives.tolist(),
        "least": several.least,
        "thresholds": [round(float(score), 4) for score in scores],
    }
    return header, [there.of.astype("<u4").tobytes()]
