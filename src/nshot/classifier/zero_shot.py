"""Prompts -> a Classifier: the zero-shot rung of the ladder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from nshot.classifier.classifier import Classifier
from nshot.errors import LabelError
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels, write_prompts
from nshot.types import Activation, Floats
from nshot.unit import normalize

_ROWS = 512  # labels compared with all others at once


class TextEmbedder(Protocol):
    """What zero-shot needs of a model; ``nshot.Embedder`` is one."""

    @property
    def name(self) -> str:
        """The model as it was asked for."""

    @property
    def space(self) -> str:
        """What the vectors belong to."""

    @property
    def logit_scale(self) -> float:
        """What the checkpoint multiplies a cosine with."""

    @property
    def logit_bias(self) -> float:
        """What the checkpoint adds then."""

    @property
    def activation(self) -> Activation:
        """How its logits become scores."""

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Texts -> float32[n, d], unit norm."""


def zero_shot(
    embedder: TextEmbedder, labels: Labels, templates: Sequence[str] = (DEFAULT_TEMPLATE,)
) -> Classifier:
    """A classifier from labels in plain words (Radford et al. 2021, section 3.1).

    A label's row is the mean of its prompts' unit vectors, normalised again.

    Args:
        embedder: a loaded model.
        labels: names, or ``{label: [synonyms or whole prompts]}``.
        templates: each with ``{}`` where the label goes; several are averaged.

    Raises:
        LabelError: a label that is empty, given twice, or too long for the model, by name.
        TemplateError: a template without a place for the label.
    """
    prompted = write_prompts(labels, templates)
    texts = [prompt for label in prompted for prompt in label.prompts]
    try:
        vectors = embedder.embed_texts(texts)
    except LabelError as error:
        label = next((p.label for p in prompted if any(repr(text) in str(error) for text in p.prompts)), None)
        raise LabelError(f"label {label!r}: {error}" if label else str(error)) from error
    ends = np.cumsum([len(label.prompts) for label in prompted])
    rows = [part.mean(axis=0) for part in np.split(vectors, ends[:-1])]
    return Classifier(
        labels=[label.label for label in prompted],
        matrix=normalize(rows, names=[label.label for label in prompted]),
        scale=embedder.logit_scale,
        bias=embedder.logit_bias,
        activation=embedder.activation,
        space=embedder.space,
        model=embedder.name,
        made={"templates": list(templates)},
    )


def near_synonyms(
    classifier: Classifier, threshold: float | None = None, most: int = 5
) -> tuple[list[tuple[str, str, float]], int]:
    """Pairs of labels whose rows nearly coincide: the model can hardly tell them apart.

    Args:
        classifier: a zero-shot classifier.
        threshold: the cosine from which a pair counts, in [-1, 1]; None: 0.95 for models under softmax
            (ViT-B/32 puts "girl" and "woman" at 0.96, "cat" and "dog" at 0.94), and 0.99, next to equal, for
            those under sigmoid, of which no such figures are known.
        most: how many pairs to name.

    Returns:
        The closest pairs with their cosines, closest first, and how many pairs there are in all.
    """
    if threshold is None:
        threshold = 0.95 if classifier.activation == "softmax" else 0.99
    labels, matrix = classifier.labels, classifier.matrix
    pairs: list[tuple[str, str, float]] = []
    count = 0
    for start in range(0, len(labels), _ROWS):
        cosines = np.triu(matrix[start : start + _ROWS] @ matrix.T, k=start + 1)
        first, second = np.nonzero(cosines >= threshold)
        count += len(first)
        closest = np.argsort(-cosines[first, second], kind="stable")[:most]
        pairs += [
            (labels[start + i], labels[j], float(cosines[i, j]))
            for i, j in zip(first[closest], second[closest], strict=True)
        ]
    return sorted(pairs, key=lambda pair: -pair[2])[:most], count
