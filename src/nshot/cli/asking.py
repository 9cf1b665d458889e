"""Labels or a saved classifier -> a model and what it is asked, with its decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nshot.cli.options import DecisionOptions, LabelOptions, ModelOptions, say
from nshot.cli.refusing import leave_out
from nshot.errors import RequestError
from nshot.labels.lint import nothing_to_choose

if TYPE_CHECKING:
    from nshot.classifier.cascade import Cascade, CascadeClassifier
    from nshot.classifier.classifier import Classifier
    from nshot.decision import Rejection
    from nshot.labels.prompts import Labels
    from nshot.model import Model
    from nshot.types import Floats


def ask(
    label_options: LabelOptions,
    classifier_file: Path | None,
    decision_options: DecisionOptions,
    model_options: ModelOptions,
    *,
    quiet: bool,
    verbose: bool,
) -> tuple[Model, Classifier]:
    """The model, and the classifier with its decision: a saved one, or zero-shot over the labels.

    What a person should know about the labels is said on stderr.

    Raises:
        RequestError: neither labels nor a classifier, or both; or what they, the model or the decision raise.
    """
    if classifier_file is not None:
        if label_options.any:
            raise RequestError("give labels or --classifier, not both")
        if decision_options.multi:
            check_one_file(classifier_file, "several labels per image are asked of")
        embedder, classifier = from_file(classifier_file, model_options, quiet=quiet)
        decision_options.check(several=classifier.several is not None)
    else:
        decision_options.check(several=False)
        alone = decision_options.multi or decision_options.reject not in (None, "off")
        embedder, classifier = _zero_shot(
            label_options, model_options, alone=alone, quiet=quiet, verbose=verbose
        )
    check_prompts(classifier, classifier_file, label_options, decision_options)
    classifier = decided(classifier, decision_options, label_options, embedder)
    if not quiet:
        say_several(classifier)
    return embedder, classifier


def check_prompts(
    classifier: Classifier,
    classifier_file: Path | None,
    label_options: LabelOptions,
    decision_options: DecisionOptions,
) -> None:
    """Refuse templates and a background that nothing is written into or compared with.

    Raises:
        RequestError: they are named.
    """
    if asks_background(classifier, decision_options):
        return
    check_background(classifier, decision_options)
    if classifier_file is not None or label_options.label_vectors is not None:
        leave_out(
            "the labels' vectors are there already, so no prompt is written",
            template=label_options.template,
            templates=label_options.templates,
        )


def check_background(classifier: Classifier, options: DecisionOptions) -> None:
    """Refuse a background that nothing is compared with.

    Raises:
        RequestError: it is named.
    """
    if not asks_background(classifier, options):
        leave_out(
            "the labels stand against no other background than the classifier's own"
            if classifier.decision is not None
            else "this model's labels each have a score of their own, without a background",
            background=options.background,
            background_file=options.background_file,
        )


def asks_background(classifier: Classifier, options: DecisionOptions) -> bool:
    """Whether ``decided`` writes background labels into prompts."""
    decision = classifier.decision
    if options.multi or classifier.several is not None:
        return decision is None and classifier.activation == "softmax"
    fitted = None if decision is None else decision.rejection
    return options.reject == "background" and (fitted is None or fitted.rule != "background")


def check_one_file(path: Path | None, what: str) -> None:
    """Refuse a file that holds a cascade where one model is needed, before any model is loaded.

    Args:
        path: a classifier file, or none.
        what: what needs it, to begin the sentence with.

    Raises:
        RequestError: it holds a cascade.
    """
    from nshot.classifier import file

    if path is not None and file.is_cascade(path):
        from nshot.classifier.cascade import CascadeClassifier, check_one

        check_one(CascadeClassifier.open(path), what)


def from_file(path: Path, model_options: ModelOptions, *, quiet: bool) -> tuple[Model, Classifier]:
    """A saved classifier and its model, unless --model names another, which must be of the same weights.

    Raises:
        RequestError: no classifier there, or one of another model.
    """
    from nshot.classifier import file
    from nshot.classifier.classifier import Classifier

    if file.is_cascade(path):
        return _cascade_of(path, model_options, quiet=quiet)
    classifier = Classifier.open(path)
    if model_options.model is None:
        model_options = replace(model_options, model=classifier.model)
    model = model_options.load(quiet=quiet, question=lambda _: classifier)
    classifier.check_space(model.recipe, model.name, name=str(path))
    return model, classifier


def _cascade_of(path: Path, model_options: ModelOptions, *, quiet: bool) -> tuple[Model, Classifier]:
    """A saved cascade and its two models."""
    from nshot.classifier.cascade import CascadeClassifier

    classifier = CascadeClassifier.open(path)
    cascade = load_stages(classifier, model_options, name=str(path), quiet=quiet)
    if not quiet:
        say(cascade.promise)
    return cast("Model", cascade), classifier


def load_stages(
    classifier: CascadeClassifier, model_options: ModelOptions, *, name: str, quiet: bool
) -> Cascade:
    """The two models of a saved cascade, each in the precision that it had where that says what it is.

    Raises:
        RequestError: other weights than those that the cascade was made with, another --model, or a
            --precision that neither stage has.
    """
    from nshot.classifier.cascade import Cascade

    told = classifier.about
    if model_options.model not in (None, told["last model"]):
        raise RequestError(f"{name} is a cascade before {told['last model']}: leave out --model")
    kept = [_precision(classifier, stage, model_options) for stage in (0, 1)]
    if model_options.precision not in ("auto", *kept):
        raise RequestError(f"{name} is a cascade of {' and '.join(classifier.stages)}: leave out --precision")
    last = replace(model_options, model=told["last model"], precision=kept[1])
    model = last.load(quiet=quiet, question=lambda _: classifier.last)
    first = first_stage(model_options, quiet=quiet)(classifier)
    classifier.first.check_space(first.recipe, first.name, name=f"the first stage of {name}")
    classifier.last.check_space(model.recipe, model.name, name=f"the last stage of {name}")
    return Cascade(first, model, classifier)


def first_stage(model_options: ModelOptions, *, quiet: bool = True) -> Callable[[CascadeClassifier], Model]:
    """What loads the first model of a saved cascade."""

    def load(classifier: CascadeClassifier) -> Model:
        model, precision = classifier.about["model"], _precision(classifier, 0, model_options)
        own = replace(model_options, model=model, revision=None, precision=precision)
        return own.load(quiet=quiet, as_first=True, question=lambda _: classifier.first)

    return load


def _precision(classifier: CascadeClassifier, stage: int, model_options: ModelOptions) -> Any:
    """That which a stage had, where it says what the stage is; else the one that was asked for."""
    told = classifier.about
    kept = told.get(("precision", "last precision")[stage])
    one = told["model"] == told["last model"] or kept in ("int8", "f32-small")
    return kept if one and kept is not None else model_options.precision


def decided(
    classifier: Classifier, options: DecisionOptions, label_options: LabelOptions, embedder: Model
) -> Classifier:
    """The classifier with the decision that was asked for on top of its own; without either, as it is.

    Raises:
        RequestError: a rule without a threshold, or a coverage that nothing was learnt for.
    """
    from nshot.decision import Decision

    decision = classifier.decision or Decision()
    if options.multi or decision.several is not None:
        return each_by_itself(classifier, options, label_options, embedder)
    fitted = decision.rejection
    if options.reject == "off":
        decision = replace(decision, rejection=None)
    elif options.reject is not None and (fitted is None or fitted.rule != options.reject):
        decision = replace(decision, rejection=_rejection(classifier, options, label_options, embedder))
    elif options.threshold is not None:
        if fitted is None:
            raise RequestError("--threshold belongs to a rule: add --reject")
        decision = replace(decision, rejection=replace(fitted, threshold=options.threshold))
    if options.coverage is not None and decision.sets is None:
        raise RequestError("--coverage is learnt from labelled images: run nshot calibrate first")
    if options.coverage is not None:
        decision = decision.with_coverage(options.coverage)
    if classifier.decision is None and decision == Decision():
        return classifier
    return classifier.with_decision(decision)


def each_by_itself(
    classifier: Classifier, options: DecisionOptions, label_options: LabelOptions, embedder: Model
) -> Classifier:
    """The classifier asked for any number of labels, by what it has learnt, else by one threshold for all.

    Raises:
        RequestError: another rule as well, or a classifier that was calibrated for one label per image.
    """
    from nshot.classifier.cascade import check_one
    from nshot.classifier.several import several_labels

    check_one(classifier, "several labels per image are asked of")
    for given, name in ((options.coverage, "--coverage"), (options.reject, "--reject")):
        if given is not None:
            raise RequestError(f"{name} belongs to one label per image: several are each decided by itself")
    check_several(classifier)
    background = None
    if asks_background(classifier, replace(options, multi=True)):
        background = background_rows(options, label_options, embedder)
    return several_labels(classifier, background, threshold=options.threshold)


def check_several(classifier: Classifier) -> None:
    """Refuse a classifier whose decision was learnt for one label per image.

    Raises:
        RequestError: --multi is named.
    """
    if classifier.decision is not None and classifier.several is None:
        raise RequestError(
            "this classifier was calibrated for one label per image: leave out --multi, or fit or calibrate "
            "one for several labels"
        )


def say_several(classifier: Classifier) -> None:
    """Which labels are decided on what grounds, on stderr."""
    several = classifier.several
    if several is None:
        return
    if not several.learnt:
        say(
            "a label is shown from a score that was measured on other images: nshot calibrate DATA --multi "
            "finds each label's own"
        )
    elif not several.decided.all():
        ranked = [label for label, one in zip(classifier.labels, several.decided, strict=True) if not one]
        some = ", ".join(ranked[:5]) + (f" and {len(ranked) - 5} more" if len(ranked) > 5 else "")
        say(f"ranked, not decided, since fewer than {several.least} images showed them: {some}")


def background_rows(options: DecisionOptions, label_options: LabelOptions, embedder: Model) -> Classifier:
    """The background labels as a classifier's rows, written into the same templates as the labels."""
    from nshot.classifier.zero_shot import zero_shot
    from nshot.labels.prompts import DEFAULT_TEMPLATE

    return zero_shot(embedder, options.words(), label_options.read_templates() or (DEFAULT_TEMPLATE,))


def background_vectors(options: DecisionOptions, label_options: LabelOptions, embedder: Model) -> Floats:
    """The same as the vectors that a rule compares with, also of a cascade: float32[n, d]."""
    from nshot.classifier.cascade import Cascade
    from nshot.labels.prompts import DEFAULT_TEMPLATE

    if isinstance(embedder, Cascade):
        return embedder.background(options.words(), label_options.read_templates() or (DEFAULT_TEMPLATE,))
    return background_rows(options, label_options, embedder).matrix


def _zero_shot(
    label_options: LabelOptions, model_options: ModelOptions, *, alone: bool, quiet: bool, verbose: bool
) -> tuple[Model, Classifier]:
    from nshot.labels.prompts import DEFAULT_TEMPLATE, write_prompts

    given = label_options.given(quiet=quiet, alone=True)
    if given is None:
        raise RequestError('give the labels with --labels "cat, dog" or with --labels-file FILE')
    labels, templates = given.labels, label_options.read_templates() or [DEFAULT_TEMPLATE]
    prompted = write_prompts(labels, templates)
    for label in prompted if verbose else ():
        say(f"{label.label}: {' | '.join(label.prompts)}")
    embedder = model_options.load(quiet=quiet, question=label_options.question(labels))
    classifier = label_options.classifier(embedder, labels)
    if len(classifier.labels) == 1 and classifier.activation == "softmax" and not (alone or quiet):
        say(nothing_to_choose(classifier.labels[0]))
    say_language(labels, embedder, quiet=quiet)
    say_synonyms(classifier, quiet=quiet)
    return embedder, classifier


def say_language(labels: Labels, model: Model, *, quiet: bool) -> None:
    """Say on stderr that labels are in a language that the model has not learnt."""
    from nshot.labels.lint import other_language

    if not quiet and not model.multilingual and (note := other_language(labels)) is not None:
        say(note)


def say_synonyms(classifier: Classifier, *, quiet: bool) -> None:
    """Pairs of labels that the model can hardly tell apart, on stderr."""
    from nshot.classifier.zero_shot import near_synonyms

    pairs, count = ([], 0) if quiet else near_synonyms(classifier)
    for first, second, cosine in pairs:
        say(f"to this model {first!r} and {second!r} mean nearly the same (cosine {cosine:.3f})")
    if count > len(pairs):
        say(f"... and {count - len(pairs)} more such pairs")


def _rejection(
    classifier: Classifier, options: DecisionOptions, label_options: LabelOptions, embedder: Model
) -> Rejection:
    from nshot.decision import Rejection
    from nshot.decision.background import apart
    from nshot.decision.rejection import DEFAULT_THRESHOLD

    if options.reject != "background":
        if options.threshold is None:
            raise RequestError(
                f"the {options.reject} rule needs --threshold; nshot calibrate finds one on labelled images"
            )
        return Rejection(options.reject, options.threshold)
    rows = background_vectors(options, label_options, embedder)
    rejection = Rejection("background", DEFAULT_THRESHOLD, rows[apart(rows, classifier.matrix)])
    if options.threshold is not None:
        return replace(rejection, threshold=options.threshold)
    if classifier.activation == "sigmoid":
        say(
            f"WARNING: the background rule's threshold of {rejection.threshold:g} was measured on CLIP, and "
            f"the cosines of {embedder.name} are of another size: find its own with nshot calibrate, or "
            "give --threshold"
        )
    return rejection
