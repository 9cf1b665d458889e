"""--first and --agree: a small model before the large one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from nshot.cli.kinds import Kind
from nshot.cli.options import Command, LabelOptions, ModelOptions, packed, say
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.embedder import Embedder, ImageLike
    from nshot.model import Model

_PRECISIONS = ("f32", "bf16", "f32-small", "int8")


@dataclass(frozen=True, slots=True)
class CascadeOptions:
    """What ``--first`` and ``--agree`` say."""

    first: str | None
    agree: float | None

    def check(self, kind: Kind) -> bool:
        """Whether there is a first stage.

        Raises:
            RequestError: ``--agree`` without ``--first``, or ``--first`` with another kind of question.
        """
        if self.first is not None and kind is not Kind.ONE:
            raise RequestError(
                f"--first goes with one label per image, and this is {kind.value}: leave it out"
            )
        if self.first is None and self.agree is not None:
            raise RequestError("--agree says how often a first model must answer as the other: add --first")
        return self.first is not None


_OPTIONS = (
    click.option(
        "--first",
        metavar="MODEL",
        help="A smaller model, a classifier file, or a precision of the same model, that answers first: only "
        "what it is not sure of goes on to --model. How sure it must be is learnt on 300 images or more.",
    ),
    click.option(
        "--agree",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="SHARE",
        help="With --first: the share of answers that are to be those of --model.  [default: 0.99]",
    ),
)


def cascade_options(command: Command) -> Command:
    """Add --first and --agree; the command gets them as ``cascade_options: CascadeOptions``."""
    return packed("cascade_options", CascadeOptions, _OPTIONS)(command)


def staged(
    options: CascadeOptions,
    model: Model,
    classifier: Classifier,
    images: ImageLike | Iterable[ImageLike],
    label_options: LabelOptions,
    model_options: ModelOptions,
    *,
    quiet: bool,
) -> tuple[Model, Classifier]:
    """The cascade of what ``--first`` names and this model, or the model by itself where that pays more.

    Args:
        options: the first stage; there must be one.
        model: the last stage's model.
        classifier: the last stage's classifier.
        images: what a sample is drawn from.
        label_options: the labels, unless the classifier came from a file.
        model_options: how models are loaded.
        quiet: say nothing.

    Raises:
        RequestError: a first stage that is no other than the last, or a decision that cascades do not know.
    """
    from nshot.classifier.cascade import BACKGROUND, CascadeClassifier, cascade

    if isinstance(classifier, CascadeClassifier):
        raise RequestError("this classifier is a cascade already: leave out --first")
    rejection = None if classifier.decision is None else classifier.decision.rejection
    if rejection is not None and rejection.rule == "background":
        raise RequestError(f"--reject background does not go with --first: {BACKGROUND}")
    first = _first(options.first or "", model, classifier, label_options, model_options, quiet=quiet)
    if first[0].recipe == model.recipe:
        raise RequestError(f"--first {options.first} is the same model as --model: name a smaller one")
    agree = 0.99 if options.agree is None else options.agree
    found = cascade(first, (model, classifier), images, agree=agree)
    if not quiet:
        say(found.reason)
    return cast("Model", found.model), found.classifier


def say_sent(model: Embedder, *, quiet: bool) -> None:
    """How many images went on to the last stage, on stderr."""
    from nshot.classifier.cascade import Cascade

    if isinstance(model, Cascade) and model.asked and not quiet:
        say(f"{model.sent:,} of {model.asked:,} images went on to {model.last.name}")


def _first(
    name: str,
    model: Model,
    classifier: Classifier,
    label_options: LabelOptions,
    model_options: ModelOptions,
    *,
    quiet: bool,
) -> tuple[Model, Classifier]:
    if Path(name).suffix == ".nshot":
        from nshot.cli.asking import from_file

        return from_file(Path(name), replace(model_options, model=None, revision=None), quiet=quiet)
    if name in _PRECISIONS:
        smaller = replace(model_options, model=model.name, precision=name).load(quiet=quiet, as_first=True)
        if smaller.space == classifier.space and smaller.dimension == classifier.dimension:
            return smaller, classifier.with_decision(None)  # one model: its labels are known already
    else:
        smaller = replace(model_options, model=name, revision=None).load(quiet=quiet, as_first=True)
    if label_options.label_vectors is not None:
        raise RequestError("--label-vectors are of one model: with --first, give the labels in words")
    given = label_options.given()
    labels = list(classifier.labels) if given is None else given.labels
    return smaller, label_options.classifier(smaller, labels)
