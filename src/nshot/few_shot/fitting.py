"""Vectors with labels -> a Classifier, starting from the prompts' own where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier.classifier import Classifier
from nshot.errors import LabelError, RequestError
from nshot.few_shot.candidates import METHODS, Candidate, Method, Prompts, train
from nshot.few_shot.choose import Choice, Trial, choose
from nshot.few_shot.heads import Shown, Targets
from nshot.unit import normalize

MIDDLE: dict[Method, float] = {"zero-shot": 1.0, "probe": 10.0, "pulled": 1.0, "gaussian": 0.1}
"""The strength of a method that was asked for without one."""

_MANY = 2**24  # numbers of examples that are not copied without need
_BLOCK = 8192  # rows


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A classifier made from examples, and how it came about.

    Attributes:
        classifier: the labelled matrix; where zero-shot was kept, the prompts' own.
        method: which method made it.
        strength: with what strength.
        reason: why that one, in words.
        examples: how many each label had (the sum of their weights).
        trials: what cross-validation found for every candidate; empty where nothing was compared.
    """

    classifier: Classifier
    method: Method
    strength: float
    reason: str
    examples: Mapping[str, int]
    trials: tuple[Trial, ...]

    @property
    def candidate(self) -> Candidate:
        """Method and strength together."""
        return Candidate(self.method, self.strength)

    @property
    def chosen(self) -> Trial | None:
        """The trial of what was chosen: its accuracy is a little flattered by having been chosen."""
        return self._trial(self.candidate)

    @property
    def zero_shot(self) -> Trial | None:
        """The trial of the prompts alone on the same held-out examples."""
        return self._trial(Candidate("zero-shot", 1.0))

    def _trial(self, candidate: Candidate) -> Trial | None:
        return next((t for t in self.trials if t.candidate == candidate), None)

    def recipe(self) -> dict[str, Any]:
        """What a saved classifier tells of how it was made."""
        return {
            "method": self.method,
            "strength": self.strength,
            "reason": self.reason,
            "examples": dict(self.examples),
            "trials": [
                {"candidate": str(t.candidate), "loss": t.loss, "right": t.right, "asked": t.asked}
                for t in self.trials
            ],
        }


def fit(
    vectors: ArrayLike,
    labels_of: Sequence[str],
    prompts: Classifier | None = None,
    *,
    labels: Sequence[str] | None = None,
    method: Method | Literal["auto"] = "auto",
    strength: float | None = None,
    weights: ArrayLike | None = None,
    space: str | None = None,
    seed: int = 0,
) -> Fitted:
    """A classifier from examples' vectors: seconds, whatever the method.

    With prompts, the candidates are the prompts alone and a probe pulled toward their matrix; without, a
    linear probe and a Gaussian discriminant. Cross-validation on the examples chooses one with its strength.
    Prompts that know nothing about the examples are left out. See docs/few-shot.md.

    Equal examples (the same vector and label) count as one that weighs more.

    Args:
        vectors: float[n, d], normalised here.
        labels_of: the label of each vector.
        prompts: a zero-shot classifier of some or all labels. A label without an example answers from its
            row here; a label that is not in it is known by its examples alone.
        labels: the answers and their order; by default those of ``prompts``, then the examples' others.
        method: one of the candidates instead of a choice.
        strength: C of the probe, the pull, or the share of the Gaussian, for a ``method`` given.
        weights: float[n], how much each example counts, at least 0; 1 each by default. A weight of 0 leaves
            an example out, 2 is the same as giving it twice.
        space: the encoder the vectors belong to; by default that of ``prompts``.
        seed: of the folds. The same examples, in any order, and the same seed give the same classifier.

    Raises:
        LabelError: fewer than two labels, or one with neither example nor prompt.
        RequestError: no examples, vectors that do not fit the prompts, or a method that cannot be.
    """
    rows = np.asarray(vectors)
    if rows.ndim != 2 or not len(rows) or len(rows) != len(labels_of):
        raise RequestError(
            f"a vector and a label each are needed, not vectors {rows.shape} and {len(labels_of)} labels"
        )
    if prompts is not None and rows.shape[1] != prompts.dimension:
        raise RequestError(
            f"the vectors have {rows.shape[1]} numbers and the prompts' {prompts.dimension}: of two models?"
        )
    weight = _weights(weights, len(rows))
    kept = weight > 0
    if not kept.all():
        rows, weight = rows[kept], weight[kept]
        labels_of = [label for label, of in zip(labels_of, kept.tolist(), strict=True) if of]
    rows = unit_rows(rows)
    names = _names(labels, labels_of, prompts)
    known = _prompt_rows(names, prompts, rows.shape[1])
    place = {name: i for i, name in enumerate(names)}
    targets = np.array([place[label] for label in labels_of], dtype=np.intp)
    counts = np.bincount(targets, minlength=len(names))
    if empty := [name for name, n, has in zip(names, counts, known.known, strict=True) if not n and not has]:
        raise LabelError(f"label with neither an example nor a prompt: {', '.join(map(repr, empty[:5]))}")
    shown = Shown(rows, targets, weight).merged()
    del vectors, rows  # where the caller holds them no longer, one copy is enough
    choice = _asked(method, strength, known, counts) or choose(shown, known, seed=seed)
    return Fitted(
        classifier=_build(shown, names, known, choice, prompts, space),
        method=choice.candidate.method,
        strength=choice.candidate.strength,
        reason=choice.reason,
        examples=dict(zip(names, counts.tolist(), strict=True)),
        trials=choice.trials,
    )


def _build(
    shown: Shown,
    names: list[str],
    known: Prompts,
    choice: Choice,
    prompts: Classifier | None,
    space: str | None,
) -> Classifier:
    if choice.candidate.method == "zero-shot" and prompts is not None and list(prompts.labels) == names:
        return prompts
    complete = len(np.unique(shown.targets)) == len(names)
    start = known if choice.prompted else Prompts.none(*known.rows.shape)
    [head] = train(shown, start, [choice.candidate], complete=complete)
    return head.classifier(names, space or (prompts.space if prompts else None))


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Unit rows; many that are that already, as vectors of a folder are, without a copy."""
    if rows.size > _MANY and rows.dtype == np.float32:
        blocks = range(0, len(rows), _BLOCK)
        lengths = (np.linalg.norm(rows[start : start + _BLOCK], axis=1) for start in blocks)
        if all((np.abs(each - 1) < 2e-6).all() for each in lengths):
            return rows
    return normalize(rows)


def _weights(weights: ArrayLike | None, count: int) -> NDArray[np.float64]:
    if weights is None:
        return np.ones(count)
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (count,) or not np.isfinite(given).all() or (given < 0).any() or not given.any():
        raise RequestError(f"weights are {count} numbers of at least 0, one per example, not all of them 0")
    return given


def _names(labels: Sequence[str] | None, labels_of: Sequence[str], prompts: Classifier | None) -> list[str]:
    if labels is None:
        known = list(prompts.labels) if prompts else []
        names = known + sorted(set(labels_of) - set(known))
    else:
        names = list(labels)
        if strange := sorted(set(labels_of) - set(names)):
            raise LabelError(
                f"examples of labels that are not asked for: {', '.join(map(repr, strange[:5]))}"
            )
        if len(set(names)) < len(names):
            raise LabelError("a label is given twice")
    if len(names) < 2:
        raise LabelError("two labels at least are needed to choose between")
    return names


def _prompt_rows(names: Sequence[str], prompts: Classifier | None, dimension: int) -> Prompts:
    """The prompts' rows in the order of the names; a label without one stands in the middle of the others."""
    known = np.array([prompts is not None and name in prompts.labels for name in names], dtype=bool)
    rows = np.zeros((len(names), dimension))
    if prompts is None or not known.any():
        return Prompts(rows, known, 0.0)
    if np.ptp(prompts.bias):
        raise RequestError("examples build on prompts, not on a classifier with biases of its own")
    scale = float(prompts.scale.max())
    weights = prompts.matrix.astype(np.float64) * (prompts.scale / scale)[:, None]
    place = {label: i for i, label in enumerate(prompts.labels)}
    rows[known] = weights[[place[name] for name in names if name in place]]
    rows[~known] = rows[known].mean(axis=0)
    return Prompts(rows, known, scale)


def _asked(method: str, strength: float | None, known: Prompts, counts: Targets) -> Choice | None:
    """The choice that the caller made; None for ``auto``."""
    if method == "auto":
        return None
    if method not in METHODS:
        raise RequestError(f"method must be auto or one of {', '.join(METHODS)}, not {method!r}")
    if strength is not None and not strength > 0:
        raise RequestError(f"strength must be more than 0, not {strength}")
    if not known.known.any() and method not in ("probe", "gaussian"):
        raise RequestError(f"{method} starts from prompts, and there are none")
    if method == "probe" and not counts.all():
        raise RequestError(
            "a plain probe needs an example of every label; pulled takes the prompts for the others"
        )
    return Choice(Candidate(method, strength or MIDDLE[method]), "asked for", ())
