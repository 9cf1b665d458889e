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

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nshot.embeddings import Embeddings
from nshot.errors import ImageError, NshotError, RequestError
from nshot.images.prepare import load
from nshot.images.sources import Source
from nshot.search.copies import (
    Picture,
    alike_in_colour,
    decoy_bits,
    equal_bits,
    look_at,
    make_copies,
    picture,
)
from nshot.search.product import pairs
from nshot.types import Failure, Floats

if TYPE_CHECKING:
    from nshot.embedder import Embedder

Kind: TypeAlias = Literal["same", "copy", "scene"]

KINDS: tuple[Kind, ...] = ("same", "copy", "scene")

_LEAST_BITS = 0.80  # equal bits of a copy, where the decoys ask for no more
_MIRRORED = 0.90  # equal bits from which a decoy is a mirrored copy
_SURE_BITS = 0.10  # more than that, and the hash decides alone
_WRONG = 0.005  # share of wrong pairs among the copies that is aimed at
_PROPOSED = 0.80  # cosine from which the hash is asked, where no model is there to measure it
_SCENE = 0.95  # cosine of one scene, likewise
_SAMPLE = 100  # images that copies are made of
_HASHED_ALL = 20_000  # up to so many images, the hash proposes as well
_CHUNK = 4096  # pairs compared at once


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

    @property
    def false_rate(self) -> float:
        """The estimated share of wrong pairs among those called copies."""
        return min(1.0, self.decoys / self.found) if self.found else 0.0


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
    seed: int = 0,
) -> Duplicates:
    """Find duplicates among images.

    Args:
        images: the images with their vectors, named so that their files can be read again.
        embedder: the model that made the vectors: with it, the cosines of copies are measured too.
        pictures: the images listed once more (``clip.sources(...)``), where names are no files: members of
            archives, rows of tables, URLs. What is in neither place is compared by its vector alone.
        scene: least cosine of one scene; by default as near as copies are, or 0.95 without an embedder.
        seed: of the copies that are made to measure with.

    Raises:
        RequestError: a cosine outside of (0, 1].
    """
    if scene is not None and not 0 < scene <= 1:
        raise RequestError(f"the least cosine of a scene lies between 0 and 1, not at {scene:g}")
    failures = list(images.failures.values())
    rng = np.random.default_rng(seed)
    looked: dict[int, Picture] = {}
    digests: list[bytes | None] = list(images.digests or [None] * len(images))
    missing = [row for row, digest in enumerate(digests) if digest is None]
    small = len(images) <= _HASHED_ALL
    reader = _Reader(images, pictures)
    if missing or small:  # one reading serves both
        rows = range(len(images)) if small else missing
        failures += reader.look(rows, looked, digests, hashed=small)

    same, leaders = _same(images, digests, looked)
    copies, cosines = _copied(images, leaders, looked, reader, embedder, rng)
    proposed = _PROPOSED if not cosines else float(np.clip(np.quantile(cosines, 0.005) - 0.02, 0.3, 0.95))
    alike = (float(np.quantile(cosines, 0.05)) if cosines else _SCENE) if scene is None else scene

    vectors = images.vectors[leaders]
    first, second, near, least = pairs(vectors, min(proposed, alike))
    dropped = least > min(proposed, alike)
    ask = near >= proposed
    asked = {int(leaders[row]) for row in np.unique(np.concatenate([first[ask], second[ask]]))}
    if unseen := sorted(asked - looked.keys() - reader.unreadable):
        failures += reader.look(unseen, looked, digests, hashed=True)
    hashed = {place: looked[row] for place, row in enumerate(leaders.tolist()) if row in looked}
    hashed = {place: seen for place, seen in hashed.items() if not seen.plain}
    known = np.zeros(len(leaders), bool)
    known[list(hashed)] = True
    decidable = ask & known[first] & known[second]
    pair_rows = np.stack([first[decidable], second[decidable]], axis=1)
    bits, decoys = _bits(pair_rows, hashed)
    least_bits = _least_bits(bits, decoys)
    is_copy = pair_rows[bits >= least_bits]
    wrong = int((decoys >= least_bits).sum())
    if small:
        sure, sure_decoys = _surely(hashed, least_bits + _SURE_BITS, pair_rows)
        is_copy, wrong = np.concatenate([is_copy, sure]), wrong + sure_decoys
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
    found.sort(key=lambda each: (KINDS.index(each[0]), -len(each[1]), each[1]))
    groups = tuple(
        Group(number, kind, images.sources[rows[0]], tuple(images.sources[row] for row in rows), tuple(rows))
        for number, (kind, rows) in enumerate(found, start=1)
    )
    return Duplicates(groups, measured, tuple(failures))


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


def across(
    images: Embeddings,
    other: Embeddings | None = None,
    *,
    least: float = 0.98,
    names: tuple[str, str] = ("train", "test"),
    most: int = 1000,
) -> tuple[Across, ...]:
    """Duplicates where there should be none: under two labels, or in two sets.

    Args:
        images: labelled images; with ``other``, labels do not matter.
        other: a second set, such as the test set: pairs between the two are looked for.
        least: cosine from which two images are nearly one. What is one picture to the eye depends on the
            model; ``duplicates`` measures it.
        names: what to call the two sets.
        most: pairs that are told; the nearest.

    Returns:
        Pairs, those of the same bytes first, then the nearest first.

    Raises:
        RequestError: unlabelled images without a second set, or sets of two models.
    """
    if other is None:
        if images.labels is None:
            raise RequestError("these images have no labels: give labelled images, or a second set")
        both, sides = images, [", ".join(each) for each in images.labels]
        vectors, digests, sources = both.vectors, both.digests, both.sources
    else:
        if images.dimension != other.dimension:
            raise RequestError(
                "the two sets were embedded by different models: their vectors differ in length"
            )
        vectors = np.concatenate([images.vectors, other.vectors])
        none_of = ((None,) * len(images), (None,) * len(other))
        digests = (*(images.digests or none_of[0]), *(other.digests or none_of[1]))
        sources = (*images.sources, *other.sources)
        sides = [names[0]] * len(images) + [names[1]] * len(other)
    first, second, cosines, _ = pairs(vectors, least)
    code = {side: number for number, side in enumerate(dict.fromkeys(sides))}
    side = np.array([code[each] for each in sides], np.intp)
    apart = side[first] != side[second]
    found = []
    for a, b, cosine in zip(
        first[apart].tolist(), second[apart].tolist(), cosines[apart].tolist(), strict=True
    ):
        same = digests is not None and digests[a] is not None and digests[a] == digests[b]
        kind: Literal["same", "near"] = "same" if same else "near"
        found.append(Across(sources[a], sources[b], kind, float(cosine), (sides[a], sides[b])))
    found.sort(key=lambda pair: (pair.kind != "same", -pair.cosine))
    return tuple(found[:most])


# Reading images once more


class _Reader:
    """Reads images again, by their names or from a second listing, for what they are compared by."""

    def __init__(self, images: Embeddings, pictures: Iterable[Source | Any] | None) -> None:
        self._images = images
        self._pictures = pictures
        self._row = {name: row for row, name in enumerate(images.sources)}
        self.unreadable: set[int] = set()

    def look(
        self,
        rows: Iterable[int],
        looked: dict[int, Picture],
        digests: list[bytes | None],
        *,
        hashed: bool,
    ) -> list[Failure]:
        """Fill in pictures and digests of some rows; the failures of those that cannot be read."""
        failures = []

        def take(item: tuple[int, Source]) -> tuple[int, bytes, Picture | None] | tuple[int, Failure]:
            row, source = item
            try:
                data = source.read()
                return row, hashlib.sha256(data).digest(), look_at(data) if hashed else None
            except ImageError as error:
                return row, Failure.of(source.name, error)

        with ThreadPoolExecutor() as pool:
            for answer in _bounded(pool, take, self._sources(set(rows))):
                if len(answer) == 2:
                    self.unreadable.add(answer[0])
                    failures.append(answer[1])
                    continue
                row, digest, seen = answer
                if digests[row] is None:
                    digests[row] = digest
                if seen is not None:
                    looked[row] = seen
        return failures

    def read(self, row: int) -> bytes | None:
        """One image's bytes, where its name is a file."""
        name = self._images.sources[row]
        try:
            return Source.file(name).read() if Path(name).is_file() else None
        except (NshotError, OSError, ValueError):
            return None

    def _sources(self, rows: set[int]) -> Iterator[tuple[int, Source]]:
        for source in self._pictures or ():
            row = self._row.get(getattr(source, "name", ""))
            if row in rows and isinstance(source, Source):
                rows.discard(row)
                yield row, source
        self._pictures = None if not isinstance(self._pictures, Sequence) else self._pictures
        for row in sorted(rows):
            name = self._images.sources[row]
            try:
                there = Path(name).is_file()
            except (OSError, ValueError):
                there = False
            if there:
                yield row, Source.file(name)
            else:
                self.unreadable.add(row)


def _bounded(pool: ThreadPoolExecutor, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """As ``pool.map``, with few items under way at once."""
    from collections import deque

    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(pool.submit(call, item))
        if len(waiting) > 64:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


# Telling copies


def _same(
    images: Embeddings, digests: list[bytes | None], looked: dict[int, Picture]
) -> tuple[list[list[int]], NDArray[np.intp]]:
    """Rows of the same bytes, by groups; and one row for each picture."""
    by_digest: dict[bytes, list[int]] = {}
    leaders = []
    for row, digest in enumerate(digests):
        if digest is None:
            leaders.append(row)
        elif digest in by_digest:
            by_digest[digest].append(row)
        else:
            by_digest[digest] = [row]
            leaders.append(row)
    groups = [_without_repeats(images, rows) for rows in by_digest.values() if len(rows) > 1]
    return [rows for rows in groups if len(rows) > 1], np.array(leaders, np.intp)


def _without_repeats(images: Embeddings, rows: list[int]) -> list[int]:
    """A file that was named twice is no duplicate of itself."""
    return list({images.sources[row]: row for row in reversed(rows)}.values())[::-1]


def _copied(
    images: Embeddings,
    leaders: NDArray[np.intp],
    looked: dict[int, Picture],
    reader: _Reader,
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


def _bits(pair_rows: NDArray[np.intp], hashed: dict[int, Picture]) -> tuple[Floats, Floats]:
    """Of each pair: the share of equal bits, 0 where the colours differ; and the decoy's."""
    bits = np.zeros(len(pair_rows), np.float32)
    decoys = np.zeros(len(pair_rows), np.float32)
    for start in range(0, len(pair_rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        one = [hashed[row] for row in pair_rows[chunk, 0].tolist()]
        two = [hashed[row] for row in pair_rows[chunk, 1].tolist()]
        first, second = np.stack([p.bits for p in one]), np.stack([p.bits for p in two])
        colour = alike_in_colour(np.stack([p.tints for p in one]), np.stack([p.tints for p in two]))
        bits[chunk] = np.where(colour, equal_bits(first, second), 0)
        turned = decoy_bits(
            first, np.stack([p.mirrored for p in one]), second, np.stack([p.mirrored for p in two])
        )
        # a picture that is its own mirror image, or a mirrored copy, is no decoy of two different pictures
        decoys[chunk] = np.where(colour & (bits[chunk] < _LEAST_BITS) & (turned < _MIRRORED), turned, 0)
    return bits, decoys


def _least_bits(bits: Floats, decoys: Floats) -> float:
    """The smallest share of equal bits at which few enough of the pairs are wrong."""
    for least in np.arange(_LEAST_BITS, 0.96, 0.01).tolist():
        found, wrong = int((bits >= least).sum()), int((decoys >= least).sum())
        if wrong <= _WRONG * found:
            return float(round(least, 2))
    return 0.96


def _surely(
    hashed: dict[int, Picture], least: float, known: NDArray[np.intp]
) -> tuple[NDArray[np.intp], int]:
    """Pairs whose wholes have so many equal bits that no embedding is asked, and how many decoys do."""
    if len(hashed) < 2:
        return np.empty((0, 2), np.intp), 0
    places = np.array(sorted(hashed), np.intp)
    signs = np.stack([np.unpackbits(hashed[place].bits[0]) for place in places.tolist()])
    unit = (signs.astype(np.float32) * 2 - 1) / 16  # a product is then 2 * share - 1
    first, second, _, _ = pairs(unit, 2 * least - 1)
    tints = np.stack([hashed[place].tints for place in places.tolist()])
    agree = alike_in_colour(tints[first], tints[second]) if len(first) else np.zeros(0, bool)
    found = np.stack([places[first[agree]], places[second[agree]]], axis=1)
    had = {frozenset(pair) for pair in known.tolist()}
    new = [pair for pair in found.tolist() if frozenset(pair) not in had]
    turned = np.stack([np.unpackbits(hashed[place].mirrored) for place in places.tolist()])
    mirrored = (turned.astype(np.float32) * 2 - 1) / 16
    decoys = 0
    either = had | {frozenset(pair) for pair in found.tolist()}
    for start in range(0, len(unit), 4096):
        products = mirrored[start : start + 4096] @ unit.T
        rows, columns = np.nonzero((products >= 2 * least - 1) & (products < 2 * _MIRRORED - 1))
        for a, b in zip((rows + start).tolist(), columns.tolist(), strict=True):
            decoys += a < b and frozenset((int(places[a]), int(places[b]))) not in either
    return np.array(new, np.intp).reshape(-1, 2), decoys


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
