"""Confident learning finds labels that were swapped, and leaves the honest ones alone."""

from __future__ import annotations

import numpy as np

from nshot.evaluation import label_errors


def test_swapped_labels_are_found_first_and_the_right_one_is_suggested() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(5, size=1000)
    logits = 3.0 * np.eye(5)[truth] + rng.normal(size=(1000, 5))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    given = truth.copy()
    swapped = rng.choice(1000, 50, replace=False)
    given[swapped] = (truth[swapped] + 1) % 5
    found = label_errors.find(scores, given)
    first = found[:40]
    assert np.mean([suspect.row in set(swapped.tolist()) for suspect in first]) >= 0.95
    assert np.mean([suspect.suggested == truth[suspect.row] for suspect in first]) >= 0.95
    assert all(suspect.given == given[suspect.row] for suspect in found)
    assert {suspect.row for suspect in found} >= set(swapped.tolist()) - {
        row for row in swapped.tolist() if scores[row].argmax() != truth[row] or scores[row].max() < 0.8
    }


def test_a_score_that_is_usual_for_a_class_is_what_counts_and_not_one_half() -> None:
    # class 1 never scores above 0.4; an image that reaches that, labelled 0 with an unusually low score
    scores = [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.39, 0.61]]
    found = label_errors.find(scores, [0, 0, 1, 1, 0])
    assert [suspect.row for suspect in found] == [4]
    assert label_errors.find([[0.9, 0.1], [0.6, 0.4], [0.62, 0.38]], [0, 1, 0]) == []


def test_nothing_is_suggested_of_a_class_without_images() -> None:
    assert label_errors.find([[0.1, 0.9], [0.2, 0.8]], [0, 0]) == []
