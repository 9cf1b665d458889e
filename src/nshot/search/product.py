"""Exact products of many vectors: the best rows for a question, and all pairs that are near each other.

Everything goes block by block, so memory does not grow with the number of rows. Rows of float32 are
multiplied by numpy; rows of float16, such as an ``Index`` maps from disk, by NumKong where it is installed,
which reads them at the speed of memory, and otherwise by numpy after widening.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.extras import numkong
from nshot.images.budget import usable_cores
from nshot.types import Floats

Rows = NDArray[np.intp]

_SCAN = 32_768  # rows multiplied at once in a scan
_FIRST = 4096  # rows that tell the first edge: what is under it cannot be among the best
_MANY = 16  # times as many rows over the edge as are asked for, from which they are thinned at once
_WIDE = 256  # rows of float16 widened at once, so that they stay in the processor's cache
_WIDE_MANY = 4096  # the same for several queries: enough for a product on every core
_PLACES = np.array(0x8FFFE000, np.uint32).view(np.int32)  # bits of a float32 that a float16 has as well
_FEW = 4  # questions up to which a row is better read once per question than packed
_EXTRA = 32  # more candidates than asked for, told again in float32
_MINE, _OTHERS = 2048, 16_384  # rows whose neighbours are looked for at once, and among how many
_BLOCK = (2048, 4096)  # rows and columns of a block of all pairs: 32 MB


def top(vectors: NDArray[Any], queries: Floats, count: int) -> tuple[Rows, Floats]:
    """The rows of the largest products with each query, best first; equal ones in the rows' order.

    Args:
        vectors: float32[n, d] or float16[n, d], unit rows.
        queries: float32[q, d], unit rows.
        count: how many rows per query; n, if there are no more.

    Returns:
        Rows, int[q, min(count, n)], and their products with the query in float32, of the same shape.
    """
    count = min(count, len(vectors))
    near = min(count + _EXTRA, len(vectors)) if vectors.dtype == np.float16 else count
    best = np.empty((len(queries), count), np.intp)
    cosines = np.empty((len(queries), count), np.float32)
    if not count or not len(queries):
        return best, cosines
    held = _Held(len(queries), near)
    pack = _Packed(queries, vectors.dtype)
    first = min(len(vectors), max(_FIRST, near))
    held.add(0, *pack.best(vectors[:first], held.edge, near))
    starts = range(first, len(vectors), _SCAN)
    with ThreadPoolExecutor(pack.threads) as pool:  # each part asks for the edge when its turn comes
        parts = pool.map(lambda start: pack.best(vectors[start : start + _SCAN], held.edge, near), starts)
        for start, part in zip(starts, parts, strict=True):
            held.add(start, *part)
    for query, vector in enumerate(queries):
        chosen = np.sort(held.rows[held.query == query])
        exact = np.einsum("ij,j->i", vectors[chosen].astype(np.float32), vector)  # equal rows, equal products
        order = np.argsort(-exact, kind="stable")[:count]
        best[query], cosines[query] = chosen[order], exact[order]
    return best, cosines


def neighbours(vectors: Floats, count: int) -> tuple[Rows, Floats]:
    """Each row's nearest other rows, best first: float32[n, d] -> int[n, count], float32[n, count]."""
    count = min(count, max(len(vectors) - 1, 0))
    rows = np.empty((len(vectors), count), np.intp)
    cosines = np.empty((len(vectors), count), np.float32)
    for start in range(0, len(vectors) if count else 0, _MINE):
        mine = np.asarray(vectors[start : start + _MINE], np.float32)
        best = np.empty((len(mine), 0), np.intp)
        high = np.empty((len(mine), 0), np.float32)
        for left in range(0, len(vectors), _OTHERS):  # vectors of a folder are read by parts each time
            products = mine @ np.asarray(vectors[left : left + _OTHERS], np.float32).T
            own = np.arange(len(mine)) + start - left
            there = np.flatnonzero((own >= 0) & (own < products.shape[1]))
            products[there, own[there]] = -np.inf
            kept = min(count, products.shape[1])
            near = np.argpartition(-products, kept - 1, axis=1)[:, :kept]
            best = np.concatenate([best, near + left], axis=1)
            high = np.concatenate([high, np.take_along_axis(products, near, 1)], axis=1)
            order = np.lexsort((best, -high), axis=1)[:, :count]
            best, high = np.take_along_axis(best, order, 1), np.take_along_axis(high, order, 1)
        rows[start : start + _MINE], cosines[start : start + _MINE] = best, high
    return rows, cosines


def pairs(
    vectors: NDArray[Any],
    least: float,
    *,
    most: int | None = None,
    other: NDArray[Any] | None = None,
) -> tuple[Rows, Rows, Floats, float]:
    """All pairs of rows whose product is at least so large.

    Args:
        vectors: float[n, d], unit rows.
        least: the smallest product.
        most: pairs that are kept; where there are more, the nearest. 32 for each row by default.
        other: float[m, d]: pairs of a row of ``vectors`` and one of these, in the place of pairs within.

    Returns:
        First rows, second rows (each larger than its first, within one set), products, and the smallest
        product that was kept: ``least``, or more where there were too many.
    """
    most = 32 * len(vectors) if most is None else most
    against = vectors if other is None else other
    first: list[Rows] = []
    second: list[Rows] = []
    products: list[Floats] = []
    held, (high, wide) = 0, _BLOCK
    space = np.empty(_BLOCK, np.float32)
    for start in range(0, len(vectors), high):
        rows = np.asarray(vectors[start : start + high], np.float32)
        for left in range(start if other is None else 0, len(against), wide):
            columns = np.asarray(against[left : left + wide], np.float32)
            block = space.reshape(-1)[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            np.matmul(rows, columns.T, out=block)
            if other is None and left == start:  # each pair once, and no row with itself
                block[np.tri(*block.shape, dtype=bool)] = -2.0
            some = np.flatnonzero(block.max(axis=1) >= least)
            if not len(some):
                continue
            near = block[some]
            i, j = np.nonzero(near >= least)
            first.append(some[i] + start)
            second.append(j + left)
            products.append(near[i, j])
            held += len(i)
            if held > 2 * most:
                least = _thin(first, second, products, most)
                held = len(first[0])
    if held > most:
        least = _thin(first, second, products, most)
    none = np.empty(0, np.intp)
    return (
        np.concatenate([none, *first]),
        np.concatenate([none, *second]),
        np.concatenate([np.empty(0, np.float32), *products]),
        least,
    )


def _thin(first: list[Rows], second: list[Rows], products: list[Floats], most: int) -> float:
    """Keep the nearest of too many pairs, in place; the smallest product that is left."""
    cosines = np.concatenate(products)
    keep = np.sort(np.argpartition(-cosines, most - 1)[:most])
    first[:], second[:] = [np.concatenate(first)[keep]], [np.concatenate(second)[keep]]
    products[:] = [cosines[keep]]
    return float(products[0].min())


class _Held:
    """The best rows of each query so far.

    Attributes:
        query: int[h], whose each row is.
        rows: int[h].
        values: float32[h], the products.
        edge: float32[q], of each query the smallest product that may still be among the best.
    """

    def __init__(self, queries: int, count: int) -> None:
        self._count = count
        self.query = np.empty(0, np.intp)
        self.rows = np.empty(0, np.intp)
        self.values = np.empty(0, np.float32)
        self.edge = np.full(queries, -np.inf, np.float32)

    def add(self, start: int, query: Rows, rows: Rows, values: Floats) -> None:
        """Take over rows of a part that begins at ``start``; keep the best of all."""
        query = np.concatenate([self.query, query])
        rows = np.concatenate([self.rows, rows + start])
        values = np.concatenate([self.values, values])
        order = np.lexsort((rows, -values, query))
        query = query[order]
        begins = np.searchsorted(query, np.arange(len(self.edge)))
        keep = np.arange(len(query)) - begins[query] < self._count
        self.query, self.rows, self.values = query[keep], rows[order][keep], values[order][keep]
        last = np.searchsorted(self.query, np.arange(len(self.edge)), side="right") - 1
        edge = self.values[last].copy()
        edge[np.bincount(self.query, minlength=len(edge)) < self._count] = -np.inf
        self.edge = edge


class _Packed:
    """Queries made ready for rows of one type."""

    def __init__(self, queries: Floats, kind: np.dtype[Any]) -> None:
        self._queries = np.ascontiguousarray(queries)
        self._library = numkong() if kind == np.float16 else None
        if self._library is not None:
            half = self._queries.astype(np.float16)
            self._half = half if len(half) <= _FEW else self._library.dots_pack(half, dtype="f16")

    @property
    def threads(self) -> int:
        """How many parts to multiply at once: one where numpy's product takes every core by itself."""
        alone = self._library is None and len(self._queries) > 1
        return 1 if alone else usable_cores()

    def best(self, rows: NDArray[Any], edge: Floats, count: int) -> tuple[Rows, Rows, Floats]:
        """What of a part of the rows may be among the best: whose, which row, its product.

        Telling what lies over the edge takes a twentieth of the time of finding the largest in each part.
        """
        products = self._products(rows)
        over = np.flatnonzero(~(products < edge))  # what is no number is not passed over
        chosen, query = np.divmod(over, len(edge))
        if len(over) > _MANY * count * len(edge):
            largest = [_largest(column, min(count, len(rows))) for column in products.T]
            chosen, query = np.concatenate(largest), np.repeat(np.arange(len(edge)), len(largest[0]))
        return query, chosen, products[chosen, query]

    def _products(self, rows: NDArray[Any]) -> Floats:
        if rows.dtype == np.float32:
            out: Floats = rows @ self._queries.T
            return out
        if self._library is None:
            return _widened_products(rows, self._queries)
        rows = np.asarray(rows)
        few = len(self._queries) <= _FEW
        made = (
            self._library.cdist(rows, self._half, "dot")  # asked for float32, it takes three times as long
            if few
            else self._library.dots_packed(rows, self._half)
        )
        return np.asarray(made, np.float32).reshape(len(rows), len(self._queries))


def _widened_products(rows: NDArray[Any], queries: Floats) -> Floats:
    """Products of float16 rows by numpy alone: float16[n, d], float32[q, d] -> float32[n, q].

    numpy turns a float16 into a float32 six times slower than its bits can be moved to where a float32 has
    them. The exponent is then too small by 112, which the queries make up for.
    """
    made = np.empty((len(rows), len(queries)), np.float32)
    step = _WIDE if len(queries) == 1 else _WIDE_MANY
    wide = np.empty((min(step, len(rows)), rows.shape[1]), np.int32)
    scaled = np.ascontiguousarray(queries.T * np.float32(2.0**112))
    for start in range(0, len(rows), step):
        bits = rows[start : start + step].view(np.int16)
        part = wide[: len(bits)]
        part[...] = bits  # the sign goes on to the left
        np.left_shift(part, 13, out=part)
        np.bitwise_and(part, _PLACES, out=part)
        np.matmul(part.view(np.float32), scaled, out=made[start : start + step])
    return made


def _largest(values: Floats, count: int) -> Rows:
    """Places of the largest values, in no order; of equal ones at the edge, the first."""
    if count >= len(values):
        return np.arange(len(values))
    edge = np.partition(values, len(values) - count)[len(values) - count]
    over = np.flatnonzero(values > edge)
    return np.concatenate([over, np.flatnonzero(values == edge)[: count - len(over)]])
