"""Images that are there twice where they should not be: under two labels, or in two sets.

One image in training and in test flatters every figure; one image under two labels teaches two things.
What is there twice is told by bytes where those are known, else by vectors that are nearly equal.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.search.product import pairs

ALIKE = 0.995
"""Cosine from which an image counts as a copy: saved anew, or a little smaller."""

_USUAL = 3  # copies per image, at most, that are believed
_MOST = 100_000  # images that are compared with all others by their vectors


@dataclass(frozen=True, slots=True)
class Copy:
    """Two images that are the same, or nearly.

    Attributes:
        row: the image, a row of the first embeddings.
        other: its copy, a row of the same or of the other embeddings.
        cosine: of their vectors; exactly 1 where their bytes are the same.
        same: whether their bytes are known to be the same.
    """

    row: int
    other: int
    cosine: float
    same: bool = False


@dataclass(frozen=True, slots=True)
class Across:
    """A pair of images that are nearly one and yet on two sides.

    Attributes:
        first: the one's name.
        second: the other's.
        kind: ``same`` bytes, or ``near`` by the vectors.
        cosine: of the two.
        labels: the two sides: labels, or the names of two sets.
    """

    first: str
    second: str
    kind: Literal["same", "near"]
    cosine: float
    labels: tuple[str, str]


def copies(images: Embeddings, others: Embeddings | None = None, *, alike: float = ALIKE) -> list[Copy]:
    """Images that are there twice, by their bytes where those are known, else by their vectors.

    Args:
        images: what is looked through.
        others: what it is compared with, such as the images that a classifier was fitted on; None: itself,
            each pair once.
        alike: the least cosine of two images that count as copies, in [-1, 1]. What is one picture to the
            eye depends on the model; ``duplicates`` measures it.

    Returns:
        Pairs, by row. More than 100,000 images are compared by their bytes alone, and so are images that the
        model hardly tells apart.

    Raises:
        RequestError: sets of two models.
    """
    against = images if others is None else others
    if len(images) and len(against) and images.dimension != against.dimension:
        raise RequestError("the two sets were embedded by different models: their vectors differ in length")
    near: dict[tuple[int, int], float] = {}
    if max(len(images), len(against)) <= _MOST:
        most = _USUAL * len(images) + 1
        others_vectors = None if others is None else others.vectors
        first, second, cosines, _ = pairs(images.vectors, alike, most=most, other=others_vectors)
        if len(first) < most:  # a model that tells these images apart no better says nothing
            near = dict(zip(zip(first.tolist(), second.tolist(), strict=True), cosines.tolist(), strict=True))
    same = set(_same_bytes(images, others))
    near |= dict.fromkeys(same, 1.0)
    return [Copy(*pair, cosine, pair in same) for pair, cosine in sorted(near.items())]


def differently_labelled(
    images: Embeddings, found: Iterable[Copy], others: Embeddings | None = None
) -> list[Copy]:
    """The copies that have other labels than their original: one of the two is wrong."""
    against = images if others is None else others
    if images.labels is None or against.labels is None:
        return []
    return [each for each in found if set(images.labels[each.row]) != set(against.labels[each.other])]


def across(
    images: Embeddings,
    other: Embeddings | None = None,
    *,
    least: float = ALIKE,
    names: tuple[str, str] = ("train", "test"),
    most: int = 1000,
) -> tuple[Across, ...]:
    """Duplicates where there should be none, by name: under two labels, or in two sets.

    Args:
        images: labelled images; with ``other``, labels do not matter.
        other: a second set, such as the test set: pairs between the two are looked for.
        least: cosine from which two images are nearly one, as in ``copies``.
        names: what to call the two sets.
        most: pairs that are told; the nearest.

    Returns:
        Pairs, those of the same bytes first, then the nearest first.

    Raises:
        RequestError: unlabelled images without a second set, or sets of two models.
    """
    if other is None and images.labels is None:
        raise RequestError("these images have no labels: give labelled images, or a second set")
    found = copies(images, other, alike=least)
    if other is None:
        found = differently_labelled(images, found)
    against = images if other is None else other
    told = []
    for each in found:
        sides = names
        if other is None:
            assert images.labels is not None
            sides = (", ".join(images.labels[each.row]), ", ".join(images.labels[each.other]))
        kind: Literal["same", "near"] = "same" if each.same else "near"
        told.append(Across(images.sources[each.row], against.sources[each.other], kind, each.cosine, sides))
    told.sort(key=lambda pair: (pair.kind != "same", -pair.cosine))
    return tuple(told[:most])


def of_same_bytes(digests: Sequence[bytes | None]) -> Iterator[list[int]]:
    """Groups of rows of one digest, by their first row; eight bytes of memory per row."""
    keys = _keys(digests)
    order = np.argsort(keys, kind="stable")
    equal = keys[order][1:] == keys[order][:-1]
    often = np.zeros(len(keys), bool)
    often[order[1:][equal]] = often[order[:-1][equal]] = True
    groups: dict[bytes, list[int]] = {}
    for row in np.flatnonzero(often).tolist():
        if (digest := digests[row]) is not None:
            groups.setdefault(digest, []).append(row)
    yield from (rows for rows in groups.values() if len(rows) > 1)


def _same_bytes(images: Embeddings, others: Embeddings | None) -> Iterator[tuple[int, int]]:
    """Pairs of rows of one digest: of two sets, or of one set each pair once."""
    if images.digests is None or (others is not None and others.digests is None):
        return
    if others is None:
        for group in of_same_bytes(images.digests):
            yield from itertools.combinations(group, 2)
        return
    assert others.digests is not None
    mine, theirs = _keys(images.digests), _keys(others.digests)
    shared = np.intersect1d(mine, theirs)
    rows: defaultdict[bytes, list[int]] = defaultdict(list)
    for row in np.flatnonzero(np.isin(theirs, shared)).tolist():
        if (digest := others.digests[row]) is not None:
            rows[digest].append(row)
    for row in np.flatnonzero(np.isin(mine, shared)).tolist():
        if (digest := images.digests[row]) is not None:
            yield from ((row, other) for other in rows[digest])


def _keys(digests: Sequence[bytes | None]) -> NDArray[np.uint64]:
    """The beginning of each digest; 0 where there is none."""
    return np.fromiter(
        (0 if digest is None else int.from_bytes(digest[:8], "little") for digest in digests),
        np.uint64,
        len(digests),
    )
