"""Which method, and how strong: by cross-validation on the examples alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nshot.decision.folds import fold_numbers
from nshot.decision.softmax import log_sum_exp
from nshot.few_shot.candidates import STRENGTHS, Candidate, Prompts, candidates, train
from nshot.few_shot.heads import Array, Shown, log_loss

FOLDS = 5

FIRST = Candidate("pulled", 1.0)  # what stands until another is surely better
FIRST_ALONE = Candidate("probe", 10.0)  # the same without prompts
SINGLE = Candidate("pulled", 0.5)  # with one example per label nothing can be compared
SINGLE_ALONE = Candidate("probe", 1.0)

_SURE = 2.0  # nats by which a challenger must be better on the held-out examples together
# nats against the prompts that it takes to leave them out: a few examples of two or three labels prove little
_AGAINST = {2: 2.0, 3: 1.2}
_EXPLAINED = 4.0  # nats that prompts explain of the examples where they know something all the same
_PRIOR = 4.0  # Beta(4, 1): prompts that know something are right about four times in five
_MANY = 3000  # examples from which one part is held out, once
_ASKED = 600  # examples to hold out in all: the differences that matter are seen by then
_ROUGH = 1e-2  # tolerance while choosing


@dataclass(frozen=True, slots=True)
class Trial:
    """How a candidate did on examples that it was not shown.

    Attributes:
        candidate: the method and its strength.
        loss: mean negative log-likelihood in nats, over the labels of the mean over each one's examples.
        right: how many of the ``asked`` examples it named.
        asked: all examples.
        gain: its share right minus zero-shot's, in [-1, 1].
        error: the standard error of that gain (paired, so what both get right or wrong adds nothing).
    """

    candidate: Candidate
    loss: float
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
    """What to use and why.

    Attributes:
        candidate: the method and its strength.
        reason: why, in words.
        trials: what cross-validation found; none where a fixed rule decided.
        prompted: False where there were prompts, and they are left out.
    """

    candidate: Candidate
    reason: str
    trials: tuple[Trial, ...]
    prompted: bool = True


def choose(shown: Shown, prompts: Prompts, *, seed: int) -> Choice:
    """Choose a candidate on the examples alone.

    Prompts that name the examples no more often than chance would, and explain nothing else of them, are left
    out (see ``knowledge``). Then
    candidates are scored by their cross-validated log loss, averaged per label, so that common labels do
    not outvote rare ones. A pulled probe of middling pull stands unless another, which names no fewer of
    them, is better by more than two nats: that is how much the best of some candidates on a few examples
    looks better than it is. With one example per label nothing can be held out, and a fixed rule decides.

    Args:
        shown: the examples.
        prompts: what is known without examples.
        seed: of the folds.
    """
    labels = len(prompts.rows)
    complete = bool((shown.counts(labels) > 0).all())
    if complete and prompts.known.any():
        know, explained, hits, asked = knowledge(shown, prompts)
        if know < -_AGAINST.get(labels, 0.0) and explained < _EXPLAINED:
            without = choose(shown, Prompts.none(*prompts.rows.shape), seed=seed)
            reason = f"the prompts name {hits} of {asked} examples, as chance would: they are left out"
            return Choice(without.candidate, reason, without.trials, prompted=False)
    prompted = bool(prompts.known.any())
    standing, single = (FIRST, SINGLE) if prompted else (FIRST_ALONE, SINGLE_ALONE)
    distinct = np.bincount(shown.targets, minlength=labels)
    # a label's only example is held out for nothing where no prompt could answer for it
    useful = (distinct[shown.targets] > 1) | prompts.known[shown.targets]
    if distinct.max() == 1 or not useful.any():
        return Choice(single, "one example per label: a fixed rule, nothing to compare", ())
    tried = candidates(prompts, complete=complete)
    logits, asked_rows = _cross_validate(shown, useful, prompts, tried, complete=complete, seed=seed)
    targets = shown.targets[asked_rows]
    right = logits.argmax(axis=2) == targets
    share = _per_label(targets, shown.weights[asked_rows])
    losses = np.array([share @ log_loss(mine, targets) for mine in logits])
    first, named = tried.index(standing), right @ share
    best = int(np.where(named >= named[first] - 1e-9, losses, np.inf).argmin())
    better = (losses[first] - losses[best]) / float(share @ share)
    chosen = tried[best if better > _SURE else first]
    zero = right[tried.index(Candidate("zero-shot", 1.0))] if prompted else None
    trials = _trials(tried, losses, right, zero)
    if chosen == standing:
        return Choice(chosen, "nothing beats the default by more than chance would", trials)
    return Choice(chosen, "best of the held-out examples, by more than chance would", trials)


class Knowledge(NamedTuple):
    """How much the examples speak for the prompts.

    Attributes:
        evidence: log Bayes factor of the hits, in nats.
        explained: nats by which the prompts' shares, at the scale that suits best, explain the examples
            better than chance.
        hits: how many of the examples the prompts name.
        asked: how many have a label with a prompt.
    """

    evidence: float
    explained: float
    hits: int
    asked: int


def knowledge(shown: Shown, prompts: Prompts) -> Knowledge:
    """How much the examples speak for the prompts.

    Against chance, a hit in k, stands an accuracy above chance that is Beta(4, 1) there. Hits are counted
    per label, so that many examples of one label prove no more than they do. Only labels with a prompt are
    asked.

    Hits alone do not do: of the images that ``select`` finds, those that the prompts are least sure of, good
    prompts name few, but still give the right label more than chance would.
    """
    known = np.flatnonzero(prompts.known)
    asked = prompts.known[shown.targets]
    if len(known) < 2 or not asked.any():
        return Knowledge(math.inf, math.inf, 0, 0)
    share = np.zeros(len(asked))
    share[asked] = _per_label(shown.targets[asked], shown.weights[asked])
    hit, losses = np.zeros(len(asked), bool), np.zeros(21)
    for block in shown.blocks(len(known)):
        rows = np.arange(len(asked))[block][asked[block]]
        cosines = shown.vectors[rows].astype(np.float64, copy=False) @ prompts.rows[known].T
        places = np.searchsorted(known, shown.targets[rows])
        hit[rows] = cosines.argmax(axis=1) == places
        losses += [
            share[rows] @ log_loss(s * prompts.scale * cosines, places) for s in np.linspace(0.0, 1.0, 21)
        ]
    share, hit = share[asked], hit[asked]
    count = 1.0 / float(share @ share)
    hits, chance = count * float(share @ hit), 1 / len(known)
    accuracy = chance + (1 - chance) * (np.arange(1000) + 0.5) / 1000
    prior = accuracy ** (_PRIOR - 1)
    likelihood = hits * np.log(accuracy / chance) + (count - hits) * np.log((1 - accuracy) / (1 - chance))
    evidence = float(log_sum_exp(likelihood + np.log(prior / prior.sum())))
    explained = count * (math.log(len(known)) - float(losses.min()))
    return Knowledge(evidence, explained, int(hit.sum()), len(hit))


def choose_probe(shown: Shown, labels: int, *, seed: int) -> float:
    """C of a plain linear probe: the one that names most of the held-out examples; the smallest of equals.

    Args:
        shown: the examples, their targets in [0, labels).
        labels: how many there are.
        seed: of the folds.
    """
    tried = [Candidate("probe", strength) for strength in STRENGTHS["probe"]]
    if np.bincount(shown.targets).max() == 1:
        return tried[0].strength
    nothing, everyone = Prompts.none(labels, shown.vectors.shape[1]), np.ones(len(shown.targets), dtype=bool)
    logits, asked = _cross_validate(shown, everyone, nothing, tried, complete=True, seed=seed)
    right = logits.argmax(axis=2) == shown.targets[asked]
    return tried[int(right.sum(axis=1).argmax())].strength


def _cross_validate(
    shown: Shown,
    useful: NDArray[np.bool_],
    prompts: Prompts,
    tried: list[Candidate],
    *,
    complete: bool,
    seed: int,
) -> tuple[Array, NDArray[np.intp]]:
    """Logits float64[candidates, asked, labels] of held-out examples, and which examples those are."""
    n, generator = len(shown.targets), np.random.default_rng(seed)
    # half the time, and no answer turns on the seventh digit
    shown = shown._replace(vectors=shown.vectors.astype(np.float32, copy=False), exact=False)
    folds = min(FOLDS, n) if n <= _MANY else n // _ASKED
    numbers = fold_numbers(shown.targets, folds, generator)
    held_out = np.arange(max(1, round(_ASKED * folds / n)))
    parts, rows = [], []
    for fold in held_out[held_out < folds]:
        out = numbers == fold
        heads = train(shown.but(out), prompts, tried, complete=complete, tolerance=_ROUGH)
        asked = np.flatnonzero(out & useful)
        parts.append(np.stack([head.logits(shown.vectors[asked]) for head in heads]))
        rows.append(asked)
    return np.concatenate(parts, axis=1).astype(np.float64), np.concatenate(rows)


def _per_label(targets: NDArray[np.intp], weights: Array) -> Array:
    """What each example counts where every label counts the same: float64[n], their sum 1."""
    totals = np.bincount(targets, weights)
    return weights / totals[targets] / np.count_nonzero(totals)


def _trials(
    tried: list[Candidate], losses: Array, right: NDArray[np.bool_], zero: NDArray[np.bool_] | None
) -> tuple[Trial, ...]:
    trials = []
    for candidate, loss, mine in zip(tried, losses, right, strict=True):
        gain = error = math.nan
        if zero is not None:
            difference = mine.astype(np.float64) - zero
            gain, error = float(difference.mean()), float(difference.std()) / math.sqrt(len(difference))
        trials.append(Trial(candidate, float(loss), int(mine.sum()), len(mine), gain, error))
    return tuple(trials)
