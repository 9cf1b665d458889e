"""A table with a column of labels per facet -> labelled images of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from nshot.classifier.facets import Facets
from nshot.datasets.cells import Cells, missing
from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.types import Embedded, Failure, Recipe


def by_facet(
    records: Iterable[Embedded | Failure],
    facets: Facets,
    *,
    dimension: int,
    recipe: Recipe | None = None,
    model: str | None = None,
    separator: str | None = None,
    name: str = "the table",
) -> dict[str, Embeddings]:
    """Of each facet the images that have a label in its column, which is called as the facet is.

    Args:
        records: the embedded rows of a table, with their other cells (``beside``).
        facets: what is asked; a cell of a facet of several labels holds any number of them.
        dimension: length d of the vectors.
        recipe: how they were made.
        model: the name of the model that made them.
        separator: what stands between two labels in a cell; None: ";" or "|".
        name: what to call the table in errors.

    Raises:
        RequestError: no image could be read, or a facet without a column or without a label in it.
        SourceError: a cell that is no label.
    """
    held = list(records)
    images = Embeddings.collect(held, dimension=dimension, recipe=recipe, model=model)
    if not len(images):
        raise RequestError(f"no image of {name} could be read")
    rows = [record.beside or {} for record in held if isinstance(record, Embedded)]
    return {facet: _column(facet, facets, images, rows, separator, name) for facet in facets}


def _column(
    facet: str,
    facets: Facets,
    images: Embeddings,
    rows: Sequence[Mapping[str, str]],
    separator: str | None,
    name: str,
) -> Embeddings:
    if not any(facet in row for row in rows):
        known = ", ".join(map(repr, rows[0])) or "none"
        raise RequestError(f"{name} has no column {facet!r} for that facet; beside the images it has {known}")
    several = facet in facets.several
    cells = Cells(facets[facet].labels, None, (separator or ";") if several else None)
    labels: dict[int, tuple[str, ...]] = {}
    for place, row in enumerate(rows):
        cell = row.get(facet)
        if isinstance(cell, str) and (label := cell.strip()) in facets[facet].labels:
            labels[place] = (label,)  # a label may be called "none"
            continue
        if missing(cell):
            continue
        if several and separator is None:
            cell = str(cell).replace("|", ";")
        if own := cells.labels(cell, f"{name}, column {facet!r}, image {place + 1}"):
            labels[place] = own
    if not labels:
        raise RequestError(f"the column {facet!r} of {name} is empty")
    kept = list(labels)
    own_images = images[kept].with_labels(list(labels.values()))
    return replace(
        own_images,
        multi=several or own_images.multi,
        positions=images.positions[kept],
        failures=images.failures,
    )
