"""Labels added to a classifier that was made without them."""

from __future__ import annotations

import numpy as np

from nshot.classifier.classifier import Classifier
from nshot.errors import LabelError, RequestError


def with_labels(classifier: Classifier, prompts: Classifier) -> Classifier:
    """The classifier with further labels, which answer from their prompts.

    A fitted classifier that kept its prompts (a pulled probe, zero-shot) has logits that compare with a
    prompt's: what its rows gained sums to zero. One that gave them up (a plain probe, a strong Gaussian)
    has not: fit again, with the new labels among ``prompts``, and only what keeps the prompts is tried.

    Args:
        classifier: as it was fitted or loaded. Its decision, if any, is not carried over: it was learnt on
            fewer labels.
        prompts: a zero-shot classifier of the new labels, of the same model.

    Raises:
        LabelError: a label that the classifier has already.
        RequestError: vectors of two models.
    """
    if known := sorted(set(classifier.labels) & set(prompts.labels)):
        raise LabelError(f"the classifier has these labels already: {', '.join(map(repr, known))}")
    if classifier.dimension != prompts.dimension or (
        None not in (classifier.space, prompts.space) and classifier.space != prompts.space
    ):
        raise RequestError("the classifier and the new labels' prompts are of two models")
    return Classifier(
        [*classifier.labels, *prompts.labels],
        np.vstack([classifier.matrix, prompts.matrix]),
        scale=np.concatenate([classifier.scale, prompts.scale]),
        bias=np.concatenate([classifier.bias, prompts.bias]),
        activation=classifier.activation,
        space=classifier.space or prompts.space,
    )
