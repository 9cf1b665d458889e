"""Many embedded images: one noun for whatever makes, reads or takes vectors of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.errors import RequestError
from nshot.types import Embedded, Failure, Floats, Recipe
from nshot.unit import normalize


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Embeddings:
    """The vectors of n images, what belongs to each image, and the images that have no vector.

    ``len``, indexing, iteration and ``np.asarray`` see the n embedded images; ``records()`` gives the
    failures too, each in its place. An integer index gives one ``Embedded``; a slice, a mask or a list of
    rows gives ``Embeddings``. The vectors, names and digests of a large folder of parts stay on the disk
    (see ``nshot.embeddings.stored``): a slice or some rows of them are read when they are asked for.

    Attributes:
        sources: n names, as a person would write them.
        vectors: float32[n, d], unit norm along the feature axis.
        positions: int64[n], each image's place among all that were asked for, failures counted.
        failures: the images without a vector, by their place among all that were asked for.
        labels: of each image, one as a rule, any number in a multi-label set; None: unlabelled.
        domains: where each image comes from (photograph, sketch ...); None: not known.
        digests: sha256 of each image's bytes, None where it is not known; None: of no image.
        classes: all labels, declared or met, in their order; empty for unlabelled images.
        multi: whether an image may have any number of labels.
        recipe: what made the vectors: encoder, precision, preprocessing; None: not known.
        model: the name of the model; None: not known.
        notes: of each image what decoding did that a person should know, mostly nothing; None: of no image.
        remarks: how the images were listed, a sentence each: files that were skipped, images without label.
    """

    sources: Sequence[str]
    vectors: Floats
    positions: NDArray[np.int64]
    failures: dict[int, Failure] = field(default_factory=dict)
    labels: tuple[tuple[str, ...], ...] | None = None
    domains: tuple[str | None, ...] | None = None
    digests: Sequence[bytes | None] | None = None
    classes: tuple[str, ...] = ()
    multi: bool = False
    recipe: Recipe | None = None
    model: str | None = None
    notes: Sequence[tuple[str, ...]] | None = None
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        vectors: ArrayLike,
        labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        sources: Sequence[str] | None = None,
        domains: Sequence[str | None] | None = None,
        classes: Sequence[str] | None = None,
        recipe: Recipe | None = None,
        model: str | None = None,
    ) -> Embeddings:
        """Vectors from anywhere as embeddings.

        Args:
            vectors: float[n, d], normalised here.
            labels: the label of each, or the labels of each.
            sources: n names; "[0]", "[1]", ... by default.
            domains: the domain of each.
            classes: all labels in their order; by default those met, sorted.
            recipe: what made the vectors.
            model: the name of the model.

        Raises:
            RequestError: not two-dimensional, counts that differ, or a row that is zero or not finite.
        """
        rows = np.asarray(vectors)
        if rows.ndim != 2:
            raise RequestError(f"embeddings are an array [images, features], not one of shape {rows.shape}")
        names = tuple(f"[{row}]" for row in range(len(rows))) if sources is None else tuple(map(str, sources))
        for what, given in (("sources", names), ("labels", labels), ("domains", domains)):
            if given is not None and len(given) != len(rows):
                raise RequestError(f"{len(rows)} vectors need as many {what}, not {len(given)}")
        own = None if labels is None else tuple((x,) if isinstance(x, str) else tuple(x) for x in labels)
        met = sorted({label for each in own or () for label in each})
        return cls(
            sources=names,
            vectors=normalize(rows, names=names),
            positions=np.arange(len(rows)),
            labels=own,
            domains=None if domains is None else tuple(domains),
            classes=tuple(met if classes is None else classes),
            multi=any(len(each) != 1 for each in own or ()),
            recipe=recipe,
            model=model,
        )

    @classmethod
    def collect(
        cls,
        records: Iterable[Embedded | Failure],
        *,
        dimension: int,
        classes: Sequence[str] | None = None,
        multi: bool = False,
        recipe: Recipe | None = None,
        model: str | None = None,
    ) -> Embeddings:
        """What an embedder yields, gathered; labels, domains and digests come along with each record.

        Args:
            records: the stream, in order.
            dimension: length d of the vectors, for the case that there are none.
            classes: the labels that the set declares; labels met beyond them follow.
            multi: whether an image may have any number of labels.
            recipe: what made the vectors.
            model: the name of the model.
        """
        rows = _Growing()
        columns: dict[str, list[Any]] = {name: [] for name in _BESIDE}
        said = dict.fromkeys(_BESIDE, False)
        positions: list[int] = []
        failures: dict[int, Failure] = {}
        known: dict[Any, Any] = {}  # equal labels are one object: millions of images have a few
        for position, record in enumerate(records):
            if isinstance(record, Failure):
                failures[position] = record
                continue
            rows.add(record.vector)
            positions.append(position)
            own = (record.source, record.labels, record.domain, record.digest, record.notes)
            for name, value in zip(_BESIDE, own, strict=True):
                said[name] = said[name] or (value is not None and value != ())
                columns[name].append(known.setdefault(value, value) if name in _REPEATED else value)
            said["labels"] = said["labels"] or record.labels is not None
        met = dict.fromkeys(label for own in dict.fromkeys(columns["labels"]) for label in own or ())
        labels = tuple(own or () for own in columns["labels"]) if said["labels"] else None
        kept = {name: tuple(columns[name]) if said[name] else None for name in _BESIDE[2:]}
        return cls(
            sources=tuple(columns["sources"]),
            vectors=rows.taken() if positions else np.empty((0, dimension), np.float32),
            positions=np.array(positions, np.int64),
            failures=failures,
            labels=labels,
            domains=kept["domains"],
            digests=kept["digests"],
            classes=tuple(dict.fromkeys((*classes, *met))) if classes else tuple(sorted(met)),
            multi=multi,
            recipe=recipe,
            model=model,
            notes=kept["notes"],
        )

    @property
    def dimension(self) -> int:
        """Length d of the vectors."""
        return int(self.vectors.shape[1])

    @property
    def asked(self) -> int:
        """How many images were asked for: the embedded ones and the failures."""
        return len(self.sources) + len(self.failures)

    @property
    def label(self) -> tuple[str, ...]:
        """The one label of each image, for a set where each has exactly one.

        Raises:
            RequestError: the images have no labels, or one of them has none or several.
        """
        if self.labels is None:
            raise RequestError("these images have no labels: embed a labelled set, or use with_labels(...)")
        for source, own in zip(self.sources, self.labels, strict=True):
            if len(own) != 1:
                raise RequestError(f"{source} has {len(own)} labels where exactly one is needed")
        return tuple(own[0] for own in self.labels)

    def with_labels(
        self, labels: Sequence[str] | Sequence[Sequence[str]], *, classes: Sequence[str] | None = None
    ) -> Embeddings:
        """The same images with these labels: one per image, or a sequence of labels per image.

        Raises:
            RequestError: as many labels as images are needed.
        """
        if len(labels) != len(self):
            raise RequestError(f"{len(self)} images need as many labels, not {len(labels)}")
        own = tuple((x,) if isinstance(x, str) else tuple(x) for x in labels)
        met = sorted({label for each in own for label in each})
        return replace(
            self,
            labels=own,
            classes=tuple(met if classes is None else classes),
            multi=any(len(each) != 1 for each in own),
        )

    def part(self, count: int, *, seed: int = 0) -> Embeddings:
        """So many of the images, drawn at random, in their order; all of them, if there are no more."""
        if len(self) <= count:
            return self
        rows = np.random.default_rng(seed).choice(len(self), count, replace=False)
        drawn: list[int] = np.sort(rows).tolist()
        return self[drawn]

    def records(self) -> Iterator[Embedded | Failure]:
        """Every image that was asked for, in order: an ``Embedded``, or the ``Failure`` in its place."""
        rows = iter(self)
        for position in range(self.asked):
            failure = self.failures.get(position)
            yield next(rows) if failure is None else failure

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[Embedded]:
        return (self[row] for row in range(len(self)))

    @overload
    def __getitem__(self, rows: SupportsIndex) -> Embedded: ...

    @overload
    def __getitem__(self, rows: slice | ArrayLike) -> Embeddings: ...

    def __getitem__(self, rows: Any) -> Embedded | Embeddings:
        if isinstance(rows, SupportsIndex) and not isinstance(rows, np.ndarray):
            row = range(len(self))[rows]
            return Embedded(
                self.sources[row],
                self.vectors[row],
                labels=None if self.labels is None else self.labels[row],
                domain=None if self.domains is None else self.domains[row],
                digest=None if self.digests is None else self.digests[row],
                notes=() if self.notes is None else self.notes[row],
            )
        index = np.arange(len(self))[np.asarray(rows) if not isinstance(rows, slice) else rows]

        def taken(values: Any) -> Any:
            if values is None or hasattr(values, "take_rows"):  # of a folder: they stay there
                return None if values is None else values.take_rows(index)
            return tuple(values[row] for row in index.tolist())

        return replace(
            self,
            sources=taken(self.sources),
            vectors=taken(self.vectors) if hasattr(self.vectors, "take_rows") else self.vectors[index],
            positions=np.arange(len(index)),
            failures={},
            labels=taken(self.labels),
            domains=taken(self.domains),
            digests=taken(self.digests),
            notes=taken(self.notes),
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.vectors, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        parts = [f"{len(self):,} images x {self.dimension}"]
        if self.labels is not None:
            parts.append(f"{len(self.classes)} labels")
        if self.failures:
            parts.append(f"{len(self.failures):,} failed")
        if self.model:
            parts.append(self.model)
        parts += self.remarks
        return f"<Embeddings: {', '.join(parts)}>"


_BESIDE = ("sources", "labels", "domains", "digests", "notes")
_REPEATED = ("labels", "domains", "notes")


class _Growing:
    """Rows that become more: one piece of memory, which the system makes longer without a copy."""

    def __init__(self) -> None:
        self._rows = np.empty((0, 0), np.float32)
        self._count = 0

    def add(self, row: Floats) -> None:
        """One more."""
        if self._count == len(self._rows):
            more = max(1024, len(self._rows) + len(self._rows) // 2)
            if not self._count:
                self._rows = np.empty((more, len(row)), np.float32)
            else:
                self._rows.resize((more, self._rows.shape[1]), refcheck=False)
        self._rows[self._count] = row
        self._count += 1

    def taken(self) -> Floats:
        """All of them."""
        self._rows.resize((self._count, self._rows.shape[1]), refcheck=False)
        return self._rows
