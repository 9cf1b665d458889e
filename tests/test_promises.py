"""What learning and deciding promise, on vectors that ship with the tests (by tools/make_drawings.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nshot.classifier.classifier import Classifier
from nshot.decision import Decision, fit_decision
from nshot.evaluation import label_errors
from nshot.few_shot import fit, select
from nshot.metrics import brier, nll, reliability

with np.load(Path(__file__).parent / "fixtures" / "drawings.npz") as data:
    VECTORS, TARGETS = data["vectors"].astype(np.float64), data["targets"].astype(int)
    LABELS = [str(label) for label in data["labels"]]
    ZERO = Classifier(LABELS, data["prompts"].astype(np.float64), scale=float(data["scale"]))

Rows = Any


def split(counts: list[int], seed: int) -> tuple[Rows, Rows]:
    """Rows to show, so many of each label in turn, and the others."""
    rng = np.random.default_rng(seed)
    shown = np.concatenate(
        [
            rng.permutation(np.flatnonzero(k == TARGETS))[:count]
            for k, count in enumerate(np.resize(counts, len(LABELS)))
        ]
    )
    return shown, np.setdiff1d(np.arange(len(TARGETS)), shown)


def right(classifier: Classifier, rows: Rows) -> Any:
    order = np.array([LABELS.index(label) for label in classifier.labels])
    return order[classifier.logits(VECTORS[rows]).argmax(axis=1)] == TARGETS[rows]


def learnt(shown: Rows, prompts: Classifier | None = ZERO) -> Classifier:
    return fit(VECTORS[shown], [LABELS[k] for k in TARGETS[shown]], prompts).classifier


@pytest.mark.parametrize("counts", [[1], [2], [4], [8], [1, 2, 4, 8, 16], [1, 16]])
def test_examples_are_never_significantly_worse_than_the_prompts_alone(counts: list[int]) -> None:
    gains = []
    for seed in range(6):
        shown, rest = split(counts, seed)
        gain = right(learnt(shown), rest) - right(ZERO, rest).astype(float)
        assert gain.mean() >= -2 * gain.std() / np.sqrt(len(gain))
        gains.append(gain.mean())
    assert np.mean(gains) >= -0.005


@pytest.mark.parametrize("pair", [(0, 7), (1, 2), (3, 8)])
def test_two_labels_with_good_prompts_keep_them(pair: tuple[int, int]) -> None:
    two = Classifier([LABELS[k] for k in pair], ZERO.matrix[list(pair)], scale=ZERO.scale[list(pair)])
    for seed in range(4):
        shown, rest = split([4], seed)
        shown, rest = (rows[np.isin(TARGETS[rows], pair)] for rows in (shown, rest))
        gain = right(learnt(shown, two), rest) - right(two, rest).astype(float)
        assert gain.mean() >= -2 * gain.std() / np.sqrt(len(gain))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_prompts_that_know_nothing_cost_nothing(count: int) -> None:
    rng = np.random.default_rng(0)
    words = Classifier(LABELS, np.roll(ZERO.matrix, 3, axis=0), scale=ZERO.scale)
    same = Classifier(LABELS, ZERO.matrix[:1] + 1e-3 * rng.normal(size=ZERO.matrix.shape), scale=ZERO.scale)
    for prompts in (words, same):
        found, alone = [], []
        for seed in range(4):
            shown, rest = split([count], seed)
            found.append(right(learnt(shown, prompts), rest).mean())
            alone.append(right(learnt(shown, None), rest).mean())
        assert np.mean(found) >= np.mean(alone) - 0.03  # now and then chance helps them to hits


def test_more_examples_are_worth_more() -> None:
    few, many = (
        np.mean([right(learnt(shown), rest).mean() for shown, rest in (split([n], s) for s in range(3))])
        for n in (1, 12)
    )
    assert many > few + 0.03


def test_prompts_are_not_given_up_for_naming_few_of_the_hardest_images() -> None:
    pool, rest = split([16], 9)
    chosen = pool[select(VECTORS[pool], ZERO, 40)]  # as `next` finds them: the prompts name a fifth
    assert right(ZERO, chosen).mean() < 0.3
    gain = right(learnt(chosen), rest) - right(ZERO, rest).astype(float)
    assert gain.mean() >= -2 * gain.std() / np.sqrt(len(gain))


def test_calibrating_is_no_worse_on_other_images_or_leaves_the_scores_alone() -> None:
    change = []
    for seed in range(6):
        half, rest = split([12], seed)
        images = ZERO.compare(VECTORS[half])
        decision, report = fit_decision(images, TARGETS[half], ZERO.matrix, reject=None, seed=seed)
        assert (decision.calibration is None) == any("kept as they are" in note for note in report.notes)
        logits, y = ZERO.logits(VECTORS[rest]), TARGETS[rest]
        before, after = (
            np.array([nll(p, y), brier(p, y), reliability(p.max(axis=1), p.argmax(axis=1) == y).error])
            for p in (Decision().scores(logits, "softmax"), decision.scores(logits, "softmax"))
        )
        change.append(after - before)
    assert (np.mean(change, axis=0) <= 1e-9).all()


def test_sets_hold_the_right_label_as_often_as_asked_on_other_images() -> None:
    held = []
    for seed in range(20):
        half, rest = split([12], seed)
        images = ZERO.compare(VECTORS[half])
        decision, _ = fit_decision(images, TARGETS[half], ZERO.matrix, reject=None, coverage=0.9)
        scores = decision.scores(ZERO.logits(VECTORS[rest]), "softmax")
        verdicts = decision.verdicts(ZERO.compare(VECTORS[rest]), scores)
        held += [own in verdict.labels for own, verdict in zip(TARGETS[rest], verdicts, strict=True)]
    assert np.mean(held) == pytest.approx(0.9, abs=0.025)


def test_swapped_labels_come_first_among_those_in_doubt() -> None:
    rng = np.random.default_rng(0)
    given, wrong = TARGETS.copy(), rng.choice(len(TARGETS), 20, replace=False)
    given[wrong] = (given[wrong] + rng.integers(1, len(LABELS), 20)) % len(LABELS)
    first = label_errors.find(ZERO.scores(VECTORS), given, VECTORS)[:20]
    assert np.mean([suspect.row in wrong for suspect in first]) >= 0.6
