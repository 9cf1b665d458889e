"""Duplicates in three kinds, kept apart, and the measure of how far to trust each.

    same    the same bytes: equal digests
    copy    the same picture, resized, recompressed, converted or cropped a little: the embedding proposes, a
            hash of 16 x 16 frequencies decides
    scene   pictures that the model can hardly tell apart: the embedding alone

How many equal bits make a copy is measured on the person's own images: on copies made of them, and on
decoys. A decoy is a pair whose one image is mirrored: as alike as different pictures of this collection are,
and never the same one. So the share of wrong pairs among those called copies can be told without any label.

Groups do not chain: each member was found to be a duplicate of the group's best one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from nshot.embeddings import Embeddings
from nshot.embeddings.stored import taken
from nshot.errors import RequestError
from nshot.images.sources import Source
from nshot.search import telling
from nshot.search.hashing import Picture
from nshot.search.product import pairs
from nshot.search.rereading import Reader
from nshot.search.telling import LEAST_BITS
from nshot.types import Failure

if TYPE_CHECKING:
    from nshot.embedder import Embedder

Kind: TypeAlias = Literal["same", "copy", "scene"]

KINDS: tuple[Kind, ...] = ("same", "copy", "scene")

_SURE_BITS = 0.10  # more than that, and the hash decides alone
_PROPOSED = 0.80  # cosine from which the hash is asked, where no model is there to measure it
_SCENE = 0.95  # cosine of one scene, likewise
_COMPARED = 500_000  # images that are compared each with each: a quarter of an hour on two cores
_HASHED_ALL = 20_000  # up to so many images, the hash proposes as well


@dataclass(frozen=True, slots=True)
class Group:
    """Images of which one is enough.

    Attributes:
        number: 1 for the first.
        kind: what makes them duplicates.
        best: the one to keep: in colour, then of most pixels, then sharpness, then a lossless format.
        sources: all of them, the best first.
        rows: their rows.
    """

    number: int
    kind: Kind
    best: str
    sources: tuple[str, ...]
    rows: tuple[int, ...] = field(default=(), compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSONL holds it."""
        return {"group": self.number, "kind": self.kind, "best": self.best, "sources": list(self.sources)}


@dataclass(frozen=True, slots=True)
class Measured:
    """How copies were told from others in this collection.

    Attributes:
        bits: least share of equal bits of a copy.
        proposed: least cosine of a pair that the hash was asked about.
        scene: least cosine of a scene.
        recall: share of the copies that were made of the person's own images and found again; None: no image
            could be read.
        recalls: the same, per kind of copy.
        found: pairs called copies.
        decoys: decoy pairs that would have been called copies, of as many as real ones were compared.
        compared: pairs that the hash was asked about.
        dropped: whether there were so many near pairs that only the nearest were compared.
    """

    bits: float
    proposed: float
    scene: float
    recall: float | None
    recalls: dict[str, float]
    found: int
    decoys: int
    compared: int
    dropped: bool

    @classmethod
    def nothing(cls) -> Measured:
        """Where no pictures were compared."""
        return cls(LEAST_BITS, _PROPOSED, _SCENE, None, {}, 0, 0, 0, False)

    @property
    def false_rate(self) -> float:
        """The estimated share of wrong pairs among those called copies."""
        return min(1.0, self.decoys / self.found) if self.found else 0.0

    @property
    def at_most(self) -> float:
        """The most that this share is with 95 % confidence: no decoy among few pairs proves little."""
        if not self.found:
            return 0.0
        more = self.decoys + 1  # the upper end for a count (Poisson, by Wilson and Hilferty 1931)
        return float(min(1.0, more * (1 - 1 / (9 * more) + 1.645 / (3 * more**0.5)) ** 3 / self.found))


@dataclass(frozen=True, slots=True, eq=False)
class Duplicates(Sequence[Group]):
    """Groups of duplicates: those of the same bytes, then copies, then scenes; the largest first.

    Attributes:
        groups: the groups.
        measured: how copies were told.
        failures: images that have no vector, or that could not be read to compare them.
    """

    groups: tuple[Group, ...]
    measured: Measured
    failures: tuple[Failure, ...] = ()

    def of(self, kind: Kind) -> tuple[Group, ...]:
        """The groups of one kind."""
        return tuple(group for group in self.groups if group.kind == kind)

    def __getitem__(self, place: Any) -> Any:
        return self.groups[place]

    def __len__(self) -> int:
        return len(self.groups)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.of(kind))} {kind}" for kind in KINDS)
        return f"<Duplicates: {len(self)} groups ({counts}); {self.measured.false_rate:.2%} of copies wrong>"


def duplicates(
    images: Embeddings,
    *,
    embedder: Embedder | None = None,
    pictures: Iterable[Source | Any] | None = None,
    scene: float | None = None,
    kinds: Collection[Kind] = KINDS,
    seed: int = 0,
) -> Duplicates:
    """Find duplicates among images.

    Args:
        images: the images with their vectors, named so that their files can be read again.
        embedder: the model that made the vectors: with it, the cosines of copies are measured too.
        pictures: the images listed once more (``clip.sources(...)``), where names are no files: members of
            archives, rows of tables, URLs. What is in neither place is compared by its vector alone.
        kinds: those that are looked for.
        scene: least cosine of one scene; by default as near as copies are, or 0.95 without an embedder.
        seed: of the copies that are made to measure with.

    Raises:
        RequestError: a cosine outside of (0, 1], or more images than can be compared each with each.
    """
    if scene is not None and not 0 < scene <= 1:
        raise RequestError(f"the least cosine of a scene lies between 0 and 1, not at {scene:g}")
    failures = list(images.failures.values())
    rng = np.random.default_rng(seed)
    looked: dict[int, Picture] = {}
    digests: Sequence[bytes | None] = images.digests or [None] * len(images)
    missing = [row for row, digest in enumerate(digests) if digest is None]
    if missing:
        digests = list(digests)
    alone = set(kinds) == {"same"}
    small = len(images) <= _HASHED_ALL and not alone
    reader = Reader(images, pictures)
    if missing or small:  # one reading serves both
        rows = range(len(images)) if small else missing
        failures += reader.look(rows, looked, cast(list[bytes | None], digests), hashed=small)

    same, leaders = telling.same(images, digests)
    if alone:
        groups = _groups(images, [("same", rows) for rows in same])
        return Duplicates(groups, Measured.nothing(), tuple(failures))
    if len(leaders) > _COMPARED:
        raise RequestError(
            f"{len(leaders):,} different images are too many to compare each with each (at most "
            f"{_COMPARED:,}: time grows with the square): look for the kind same alone, by bytes, or name "
            "a part of them"
        )
    copies, cosines = telling.copied(images, leaders, looked, reader, embedder, rng)
    proposed = _PROPOSED if not cosines else float(np.clip(np.quantile(cosines, 0.005) - 0.02, 0.3, 0.95))
    alike = (float(np.quantile(cosines, 0.05)) if cosines else _SCENE) if scene is None else scene

    vectors = taken(images.vectors, leaders)
    first, second, near, least = pairs(vectors, min(proposed, alike))
    dropped = least > min(proposed, alike)
    ask = near >= proposed
    asked = {int(leaders[row]) for row in np.unique(np.concatenate([first[ask], second[ask]]))}
    if unseen := sorted(asked - looked.keys() - reader.unreadable):
        failures += reader.look(unseen, looked, cast(list[bytes | None], digests), hashed=True)
    hashed = {place: looked[row] for place, row in enumerate(leaders.tolist()) if row in looked}
    hashed = {place: seen for place, seen in hashed.items() if not seen.plain}
    known = np.zeros(len(leaders), bool)
    known[list(hashed)] = True
    decidable = ask & known[first] & known[second]
    pair_rows = np.stack([first[decidable], second[decidable]], axis=1)
    bits, decoys = telling.bits(pair_rows, hashed)
    least_bits = telling.least_bits(bits, decoys)
    is_copy = pair_rows[bits >= least_bits]
    wrong = int((decoys >= least_bits).sum())
    if small:
        sure = telling.surely(hashed, least_bits + _SURE_BITS, pair_rows)
        is_copy = np.concatenate([is_copy, sure])
    recalls = {
        kind: float(np.mean([share >= least_bits for share in shares])) for kind, shares in copies.items()
    }
    measured = Measured(
        bits=least_bits,
        proposed=proposed,
        scene=alike,
        recall=float(np.mean(list(recalls.values()))) if recalls else None,
        recalls=recalls,
        found=len(is_copy),
        decoys=wrong,
        compared=len(pair_rows),
        dropped=dropped,
    )

    quality = [hashed[place].quality if place in hashed else (0.0,) for place in range(len(leaders))]
    order = sorted(range(len(leaders)), key=lambda place: (*(-each for each in quality[place]), place))
    grouped = _stars(order, is_copy, len(leaders))
    behind = {member for star in grouped for member in star[1:]}
    close = near >= alike
    seen_together = {frozenset(pair) for pair in is_copy.tolist()}
    scenes = [
        (a, b)
        for a, b in zip(first[close].tolist(), second[close].tolist(), strict=True)
        if a not in behind and b not in behind and frozenset((a, b)) not in seen_together
    ]
    found: list[tuple[Kind, list[int]]] = [("same", rows) for rows in same]
    found += [("copy", [int(leaders[place]) for place in star]) for star in grouped]
    stars = _stars(order, np.array(scenes, np.intp).reshape(-1, 2), len(leaders))
    found += [("scene", [int(leaders[place]) for place in star]) for star in stars]
    found = [each for each in found if each[0] in kinds]
    return Duplicates(_groups(images, found), measured, tuple(failures))


def _groups(images: Embeddings, found: list[tuple[Kind, list[int]]]) -> tuple[Group, ...]:
    found.sort(key=lambda each: (KINDS.index(each[0]), -len(each[1]), each[1]))
    return tuple(
        Group(number, kind, images.sources[rows[0]], tuple(images.sources[row] for row in rows), tuple(rows))
        for number, (kind, rows) in enumerate(found, start=1)
    )


def _stars(order: list[int], edges: NDArray[np.intp], count: int) -> list[list[int]]:
    """Groups around their best: the best of all takes its neighbours, then the best of those left ..."""
    near: dict[int, set[int]] = {}
    for a, b in edges.tolist():
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    place = {node: rank for rank, node in enumerate(order)}
    taken = np.zeros(count, bool)
    groups = []
    for node in order:
        if taken[node] or node not in near:
            continue
        members = sorted((other for other in near[node] if not taken[other]), key=place.__getitem__)
        taken[node] = True
        if members:
            taken[members] = True
            groups.append([node, *members])
    return groups
