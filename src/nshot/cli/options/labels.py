"""``--labels`` and its companions, and ``--classifier``, which brings its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.options.packing import Command, decorated, packed
from nshot.cli.options.talk import say
from nshot.errors import RequestError
from nshot.labels.files import LabelFile, read_label_file
from nshot.labels.lint import check
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels, read_templates, split_labels

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.model import Model


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """What ``--labels`` and its companions say."""

    labels: str | None
    labels_file: Path | None
    label_vectors: Path | None
    template: tuple[str, ...]
    templates: Path | None

    @property
    def any(self) -> bool:
        """Whether labels were named, in whatever way."""
        return any(way is not None for way in (self.labels, self.labels_file, self.label_vectors))

    def read(self) -> tuple[Labels, list[str]]:
        """The labels, and the templates they are written into.

        Raises:
            RequestError: none or two of a kind given, or a file that cannot be read.
        """
        if (self.labels is None) == (self.labels_file is None):
            raise RequestError(
                'give the labels with --labels "cat, dog" or with --labels-file FILE, one of the two'
            )
        given = self.given()
        assert given is not None
        return given.labels, self.read_templates() or [DEFAULT_TEMPLATE]

    def classifier(self, model: Model, labels: Labels) -> Classifier:
        """The labels as a classifier: out of their prompts, or out of --label-vectors.

        Raises:
            RequestError: labels or templates that cannot be used, or vectors of another model.
        """
        if self.label_vectors is not None:
            from nshot.classifier.label_vectors import from_label_vectors

            return from_label_vectors(self.label_vectors, model, dimension=model.dimension)
        from nshot.classifier.zero_shot import zero_shot

        return zero_shot(model, labels, self.read_templates() or [DEFAULT_TEMPLATE])

    def question(self, labels: Labels | None) -> Callable[[Model], Classifier] | None:
        """What makes such a classifier, for ``ModelOptions.load``; None where no label is known yet."""
        if not labels:
            return None
        return lambda model: self.classifier(model, labels)

    def given(self, *, quiet: bool = True, alone: bool = False) -> LabelFile | None:
        """The labels that were named, checked, or None; what a person should know about them is said.

        Args:
            quiet: say nothing.
            alone: one label is a sound question, since there is a rule that rejects images.

        Raises:
            RequestError: named in both ways, a file that cannot be read, or labels that nobody can mean.
        """
        ways = [way for way in (self.labels, self.labels_file, self.label_vectors) if way is not None]
        if not ways:
            return None
        if len(ways) > 1:
            raise RequestError(
                "give the labels with --labels, --labels-file or --label-vectors, one of the three"
            )
        if self.label_vectors is not None:
            from nshot.classifier.label_vectors import labels_of

            return LabelFile(labels_of(self.label_vectors))
        if self.labels is not None:
            found, source = LabelFile(split_labels(self.labels)), "--labels"
        else:
            found, source = read_label_file(self.labels_file or ""), str(self.labels_file)
        typed = self.labels is not None
        # of their language the model has to be asked, see say_language
        notes = check(found.labels, source=source, typed=typed, alone=alone, multilingual=True)
        for note in () if quiet else (*found.notes, *notes):
            say(note)
        return found

    def read_templates(self) -> list[str]:
        """The templates that were given, if any.

        Raises:
            RequestError: given in two ways, or a file that cannot be read.
        """
        if self.template and self.templates is not None:
            raise RequestError("give templates with --template or with --templates FILE, not with both")
        return list(self.template) if self.templates is None else read_templates(self.templates)


_LABELS = (
    click.option("--labels", metavar='"A, B"', help="The labels, in plain words, separated by commas."),
    click.option(
        "--labels-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A label per line, JSON {label: [synonyms or whole prompts]}, or a file of another tool.",
    ),
    click.option(
        "--label-vectors",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Vectors of the labels from elsewhere (.npz, .parquet), in the place of prompts.",
    ),
    click.option(
        "--template",
        multiple=True,
        metavar="T",
        help="The prompt, {} where the label goes; repeat it to average several.  "
        f"[default: {DEFAULT_TEMPLATE}]",
    ),
    click.option(
        "--templates", type=click.Path(path_type=Path), metavar="FILE", help="Templates, one per line."
    ),
)

_CLASSIFIER = click.option(
    "--classifier",
    "classifier_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A classifier that nshot saved, instead of labels.",
)


def label_options(command: Command) -> Command:
    """Add the labels' options; the command gets them as ``label_options: LabelOptions``."""
    return packed("label_options", LabelOptions, _LABELS)(command)


def classifier_option(command: Command) -> Command:
    """Add --classifier; the command gets ``classifier_file``."""
    return decorated(command, (_CLASSIFIER,))
