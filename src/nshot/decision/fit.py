"""Labelled vectors -> a decision, and the figures that say what it is worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.decision.background import apart
from nshot.decision.calibration import Calibration, fit_calibration
from nshot.decision.compared import Compared
from nshot.decision.conformal import Kind, fit_conformal, least_images
from nshot.decision.decision import Decision, fit_surest
from nshot.decision.folds import fold_numbers
from nshot.decision.rejection import RULES, Rejection, Rule, threshold_for
from nshot.decision.softmax import Reals, activate
from nshot.errors import RequestError
from nshot.metrics import auroc, brier, fpr_at_tpr, nll, reliability, risk_coverage, share
from nshot.types import Activation, Floats

_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
_TELLING = 0.03  # by how much another rule's AUROC must be better to be worth a word


@dataclass(frozen=True, slots=True)
class Scoring:
    """How far scores are from probabilities.

    Attributes:
        nll: mean negative log-likelihood of the right label, in nats.
        ece: expected calibration error over 15 bins of equal mass, in [0, 1].
        brier: Brier score, in [0, 2].
    """

    nll: float
    ece: float
    brier: float


@dataclass(frozen=True, slots=True)
class RuleFigures:
    """How well a rule tells images of the labels from others: AUROC, and FPR at 95 % TPR."""

    rule: Rule
    auroc: float
    fpr95: float


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What a decision was fitted on, and what it is worth on images held out.

    Attributes:
        images: labelled images of the classifier's labels.
        none_images: images that show none of them; 0 where each label was left out in turn instead.
        accuracy: share of right best labels.
        temperature, bias: the calibration on all images; None where the scores stay as they are.
        before, after: scores as they are, and calibrated by cross-validation, whether that is used or not.
        rules: every rejection rule's figures.
        rule, threshold: the rule that was taken.
        kept: share of images of the labels that it lets answer.
        accepted: share of the others that it lets answer, by cross-validation.
        area: area under risk against coverage.
        risks: (share answered, share of wrong answers), the surest first.
        coverage, covered, set_size, empty: sets at that coverage: how often they hold the right label, mean
            number of labels and share of empty sets, by cross-validation.
        notes: what a person should know.
    """

    images: int
    none_images: int
    accuracy: float
    temperature: float | None
    bias: float | None
    before: Scoring
    after: Scoring | None
    rules: tuple[RuleFigures, ...]
    rule: Rule | None
    threshold: float | None
    kept: float | None
    accepted: float | None
    area: float
    risks: tuple[tuple[float, float], ...]
    coverage: float
    covered: float
    set_size: float
    empty: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def fit_decision(
    images: Compared,
    targets: ArrayLike,
    matrix: ArrayLike,
    *,
    activation: Activation = "softmax",
    none: Compared | None = None,
    background: ArrayLike | None = None,
    reject: Rule | None = "background",
    wrong: float = 0.05,
    coverage: float | None = None,
    surest: float | None = None,
    kind: Kind = "least",
    randomized: bool = True,
    folds: int = 5,
    seed: int = 0,
) -> tuple[Decision, CalibrationReport]:
    """A decision for a classifier, from labelled images that it has not learnt from.

    Args:
        images: n images compared with the classifier's labels: ``Classifier.compare``, or ``compare``.
        targets: int[n], each image's label as its row of the matrix.
        matrix: float[labels, d], the classifier's: it tells which background labels are too near a label.
        activation: how the classifier turns logits into scores.
        none: m images that show none of the labels. Without them each label is left out in turn, and its
            images are then such images.
        background: float[b, d], unit vectors of background labels (of a cascade, as
            ``nshot.classifier.cascade.joint_rows`` makes them); without them there is no background rule.
        reject: the rule of "none of these"; None for no rule.
        wrong: the wanted rate of wrong acceptances.
        coverage: answer with sets of this coverage from now on; None keeps them ready for later.
        surest: answer only this share of the images.
        kind: the smallest sets, or sets that are larger for harder images; see ``Conformal``.
        randomized: sets of exact coverage, which may be empty; see ``Conformal``.
        folds: parts of the cross-validation.
        seed: draws the parts and the sets.

    Raises:
        RequestError: too few images for what is asked, or a rule that these vectors cannot serve.
    """
    x, y = images.vectors, np.asarray(targets, np.int64)
    _check(len(x), len(y))
    logits, labels = images.logits, images.cosines.shape[1]
    if y.min() < 0 or y.max() >= labels:
        raise RequestError(f"targets must be in [0, {labels})")
    if reject == "background" and background is None:
        raise RequestError("the background rule needs vectors of background labels")
    correct = logits.argmax(axis=1) == y
    parts = list(_folds(y, folds, seed))
    notes: list[str] = []

    raw = activate(logits, activation)
    calibration, chance, after = None, raw, None
    if activation == "sigmoid" or labels > 1:
        calibration = fit_calibration(logits, y, activation)
        chance = np.empty_like(raw)
        for rest, part in parts:
            fitted = fit_calibration(logits[rest], y[rest], activation)
            chance[part] = activate(fitted.apply(logits[part]), activation)
        after = _scoring(chance, y, correct)
        if why := _no_better(raw, chance, y, activation, before=_scoring(raw, y, correct), after=after):
            notes.append(f"the scores are kept as they are: {why}")
            calibration, chance = None, raw
    else:
        notes.append("with a single label every score is 1: there is nothing to calibrate")

    rules = _rules(images, np.asarray(matrix), y, none, background)
    rejection, kept, accepted = None, None, None
    if reject is not None and rules:
        by_name = {rule.rejection.rule: rule for rule in rules}
        if reject not in by_name:
            raise RequestError(f"the {reject} rule needs more labels than this classifier has")
        chosen = by_name[reject]
        threshold = threshold_for(chosen.known, chosen.unknown, wrong=wrong)
        rejection = Rejection(reject, threshold, chosen.rejection.background)
        kept = share(chosen.known >= threshold)
        accepted = _accepted(chosen, wrong, folds, seed)
        best = max(rules, key=lambda rule: rule.figures.auroc)
        if best.figures.auroc > chosen.figures.auroc + _TELLING:
            notes.append(
                f"the {best.figures.rule} rule tells these images apart better (AUROC "
                f"{best.figures.auroc:.3f} against {chosen.figures.auroc:.3f}): "
                f"consider --reject {best.figures.rule}"
            )
    elif reject is not None:
        notes.append('"none of these" needs images that show none of the labels, or more than one label')

    confidence = chance.max(axis=1)
    curve = risk_coverage(confidence, correct)
    final = raw if calibration is None else activate(calibration.apply(logits), activation)
    answered = None if surest is None else fit_surest(final.max(axis=1), correct, surest)
    sets = fit_conformal(_shares(final), x, y, kind=kind, randomized=randomized, seed=seed)
    wanted = 0.9 if coverage is None else coverage
    if len(x) < least_images(wanted):
        notes.append(
            f"sets that cover {wanted:g} need at least {least_images(wanted)} images: "
            f"with {len(x)} they hold every label"
        )
    held = list(_sets(images, y, activation, parts, wanted, calibration, kind, randomized, seed))
    decision = Decision(calibration, rejection, answered, sets, coverage)
    return decision, CalibrationReport(
        images=len(x),
        none_images=0 if none is None else len(none.vectors),
        accuracy=share(correct),
        temperature=None if calibration is None else calibration.temperature,
        bias=None if calibration is None else calibration.bias,
        before=_scoring(raw, y, correct),
        after=after,
        rules=tuple(rule.figures for rule in rules),
        rule=None if rejection is None else rejection.rule,
        threshold=None if rejection is None else rejection.threshold,
        kept=kept,
        accepted=accepted,
        area=curve.area,
        risks=tuple((c, curve.at(c)[0]) for c in _COVERAGES),
        coverage=wanted,
        covered=share([own in labels for own, labels in held]),
        set_size=share([len(labels) for _, labels in held]),
        empty=share([not labels for _, labels in held]),
        notes=tuple(notes),
    )


def _check(images: int, targets: int) -> None:
    if images != targets or images < 2:
        raise RequestError(f"calibration needs at least two labelled images; there are {images}")


def _scoring(chance: Reals, y: NDArray[np.int64], correct: NDArray[np.bool_]) -> Scoring:
    return Scoring(nll(chance, y), reliability(chance.max(axis=1), correct).error, brier(chance, y))


def _shares(chance: Reals) -> Reals:
    """Rows that sum to 1, which sigmoid's do not."""
    total: Reals = chance / chance.sum(axis=1, keepdims=True)
    return total


def _no_better(
    raw: Reals,
    calibrated: Reals,
    y: NDArray[np.int64],
    activation: Activation,
    *,
    before: Scoring,
    after: Scoring,
) -> str | None:
    """Why the scores of held-out images are not surely better for the calibration; None where they are.

    Wrong labels among the images, and few images, make a temperature that is worse than none.
    """
    gain = _losses(raw, y, activation) - _losses(calibrated, y, activation)
    if gain.mean() <= gain.std() / np.sqrt(len(gain)):
        return "calibrated, their log-likelihood on held-out images is not better by more than its error"
    if after.brier > before.brier:
        return "calibrated, their Brier score on held-out images is worse"
    if after.ece > before.ece:
        return "calibrated, their calibration error on held-out images is larger"
    return None


def _losses(chance: Reals, y: NDArray[np.int64], activation: Activation) -> Reals:
    """Each image's negative log-likelihood in nats; under sigmoid, of all its labels."""
    tiny = np.finfo(np.float64).tiny
    own = np.take_along_axis(chance, y[:, None], axis=1)[:, 0]
    loss = -np.log(np.maximum(own, tiny))
    if activation == "sigmoid":
        others = -np.log(np.maximum(1 - chance, tiny))
        loss += others.sum(axis=1) - np.take_along_axis(others, y[:, None], axis=1)[:, 0]
    return np.asarray(loss)


def _folds(labels: ArrayLike, folds: int, seed: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(the rest, the part) for each part, every label spread as evenly as can be."""
    of = np.asarray(labels)
    numbers = fold_numbers(of, min(folds, len(of)), np.random.default_rng(seed))
    for fold in range(min(folds, len(of))):
        yield np.flatnonzero(numbers != fold), np.flatnonzero(numbers == fold)


@dataclass(frozen=True, slots=True, eq=False)
class _RuleEvidence:
    rejection: Rejection  # its threshold is not yet chosen
    known: Reals
    unknown: Reals

    @property
    def figures(self) -> RuleFigures:
        return RuleFigures(
            self.rejection.rule, auroc(self.known, self.unknown), fpr_at_tpr(self.known, self.unknown)
        )


def _rules(
    images: Compared,
    matrix: NDArray[Any],
    y: NDArray[np.int64],
    none: Compared | None,
    background: ArrayLike | None,
) -> list[_RuleEvidence]:
    """Every rule that can be asked, with its evidence for images of the labels and for others."""
    found = []
    labels = len(matrix)
    for rule in RULES:
        if (rule == "background" and background is None) or (rule == "margin" and labels == 1):
            continue
        whole = _rejection(rule, matrix, background)
        known = whole.evidence(images)
        if none is not None:
            unknown = whole.evidence(none)
        elif labels > (2 if rule == "margin" else 1):
            unknown = np.empty(len(y))
            for label in np.unique(y):
                rest = _rejection(rule, np.delete(matrix, label, axis=0), background)
                own = y == label
                unknown[own] = rest.evidence(images.rows(own).without(int(label)))
        else:
            continue
        found.append(_RuleEvidence(whole, known, unknown))
    return found


def _rejection(rule: Rule, matrix: ArrayLike, background: ArrayLike | None) -> Rejection:
    rows: Floats | None = None
    if rule == "background" and background is not None:
        rows = np.asarray(background, np.float32)[apart(background, matrix)]
    return Rejection(rule, 0.0, rows)


def _accepted(rule: _RuleEvidence, wrong: float, folds: int, seed: int) -> float:
    """Share of the unknown that is accepted by thresholds learnt without it."""
    hits = np.empty(len(rule.unknown), dtype=bool)
    for rest, part in _folds(np.zeros(len(rule.unknown)), folds, seed):
        try:
            threshold = threshold_for(rule.known, rule.unknown[rest], wrong=wrong)
        except RequestError:  # the rate can be told with all of them, but not with a part
            return float("nan")
        hits[part] = rule.unknown[part] >= threshold
    return share(hits)


def _sets(
    images: Compared,
    y: NDArray[np.int64],
    activation: Activation,
    parts: list[tuple[NDArray[np.intp], NDArray[np.intp]]],
    coverage: float,
    calibration: Calibration | None,
    kind: Kind,
    randomized: bool,
    seed: int,
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each image's own label, and its set by what was learnt from the other parts."""
    x, logits = images.vectors, images.logits
    for rest, part in parts:
        inner = Calibration(1.0)
        if calibration is not None:
            inner = fit_calibration(logits[rest], y[rest], activation)
        chance = _shares(activate(inner.apply(logits), activation))
        fitted = fit_conformal(chance[rest], x[rest], y[rest], kind=kind, randomized=randomized, seed=seed)
        yield from zip(y[part].tolist(), fitted.sets(chance[part], x[part], coverage), strict=True)
