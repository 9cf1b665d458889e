"""A classifier of the leaves of a tree, whose answers are as deep as the evidence allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier import file
from nshot.classifier.classifier import Classifier, in_chunks, records_of
from nshot.classifier.predictions import Predictions
from nshot.decision.compared import Compared
from nshot.decision.decision import Decision
from nshot.decision.rollup import Ancestors, threshold_for
from nshot.embeddings import Embeddings
from nshot.errors import LabelError, RequestError
from nshot.labels.tree import Tree
from nshot.types import Embedded, Failure, Placed, Prediction

UNCALIBRATED = 0.9
"""Without calibration: candidates are the leaves with a tenth of the score or more. It guarantees nothing."""


@dataclass(frozen=True, slots=True)
class Placing:
    """What was learnt from labelled images: their scores, growing, serve any coverage.

    Attributes:
        scores: of each image, the threshold at which its answer first contains the truth.
        coverage: how often answers shall contain the truth, in (0, 1).
    """

    scores: tuple[float, ...]
    coverage: float

    @property
    def threshold(self) -> float:
        """The threshold for that coverage; infinite with too few images."""
        return threshold_for(self.scores, self.coverage)


class TreeClassifier:
    """A classifier of leaves, their tree, and how deep to answer.

    Args:
        classifier: its labels are the tree's leaves, in whatever order.
        tree: the labels and what lies above them.
        placing: what ``calibrate_tree`` learnt; None: a rule that guarantees nothing.

    Raises:
        LabelError: the leaves are not the classifier's labels.
        RequestError: a coverage outside (0, 1).
    """

    def __init__(self, classifier: Classifier, tree: Tree, placing: Placing | None = None) -> None:
        self.classifier = classifier.reordered(tree.leaves)
        self.tree = tree
        self.placing = placing
        self._nodes = Ancestors(tree.paths)
        self._threshold = UNCALIBRATED if placing is None else placing.threshold

    def predict(
        self, images: Embeddings | ArrayLike | Iterable[Embedded | Failure], *, top_k: int = 5
    ) -> Predictions:
        """The deepest node of each image for which the evidence suffices; see ``Classifier.predict``.

        Each answer is a ``Placed``; its ``predictions`` are the best leaves.
        """
        if isinstance(images, Embeddings):
            self.classifier.check_space(images.recipe, images.model)
        return Predictions(self.stream(records_of(images), top_k=top_k))

    def stream(
        self, embedded: Iterable[Embedded | Failure], *, top_k: int = 5
    ) -> Iterator[Prediction | Failure]:
        """The same as ``predict`` for a stream: answers come in input order, as vectors do."""
        plain = self.classifier.with_decision(None)
        for items in in_chunks(embedded):
            vectors = [item.vector for item in items if isinstance(item, Embedded)]
            compared = self.classifier.compare(np.stack(vectors)) if vectors else None
            placed = iter(() if compared is None else self._placed(compared))
            for answer in plain.answer(items, top_k, compared):
                yield answer if isinstance(answer, Failure) else self._told(answer, *next(placed))

    def _placed(self, compared: Compared) -> Iterator[tuple[tuple[str, ...], float]]:
        """The way to the answer, and the share of the leaves under it."""
        shares = self._shares(compared)
        leaves, depths = self._nodes.answers(shares, self._threshold)
        firsts, ends = self._nodes.span(leaves, depths)
        for share, leaf, depth, first, end in zip(shares, leaves, depths, firsts, ends, strict=True):
            yield self.tree.paths[leaf][:depth], min(float(share[first:end].sum()), 1.0)

    def _told(self, answer: Prediction, path: tuple[str, ...], share: float) -> Placed:
        return Placed(
            answer.source,
            answer.predictions,
            answer.margin,
            "label" if path else "none",
            path[-1:],
            False,
            path,
            share,
            None if self.placing is None else self.placing.coverage,
            notes=answer.notes,
            beside=answer.beside,
        )

    def _shares(self, compared: Compared) -> NDArray[np.float64]:
        decision = self.classifier.decision or Decision()
        scores = decision.scores(compared.logits, self.classifier.activation)
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))  # sigmoid's rows do not sum to 1

    def calibrated(self, images: Embeddings, coverage: float = 0.9) -> TreeClassifier:
        """The same, answering so deep that answers contain the truth this often.

        The guarantee is for images that come as these came. Labels may be inner nodes too.

        Args:
            images: embeddings with one label each, which the classifier has not learnt from. Those with
                another number of labels, or of labels that the tree does not have, are left out.
            coverage: in (0, 1).

        Raises:
            RequestError: no labelled image of the tree's labels, too few for the coverage, another model's
                vectors, or a coverage outside (0, 1).
        """
        self.classifier.check_space(images.recipe, images.model)
        if images.labels is None:
            raise RequestError("calibrating needs labelled images: embed a labelled set")
        spans = self.tree.spans
        kept = [row for row, own in enumerate(images.labels) if len(own) == 1 and own[0] in spans]
        if not kept:
            raise RequestError(f"no image has a label of the tree's, such as {self.tree.leaves[0]!r}")
        truth = [spans[images.labels[row][0]] for row in kept]
        scores = self._nodes.scores(self._shares(self.classifier.compare(images.vectors[kept])), truth)
        if not np.isfinite(threshold_for(scores, coverage)):
            raise RequestError(
                f"a coverage of {coverage:g} needs at least {int(np.ceil(coverage / (1 - coverage) - 1e-9))} "
                f"labelled images, and there are {len(kept)}"
            )
        return TreeClassifier(self.classifier, self.tree, Placing(tuple(np.sort(scores).tolist()), coverage))

    def save(self, path: str | Path) -> None:
        """Write the classifier with its tree into one file (by convention .nshot), as a whole or not at all.

        Raises:
            OutputError: it cannot be written there.
        """
        placing = self.placing
        told = self.classifier.told() | {
            "tree": [list(each) for each in self.tree.paths],
            "placing": None
            if placing is None
            else {"scores": list(placing.scores), "coverage": placing.coverage},
        }
        arrays = {name: getattr(self.classifier, name) for name in file.ARRAYS}
        file.write(path, arrays, told, format=file.TREE)

    @classmethod
    def open(cls, path: str | Path) -> TreeClassifier:
        """Read what ``save`` wrote; nothing in the file is run.

        Raises:
            RequestError: there is no such file, or it does not hold a tree.
        """
        arrays, told = file.read(path, format=file.TREE)
        try:
            placing = told["placing"]
            return cls(
                Classifier.of_told(arrays, told),
                Tree(told["tree"]),
                None if placing is None else Placing(tuple(placing["scores"]), placing["coverage"]),
            )
        except (LabelError, *file.NONSENSE) as error:
            raise file.damaged(path, error) from error

    @property
    def labels(self) -> Sequence[str]:
        """The leaves."""
        return self.classifier.labels

    def __repr__(self) -> str:
        sure = "uncalibrated" if self.placing is None else f"coverage {self.placing.coverage:g}"
        return f"<TreeClassifier: {len(self.labels)} leaves, {sure}>"
