"""A loaded model: images and texts in, unit vectors of one space out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np

from nshot.embeddings import Embeddings, Parts, is_parts, is_vector_file, read_vectors, stored
from nshot.encoders import Encoder
from nshot.errors import RequestError, SourceError
from nshot.images.budget import usable_cores
from nshot.images.decode import Limits
from nshot.images.in_memory import each, is_array, is_one_image
from nshot.images.preprocess import Preprocessor
from nshot.images.remarks import Remarks
from nshot.images.sources import Source, expand
from nshot.models.catalogue import is_multilingual
from nshot.models.checkpoint import Checkpoint
from nshot.models.tokenizer import Tokenizer
from nshot.pipeline import Pipeline, Thumbnails
from nshot.store.memory import Memory
from nshot.store.store import Store
from nshot.types import Activation, Embedded, Failure, Floats, Recipe

if TYPE_CHECKING:
    from PIL.Image import Image

ImageLike: TypeAlias = (
    "str | os.PathLike[str] | bytes | Source | Image | np.ndarray[Any, Any] | Embedded | Failure"
)

_LISTED = (Source, Embedded, Failure)  # what needs no more listing
_TEXTS = 32  # texts encoded at once
_MANY = 8  # threads that decode for a GPU: from here on each has a process, or they wait for Python's lock


class Embedder:
    """A loaded model: images and texts in, unit vectors of one space out.

    Build it with ``nshot.load``. Safe to use from one thread at a time.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        encoder: Encoder,
        preprocessor: Preprocessor,
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        processes: bool | None = None,
        store: Store | None = None,
        limits: Limits = Limits(),  # noqa: B008  (frozen)
    ) -> None:
        for name, value in (("batch_size", batch_size), ("workers", workers)):
            if value is not None and value < 1:
                raise RequestError(f"{name} must be at least 1, not {value}")
        self.checkpoint = checkpoint
        self.encoder = encoder
        self.preprocessor = preprocessor
        self.memory = Memory(store)
        self.batch_size = batch_size or encoder.batch
        self.workers = workers or usable_cores()
        many = encoder.device != "cpu" and self.workers >= _MANY
        self.processes = many if processes is None else processes
        self.limits = limits
        self.recipe = Recipe(encoder.fingerprint, preprocessor.fingerprint, checkpoint.digest)
        self._tokenizer: Tokenizer | None = None

    @property
    def name(self) -> str:
        """The model as it was asked for."""
        return self.checkpoint.name

    @property
    def dimension(self) -> int:
        """Length d of the vectors."""
        return self.encoder.dimension

    @property
    def logit_scale(self) -> float:
        """What the checkpoint multiplies a cosine with: exp of its learnt ``logit_scale``."""
        return self.checkpoint.logit_scale

    @property
    def logit_bias(self) -> float:
        """What the checkpoint adds to a scaled cosine: 0 for CLIP."""
        return self.checkpoint.logit_bias

    @property
    def activation(self) -> Activation:
        """How the model reads its logits: by ``softmax`` over the labels, or each label by ``sigmoid``."""
        return self.checkpoint.config.activation

    @property
    def multilingual(self) -> bool:
        """Whether the model has learnt labels in other languages than English, as far as can be told."""
        return is_multilingual(self.name, self.checkpoint.config.text.vocab_size)

    @property
    def space(self) -> str:
        """Digest of the weights: vectors of two spaces must not be compared."""
        return self.checkpoint.digest

    def embed(self, sources: ImageLike | Iterable[ImageLike]) -> Embeddings:
        """Vectors of images, gathered: encoded once, asked as often as one likes.

        Args:
            sources: as for ``embed_images``; labels come along from a labelled set (``nshot.open_labelled``).

        Returns:
            What could be embedded; the rest is in its ``failures``, and what was skipped in its ``remarks``.
        """
        remarks = Remarks()
        embedded = self.collect(self._stream(sources, remarks), of=sources)
        listed = getattr(sources, "remarks", None)  # of a labelled set
        remarks = listed if isinstance(listed, Remarks) else remarks
        return replace(embedded, remarks=(*embedded.remarks, *remarks.notes, *remarks.counts()))

    def collect(self, records: Iterable[Embedded | Failure], *, of: object = None) -> Embeddings:
        """Gather what ``embed_images`` yields.

        Args:
            records: the stream.
            of: what was embedded; if it is a labelled set, its classes are told along.
        """
        return Embeddings.collect(
            records,
            dimension=self.dimension,
            classes=getattr(of, "classes", None),
            multi=getattr(of, "multi", False),
            recipe=self.recipe,
            model=self.name,
        )

    def embed_images(
        self, sources: ImageLike | Iterable[ImageLike], *, thumbnails: Thumbnails | None = None
    ) -> Iterator[Embedded | Failure]:
        """Unit vectors of images, in input order, with bounded memory.

        Args:
            sources: files, folders, globs, archives, tables, URLs (see ``nshot.images.sources``), bytes of an
                encoded image, PIL images, arrays of numpy or torch (see ``nshot.images.in_memory``), what
                ``Embedder.sources`` lists; one, or any collection of them: a list, a column of a DataFrame, a
                batch [n, h, w, 3], a labelled set. What is embedded already passes through.
            thumbnails: takes a small image of each that is decoded, made of the same decoded pixels.

        Yields:
            An ``Embedded`` for each image, or the ``Failure`` that says why there is none.

        Raises:
            RequestError: a table instead of one of its columns, or an array that is no image and no batch.
        """
        return self._stream(sources, Remarks(), thumbnails)

    def _stream(
        self,
        sources: ImageLike | Iterable[ImageLike],
        remarks: Remarks,
        thumbnails: Thumbnails | None = None,
    ) -> Iterator[Embedded | Failure]:
        pipeline = Pipeline(
            self.encoder,
            self.preprocessor,
            self.recipe,
            self.memory,
            batch_size=self.batch_size,
            workers=self.workers,
            limits=self.limits,
            thumbnails=thumbnails,
            processes=self.processes,
        )
        return pipeline.run(self.list_images(sources, remarks))

    def list_images(
        self, sources: ImageLike | Iterable[ImageLike], remarks: Remarks | None = None
    ) -> Iterator[Source | Embedded | Failure]:
        """What ``embed_images`` would go through, one image at a time, nothing of it read yet.

        Args:
            sources: as for ``embed_images``.
            remarks: where it is noted what was skipped, and how tables were read.
        """
        return self._listed(self._each(sources), Remarks() if remarks is None else remarks)

    def _each(self, sources: Any) -> Iterator[Any]:
        one = (str, bytes, bytearray, memoryview, os.PathLike, *_LISTED)
        if isinstance(sources, one) or hasattr(sources, "getexif") or is_one_image(sources):
            return iter([sources])
        if isinstance(sources, Embeddings):
            self.check_space(sources.recipe, sources.model, "these embeddings")
            return sources.records()
        if not (isinstance(sources, Iterable) or is_array(sources)):
            raise RequestError(
                f"{type(sources).__name__} is not an image: "
                "give a path, a URL, bytes, a PIL image or an array"
            )
        return each(sources)

    def embed_texts(self, texts: str | Iterable[str]) -> Floats:
        """Unit vectors of texts, as they are (no template): float32[n, d]; one text gives n = 1.

        Raises:
            LabelError: a text longer than the model's context, by name.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        known = self.memory.texts(texts, self.encoder.fingerprint)
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            tokens = self.tokenizer.encode(missing)
            for start in range(0, len(missing), _TEXTS):
                chunk = slice(start, start + _TEXTS)
                known |= zip(missing[chunk], self.encoder.encode_tokens(tokens[chunk]), strict=True)
            self.memory.keep_texts({text: known[text] for text in missing}, self.encoder.fingerprint)
        return np.array([known[text] for text in texts], np.float32).reshape(len(texts), self.dimension)

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer, read when it is first needed."""
        if self._tokenizer is None:
            self._tokenizer = self.checkpoint.tokenizer()
        return self._tokenizer

    def sources(
        self,
        specs: Iterable[str | os.PathLike[str]],
        *,
        stdin: BinaryIO | None = None,
        image_column: str | None = None,
        image_root: str | os.PathLike[str] | None = None,
        strict: bool = False,
        keep_columns: bool = False,
        remarks: Remarks | None = None,
    ) -> Iterator[Source | Embedded | Failure]:
        """What a command line names, checked at once and listed as it is asked for.

        Args:
            specs: files, folders, globs, archives, tables, URLs, ``-``, and files of vectors.
            stdin: where ``-`` reads its list.
            image_column: the column of a table that holds the images.
            image_root: the folder that the names in a table are relative to; None: the table's own.
            strict: list what plainly is no image as well, as failures, where it would be skipped.
            keep_columns: let the other cells of a table's row go along with the image, into its record.
            remarks: where it is noted what was skipped, and how tables were read.

        Raises:
            SourceError: a spec that names nothing, or cannot be listed.
            RequestError: vectors of another model.
        """
        parts: list[Iterator[Source | Embedded | Failure]] = []
        for spec in specs:
            if is_parts(spec):
                parts.append(self._parts(Parts(spec)))
            elif is_vector_file(spec):
                parts.append(self._vectors(spec))
            else:
                parts.append(
                    expand(
                        [spec],
                        limits=self.limits,
                        stdin=stdin,
                        image_column=image_column,
                        image_root=image_root,
                        strict=strict,
                        keep_columns=keep_columns,
                        remarks=remarks,
                    )
                )
        return chain.from_iterable(parts)

    def stored(self, specs: Iterable[str | os.PathLike[str]]) -> Embeddings | None:
        """The vectors of folders of parts, which stay on the disk where they are many; None of other sources.

        Raises:
            RequestError: vectors of another model.
        """
        specs = list(specs)
        if not specs or not all(map(is_parts, specs)):
            return None
        folders = [Parts(spec) for spec in specs]
        for parts in folders:
            self.check_space(parts.recipe, parts.model, f"the vectors in {parts.name}")
        return stored(folders)

    def _vectors(self, path: str | os.PathLike[str]) -> Iterator[Embedded | Failure]:
        read = read_vectors(path)
        self.check_space(read.recipe, read.model, f"the vectors in {path}")
        return read.records()

    def _parts(self, parts: Parts) -> Iterator[Embedded | Failure]:
        self.check_space(parts.recipe, parts.model, f"the vectors in {parts.name}")
        return parts.records()

    def check_space(self, recipe: Recipe | None, model: str | None, what: str) -> None:
        """Refuse vectors of another model; vectors that do not say where they are from pass.

        Raises:
            RequestError: their recipe names other weights than this model's.
        """
        if recipe is not None and recipe.space != self.space:
            raise RequestError(
                f"{what} were made by {model or 'another model'}, and this is {self.name}: "
                "vectors of two models cannot be compared"
            )

    def _listed(
        self, sources: Iterable[ImageLike], remarks: Remarks
    ) -> Iterator[Source | Embedded | Failure]:
        for number, source in enumerate(sources):
            if isinstance(source, _LISTED):
                yield source
            elif isinstance(source, (str, os.PathLike)):
                try:
                    yield from self.sources([source], remarks=remarks)
                except SourceError as error:
                    yield Failure.of(str(source), error)
            else:
                yield Source.of(source, name=f"[{number}]")
