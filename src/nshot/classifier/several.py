"""Several labels per image: classifiers that answer with any number, and what labelled images teach them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.cascade import check_one
from nshot.classifier.classifier import Classifier
from nshot.classifier.zero_shot import TextEmbedder, zero_shot
from nshot.decision.background import EVERYDAY, unlike
from nshot.decision.decision import Decision
from nshot.decision.several import LEAST, UNLEARNT, Several, fit_thresholds, held_out
from nshot.decision.softmax import Reals, activate
from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels
from nshot.metrics import PerClass, average_precisions, per_label, share
from nshot.types import Floats


def several_labels(
    classifier: Classifier, background: Classifier | None, *, threshold: float | None = None
) -> Classifier:
    """The classifier asked which of its labels an image shows: any number, each decided by itself.

    Args:
        classifier: a zero-shot one, or one that has learnt thresholds already, which stay.
        background: what else images may show, such as ``zero_shot(clip, EVERYDAY)``: each label stands
            against it and the other labels. Words that mean a label themselves are left out. None: what the
            classifier has learnt against, or nothing, as is right for sigmoid models.
        threshold: the score, in (0, 1), from which a label is shown, in place of what was learnt.

    Raises:
        RequestError: the classifier was calibrated for one label per image, or no such threshold.
    """
    check_one(classifier, "several labels per image are asked of")
    several = classifier.several
    if classifier.decision is not None and several is None:
        raise RequestError(
            "this classifier was calibrated for one label per image: fit or calibrate one for several labels"
        )
    if several is None or threshold is not None:
        rivals = None if several is None else several.rivals
        if background is not None:
            words = unlike(background.matrix, classifier.matrix)
            rivals = np.concatenate(
                [classifier.matrix * classifier.scale[:, None], words * background.scale[0]]
            )
        several = Several.unlearnt(
            len(classifier.labels), rivals, UNLEARNT if threshold is None else threshold
        )
    return classifier.with_decision(Decision(several=several))


def several_zero_shot(
    embedder: TextEmbedder,
    labels: Labels,
    templates: Sequence[str] = (DEFAULT_TEMPLATE,),
    *,
    background: Labels = EVERYDAY,
) -> Classifier:
    """A classifier that answers with any number of labels; see ``zero_shot`` and ``several_labels``.

    Args:
        embedder: a loaded model.
        labels: names, or ``{label: [synonyms or whole prompts]}``.
        templates: each with ``{}`` where the label goes.
        background: what else images may show; not looked at by sigmoid models, whose labels stand alone.

    Raises:
        LabelError: a label that is empty, given twice, or too long for the model, by name.
        TemplateError: a template without a place for the label.
    """
    asked = zero_shot(embedder, labels, templates)
    if asked.activation == "sigmoid":
        return several_labels(asked, None)
    return several_labels(asked, zero_shot(embedder, background, templates))


@dataclass(frozen=True, slots=True, eq=False)
class SeveralReport:
    """How a classifier of several labels came about; every figure is of images held out.

    Attributes:
        labels: the answers.
        pull: the chosen strength; None: what was known without examples stayed as it is.
        losses: of each candidate, by its name, the mean over labels of the log loss, in nats.
        per_label: precision, recall and F1 of each label's answers, with intervals.
        average_precisions: float64[k], nan for a label without images.
        thresholds: what the classifier answers by.
        evidence: float64[n, k], of each image, held out where the classifier was fitted on it.
        images: how many there were.
    """

    labels: tuple[str, ...]
    pull: float | None
    losses: dict[str, float]
    per_label: PerClass
    average_precisions: Reals
    thresholds: Several
    evidence: Reals
    images: int

    @property
    def mean_average_precision(self) -> float:
        """The mean over the labels that have images, in [0, 1]."""
        known = self.average_precisions[~np.isnan(self.average_precisions)]
        return share(known)

    @property
    def mean_f1(self) -> float:
        """The mean over the labels that have images, in [0, 1]."""
        return share(self.per_label.f1[self.per_label.support > 0])

    @property
    def score_thresholds(self) -> Reals:
        """float64[k], the score from which each label is shown, in (0, 1)."""
        return activate(self.thresholds.thresholds, "sigmoid")

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "pull": self.pull,
            "losses": self.losses,
            "images": self.images,
            "mean_average_precision": self.mean_average_precision,
            "mean_f1": self.mean_f1,
            "labels": {
                label: {
                    "images": int(self.per_label.support[k]),
                    "decided": bool(self.thresholds.decided[k]),
                    "threshold": float(self.score_thresholds[k]),
                    "average_precision": _known(self.average_precisions[k]),
                    "precision": _known(self.per_label.precision[k]),
                    "recall": _known(self.per_label.recall[k]),
                    "f1": _known(self.per_label.f1[k]),
                    "f1_interval": self.per_label.f1_interval[k].tolist(),
                }
                for k, label in enumerate(self.labels)
            },
        }


def _known(value: float) -> float | None:
    """A figure as JSON holds it, which has no word for nan."""
    return None if np.isnan(value) else float(value)


def relevance(examples: Embeddings, labels: Sequence[str]) -> NDArray[np.bool_]:
    """Which of the labels each image shows: bool[n, k].

    Raises:
        RequestError: images without labels, or none at all.
    """
    if examples.labels is None or not len(examples):
        raise RequestError("several labels are learnt from labelled images: embed a labelled set")
    place = {label: k for k, label in enumerate(labels)}
    relevant = np.zeros((len(examples), len(labels)), dtype=bool)
    for row, own in enumerate(examples.labels):
        for label in own:
            if label in place:
                relevant[row, place[label]] = True
    return relevant


def calibrate_several(
    classifier: Classifier, examples: Embeddings, *, least: int = LEAST, seed: int = 0
) -> Classifier:
    """Learn from labelled images from which evidence each label is to be answered.

    Args:
        classifier: the one that is to answer; what its labels stand against, if anything, stays.
        examples: embeddings with any number of labels each, also none, which the classifier has not learnt
            from. Labels that it does not have are left out.
        least: with fewer images than that a label is ranked, not decided.
        seed: of the parts for the held-out figures.

    Returns:
        The classifier with its thresholds; its ``report`` is a ``SeveralReport``.

    Raises:
        RequestError: no image of the classifier's labels, or another model's.
    """
    check_one(classifier, "several labels per image are asked of")
    classifier.check_space(examples.recipe, examples.model)
    relevant = relevance(examples, classifier.labels)
    several = classifier.several or Several.unlearnt(len(classifier.labels))
    evidence = several.evidence(classifier.compare(examples.vectors))
    return with_thresholds(classifier, examples, relevant, evidence, several.rivals, None, {}, least, seed)


def with_thresholds(
    classifier: Classifier,
    examples: Embeddings,
    relevant: NDArray[np.bool_],
    evidence: Reals,
    rivals: Floats | None,
    pull: float | None,
    losses: dict[str, float],
    least: int,
    seed: int,
) -> Classifier:
    """The classifier with thresholds from evidence that was not learnt on these images, and its report."""
    if not relevant.any():
        raise RequestError(f"no image has a label of the classifier's, such as {classifier.labels[0]!r}")
    positives = relevant.sum(axis=0).astype(np.int64)
    several = Several(fit_thresholds(evidence, relevant), positives, least, rivals)
    report = SeveralReport(
        labels=classifier.labels,
        pull=pull,
        losses=losses,
        per_label=per_label(held_out(evidence, relevant, seed=seed), relevant),
        average_precisions=average_precisions(evidence, relevant),
        thresholds=several,
        evidence=evidence,
        images=len(examples),
    )
    return classifier.with_decision(Decision(several=several)).with_provenance(
        model=examples.model, report=report
    )
