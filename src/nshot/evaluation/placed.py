"""How good a tree of labels is answered: how deep, how often right, and how far off where wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.tree import TreeClassifier
from nshot.decision.rollup import Ancestors
from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.metrics import Bools, Counts, Interval, Reals, share, wilson
from nshot.types import Floats

_CHUNK = 4096  # images compared at once
# of the curve: a leaf is a candidate where its share is at least this
_SHARES = (0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 5e-3, 2e-3, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True, slots=True)
class Level:
    """One depth of the tree.

    Attributes:
        depth: from 1, the roots.
        images: those whose own label lies at least so deep.
        right: of these, the share that is right where every image is answered at this depth.
        interval: of it, 95 %, Wilson's.
        answers: how many images were answered with a node of this depth.
        right_of_answers: of those answers, the share that contains the truth; nan without any.
    """

    depth: int
    images: int
    right: float
    interval: Interval
    answers: int
    right_of_answers: float


@dataclass(frozen=True, slots=True)
class Trade:
    """One threshold: how deep answers go on average, and how often they contain the truth."""

    threshold: float
    depth: float
    covered: float


@dataclass(frozen=True, slots=True, eq=False)
class PlacedEvaluation:
    """Everything that is known about n images in a tree.

    Attributes:
        images: those that were measured.
        asked: what was asked of.
        left_out: images without exactly one label that the tree has.
        figures: name -> value: "covered" (answers that contain the truth), "depth" (mean depth of the
            answers), "exact" (answers that are the image's own label), "distance" (mean number of edges from
            the answer to the own label), "distance_of_wrong" (of answers that do not contain it),
            "leaf_right" and "leaf_distance" (the same where the best leaf is always answered).
        interval: of "covered", 95 %, Wilson's.
        levels: accuracy per depth.
        curve: how deep answers go against how often they are right, from deep to cautious.
        truth: of each image, the way from the root to its own label.
        answers: of each image, the way from the root to the answer; empty where no root is sure.
        leaves: of each image, the place of its best leaf.
        scores: float64[n], the share of the leaves under the answer.
        covered: bool[n].
        distance: int64[n], edges from the answer to the own label.
    """

    images: Embeddings
    asked: TreeClassifier
    left_out: int
    figures: dict[str, float]
    interval: Interval
    levels: tuple[Level, ...]
    curve: tuple[Trade, ...]
    truth: tuple[tuple[str, ...], ...]
    answers: tuple[tuple[str, ...], ...]
    leaves: Counts
    scores: Reals
    covered: Bools
    distance: Counts

    def to_dict(self) -> dict[str, Any]:
        """Every number, ready for JSON."""
        placing = self.asked.placing
        return {
            "images": len(self.images),
            "failed": len(self.images.failures),
            "left_out": self.left_out,
            "asked_coverage": None if placing is None or self.asked.rank is not None else placing.coverage,
            "figures": self.figures | {"covered_interval": self.interval},
            "levels": [asdict(level) | {"interval": level.interval} for level in self.levels],
            "curve": [asdict(trade) for trade in self.curve],
        }

    def rows(self) -> Iterator[Sequence[Any]]:
        """A row per image, the failed ones last: see ``COLUMNS``."""
        paths = self.asked.tree.paths
        for row, source in enumerate(self.images.sources):
            own, said = self.truth[row], self.answers[row]
            yield (
                source,
                "/".join(own),
                said[-1] if said else None,
                "/".join(said),
                len(said),
                bool(self.covered[row]),
                float(self.scores[row]),
                int(self.distance[row]),
                paths[int(self.leaves[row])][-1],
            )
        for failure in self.images.failures.values():
            yield (failure.source, *[None] * (len(COLUMNS) - 1))


COLUMNS = ("source", "own", "label", "path", "depth", "covered", "score", "distance", "leaf")
"""Of ``PlacedEvaluation.rows``; "own" and "path" go from the root, joined by "/"."""


def evaluate_tree(asked: TreeClassifier, images: Embeddings) -> PlacedEvaluation:
    """All figures of a tree of labels on labelled images.

    Args:
        asked: the classifier with its tree.
        images: embeddings with one label each, which may be inner nodes or ids of the tree. Those with
            another number of labels, or of labels that the tree does not have, are left out.

    Raises:
        RequestError: no labelled image of the tree's labels, or vectors of another model.
    """
    asked.classifier.check_space(images.recipe, images.model)
    rows, spans = asked.truth(images)
    if not len(rows):
        raise RequestError(f"no image has a label of the tree's, such as {asked.tree.leaves[0]!r}")
    tree, nodes = asked.tree, Ancestors(asked.tree.paths)
    names = [tree.find(own[0]) or "" for own in (images.labels or ()) if len(own) == 1]
    truth = tuple(tree.ways[name] for name in names if name)
    depths = np.array([len(way) for way in truth])
    found = [
        _measured(asked, nodes, images.vectors[rows[part]], spans[part], depths[part])
        for part in (slice(start, start + _CHUNK) for start in range(0, len(rows), _CHUNK))
    ]
    leaf, depth, score, best = (
        np.concatenate([each[k] for each in found]) for k in ("leaf", "depth", "score", "best")
    )
    first, end = nodes.span(leaf, depth)
    covered: Bools = (first <= spans[:, 0]) & (spans[:, 1] <= end)
    common = _common(nodes, leaf, depth, spans, depths)
    distance: Counts = depth + depths - 2 * common
    deepest = np.array([len(path) for path in tree.paths])[best]
    leaf_distance = deepest + depths - 2 * _common(nodes, best, deepest, spans, depths)
    return PlacedEvaluation(
        images=_rows_of(images, rows),
        asked=asked,
        left_out=len(images) - len(rows),
        figures={
            "covered": share(covered),
            "depth": share(depth),
            "exact": share(distance == 0),
            "distance": share(distance),
            "distance_of_wrong": share(distance[~covered]) if not covered.all() else 0.0,
            "leaf_right": share((spans[:, 0] <= best) & (best < spans[:, 1])),
            "leaf_distance": share(leaf_distance),
        },
        interval=Interval(*wilson(covered.sum(), len(covered)).tolist()),
        levels=tuple(_levels(np.concatenate([each["levels"] for each in found]), depths, depth, covered)),
        curve=tuple(
            Trade(1 - least, *pair)
            for least, pair in zip(
                _SHARES,
                np.concatenate([each["curve"] for each in found]).sum(axis=0) / len(rows),
                strict=True,
            )
        ),
        truth=truth,
        answers=tuple(tree.paths[k][:d] for k, d in zip(leaf.tolist(), depth.tolist(), strict=True)),
        leaves=best,
        scores=score,
        covered=covered,
        distance=distance,
    )


def _measured(
    asked: TreeClassifier, nodes: Ancestors, vectors: Floats, spans: Counts, depths: Counts
) -> dict[str, NDArray[Any]]:
    """The answers of some images; whether they are right at each depth; depth and coverage by threshold."""
    shares = asked.shares(vectors)
    leaf, depth = asked.nodes(shares, vectors)
    first, end = nodes.span(leaf, depth)
    sums = np.cumsum(np.pad(shares, ((0, 0), (1, 0))), axis=1)
    at = np.arange(len(shares))
    levels = np.zeros((len(shares), asked.tree.depth), bool)
    for level in range(1, asked.tree.depth + 1):
        start, stop = nodes.span(*nodes.at_depth(shares, level))
        levels[:, level - 1] = (start <= spans[:, 0]) & (spans[:, 1] <= stop)
    trades = []
    for least in _SHARES:
        own, deep = nodes.answers(shares, 1 - least)
        start, stop = nodes.span(own, deep)
        trades.append(np.stack([deep, (start <= spans[:, 0]) & (spans[:, 1] <= stop)], axis=1))
    return {
        "leaf": leaf,
        "depth": depth,
        "score": np.minimum(sums[at, end] - sums[at, first], 1.0),
        "best": shares.argmax(axis=1),
        "levels": levels,
        "curve": np.stack(trades).sum(axis=1, dtype=np.float64)[None],
    }


def _common(nodes: Ancestors, leaf: Counts, depth: Counts, spans: Counts, depths: Counts) -> Counts:
    """Depth of the lowest node above both, or of one of them where it is above the other."""
    found: Counts = np.minimum(np.minimum(nodes.common(leaf, spans[:, 0]), depth), depths)
    return found


def _levels(right: Bools, depths: Counts, answered: Counts, covered: Bools) -> Iterator[Level]:
    for depth in range(1, right.shape[1] + 1):
        so_deep, here = depths >= depth, answered == depth
        hits = right[so_deep, depth - 1]
        yield Level(
            depth,
            int(so_deep.sum()),
            share(hits),
            Interval(*wilson(hits.sum(), len(hits)).tolist()),
            int(here.sum()),
            share(covered[here]),
        )


def _rows_of(images: Embeddings, rows: NDArray[np.intp]) -> Embeddings:
    kept = images[list(rows.tolist())]
    return replace(kept, positions=images.positions[rows], failures=images.failures)
