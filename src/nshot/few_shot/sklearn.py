"""The few-shot classifier as a scikit-learn estimator, for pipelines and searches that people have already.

It needs scikit-learn (``pip install "nshot[eval]"``); nothing else in nshot's classifying does.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier.classifier import Classifier
from nshot.errors import MissingExtra, RequestError
from nshot.few_shot import Fitted, Method, fit

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingExtra('nshot.few_shot.sklearn needs scikit-learn: pip install "nshot[eval]"') from error


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Images' vectors and their labels -> a classifier that starts from the prompts, if there are any.

    Only the direction of a vector counts, as everywhere in nshot.

    Args:
        prompts: a zero-shot ``Classifier``; its labels are compared with the classes as texts, and those
            without examples become classes as well. None for examples alone.
        method: ``auto``, or one of ``nshot.few_shot.METHODS``.
        strength: of a method given.
        random_state: seed of the folds that choose.

    Attributes:
        classes_: the labels, [k]: the examples' in order, then the prompts' others.
        fitted_: what ``nshot.few_shot.fit`` answered, with its report.
        n_features_in_: length of the vectors.
    """

    def __init__(
        self,
        prompts: Classifier | None = None,
        *,
        method: Method | Literal["auto"] = "auto",
        strength: float | None = None,
        random_state: int = 0,
    ) -> None:
        self.prompts = prompts
        self.method = method
        self.strength = strength
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> FewShotClassifier:  # noqa: N803  (scikit-learn's names)
        """Fit on vectors [n, d] and their labels [n].

        Raises:
            ValueError: what scikit-learn's checks or nshot's refuse.
        """
        rows, given = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(given)
        classes, numbers = np.unique(given, return_inverse=True)
        names = [str(each) for each in classes]
        if self.prompts is not None and (others := [n for n in self.prompts.labels if n not in names]):
            classes = np.array([*classes.tolist(), *others])
            names += others
        if len(names) < 2:
            raise ValueError(f"FewShotClassifier needs two classes at least, and got one class: {names[0]!r}")
        try:
            self.fitted_: Fitted = fit(
                _with_direction(rows),
                [names[number] for number in numbers],
                self.prompts,
                labels=names,
                method=self.method,
                strength=self.strength,
                seed=self.random_state,
            )
        except RequestError as error:
            raise ValueError(str(error)) from error
        self.classes_ = classes
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Logits [n, k]; with two classes, the second's minus the first's [n]."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Softmax of the logits, float64[n, k]; not calibrated."""
        logits = self._logits(X)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """The best class of each vector, [n]."""
        best = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def _logits(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return self.fitted_.classifier.logits(_with_direction(rows))


def _with_direction(rows: NDArray[Any]) -> NDArray[Any]:
    """The rows, ones in the place of zeros: those have no direction, and scikit-learn refuses no row."""
    return np.where(np.any(rows != 0, axis=1, keepdims=True), rows, 1.0)
