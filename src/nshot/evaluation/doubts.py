"""Labels in doubt and copies of images as tables that a person can correct in a spreadsheet and give back."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from nshot.atomic import write_bytes
from nshot.embeddings import Embeddings
from nshot.evaluation.evaluation import Evaluation
from nshot.search import Copy

DOUBTS = ("image", "label", "suggested", "confidence", "given_score")
COPIES = ("image", "label", "copy", "copy_label", "cosine")


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


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    held = io.StringIO(newline="")
    table = csv.writer(held, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_bytes(path, held.getvalue().encode("utf-8", "surrogateescape"))
