"""The few-shot classifier as a scikit-learn estimator, for pipelines and searches that people have already.

It needs scikit-learn (``pip install "nshot[sklearn]"``); nothing else in nshot's classifying does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier.classifier import Classifier
from nshot.decision.softmax import activate
from nshot.errors import MissingExtra, RequestError
from nshot.few_shot import Fitted, Method, fit

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise MissingExtra('nshot.few_shot.sklearn needs scikit-learn: pip install "nshot[sklearn]"') from error


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Images' vectors and their labels -> a classifier that starts from the prompts, if there are any.

    Only the direction of a vector counts, as everywhere in nshot.

    The classes are those of the examples, sorted, as scikit-learn has them; a class takes the prompt whose
    label is the class's text, and prompts of other labels are not used. (``nshot.few_shot.fit`` answers with
    labels that have a prompt alone.) Integers stand for prompts of words where they are places in the
    prompts' labels or in the sorted labels, as scikit-learn's ensembles number them, and the examples leave
    no doubt which; otherwise they are refused.

    Args:
        prompts: a zero-shot ``Classifier``; None for examples alone.
        method: ``auto``, or one of ``nshot.few_shot.METHODS``.
        strength: of a method given.
        random_state: seed of the folds that choose.

    Attributes:
        classes_: the examples' labels, sorted, [k].
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

    def fit(
        self,
        X: ArrayLike,  # noqa: N803  (scikit-learn's name)
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> FewShotClassifier:
        """Fit on vectors [n, d] and their labels [n].

        Args:
            X: float[n, d].
            y: [n], the label of each vector.
            sample_weight: float[n], how much each counts; 2 is the same as giving it twice.

        Raises:
            ValueError: what scikit-learn's checks or nshot's refuse, and labels that match no prompt.
        """
        rows, given = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(given)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
            kept = weights > 0
            rows, given, weights = rows[kept], given[kept], weights[kept]
        classes, numbers = np.unique(given, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"FewShotClassifier needs two classes at least, and got one class: {classes}")
        directions = _with_direction(rows)
        names = self._names(classes, numbers, directions)
        try:
            self.fitted_: Fitted = fit(
                directions,
                [names[number] for number in numbers],
                self.prompts,
                labels=names,
                method=self.method,
                strength=self.strength,
                weights=weights,
                seed=self.random_state,
            )
        except RequestError as error:
            raise ValueError(str(error)) from error
        self.classes_ = classes
        return self

    def _names(self, classes: NDArray[Any], numbers: NDArray[np.intp], rows: NDArray[Any]) -> list[str]:
        """The label of each class, by which its prompt is found."""
        names = [str(each) for each in classes]
        if self.prompts is None or set(names) & set(self.prompts.labels):
            return names
        labels = self.prompts.labels
        if not np.issubdtype(classes.dtype, np.integer) or classes[0] < 0 or classes[-1] >= len(labels):
            raise ValueError(
                f"no class has a prompt: the classes are {_some(names)}, the prompts' labels {_some(labels)}"
            )
        # places in the labels, or in the sorted labels: which of the two, the examples themselves say
        answers = self.prompts.logits(rows).argmax(axis=1)
        orders = list(dict.fromkeys([labels, tuple(sorted(labels))]))
        hits = [
            sum(labels[k] == order[place] for k, place in zip(answers, classes[numbers], strict=True))
            for order in orders
        ]
        best = int(np.argmax(hits))
        others = max([2 * len(rows) / len(labels), *(h + 2 for i, h in enumerate(hits) if i != best)])
        if hits[best] <= others:
            raise ValueError(
                f"the classes are the numbers {_some(names)}, and the examples do not tell which of the "
                f"prompts' labels ({_some(labels)}) they stand for: give labels instead of numbers"
            )
        return [orders[best][place] for place in classes]

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Logits [n, k]; with two classes, the second's minus the first's [n]."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Softmax of the logits, float64[n, k]; not calibrated."""
        return activate(self._logits(X), "softmax")

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


def _some(names: Sequence[str]) -> str:
    """The first few, for a message."""
    shown = ", ".join(map(repr, names[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
