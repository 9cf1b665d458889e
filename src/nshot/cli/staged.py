"""--first and --agree: a small model before the large one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from nshot.cli.kinds import Kind
from nshot.cli.options import Command, DecisionOptions, LabelOptions, ModelOptions, packed, say
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.classifier.cascading import Cascaded
    from nshot.classifier.classifier import Classifier
    from nshot.embedder import Embedder
    from nshot.model import Model

_PRECISIONS = ("f32", "bf16", "f32-small", "int8")


@dataclass(frozen=True, slots=True)
class CascadeOptions:
    """What ``--first`` and ``--agree`` say."""

    first: str | None
    agree: float | None

    def check(self, kind: Kind, classifier_file: Path | None) -> bool:
        """Whether there is a first stage.

        Raises:
            RequestError: ``--agree`` without ``--first``, or ``--first`` with another kind of question or a
                file that holds a cascade.
        """
        if self.first is not None and kind is not Kind.ONE:
            raise RequestError(
                f"--first goes with one label per image, and this is {kind.value}: leave it out"
            )
        if self.first is not None and classifier_file is not None:
            from nshot.classifier import file

            if file.is_cascade(classifier_file):
                raise RequestError(f"{classifier_file} is a cascade already: leave out --first")
        if self.first is None and self.agree is not None:
            raise RequestError("--agree says how often a first model must answer as the other: add --first")
        return self.first is not None


_OPTIONS = (
    click.option(
        "--first",
        metavar="MODEL",
        help="A smaller model, a classifier file, or a precision of the same model (int8), that answers "
        "first: only what it is not sure of goes on to --model. How sure it must be is learnt on 300 images "
        "or more.",
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
    label_options: LabelOptions,
    decision_options: DecisionOptions | None,
    model_options: ModelOptions,
    *,
    quiet: bool,
) -> tuple[Model, Classifier]:
    """The model and the classifier of ``staged_of``."""
    found = staged_of(options, model, classifier, label_options, decision_options, model_options, quiet=quiet)
    return cast("Model", found.model), found.classifier


def staged_of(
    options: CascadeOptions,
    model: Model,
    classifier: Classifier,
    label_options: LabelOptions,
    decision_options: DecisionOptions | None,
    model_options: ModelOptions,
    *,
    quiet: bool,
) -> Cascaded:
    """The cascade of what ``--first`` names and this model, or the model by itself where that pays more.

    Args:
        options: the first stage; there must be one.
        model: the last stage's model.
        classifier: the last stage's classifier, with its decision.
        label_options: the labels, unless the classifier came from a file.
        decision_options: what the decision was asked for with; None where there is none yet.
        model_options: how models are loaded, and the images that a sample is drawn from.
        quiet: say nothing.

    Raises:
        RequestError: a first stage that is no other than the last, or a decision that cascades do not know.
    """
    from nshot.classifier.cascading import cascade

    name = options.first or ""
    assert model_options.asked is not None  # a command that takes --first names them
    first = _first(name, model, classifier, label_options, model_options, quiet=quiet)
    if first[0].recipe == model.recipe:
        raise RequestError(f"--first {name} is the same model as --model: name a smaller one")
    agree = 0.99 if options.agree is None else options.agree
    background = None
    rule = None if classifier.decision is None else classifier.decision.rejection
    if rule is not None and rule.rule == "background" and first[1].space != classifier.space:
        from nshot.cli.asking import background_rows

        words = decision_options or DecisionOptions(None, None, None, None, None)
        small, large = (background_rows(words, label_options, each).matrix for each in (first[0], model))
        background = small, large
    found = cascade(
        first, (model, classifier), model_options.asked(model), agree=agree, background=background
    )
    if not quiet:
        say(found.reason)
    return found


class Staging:
    """How the page of ``nshot serve`` gets its model, perhaps a cascade, in the background.

    Attributes:
        remark: what a person should know of it: the promise of a cascade, or why there is none.
    """

    def __init__(
        self,
        options: CascadeOptions,
        label_options: LabelOptions,
        classifier_file: Path | None,
        sources: Sequence[str],
        *,
        quiet: bool,
    ) -> None:
        self.remark = ""
        self._options = options
        self._labels = label_options
        self._file = classifier_file
        self._sources = sources
        self._quiet = quiet

    def load(self, model_options: ModelOptions, saved: Mapping[str, Classifier]) -> Model:
        """The model, or the cascade of a file, or that of --first and the model."""
        from nshot.classifier.cascade import CascadeClassifier
        from nshot.cli.asking import decided, load_stages

        own = replace(model_options, asked=lambda model: model.sources(self._sources))
        only = next(iter(saved.values()), None) if len(saved) == 1 else None
        if isinstance(only, CascadeClassifier):
            cascade = load_stages(only, own, name=str(self._file), quiet=True)
            self.remark = cascade.promise
            return cast("Model", cascade)
        if self._options.first is None:
            return own.load(quiet=True)
        model = own.load(quiet=True, question=None if only is None else lambda _: only)
        classifier, asked = only, DecisionOptions(None, None, None, None, None)
        written: dict[str, Any] = {}
        if classifier is None:  # as the page asks: "none of these" may be answered
            labels, templates = self._labels.read()
            asked = replace(asked, reject="background")
            classifier = decided(self._labels.classifier(model, labels), asked, self._labels, model)
            given = labels if isinstance(labels, Mapping) else dict.fromkeys(labels, ())
            written = {label: list(words) for label, words in given.items()}
            classifier = classifier.with_provenance(
                made={"asked": {"labels": written, "templates": list(templates)}}
            )
        found = staged_of(self._options, model, classifier, self._labels, asked, own, quiet=self._quiet)
        self.remark = found.reason
        return cast("Model", found.model)


def say_sent(model: Embedder, *, quiet: bool) -> None:
    """How many images went on to the last stage, on stderr."""
    from nshot.classifier.cascade import Cascade

    if isinstance(model, Cascade) and model.asked and not quiet:
        say(f"{model.sent:,} of {model.asked:,} images went on to {model.classifier.stages[1]}")


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
        from nshot.cli.asking import check_one_file, from_file

        check_one_file(Path(name), f"--first {name}: a first stage has")
        return from_file(Path(name), replace(model_options, model=None, revision=None), quiet=quiet)
    if name in _PRECISIONS:
        plain = classifier.with_decision(None)
        own = replace(model_options, model=model.name, precision=name)
        smaller = own.load(quiet=quiet, as_first=True, question=lambda _: plain)
        if smaller.space == classifier.space and smaller.dimension == classifier.dimension:
            return smaller, plain  # one model: its labels are known already
    else:
        meant = get_close_matches(name.lower(), _PRECISIONS, 1, cutoff=0.7)
        if meant and "/" not in name and not Path(name).is_dir():
            raise RequestError(f"--first {name} is no precision of a model: did you mean {meant[0]}?")
        smaller = replace(model_options, model=name, revision=None).load(quiet=quiet, as_first=True)
    if label_options.label_vectors is not None:
        raise RequestError("--label-vectors are of one model: with --first, give the labels in words")
    given = label_options.given()
    labels = list(classifier.labels) if given is None else given.labels
    return smaller, label_options.classifier(smaller, labels)
