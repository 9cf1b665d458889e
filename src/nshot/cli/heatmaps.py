"""`nshot classify --heatmaps`: the answers, and a drawing of the evidence for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nshot.errors import RequestError
from nshot.images.remarks import Remarks
from nshot.types import Embedded, Failure, Prediction

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.tree import TreeClassifier
    from nshot.images.sources import Source
    from nshot.model import Model


def check(folder: Path, others: Sequence[str]) -> None:
    """Refuse what heatmaps do not go with, and make the folder, before any image is read.

    Raises:
        RequestError: ``others``, options that were given, do not go with heatmaps.
        OutputError: the folder cannot be made.
    """
    from nshot.atomic import make_folder

    if others:
        raise RequestError(f"--heatmaps does not go with {' and '.join(others)}: leave one of them out")
    make_folder(folder)


def drawn(
    model: Model,
    images: Iterable[Source | Embedded | Failure],
    classifier: Classifier | TreeClassifier,
    *,
    top_k: int,
    folder: Path,
    remarks: Remarks,
) -> Iterator[Prediction | Failure]:
    """The classifier's answers; each is drawn before it comes, but one that says "none of these"."""
    from nshot.regions.files import DrawnFolder
    from nshot.regions.heatmaps import answered_none, heatmaps

    drawings = DrawnFolder(folder, "heatmap")
    for heatmap in heatmaps(model, images, classifier, top_k=top_k):
        remarks.decoded.add(heatmap.notes)
        if isinstance(heatmap, Failure):
            yield heatmap
            continue
        if not answered_none(heatmap.answer):
            drawings.write(heatmap.source, heatmap.overlay())
        yield heatmap.answer
