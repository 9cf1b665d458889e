"""How good a classifier is on labelled images: vectors and targets in, figures out. No image is encoded.

A labelled set is embedded once; ``evaluate`` then asks any classifier, and compares it with chance, with the
majority, and with other ways to write the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nshot import metrics
from nshot.classifier.classifier import Classifier
from nshot.classifier.zero_shot import TextEmbedder, zero_shot
from nshot.decision.folds import fold_numbers
from nshot.decision.several import held_out
from nshot.embeddings import Embeddings
from nshot.evaluation.asked import Truth, ask
from nshot.evaluation.label_errors import Suspect
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels
from nshot.metrics import Bools, Counts, Interval, Reals

BARE = "{}"
CANDIDATES = (
    DEFAULT_TEMPLATE,
    "a photo of the {}",
    "a photo of one {}",
    "a photo of many {}",
    "a close-up photo of a {}",
    "a {} seen from a distance",
    "a blurry photo of a {}",
    "a bright photo of a {}",
    "a picture of a {} on the web",
)
"""Templates that are measured where none are given: the ways in which photographs commonly differ."""

_CHUNK = 4096  # images scored at once


def prompt_ways(
    embedder: TextEmbedder, labels: Labels, templates: Sequence[str] = ()
) -> dict[str, Classifier]:
    """The ways to write labels into prompts that are worth comparing, by name; the default comes first.

    Args:
        embedder: a loaded model.
        labels: as for ``zero_shot``.
        templates: the person's own; ``CANDIDATES`` where there are none.

    Returns:
        The default template, the bare name, each template, and the ensemble of the templates.
    """
    singles = dict.fromkeys((DEFAULT_TEMPLATE, BARE, *(templates or CANDIDATES)))
    ways = {template: zero_shot(embedder, labels, [template]) for template in singles}
    together = tuple(dict.fromkeys(templates or CANDIDATES))
    if len(together) > 1:
        ways[f"all {len(together)} templates together"] = zero_shot(embedder, labels, together)
    return ways


@dataclass(frozen=True, slots=True)
class Rival:
    """Another way to answer the same images.

    Attributes:
        name: what it is.
        value: its top-1, in [0, 1].
        interval: 95 %, Wilson's; None for what is known without images.
        gain: top-1 minus the reference's, over the same images; None without an interval.
        gain_interval: 95 %, of the paired difference (Agresti & Min).
    """

    name: str
    value: float
    interval: Interval | None = None
    gain: float | None = None
    gain_interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain's share of right answers, with Wilson's interval at 95 %."""

    name: str
    images: int
    value: float
    interval: Interval


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything that is known about n images and c labels.

    Attributes:
        images: what was asked.
        classifier: what was asked of.
        truth: each image's own labels.
        answers: int64[n], the best label.
        confidence: float64[n], the best label's score; a probability where the classifier is calibrated.
        own: int64[n], the image's own label (the best-scored one of several); -1 where it has none.
        own_scores: float64[n], its score; nan where there is none.
        place: int64[n], place of the own label, 0 is the best; -1 where there is none.
        figures: name -> value, the headline.
        interval: of top-1, 95 %, Wilson's.
        per_class: precision, recall, F1, of each label by itself in a multi-label set.
        confusion: int64[c, c]; None for a multi-label set.
        average_precisions: float64[c]; None for a single-label set.
        shown: bool[n, c], the labels answered of a multi-label set: by the classifier's thresholds, else by
            thresholds learnt on the other parts of a cross-validation; None for a single-label set.
        reliability: what the score promises, and what it keeps.
        risk: answering only the surest.
        rivals: chance, majority and every other way, the reference (the default template) among them.
        chosen: the way that cross-validation would choose, with the figure that it may expect.
        domains: one row each, if the data has them.
        suspects: labels in doubt, most doubtful first.
    """

    images: Embeddings
    classifier: Classifier
    truth: Truth
    answers: Counts
    confidence: Reals
    own: Counts
    own_scores: Reals
    place: Counts
    figures: dict[str, float]
    interval: Interval
    per_class: metrics.PerClass
    confusion: Counts | None
    average_precisions: Reals | None
    shown: Bools | None
    reliability: metrics.Reliability
    risk: metrics.RiskCoverage
    rivals: tuple[Rival, ...]
    chosen: Rival | None
    domains: tuple[Domain, ...]
    suspects: tuple[Suspect, ...]

    def labels_of(self, row: int) -> tuple[str, ...]:
        """One image's own labels."""
        return () if self.images.labels is None else self.images.labels[row]

    @property
    def relevant(self) -> Bools:
        """bool[n, c], each image's own labels: made anew each time."""
        return self.truth.dense()

    @property
    def scores(self) -> Reals:
        """float64[n, c], the scores of all labels: asked anew each time, since they may take much room."""
        vectors = self.images.vectors
        starts = range(0, len(vectors), _CHUNK)
        return np.concatenate([self.classifier.scores(vectors[start : start + _CHUNK]) for start in starts])

    @property
    def learnt(self) -> bool:
        """Whether ``shown`` goes by thresholds of the classifier's own."""
        several = self.classifier.several
        return several is not None and several.learnt

    def together(self) -> tuple[Counts, Counts]:
        """How many images show both of two labels, and of how many both are answered: int64[c, c] each."""
        truth = self.relevant.astype(np.int64)
        said = truth * 0 if self.shown is None else self.shown.astype(np.int64)
        return truth.T @ truth, said.T @ said

    @property
    def right(self) -> Bools:
        """bool[n]: the best label is one of the image's own."""
        right: Bools = self.place == 0
        return right

    def mistakes(self, count: int) -> list[int]:
        """The most confident wrong answers, most confident first: rows."""
        wrong = np.flatnonzero(self.place > 0)
        return [int(row) for row in wrong[np.argsort(-self.confidence[wrong], kind="stable")[:count]]]

    def unsure(self, count: int) -> list[int]:
        """The least confident right answers, least confident first: rows."""
        right = np.flatnonzero(self.place == 0)
        return [int(row) for row in right[np.argsort(self.confidence[right], kind="stable")[:count]]]


def evaluate(
    classifier: Classifier,
    images: Embeddings,
    prompts: Mapping[str, Classifier] | None = None,
    *,
    reference: str | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Evaluation:
    """All figures of a classifier on labelled images.

    Args:
        classifier: the one that is evaluated; its labels hold all of the images'.
        images: embeddings with labels, such as ``clip.embed(nshot.open_labelled("photos-by-class/"))``.
        prompts: other classifiers with the same labels, by name: they are measured, and cross-validation says
            what choosing the best of them is worth. The choice never touches the figure that is reported.
        reference: the one of ``prompts`` that gains are counted from; the first if None.
        folds: parts of the cross-validation.
        seed: of resampling and folds.

    Raises:
        LabelError: an image's label that the classifier does not have.
        RequestError: images without labels, none at all, or of another model.
    """
    classifier.check_space(images.recipe, images.model)
    truth = Truth.of(images, classifier.labels)
    several = classifier.several
    multi = images.multi or several is not None
    asked = ask(classifier, images, truth, prompts or {}, several=multi, seed=seed)
    right = asked.place[asked.known] == 0

    figures = {"top_1": metrics.share(right), "top_5": metrics.share(asked.place[asked.known] < 5)}
    confusion = precisions = shown = None
    if multi:
        assert asked.scores is not None
        assert asked.logits is not None
        relevant = truth.dense()
        precisions = metrics.average_precisions(asked.scores, relevant)
        figures["mean_average_precision"] = metrics.share(precisions[~np.isnan(precisions)])
        shown = (
            several.shown(asked.logits)
            if several and several.learnt
            else held_out(asked.logits, relevant, seed=seed)
        )
        per_class = metrics.per_label(shown, relevant)
        figures["mean_f1"] = metrics.share(per_class.f1[per_class.support > 0])
    else:
        confusion = metrics.confusion(asked.answers, asked.own, len(classifier.labels))
        per_class = metrics.per_class(confusion)
        figures["mean_per_class_recall"] = per_class.mean_recall
        if classifier.activation == "softmax":
            figures["negative_log_likelihood"] = metrics.share(asked.surprise)
            figures["brier"] = metrics.share(asked.squares)
    reliability = metrics.reliability(asked.confidence[asked.known], right)
    risk = metrics.risk_coverage(asked.confidence[asked.known], right)
    figures |= {"expected_calibration_error": reliability.error, "area_under_risk_coverage": risk.area}
    figures |= asked.decided

    rivals = _without_looking(truth)
    chosen: Rival | None = None
    columns, names, start = [right], ["the answers"], 0
    if prompts:
        columns += list(asked.hits.T)
        names += prompts
        start = 1 if reference is None else names.index(reference)
        picked, expected = _cross_validated(asked.hits, asked.own[asked.known], folds, seed)
        columns.append(expected)
        names.append(names[1 + picked])
    # All in one, so that the same resamples serve every column.
    measured = _rivals(names, np.stack(columns, axis=1), start)
    if prompts:
        chosen = measured[-1]
        rivals += measured[1:-1]
    interval = measured[0].interval
    assert interval is not None
    return Evaluation(
        images=images,
        classifier=classifier,
        truth=truth,
        answers=asked.answers,
        confidence=asked.confidence,
        own=asked.own,
        own_scores=asked.own_scores,
        place=asked.place,
        figures=figures,
        interval=interval,
        per_class=per_class,
        confusion=confusion,
        average_precisions=precisions,
        shown=shown,
        reliability=reliability,
        risk=risk,
        rivals=rivals,
        chosen=chosen,
        domains=_domains(images, asked.place),
        suspects=tuple(asked.suspects),
    )


def compare(names: Sequence[str], evaluations: Sequence[Evaluation], *, seed: int = 0) -> tuple[Rival, ...]:
    """Several models on the images that all of them answered; gains are counted from the first.

    One model alone has nothing to be compared with: an empty answer.
    """
    if len(evaluations) < 2:
        return ()
    shared = set(evaluations[0].images.positions[evaluations[0].place >= 0].tolist())
    for evaluation in evaluations[1:]:
        shared &= set(evaluation.images.positions[evaluation.place >= 0].tolist())
    hits = [e.right[[p in shared for p in e.images.positions.tolist()]] for e in evaluations]
    return _rivals(names, np.stack(hits, axis=1), 0)


def _without_looking(truth: Truth) -> tuple[Rival, ...]:
    """What answering at random, and always answering the most frequent label, would give."""
    sizes = truth.sizes
    known = sizes[sizes > 0]
    count = np.bincount(truth.numbers, minlength=truth.labels)
    return (
        Rival("chance", metrics.share(known / truth.labels)),
        Rival("majority class", float(count.max(initial=0) / max(len(known), 1))),
    )


def _rivals(names: Sequence[str], hits: Bools, start: int) -> tuple[Rival, ...]:
    """Each column's share of hits, and what it is above the column ``start``."""
    return tuple(
        Rival(
            name,
            metrics.share(mine),
            Interval(*metrics.wilson(mine.sum(), len(mine)).tolist()),
            metrics.share(mine.astype(np.float64) - hits[:, start]),
            Interval(0.0, 0.0) if k == start else metrics.paired_gain(mine, hits[:, start]),
        )
        for k, (name, mine) in enumerate(zip(names, hits.T, strict=True))
    )


def _cross_validated(hits: Bools, own: Counts, folds: int, seed: int) -> tuple[int, Bools]:
    """The column that is best on all images, and each image's hit by the one best on the other folds.

    The best of many columns looks better on the images it was chosen by than it is; on a fold that had no
    part in the choice it does not. Folds are stratified by label.
    """
    n = len(hits)
    fold = fold_numbers(own, folds, np.random.default_rng(seed))
    expected = np.zeros(n, dtype=bool)
    for k in range(folds):
        others = hits[fold != k]
        best = int(others.mean(axis=0).argmax()) if len(others) else 0
        expected[fold == k] = hits[fold == k, best]
    return int(hits.mean(axis=0).argmax()) if n else 0, expected


def _domains(images: Embeddings, place: Counts) -> tuple[Domain, ...]:
    if images.domains is None:
        return ()
    names = sorted({domain for domain in images.domains if domain is not None})
    rows = []
    for name in names:
        inside = np.fromiter((domain == name for domain in images.domains), bool, len(place)) & (place >= 0)
        won, n = int((place[inside] == 0).sum()), int(inside.sum())
        rows.append(
            Domain(name, n, won / n if n else float("nan"), Interval(*metrics.wilson(won, n).tolist()))
        )
    return tuple(rows)
