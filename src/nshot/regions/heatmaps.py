"""Where the evidence for a label is: a score per patch of an image, and the image with it laid over.

Patches have vectors in the space of images and texts: MaskCLIP's value path (Zhou et al., "Extract Free
Dense Labels from CLIP", 2022), see ``nshot.models.transformer``. A patch's evidence is what the classifier
would say of the patch alone. A patch of a ViT-B/32 is a 49th of the square that the model sees: a heatmap
shows where to look, and is no outline.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nshot.classifier.cascade import check_one
from nshot.classifier.tree import TreeClassifier
from nshot.errors import LabelError
from nshot.images.preprocess import Preprocessor
from nshot.images.sources import Source
from nshot.regions import unembedded
from nshot.regions.evidence import log_odds
from nshot.regions.flow import Flow, Seen
from nshot.types import Decided, Embedded, Failure, Floats, Pixels, Prediction

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.embedder import Embedder

VIEW = 768
"""The longer edge of the image that a heatmap is laid over, in pixels, at most."""

_LEAST = 1e-9
_ROOT = 4  # odds differ by orders of magnitude, and would show as one dot


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Heatmap:
    """What each part of an image says for each label.

    Attributes:
        source: the image's name.
        labels: the labels, in the classifier's order.
        evidence: float32[labels, rows, columns]: what each patch says for each label; more is more. With
            several labels the logarithm of the odds that the classifier would give the label against the
            others, if it saw the patch alone: 0 is one to one. With one label its logit, less the mean of
            the patches'.
        answer: what the classifier says of the whole image: the same as without heatmaps, bit for bit.
        size: width and height of the upright image, in pixels.
        box: the part of the image that the patches cover: left, top, right and bottom in pixels of the
            upright image. Beyond its edges where the model sees borders.
        view: the upright image, RGB, its longer edge at most ``VIEW`` pixels.
        notes: what decoding did that a person should know, one short sentence each; mostly none.
    """

    source: str
    labels: tuple[str, ...]
    evidence: Floats
    answer: Prediction
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    view: Image.Image
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    def __repr__(self) -> str:
        _, rows, columns = self.evidence.shape
        return f"Heatmap({self.source!r}, {self.best!r}, {rows} x {columns} patches)"

    @property
    def label(self) -> str | None:
        """The answer's label; None where a decision answers with no single one (and on a ``Failure``)."""
        return self.answer.label

    @property
    def best(self) -> str:
        """The label with the best score for the whole image, whatever was decided of it."""
        return self.answer.predictions[0].label

    def of(self, label: str | None = None) -> Floats:
        """One label's heat: float32[rows, columns] in [0, 1].

        It is the fourth root of the label's odds in each patch, over the largest: the hottest patch has 1, a
        patch with half of its odds 0.84, and a map of ones says that the label is everywhere alike.

        Args:
            label: the label; without it, the best one.

        Raises:
            LabelError: it is not one of the labels.
        """
        evidence = self.evidence[self._row(label)]
        heat: Floats
        if len(self.labels) > 1:
            heat = np.exp((evidence - evidence.max()) / _ROOT)
            return heat
        span = max(float(evidence.max() - evidence.min()), _LEAST)
        heat = ((evidence - evidence.min()) / span).astype(np.float32)
        return heat

    def peak(self, label: str | None = None) -> tuple[float, float]:
        """The middle of the hottest patch: x and y in pixels of the upright image.

        Raises:
            LabelError: it is not one of the labels.
        """
        evidence = self.evidence[self._row(label)]
        rows, columns = evidence.shape
        row, column = divmod(int(evidence.argmax()), columns)
        left, top, right, bottom = self.box
        x = left + (column + 0.5) * (right - left) / columns
        y = top + (row + 0.5) * (bottom - top) / rows
        width, height = self.size
        return min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))

    def overlay(self, label: str | None = None) -> Image.Image:
        """The image with one label's heat laid over it, hotter is brighter; what no patch covers is dark.

        Raises:
            LabelError: it is not one of the labels.
        """
        from nshot.regions.drawing import lay_over

        scale = self.view.width / self.size[0], self.view.height / self.size[1]
        left, top, right, bottom = (edge * scale[i % 2] for i, edge in enumerate(self.box))
        return lay_over(self.view, self.of(label), (left, top, right, bottom))

    def _row(self, label: str | None) -> int:
        name = self.best if label is None else label
        if name not in self.labels:
            raise LabelError(f"{name!r} is not one of the labels: {', '.join(self.labels[:8])}")
        return self.labels.index(name)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.overlay().save(buffer, "PNG")
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class SquareAndView:
    """Makes of an image the square that the encoder takes, and a view of all of it, in one row of bytes."""

    preprocessor: Preprocessor

    @property
    def draft(self) -> int | None:
        """As the preprocessor's: the square is the same as without a view."""
        return self.preprocessor.draft

    def notes(self, size: tuple[int, int]) -> tuple[str, ...]:
        """As the preprocessor's."""
        return self.preprocessor.notes(size)

    def __call__(self, image: Image.Image) -> Pixels:
        """The square, the view's width and height, and the view: uint8[...]."""
        view = image
        if max(image.size) > VIEW:
            factor = VIEW / max(image.size)
            edges = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
            view = image.resize(edges, Image.Resampling.BILINEAR, reducing_gap=2.0)
        size = np.array(view.size, "<u4").view(np.uint8)
        return np.concatenate([self.preprocessor(image).ravel(), size, np.asarray(view).ravel()])

    def apart(self, made: Pixels) -> tuple[Pixels, Image.Image]:
        """The square and the view out of what was made."""
        side = self.preprocessor.size
        cut = 3 * side * side
        width, height = map(int, made[cut : cut + 8].copy().view("<u4"))
        view = Image.fromarray(np.array(made[cut + 8 :]).reshape(height, width, 3))
        return made[:cut].reshape(3, side, side), view


def heatmaps(
    embedder: Embedder,
    images: Iterable[Source | Embedded | Failure],
    classifier: Classifier | TreeClassifier,
    *,
    top_k: int = 5,
) -> Iterator[Heatmap | Failure]:
    """A heatmap of each image, in order, with bounded memory.

    Args:
        embedder: the model.
        images: images that are not embedded yet, as ``Embedder.sources`` lists them; failures pass through.
        classifier: what is asked; of a tree of labels, its leaves have heatmaps.
        top_k: how many labels the answers tell, at most.

    Raises:
        RequestError: vectors in the place of images, which have no patches.
    """
    if not isinstance(classifier, TreeClassifier):
        check_one(classifier, "the evidence in an image is that of")
    encoder, maker = embedder.encoder, SquareAndView(embedder.preprocessor)
    tower = embedder.checkpoint.config.vision
    flat = classifier.classifier if isinstance(classifier, TreeClassifier) else classifier

    def work(seen: Sequence[Seen]) -> list[tuple[Floats, Floats, Image.Image]]:
        pairs = [maker.apart(_there(each.values)) for each in seen]
        for each in seen:
            each.values = None
        vectors, patches = encoder.encode_patches(np.stack([square for square, _ in pairs]))
        return [(*rows, view) for *rows, (_, view) in zip(vectors, patches, pairs, strict=True)]

    flow = Flow(
        maker,
        work,
        limits=embedder.limits,
        workers=embedder.workers,
        streams=encoder.streams,
        batch=embedder.batch_size,
    )
    for each in flow.run(unembedded(images)):
        if isinstance(each, Failure):
            yield each
            continue
        seen, (vector, patches, view) = each
        source = seen.source
        embedded = Embedded(
            source.name,
            vector,
            source.labels,
            source.domain,
            seen.digest,
            notes=seen.notes,
            beside=source.beside,
        )
        files = {} if seen.stamp is None else {seen.stamp: seen.digest}
        notes = {seen.digest: seen.notes} if seen.notes else {}
        embedder.memory.keep({seen.digest: vector}, files, embedder.recipe.digest, notes)
        (answer,) = classifier.stream([embedded], top_k=top_k)
        assert isinstance(answer, Prediction)
        left, top, right, bottom = embedder.preprocessor.seen(seen.size)
        box = (left, top, left + (right - left) * tower.seen, top + (bottom - top) * tower.seen)
        evidence = evidence_of(flat, patches).reshape(len(flat.labels), tower.grid, tower.grid)
        yield Heatmap(source.name, flat.labels, evidence, answer, seen.size, box, view, notes=seen.notes)


def evidence_of(classifier: Classifier, patches: Floats) -> Floats:
    """What patches [p, d] say for each label: float32[labels, p], see ``Heatmap.evidence``."""
    logits = classifier.logits(patches)
    logits = logits - logits.mean() if logits.shape[1] == 1 else log_odds(logits)
    evidence: Floats = logits.T.astype(np.float32)
    return evidence


def answered_none(answer: Prediction) -> bool:
    """Whether a decision says that the image shows none of the labels: there is no evidence to show."""
    return isinstance(answer, Decided) and answer.answer == "none"


def _there(values: NDArray[Any] | None) -> NDArray[Any]:
    assert values is not None
    return values
