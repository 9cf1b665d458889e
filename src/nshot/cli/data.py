"""Labelled images on the command line: DATA and what says where its labels are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nshot.cli.options import (
    IMAGE_COLUMN,
    IMAGE_ROOT,
    STRICT,
    Command,
    LabelOptions,
    ModelOptions,
    packed,
    progress,
    say,
    tell_failure,
    tell_remarks,
)
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.errors import RequestError, SourceError
from nshot.labels.lint import check
from nshot.types import Failure

if TYPE_CHECKING:
    import numpy as np

    from nshot.datasets.labelled import LabelledSet
    from nshot.embeddings import Embeddings
    from nshot.labels.files import LabelFile
    from nshot.model import Model


@dataclass(frozen=True, slots=True)
class DataOptions:
    """What DATA and its companions say."""

    data: str
    image_column: str | None
    image_root: Path | None
    label_column: str | None
    label_separator: str | None
    label_pattern: str | None
    domain_column: str | None
    domain_folders: bool
    config: str | None
    split: str | None
    strict: bool
    corrections: Path | None
    model_revision: str | None

    def inputs(self, label_options: LabelOptions, *others: Path | str | None) -> list[Path | str | None]:
        """What a command that has these options reads: no output may lie there."""
        named = (label_options.labels_file, label_options.label_vectors, label_options.templates)
        return [self.data, self.corrections, *named, *others]

    def check_for_facets(self, *, separated: bool) -> None:
        """Refuse what says where one list of labels is: facets have a column each.

        Args:
            separated: whether a facet has several labels, which a separator stands between.
        """
        separator = {"label_separator": self.label_separator}
        others = {name: value for name, value in self.labelled.items() if name not in separator}
        leave_out("facets are read from a table with a column of labels for each", **others)
        if not separated:
            leave_out("each facet has one label per image", **separator)

    @property
    def labelled(self) -> dict[str, object]:
        """The options that say where labels and domains are, by their names, for ``leave_out``."""
        return {
            "label_column": self.label_column,
            "label_separator": self.label_separator,
            "label_pattern": self.label_pattern,
            "domain_column": self.domain_column,
            "domain_folders": self.domain_folders,
            "corrections": self.corrections,
            "config": self.config,
            "split": self.split,
        }

    @property
    def on_hub(self) -> bool:
        """Whether DATA is a data set on the Hub."""
        return self.data.startswith("hf://")

    def open(
        self,
        model_options: ModelOptions,
        given: LabelFile | None = None,
        *,
        prefer: Sequence[str] = ("test", "val", "train"),
        quiet: bool,
    ) -> LabelledSet:
        """The labelled images, listed but not read; how they were understood is said.

        Args:
            model_options: whose --revision is DATA's, where that is on the Hub.
            given: the labels that were named: of label 0, 1, ..., where DATA has numbers.
            prefer: the part to read where DATA is divided into parts and --split names none.
            quiet: say nothing.
        """
        return self.open_other(self.data, model_options, given, prefer=prefer, quiet=quiet)

    def open_other(
        self,
        data: str,
        model_options: ModelOptions,
        given: LabelFile | None = None,
        *,
        prefer: Sequence[str] = ("test", "val", "train"),
        quiet: bool,
    ) -> LabelledSet:
        """Another set in the place of DATA, read in the same way."""
        from nshot.datasets.labelled import Columns, open_labelled

        labelled = open_labelled(
            data,
            columns=Columns(
                self.image_column,
                self.label_column,
                self.domain_column,
                self.label_separator,
                None if given is None else list(given.labels),
                None if given is None else given.numbers,
            ),
            domain_folders=self.domain_folders,
            label_pattern=self.label_pattern,
            image_root=self.image_root,
            config=self.config,
            split=self.split,
            prefer=prefer,
            strict=self.strict,
            revision=model_options.revision if data.startswith("hf://") else None,
            limits=model_options.limits,
        )
        if self.corrections is not None and data == self.data:
            from nshot.datasets.cells import Cells
            from nshot.datasets.corrections import corrected, read_corrections

            names = None if given is None else list(given.labels)
            cells = Cells(names, None if given is None else given.numbers, self.label_separator)
            found = read_corrections(self.corrections, cells)
            labelled = corrected(labelled, found, str(self.corrections))
        for note in () if quiet else labelled.remarks.news():
            say(note)
        return labelled

    def of_model(self, model_options: ModelOptions) -> ModelOptions:
        """The model's options, with a revision that is the model's own, and DATA's images."""
        own = replace(model_options, asked=lambda _: self.open(model_options, quiet=True))
        if self.on_hub or self.model_revision is not None:
            return replace(own, revision=self.model_revision)
        return own


_DATA: tuple[Callable[..., Any], ...] = (
    click.argument("data", metavar="DATA"),
    IMAGE_COLUMN,
    IMAGE_ROOT,
    click.option("--label-column", metavar="NAME", help="The column that holds the labels."),
    click.option("--label-separator", metavar="TEXT", help="What separates several labels in one cell."),
    click.option(
        "--label-pattern",
        metavar="PATTERN",
        help="Labels stand in the names of files, such as '{label}_*': * is anything else.",
    ),
    click.option("--domain-column", metavar="NAME", help="A column to break the figures down by."),
    click.option("--domain-folders", is_flag=True, help="The folders are domain/label, not label."),
    click.option("--config", metavar="NAME", help="Configuration of a data set on the Hub."),
    click.option("--split", metavar="NAME", help="Part of the data: train, validation, test ..."),
    STRICT,
    click.option(
        "--corrections",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Right labels of some images, in a table such as a corrected doubts.csv.",
    ),
    click.option(
        "--model-revision",
        metavar="R",
        help="Revision of the model, where DATA is on the Hub and --revision is its own.",
    ),
)


def data_options(command: Command) -> Command:
    """Add DATA and what says where its labels are; the command gets ``data_options: DataOptions``."""
    return packed("data_options", DataOptions, _DATA)(command)


def check_choice(labels: Collection[str], *, alone: bool = False) -> None:
    """Refuse to measure where there is nothing to choose.

    Args:
        labels: what may be answered.
        alone: one label is a sound question, since there is a rule that rejects images.

    Raises:
        RequestError: there is one label alone.
    """
    if len(labels) == 1 and not alone:
        raise RequestError(
            f"there is one label alone, {next(iter(labels))!r}: every answer would be right, so there is "
            "nothing to measure or to learn; give data of several labels, or name the others with --labels"
        )


def embed(model: Model, labelled: LabelledSet, *, quiet: bool) -> Embeddings:
    """A labelled set, embedded.

    Raises:
        SourceError: not one image could be embedded.
    """
    if labelled.embeddings is not None:
        images = labelled.embeddings
        model.check_space(images.recipe, images.model, f"the vectors in {labelled.name}")
        if images.dimension != model.dimension:
            raise RequestError(
                f"the vectors in {labelled.name} are {images.dimension} long, and those of {model.name} "
                f"{model.dimension}: they are of another model"
            )
        if images.recipe is None and not quiet:
            say(f"{labelled.name} does not say which model made its vectors: it is taken to be {model.name}")
    else:
        embedded = labelled.remarks.noting(model.embed_images(labelled))
        images = model.collect(progress(embedded, shown=not quiet), of=labelled)
    tell_remarks(labelled.remarks, quiet=quiet)
    if labelled.classes is None and len(images):  # not known before
        for note in check(images.classes, source=labelled.name, alone=True, multilingual=True):
            say(note)
    if images.labels is not None and not quiet and _are_captions(images.labels):
        say(
            f"nearly each image of {labelled.name} has a label of its own, of many words: these look like "
            "captions, and no image can be told by what others show; name another column with --label-column"
        )
    if not len(images):
        first = next(iter(images.failures.values()), None)
        why = f"; the first: {first.source}: {first.message}" if first is not None else ""
        raise SourceError(f"no image of {labelled.name} could be read{why}")
    return images


def _are_captions(labels: Sequence[tuple[str, ...]]) -> bool:
    """Whether labels are sentences that stand at one image each."""
    texts = [text for own in labels for text in own]
    if len(texts) < 5 or len(set(texts)) < 0.9 * len(texts):
        return False
    return sum(len(text.split()) for text in texts) >= 4 * len(texts)


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
        echo(f"nshot: {n + embedded} images, {embedded} answered, {n} failed", err=True)
    return 1 if failures else 0


def told_seen(seen: int, images: int) -> str:
    """That a classifier was fitted on some of these images, in words."""
    many = "the image" if images == 1 else f"{seen:,} of the {images:,} images"
    return f"the classifier was fitted on {many}, so the figures flatter it"
