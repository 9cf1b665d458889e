"""Facets on the command line: several questions about each image, and a table with a column for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.data import DataOptions, tell_failures
from nshot.cli.options import DecisionOptions, LabelOptions, ModelOptions, progress, say, tell_remarks
from nshot.cli.refusing import leave_out
from nshot.errors import LabelError, RequestError
from nshot.labels.facets import OFF, Facet, NoneRule, read_facets, ready_facets

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.facets import Facets
    from nshot.embeddings import Embeddings
    from nshot.images.remarks import Remarks
    from nshot.images.sources import Source
    from nshot.model import Model
    from nshot.types import Embedded, Failure

facets_option = click.option(
    "--facets",
    "facets_given",
    metavar="FILE_OR_NAMES",
    help="Several questions about each image: JSON {facet: [labels]}, or names of ready ones such as "
    '"time of day, weather".',
)


def facets_path(given: str | None) -> Path | None:
    """The file of facets, which nothing may be written over; None where no file was named."""
    return Path(given) if given is not None and Path(given).exists() else None


def given_facets(given: str, *, multi: bool = False) -> dict[str, Facet]:
    """The facets of a file, or those of the library by name; with ``multi``, each of several labels.

    Raises:
        LabelError: no such file, and no such names either; or a facet that knows one label per image alone.
    """
    if Path(given).exists():
        return {name: _several(each) if multi else each for name, each in read_facets(given).items()}
    names, ready = [name.strip() for name in given.split(",")], ready_facets()
    if unknown := [name for name in names if name not in ready]:
        raise LabelError(
            f"there is no file {given}, and no ready facet {unknown[0]!r}: there are {', '.join(ready)}"
        )
    for name in names:
        if known := ready[name].measured:
            say(f"{name}: {known}; on your images and with another model it may be otherwise")
    if unmeasured := [name for name in names if not ready[name].measured]:
        say(
            f"{', '.join(unmeasured)}: how well this is answered has not been measured: check it on images "
            "of your own with nshot evaluate"
        )
    return {name: _several(ready[name]) if multi else ready[name] for name in names}


def _several(facet: Facet) -> Facet:
    own = [key for key in ("activation", "calibrate") if getattr(facet, key)]
    own += ["none"] if not facet.multi and facet.none is not None else []
    if own:
        raise LabelError(
            f"facet {facet.name!r} has {own[0]!r}, which belongs to one label per image: leave out --multi"
        )
    return replace(facet, multi=True)


def check_for_page(facets: Iterable[Facet], *, off: bool = False) -> None:
    """Refuse what the page of nshot serve does not know of a facet.

    Args:
        facets: what is to be asked there.
        off: whether a facet may say that it always answers.

    Raises:
        RequestError: the facet and its key are named.
    """
    for facet in facets:
        odd = "activation" if facet.activation else "calibrate" if facet.calibrate else ""
        known = (NoneRule("background"), NoneRule(OFF)) if off else (NoneRule("background"),)
        if facet.none is not None and facet.none not in known:
            odd = "none"
        if odd:
            raise RequestError(
                f"the page does not know {odd!r} of the facet {facet.name!r}: leave it out there"
            )


def ask_facets(
    facets_given: str | None,
    classifier_file: Path | None,
    label_options: LabelOptions,
    decision_options: DecisionOptions,
    model_options: ModelOptions,
    *,
    quiet: bool,
) -> tuple[Model, Facets]:
    """The model, and the facets with their decisions: saved ones, or zero-shot.

    A facet's own templates and its own rule of "none of these" come before those of the command line.

    Raises:
        RequestError: facets and labels together, a rule that no facet takes, or what the parts raise.
    """
    if label_options.any:
        raise RequestError("facets bring their own labels: leave out --labels")
    if facets_given is not None:
        return _asked_anew(facets_given, label_options, decision_options, model_options, quiet=quiet)
    assert classifier_file is not None
    return _opened(classifier_file, label_options, decision_options, model_options, quiet=quiet)


def _asked_anew(
    facets_given: str,
    label_options: LabelOptions,
    options: DecisionOptions,
    model_options: ModelOptions,
    *,
    quiet: bool,
) -> tuple[Model, Facets]:
    from nshot.classifier.facets import Facets
    from nshot.labels.prompts import DEFAULT_TEMPLATE

    questions = given_facets(facets_given, multi=options.multi)
    options.check(several=any(each.multi for each in questions.values()))
    templates = label_options.read_templates()
    if templates and all(each.templates for each in questions.values()):
        leave_out(
            "each facet has templates of its own",
            template=label_options.template,
            templates=label_options.templates,
        )
    several = any(each.multi for each in questions.values())
    if options.threshold is not None and options.reject is None and not several:
        raise RequestError("--threshold belongs to a rule: add --reject")
    if options.coverage is not None:
        raise RequestError("--coverage is learnt from labelled images: nshot calibrate TABLE --facets FILE")
    own = [name for name, each in questions.items() if each.none is not None]
    questions = {name: _with_rule(each, options) for name, each in questions.items()}
    _say_own(own, list(questions), options, quiet=quiet)
    model = model_options.load(quiet=quiet)
    facets = Facets.zero_shot(model, questions, templates or [DEFAULT_TEMPLATE])
    if not quiet:
        for name, each in facets.items():
            if each.activation == "sigmoid" != model.activation and name not in facets.several:
                say(
                    f"{name}: {model.name} was trained with a softmax, so its labels' own scores say little "
                    "until nshot calibrate has seen labelled images"
                )
    return model, facets


def _with_rule(facet: Facet, options: DecisionOptions) -> Facet:
    """The facet with the command line's rule of "none of these", if it has none of its own."""
    if facet.none is not None:
        return facet
    given = options.background is not None or options.background_file is not None
    background = options.words() if given else ()
    if facet.multi:
        if options.threshold is None and not background:
            return facet
        return replace(facet, none=NoneRule("", options.threshold, background))
    if options.reject in (None, OFF):
        return facet
    if options.reject != "background" and options.threshold is None:
        raise RequestError(
            f"the {options.reject} rule needs --threshold; nshot calibrate finds one on labelled images"
        )
    return replace(facet, none=NoneRule(options.reject, options.threshold, background))


def _say_own(own: Sequence[str], names: Sequence[str], options: DecisionOptions, *, quiet: bool) -> None:
    """Refuse a rule that no facet takes; say which facets do not."""
    if not own or not options.rules:
        return
    if len(own) == len(names):
        leave_out('each facet says itself when it answers "none of these"', **options.rules)
    if not quiet:
        say(f'with a rule of their own for "none of these": {", ".join(own)}')


def _opened(
    path: Path,
    label_options: LabelOptions,
    options: DecisionOptions,
    model_options: ModelOptions,
    *,
    quiet: bool,
) -> tuple[Model, Facets]:
    from nshot.classifier.facets import Facets
    from nshot.cli.asking import asks_background, decided

    facets = Facets.open(path)
    options.check(several=bool(facets.several) or options.multi)
    own = [name for name, each in facets.items() if "none" in each.made]
    _say_own(own, list(facets), options, quiet=quiet)
    if options.coverage is not None and len(facets.several) == len(facets):
        raise RequestError("several labels per image are each decided by themselves: leave out --coverage")
    if model_options.model is None:
        model_options = replace(model_options, model=facets.model)
    model = model_options.load(quiet=quiet)
    facets.check_space(model.recipe, model.name, name=str(path))
    found, written, compared = {}, False, False
    for name, each in facets.items():
        mine = options
        if name in own:
            mine = DecisionOptions(options.coverage, None, None, None, None, options.multi)
        if name in facets.several:  # these belong to one label per image
            mine = replace(mine, reject=None, coverage=None)
        prompts, known = label_options, tuple(each.made.get("templates") or ())
        if known:
            prompts = replace(label_options, template=known, templates=None)
        if asks_background(each, mine):
            written, compared = written or not known, True
        try:
            found[name] = decided(each, mine, prompts, model)
        except RequestError as error:
            raise RequestError(f"facet {name!r}: {error}") from error
    if not written:
        leave_out(
            "saved facets bring their own prompts",
            template=label_options.template,
            templates=label_options.templates,
        )
    if not compared:
        leave_out(
            "saved facets bring their own background",
            background=options.background,
            background_file=options.background_file,
        )
    return model, Facets(found)


def columns_of(facets: Mapping[str, Classifier]) -> dict[str, tuple[bool, bool]]:
    """What the sinks want to know: whether each facet is decided, and whether it is calibrated."""
    return {
        name: (each.decision is not None, each.decision is not None and each.decision.calibrated)
        for name, each in facets.items()
    }


def on_table(model_options: ModelOptions, data_options: DataOptions) -> ModelOptions:
    """The model's options with the images of a table with a column per facet."""
    return replace(model_options, asked=lambda model: table_of(model, data_options))


def table_of(
    model: Model, data_options: DataOptions, remarks: Remarks | None = None
) -> Iterable[Source | Embedded | Failure]:
    """The images of a table with a column per facet, listed."""
    return model.sources(
        [data_options.data],
        image_column=data_options.image_column,
        image_root=data_options.image_root,
        strict=data_options.strict,
        keep_columns=True,
        remarks=remarks,
    )


def embed_by_facet(
    model: Model, data_options: DataOptions, facets: Facets, *, quiet: bool
) -> dict[str, Embeddings]:
    """The images of a table, embedded once, and for each facet those that have a label in its column.

    The cell of a facet of several labels holds them with --label-separator between two, else ";" or "|".

    Raises:
        RequestError: no table, or one without a column for a facet; or options that belong to other data.
    """
    from nshot.datasets.facets import by_facet
    from nshot.images.remarks import Remarks
    from nshot.types import Embedded

    data_options.check_for_facets(separated=bool(facets.several))
    remarks = Remarks()
    sources = table_of(model, data_options, remarks)
    records = list(progress(remarks.noting(model.embed_images(sources)), shown=not quiet))
    tell_remarks(remarks, quiet=quiet)
    found = by_facet(
        records,
        facets,
        dimension=model.dimension,
        recipe=model.recipe,
        model=model.name,
        separator=data_options.label_separator,
        name=data_options.data,
    )
    for name, classifier in () if quiet else facets.items():
        own = found[name]
        if left := sum(isinstance(record, Embedded) for record in records) - len(own):
            say(f"{name}: {left} images without a label were left out")
        if strange := sorted(set(own.classes) - set(classifier.labels)):
            say(f"{name}: in the table but not among the facet's labels: {', '.join(strange)}")
    return found


def failures_of(images: Mapping[str, Embeddings], none: Embeddings | None = None, *, quiet: bool) -> int:
    """Name what failed, once, also of images that show none of the labels; the exit status that it means."""
    first = next(iter(images.values()))
    failures = [failure for each in (first, none) if each is not None for failure in each.failures.values()]
    embedded = len({place for each in images.values() for place in each.positions.tolist()})
    return tell_failures(failures, embedded + (0 if none is None else len(none)), quiet=quiet)
