"""A classifier of the leaves of a tree, whose answers are as deep as the evidence allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.classifier import file
from nshot.classifier.calibrating import enough
from nshot.classifier.cascade import check_one
from nshot.classifier.classifier import Classifier, in_chunks, records_of
from nshot.classifier.predictions import Predictions
from nshot.classifier.zero_shot import TextEmbedder, zero_shot
from nshot.decision.compared import Compared
from nshot.decision.conformal import draws, least_images
from nshot.decision.decision import Decision
from nshot.decision.rollup import Ancestors, Siblings, pooled, threshold_for
from nshot.embeddings import Embeddings
from nshot.errors import LabelError, RequestError
from nshot.labels.prompts import DEFAULT_TEMPLATE
from nshot.labels.tree import Tree
from nshot.types import Embedded, Failure, Placed, Prediction

UNCALIBRATED = 0.9
"""Without calibration: candidates are the leaves with a tenth of the score or more. It guarantees nothing."""

INNER = 0.1
"""Without calibration: how much the prompts of inner nodes count against those of the leaves."""

_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # of the inner nodes' prompts, that calibration chooses from


@dataclass(frozen=True, slots=True)
class Placing:
    """What was learnt from labelled images: their scores, growing, serve any coverage.

    Attributes:
        scores: of each image, the threshold at which its answer first contains the truth.
        coverage: how often answers shall contain the truth, in (0, 1).
        weight: how much the inner nodes' own prompts count, in [0, 1].
    """

    scores: tuple[float, ...]
    coverage: float
    weight: float = 0.0

    @property
    def threshold(self) -> float:
        """The threshold for that coverage or a little more; infinite with too few images."""
        return float(threshold_for(self.scores, self.coverage))


class TreeClassifier:
    """A classifier of leaves, their tree, and how deep to answer.

    Args:
        classifier: its labels are the tree's leaves, in whatever order.
        tree: the labels and what lies above them.
        placing: what ``calibrated`` learnt; None: a rule that guarantees nothing.
        inner: a classifier of inner nodes, all or some: their own prompts are evidence beside the leaves'.
        rank: answer at this depth always, from 1, the roots; None: as deep as the evidence allows.

    Raises:
        LabelError: the leaves are not the classifier's labels, or one of ``inner`` is no inner node.
        RequestError: a coverage outside (0, 1), a weight outside [0, 1], a score that is no number, a rank
            that the tree does not have, or ``inner`` of another model.
    """

    def __init__(
        self,
        classifier: Classifier,
        tree: Tree,
        placing: Placing | None = None,
        *,
        inner: Classifier | None = None,
        rank: int | None = None,
    ) -> None:
        check_one(classifier, "a tree of labels is asked of")
        if rank is not None and not 1 <= rank <= tree.depth:
            raise RequestError(f"the tree has depths 1 to {tree.depth}, not {rank}")
        self.rank = rank
        self.classifier = classifier.reordered(tree.leaves)
        self.tree = tree
        self.placing = placing
        self.inner = inner
        self._nodes = Ancestors(tree.paths)
        if placing is not None:
            threshold_for(placing.scores, placing.coverage)  # refuses what is no coverage
            if not 0 <= placing.weight <= 1 or np.isnan(placing.scores).any():
                raise RequestError(
                    "what was learnt of the tree must be a weight between 0 and 1 and scores that are numbers"
                )
        self._siblings: Siblings | None = None
        if inner is not None:
            if strange := sorted(set(inner.labels) - set(tree.inner)):
                raise LabelError(f"no inner nodes of the tree: {', '.join(map(repr, strange[:5]))}")
            if inner.dimension != classifier.dimension or len({inner.space, classifier.space} - {None}) > 1:
                raise RequestError("the inner nodes' prompts belong to another model than the leaves'")
            self._siblings = Siblings(tree.paths, inner.labels)

    @classmethod
    def zero_shot(
        cls, embedder: TextEmbedder, tree: Tree, templates: Sequence[str] = (DEFAULT_TEMPLATE,)
    ) -> TreeClassifier:
        """Every node is asked by its own prompt, inner ones too.

        Args:
            embedder: a loaded model.
            tree: such as ``nshot.labels.tree.read_tree`` reads.
            templates: each with ``{}`` where the label goes; several are averaged.

        Raises:
            LabelError: a label that is too long for the model, by name.
            TemplateError: a template without a place for the label.
        """
        inner = zero_shot(embedder, list(tree.inner), templates) if tree.inner else None
        return cls(zero_shot(embedder, list(tree.leaves), templates), tree, inner=inner)

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
        leaves, depths = self.nodes(shares, compared.vectors)
        firsts, ends = self._nodes.span(leaves, depths)
        for share, leaf, depth, first, end in zip(shares, leaves, depths, firsts, ends, strict=True):
            yield self.tree.paths[leaf][:depth], min(float(share[first:end].sum()), 1.0)

    def nodes(self, shares: ArrayLike, vectors: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Each answer as a leaf and a depth on the way to it, 0 where not even a root is sure.

        Args:
            shares: float[n, leaves], from ``shares``.
            vectors: float[n, d], the same images.
        """
        if self.rank is not None:
            return self._nodes.at_depth(shares, self.rank)
        if self.placing is None:
            return self._nodes.answers(shares, UNCALIBRATED)
        return self._nodes.answers(
            shares, threshold_for(self.placing.scores, self.placing.coverage, draws(vectors, 0))
        )

    def shares(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """What speaks for each leaf: [n, d] -> float64[n, leaves], rows that sum to 1."""
        return self._shares(self.classifier.compare(vectors))

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
            None if self.placing is None or self.rank is not None else self.placing.coverage,
            notes=answer.notes,
            beside=answer.beside,
        )

    def _shares(self, compared: Compared, weight: float | None = None) -> NDArray[np.float64]:
        """Of each leaf; the weight of the inner nodes' prompts is the learnt one unless another is given."""
        decision = self.classifier.decision or Decision()
        logits = compared.logits
        if weight is None:
            weight = INNER if self.placing is None else self.placing.weight
        asked = self._siblings is not None and self.inner is not None and weight > 0
        if not asked or self.classifier.activation == "sigmoid":
            scores = decision.scores(logits, self.classifier.activation)
            own = np.asarray(scores / scores.sum(axis=1, keepdims=True))  # sigmoid's rows do not sum to 1
        if not asked or self._siblings is None or self.inner is None:
            return own
        leaves, inner = logits, self.inner.logits(compared.vectors)
        if decision.calibration is not None:
            leaves, inner = decision.calibration.apply(leaves), decision.calibration.apply(inner)
        if self.classifier.activation == "softmax":
            return self._siblings.shares(leaves, inner, weight)
        return pooled(own, self._siblings.log_shares(leaves, inner), weight)

    def _weight(self, compared: Compared, spans: NDArray[np.int64]) -> float:
        """How much the inner nodes' prompts shall count: what gives the truth most, by its log."""
        if self.inner is None:
            return 0.0
        cumulated = (
            np.cumsum(np.pad(self._shares(compared, weight), ((0, 0), (1, 0))), axis=1) for weight in _WEIGHTS
        )
        rows = np.arange(len(spans))
        truth = [each[rows, spans[:, 1]] - each[rows, spans[:, 0]] for each in cumulated]
        return _WEIGHTS[int(np.argmax([np.log(np.maximum(each, 1e-12)).mean() for each in truth]))]

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
        images = enough(self.classifier, images)
        kept, truth = self.truth(images)
        if not len(kept):
            raise RequestError(f"no image has a label of the tree's, such as {self.tree.leaves[0]!r}")
        compared = self.classifier.compare(images.vectors[kept])
        weight = self._weight(compared, truth)
        scores = self._nodes.scores(self._shares(compared, weight), truth)
        if not np.isfinite(threshold_for(scores, coverage)):
            raise RequestError(_too_few(coverage, len(kept)))
        placing = Placing(tuple(np.sort(scores).tolist()), coverage, weight)
        return TreeClassifier(self.classifier, self.tree, placing, inner=self.inner)

    def with_coverage(self, coverage: float) -> TreeClassifier:
        """The same, answering so deep that answers contain the truth this often.

        Raises:
            RequestError: it was not calibrated, or not on enough images; or a coverage outside (0, 1).
        """
        if self.placing is None:
            raise RequestError("a coverage is learnt from labelled images: calibrate the tree first")
        placing = replace(self.placing, coverage=coverage)
        if not np.isfinite(placing.threshold):
            raise RequestError(_too_few(coverage, len(placing.scores)))
        return TreeClassifier(self.classifier, self.tree, placing, inner=self.inner)

    def with_rank(self, rank: int) -> TreeClassifier:
        """The same, whose answers all lie at this depth: the node whose leaves have the most together.

        Nothing is guaranteed then. A leaf that lies less deep stands for itself.

        Args:
            rank: from 1, the roots.

        Raises:
            RequestError: the tree is not that deep.
        """
        return TreeClassifier(self.classifier, self.tree, self.placing, inner=self.inner, rank=rank)

    def with_leaves(self, classifier: Classifier) -> TreeClassifier:
        """The same tree over another classifier of its leaves, such as a fitted one; not calibrated."""
        return TreeClassifier(classifier, self.tree, inner=self.inner, rank=self.rank)

    def put_right(self, answer: Placed, label: str | None) -> Placed:
        """The answer with a person's word in its place; what the model scores stays.

        Args:
            answer: one of this tree's.
            label: a node by its name or id, or a label that the tree does not have, which then stands alone
                with a note; None: the image shows none of the labels.
        """
        name = None if label is None else self.tree.find(label)
        path = () if label is None else self.tree.ways[name] if name is not None else (label,)
        strange = label is not None and name is None
        return replace(
            answer,
            answer="none" if label is None else "label",
            labels=path[-1:],
            path=path,
            coverage=None,
            notes=(*answer.notes, *(["the tree does not have this label"] if strange else [])),
        )

    def truth(self, images: Embeddings) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Rows of the images whose one label is a node of the tree, and the leaves under it, int[n, 2].

        Raises:
            RequestError: the images have no labels.
        """
        if images.labels is None:
            raise RequestError("labelled images are needed: embed a labelled set, or use with_labels(...)")
        found = {
            row: self.tree.spans[name]
            for row, own in enumerate(images.labels)
            if len(own) == 1 and (name := self.tree.find(own[0])) is not None
        }
        return np.array(list(found), np.intp), np.array(list(found.values()), np.int64).reshape(-1, 2)

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
            else {
                "scores": list(placing.scores),
                "coverage": placing.coverage,
                "weight": placing.weight,
            },
            "ids": dict(self.tree.ids),
            "ranks": list(self.tree.ranks),
            "inner": None if self.inner is None else self.inner.told(),
        }
        arrays = {name: getattr(self.classifier, name) for name in file.ARRAYS}
        if self.inner is not None:
            arrays |= {f"inner.{name}": getattr(self.inner, name) for name in file.ARRAYS}
        file.write(path, arrays, told, format=file.TREE)

    @classmethod
    def open(cls, path: str | Path) -> TreeClassifier:
        """Read what ``save`` wrote; nothing in the file is run.

        Raises:
            RequestError: there is no such file, or it does not hold a tree.
        """
        arrays, told = file.read(path, format=file.TREE)
        with file.opening(path):
            placing, above = told["placing"], told.get("inner")
            inner = {name: arrays[f"inner.{name}"] for name in file.ARRAYS} if above is not None else {}
            return cls(
                Classifier.of_told({name: arrays[name] for name in file.ARRAYS}, told),
                Tree(told["tree"], told.get("ids", {}), told.get("ranks", ())),
                None
                if placing is None
                else Placing(
                    tuple(map(float, placing["scores"])),
                    float(placing["coverage"]),
                    float(placing.get("weight", 0.0)),
                ),
                inner=None if above is None else Classifier.of_told(inner, above),
            )

    @property
    def labels(self) -> Sequence[str]:
        """The leaves."""
        return self.classifier.labels

    def __repr__(self) -> str:
        sure = "uncalibrated" if self.placing is None else f"coverage {self.placing.coverage:g}"
        return f"<TreeClassifier: {len(self.labels)} leaves, {sure}>"


def _too_few(coverage: float, images: int) -> str:
    return (
        f"a coverage of {coverage:g} needs at least {least_images(coverage)} labelled images, "
        f"and there are {images}"
    )
