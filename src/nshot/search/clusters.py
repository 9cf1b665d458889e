"""Images that belong together, what to call them, and those that belong nowhere.

    vectors - their mean -> 32 principal components -> k-means, ten starts -> clusters -> names

The components are what makes it work: measured over recorded sets, they beat the whole vectors, and density
(HDBSCAN) and whitening do far worse (docs/search.md). How many clusters there are is for a person to say; the
tree tells which of them would join next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.types import Failure, Floats
from nshot.unit import normalize

_COMPONENTS = 32
_STARTS = 10
_STEPS = 100
_TRIED = 20_000  # images that the starts are compared on
_FAR = 3.0  # deviations from the usual distance in a cluster, from which an image is an outlier
_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class Cluster:
    """Images that belong together.

    Attributes:
        number: 1 for the largest.
        name: what sets it apart; None without names to choose from.
        rows: its images, the most typical first, outliers last.
        distances: of each from the centre, in the space of the principal components.
        tightness: mean cosine of its images with their mean; 1 where they are all equal.
        outliers: how many of the last rows are far from the centre, beside the others.
    """

    number: int
    name: str | None
    rows: tuple[int, ...]
    distances: tuple[float, ...]
    tightness: float
    outliers: int

    @property
    def medoid(self) -> int:
        """The row of the most typical image."""
        return self.rows[0]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Join:
    """Two clusters become one.

    Attributes:
        k: how many clusters are left.
        explained: share of the images' squared distances from their mean that lies between those, 0 to 1.
        clusters: the numbers of the clusters that are one by now.
        names: what the two were called: each by its largest cluster.
        images: how many images the new one has.
    """

    k: int
    explained: float
    clusters: tuple[int, ...]
    names: tuple[str, str]
    images: int

    def to_dict(self) -> dict[str, Any]:
        """The record as JSONL holds it."""
        return {
            "k": self.k,
            "explained": self.explained,
            "clusters": list(self.clusters),
            "names": list(self.names),
            "images": self.images,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Clusters(Sequence[Cluster]):
    """All clusters of some images, the largest first.

    Attributes:
        sources: the images' names.
        clusters: the clusters.
        labels: int[n], each image's cluster, counted from 0.
        tree: (a, b, distance): which clusters, counted from 0, would join next, the nearest first; what they
            make takes the place of a (Ward 1963).
        spread: sum of the images' squared distances from their mean, in the space of the components.
        failures: images without a vector.
    """

    sources: Sequence[str]
    clusters: tuple[Cluster, ...]
    labels: NDArray[np.intp]
    tree: tuple[tuple[int, int, float], ...]
    spread: float
    failures: tuple[Failure, ...] = ()

    @property
    def explained(self) -> float:
        """Share of the images' squared distances from their mean that lies between the clusters, 0 to 1."""
        within = sum(distance**2 for each in self.clusters for distance in each.distances)
        return 1 - within / self.spread if self.spread else 1.0

    def joins(self) -> list[Join]:
        """The tree: from these clusters down to one, which two join and how much is then still explained.

        How many clusters there are cannot be told from the vectors; where a join takes much away, what it
        joined was two things.
        """
        members: dict[int, list[int]] = {number: [number] for number in range(len(self))}
        explained, made = self.explained, []
        for a, b, added in self.tree:
            explained -= added**2 / self.spread if self.spread else 0.0
            pair = (members[a], members[b])
            members[a] = sorted(members[a] + members.pop(b))
            numbers = tuple(number + 1 for number in members[a])
            names = tuple(
                self.clusters[own[0]].name or " + ".join(str(number + 1) for number in own) for own in pair
            )
            images = sum(len(self.clusters[number]) for number in members[a])
            made.append(Join(len(members), max(0.0, explained), numbers, (names[0], names[1]), images))
        return made

    def records(self) -> Iterator[dict[str, Any]]:
        """A record per image, as JSONL holds it."""
        for cluster in self.clusters:
            for row, distance in zip(cluster.rows, cluster.distances, strict=True):
                yield {
                    "cluster": cluster.number,
                    "name": cluster.name,
                    "source": self.sources[row],
                    "distance": distance,
                }

    def __getitem__(self, place: Any) -> Any:
        return self.clusters[place]

    def __len__(self) -> int:
        return len(self.clusters)

    def __repr__(self) -> str:
        lines = [f"<Clusters: {len(self)} of {len(self.sources):,} images>"]
        for cluster in self.clusters:
            lines.append(f"  {cluster.number:3}  {len(cluster):6,}  {cluster.name or ''}")
        return "\n".join(lines)


def cluster(
    images: Embeddings,
    k: int | None = None,
    *,
    names: Sequence[str] = (),
    name_vectors: ArrayLike | None = None,
    seed: int = 0,
) -> Clusters:
    """Put images that belong together into clusters.

    Args:
        images: the images.
        k: how many clusters; by default the square root of half the images, between 2 and 30: no measure of
            the vectors alone tells the number well.
        names: words to name the clusters with, each used once.
        name_vectors: float[m, d], what the model makes of the names.
        seed: of the starts.

    Raises:
        RequestError: fewer than two images, a k that does not fit, or names without vectors.
    """
    n = len(images)
    if n < 2:
        raise RequestError(f"clusters need at least two images, and there are {n}")
    if k is None:
        k = max(2, min(30, round((n / 2) ** 0.5), n))
    if not 1 <= k <= n:
        raise RequestError(f"{n} images make between 1 and {n} clusters, not {k}")
    if ((name_vectors is not None and len(np.asarray(name_vectors))) or 0) != len(names):
        raise RequestError("each name needs its vector")
    points = components(images.vectors)
    labels, centres = k_means(points, k, seed=seed)
    sizes = np.bincount(labels, minlength=k)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    rank = np.zeros(k, np.intp)
    rank[order] = np.arange(len(order))
    labels, centres = rank[labels], centres[order]
    distances = np.concatenate(
        [
            np.linalg.norm(points[part] - centres[labels[part]], axis=1)
            for part in (slice(start, start + _CHUNK) for start in range(0, n, _CHUNK))
        ]
    )
    sizes = np.bincount(labels, minlength=len(order))
    middles = _middles(images.vectors, labels, sizes)
    called: Sequence[str | None] = [None] * len(order)
    if len(names):
        called = _named(middles, np.average(middles, axis=0, weights=sizes), names, np.asarray(name_vectors))
    clusters = []
    for number in range(len(order)):
        rows = np.flatnonzero(labels == number)
        rows = rows[np.argsort(distances[rows], kind="stable")]
        own = distances[rows]
        middle = float(np.median(own))
        spread = 1.4826 * float(np.median(np.abs(own - middle)))
        clusters.append(
            Cluster(
                number + 1,
                called[number],
                tuple(rows.tolist()),
                tuple(own.tolist()),
                float(np.linalg.norm(middles[number])),  # equals the mean cosine with the mean's direction
                int((own > middle + _FAR * spread).sum()) if len(rows) > 4 and spread > 1e-9 else 0,
            )
        )
    tree = _tree(centres, sizes)
    points -= points.mean(axis=0)
    spread = float(
        sum(np.square(points[s : s + _CHUNK], dtype=np.float64).sum() for s in range(0, n, _CHUNK))
    )
    return Clusters(images.sources, tuple(clusters), labels, tree, spread, tuple(images.failures.values()))


def suggest_labels(clusters: Clusters) -> list[str]:
    """The clusters' names, a start for a person's labels, the largest cluster's first."""
    return list(dict.fromkeys(each.name for each in clusters.clusters if each.name is not None))


def components(vectors: Floats, count: int = _COMPONENTS) -> Floats:
    """Centred vectors on their strongest principal components: float32[n, d] -> float32[n, count]."""
    parts = [slice(start, start + _CHUNK) for start in range(0, len(vectors), _CHUNK)]
    total = np.zeros(vectors.shape[1])
    for part in parts:
        total += vectors[part].sum(axis=0, dtype=np.float64)
    mean = (total / max(len(vectors), 1)).astype(np.float32)
    spread = np.zeros((vectors.shape[1],) * 2)
    for part in parts:
        apart = vectors[part] - mean
        spread += apart.T @ apart
    _, directions = np.linalg.eigh(spread)
    axes = directions[:, ::-1][:, :count].astype(np.float32)
    points = np.empty((len(vectors), axes.shape[1]), np.float32)
    for part in parts:
        points[part] = (vectors[part] - mean) @ axes
    return points


def k_means(points: Floats, k: int, *, seed: int = 0) -> tuple[NDArray[np.intp], Floats]:
    """Lloyd's k-means, the best of ten starts (k-means++, Arthur and Vassilvitskii 2007).

    Args:
        points: float32[n, c].
        k: how many.
        seed: of the starts.

    Returns:
        int[n], each point's cluster, and float32[k, c], the centres.
    """
    rng = np.random.default_rng(seed)
    some = points
    if len(points) > _TRIED:
        some = points[np.sort(rng.permutation(len(points))[: max(_TRIED, k)])]
    best, least = None, np.inf
    for _ in range(_STARTS if k > 1 else 1):
        centres = _lloyd(some, _plus_plus(some, k, rng), 30)
        cost = float(_assigned(some, centres)[1].sum())
        if cost < least:
            best, least = centres, cost
    assert best is not None
    centres = _lloyd(points, best, _STEPS)
    return _assigned(points, centres)[0], centres


def _lloyd(points: Floats, centres: Floats, steps: int) -> Floats:
    before: NDArray[np.intp] | None = None
    for _ in range(steps):
        labels, far = _assigned(points, centres)
        if before is not None and np.array_equal(labels, before):
            break
        before = labels
        counts = np.bincount(labels, minlength=len(centres))
        sums = np.stack(
            [np.bincount(labels, column, len(centres)) for column in points.T.astype(np.float64)], axis=1
        )
        centres = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        for rank, empty in enumerate(np.flatnonzero(counts == 0)):  # takes the point that is worst off
            centres[empty] = points[np.argsort(-far)[rank]]
    return centres


def _plus_plus(points: Floats, k: int, rng: np.random.Generator) -> Floats:
    chosen = [int(rng.integers(len(points)))]
    far = ((points - points[chosen[0]]) ** 2).sum(axis=1, dtype=np.float64)
    for _ in range(k - 1):
        total = far.sum()
        # of a few candidates the one that helps most, as scikit-learn does it
        tries = (
            rng.choice(len(points), 2 + int(np.log(k)), p=far / total)
            if total > 0
            else rng.integers(len(points), size=1)
        )
        nearer = [
            np.minimum(far, ((points - points[each]) ** 2).sum(axis=1, dtype=np.float64)) for each in tries
        ]
        best = int(np.argmin([each.sum() for each in nearer]))
        chosen.append(int(tries[best]))
        far = nearer[best]
    return points[chosen].copy()


def _assigned(points: Floats, centres: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Each point's nearest centre, and the square of its distance."""
    labels = np.empty(len(points), np.intp)
    far = np.empty(len(points), np.float32)
    size = (centres**2).sum(axis=1)
    step = max(1, 2**22 // len(centres))
    for start in range(0, len(points), step):
        part = points[start : start + step]
        squares = size - 2 * (part @ centres.T)
        labels[start : start + step] = squares.argmin(axis=1)
        far[start : start + step] = squares.min(axis=1) + (part**2).sum(axis=1)
    return labels, np.maximum(far, 0)


def _middles(vectors: Floats, labels: NDArray[np.intp], sizes: NDArray[np.intp]) -> NDArray[np.float64]:
    """The mean vector of each cluster: float64[k, d]."""
    sums = np.zeros((len(sizes), vectors.shape[1]))
    for start in range(0, len(vectors), _CHUNK):
        own = labels[start : start + _CHUNK]
        order = np.argsort(own, kind="stable")
        there, first = np.unique(own[order], return_index=True)
        rows = vectors[start : start + _CHUNK][order]
        sums[there] += np.add.reduceat(rows, first, axis=0, dtype=np.float64)
    return sums / np.maximum(sizes, 1)[:, None]


def _named(
    middles: NDArray[np.float64],
    middle: NDArray[np.float64],
    names: Sequence[str],
    name_vectors: NDArray[Any],
) -> list[str | None]:
    """For each cluster the name that sets it apart, each name once.

    Both sides are centred first, the names by their mean and the clusters by the images': images and texts
    lie apart, and the names that lie toward the images would be everybody's.
    """
    texts = normalize(name_vectors)
    away = texts - texts.mean(axis=0)
    k = len(middles)
    apart = middles - middle
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    apart /= np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-9)
    likeness = apart @ away.T
    called: list[str | None] = [None] * k
    for _ in range(min(k, len(names))):
        cluster, name = np.unravel_index(int(likeness.argmax()), likeness.shape)
        called[int(cluster)] = names[int(name)]
        likeness[cluster] = likeness[:, name] = -np.inf
    return called


def _tree(centres: Floats, sizes: NDArray[np.intp]) -> tuple[tuple[int, int, float], ...]:
    """Which clusters join next, by what joining adds to the squared distances from the centres."""
    middles, counts = centres.astype(np.float64).copy(), sizes.astype(np.float64).copy()
    left = list(range(len(middles)))
    joins = []
    while len(left) > 1:
        squares = ((middles[left][:, None] - middles[left][None]) ** 2).sum(axis=2)
        weight = counts[left][:, None] * counts[left][None] / (counts[left][:, None] + counts[left][None])
        cost = squares * weight
        np.fill_diagonal(cost, np.inf)
        a, b = (left[int(each)] for each in np.unravel_index(int(cost.argmin()), cost.shape))
        a, b = min(a, b), max(a, b)
        joins.append((a, b, float(cost.min() ** 0.5)))
        total = counts[a] + counts[b]
        middles[a] = (middles[a] * counts[a] + middles[b] * counts[b]) / total
        counts[a] = total
        left.remove(b)
    return tuple(joins)


def joined(clusters: Clusters, k: int) -> NDArray[np.intp]:
    """The labels after joining down to k clusters along the tree: int[n], counted from 0.

    Raises:
        RequestError: more clusters than there are, or none.
    """
    if not 1 <= k <= len(clusters):
        raise RequestError(
            f"{len(clusters)} clusters can be joined to between 1 and {len(clusters)}, not {k}"
        )
    where = np.arange(len(clusters))
    for a, b, _ in clusters.tree[: len(clusters) - k]:
        where[where == b] = a
    _, compact = np.unique(where, return_inverse=True)
    return np.asarray(compact, np.intp)[clusters.labels]


def renamed(clusters: Clusters, names: Sequence[str | None]) -> Clusters:
    """The same clusters under other names, one for each."""
    if len(names) != len(clusters):
        raise RequestError(f"{len(clusters)} clusters need as many names, not {len(names)}")
    changed = tuple(replace(each, name=name) for each, name in zip(clusters.clusters, names, strict=True))
    return replace(clusters, clusters=changed)
