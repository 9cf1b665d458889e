"""Boxes by tiles: crops of an image at several scales, each encoded like any image; the best one per label.

It serves what the model's square throws away: a thing that takes a hundredth of a photograph is 22 pixels
wide in what a ViT-B/32 sees of it, less than a patch, and takes a sixth of a tile. Any model will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from nshot.errors import ImageError
from nshot.images.sources import Source
from nshot.images.windows import open_bands
from nshot.regions.evidence import Reals, log_odds, sigmoid
from nshot.regions.flow import Flow, Seen, failed
from nshot.regions.grid import Grid, Tiles, from_bands
from nshot.regions.kept import Kept, Shelf
from nshot.types import Box, Failure, Floats, Located

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.embedder import Embedder

VERSION = 1
"""To be raised by whatever changes a tile."""

THRESHOLD = 0.1
"""The score that a box must have to be told."""


def locate(
    embedder: Embedder,
    images: Iterable[Source | Failure],
    classifier: Classifier,
    *,
    background: Classifier | None = None,
    grid: Grid = Grid(),  # noqa: B008  (frozen)
    threshold: float = THRESHOLD,
) -> Iterator[Located | Failure]:
    """The best tile of each label in each image, in order, with bounded memory.

    Args:
        embedder: the model; its store keeps the tiles' vectors.
        images: images that are not embedded yet; failures pass through.
        classifier: what is looked for.
        background: what else there may be, for a model that compares labels by softmax.
        grid: where the tiles lie.
        threshold: the score that a box must have, in [0, 1].
    """
    encoder, preprocessor = embedder.encoder, embedder.preprocessor
    shelf = Shelf(embedder.memory, "tiles", VERSION, embedder.recipe.digest, grid.levels, grid.overlap)

    def work(seen: Sequence[Seen]) -> list[Kept | Failure]:
        return [one(each) for each in seen]

    def one(seen: Seen) -> Kept | Failure:
        if seen.known is not None:
            known: Kept = seen.known
            return known
        if seen.bands is None:
            assert seen.values is not None
            vectors = encoder.encode_images(seen.values)
            seen.values = None
            return Kept(seen.size, seen.notes, {"vectors": vectors})
        places = grid.places(seen.size)
        vectors = np.empty((len(places), encoder.dimension), np.float32)
        try:
            tiles = from_bands(seen.bands, places, preprocessor)
            while group := list(islice(tiles, encoder.batch)):
                numbers = [number for number, _ in group]
                vectors[numbers] = encoder.encode_images(np.stack([tile for _, tile in group]))
        except ImageError as error:
            return failed(seen.source, type(error).__name__, str(error))
        return Kept(seen.size, seen.notes, {"vectors": vectors})

    flow = Flow(
        Tiles(preprocessor, grid),
        work,
        limits=embedder.limits,
        workers=embedder.workers,
        streams=encoder.streams,
        batch=1,
        recall=shelf.recall,
        digest_of=shelf.digest_of,
        bands=partial(open_bands, least=grid.least(preprocessor.size), limits=embedder.limits),
    )
    for each in flow.run(images):
        if isinstance(each, Failure):
            yield each
            continue
        seen, kept = each
        if isinstance(kept, Failure):
            yield kept
            continue
        if seen.known is None:
            shelf.keep(seen.digest, kept, seen.stamp)
        scores = scores_of(classifier, background, kept.arrays["vectors"])
        boxes = best_boxes(classifier.labels, scores, grid.places(kept.size), threshold)
        yield Located(seen.source.name, boxes, kept.size, notes=kept.notes, beside=seen.source.beside)


def scores_of(classifier: Classifier, background: Classifier | None, vectors: Floats) -> Reals:
    """What each tile scores for each label: float64[tiles, labels] in [0, 1].

    The best of n tiles is high by chance alone. So a tile's odds are divided by n: if a thing is in an image
    at all, it may be in any of them (Bonferroni's correction, in odds).
    """
    odds: Reals = classifier.logits(vectors)
    if classifier.activation == "softmax":
        odds = log_odds(odds, None if background is None else background.logits(vectors))
    return sigmoid(odds - np.log(len(vectors)))


def best_boxes(labels: Sequence[str], scores: Reals, places: Reals, threshold: float) -> tuple[Box, ...]:
    """The best tile of each label, best first, where its score reaches the threshold."""
    best = scores.argmax(axis=0)
    boxes = []
    for label, (name, row) in enumerate(zip(labels, best.tolist(), strict=True)):
        if scores[row, label] >= threshold:
            x, y, width, height = places[row].tolist()
            boxes.append(Box(name, float(scores[row, label]), (x, y, width, height)))
    return tuple(sorted(boxes, key=lambda box: -box.score))
