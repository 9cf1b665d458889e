"""Labelled images on the command line -> their vectors and labels, and the prompts of those labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from nshot.cli.options import Command, LabelOptions, ModelOptions, _packed, progress, say
from nshot.errors import RequestError
from nshot.types import Failure, Floats

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.datasets.labelled import LabelledSet
    from nshot.embedder import Embedder
    from nshot.images.sources import Source


@dataclass(frozen=True, slots=True)
class ExampleOptions:
    """What DATA and its companions say."""

    data: str
    image_column: str | None
    label_column: str | None
    config: str | None
    split: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Images with one label each, embedded.

    Attributes:
        embedder: the model.
        labelled: the set that they come from.
        prompts: a zero-shot classifier of the labels that have a prompt.
        vectors: float32[n, d].
        labels: n names.
        positions: each image's place in the set.
        failures: images that could not be embedded.
    """

    embedder: Embedder
    labelled: LabelledSet
    prompts: Classifier
    vectors: Floats
    labels: list[str]
    positions: list[int]
    failures: tuple[Failure, ...]

    def at(self, rows: Iterable[int]) -> Iterator[Source]:
        """The images of these rows of ``vectors``, in the order of the set, which is that of the rows."""
        wanted = {self.positions[row] for row in rows}
        return (example for position, example in enumerate(self.labelled) if position in wanted)

    def tell_failures(self, *, quiet: bool) -> int:
        """Name the images that failed on stderr; the exit status that they mean."""
        for failure in () if quiet else self.failures:
            click.echo(f"failed: {failure.source}: {failure.message}", err=True)
        if self.failures:
            n = len(self.failures)
            click.echo(
                f"nshot: {n + len(self.labels)} images, {len(self.labels)} embedded, {n} failed", err=True
            )
        return 1 if self.failures else 0


def example_options(command: Command) -> Command:
    """Add DATA and what says where its labels are; the command gets ``example_options``."""
    options: tuple[Callable[..., Any], ...] = (
        click.argument("data", metavar="DATA"),
        click.option("--image-column", metavar="NAME", help="The column of a table that holds the images."),
        click.option("--label-column", metavar="NAME", help="The column that holds the labels."),
        click.option("--config", metavar="NAME", help="Configuration of a data set on the Hub."),
        click.option("--split", metavar="NAME", help="Split of a data set on the Hub."),
    )
    return _packed("example_options", ExampleOptions, options)(command)


def read_examples(
    options: ExampleOptions, label_options: LabelOptions, model_options: ModelOptions, *, quiet: bool
) -> Examples:
    """Embed DATA, and write its labels into prompts.

    Without --labels every label of the data is its own prompt. With them, those are the labels, whether they
    have images or not; a label of the data that is not among them has no prompt, and is known by its
    images.
    """
    from nshot.classifier.zero_shot import zero_shot
    from nshot.datasets.labelled import Columns, open_labelled
    from nshot.evaluation.evaluation import collect
    from nshot.labels.prompts import DEFAULT_TEMPLATE, lint

    given = None
    if label_options.labels is not None or label_options.labels_file is not None:
        given, _ = label_options.read()
    templates = label_options.read_templates() or [DEFAULT_TEMPLATE]
    on_hub = options.data.startswith("hf://")
    labelled = open_labelled(
        options.data,
        columns=Columns(
            options.image_column, options.label_column, names=None if given is None else list(given)
        ),
        config=options.config,
        split=options.split,
        revision=model_options.revision if on_hub else None,
        allow_private=model_options.allow_private,
    )
    embedder = (replace(model_options, revision=None) if on_hub else model_options).load(quiet=quiet)
    images = collect(labelled, lambda sources: progress(embedder.embed_images(sources), shown=not quiet))
    single = [i for i, own in enumerate(images.labels) if len(own) == 1]
    if not single:
        raise RequestError(f"no image of {options.data} has exactly one label")
    if len(single) < len(images.labels) and not quiet:
        say(f"{len(images.labels) - len(single)} images with several labels or none were left out")
    labels = [images.labels[i][0] for i in single]
    names = given if given is not None else list(images.classes)
    for note in () if quiet else lint(names):
        say(note)
    if (wordless := sorted(set(labels) - set(names))) and not quiet:
        say(f"known by their images alone, without a prompt: {', '.join(wordless)}")
    return Examples(
        embedder,
        labelled,
        zero_shot(embedder, names, templates),
        images.vectors[single],
        labels,
        [int(images.positions[i]) for i in single],
        images.failures,
    )
