"""``nshot classify --resume``: what an earlier run has answered, and whether it was asked the same."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from nshot.types import Embedded, Failure

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.facets import Facets
    from nshot.classifier.tree import TreeClassifier
    from nshot.images.sources import Source


def digest_of(asked: Classifier | Facets | TreeClassifier, top_k: int, recipe: str) -> str:
    """What must agree between a run and its --resume: everything that changes an answer."""
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.tree import TreeClassifier

    if isinstance(asked, TreeClassifier):
        known = asked.placing
        placing = None if known is None else [known.threshold, known.coverage, known.weight]
        inner = None if asked.inner is None else digest_of(asked.inner, top_k, recipe)
        told = [asked.tree.paths, placing, asked.rank, inner, digest_of(asked.classifier, top_k, recipe)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()
    if not isinstance(asked, Classifier):
        each = [(name, digest_of(classifier, top_k, recipe)) for name, classifier in asked.items()]
        return hashlib.sha256(json.dumps(each).encode()).hexdigest()
    decision = None if asked.decision is None else asked.decision.to_dict()
    said = hashlib.sha256(json.dumps([recipe, asked.labels, asked.activation, top_k, decision]).encode())
    for numbers in (asked.matrix, asked.scale, asked.bias):
        said.update(numbers.tobytes())
    return said.hexdigest()


def unanswered(
    images: Iterable[Source | Embedded | Failure], answered: Counter[str]
) -> Iterator[Source | Embedded | Failure]:
    """The images that an earlier run has not answered; a name listed twice is asked twice."""
    left = answered.copy()
    for image in images:
        name = image.source if isinstance(image, (Embedded, Failure)) else image.name
        if left[name] > 0:
            left[name] -= 1
        else:
            yield image
