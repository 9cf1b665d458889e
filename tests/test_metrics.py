"""Figures: against scikit-learn where it has them, and against sums done by hand."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest

from nshot import metrics
from nshot.errors import RequestError


def sample(n: int = 300, classes: int = 6, seed: int = 0) -> tuple[Any, Any]:
    """Scores with some signal, and targets."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[targets]
    scores = np.exp(logits)
    return scores / scores.sum(axis=1, keepdims=True), targets


def test_top_k_counts_images_whose_own_label_is_among_the_k_best() -> None:
    scores = [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]
    assert metrics.ranks(scores, [0, 1, 2]).tolist() == [0, 1, 2]
    assert metrics.top_k(scores, [0, 1, 2], 1) == pytest.approx(1 / 3)
    assert metrics.top_k(scores, [0, 1, 2], 2) == pytest.approx(2 / 3)


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    assert metrics.ranks([[0.5, 0.5, 0.0]], [1]).tolist() == [1]
    assert metrics.ranks([[0.5, 0.5, 0.0]], [0]).tolist() == [0]


def test_top_k_agrees_with_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    scores, targets = sample()
    for k in (1, 2, 5):
        assert metrics.top_k(scores, targets, k) == pytest.approx(
            sk.top_k_accuracy_score(targets, scores, k=k, labels=range(6))
        )


def test_targets_outside_the_classes_are_refused() -> None:
    with pytest.raises(RequestError, match=r"\[0, 2\)"):
        metrics.top_k([[0.5, 0.5]], [2])
    with pytest.raises(RequestError, match="do not fit"):
        metrics.top_k([[0.5, 0.5]], [0, 1])


def test_wilson_gives_the_published_example() -> None:
    # Newcombe 1998, table I, method 4: 81 of 263 and 0 of 20 and 1 of 29, at 95 %.
    found = metrics.wilson([81, 0, 1], [263, 20, 29])
    np.testing.assert_allclose(found, [[0.2535, 0.3682], [0.0, 0.2005], [0.0018, 0.1963]], atol=5e-5)


@pytest.mark.parametrize("n", [10, 30, 100])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_an_interval_covers_the_true_share_as_often_as_it_says(n: int, share: float) -> None:
    right = np.arange(n + 1)
    chance = np.array([comb(n, k) * share**k * (1 - share) ** (n - k) for k in right])
    low, high = metrics.wilson(right, n).T
    assert 0.93 <= chance[(low <= share) & (share <= high)].sum() <= 0.99


def test_a_gain_is_covered_as_often_as_its_interval_says_and_agreement_on_a_few_images_proves_nothing() -> (
    None
):
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(2000):
        drawn = rng.random(60)
        low, high = metrics.paired_gain(drawn < 0.8, (drawn > 0.1) & (drawn < 0.85))
        inside.append(low <= 0.05 <= high)
    assert 0.93 <= np.mean(inside) <= 0.985
    low, high = metrics.paired_gain([True] * 10, [True] * 10)
    assert low < -0.1
    assert high > 0.1
    assert metrics.paired_gain([], []) == (-1, 1)


def test_wilson_of_no_trials_knows_nothing() -> None:
    np.testing.assert_allclose(metrics.wilson(0, 0), [0.0, 1.0], atol=1e-12)


def test_confusion_has_the_own_class_as_row() -> None:
    counts = metrics.confusion([1, 1, 0], [0, 1, 0], 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_most_confused_names_the_largest_mistakes_and_no_right_answers() -> None:
    assert metrics.most_confused([[9, 2, 0], [5, 9, 0], [0, 0, 9]], 10) == [(1, 0, 5), (0, 1, 2)]
    assert metrics.most_confused([[9, 2], [5, 9]], 1) == [(1, 0, 5)]


def test_per_class_figures_agree_with_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    scores, targets = sample()
    predicted = scores.argmax(axis=1)
    found = metrics.per_class(metrics.confusion(predicted, targets, 6))
    precision, recall, f1, support = sk.precision_recall_fscore_support(targets, predicted)
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_allclose(found.f1, f1)
    np.testing.assert_array_equal(found.support, support)
    assert found.mean_recall == pytest.approx(sk.balanced_accuracy_score(targets, predicted))


def test_every_per_class_figure_lies_in_its_interval() -> None:
    scores, targets = sample()
    found = metrics.per_class(metrics.confusion(scores.argmax(axis=1), targets, 6))
    for value, (low, high) in (
        (found.precision, found.precision_interval.T),
        (found.recall, found.recall_interval.T),
        (found.f1, found.f1_interval.T),
    ):
        assert ((low < value) & (value < high)).all()


def test_a_class_without_images_has_no_recall_and_does_not_count_in_the_mean() -> None:
    found = metrics.per_class([[2, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert np.isnan(found.recall[2])
    assert np.isnan(found.precision[2])
    assert found.mean_recall == pytest.approx(0.75)


def test_average_precision_agrees_with_scikit_learn_with_ties_too() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    scores, relevant = rng.random((200, 4)).round(1), rng.random((200, 4)) < 0.3
    np.testing.assert_allclose(
        metrics.average_precisions(scores, relevant),
        [sk.average_precision_score(relevant[:, k], scores[:, k]) for k in range(4)],
    )
    assert np.isnan(metrics.average_precision([0.1], [False]))


def test_nll_and_brier_agree_with_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    scores, targets = sample()
    assert metrics.nll(scores, targets) == pytest.approx(sk.log_loss(targets, scores))
    assert metrics.brier(scores, targets) == pytest.approx(
        np.mean(np.sum((scores - np.eye(6)[targets]) ** 2, axis=1))
    )


def test_a_certain_wrong_answer_costs_much_but_not_infinity() -> None:
    assert 100 < metrics.nll([[1.0, 0.0]], [1]) < np.inf


def test_reliability_bins_hold_equal_numbers() -> None:
    confidence = np.random.default_rng(0).random(100)
    found = metrics.reliability(confidence, confidence > 0.5, bins=10)
    assert found.count.tolist() == [10] * 10
    assert (np.diff(found.confidence) > 0).all()


def test_calibration_error_is_the_gap_between_promise_and_truth() -> None:
    assert metrics.reliability([0.9] * 10, [1] * 9 + [0]).error == pytest.approx(0.0)
    assert metrics.reliability([0.9] * 10, [1] * 5 + [0] * 5).error == pytest.approx(0.4)
    assert np.isnan(metrics.reliability([], []).error)


def test_calibration_error_does_not_depend_on_the_order_of_the_images() -> None:
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(500).round(1), rng.random(500) < 0.5
    order = rng.permutation(500)
    assert metrics.reliability(confidence, correct).error == pytest.approx(
        metrics.reliability(confidence[order], correct[order]).error, abs=1e-12
    )


def test_auroc_agrees_with_scikit_learn_with_ties_too() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    positive, negative = (rng.normal(1, 1, 200)).round(1), rng.normal(0, 1, 150).round(1)
    truth = [1] * 200 + [0] * 150
    assert metrics.auroc(positive, negative) == pytest.approx(
        sk.roc_auc_score(truth, np.concatenate([positive, negative]))
    )
    assert metrics.auroc([1, 1], [1]) == 0.5


def test_false_acceptances_are_counted_at_the_strictest_sufficient_threshold() -> None:
    positive, negative = np.arange(100.0), np.arange(-50.0, 50.0)
    # 95 of 100 positives are >= 5; so are 45 of the 100 negatives.
    assert metrics.fpr_at_tpr(positive, negative) == pytest.approx(0.45)
    assert metrics.fpr_at_tpr(positive, negative, tpr=1.0) == pytest.approx(0.5)


def test_risk_falls_when_only_the_surest_are_answered() -> None:
    curve = metrics.risk_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    np.testing.assert_allclose(curve.risk, [0, 0, 1 / 3, 1 / 4])
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1.0])
    assert curve.at(0.5) == (0.0, 0.8)
    assert curve.at(0.6) == pytest.approx((1 / 3, 0.7))
    assert curve.area == pytest.approx((1 / 3 + 1 / 4) / 4)


def test_equal_confidences_share_their_mistakes() -> None:
    one = metrics.risk_coverage([0.5, 0.5, 0.9], [True, False, True])
    other = metrics.risk_coverage([0.5, 0.9, 0.5], [False, True, True])
    np.testing.assert_allclose(one.risk, other.risk)
    np.testing.assert_allclose(one.risk, [0, 0.25, 1 / 3])
