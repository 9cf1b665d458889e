"""A detector that takes words: OWLv2 (Minderer et al. 2023). What an image holds is found once, and kept.

image -> boxes, objectness, class vectors   (seconds, and no question needed: kept in the store)
question -> vectors                         (milliseconds)
both -> boxes with labels                   (milliseconds)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nshot import encoders
from nshot.classifier.zero_shot import zero_shot
from nshot.embedder import Embedder, ImageLike
from nshot.encoders import Detections, Device, Precision
from nshot.errors import DeviceError, RequestError, UnsupportedArchitecture
from nshot.images.preprocess import Preprocessor
from nshot.images.sources import Source
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels
from nshot.models.checkpoint import find
from nshot.models.owlv2 import BoxTower
from nshot.regions import check_threshold, unembedded
from nshot.regions.flow import Flow, Seen
from nshot.regions.kept import Kept, Shelf
from nshot.regions.padded import Padded
from nshot.regions.suppress import suppressed
from nshot.store.store import Store, default_path
from nshot.types import Box, Failure, Floats, Limits, Located

DEFAULT_DETECTOR = "google/owlv2-base-patch16-ensemble"
_SHORT = {"owlv2": DEFAULT_DETECTOR}

VERSION = 1
"""To be raised by whatever changes what is kept."""

THRESHOLD = 0.1
"""The score that a box must have to be told."""

ALIKE = 0.3
"""How far two boxes found by an example image may overlap."""


class Detector(Embedder):
    """A loaded detector: boxes of things that words or other images name.

    Build it with ``nshot.load_detector``. Safe to use from one thread at a time.
    """

    def locate(
        self,
        images: ImageLike | Iterable[ImageLike],
        labels: Labels,
        *,
        templates: Sequence[str] = (DEFAULT_TEMPLATE,),
        threshold: float = THRESHOLD,
        thresholds: Mapping[str, float] | None = None,
        nms: float | None = None,
    ) -> Iterator[Located | Failure]:
        """Find boxes of what the labels name.

        Each box has one label, the one that fits it best.

        Args:
            images: as for ``embed_images``, but not what is embedded already.
            labels: names, or ``{label: [synonyms or whole prompts]}``.
            templates: the prompts, each with ``{}`` where the label goes; several are averaged.
            threshold: the score that a box must have, in [0, 1].
            thresholds: the same for single labels, as ``nshot evaluate --boxes`` learns them.
            nms: of boxes of one label that overlap by more than this (intersection over union, in [0, 1]),
                only the best is told. None: all are told, as the model's authors do.

        Yields:
            In input order a ``Located`` for each image, or the ``Failure`` that says why there is none.

        Raises:
            LabelError: a label that is empty, given twice, or too long for the model, by name.
            RequestError: a threshold out of range, or vectors in the place of images.
        """
        asked = zero_shot(self, labels, templates)
        return self._asked(images, asked.labels, asked.matrix, threshold, thresholds, nms)

    def locate_like(
        self,
        images: ImageLike | Iterable[ImageLike],
        examples: Mapping[str, ImageLike],
        *,
        threshold: float = THRESHOLD,
        nms: float | None = ALIKE,
    ) -> Iterator[Located | Failure]:
        """Find boxes of what example images show: of each, the thing that looks most like a thing.

        Args:
            images: as for ``embed_images``, but not what is embedded already.
            examples: an image for each label.
            threshold: the score that a box must have, in [0, 1].
            nms: how far two boxes of one label may overlap.

        Yields:
            In input order a ``Located`` for each image, or the ``Failure`` that says why there is none.

        Raises:
            RequestError: no example, one that cannot be read, or a threshold out of range.
        """
        if not examples:
            raise RequestError("finding what images show needs an example image at least")
        found = []
        for label, (_, kept) in zip(examples, self._kept_of(examples), strict=True):
            if isinstance(kept, Failure):
                raise RequestError(f"the example of {label} cannot be used: {kept.message}")
            found.append(kept.arrays["classes"][int(kept.arrays["objectness"].argmax())].astype(np.float32))
        matrix = np.stack(found)
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True) + 1e-6
        return self._asked(images, tuple(examples), matrix, threshold, None, nms)

    def detect(self, image: ImageLike) -> tuple[Detections, tuple[int, int]]:
        """What is in one image, before any question: unrounded, and neither from a store nor into it.

        Returns:
            What each patch says, n = 1, and the upright image's width and height in pixels.

        Raises:
            RequestError: it cannot be read.
        """
        maker = self._maker
        flow = Flow(
            maker,
            lambda seen: [each.values for each in seen],
            limits=self.limits,
            workers=1,
            streams=1,
            batch=1,
        )
        for each in flow.run(unembedded(self.list_images(image))):
            if isinstance(each, Failure):
                raise RequestError(f"{each.source}: {each.message}")
            seen, values = each
            assert values is not None
            return self.encoder.detect(maker.values(values)[None]), seen.size
        raise RequestError("no image")

    @property
    def _maker(self) -> Padded:
        size = self.checkpoint.config.vision.image_size
        return Padded(size, self.checkpoint.image_mean, self.checkpoint.image_std)

    def _kept_of(self, examples: Mapping[str, ImageLike]) -> Iterator[tuple[Seen | None, Kept | Failure]]:
        for label, image in examples.items():
            listed = list(unembedded(self.list_images(image)))
            if len(listed) != 1:
                raise RequestError(f"the example of {label} should be one image, not {len(listed)}")
            yield from self._found(listed)

    def _asked(
        self,
        images: ImageLike | Iterable[ImageLike],
        labels: Sequence[str],
        queries: Floats,
        threshold: float,
        thresholds: Mapping[str, float] | None,
        nms: float | None,
    ) -> Iterator[Located | Failure]:
        """Checked now; images are read later."""
        check_threshold(threshold)
        if nms is not None and not 0 <= nms <= 1:
            raise RequestError(f"nms must be from 0 to 1, not {nms:g}")
        least = np.array([(thresholds or {}).get(label, threshold) for label in labels])
        return self._answers(unembedded(self.list_images(images)), labels, queries, least, nms)

    def _answers(
        self,
        images: Iterable[Source | Failure],
        labels: Sequence[str],
        queries: Floats,
        least: Any,
        nms: float | None,
    ) -> Iterator[Located | Failure]:
        for seen, kept in self._found(images):
            if seen is None or isinstance(kept, Failure):
                assert isinstance(kept, Failure)
                yield kept
                continue
            boxes = answer(kept, labels, queries, least, nms)
            yield Located(seen.source.name, boxes, kept.size, notes=kept.notes, beside=seen.source.beside)

    def _found(self, images: Iterable[Source | Failure]) -> Iterator[tuple[Seen | None, Kept | Failure]]:
        """What each image holds: out of the store, else found now and kept."""
        maker = self._maker
        shelf = Shelf(self.memory, "owlv2", VERSION, self.recipe.digest, maker)

        def work(seen: Sequence[Seen]) -> list[Kept]:
            return [self._one(each, maker) for each in seen]

        flow = Flow(
            maker,
            work,
            limits=self.limits,
            workers=self.workers,
            streams=1,
            batch=1,
            recall=shelf.recall,
            digest_of=shelf.digest_of,
        )
        for each in flow.run(images):
            if isinstance(each, Failure):
                yield None, each
                continue
            seen, kept = each
            if seen.known is None:
                shelf.keep(seen.digest, kept, seen.stamp)
            yield seen, kept

    def _one(self, seen: Seen, maker: Padded) -> Kept:
        if seen.known is not None:
            known: Kept = seen.known
            return known
        assert seen.values is not None
        found = self.encoder.detect(maker.values(seen.values)[None])
        seen.values = None
        arrays = {
            "boxes": found.boxes[0],
            "objectness": found.objectness[0],
            # also where there is no store: an answer does not depend on whether it was asked before
            "classes": found.classes[0].astype(np.float16),
            "shift": found.shift[0],
            "scale": found.scale[0],
        }
        return Kept(seen.size, seen.notes, arrays)


def answer(
    kept: Kept, labels: Sequence[str], queries: Floats, least: Any, nms: float | None
) -> tuple[Box, ...]:
    """Boxes of what the queries name, best first, within the image.

    Args:
        kept: what the image holds.
        labels: of the queries.
        queries: float32[q, d], unit norm.
        least: the score that a box of each label must have.
        nms: how far two boxes of one label may overlap; None: as far as they do.
    """
    arrays = kept.arrays
    cosines = arrays["classes"].astype(np.float32) @ queries.T
    best = cosines.argmax(axis=1)  # shift and a positive scale are the patch's, whatever the query
    logits = (cosines[np.arange(len(best)), best] + arrays["shift"]) * arrays["scale"]
    scores = 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))
    (rows,) = np.nonzero(scores >= least[best])
    width, height = kept.size
    middle_x, middle_y, wide, tall = arrays["boxes"][rows].astype(np.float64).T * max(width, height)
    corners = np.stack(
        [
            np.clip(middle_x - wide / 2, 0, width),
            np.clip(middle_y - tall / 2, 0, height),
            np.clip(middle_x + wide / 2, 0, width),
            np.clip(middle_y + tall / 2, 0, height),
        ],
        axis=1,
    )
    inside = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])  # else it lies in the padding
    rows, corners = rows[inside], corners[inside]
    if nms is not None:
        stay = [
            own[suppressed(corners[own], scores[rows[own]], nms)]
            for label in range(len(labels))
            for own in [np.flatnonzero(best[rows] == label)]
            if len(own)
        ]
        chosen = np.concatenate(stay) if stay else np.empty(0, np.intp)
        rows, corners = rows[chosen], corners[chosen]
    order = np.argsort(-scores[rows], kind="stable")
    return tuple(
        Box(labels[best[row]], float(scores[row]), (left, top, right - left, bottom - top))
        for row, (left, top, right, bottom) in zip(rows[order], corners[order].tolist(), strict=True)
    )


def load_detector(
    model: str | Path = DEFAULT_DETECTOR,
    *,
    revision: str | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    runtime: Literal["auto", "openvino", "torch"] = "auto",
    workers: int | None = None,
    store: bool | str | Path = False,
    limits: Limits | None = None,
    progress: bool = False,
) -> Detector:
    """Load an OWLv2 checkpoint from the Hugging Face Hub or a folder.

    An image of 960 pixels takes some ten seconds on two cores. With a store, what an image holds is kept
    (3.7 MB), and another question to it takes milliseconds.

    Args:
        model: a Hub id, a folder in the Hub's layout, or "owlv2", which is the default.
        revision: branch, tag or commit on the Hub.
        device: ``auto`` takes a GPU where the torch extra and one are there, else OpenVINO on the CPU.
        precision: ``auto`` is bf16 where the processor has it, else f32; there is no int8.
        runtime: ``auto`` is OpenVINO on a CPU and torch on a GPU.
        workers: reading threads; one per core by default.
        store: keep what images hold, and use it again: True for the usual place, or a file.
        limits: what a single image may take, and which addresses may be fetched.
        progress: show downloads on stderr.

    Raises:
        CheckpointError: the model cannot be found, is damaged, or no OWLv2.
        DeviceError, MissingExtra: the device or the precision asked for is not there.
    """
    if precision == "int8":
        raise DeviceError(
            "int8 is for models that give one vector per image: a detector takes auto, f32, bf16 or f32-small"
        )
    checkpoint = find(_SHORT.get(str(model), model), revision, progress=progress)
    if not isinstance(checkpoint.config.vision, BoxTower):
        raise UnsupportedArchitecture(
            f"{checkpoint.name} finds no boxes of its own: `nshot locate --method tiles` takes it, or "
            f"clip.locate in Python; a model that does is {DEFAULT_DETECTOR}"
        )
    size = checkpoint.config.vision.image_size
    return Detector(
        checkpoint,
        encoders.load(checkpoint, device=device, precision=precision, runtime=runtime),
        Preprocessor.from_config(checkpoint.preprocessor, size=size),
        batch_size=1,
        workers=workers,
        store=None if store is False else Store(default_path() if store is True else Path(store)),
        limits=limits or Limits(),
    )
