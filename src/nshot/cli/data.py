"""Labelled images on the command line: DATA and what says where its labels are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from nshot.cli.options import Command, LabelOptions, ModelOptions, packed, progress, say, tell_failure
from nshot.errors import RequestError, SourceError
from nshot.types import Failure

if TYPE_CHECKING:
    import numpy as np

    from nshot.datasets.labelled import LabelledSet
    from nshot.embeddings import Embeddings
    from nshot.labels.prompts import Labels
    from nshot.model import Model


@dataclass(frozen=True, slots=True)
class DataOptions:
    """What DATA and its companions say."""

    data: str
    image_column: str | None
    label_column: str | None
    label_separator: str | None
    domain_column: str | None
    domain_folders: bool
    config: str | None
    split: str | None
    model_revision: str | None

    @property
    def on_hub(self) -> bool:
        """Whether DATA is a data set on the Hub."""
        return self.data.startswith("hf://")

    def open(self, model_options: ModelOptions, names: Sequence[str] | None = None) -> LabelledSet:
        """The labelled images, listed but not read.

        Args:
            model_options: whose --revision is DATA's, where that is on the Hub.
            names: of label 0, 1, ..., where DATA has numbers.
        """
        return self.open_other(self.data, model_options, names)

    def open_other(
        self, data: str, model_options: ModelOptions, names: Sequence[str] | None = None
    ) -> LabelledSet:
        """Another set in the place of DATA, read in the same way."""
        from nshot.datasets.labelled import Columns, open_labelled

        return open_labelled(
            data,
            columns=Columns(
                self.image_column, self.label_column, self.domain_column, self.label_separator, names
            ),
            domain_folders=self.domain_folders,
            config=self.config,
            split=self.split,
            revision=model_options.revision if data.startswith("hf://") else None,
            limits=model_options.limits,
        )

    def of_model(self, model_options: ModelOptions) -> ModelOptions:
        """The model's options, with a revision that is the model's own."""
        if self.on_hub or self.model_revision is not None:
            return replace(model_options, revision=self.model_revision)
        return model_options


_DATA: tuple[Callable[..., Any], ...] = (
    click.argument("data", metavar="DATA"),
    click.option("--image-column", metavar="NAME", help="The column of a table that holds the images."),
    click.option("--label-column", metavar="NAME", help="The column that holds the labels."),
    click.option("--label-separator", metavar="TEXT", help="What separates several labels in one cell."),
    click.option("--domain-column", metavar="NAME", help="A column to break the figures down by."),
    click.option("--domain-folders", is_flag=True, help="The folders are domain/label, not label."),
    click.option("--config", metavar="NAME", help="Configuration of a data set on the Hub."),
    click.option("--split", metavar="NAME", help="Split of a data set: train, validation, test ..."),
    click.option(
        "--model-revision",
        metavar="R",
        help="Revision of the model, where DATA is on the Hub and --revision is its own.",
    ),
)


def data_options(command: Command) -> Command:
    """Add DATA and what says where its labels are; the command gets ``data_options: DataOptions``."""
    return packed("data_options", DataOptions, _DATA)(command)


def given_labels(label_options: LabelOptions) -> Labels | None:
    """The labels that were named, if any; without them a command takes those of the data."""
    if label_options.labels is None and label_options.labels_file is None:
        return None
    return label_options.read()[0]


def embed(model: Model, labelled: LabelledSet, *, quiet: bool) -> Embeddings:
    """A labelled set, embedded.

    Raises:
        SourceError: not one image could be embedded.
    """
    images = model.collect(progress(model.embed_images(labelled), shown=not quiet), of=labelled)
    if not len(images):
        first = next(iter(images.failures.values()), None)
        why = f"; the first: {first.source}: {first.message}" if first is not None else ""
        raise SourceError(f"no image of {labelled.name} could be read{why}")
    return images


def with_one_label(images: Embeddings, name: str, *, quiet: bool) -> Embeddings:
    """The images that have exactly one label; how many others there were is said.

    Raises:
        RequestError: there is none.
    """
    import numpy as np

    single = np.array([len(own) == 1 for own in images.labels or ()], dtype=bool)
    if not single.any():
        raise RequestError(f"no image of {name} has exactly one label")
    if not single.all() and not quiet:
        say(f"{int((~single).sum())} images with several labels or none were left out")
    return _kept(images, single)


def _kept(images: Embeddings, rows: np.ndarray[Any, Any]) -> Embeddings:
    """Those rows, in their places among all that were asked for."""
    kept: Embeddings = images[rows]
    return replace(kept, positions=images.positions[rows], failures=images.failures)


def tell_failures(failures: Sequence[Failure], embedded: int, *, quiet: bool, verbose: bool = False) -> int:
    """Name the images that failed on stderr, and count them; the exit status that they mean."""
    for failure in () if quiet else failures:
        tell_failure(failure)
    if failures or verbose:
        n = len(failures)
        click.echo(f"nshot: {n + embedded} images, {embedded} answered, {n} failed", err=True)
    return 1 if failures else 0


def told_seen(seen: int, images: int) -> str:
    """That a classifier was fitted on some of these images, in words."""
    many = "the image" if images == 1 else f"{seen:,} of the {images:,} images"
    return f"the classifier was fitted on {many}, so the figures flatter it"
