from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: the [eval] extra")

from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from nshot.classifier.classifier import Classifier
from nshot.few_shot.sklearn import FewShotClassifier

LABELS = ["ant", "bee", "cat"]


def blobs(per_label: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    labels = np.repeat(LABELS, per_label)
    rows = 1.0 + 2 * np.eye(8)[np.repeat(np.arange(3), per_label)]
    return rows + 0.3 * generator.standard_normal(rows.shape), labels


def test_it_passes_scikit_learns_own_checks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of skipped checks, and of scikit-learn's own data
        check_estimator(FewShotClassifier())


def test_it_works_in_a_cross_validation() -> None:
    vectors, labels = blobs(10)
    assert cross_val_score(FewShotClassifier(), vectors, labels, cv=3).mean() > 0.9


def test_prompts_answer_for_a_class_without_examples() -> None:
    vectors, labels = blobs(6)
    prompts = Classifier([*LABELS, "dog"], np.eye(8)[:4] + 0.1, scale=30.0)
    model = FewShotClassifier(prompts).fit(vectors, labels)
    assert model.classes_.tolist() == [*LABELS, "dog"]
    assert model.predict(1.0 + 2 * np.eye(8)[3:4]).tolist() == ["dog"]


def test_probabilities_are_float64_and_sum_to_one() -> None:
    vectors, labels = blobs(4)
    shares = FewShotClassifier(method="probe").fit(vectors, labels).predict_proba(vectors.astype(np.float32))
    assert shares.dtype == np.float64
    assert np.allclose(shares.sum(axis=1), 1.0, rtol=0, atol=1e-12)


def test_what_nshot_refuses_is_a_value_error_here() -> None:
    vectors, labels = blobs(4)
    with pytest.raises(ValueError, match="starts from prompts"):
        FewShotClassifier(method="pulled").fit(vectors, labels)
