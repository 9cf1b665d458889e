"""Search: the same product as classifying with the roles swapped: one question, many images, best first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.search.fits import FITS, unusual
from nshot.search.index import Index
from nshot.search.product import neighbours as _neighbours
from nshot.search.product import top
from nshot.types import Failure, Floats
from nshot.unit import normalize

_AGAINST = 0.5  # weight of what is not wanted
_LOOKED_AT = 1000  # of the best rows, when asking whether anything fits
_CHOOSE_FROM = 10  # times as many candidates as hits, where they shall differ
_SEED = 0
_COMPARED = 500_000  # images that are compared each with each: half an hour on two cores


@dataclass(frozen=True, slots=True)
class Hit:
    """One image that a search found.

    Attributes:
        query: the question, in words.
        rank: 1 for the best.
        source: the image's name.
        score: how unusual the cosine is for this image, in deviations over generic questions; comparable
            between questions. None where there is nothing to compare with.
        cosine: of the image and the question; not comparable between questions.
        fits: whether the score says that the image fits; None for a question that holds images.
        row: the image's row in what was searched.
    """

    query: str
    rank: int
    source: str
    score: float | None
    cosine: float
    fits: bool | None
    row: int = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSONL holds it."""
        return {
            "query": self.query,
            "rank": self.rank,
            "source": self.source,
            "score": self.score,
            "cosine": self.cosine,
            "fits": self.fits,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Hits(Sequence[Hit]):
    """What one question found, best first.

    Attributes:
        query: the question, in words.
        hits: the images.
        best: the largest score among the thousand nearest images; None where nothing was compared.
        failures: images that were asked for and have no vector.
    """

    query: str
    hits: tuple[Hit, ...]
    best: float | None
    failures: tuple[Failure, ...] = ()

    @property
    def fits(self) -> bool | None:
        """Whether anything fits the question; None where that cannot be told."""
        if not self.hits or self.hits[0].fits is None or self.best is None:
            return None
        return self.best >= FITS

    def to_pandas(self) -> Any:
        """A data frame with a row per hit."""
        import pandas

        return pandas.DataFrame([hit.to_dict() for hit in self.hits])

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Hit]: ...

    def __getitem__(self, place: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[place]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __repr__(self) -> str:
        verdict = {True: "", False: "; nothing here fits", None: ""}[self.fits]
        lines = [f"<Hits: {self.query!r}, {len(self)} images{verdict}>"]
        for hit in self.hits[:10]:
            score = "     " if hit.score is None else f"{hit.score:5.1f}"
            lines.append(f"  {hit.rank:3}  {score}  {hit.cosine:.4f}  {hit.source}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A question as a vector.

    Attributes:
        name: in words.
        vector: float32[d], unit norm.
        background: float32[m, d], the same question about generic things, unit rows; None: not compared.
        images: whether images are among what is asked for.
    """

    name: str
    vector: Floats
    background: Floats | None = None
    images: bool = False


def compose(
    name: str,
    *,
    texts: ArrayLike | None = None,
    like: ArrayLike | None = None,
    against: ArrayLike | None = None,
    generic_texts: ArrayLike | None = None,
    generic_images: ArrayLike | None = None,
) -> Query:
    """One question of several parts (Rocchio 1971).

    With u(.) a mean of unit vectors, made a unit vector again::

        question = u(u(texts) + u(like) - u(against) / 2)

    A single text is its own vector, so that searching for it is the plain product.

    Args:
        name: the question in words.
        texts: float[n, d], texts to look for.
        like: float[n, d], images to look for the like of.
        against: float[n, d], texts and images to stay away from.
        generic_texts: float[m, d], what stands in the place of the texts in the question's background.
        generic_images: float[m, d], what stands in the place of the images; other images, as a rule.

    Raises:
        RequestError: nothing to look for, or parts that cancel each other out.
    """
    parts = [(_rows(texts), _rows(generic_texts)), (_rows(like), _rows(generic_images))]
    wanted = [(rows, generic) for rows, generic in parts if rows is not None]
    if not wanted:
        raise RequestError("a search needs something to look for: a text or an image")
    away = _rows(against)
    minus = 0.0 if away is None else _AGAINST * _middle(away)
    try:
        if len(wanted) == 1 and len(wanted[0][0]) == 1 and away is None:
            vector = normalize(wanted[0][0])[0]
        else:
            total = sum(_middle(rows) for rows, _ in wanted) - minus
            vector = normalize(np.asarray(total)[None])[0]
    except RequestError as error:
        raise RequestError("what to look for and what to stay away from cancel each other out") from error
    background = None
    if all(generic is not None and len(generic) > 1 for _, generic in wanted):
        count = max(len(generic) for _, generic in wanted if generic is not None)
        rows = sum(
            normalize(generic)[np.arange(count) % len(generic)]
            for _, generic in wanted
            if generic is not None
        )
        background = normalize(np.asarray(rows) - minus)
    return Query(name, vector, background, like is not None)


def search(
    images: Embeddings | Index,
    query: Query,
    count: int = 20,
    *,
    where: ArrayLike | None = None,
    diversity: float = 0.0,
    without: Sequence[str] = (),
) -> Hits:
    """The images nearest to a question.

    Args:
        images: what is searched.
        query: the question, from ``compose``.
        count: how many images to find.
        where: bool[n], the images that may be found; all by default.
        diversity: 0 for the nearest; toward 1, hits that differ from each other (maximal marginal relevance,
            Carbonell and Goldstein 1998).
        without: names of images that are not to be found.

    Raises:
        RequestError: a question of another model, a count under 1, a diversity outside of [0, 1).
    """
    if count < 1:
        raise RequestError(f"at least 1 image is to be found, not {count}")
    if not 0 <= diversity < 1:
        raise RequestError(f"diversity is from 0 up to 1, not {diversity:g}")
    vectors = images.vectors
    if vectors.shape[1] != len(query.vector):
        raise RequestError(
            f"the question has {len(query.vector)} features and the images have {vectors.shape[1]}: "
            "they were embedded by different models"
        )
    failures = tuple(images.failures.values()) if isinstance(images, Embeddings) else ()
    allowed = _allowed(images, where, without)
    if allowed is not None:
        vectors = vectors[allowed]
    pool = max(_LOOKED_AT, count * (_CHOOSE_FROM if diversity else 1))
    finder = images.top if isinstance(images, Index) and allowed is None else None
    found, cosines = (
        finder(query.vector[None], pool) if finder is not None else top(vectors, query.vector[None], pool)
    )
    rows, near = found[0], cosines[0]
    scores = None
    if query.background is not None and len(rows):
        scores = unusual(near, vectors[rows], query.background, vectors)
    order = np.arange(len(rows))[:count]
    if diversity:
        limit = count * _CHOOSE_FROM
        order = _varied(np.asarray(vectors[rows[:limit]], np.float32), near[:limit], count, diversity)
    hits = []
    for rank, place in enumerate(order.tolist(), start=1):
        row = int(rows[place] if allowed is None else allowed[rows[place]])
        score = None if scores is None else float(scores[place])
        fits = None if score is None or query.images else score >= FITS
        hits.append(Hit(query.name, rank, images.sources[row], score, float(near[place]), fits, row))
    best = None if scores is None else float(scores.max())
    return Hits(query.name, tuple(hits), best, failures)


def nearest(images: Embeddings, count: int = 10) -> list[Hits]:
    """Each image's nearest other images: a recommendation per image.

    The score is the cosine's distance from the image's mean cosine with the others, in deviations.

    Raises:
        RequestError: so many images that comparing each with each would take hours.
    """
    if len(images) > _COMPARED:
        raise RequestError(
            f"{len(images):,} images are too many to compare each with each (at most {_COMPARED:,}: time "
            "grows with the square): look for what is like some of them, or name a part of them"
        )
    rows, cosines = _neighbours(images.vectors, count)
    generic = _sample(images)
    answers = []
    for row, source in enumerate(images.sources):
        scores: list[float | None] = [None] * len(rows[row])
        if len(generic) > 2:
            usual = generic @ images.vectors[row]
            spread = max(float(usual.std()), 1e-6)
            scores = [float((each - usual.mean()) / spread) for each in cosines[row]]
        hits = tuple(
            Hit(source, rank + 1, images.sources[other], scores[rank], float(cosines[row, rank]), None, other)
            for rank, other in enumerate(rows[row].tolist())
        )
        answers.append(Hits(source, hits, max((s for s in scores if s is not None), default=None)))
    return answers


def _sample(images: Embeddings | Index, count: int = 256) -> Floats:
    """Some of the images, to stand for any image."""
    order = np.random.default_rng(_SEED).permutation(len(images.sources))[:count]
    return np.asarray(images.vectors[np.sort(order)], np.float32)


def _rows(rows: ArrayLike | None) -> NDArray[Any] | None:
    if rows is None:
        return None
    array = np.atleast_2d(np.asarray(rows))
    return array if len(array) else None


def _middle(rows: NDArray[Any]) -> NDArray[np.float64]:
    """The mean direction of some vectors: float[n, d] -> float64[d], unit norm."""
    mean = normalize(rows).astype(np.float64).mean(axis=0)
    length = float(np.linalg.norm(mean))
    middle: NDArray[np.float64] = mean / length if length > 1e-9 else mean
    return middle


def _allowed(images: Embeddings | Index, where: ArrayLike | None, without: Sequence[str]) -> Any:
    """Rows that may be found, or None for all."""
    if where is None and not without:
        return None
    mask = np.ones(len(images.sources), bool) if where is None else np.asarray(where, bool).copy()
    if mask.shape != (len(images.sources),):
        raise RequestError(f"a filter has a value for each of the {len(images.sources)} images")
    if without:
        left_out = frozenset(without)
        mask &= np.fromiter((name not in left_out for name in images.sources), bool, len(mask))
    return None if mask.all() else np.flatnonzero(mask)


def _varied(vectors: Floats, cosines: Floats, count: int, diversity: float) -> NDArray[np.intp]:
    """Greedy choice: near to the question, far from what is chosen.

    Cosines with a text are small beside those of two images, so they count as shares of the largest.
    """
    between = vectors @ vectors.T
    relevance = cosines / float(cosines[0]) if len(cosines) and cosines[0] > 0 else cosines
    chosen: list[int] = []
    nearest = np.zeros(len(vectors), np.float32)
    left = np.ones(len(vectors), bool)
    for _ in range(min(count, len(vectors))):
        worth = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        best = int(worth.argmax())
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, between[best])
    return np.array(chosen, np.intp)
