"""Labels that were swapped are found, and honest ones come after them."""

from __future__ import annotations

from typing import Any

import numpy as np
import recorded

from nshot.decision.softmax import activate
from nshot.evaluation import label_errors
from nshot.metrics import average_precision


def world(n: int = 600, swapped: int = 30) -> tuple[Any, Any, Any, Any]:
    """Vectors, a classifier's scores, labels of which some are wrong, and which."""
    rng = np.random.default_rng(0)
    truth = rng.integers(5, size=n)
    vectors = np.eye(16)[truth] + np.eye(16)[15] + 0.35 * rng.normal(size=(n, 16))
    scores = activate(3.0 * np.eye(5)[truth] + rng.normal(size=(n, 5)), "softmax")
    given = truth.copy()
    wrong = rng.choice(n, swapped, replace=False)
    given[wrong] = (truth[wrong] + 1) % 5
    return vectors, scores, given, wrong


def test_swapped_labels_are_found_first_and_the_right_one_is_suggested() -> None:
    vectors, scores, given, wrong = world()
    found = label_errors.find(scores, given, vectors)
    first = found[: len(wrong)]
    assert np.mean([suspect.row in wrong for suspect in first]) >= 0.9
    assert np.mean([suspect.suggested == (given[suspect.row] - 1) % 5 for suspect in first]) >= 0.9
    assert all(suspect.given == given[suspect.row] for suspect in found)
    share = [suspect.given_score / suspect.suggested_score for suspect in found]
    assert share == sorted(share)
    assert all(suspect.suggested_score > suspect.given_score for suspect in found)


def test_two_witnesses_find_more_than_either_alone() -> None:
    vectors, scores, given, wrong = world()
    flipped = np.isin(np.arange(len(given)), wrong)
    rows = np.arange(len(given))
    nothing = np.full_like(scores, 0.2)
    both, classifier, probe = (
        average_precision(-label_errors.probabilities(s, given, v)[rows, given], flipped)
        for s, v in ((scores, vectors), (scores, None), (nothing, vectors))
    )
    assert both > max(classifier, probe)


def test_an_image_does_not_speak_for_its_own_label() -> None:
    rng = np.random.default_rng(0)
    vectors, given = rng.normal(size=(40, 64)), np.arange(40) % 2  # a probe of all would be right of each
    chance = label_errors.probabilities(np.full((40, 2), 0.5), given, vectors)
    assert 0.3 < np.mean(chance.argmax(axis=1) == given) < 0.7


def test_a_label_with_one_image_or_none_is_left_to_the_classifier() -> None:
    vectors, scores, given, _ = world()
    given[given == 4] = 3
    given[0] = 4
    scores[0] = [0.02, 0.02, 0.02, 0.02, 0.92]
    assert 0 not in {suspect.row for suspect in label_errors.find(scores, given, vectors)}
    assert label_errors.find([[1.0], [1.0]], [0, 0], np.eye(2)) == []
    assert label_errors.find(np.empty((0, 3)), [], np.empty((0, 4))) == []


@recorded.needed
def test_on_real_images_labels_swapped_for_likely_ones_are_found() -> None:
    data = recorded.sets()["food10_test"]
    rng = np.random.default_rng(0)
    given, wrong = data.targets.copy(), rng.choice(len(data.targets), 24, replace=False)
    given[wrong] = (given[wrong] + 1 + rng.integers(0, 6, 24)) % 8
    flipped = np.isin(np.arange(len(given)), wrong) & (given != data.targets)
    found = label_errors.find(data.zero.scores(data.vectors), given, data.vectors)
    assert np.mean([flipped[suspect.row] for suspect in found[: flipped.sum()]]) >= 0.9
