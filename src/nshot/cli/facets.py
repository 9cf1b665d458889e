"""Facets on the command line: several questions about each image, and a table with a column for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nshot.cli.data import DataOptions, tell_failures
from nshot.cli.options import DecisionOptions, LabelOptions, ModelOptions, progress, say, tell_remarks
from nshot.errors import LabelError, RequestError
from nshot.labels.facets import Facet, read_facets, ready_facets

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.facets import Facets
    from nshot.embeddings import Embeddings
    from nshot.evaluation.evaluation import Evaluation
    from nshot.images.remarks import Remarks
    from nshot.images.sources import Source
    from nshot.model import Model
    from nshot.types import Embedded, Failure

Command = Callable[..., Any]

facets_option = click.option(
    "--facets",
    "facets_given",
    metavar="FILE_OR_NAMES",
    help="Several questions about each image: JSON {facet: [labels]}, or names of ready ones such as "
    '"time of day, weather".',
)


def is_faceted(facets_given: str | None, classifier_file: Path | None) -> bool:
    """Whether facets are asked: named, or in a classifier file."""
    if facets_given is not None:
        return True
    if classifier_file is None or not classifier_file.is_file():
        return False
    from nshot.classifier import file

    return file.format_of(classifier_file) == file.FACETS


def facets_path(given: str | None) -> Path | None:
    """The file of facets, which nothing may be written over; None where no file was named."""
    return Path(given) if given is not None and Path(given).exists() else None


def given_facets(given: str) -> dict[str, Facet]:
    """The facets of a file, or those of the library by name.

    Raises:
        LabelError: no such file, and no such names either.
    """
    if Path(given).exists():
        return read_facets(given)
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
    return {name: ready[name] for name in names}


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

    Raises:
        RequestError: facets and labels or a classifier together; or what the parts raise.
    """
    from nshot.classifier.facets import Facets
    from nshot.cli.asking import decided
    from nshot.labels.prompts import DEFAULT_TEMPLATE

    if label_options.any:
        raise RequestError("facets bring their own labels: leave out --labels")
    if facets_given is not None and classifier_file is not None:
        raise RequestError("give --facets or --classifier, not both")
    if classifier_file is not None:
        facets = Facets.open(classifier_file)
        if model_options.model is None:
            model_options = replace(model_options, model=facets.model)
        model = model_options.load(quiet=quiet)
        facets.check_space(model.recipe, model.name, name=str(classifier_file))
    else:
        assert facets_given is not None
        questions = given_facets(facets_given)
        templates = label_options.read_templates() or [DEFAULT_TEMPLATE]
        model = model_options.load(quiet=quiet)
        facets = Facets.zero_shot(model, questions, templates)
    one = replace(decision_options, reject=None, coverage=None)  # a facet of several labels has no such rule
    own = {
        name: decided(each, one if name in facets.several else decision_options, label_options, model)
        for name, each in facets.items()
    }
    return model, Facets(own)


def columns_of(facets: Mapping[str, Classifier]) -> dict[str, tuple[bool, bool]]:
    """What the sinks want to know: whether each facet is decided, and whether it is calibrated."""
    return {
        name: (each.decision is not None, each.decision is not None and each.decision.calibrated)
        for name, each in facets.items()
    }


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
        RequestError: no table, or one without a column for a facet.
    """
    from nshot.embeddings import Embeddings
    from nshot.images.remarks import Remarks
    from nshot.types import Embedded

    remarks = Remarks()
    sources = table_of(model, data_options, remarks)
    records = list(progress(remarks.noting(model.embed_images(sources)), shown=not quiet))
    tell_remarks(remarks, quiet=quiet)
    images = Embeddings.collect(records, dimension=model.dimension, recipe=model.recipe, model=model.name)
    if not len(images):
        raise RequestError(f"no image of {data_options.data} could be read")
    rows = [record.beside or {} for record in records if isinstance(record, Embedded)]
    found = {}
    for name in facets:
        if not any(name in row for row in rows):
            known = ", ".join(map(repr, rows[0])) or "none"
            raise RequestError(
                f"{data_options.data} has no column {name!r} for that facet; beside the images it has {known}"
            )
        labels = [row.get(name, "").strip() for row in rows]
        kept = [place for place, label in enumerate(labels) if label]
        if not kept:
            raise RequestError(f"the column {name!r} of {data_options.data} is empty")
        if len(kept) < len(rows) and not quiet:
            say(f"{name}: {len(rows) - len(kept)} images without a label were left out")
        if name in facets.several:
            split = [_split(labels[place], data_options.label_separator) for place in kept]
            own = replace(images[kept].with_labels(split), multi=True)
        else:
            own = images[kept].with_labels([labels[place] for place in kept])
        found[name] = replace(own, positions=images.positions[kept], failures=images.failures)
    return found


def _split(cell: str, separator: str | None) -> list[str]:
    parts = cell.split(separator) if separator else cell.replace("|", ";").split(";")
    return [part.strip() for part in parts if part.strip()]


def failures_of(images: Mapping[str, Embeddings], none: Embeddings | None = None, *, quiet: bool) -> int:
    """Name what failed, once, also of images that show none of the labels; the exit status that it means."""
    first = next(iter(images.values()))
    failures = [failure for each in (first, none) if each is not None for failure in each.failures.values()]
    embedded = len({place for each in images.values() for place in each.positions.tolist()})
    return tell_failures(failures, embedded + (0 if none is None else len(none)), quiet=quiet)


def evaluate_facets(
    model: Model,
    facets: Facets,
    images: Mapping[str, Embeddings],
    templates: Sequence[str],
    *,
    seed: int,
) -> dict[str, Evaluation]:
    """Each facet measured on its own column; a label that the facet does not have is refused by name."""
    from nshot.evaluation.evaluation import evaluate, prompt_ways

    found = {}
    for name, classifier in facets.items():
        try:
            ways = prompt_ways(model, list(classifier.labels), list(templates))
            found[name] = evaluate(classifier, images[name], ways, seed=seed)
        except (LabelError, RequestError) as error:
            raise type(error)(f"facet {name!r}: {error}") from error
    return found


def check_labels(facets: Mapping[str, Classifier], images: Mapping[str, Embeddings], *, quiet: bool) -> None:
    """Say which labels of a column are not among those of its facet."""
    for name, classifier in facets.items():
        if (strange := sorted(set(images[name].classes) - set(classifier.labels))) and not quiet:
            say(f"{name}: in the table but not among the facet's labels: {', '.join(strange)}")
