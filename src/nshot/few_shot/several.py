"""Examples with any number of labels each -> a classifier that answers with any number of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.cascade import check_one
from nshot.classifier.classifier import Classifier
from nshot.classifier.several import relevance, with_thresholds
from nshot.decision.several import LEAST, Several, several_folds
from nshot.decision.softmax import Reals
from nshot.embeddings import Embeddings
from nshot.errors import LabelError, RequestError
from nshot.few_shot.descent import minimise
from nshot.types import Floats
from nshot.unit import normalize

PULLS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""How strongly the probe is held to what is known without examples; the best is chosen."""

_FOLDS = 5
_TOLERANCE = 1e-3


def fit_several(
    examples: Embeddings,
    zero: Classifier | None = None,
    *,
    labels: Sequence[str] | None = None,
    least: int = LEAST,
    seed: int = 0,
) -> Classifier:
    """A classifier from images that show any number of labels each, or none.

    Each label is a question by itself: a logistic probe that starts from the label's evidence without
    examples (its prompt against the other labels and the background, or nothing) and pays for leaving it.
    How much it pays is chosen by cross-validated log loss, averaged over the labels so that rare ones count
    as much.

    Args:
        examples: embeddings with labels.
        zero: a zero-shot classifier of some or all labels, such as ``several_zero_shot`` makes; what its
            labels stand against stays.
        labels: the answers and their order; by default those of ``zero``, then the examples' others.
        least: with fewer images than that a label is ranked, not decided.
        seed: of the cross-validation.

    Returns:
        The classifier; its ``report`` (``SeveralReport``) says what was chosen, with held-out figures.

    Raises:
        LabelError: a label with neither example nor prompt.
        RequestError: no examples, or vectors of another model.
    """
    if zero is not None:
        check_one(zero, "what is fitted starts from")
        zero.check_space(examples.recipe, examples.model)
        if zero.dimension != examples.dimension:
            raise RequestError(
                f"the vectors have {examples.dimension} numbers and the prompts' {zero.dimension}: "
                "of two models?"
            )
    known = () if zero is None else zero.labels
    found = sorted({label for own in examples.labels or () for label in own} - set(known))
    names = tuple(labels) if labels is not None else (*known, *found)
    relevant = relevance(examples, names)
    if unknown := [
        name for name, n in zip(names, relevant.sum(axis=0), strict=True) if not n and name not in known
    ]:
        raise LabelError(f"label with neither an example nor a prompt: {', '.join(map(repr, unknown[:5]))}")
    vectors = normalize(examples.vectors).astype(np.float64)
    rows, bias, rivals = _start(names, zero, examples.dimension)
    given = vectors @ rows.T + bias
    if rivals is not None:
        given -= Several.unlearnt(len(names), rivals).against(vectors)

    parts = several_folds(relevant, _FOLDS, seed)
    out_of_fold = np.zeros((len(PULLS), *relevant.shape))
    for part in np.unique(parts):
        out = parts == part
        heads = probes(vectors[~out], relevant[~out], given[~out], PULLS)
        for place, (weights, lift) in enumerate(heads):
            out_of_fold[place, out] = given[out] + vectors[out] @ weights.T + lift
    seen = np.asarray(relevant.any(axis=0))
    losses = {f"pull {pull:g}": _loss(out_of_fold[i], relevant, seen) for i, pull in enumerate(PULLS)}
    if set(names) <= set(known):
        losses["zero-shot"] = _loss(given, relevant, seen)
    best = min(losses, key=lambda name: losses[name])
    if best == "zero-shot":
        pull, evidence, weights, lift = None, given, np.zeros_like(rows), np.zeros(len(names))
    else:
        place = list(losses).index(best)
        pull, evidence = PULLS[place], out_of_fold[place]
        [(weights, lift)] = probes(vectors, relevant, given, (pull,))
    total = rows + weights
    scale = np.linalg.norm(total, axis=1)
    total[scale == 0.0, 0] = 1.0  # a label that nothing speaks for: any direction will do, its scale is 0
    made = Classifier(
        names,
        total,
        scale=scale,
        bias=bias + lift,
        activation="sigmoid",
        space=None if examples.recipe is None else examples.recipe.space,
    )
    fitted = with_thresholds(made, examples, relevant, evidence, rivals, pull, losses, least, seed)
    return fitted.with_provenance(
        model=examples.model,
        made=fitted.report.to_dict() | {"method": "several", "seed": seed},
        examples=(digest for digest in examples.digests or () if digest is not None),
    )


def probes(
    vectors: Reals, relevant: NDArray[np.bool_], given: Reals, pulls: Sequence[float]
) -> list[tuple[Reals, Reals]]:
    """A logistic regression per label, all at once, each from logits that are given.

    Minimises, of each label k,  sum_i cross_entropy(sigmoid(given[i, k] + w[k] x[i] + b[k]), relevant[i, k])
    + pull * |w[k]|^2 / 2; the intercept costs next to nothing, so that a label that no image shows has one.

    Args:
        vectors: float64[n, d], unit rows.
        relevant: bool[n, k].
        given: float64[n, k].
        pulls: how strongly the weights are held to zero, each more than 0.

    Returns:
        Per pull, in the order given: float64[k, d] weights and float64[k] intercepts.
    """
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    left, spread, directions = np.linalg.svd(centred, full_matrices=False)
    kept = spread > 1e-6 * max(float(spread.max(initial=0.0)), 1e-300)
    inside, spread, directions = (left * spread)[:, kept], spread[kept], directions[kept]
    truth, labels = relevant.astype(np.float64), relevant.shape[1]
    free = 1e-2  # the pull of the intercept
    level = 1 / np.sqrt(0.25 * len(vectors) + free)
    weights, lift = np.zeros((labels, len(spread))), np.zeros(labels)
    answers = {}
    for pull in sorted(set(pulls), reverse=True):
        step = 1 / np.sqrt(0.25 * spread**2 + pull)

        def objective(flat: Reals, pull: float = pull, step: Reals = step) -> tuple[float, Reals]:
            variables = flat.reshape(labels, -1)
            own, at = variables[:, :-1] * step, level * variables[:, -1]
            logits = given + inside @ own.T + at
            error = 1 / (1 + np.exp(-np.clip(logits, -500, 500))) - truth
            loss = float((np.logaddexp(0.0, logits) - truth * logits).sum())
            gradient = np.empty_like(variables)
            gradient[:, :-1] = (error.T @ inside + pull * own) * step
            gradient[:, -1] = level * (error.sum(axis=0) + free * at)
            return loss + 0.5 * pull * float((own**2).sum()) + 0.5 * free * float(
                (at**2).sum()
            ), gradient.ravel()

        begin = np.column_stack([weights / step, lift / level])
        found = minimise(objective, begin.ravel(), tolerance=_TOLERANCE).reshape(labels, -1)
        weights, lift = found[:, :-1] * step, found[:, -1] * level
        full = weights @ directions
        answers[pull] = (full, lift - full @ mean)
    return [answers[pull] for pull in pulls]


def _start(
    names: Sequence[str], zero: Classifier | None, dimension: int
) -> tuple[Reals, Reals, Floats | None]:
    """Rows times their scale and the bias before any example, and what the labels stand against.

    A label without a prompt stands in the middle of the others; without any prompt, all start from nothing.
    """
    rows, bias = np.zeros((len(names), dimension)), np.zeros(len(names))
    if zero is None:
        return rows, bias, None
    scaled = zero.matrix.astype(np.float64) * zero.scale[:, None]
    place = {label: k for k, label in enumerate(zero.labels)}
    for k, name in enumerate(names):
        rows[k] = scaled[place[name]] if name in place else scaled.mean(axis=0)
        bias[k] = zero.bias[place[name]] if name in place else zero.bias.mean()
    several = zero.several
    if several is None or several.rivals is None:
        return rows, bias, None
    words = several.rivals[len(zero.labels) :]
    return rows, bias, np.concatenate([rows.astype(np.float32), words])


def _loss(evidence: Reals, relevant: NDArray[np.bool_], seen: NDArray[np.bool_]) -> float:
    """Log loss in nats, the mean over the labels that have images."""
    each = np.logaddexp(0.0, evidence) - relevant * evidence
    return float(each[:, seen].mean())
