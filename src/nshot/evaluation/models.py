"""Which model: one against the other on a person's own images and machine, and against published answers."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nshot.classifier.zero_shot import zero_shot
from nshot.embedder import Embedder
from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.evaluation.evaluation import evaluate
from nshot.labels.prompts import DEFAULT_TEMPLATE
from nshot.metrics import Interval, paired_gain
from nshot.models.catalogue import entry
from nshot.models.references import (
    DRAWN,
    MOST_OFF,
    PHOTOGRAPHS,
    REFERENCES,
    TOKENS,
    TOKENS_OF,
    Reference,
    drawing,
    off_by,
    photographs,
)
from nshot.pages.charts import Axis, Series, alone

_SIZE = (640, 480)  # of the images whose speed is measured


@dataclass(frozen=True, slots=True)
class Compared:
    """One model on labelled images.

    Attributes:
        name: as it was asked for.
        images: how many it answered.
        top1: share of right answers, zero-shot.
        interval: of it, 95 %.
        gain: interval of the difference to the first model, on the same images; None for the first.
        calibration_error: expected calibration error of the scores as they are.
        images_per_second: end to end from JPEG files of 640x480 pixels, here.
        memory: bytes resident in this process after loading and encoding, less those before; None if unknown.
        published: ImageNet zero-shot top-1 in per cent, where the catalogue has it.
    """

    name: str
    images: int
    top1: float
    interval: Interval
    gain: Interval | None
    calibration_error: float
    images_per_second: float
    memory: int | None
    published: float | None


def compare_models(
    names: Sequence[str],
    load: Callable[[str], Embedder],
    embed: Callable[[Embedder], Embeddings],
    *,
    templates: Sequence[str] = (DEFAULT_TEMPLATE,),
    seconds: float = 3.0,
) -> tuple[Compared, ...]:
    """Measure models one after the other, zero-shot, on the same labelled images.

    Args:
        names: models; the first is what the others are compared with.
        load: makes an embedder of a name.
        embed: the labelled images, embedded by one.
        templates: of the prompts.
        seconds: how long each model's speed is measured.

    Raises:
        RequestError: fewer than two models, or one twice; or images without labels.
    """
    if len(set(names)) < max(2, len(names)):
        raise RequestError("name two models or more, each once")
    rows: list[Compared] = []
    first: dict[str, bool] = {}
    for name in names:
        before = _resident()
        embedder = load(name)
        images = embed(embedder)
        found = evaluate(zero_shot(embedder, list(images.classes), templates), images)
        speed = images_per_second(embedder, seconds)
        after = _resident()
        right = dict(zip(images.sources, map(bool, found.right), strict=True))
        first = first or right
        both = [source for source in first if source in right]
        gain = paired_gain([right[s] for s in both], [first[s] for s in both]) if rows else None
        known = entry(name)
        rows.append(
            Compared(
                name,
                len(images),
                float(np.mean(found.right)),
                found.interval,
                gain,
                found.reliability.error,
                speed,
                None if before is None or after is None else max(0, after - before),
                None if known is None else known.imagenet,
            )
        )
    return tuple(rows)


def images_per_second(embedder: Embedder, seconds: float = 3.0) -> float:
    """Images encoded per second here, from seeded JPEG files in memory on; no store is asked."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(8):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize(_SIZE)
        coarse.save(buffer := io.BytesIO(), "JPEG", quality=90)
        files.append(buffer.getvalue())
    fresh = Embedder(
        embedder.checkpoint,
        embedder.encoder,
        embedder.preprocessor,
        batch_size=embedder.batch_size,
        workers=embedder.workers,
    )
    batch = embedder.batch_size * max(1, embedder.encoder.streams)
    _run(fresh, files, batch)  # compiles
    started, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - started < seconds:
        # a byte behind the end makes each file another one, which no memory of vectors knows
        _run(fresh, [data + count.to_bytes(8, "little") for data in files], batch)
        count += batch
    return count / (time.perf_counter() - started)


def _run(embedder: Embedder, files: Sequence[bytes], count: int) -> None:
    for _ in embedder.embed_images([files[i % len(files)] + bytes([i // len(files)]) for i in range(count)]):
        pass


def frontier(rows: Iterable[Compared]) -> str:
    """Accuracy over speed as an SVG document: each model a point with its interval."""
    series = [
        Series(
            row.name,
            [row.images_per_second],
            [row.top1],
            [row.interval.low],
            [row.interval.high],
        )
        for row in rows
    ]
    return alone(
        "Accuracy and speed on this machine",
        series,
        Axis("images per second", log=True),
        Axis("right answers", share=True),
        note="Zero-shot, on the images that were given. Further up and to the right is better.",
    )


class Verified(NamedTuple):
    """A reference and what was found here; None where its image is not at hand."""

    reference: Reference
    logits: tuple[float, ...] | None

    @property
    def agrees(self) -> bool | None:
        """Whether every logit is within the reference's tolerance."""
        if self.logits is None:
            return None
        pairs = zip(self.logits, self.reference.logits, strict=True)
        return all(abs(here - there) <= self.reference.atol for here, there in pairs)


def verify(
    embedder: Embedder, images: Path | None = None, references: Sequence[Reference] = REFERENCES
) -> tuple[Verified, ...]:
    """Compare a model's logits here with those that are published for it.

    Args:
        embedder: the model, by f32 and exact decoding, else the figures differ by a little more.
        images: folder of the references' image files.
        references: of any models; those of others are left out.
    """
    name = embedder.checkpoint.name
    return tuple(
        Verified(reference, _logits(embedder, reference, images))
        for reference in references
        if reference.model == name
    )


class Photograph(NamedTuple):
    """A photograph with a recorded vector.

    Attributes:
        name: of its file.
        off: how far its vector here is from the recorded one, see ``references.off_by``; None where its file
            is not at hand or cannot be read.
    """

    name: str
    off: float | None

    @property
    def agrees(self) -> bool | None:
        """Whether it is as near as another JPEG decoder leaves it."""
        return None if self.off is None else self.off <= MOST_OFF


def verify_photographs(
    embedder: Embedder, images: Path | None = None, recorded: Mapping[str, dict[int, float]] | None = None
) -> tuple[Photograph, ...]:
    """Compare vectors of the 25 photographs with the recorded ones; none for another model than the default.

    Args:
        embedder: the model, as for ``verify``.
        images: folder of the photographs' files.
        recorded: numbers of the vectors by file and place; None: those that come with nshot.
    """
    if recorded is None:
        recorded = photographs() if embedder.checkpoint.name == PHOTOGRAPHS else {}
    files = {name: images / name for name in recorded if images is not None and (images / name).is_file()}
    found = embedder.embed(list(files.values()))
    vectors = dict(zip(found.sources, found.vectors, strict=True))
    return tuple(
        Photograph(
            name,
            off_by(vectors[source], numbers)
            if name in files and (source := str(files[name])) in vectors
            else None,
        )
        for name, numbers in recorded.items()
    )


def verify_tokens(embedder: Embedder) -> dict[str, bool]:
    """Whether the tokenizer gives the published ids of a few texts; none are published for most models."""
    if not embedder.checkpoint.name.startswith(TOKENS_OF):
        return {}
    rows = embedder.tokenizer.encode(list(TOKENS))
    return {
        text: row[: len(ids)].tolist() == list(ids)
        for (text, ids), row in zip(TOKENS.items(), rows, strict=True)
    }


def drawn_logits(embedder: Embedder) -> tuple[float, ...]:
    """The logits of the drawing with ``references.DRAWN``, which needs no file and runs for any model."""
    return _logits(embedder, Reference("", "", None, DRAWN, (), 0.0, ""), None) or ()


def _logits(embedder: Embedder, reference: Reference, images: Path | None) -> tuple[float, ...] | None:
    if reference.image is None:
        source: Image.Image | Path = drawing()
    elif images is None or not (source := images / reference.image).is_file():
        return None
    vector = embedder.embed([source]).vectors
    texts = embedder.embed_texts(list(reference.texts))
    cosines = (texts.astype(np.float64) @ vector[0].astype(np.float64)).tolist()
    return tuple(embedder.logit_scale * cosine + embedder.logit_bias for cosine in cosines)


def _resident() -> int | None:
    """Bytes of this process in memory, where the system says so."""
    if not sys.platform.startswith("linux"):
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    import resource

    return pages * resource.getpagesize()
