"""Embedded examples -> a Classifier: what ``nshot.fit`` is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from nshot.classifier.cascade import check_one
from nshot.classifier.classifier import Classifier
from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.few_shot.candidates import Method
from nshot.few_shot.fitting import fit as fit_vectors
from nshot.few_shot.several import fit_several


def fit(
    examples: Embeddings,
    zero: Classifier | None = None,
    *,
    labels: Sequence[str] | None = None,
    method: Method | Literal["auto"] = "auto",
    strength: float | None = None,
    multi: bool = False,
    seed: int = 0,
) -> Classifier:
    """A classifier from a few labelled images, or many.

    Args:
        examples: embeddings with labels: ``clip.embed(nshot.open_labelled("photos-by-class/"))``, or
            ``clip.embed(paths).with_labels(labels)``; of very many a part is taken (see ``enough``).
        zero: a zero-shot classifier of some or all labels, which examples then improve on.
        labels: the answers and their order; by default those of ``zero``, then the examples' others.
        method: one method instead of the best by cross-validation; see docs/few-shot.md.
        strength: of that method.
        multi: an image may show any number of the labels, or none; the report is a ``SeveralReport`` then.
        seed: of the cross-validation.

    Returns:
        The classifier; its ``report`` (``Fitted``) says what was tried, what was chosen and why.

    Raises:
        LabelError: fewer than two labels, or one with neither example nor prompt.
        RequestError: no examples, vectors of another model, an example without exactly one label where
            ``multi`` is False, or a method where it is True.
    """
    if zero is not None:
        check_one(zero, "what is fitted starts from")
        zero.check_space(examples.recipe, examples.model)
    if not len(examples):
        raise RequestError("fitting needs at least one example")
    examples = enough(examples, seed=seed)
    if multi:
        if method != "auto" or strength is not None:
            raise RequestError(
                "with several labels per image there is one method, and its strength is chosen"
            )
        return fit_several(examples, zero, labels=labels, seed=seed)
    fitted = fit_vectors(
        examples.vectors,
        examples.label,
        zero,
        labels=labels,
        method=method,
        strength=strength,
        space=None if examples.recipe is None else examples.recipe.space,
        seed=seed,
    )
    made = fitted.recipe() | {"seed": seed}
    if examples.recipe is not None:
        made["vectors"] = examples.recipe.digest
    return fitted.classifier.with_provenance(
        model=examples.model,
        made=made,
        examples=(digest for digest in examples.digests or () if digest is not None),
        report=fitted,
    )


def enough(examples: Embeddings, *, seed: int = 0) -> Embeddings:
    """As many examples as fitting has room for: all of them up to some 100,000 of 512 numbers.

    Of more, a part is drawn at random, label by label: those with few examples keep them all. Fitting holds
    several copies of each vector, and a classifier of so few numbers learns nothing from millions more.
    """
    most = _ROOM // max(examples.dimension, 1)
    if len(examples) <= most or examples.labels is None:
        return examples
    order = np.random.default_rng(seed).permutation(len(examples))
    numbers: dict[tuple[str, ...], int] = {}
    own = np.fromiter(
        (numbers.setdefault(each, len(numbers)) for each in examples.labels), np.int64, len(examples)
    )
    by_label = order[np.argsort(own[order], kind="stable")]
    ends = np.cumsum(np.bincount(own))
    place = np.arange(len(own)) - np.repeat(ends - np.bincount(own), np.bincount(own))
    kept = by_label[
        np.argsort(place, kind="stable")[:most]
    ]  # the first of each label, the second of each ...
    drawn: list[int] = np.sort(kept).tolist()
    return examples[drawn]


_ROOM = 2**26  # numbers of all examples' vectors
