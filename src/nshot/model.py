"""A loaded model with everything that it can be asked: what ``nshot.load`` returns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nshot import encoders
from nshot.classifier.classifier import Classifier
from nshot.classifier.facets import Facets, open_classifier
from nshot.classifier.predictions import Predictions
from nshot.classifier.several import several_labels, several_zero_shot
from nshot.classifier.tree import TreeClassifier
from nshot.classifier.zero_shot import zero_shot
from nshot.embedder import Embedder, ImageLike
from nshot.embeddings import Embeddings, is_vector_file, read_vectors
from nshot.encoders import Device, Precision
from nshot.errors import RequestError, UnsupportedArchitecture
from nshot.images.preprocess import Decode, Fit, Preprocessor
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels
from nshot.models.checkpoint import DEFAULT_MODEL, find
from nshot.models.owlv2 import WHAT, BoxTower
from nshot.store.store import Store, default_path
from nshot.types import Failure, Limits, Located

if TYPE_CHECKING:
    from nshot.regions.heatmaps import Heatmap
    from nshot.search import Hits, Index


class Model(Embedder):
    """A loaded model: vectors of images and texts, and the questions that are asked of them in one line.

    Build it with ``nshot.load``. Safe to use from one thread at a time.
    """

    def classify(
        self,
        images: ImageLike | Iterable[ImageLike] | Embeddings,
        labels: Labels | Classifier,
        *,
        templates: Sequence[str] = (DEFAULT_TEMPLATE,),
        top_k: int = 5,
        multi: bool = False,
    ) -> Predictions:
        """Say which label fits each image, or which labels do.

        Args:
            images: as for ``embed_images``.
            labels: names, ``{label: [synonyms or whole prompts]}``, or a classifier.
            templates: the prompts, each with ``{}`` where the label goes; several are averaged.
            top_k: how many labels to tell of each image, at most.
            multi: an image may show any number of the labels: each answer's ``labels`` holds them.

        Raises:
            LabelError: a label that is empty, given twice, or too long for the model, by name.
            RequestError: a classifier or embeddings of another model.
        """
        classifier = self._asked(labels, templates, multi=multi)
        return Predictions(classifier.stream(self.embed_images(images), top_k=top_k))

    def heatmaps(
        self,
        images: ImageLike | Iterable[ImageLike],
        labels: Labels | Classifier,
        *,
        templates: Sequence[str] = (DEFAULT_TEMPLATE,),
        top_k: int = 5,
    ) -> Iterator[Heatmap | Failure]:
        """Say where in each image the evidence for each label is (MaskCLIP: Zhou et al. 2022).

            for heatmap in clip.heatmaps("photos/", ["cat", "dog"]):
                if heatmap.label is not None:
                    heatmap.overlay().save(...)     # the best label's; heatmap.overlay("dog") another's

        Args:
            images: as for ``embed_images``, but not what is embedded already: vectors have no patches.
            labels: names, ``{label: [synonyms or whole prompts]}``, or a classifier.
            templates: the prompts, each with ``{}`` where the label goes; several are averaged.
            top_k: how many labels the answer in each heatmap tells, at most.

        Yields:
            In input order a ``Heatmap`` for each image, with the answer that ``classify`` gives, or the
            ``Failure`` that says why there is none.

        Raises:
            LabelError: a label that is empty, given twice, or too long for the model, by name.
            RequestError: a classifier of another model, or vectors in the place of images.
        """
        from nshot.regions.heatmaps import heatmaps  # not before it is asked for

        classifier = self._asked(labels, templates)
        return heatmaps(self, self.list_images(images), classifier, top_k=top_k)

    def locate(
        self,
        images: ImageLike | Iterable[ImageLike],
        labels: Labels | Classifier,
        *,
        templates: Sequence[str] = (DEFAULT_TEMPLATE,),
        background: Labels | None = None,
        levels: int = 3,
        overlap: float = 0.5,
        threshold: float = 0.1,
    ) -> Iterator[Located | Failure]:
        """Say where in each image the labels are, by tiles: crops at several scales, the best one per label.

        For small things that the model's square throws away. A box is a whole tile, so it is coarse; with a
        store, tiles are encoded once and asked anything. ``nshot.load_detector`` gives finer boxes, slowly.

        Args:
            images: as for ``embed_images``, but not what is embedded already.
            labels: names, ``{label: [synonyms or whole prompts]}``, or a classifier.
            templates: the prompts, each with ``{}`` where the label goes; several are averaged.
            background: what else there may be in the images, for a model that compares labels by softmax;
                everyday things by default. Empty: the labels are compared with each other alone.
            levels: scales: tiles as wide as the shorter edge, a half of it, a quarter ...
            overlap: share of a tile's side that it shares with the next one, from 0 to 0.9.
            threshold: the score that a box must have, in [0, 1]. A score's odds are those of the tile divided
                by the number of tiles, since the best of many is high by chance.

        Yields:
            In input order a ``Located`` for each image, or the ``Failure`` that says why there is none.

        Raises:
            LabelError: a label that is empty, given twice, or too long for the model, by name.
            RequestError: a classifier of another model, levels or overlap out of range, one label without
                a background, or vectors in the place of images.
        """
        from nshot.regions import asked_by_tiles  # not before it is asked for

        classifier = self._asked(labels, templates)
        return asked_by_tiles(
            self,
            self.list_images(images),
            classifier,
            background=background,
            templates=templates,
            levels=levels,
            overlap=overlap,
            threshold=threshold,
        )

    def _asked(
        self, labels: Labels | Classifier, templates: Sequence[str], *, multi: bool = False
    ) -> Classifier:
        """Labels as a classifier, and a classifier as it is, if it is of this model."""
        if isinstance(labels, Classifier):
            labels.check_space(self.recipe, self.name)
            return several_labels(labels, None) if multi else labels
        return (several_zero_shot if multi else zero_shot)(self, labels, templates)

    def search(
        self,
        images: ImageLike | Iterable[ImageLike] | Embeddings | Index,
        text: str | Sequence[str] | None = None,
        *,
        like: ImageLike | Iterable[ImageLike] | None = None,
        against: str | Sequence[str] = (),
        unlike: ImageLike | Iterable[ImageLike] | None = None,
        n: int = 20,
        diversity: float = 0.0,
    ) -> Hits:
        """Find the images nearest to a question; ``.fits`` of the answer says whether anything fits.

        Args:
            images: as for ``embed_images``, or vectors that are there already.
            text: what to look for, in words; several are one question, their mean.
            like: images to look for the like of.
            against: texts to stay away from.
            unlike: images to stay away from.
            n: how many images to find.
            diversity: 0 for the nearest; toward 1, hits that differ from each other.

        Raises:
            RequestError: nothing to look for, an image to look for that cannot be read, or vectors of another
                model.
        """
        from nshot.search import look_for  # not before it is asked for: a classification starts without it

        return look_for(
            self, images, text, like=like, against=against, unlike=unlike, n=n, diversity=diversity
        )


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    decode: Decode = "exact",
    fit: Fit = "own",
    batch_size: int | None = None,
    workers: int | None = None,
    processes: bool | None = None,
    threads: int | None = None,
    compiled: bool = False,
    store: bool | str | Path = False,
    limits: Limits | None = None,
    progress: bool = False,
    as_first: bool = False,
) -> Model:
    """Load a checkpoint from the Hugging Face Hub or a folder.

    Args:
        model: a Hub id, or a folder in the Hub's layout.
        revision: branch, tag or commit on the Hub.
        device: ``auto`` takes a GPU where the torch extra and one are there, else OpenVINO on the CPU.
        precision: ``auto`` is bf16 where the processor has it, else f32; ``f32-small`` holds the weights in 8
            bits and computes in f32; ``int8`` is what ``nshot quantise`` has made on one's own images.
        decode: ``exact`` gives the pixels of the checkpoint's own processor, bit for bit; ``fast`` decodes
            large JPEGs at a reduced size (vectors at cosine 0.999 or better).
        fit: how an image becomes square: as the model was trained (``own``: by a centre crop, or squashed as
            for SigLIP), or ``crop``, ``pad`` or ``squash``.
        batch_size: images encoded at once; the runtime's preference by default.
        workers: decoding threads; one per core by default, or as many as ``threads``.
        processes: whether each decoding thread has a process of its own, so that many cores do not wait for
            Python's lock; by default where a GPU has 8 of them or more.
        threads: the most to compute with on a CPU, where a machine is shared; all cores by default.
        compiled: on a GPU, have torch compile the image tower first, which takes a minute or so and pays in
            long runs. On a CPU, OpenVINO always compiles.
        store: keep vectors on disk and use them again: True for the usual place, or a file.
        limits: what a single image may take, and which addresses may be fetched.
        progress: show downloads on stderr.
        as_first: the model is to be the first stage of a cascade, where an int8 form may be used that gives
            less than 98 % of the answers of f32.

    Raises:
        CheckpointError: the model cannot be found, is damaged, or of an unknown architecture.
        DeviceError, MissingExtra: the device or the precision asked for is not there.
    """
    if threads is not None and threads < 1:
        raise RequestError(f"threads must be at least 1, not {threads}")
    checkpoint = find(model, revision, progress=progress)
    if isinstance(checkpoint.config.vision, BoxTower):
        raise UnsupportedArchitecture(f"{checkpoint.name}: {WHAT}")
    if precision == "int8" and not as_first:
        encoders.check_int8(checkpoint)
    return Model(
        checkpoint,
        encoders.load(checkpoint, device=device, precision=precision, threads=threads, compiled=compiled),
        Preprocessor.from_config(
            checkpoint.preprocessor, decode=decode, fit=fit, size=checkpoint.config.vision.image_size
        ),
        batch_size=batch_size,
        workers=threads if workers is None else workers,
        processes=processes,
        store=None if store is False else Store(default_path() if store is True else Path(store)),
        limits=limits or Limits(),
    )


def open(path: str | os.PathLike[str]) -> Classifier | Facets | TreeClassifier | Embeddings:
    """What nshot saved: a classifier or facets (``.nshot``), or embeddings (``.npz``, ``.npy``, Parquet).

    Raises:
        RequestError: no such file, or it is neither.
    """
    return read_vectors(path) if is_vector_file(path) else open_classifier(os.fspath(path))
