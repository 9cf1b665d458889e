"""Exact products of many vectors: the best rows for a question, and all pairs that are near each other.

Everything goes block by block, so memory does not grow with the number of rows. Rows of float32 are
multiplied by numpy; rows of float16, such as an ``Index`` maps from disk, by NumKong where it is installed,
which reads them at the speed of memory, and otherwise by numpy after widening, about ten times slower.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.extras import numkong
from nshot.types import Floats

Rows = NDArray[np.intp]

_SCAN = 32_768  # rows multiplied at once in a scan
_WIDE = 1024  # rows of float16 widened at once, so that they stay in the processor's cache
_FEW = 4  # questions up to which a row is better read once per question than packed
_EXTRA = 32  # more candidates than asked for, told again in float32
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
    if not count:
        return best, cosines
    rows: list[Rows] = [np.empty(0, np.intp)] * len(queries)
    held: list[Floats] = [np.empty(0, np.float32)] * len(queries)
    pack = _Packed(queries, vectors.dtype)
    starts = range(0, len(vectors), _SCAN)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(lambda start: pack.best(vectors[start : start + _SCAN], near), starts)
        for start, (where, found) in zip(starts, parts, strict=True):
            for query in range(len(queries)):
                rows[query] = np.concatenate([rows[query], where[query] + start])
                held[query] = np.concatenate([held[query], found[query]])
                if len(rows[query]) > 4 * near:
                    keep = _largest(held[query], near)
                    rows[query], held[query] = rows[query][keep], held[query][keep]
    for query, vector in enumerate(queries):
        chosen = rows[query][_largest(held[query], near)]
        chosen.sort()
        exact = vectors[chosen].astype(np.float32) @ vector
        order = np.argsort(-exact, kind="stable")[:count]
        best[query], cosines[query] = chosen[order], exact[order]
    return best, cosines


def neighbours(vectors: Floats, count: int) -> tuple[Rows, Floats]:
    """Each row's nearest other rows, best first: float32[n, d] -> int[n, count], float32[n, count]."""
    count = min(count, max(len(vectors) - 1, 0))
    rows = np.empty((len(vectors), count), np.intp)
    cosines = np.empty((len(vectors), count), np.float32)
    step = max(1, 2**24 // max(len(vectors), 1))  # 64 MB of products at once
    for start in range(0, len(vectors) if count else 0, step):
        products = vectors[start : start + step] @ vectors.T
        own = np.arange(len(products))
        products[own, own + start] = -np.inf
        near = np.argpartition(-products, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(products, near, 1)
        order = np.lexsort((near, -values), axis=1)
        rows[start : start + step] = np.take_along_axis(near, order, 1)
        cosines[start : start + step] = np.take_along_axis(values, order, 1)
    return rows, cosines


def pairs(
    vectors: NDArray[Any], least: float, *, most: int | None = None
) -> tuple[Rows, Rows, Floats, float]:
    """All pairs of rows whose product is at least so large.

    Args:
        vectors: float[n, d], unit rows.
        least: the smallest product.
        most: pairs that are kept; where there are more, the nearest. 32 for each row by default.

    Returns:
        First rows, second rows (each larger than its first), products, and the smallest product that was
        kept: ``least``, or more where there were too many.
    """
    most = 32 * len(vectors) if most is None else most
    first: list[Rows] = []
    second: list[Rows] = []
    products: list[Floats] = []
    held, (high, wide) = 0, _BLOCK
    space = np.empty(_BLOCK, np.float32)
    for start in range(0, len(vectors), high):
        rows = np.asarray(vectors[start : start + high], np.float32)
        for left in range(start, len(vectors), wide):
            columns = np.asarray(vectors[left : left + wide], np.float32)
            block = space.reshape(-1)[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            np.matmul(rows, columns.T, out=block)
            if left == start:  # each pair once, and no row with itself
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


class _Packed:
    """Queries made ready for rows of one type."""

    def __init__(self, queries: Floats, kind: np.dtype[Any]) -> None:
        self._queries = np.ascontiguousarray(queries)
        self._library = numkong() if kind == np.float16 else None
        if self._library is not None:
            half = self._queries.astype(np.float16)
            self._half = half if len(half) <= _FEW else self._library.dots_pack(half, dtype="f16")

    def best(self, rows: NDArray[Any], count: int) -> tuple[NDArray[np.intp], Floats]:
        """The largest products in a part of the rows: int[q, <= count], float32[q, <= count]."""
        products = self._products(rows).T
        count = min(count, products.shape[1])
        if count == products.shape[1]:
            chosen = np.broadcast_to(np.arange(count), products.shape)
        else:
            chosen = np.stack([_largest(row, count) for row in products])
        return chosen, np.take_along_axis(products, chosen, 1)

    def _products(self, rows: NDArray[Any]) -> Floats:
        if self._library is not None:
            rows = np.asarray(rows)
            few = len(self._queries) <= _FEW
            made = (
                self._library.cdist(
                    rows, self._half, "dot"
                )  # asked for float32, it takes three times as long
                if few
                else self._library.dots_packed(rows, self._half)
            )
            return np.asarray(made, np.float32).reshape(len(rows), len(self._queries))
        if rows.dtype == np.float32:
            out: Floats = rows @ self._queries.T
            return out
        parts = [
            rows[start : start + _WIDE].astype(np.float32) @ self._queries.T
            for start in range(0, len(rows), _WIDE)
        ]
        return np.concatenate(parts)


def _largest(values: Floats, count: int) -> Rows:
    """Places of the largest values, in no order; of equal ones at the edge, the first."""
    if count >= len(values):
        return np.arange(len(values))
    edge = np.partition(values, len(values) - count)[len(values) - count]
    over = np.flatnonzero(values > edge)
    return np.concatenate([over, np.flatnonzero(values == edge)[: count - len(over)]])
