"""Pages of thumbnails: what a search found, and contact sheets of clusters and of duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from nshot.errors import ImageError
from nshot.images.prepare import load
from nshot.images.sources import Source
from nshot.pages.engine import Html
from nshot.pages.report import Card, cards, page, paragraph, section, thumbnail
from nshot.search.clusters import Clusters
from nshot.search.duplicates import Duplicates
from nshot.search.searching import Hits

_SIDE = 192  # of a thumbnail
_SHEET = 24  # thumbnails per cluster
_GROUPS = 500  # of duplicates that are shown

Show = Callable[[str], "str | None"]


def shower(pictures: Iterable[Source | Any] | None = None, wanted: Iterable[str] = ()) -> Show:
    """What makes a thumbnail of a name: from a file, or from a second listing for names that are no files.

    Args:
        pictures: the images listed once more.
        wanted: the names that will be shown; only of those is a picture kept.
    """
    names = {name for name in wanted if not _is_file(name)}
    held: dict[str, str | None] = {}
    if names and pictures is not None:
        for source in pictures:
            if isinstance(source, Source) and source.name in names:
                held[source.name] = _thumbnail(source)
                names.discard(source.name)
                if not names:
                    break

    def show(name: str) -> str | None:
        if name in held:
            return held[name]
        return _thumbnail(Source.file(name)) if _is_file(name) else None

    return show


def hits_page(answers: Sequence[Hits], show: Show) -> str:
    """What one or several questions found."""
    parts = []
    for hits in answers:
        shown = [
            Card(
                show(hit.source),
                f"{hit.rank}",
                [
                    f"cosine {hit.cosine:.3f}",
                    *([] if hit.score is None else [f"score {hit.score:.1f}"]),
                    *(["does not fit"] if hit.fits is False else []),
                ],
                "bad" if hit.fits is False else "",
                hit.source,
            )
            for hit in hits
        ]
        nothing = paragraph("Nothing here fits this question.", "bad") if hits.fits is False else Html()
        parts.append(section(hits.query, nothing, cards(shown)))
    note = "The score says how unusual the likeness is for this image, in deviations; from 4 an image fits."
    return page("Search", *parts, subtitle=note)


def clusters_page(clusters: Clusters, show: Show) -> str:
    """A contact sheet per cluster; what lies far from its cluster's centre comes last."""
    parts: list[Html] = []
    far: list[int] = []
    for cluster in clusters.clusters:
        near = cluster.rows[: len(cluster) - cluster.outliers]
        far += cluster.rows[len(near) :]
        shown = [_card(clusters.sources[row], show) for row in near[:_SHEET]]
        note = f"{len(cluster):,} images, tightness {cluster.tightness:.3f}"
        if len(near) > _SHEET:
            note += f"; the {_SHEET} most typical are shown"
        title = f"{cluster.number}. {cluster.name}" if cluster.name else f"Cluster {cluster.number}"
        parts.append(section(title, cards(shown), note=note))
    if far:
        shown = [_card(clusters.sources[row], show) for row in far[: 4 * _SHEET]]
        note = f"{len(far):,} images far from the centre of their cluster"
        parts.append(section("Outliers", cards(shown), note=note))
    joins = [_join(clusters, a, b) for a, b, _ in clusters.tree[:20]]
    if joins:
        parts.append(section("What would join next", *map(paragraph, joins)))
    return page("Clusters", *parts, subtitle=f"{len(clusters.sources):,} images, {len(clusters)} clusters")


def duplicates_page(found: Duplicates, show: Show) -> str:
    """The groups, each with its best image first."""
    titles = {"same": "The same bytes", "copy": "The same picture", "scene": "The same scene"}
    parts = []
    for kind, title in titles.items():
        groups = [group for group in found.groups if group.kind == kind]
        if not groups:
            continue
        sheets: list[Html] = []
        for group in groups[:_GROUPS]:
            sheets.append(paragraph(f"Group {group.number}, {len(group.sources)} images"))
            sheets.append(
                cards(
                    Card(show(name), "best" if name == group.best else "", [], "", name)
                    for name in group.sources
                )
            )
        parts.append(section(title, *sheets, note=f"{len(groups):,} groups"))
    rate, most = found.measured.false_rate, found.measured.at_most
    told = f"{rate:.2%} of the pairs called copies are estimated wrong, {most:.2%} at most"
    return page("Duplicates", *parts, subtitle=told if found.measured.found else "No pair is called a copy")


def _join(clusters: Clusters, a: int, b: int) -> str:
    one, two = clusters.clusters[a], clusters.clusters[b]
    first, second = one.name or one.number, two.name or two.number
    return f"{first} (cluster {a + 1}) and {second} (cluster {b + 1})"


def _card(name: str, show: Show) -> Card:
    return Card(show(name), "", [], "", name)


def _thumbnail(source: Source) -> str | None:
    try:
        return thumbnail(load(source.read(), draft=2 * _SIDE, side=_SIDE).image, _SIDE)
    except ImageError:
        return None


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False
