"""Which method, and how strong: by cross-validation on the examples alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nshot.few_shot.candidates import DEFAULT_PULL, STRENGTHS, Candidate, Prompts, candidates, train
from nshot.few_shot.heads import Array, Targets

FOLDS = 5

_SURE = 2.0  # standard errors by which a challenger must beat the one that stands
_MANY = 3000  # examples from which one part is held out, once
_ASKED = 600  # examples to hold out in all: the differences that matter are seen by then
_ROUGH = 1e-2  # tolerance while choosing


@dataclass(frozen=True, slots=True)
class Trial:
    """How a candidate did on examples that it was not shown.

    Attributes:
        candidate: the method and its strength.
        right: how many of the ``asked`` examples it named.
        asked: all examples.
        gain: its share right minus zero-shot's, in [-1, 1].
        error: the standard error of that gain (paired, so what both get right or wrong adds nothing).
    """

    candidate: Candidate
    right: int
    asked: int
    gain: float
    error: float

    @property
    def accuracy(self) -> float:
        """Share named, in [0, 1]."""
        return self.right / self.asked


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate to use, why in words, and all trials (none where a fixed rule decided)."""

    candidate: Candidate
    reason: str
    trials: tuple[Trial, ...]


def choose(vectors: Array, targets: Targets, prompts: Prompts, *, seed: int) -> Choice:
    """Choose a candidate on the examples alone.

    One example a label: a pulled probe of fixed pull, for nothing could be held out to choose by. Else
    cross-validation, where the same pulled probe stands until another beats it by more than two standard
    errors of the paired difference: of twenty candidates on a few examples, the best looks better than it
    is. At last the winner must not be below zero-shot, or zero-shot is kept.

    Args:
        vectors: float64[n, d], unit rows.
        targets: int[n], rows of the prompts.
        prompts: what is known without examples.
        seed: of the folds.
    """
    labels = len(prompts.rows)
    counts = np.bincount(targets, minlength=labels)
    complete = bool((counts > 0).all())
    prompted = bool(prompts.known.any())
    if counts.max() == 1:
        if prompted:
            return Choice(
                Candidate("pulled", DEFAULT_PULL), "one example a label: a fixed rule, nothing to compare", ()
            )
        return Choice(Candidate("probe", 10.0), "one example a label and no prompts: a fixed rule", ())
    tried = candidates(prompts, complete=complete)
    right = _cross_validate(vectors, targets, prompts, tried, complete=complete, seed=seed)
    standing = tried.index(Candidate("pulled", DEFAULT_PULL) if prompted else Candidate("probe", 10.0))
    best = _best(right, standing)
    if not prompted:
        return Choice(tried[best], "no prompts to compare with", _trials(tried, right, None))
    zero = tried.index(Candidate("zero-shot", 1.0))
    trials = _trials(tried, right, right[zero])
    if best == zero or right[best].sum() < right[zero].sum():
        return Choice(tried[zero], "zero-shot names more of the held-out examples: it is kept", trials)
    if best == standing:
        return Choice(tried[best], "nothing beats the default by more than chance would", trials)
    return Choice(tried[best], "best of the held-out examples, by more than chance would", trials)


def choose_probe(vectors: Array, targets: Targets, labels: int, *, seed: int) -> float:
    """C of a plain linear probe: the one that names most of the held-out examples; the smallest of equals.

    Args:
        vectors: float64[n, d], unit rows.
        targets: int[n] in [0, labels).
        labels: how many there are.
        seed: of the folds.
    """
    tried = [Candidate("probe", strength) for strength in STRENGTHS["probe"]]
    if np.bincount(targets).max() == 1:
        return tried[0].strength
    nothing = Prompts(np.zeros((labels, vectors.shape[1])), np.zeros(labels, dtype=bool), 0.0)
    right = _cross_validate(vectors, targets, nothing, tried, complete=True, seed=seed)
    return tried[int(right.sum(axis=1).argmax())].strength


def _best(right: NDArray[np.bool_], standing: int) -> int:
    """The candidate with most right among those that surely beat the standing one; else that one."""
    best = standing
    for i in range(len(right)):
        gain, error = _difference(right[i], right[standing])
        if gain > _SURE * error and right[i].sum() > right[best].sum():
            best = i
    return best


def fold_numbers(targets: Targets, folds: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """A fold for each example, so that every fold is as large and every label spread as evenly as can be."""
    order = generator.permutation(len(targets))
    dealt = order[np.argsort(targets[order], kind="stable")]
    numbers = np.empty(len(targets), dtype=np.intp)
    numbers[dealt] = np.arange(len(targets)) % folds
    return numbers


def _cross_validate(
    vectors: Array, targets: Targets, prompts: Prompts, tried: list[Candidate], *, complete: bool, seed: int
) -> NDArray[np.bool_]:
    """bool[candidates, asked]: whether each named each held-out example."""
    generator = np.random.default_rng(seed)
    vectors = vectors.astype(np.float32)  # half the time, and no answer turns on the seventh digit
    folds = min(FOLDS, len(targets)) if len(targets) <= _MANY else len(targets) // _ASKED
    numbers = fold_numbers(targets, folds, generator)
    asked = numbers < max(1, round(_ASKED * folds / len(targets)))
    right = np.zeros((len(tried), len(targets)), dtype=bool)
    for fold in range(int(numbers[asked].max()) + 1):
        out = numbers == fold
        heads = train(vectors[~out], targets[~out], prompts, tried, complete=complete, tolerance=_ROUGH)
        for i, head in enumerate(heads):
            right[i, out] = head.logits(vectors[out]).argmax(axis=1) == targets[out]
    return right[:, asked]


def _difference(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean of the paired difference and its standard error."""
    difference = one.astype(np.float64) - other
    return float(difference.mean()), float(difference.std()) / math.sqrt(len(difference))


def _trials(
    tried: list[Candidate], right: NDArray[np.bool_], zero: NDArray[np.bool_] | None
) -> tuple[Trial, ...]:
    trials = []
    for candidate, mine in zip(tried, right, strict=True):
        gain, error = (math.nan, math.nan) if zero is None else _difference(mine, zero)
        trials.append(Trial(candidate, int(mine.sum()), len(mine), gain, error))
    return tuple(trials)
