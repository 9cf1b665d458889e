"""Images of a training set, decoded once into a file, and the order in which an epoch meets them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nshot.atomic import writing
from nshot.errors import ImageError, RequestError, SourceError
from nshot.images.prepare import Preparing
from nshot.images.sources import Source, expand
from nshot.sketchbook import Scene, caption, sample
from nshot.sketchbook.captions import with_article
from nshot.sketchbook.pairs import drawings, scene_seed
from nshot.train.rows import RowFile
from nshot.types import Failure, Pixels

if TYPE_CHECKING:
    from nshot.images.preprocess import Preprocessor

Pair: TypeAlias = tuple[Any, str | Sequence[str]]
"""An image (``Source``, path, bytes, PIL image or uint8 array) and its caption, or its captions."""

_LESSONS = 3  # times that the first lesson is gone through
_CORPUS = 20_000  # captions that a vocabulary is learnt from


class Pairs(Protocol):
    """What the training loop needs of a training set."""

    def __len__(self) -> int:
        """How many images there are."""

    def batch(self, indices: Sequence[int], epoch: int) -> tuple[Pixels, list[str]]:
        """The images, uint8[n,3,s,s], and a caption of each: the same for the same arguments."""

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The rows of an epoch: a function of its arguments alone, so a resumed run goes on in it."""

    def corpus(self) -> Iterator[str]:
        """Captions to learn a vocabulary from."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images of one size with one or more captions each.

    Attributes:
        pixels: uint8[m,3,s,s], in memory or in a file; or float32[m,d], their vectors by a tower that is
            locked.
        captions: the captions of each row of ``pixels``; an epoch uses one of them.
        rows: int64[n], the rows that belong to this set.
        by_class: the captions are a class's prompts: an epoch uses the same one for all images, since two
            prompts of one class would push each other apart.
        balanced: each class as often as any other in every batch.
        failures: what could not be used and was left out.
        digest: of the images' bytes and their captions, hexadecimal.
    """

    pixels: NDArray[Any] | RowFile
    captions: Sequence[Sequence[str]]
    rows: NDArray[np.int64]
    by_class: bool = False
    balanced: bool = False
    failures: tuple[Failure, ...] = ()
    digest: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self) -> list[tuple[str, ...]]:
        """Each image's captions."""
        return [tuple(self.captions[row]) for row in self.rows.tolist()]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Some of the images, uint8[stop-start,3,s,s] or float32[stop-start,d]."""
        return self.pixels[self.rows[start:stop]]

    def batch(self, indices: Sequence[int], epoch: int) -> tuple[Pixels, list[str]]:
        """The images and a caption of each; the captions of one image take turns."""
        rows = self.rows[np.asarray(indices, np.int64)]
        chosen = []
        for row in rows.tolist():
            own = self.captions[row]
            chosen.append(own[(epoch if self.by_class else row + epoch) % len(own)])
        return self.pixels[rows], chosen

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Every row once; balanced, as many in which the classes take turns, small ones more than once."""
        rows = shuffled(len(self), seed, epoch)
        if not self.balanced:
            return rows
        numbers: dict[tuple[str, ...], int] = {}
        classes = np.array([numbers.setdefault(text, len(numbers)) for text in self.texts()])[rows]
        turns = -(-len(rows) // len(numbers))
        each = [np.resize(rows[classes == number], turns) for number in range(len(numbers))]
        return np.stack(each, axis=1).ravel()[: len(rows)]

    def corpus(self) -> Iterator[str]:
        """The first captions."""
        for texts in self.texts()[:_CORPUS]:
            yield from texts

    def split(self, share: float, seed: int, most: int = 1000) -> tuple[Images, Images]:
        """(training, held out), no pixel copied: the same for the same arguments."""
        count = min(round(len(self) * share), most)
        rows = self.rows[np.random.default_rng((seed, 7)).permutation(len(self))]
        return replace(self, rows=np.sort(rows[count:])), replace(self, rows=np.sort(rows[:count]))


class Sketchbook:
    """The sketchbook's drawings, newly worded each epoch, after a first lesson in shapes.

    Colours tell most captions apart, so a model learns those and for very long no shapes. The lesson is easy
    drawings, one plain object in the flat style, whose captions name the shape alone: it takes two minutes
    (Bengio et al., "Curriculum learning", 2009). Rows from ``len`` on are the lesson's.
    """

    def __init__(self, folder: Path, count: int, seed: int = 0) -> None:
        self._images = drawings(folder, count, seed)
        self._seed = seed
        self._easy: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: Sequence[int], epoch: int) -> tuple[Pixels, list[str]]:
        """The drawings, uint8[n,3,48,48], and a caption of each."""
        rows = np.asarray(indices, np.int64)
        texts = []
        for row in rows.tolist():
            number = scene_seed(self._seed, row % len(self))
            scene = sample(number)
            in_lesson = row >= len(self)
            shape = scene.things[0].shape
            texts.append(with_article(shape) if in_lesson else caption(scene, number * 1009 + epoch))
        return self._images[rows % len(self)], texts

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Every row once; the first epoch begins with the lesson and is no longer for it."""
        rows = shuffled(len(self), seed, epoch)
        if epoch:
            return rows
        if self._easy is None:
            scenes = (sample(scene_seed(self._seed, index)) for index in range(len(self)))
            self._easy = np.array([_is_easy(scene) for scene in scenes])
        easy = rows[self._easy[rows]]
        lesson = [
            easy[shuffled(len(easy), seed, number)] + number * len(self) for number in range(1, 1 + _LESSONS)
        ]
        return np.concatenate([*lesson, rows])[: len(rows)]

    def corpus(self) -> Iterator[str]:
        """Captions of the first scenes."""
        return (caption(sample(number), number) for number in range(_CORPUS))


def shuffled(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Every number below ``count`` once, in an order that follows from seed and epoch alone."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def _is_easy(scene: Scene) -> bool:
    return scene.style == "flat" and len(scene.things) == 1 and scene.things[0].texture == "plain"


# Decoding, once


@dataclass(slots=True)
class _Read:
    """One pair as a worker leaves it: its digest, and its pixels or why there are none."""

    name: str
    captions: list[str]
    digest: bytes
    pixels: bytes = b""
    failure: Failure | None = None


def prepared(pairs: Iterable[Pair], preprocessor: Preprocessor, folder: Path, **kind: bool) -> Images:
    """Decode images once, into a file in ``folder``, as nshot does for classifying.

    Args:
        pairs: images with a caption or several.
        preprocessor: the model's own.
        folder: where the pixels are kept while they are trained on. A second call finds them there, and reads
            the images anew only to see that they are the same.
        kind: ``by_class`` and ``balanced`` of the ``Images``.

    Raises:
        SourceError: no image could be read.
        RequestError: there is nothing to tell apart, or the folder's images are not those of ``pairs``.
        OutputError: the folder cannot be written, or the disk is full; what was half written is removed.
    """
    known = _known(folder, preprocessor)
    captions: list[list[str]] = []
    failures: list[Failure] = []
    digest, distinct = hashlib.sha256(preprocessor.fingerprint.encode()), set()
    part = folder / "images.part"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(b"")  # a run that was killed here may have left some
    try:
        with part.open("ab", buffering=0) as file:
            for each in _in_parallel(partial(_read, preprocessor=None if known else preprocessor), pairs):
                digest.update(each.digest + json.dumps(each.captions).encode())
                if each.failure is not None:
                    failures.append(each.failure)
                    continue
                captions.append(each.captions)
                distinct.add(each.digest)
                with writing(folder):
                    file.write(each.pixels)
        if known is None:
            _worth_training(captions, failures, len(distinct))
            failed = [[each.source, each.type, each.message] for each in failures]
            content = {"digest": digest.hexdigest(), "captions": captions, "failures": failed}
            with writing(folder):
                part.replace(folder / "images.raw")
                part.write_text(json.dumps(content))
                part.replace(folder / "images.json")
        elif known["digest"] != digest.hexdigest():
            raise RequestError(
                f"{folder} holds other images or captions than those given now: resume with the same data, "
                f"or remove {folder.parent} to begin anew"
            )
    finally:
        part.unlink(missing_ok=True)
    return reopened(folder, preprocessor, **kind)


def reopened(folder: Path, preprocessor: Preprocessor, **kind: bool) -> Images:
    """What ``prepared`` left in ``folder``, unread: for the other processes of a run."""
    known = _known(folder, preprocessor)
    assert known is not None
    failures = tuple(Failure(*each) for each in known["failures"])
    rows = np.arange(len(known["captions"]))
    pixels = RowFile(folder / "images.raw", (3, preprocessor.size, preprocessor.size), "uint8")
    return Images(pixels, known["captions"], rows, **kind, failures=failures, digest=known["digest"])


def _known(folder: Path, preprocessor: Preprocessor) -> dict[str, Any] | None:
    """What is said of the pixels in ``folder``; None where there are none, or not all of them."""
    try:
        known = json.loads((folder / "images.json").read_text())
        size = len(known["captions"]) * 3 * preprocessor.size**2
        return known if (folder / "images.raw").stat().st_size == size and "digest" in known else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(number: int, pair: Pair, *, preprocessor: Preprocessor | None) -> _Read:
    image, texts = pair
    given: list[Any] = list(texts) if isinstance(texts, (list, tuple)) else [texts]
    if strange := [text for text in given if not isinstance(text, str) and text is not None]:
        raise RequestError(f"image {number}: a caption is a text, not {strange[0]!r}")
    captions = [text.strip() for text in given if text and text.strip()]
    source = image if isinstance(image, Source) else _source(image, number)
    result = _Read(source.name, captions, b"")
    try:
        data = source.read()
        result.digest = hashlib.sha256(data).digest()
        if not captions:
            result.failure = Failure(source.name, "NoCaption", "it has no caption")
        elif preprocessor is not None:
            result.pixels = Preparing(preprocessor)(data).pixels.tobytes()
    except ImageError as error:
        result.failure = Failure.of(source.name, error)
    return result


def _source(image: Any, number: int) -> Source:
    if isinstance(image, (str, Path)):
        return next(iter(expand([image])))
    return Source.of(image, name=f"[{number}]")


def _in_parallel(read: Callable[[int, Pair], _Read], pairs: Iterable[Pair]) -> Iterator[_Read]:
    """In order, with some under way on every core."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[_Read]] = deque()
        try:
            for number, pair in enumerate(pairs):
                ahead.append(pool.submit(read, number, pair))
                if len(ahead) > 4 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _worth_training(captions: list[list[str]], failures: list[Failure], images: int) -> None:
    if not captions:
        why = f": {failures[0].source}: {failures[0].message}" if failures else ""
        raise SourceError(f"there is no image to train on{why}")
    texts = set(map(tuple, captions))
    if len(texts) == 1:
        raise RequestError(
            f"all {len(captions)} images have the same caption ({captions[0][0]!r}): training tells captions "
            "apart, and needs two at least"
        )
    if images == 1:
        raise RequestError(f"all {len(captions)} images are the same image: there is nothing to learn from")
