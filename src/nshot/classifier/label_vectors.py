"""Label vectors from elsewhere -> a Classifier: another program has embedded the labels, or learnt them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nshot.classifier.classifier import Classifier
from nshot.classifier.zero_shot import TextEmbedder
from nshot.embeddings import Embeddings, is_vector_file, read_vectors
from nshot.errors import RequestError, SourceError


def from_label_vectors(path: str | os.PathLike[str], embedder: TextEmbedder, *, dimension: int) -> Classifier:
    """A classifier whose rows are the vectors of a file.

    Args:
        path: .npz or Parquet with a vector per label, and the labels as its ``labels`` or its names; several
            vectors of one label are averaged, as those of several prompts are.
        embedder: the model that embeds the images: its scale, bias and activation make scores of cosines.
        dimension: length d of the model's vectors.

    Raises:
        SourceError: no vectors there, none of its rows has a label, or one of them has no direction.
        RequestError: vectors of another length, or of another model where the file says of which.
    """
    found, names = _read(path)
    if found.dimension != dimension:
        raise RequestError(
            f"the label vectors in {path} are {found.dimension} long, and those of {embedder.name} "
            f"{dimension}: they are of another model"
        )
    if found.recipe is not None and found.recipe.space != embedder.space:
        raise RequestError(f"the label vectors in {path} were made by {found.model or 'another model'}")
    labels = list(dict.fromkeys(names))
    rows = [found.vectors[[name == label for name in names]].mean(axis=0) for label in labels]
    return Classifier(
        labels,
        np.stack(rows),
        embedder.logit_scale,
        embedder.logit_bias,
        embedder.activation,
        embedder.space,
        model=embedder.name,
        made={"label vectors": os.fspath(path)},
    )


def labels_of(path: str | os.PathLike[str]) -> list[str]:
    """The labels whose vectors a file holds, in its order.

    Raises:
        SourceError: no vectors there, or no labels beside them.
    """
    return list(dict.fromkeys(_read(path)[1]))


def _read(path: str | os.PathLike[str]) -> tuple[Embeddings, tuple[str, ...]]:
    if not Path(path).is_file():
        raise SourceError(f"{path}: no such file")
    if not is_vector_file(path):
        raise SourceError(f"{path} is no file of vectors: give an .npz or Parquet with a vector per label")
    found = read_vectors(path)
    if found.failures:
        raise SourceError(next(iter(found.failures.values())).message)
    names = found.label if found.labels is not None else tuple(found.sources)
    if found.labels is None and all(name.endswith(f"#{row}") for row, name in enumerate(names)):
        raise SourceError(
            f"{path} does not say which label each vector is of: add an array or a column 'labels'"
        )
    return found, names
