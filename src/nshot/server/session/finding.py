"""Search and duplicates among a session's images, by the rows that its page knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nshot.classifier.cascade import CascadeClassifier
from nshot.embedder import Embedder
from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.images.sources import Source
from nshot.regions.heatmaps import heatmaps
from nshot.search import FITS, compose
from nshot.search import duplicates as find_duplicates
from nshot.search import search as find
from nshot.server.session.images import Images
from nshot.server.session.questions import Questions
from nshot.types import Failure

_HITS = 240


def search(
    images: Images, questions: Questions, words: str, like: Sequence[int], data: bytes | None
) -> dict[str, Any]:
    """Images by words ("red star -dark"), by images of the session, by an image from elsewhere.

    Args:
        images: all of them.
        questions: the model.
        words: what to look for; a minus before a word stays away from it.
        like: rows to look for the like of.
        data: an encoded image from elsewhere.

    Returns:
        rows and their cosines, closest first; where words alone were asked, how unusual each is
        (``fits``), and the ``line`` from which it counts as fitting.
    """
    wanted, unwanted = _signed(words)
    texts = [wanted] if wanted else []
    pictures = [images.snapshot().vectors[row] for row in like]
    if data is not None:
        [record] = questions.embedder.embed_images([Source.of(data, name="the dropped image")])
        if isinstance(record, Failure):
            raise RequestError(f"the dropped image cannot be read: {record.message}")
        pictures.append(record.vector)
    query = compose(
        words,
        texts=questions.embed(texts) if texts else None,
        like=np.stack(pictures) if pictures else None,
        against=questions.embed(unwanted) if unwanted else None,
        generic_texts=questions.generic() if texts else None,
    )
    photos, rows = _embeddings(images, questions.embedder)
    if not len(photos):
        return {"rows": [], "cosines": [], "line": None}
    where = ~np.isin(rows, list(like))  # what was asked with is no answer
    hits = find(photos, query, _HITS, where=where)
    told: dict[str, Any] = {
        "rows": [int(rows[hit.row]) for hit in hits],
        "cosines": [hit.cosine for hit in hits],
        "line": None,
    }
    if query.background is not None:
        told |= {"line": FITS, "fits": [hit.score for hit in hits]}
    return told


def duplicates(images: Images, embedder: Embedder) -> dict[str, Any]:
    """Groups of images of which one is enough, and how copies were told from others; reads the files."""
    files = [(name, row) for name, row in images.files if images.rows[row].failure is None]
    vectors = images.snapshot().vectors[[row for _, row in files]]
    photos = Embeddings(
        sources=tuple(name for name, _ in files),
        vectors=vectors,
        positions=np.arange(len(files)),
        digests=tuple(bytes.fromhex(images.rows[row].digest) for _, row in files),
    )
    found = find_duplicates(photos, embedder=embedder)
    measured = found.measured
    return {
        "groups": [
            {
                "kind": group.kind,
                "rows": list(dict.fromkeys(files[place][1] for place in group.rows)),
                "files": list(group.sources),
            }
            for group in found.groups
        ],
        "measured": {
            "false_rate": measured.false_rate,
            "recall": measured.recall,
            "found": measured.found,
            "dropped": measured.dropped,
        },
    }


def heat(questions: Questions, data: bytes, key: str, place: int, *, further: bool = False) -> Image.Image:
    """An image with the evidence for one label of a question laid over it; see ``nshot.regions.heatmaps``.

    Args:
        questions: the model, and what was asked.
        data: the encoded image.
        key: the question.
        place: the label's place among the question's.
        further: of a cascade: the last model answers for the image.

    Raises:
        RequestError: the question is forgotten, it has no such label, or the image cannot be read.
    """
    classifier = questions.known(key).classifier
    if not 0 <= place < len(classifier.labels):
        raise RequestError("the question has no such label")
    embedder = questions.embedder
    if isinstance(classifier, CascadeClassifier) and questions.cascade is not None:
        embedder = questions.cascade.last if further else questions.cascade.first
        classifier = classifier.last if further else classifier.first
    [made] = heatmaps(embedder, [Source.of(data, name="the image")], classifier, top_k=1)
    if isinstance(made, Failure):
        raise RequestError(f"the image cannot be read: {made.message}")
    return made.overlay(classifier.labels[place])


def _embeddings(images: Images, embedder: Embedder) -> tuple[Embeddings, NDArray[np.intp]]:
    """The images that could be read, and their rows."""
    known = images.snapshot()
    rows = np.flatnonzero(known.read)
    if not len(rows):
        return Embeddings.of(np.zeros((0, embedder.dimension))), rows
    vectors = known.vectors if len(rows) == len(known) else known.vectors[rows]
    names = tuple(images.rows[row].name for row in rows.tolist())
    return Embeddings(sources=names, vectors=vectors, positions=np.arange(len(rows))), rows


def _signed(words: str) -> tuple[str, list[str]]:
    """What is wanted, and what is not: "red star -dark" -> "red star", ["dark"]."""
    wanted = [word for word in words.split() if not word.startswith("-")]
    return " ".join(wanted), [word[1:] for word in words.split() if word.startswith("-") and len(word) > 1]
