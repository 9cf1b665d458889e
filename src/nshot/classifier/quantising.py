"""An image tower in 8 bits that proves itself: calibrated on one's own images, measured on others."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from nshot import encoders
from nshot.classifier.cascading import draw
from nshot.classifier.classifier import Classifier
from nshot.decision.staging import margins_of
from nshot.embedder import Embedder, ImageLike
from nshot.encoders import Encoder
from nshot.errors import RequestError
from nshot.metrics import wilson
from nshot.types import Embedded, Floats, Pixels

CALIBRATED_ON = 300
"""Images that the ranges of activations are read from."""

CHECKED_ON = 1000
"""Images at most that the report is about: none that was calibrated on."""

_LEAST = 100  # images to check on: fewer say too little about 98 %
_BANDS = 5  # of the margin under f32, with as many images in each


class Flip(NamedTuple):
    """An image with another answer in int8 than in f32."""

    source: str
    f32: str
    int8: str
    margin: float


class Band(NamedTuple):
    """Images whose margin under f32 lies in one part of all of them: best logit less the second."""

    low: float
    high: float
    images: int
    agreement: float


@dataclass(frozen=True, slots=True)
class Int8Report:
    """What int8 does to the vectors and the answers of images that it was not calibrated on.

    Attributes:
        calibrated_on: images that it was calibrated on.
        images: images of this report.
        cosine_median: of an image's vectors in int8 and in f32, the median.
        cosine_low: the cosine that 1 % of the images fall below.
        agreement: share of the images with the same best label.
        interval: its 95 % interval (Wilson's, corrected for continuity).
        bands: agreement by margin, from the least sure fifth to the surest.
        flips: images with another answer, the surest first.
        milliseconds: processor time per image, by precision: "f32", "int8", and where the processor has it
            "bf16".
        megabytes: size of the compiled image tower, by precision.
        processor: what it was timed on.
    """

    calibrated_on: int
    images: int
    cosine_median: float
    cosine_low: float
    agreement: float
    interval: tuple[float, float]
    bands: tuple[Band, ...]
    flips: tuple[Flip, ...]
    milliseconds: Mapping[str, float]
    megabytes: Mapping[str, float]
    processor: str

    @property
    def gain(self) -> float:
        """How many times as fast as f32 int8 is on this machine."""
        return self.milliseconds["f32"] / self.milliseconds["int8"]

    @property
    def flipped(self) -> int:
        """How many answers changed."""
        return len(self.flips)

    @property
    def accepted(self) -> bool:
        """Whether int8 may be used by itself: at least 98 % of its answers are those of f32."""
        from nshot.encoders.int8 import LEAST

        return self.agreement >= LEAST

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        told = asdict(self)
        told["bands"] = [each._asdict() for each in self.bands]
        told["flips"] = [each._asdict() for each in self.flips]
        return told | {"gain": self.gain, "flipped": self.flipped, "accepted": self.accepted}


def quantise(
    model: Embedder,
    classifier: Classifier,
    images: ImageLike | Iterable[ImageLike],
    *,
    seed: int = 0,
    progress: bool = False,
) -> Int8Report:
    """Make the int8 form of a model's image tower on one's own images, and measure it on others of them.

    The form and its report are kept in the cache folder; ``nshot.load(..., precision="int8")`` takes it,
    unless less than 98 % of its answers are those of f32.

    Args:
        model: a model that runs on OpenVINO.
        classifier: the question that answers are compared for.
        images: at least 400 images like those that will be asked; up to 1300 are drawn from them at random.
        seed: of the draw.
        progress: show on stderr how far it is.

    Raises:
        MissingExtra: nncf is not installed.
        OutputError: the form cannot be kept.
        RequestError: too few images, or a classifier of another model.
    """
    from nshot.encoders import int8

    classifier.check_space(model.recipe, model.name)
    checkpoint = model.checkpoint
    drawn = draw(model.list_images(images), CALIBRATED_ON + CHECKED_ON, random.Random(seed))
    exact = encoders.load(checkpoint, device="cpu", precision="f32", runtime="openvino")
    seen = _Seen(exact)
    own = Embedder(
        checkpoint, cast("Encoder", seen), model.preprocessor, workers=model.workers, limits=model.limits
    )
    there = [each for each in own.embed_images(drawn) if isinstance(each, Embedded)]
    if len(there) < CALIBRATED_ON + _LEAST:
        raise RequestError(
            f"{len(there)} images are too few: {CALIBRATED_ON} to calibrate on, and {_LEAST} or more "
            "others to measure on"
        )
    pixels = np.concatenate(seen.pixels)
    int8.quantise(checkpoint, pixels[:CALIBRATED_ON], progress=progress)
    small, low = (
        encoders.load(checkpoint, device="cpu", precision=name, runtime="openvino")
        for name in ("int8", "bf16")
    )
    measured = {"f32": exact, "int8": small} | ({"bf16": low} if low.precision == "bf16" else {})
    there, pixels = there[CALIBRATED_ON:], pixels[CALIBRATED_ON:]
    before, after = np.stack([each.vector for each in there]), small.encode_images(pixels)
    found = _compared(classifier, [each.source for each in there], before, after)
    report = Int8Report(
        CALIBRATED_ON,
        len(there),
        *found,
        milliseconds=int8.timed(measured, pixels[: 4 * exact.batch]),
        megabytes={name: _size(encoder) for name, encoder in measured.items()},
        processor=int8.processor(),
    )
    int8.keep_report(checkpoint, report.to_dict())
    return report


def _compared(
    classifier: Classifier, names: Sequence[str], before: Floats, after: Floats
) -> tuple[float, float, float, tuple[float, float], tuple[Band, ...], tuple[Flip, ...]]:
    cosines = (before.astype(np.float64) * after).sum(axis=1)
    logits = classifier.logits(before)
    was, now, margins = logits.argmax(axis=1), classifier.logits(after).argmax(axis=1), margins_of(logits)
    same = was == now
    low, high = wilson(same.sum(), len(same))
    order = np.argsort(margins, kind="stable")
    bands = tuple(
        Band(float(margins[rows[0]]), float(margins[rows[-1]]), len(rows), float(same[rows].mean()))
        for rows in np.array_split(order, _BANDS)
    )
    labels = classifier.labels
    flips = [
        Flip(names[row], labels[was[row]], labels[now[row]], float(margins[row]))
        for row in order[::-1]
        if not same[row]
    ]
    return (
        float(np.median(cosines)),
        float(np.quantile(cosines, 0.01)),
        float(same.mean()),
        (float(low), float(high)),
        bands,
        tuple(flips),
    )


def _size(encoder: Encoder) -> float:
    """The compiled image tower's file, in MB."""
    path = getattr(encoder, "compiled", None)
    return path.stat().st_size / 1e6 if isinstance(path, Path) and path.is_file() else float("nan")


class _Seen:
    """An encoder, one stream at a time, that keeps the pixels that it was given."""

    streams = 1

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.pixels: list[Pixels] = []

    def encode_images(self, pixels: Pixels) -> Floats:
        self.pixels.append(pixels)
        return self._encoder.encode_images(pixels)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)
