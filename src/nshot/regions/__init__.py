"""Where in an image: heatmaps of what a classifier sees, boxes by tiles, and boxes by a detector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from nshot.errors import RequestError
from nshot.images.sources import Source
from nshot.types import Embedded, Failure, Located

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.embedder import Embedder
    from nshot.labels.prompts import Labels

_MOST_LEVELS = 8
_MOST_OVERLAP = 0.9


def asked_by_tiles(
    embedder: Embedder,
    images: Iterable[Source | Embedded | Failure],
    classifier: Classifier,
    *,
    background: Labels | None,
    templates: Sequence[str],
    levels: int,
    overlap: float,
    threshold: float,
) -> Iterator[Located | Failure]:
    """See ``nshot.Model.locate``; everything is checked now, and images are read later."""
    from nshot.classifier.cascade import check_one
    from nshot.classifier.zero_shot import zero_shot
    from nshot.decision.background import EVERYDAY
    from nshot.regions.grid import Grid
    from nshot.regions.tiles import locate

    check_one(classifier, "tiles are asked of")
    if not 1 <= levels <= _MOST_LEVELS:
        raise RequestError(f"levels must be from 1 to {_MOST_LEVELS}, not {levels}")
    if not 0 <= overlap <= _MOST_OVERLAP:
        raise RequestError(f"overlap must be from 0 to {_MOST_OVERLAP}, not {overlap:g}")
    check_threshold(threshold)
    behind = None
    if classifier.activation == "softmax":
        words = EVERYDAY if background is None else background
        if words:
            behind = without_likes(zero_shot(embedder, words, templates), classifier)
        if behind is None and len(classifier.labels) == 1:
            raise RequestError("one label alone needs a background to be compared with")
    return locate(
        embedder,
        unembedded(images),
        classifier,
        background=behind,
        grid=Grid(levels, overlap),
        threshold=threshold,
    )


def without_likes(background: Classifier, classifier: Classifier) -> Classifier | None:
    """The background as a classifier of the same scale, without what a label means itself."""
    from nshot.classifier.classifier import Classifier
    from nshot.decision.background import unlike

    rows = unlike(background.matrix, classifier.matrix)
    if not len(rows):
        return None
    names = [f"background {number}" for number in range(len(rows))]
    scale = float(classifier.scale.mean())
    return Classifier(names, rows, scale, float(classifier.bias.mean()), classifier.activation)


def check_threshold(threshold: float) -> None:
    """Refuse what no score can reach.

    Raises:
        RequestError: it is not in [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise RequestError(f"threshold must be from 0 to 1, not {threshold:g}")


def unembedded(items: Iterable[Source | Embedded | Failure]) -> Iterator[Source | Failure]:
    """The images; a vector has no regions.

    Raises:
        RequestError: one of the items is embedded already.
    """
    for item in items:
        if isinstance(item, Embedded):
            raise RequestError(
                f"{item.source} is a vector, and where something is can be seen in an image only: "
                "name the images"
            )
        yield item
