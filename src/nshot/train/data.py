"""Images with captions to train on: tables, folders of classes, any iterable, the sketchbook."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nshot.errors import ImageError, SourceError
from nshot.images.decode import decode
from nshot.images.sources import Source, expand, table_sources
from nshot.images.tables import open_table
from nshot.labels.prompts import DEFAULT_TEMPLATE, write_prompts
from nshot.sketchbook import Scene, caption, sample
from nshot.sketchbook.captions import with_article
from nshot.sketchbook.pairs import drawings, scene_seed
from nshot.types import Failure, Pixels

if TYPE_CHECKING:
    from nshot.images.preprocess import Preprocessor

_CAPTION_COLUMNS = ("caption", "text", "title", "sentence", "description", "label")
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
        pixels: uint8[n,3,s,s], usually memory-mapped.
        captions: each image's captions; an epoch uses one of them.
        failures: what could not be read and was left out.
    """

    pixels: Pixels
    captions: list[Sequence[str]]
    failures: list[Failure] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.captions)

    def batch(self, indices: Sequence[int], epoch: int) -> tuple[Pixels, list[str]]:
        """The images and a caption of each; the captions of one image take turns."""
        chosen = [self.captions[i][(i + epoch) % len(self.captions[i])] for i in indices]
        return self.pixels[np.asarray(indices, np.int64)], chosen

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Every row once."""
        return shuffled(len(self), seed, epoch)

    def corpus(self) -> Iterator[str]:
        """The first captions."""
        for texts in self.captions[:_CORPUS]:
            yield from texts

    def only(self, indices: NDArray[np.int64]) -> Images:
        """Some of them."""
        return Images(self.pixels[indices], [self.captions[i] for i in indices], self.failures)


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


def listed(
    path: Path,
    *,
    templates: Sequence[str] = (DEFAULT_TEMPLATE,),
    image_column: str | None = None,
    caption_column: str | None = None,
) -> Iterator[tuple[Source, Sequence[str]]]:
    """The images that a table or a folder of classes holds, with their captions.

    Args:
        path: a .csv, .tsv, .jsonl or .parquet table of images and captions, or a folder of classes' folders.
        templates: what a class's captions are written into.
        image_column: the table's column of images; None looks for a well-known name.
        caption_column: the table's column of captions; None looks for a well-known name.

    Raises:
        SourceError: nothing there, or no captions.
        MissingExtra: a Parquet table, and pyarrow is not installed.
    """
    if path.is_dir():
        return _classes(path, templates)
    if not path.is_file():
        raise SourceError(f"{path} is not there: give a table of images and captions, or a folder of classes")
    table = open_table(path)
    otherwise = "captions ({}); name one with --caption-column, or call it 'caption'"
    column = table.column(caption_column, _CAPTION_COLUMNS, otherwise)
    rows = table_sources(table, [column], image_column=image_column)
    return ((source, _texts(cell)) for source, (cell,) in rows)


def prepared(
    pairs: Iterable[tuple[Any, str | Sequence[str]]], preprocessor: Preprocessor, folder: Path
) -> Images:
    """Decode images once, into a file in ``folder``, as nshot does for classifying.

    Args:
        pairs: images (``Source``, path, bytes, PIL image or uint8 array) with a caption or several.
        preprocessor: the model's own.
        folder: where the pixels are kept while they are trained on; a second call finds them there.

    Raises:
        SourceError: no image could be read.
    """
    done, pixels = folder / "images.json", folder / "images.npy"
    if done.exists():
        known = json.loads(done.read_text())
        failures = [Failure(*each) for each in known["failures"]]
        return Images(_mapped(pixels, len(known["captions"]), preprocessor.size), known["captions"], failures)
    folder.mkdir(parents=True, exist_ok=True)
    captions: list[Sequence[str]] = []
    failed: list[Failure] = []
    with pixels.open("wb") as file:
        for number, (image, texts) in enumerate(pairs):
            source = _source(image, number)
            try:
                file.write(preprocessor(decode(source.read()).image).tobytes())
            except ImageError as error:
                failed.append(Failure.of(source.name, error))
            else:
                captions.append([texts] if isinstance(texts, str) else list(texts))
    if not captions:
        raise SourceError(
            f"no image to train on{f': {failed[0].source}: {failed[0].message}' if failed else ''}"
        )
    failures_as_rows = [[each.source, each.type, each.message] for each in failed]
    done.write_text(json.dumps({"captions": captions, "failures": failures_as_rows}))
    return Images(_mapped(pixels, len(captions), preprocessor.size), captions, failed)


def split(images: Images, share: float, seed: int, most: int = 1000) -> tuple[Images, Images]:
    """(training, held out): the same for the same arguments; at most ``most`` are held out."""
    count = min(round(len(images) * share), most)
    rows = np.random.default_rng((seed, 7)).permutation(len(images))
    return images.only(np.sort(rows[count:])), images.only(np.sort(rows[:count]))


def _mapped(path: Path, count: int, size: int) -> Pixels:
    return np.memmap(path, np.uint8, "r", shape=(count, 3, size, size))


def _source(image: Any, number: int) -> Source:
    if isinstance(image, Source):
        return image
    if isinstance(image, (str, Path)):
        return next(iter(expand([image])))
    return Source.of(image, name=f"[{number}]")


def _classes(folder: Path, templates: Sequence[str]) -> Iterator[tuple[Source, Sequence[str]]]:
    names = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not names:
        raise SourceError(f"{folder} holds no folders: give one folder for each class")
    for label in write_prompts(names, templates):
        for source in expand([folder / label.label]):
            yield source, label.prompts


def _texts(cell: Any) -> list[str]:
    """A caption, or several."""
    return [text if isinstance(text, str) else "" for text in (cell if isinstance(cell, list) else [cell])]
