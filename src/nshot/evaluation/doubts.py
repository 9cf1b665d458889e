"""Labels in doubt and copies of images as tables that a person can correct in a spreadsheet and give back."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nshot.atomic import write_bytes
from nshot.embeddings import Embeddings
from nshot.evaluation.evaluation import Evaluation

DOUBTS = ("image", "label", "suggested", "confidence", "given_score")
COPIES = ("image", "label", "copy", "copy_label", "cosine")
ALIKE = 0.995  # cosine from which an image counts as a copy: saved anew, or a little smaller

_CHUNK = 1024
_USUAL = 3  # copies per image, at most, that are believed
_MOST = 50_000  # images that are compared with all others by their vectors


@dataclass(frozen=True, slots=True)
class Copy:
    """Two images that are the same, or nearly.

    Attributes:
        row: the image, a row of the first embeddings.
        other: its copy, a row of the same or of the other embeddings.
        cosine: of their vectors; exactly 1 where their bytes are the same.
    """

    row: int
    other: int
    cosine: float


def copies(images: Embeddings, others: Embeddings | None = None, *, alike: float = ALIKE) -> list[Copy]:
    """Images that are there twice, by their bytes where those are known, else by their vectors.

    Args:
        images: what is looked through.
        others: what it is compared with, such as the images that a classifier was fitted on; None: itself,
            each pair once.
        alike: the least cosine of two images that count as copies, in [-1, 1].

    Returns:
        Pairs, by row. More than 50,000 images are compared by their bytes alone, and so are images that the
        model hardly tells apart.
    """
    against = images if others is None else others
    near: dict[tuple[int, int], float] = {}
    for start in range(0, len(images) if max(len(images), len(against)) <= _MOST else 0, _CHUNK):
        cosines = images.vectors[start : start + _CHUNK] @ against.vectors.T
        rows, columns = np.nonzero(cosines >= alike)
        kept = rows + start < columns if others is None else np.ones(len(rows), dtype=bool)
        for at, other in zip(rows[kept].tolist(), columns[kept].tolist(), strict=True):
            near[start + at, other] = float(cosines[at, other])
        if len(near) > _USUAL * len(images):  # a model that tells these images apart no better says nothing
            near.clear()
            break
    same = {pair: 1.0 for pair in _same_bytes(images, against) if others is not None or pair[0] < pair[1]}
    return [Copy(row, other, cosine) for (row, other), cosine in sorted((near | same).items())]


def differently_labelled(
    images: Embeddings, pairs: Iterable[Copy], others: Embeddings | None = None
) -> list[Copy]:
    """The copies that have other labels than their original: one of the two is wrong."""
    against = images if others is None else others
    if images.labels is None or against.labels is None:
        return []
    return [each for each in pairs if images.labels[each.row] != against.labels[each.other]]


def write_doubts(path: Path, evaluation: Evaluation) -> None:
    """A row per label in doubt, most doubtful first: put the right label into the column ``label``.

    ``confidence`` is the score of the suggested label, ``given_score`` that of the given one, in [0, 1]. What
    is left as it is stays as it is; an empty label leaves the image out. See ``datasets.corrections``.
    """
    labels, names = evaluation.classifier.labels, evaluation.images.sources
    _write(
        path,
        DOUBTS,
        (
            (
                names[s.row],
                labels[s.given],
                labels[s.suggested],
                f"{s.suggested_score:.4f}",
                f"{s.given_score:.4f}",
            )
            for s in evaluation.suspects
        ),
    )


def write_copies(
    path: Path, images: Embeddings, pairs: Iterable[Copy], others: Embeddings | None = None
) -> None:
    """A row per pair: the image, its label, its copy, the copy's label, their cosine."""
    against = images if others is None else others
    _write(
        path,
        COPIES,
        (
            (
                images.sources[each.row],
                _label(images, each.row),
                against.sources[each.other],
                _label(against, each.other),
                f"{each.cosine:.4f}",
            )
            for each in pairs
        ),
    )


def _label(images: Embeddings, row: int) -> str:
    return "" if images.labels is None else "|".join(images.labels[row])


def _same_bytes(images: Embeddings, others: Embeddings) -> Iterable[tuple[int, int]]:
    rows: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(others.digests or ()):
        if digest is not None:
            rows[digest].append(row)
    for row, digest in enumerate(images.digests or ()):
        if digest is not None:
            yield from ((row, other) for other in rows[digest])


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    held = io.StringIO(newline="")
    table = csv.writer(held, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_bytes(path, held.getvalue().encode("utf-8", "surrogateescape"))
