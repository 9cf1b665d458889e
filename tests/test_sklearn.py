from __future__ import annotations

import contextlib
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: the [sklearn] extra")

from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils.estimator_checks import check_estimator

from nshot.classifier.classifier import Classifier
from nshot.few_shot.sklearn import FewShotClassifier
from nshot.metrics import auroc

LABELS = ["ant", "bee", "cat"]


def blobs(per_label: int, noise: float = 0.3) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    labels = np.repeat(LABELS, per_label)
    rows = 1.0 + 2 * np.eye(8)[np.repeat(np.arange(3), per_label)]
    return rows + noise * generator.standard_normal(rows.shape), labels


def test_it_passes_scikit_learns_own_checks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of skipped checks, and of scikit-learn's own data
        check_estimator(FewShotClassifier())


def test_it_works_in_a_cross_validation() -> None:
    vectors, labels = blobs(10)
    assert cross_val_score(FewShotClassifier(), vectors, labels, cv=3).mean() > 0.9


class Prompted(FewShotClassifier):
    """With prompts for whatever classes it is shown, and for two others."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> FewShotClassifier:  # noqa: N803
        with contextlib.suppress(Exception):  # what is no data is for the estimator itself to refuse
            names = sorted({str(each) for each in np.asarray(y).ravel()})
            rows = np.random.default_rng(0).normal(size=(len(names) + 2, np.asarray(X).shape[1]))
            self.prompts = Classifier([*names, "zebra", "Ant"], rows, scale=30.0)
        try:
            return super().fit(X, y, sample_weight)
        finally:
            self.prompts = None


def test_it_passes_them_with_prompts_as_well() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(Prompted())


def test_the_classes_are_the_examples_own_sorted_and_take_the_prompt_of_their_name() -> None:
    vectors, labels = blobs(6)
    prompts = Classifier(["dog", *LABELS[::-1]], np.eye(8)[[3, 2, 1, 0]] + 0.1, scale=30.0)
    model = FewShotClassifier(prompts, method="zero-shot").fit(vectors, labels)
    assert model.classes_.tolist() == LABELS
    assert model.score(vectors, labels) > 0.9


def test_numbers_stand_for_prompts_only_where_the_examples_leave_no_doubt() -> None:
    vectors, labels = blobs(6)
    words = ["cat", "ant", "bee"]
    prompts = Classifier(words, np.eye(8)[[2, 0, 1]] + 0.1, scale=30.0)
    for order in (words, LABELS):  # places in the prompts' labels, or as an ensemble numbers sorted classes
        numbers = np.array([order.index(label) for label in labels])
        model = FewShotClassifier(prompts).fit(vectors, numbers)
        assert model.score(vectors, numbers) > 0.9
        assert model.fitted_.zero_shot is not None
        assert model.fitted_.zero_shot.accuracy > 0.9
    with pytest.raises(ValueError, match="give labels instead of numbers"):
        FewShotClassifier(prompts).fit(vectors, np.random.default_rng(0).integers(0, 3, len(labels)))
    with pytest.raises(ValueError, match="no class has a prompt: the classes are 'x', 'y'"):
        FewShotClassifier(prompts).fit(vectors, np.array(["x", "y"] * 9))
    with pytest.raises(ValueError, match="no class has a prompt"):
        FewShotClassifier(prompts).fit(vectors, np.array([0, 7] * 9))


@pytest.mark.parametrize("prompted", [True, False])
def test_scores_of_a_cross_validation_are_those_of_a_plain_computation(prompted: bool) -> None:
    vectors, labels = blobs(12, noise=2.0)
    prompts = Classifier(["zebra", *LABELS[::-1]], np.eye(8)[[3, 2, 1, 0]] + 0.2, scale=10.0)
    model = FewShotClassifier(prompts if prompted else None)
    folds = StratifiedKFold(3)
    scores = cross_validate(model, vectors, labels, cv=folds, scoring=["neg_log_loss", "roc_auc_ovr"])
    together = cross_val_predict(model, vectors, labels, cv=folds, method="predict_proba")
    for fold, (shown, rest) in enumerate(folds.split(vectors, labels)):
        chance = clone(model).fit(vectors[shown], labels[shown]).predict_proba(vectors[rest])
        own = np.array([LABELS.index(label) for label in labels[rest]])
        assert np.allclose(together[rest], chance)
        assert scores["test_neg_log_loss"][fold] == pytest.approx(np.log(chance[np.arange(12), own]).mean())
        areas = [auroc(chance[own == k, k], chance[own != k, k]) for k in range(3)]
        assert scores["test_roc_auc_ovr"][fold] == pytest.approx(np.mean(areas))


def test_ensembles_searches_and_pipelines_take_it_with_prompts() -> None:
    vectors, labels = blobs(12, noise=0.6)
    prompts = Classifier(["zebra", *LABELS[::-1]], np.eye(8)[[3, 2, 1, 0]] + 0.2, scale=10.0)
    three = Classifier(LABELS[::-1], np.eye(8)[[2, 1, 0]] + 0.2, scale=10.0)
    few = FewShotClassifier(prompts)
    named = [("few", FewShotClassifier(three)), ("alone", FewShotClassifier())]
    for model in (
        BaggingClassifier(FewShotClassifier(three), n_estimators=3, random_state=0),
        VotingClassifier(named, voting="soft"),
        StackingClassifier(named, cv=3),
        CalibratedClassifierCV(few, cv=3),
        GridSearchCV(few, {"method": ["auto", "pulled"], "strength": [None, 0.5]}, cv=3),
        make_pipeline(Normalizer(), few),
    ):
        fitted = clone(model).fit(vectors, labels)
        again = pickle.loads(pickle.dumps(fitted))
        assert again.classes_.tolist() == LABELS, model
        assert np.array_equal(again.predict(vectors), fitted.predict(vectors)), model
        assert fitted.score(vectors, labels) > 0.9, model


def test_probabilities_are_float64_and_sum_to_one() -> None:
    vectors, labels = blobs(4)
    shares = FewShotClassifier(method="probe").fit(vectors, labels).predict_proba(vectors.astype(np.float32))
    assert shares.dtype == np.float64
    assert np.allclose(shares.sum(axis=1), 1.0, rtol=0, atol=1e-12)


def test_what_nshot_refuses_is_a_value_error_here() -> None:
    vectors, labels = blobs(4)
    with pytest.raises(ValueError, match="starts from prompts"):
        FewShotClassifier(method="pulled").fit(vectors, labels)
