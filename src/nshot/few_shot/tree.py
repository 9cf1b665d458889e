"""The leaves of a tree of labels, learnt from labelled images."""

from __future__ import annotations

from typing import Literal

from nshot.classifier.tree import TreeClassifier
from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.few_shot.candidates import Method
from nshot.few_shot.examples import fit


def fit_tree(
    images: Embeddings,
    asked: TreeClassifier,
    *,
    method: Method | Literal["auto"] = "auto",
    strength: float | None = None,
    seed: int = 0,
) -> TreeClassifier:
    """The same tree over leaves that were learnt from a few labelled images, or many; see ``nshot.fit``.

    Args:
        images: embeddings with labels. Those whose one label is a leaf of the tree, by its name or its id,
            are learnt from, and the others are left out.
        asked: the tree, its leaves from their prompts.
        method: one method instead of the best by cross-validation.
        strength: of that method.
        seed: of the cross-validation.

    Returns:
        The tree, not calibrated; the ``report`` (``Fitted``) of its ``classifier`` says what was chosen.

    Raises:
        RequestError: no image has a leaf's label, or as ``nshot.fit``.
    """
    leaves = set(asked.tree.leaves)
    names = [asked.tree.find(own[0]) if len(own) == 1 else None for own in images.labels or ()]
    kept = [row for row, name in enumerate(names) if name in leaves]
    if not kept:
        raise RequestError(
            f"no image has a label that is a leaf of the tree, such as {asked.tree.leaves[0]!r}"
        )
    examples = images[kept].with_labels([str(names[row]) for row in kept])
    return asked.with_leaves(fit(examples, asked.classifier, method=method, strength=strength, seed=seed))
