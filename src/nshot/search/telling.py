"""Which pairs are one picture, and at how many equal bits: measured on copies and on decoys.

A decoy is a pair whose one image is mirrored: as alike as different pictures of this collection are, and
never the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nshot.embeddings import Embeddings
from nshot.errors import ImageError
from nshot.images.prepare import load
from nshot.search.hashing import Picture, alike_in_colour, decoy_bits, equal_bits, make_copies, picture
from nshot.search.product import pairs
from nshot.search.rereading import Reader
from nshot.search.twice import of_same_bytes
from nshot.types import Failure, Floats

if TYPE_CHECKING:
    from nshot.embedder import Embedder

LEAST_BITS = 0.80  # equal bits of a copy, where the decoys ask for no more
_MIRRORED = 0.90  # equal bits from which a decoy is a mirrored copy
_SURE = 0.90  # equal bits of what is a copy in any collection
_LAYOUT = 0.04  # equal bits more than mirrored, in the middle, of images that share a layout
_ENOUGH = 100  # pairs from which their quantiles are compared
_WRONG = 0.005  # share of wrong pairs among the copies that is aimed at
_SAMPLE = 100  # images that copies are made of
_CHUNK = 4096  # pairs compared at once


def same(images: Embeddings, digests: Sequence[bytes | None]) -> tuple[list[list[int]], NDArray[np.intp]]:
    """Rows of the same bytes, by groups; and one row for each picture."""
    alike = list(of_same_bytes(digests))
    behind = np.zeros(len(digests), bool)
    behind[[row for rows in alike for row in rows[1:]]] = True
    groups = [_without_repeats(images, rows) for rows in alike]
    return [rows for rows in groups if len(rows) > 1], np.flatnonzero(~behind)


def _without_repeats(images: Embeddings, rows: list[int]) -> list[int]:
    """A file that was named twice is no duplicate of itself."""
    return list({images.sources[row]: row for row in reversed(rows)}.values())[::-1]


def copied(
    images: Embeddings,
    leaders: NDArray[np.intp],
    looked: dict[int, Picture],
    reader: Reader,
    embedder: Embedder | None,
    rng: np.random.Generator,
) -> tuple[dict[str, list[float]], list[float]]:
    """Copies made of some images: their share of equal bits per kind, and their cosines with the original."""
    shares: dict[str, list[float]] = {}
    cosines: list[float] = []
    for row in rng.permutation(leaders)[: 2 * _SAMPLE].tolist():
        if len(next(iter(shares.values()), ())) >= _SAMPLE:
            break
        if (data := reader.read(row)) is None:
            continue
        try:
            image = load(data, side=1024).image
        except ImageError:
            continue
        original = looked[row] if row in looked else picture(image)
        if original.plain:
            continue
        made = dict(make_copies(image, rng))
        for kind, copy in made.items():
            seen = picture(copy)
            shares.setdefault(kind, []).append(float(equal_bits(original.bits[None], seen.bits[None])[0]))
        if embedder is not None:
            for item in embedder.embed_images(list(made.values())):
                if not isinstance(item, Failure):
                    cosines.append(float(item.vector @ images.vectors[row]))
    return shares, cosines


def bits(pair_rows: NDArray[np.intp], hashed: dict[int, Picture]) -> tuple[Floats, Floats]:
    """Of each pair: the share of equal bits, 0 where the colours differ; and the decoy's.

    Pages and slides of one layout are more alike than any mirror image is. So decoys are stretched to have
    the median and the high quantile of the pairs that are no copies; where images share no layout, both are
    the same already.
    """
    equal = np.zeros(len(pair_rows), np.float32)
    turned = np.zeros(len(pair_rows), np.float32)
    colour = np.zeros(len(pair_rows), bool)
    for start in range(0, len(pair_rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        one = [hashed[row] for row in pair_rows[chunk, 0].tolist()]
        two = [hashed[row] for row in pair_rows[chunk, 1].tolist()]
        first, second = np.stack([p.bits for p in one]), np.stack([p.bits for p in two])
        colour[chunk] = alike_in_colour(np.stack([p.tints for p in one]), np.stack([p.tints for p in two]))
        equal[chunk] = np.where(colour[chunk], equal_bits(first, second), 0)
        turned[chunk] = decoy_bits(
            first, np.stack([p.mirrored for p in one]), second, np.stack([p.mirrored for p in two])
        )
    if not len(pair_rows):
        return equal, turned
    # copies are no decoys of different pictures, and neither are mirrored copies
    different = colour & _apart(pair_rows, equal) & (turned < _MIRRORED)
    decoys = np.zeros(len(pair_rows), np.float32)
    decoys[different] = _stretched(turned[different], equal[different], float((equal >= LEAST_BITS).mean()))
    return equal, decoys


def _apart(pair_rows: NDArray[np.intp], equal: Floats) -> NDArray[np.bool_]:
    """Pairs that no chain of sure copies connects."""
    above: dict[int, int] = {}

    def top(row: int) -> int:
        while (up := above.get(row, row)) != row:
            above[row] = above.get(up, up)
            row = up
        return row

    for one, two in pair_rows[equal >= _SURE].tolist():
        above[top(one)] = top(two)
    ends = np.array([[top(one), top(two)] for one, two in pair_rows.tolist()], np.intp).reshape(-1, 2)
    return np.asarray(ends[:, 0] != ends[:, 1])


def _stretched(decoys: Floats, equal: Floats, copies: float) -> Floats:
    """Decoys as alike as the pairs they stand for, never less than they are.

    Args:
        decoys: float32[p].
        equal: float32[p], of the pairs themselves, some of which may be copies that were missed.
        copies: the share of copies among all pairs: the higher, the lower the quantile that is compared.
    """
    if len(decoys) < _ENOUGH:
        return decoys
    quantiles = [0.5, 1 - min(max(2 * copies, 0.02), 0.1)]
    (low, high), (own_low, own_high) = np.quantile(equal, quantiles), np.quantile(decoys, quantiles)
    if low - own_low < _LAYOUT:  # mirrored or not, they are equally alike
        return decoys
    by = np.clip((high - low) / max(own_high - own_low, 1e-6), 1, 3)
    stretched: Floats = np.maximum(decoys, low + by * (decoys - own_low)).astype(np.float32)
    return stretched


def least_bits(equal: Floats, decoys: Floats) -> float:
    """The smallest share of equal bits at which few enough of the pairs are wrong."""
    for least in np.arange(LEAST_BITS, 0.96, 0.01).tolist():
        found, wrong = int((equal >= least).sum()), int((decoys >= least).sum())
        if wrong <= _WRONG * found:
            return float(round(least, 2))
    return 0.96


def surely(hashed: dict[int, Picture], least: float, known: NDArray[np.intp]) -> NDArray[np.intp]:
    """Pairs whose wholes have so many equal bits that no embedding is asked: int[p, 2]."""
    if len(hashed) < 2:
        return np.empty((0, 2), np.intp)
    places = np.array(sorted(hashed), np.intp)
    signs = np.stack([np.unpackbits(hashed[place].bits[0]) for place in places.tolist()])
    unit = (signs.astype(np.float32) * 2 - 1) / 16  # a product is then 2 * share - 1
    first, second, _, _ = pairs(unit, 2 * least - 1)
    tints = np.stack([hashed[place].tints for place in places.tolist()])
    agree = alike_in_colour(tints[first], tints[second]) if len(first) else np.zeros(0, bool)
    found = np.stack([places[first[agree]], places[second[agree]]], axis=1)
    had = {frozenset(pair) for pair in known.tolist()}
    new = [pair for pair in found.tolist() if frozenset(pair) not in had]
    return np.array(new, np.intp).reshape(-1, 2)
