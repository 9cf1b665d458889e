"""`nshot calibrate`: learn from labelled images when not to believe an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.options import (
    DecisionOptions,
    LabelOptions,
    ModelOptions,
    classifier_option,
    label_options,
    model_options,
    progress,
    say,
    talk_options,
)
from nshot.errors import RequestError
from nshot.types import Failure, Floats

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.datasets.labelled import LabelledSet
    from nshot.decision import CalibrationReport
    from nshot.embedder import Embedder
    from nshot.images.sources import Source


@click.command("calibrate", short_help="Learn from labelled images when not to believe an answer.")
@click.argument("data", metavar="DATA")
@classifier_option
@label_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the calibrated classifier goes.  [default: back into --classifier; else it is only told]",
)
@click.option(
    "--none",
    "strangers",
    multiple=True,
    metavar="SOURCE",
    help="Images that show none of the labels; repeatable.  [default: each label is left out in turn]",
)
@click.option(
    "--reject",
    type=click.Choice(["background", "cosine", "margin", "energy", "off"]),
    default="background",
    show_default=True,
    help='The rule that says "none of these".',
)
@click.option(
    "--wrong",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Of images that show none of the labels, how many may be answered all the same.",
)
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Answer with sets of labels that hold the right one this often, such as 0.9.",
)
@click.option(
    "--surest",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help='Answer only the surest images, such as 0.8 of them; the others are "unsure".',
)
@click.option("--never-empty", is_flag=True, help="Sets of at least one label, which may cover more.")
@click.option("--background", metavar='"A, B"', help="What else there may be in images.  [everyday things]")
@click.option(
    "--background-file", type=click.Path(path_type=Path), metavar="FILE", help="The same, one a line."
)
@click.option("--image-column", metavar="NAME", help="The column of a table that holds the images.")
@click.option("--label-column", metavar="NAME", help="The column that holds the labels.")
@click.option("--config", metavar="NAME", help="Configuration of a data set on the Hub.")
@click.option("--split", metavar="NAME", help="Split of a data set on the Hub.")
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Every figure."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the cross-validation and the sets.")
@model_options
@talk_options
def command(
    data: str,
    classifier_file: Path | None,
    label_options: LabelOptions,
    output: Path | None,
    strangers: tuple[str, ...],
    reject: str,
    wrong: float,
    coverage: float | None,
    surest: float | None,
    never_empty: bool,
    background: str | None,
    background_file: Path | None,
    image_column: str | None,
    label_column: str | None,
    config: str | None,
    split: str | None,
    report: Path | None,
    seed: int,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Learn from labelled images when not to believe an answer.

    DATA is a folder with a folder a label, a table (.csv, .tsv, .parquet) with a column of labels, or
    hf://owner/name: images that the classifier has not learnt from. The classifier is a saved one, or
    zero-shot over --labels, --labels-file or the labels of the data. Images of other labels than the
    classifier's count as images of none.

    \b
    nshot calibrate photos-by-class/ -o animals.nshot
    nshot calibrate photos-by-class/ --classifier animals.nshot --none holidays/ --coverage 0.9
    nshot classify new/ --classifier animals.nshot

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot.atomic import check_output
    from nshot.cli.asking import background_rows, from_file
    from nshot.datasets.labelled import Columns, open_labelled
    from nshot.decision import fit_decision

    for path in (output, report):
        if path is not None:
            check_output(path)
    names = None
    if label_options.labels is not None or label_options.labels_file is not None:
        if classifier_file is not None:
            raise RequestError("give labels or --classifier, not both")
        names, _ = label_options.read()
    labelled = open_labelled(
        data,
        columns=Columns(image_column, label_column, names=None if names is None else list(names)),
        config=config,
        split=split,
        revision=model_options.revision if data.startswith("hf://") else None,
        allow_private=model_options.allow_private,
    )
    if data.startswith("hf://"):
        model_options = replace(model_options, revision=None)
    if classifier_file is not None:
        embedder, classifier = from_file(classifier_file, model_options, quiet=quiet)
    else:
        embedder = model_options.load(quiet=quiet)
        classifier = _zero_shot(embedder, labelled, names, label_options)
    images = _collect(embedder, labelled, strangers, classifier, quiet=quiet)
    if images.foreign:
        say(f"of other labels, so taken as none of these: {', '.join(sorted(images.foreign))}")
    if images.several:
        say(f"{images.several} images with several labels or none were left out")

    rows = None
    if reject == "background" or background or background_file:
        options = DecisionOptions(None, None, None, background, background_file)
        rows = background_rows(options, label_options, embedder).matrix
    decision, figures = fit_decision(
        images.vectors,
        images.targets,
        classifier.matrix,
        scale=classifier.scale,
        bias=classifier.bias,
        activation=classifier.activation,
        none=images.none or None,
        background=rows,
        reject=None if reject == "off" else reject,  # type: ignore[arg-type]
        wrong=wrong,
        coverage=coverage,
        surest=surest,
        randomized=not never_empty,
        seed=seed,
    )
    click.echo(_told(figures))
    for note in figures.notes:
        say(note)
    if report is not None:
        _write_json(report, figures)
    _save(output or classifier_file, classifier_file, classifier.with_decision(decision), embedder.name)
    for failure in () if quiet else images.failures:
        click.echo(f"failed: {failure.source}: {failure.message}", err=True)
    return 1 if images.failures else 0


@dataclass(slots=True)
class _Images:
    vectors: list[Floats] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    none: list[Floats] = field(default_factory=list)
    foreign: set[str] = field(default_factory=set)
    several: int = 0
    failures: list[Failure] = field(default_factory=list)


def _zero_shot(
    embedder: Embedder, labelled: LabelledSet, names: object, label_options: LabelOptions
) -> Classifier:
    from nshot.classifier.zero_shot import zero_shot
    from nshot.labels.prompts import DEFAULT_TEMPLATE

    labels = (
        names or labelled.classes or sorted({label for example in labelled for label in example.labels or ()})
    )
    return zero_shot(embedder, labels, label_options.read_templates() or (DEFAULT_TEMPLATE,))  # type: ignore[arg-type]


def _collect(
    embedder: Embedder,
    labelled: LabelledSet,
    strangers: tuple[str, ...],
    classifier: Classifier,
    *,
    quiet: bool,
) -> _Images:
    """Vectors with the places of their labels, and those of images that show none."""
    place = {label: number for number, label in enumerate(classifier.labels)}
    found = _Images()
    expected: list[tuple[str, ...]] = []

    def listed() -> Iterator[Source]:
        for example in labelled:
            expected.append(example.labels or ())
            yield example.source

    for number, answer in enumerate(progress(embedder.embed_images(listed()), shown=not quiet)):
        labels = expected[number]
        if isinstance(answer, Failure):
            found.failures.append(answer)
        elif len(labels) != 1:
            found.several += 1
        elif labels[0] in place:
            found.vectors.append(answer.vector)
            found.targets.append(place[labels[0]])
        else:
            found.foreign.add(labels[0])
            found.none.append(answer.vector)
    for answer in embedder.embed_images(embedder.sources(strangers)) if strangers else ():
        if isinstance(answer, Failure):
            found.failures.append(answer)
        else:
            found.none.append(answer.vector)
    if not found.vectors:
        raise RequestError(
            f"{labelled.name} holds no image of the classifier's labels, such as {classifier.labels[0]!r}"
        )
    return found


def _save(path: Path | None, was: Path | None, classifier: Classifier, model: str) -> None:
    from nshot.classifier import file as classifier_file

    if path is None:
        say("nothing was saved: name a file with -o")
        return
    recipe = {} if was is None else classifier_file.load(was).recipe
    classifier_file.save(path, classifier, model=model, recipe=recipe)
    click.echo(f"\n{path}")


def _write_json(path: Path, figures: CalibrationReport) -> None:
    from nshot.atomic import writing

    with writing(path):
        path.write_text(json.dumps(figures.to_dict(), indent=2) + "\n", encoding="utf-8")


def _told(figures: CalibrationReport) -> str:
    """The figures for a person."""
    lines = [f"{figures.images:,} images of the labels, {_percent(figures.accuracy)} of them right", ""]
    if figures.after is not None:
        before, after = figures.before, figures.after
        lines += [
            f"temperature {figures.temperature:.3f}" + (f", bias {figures.bias:.3f}" if figures.bias else ""),
            "                              as it is   calibrated (held out)",
            f"negative log-likelihood       {before.nll:8.3f}   {after.nll:10.3f}",
            f"expected calibration error    {before.ece:8.3f}   {after.ece:10.3f}",
            f"Brier score                   {before.brier:8.3f}   {after.brier:10.3f}",
            "",
        ]
    if figures.rules:
        against = (
            f"{figures.none_images:,} images of none of them"
            if figures.none_images
            else "the same images, their own label left out"
        )
        lines += [f"none of these, against {against}", "rule            AUROC   FPR at 95 % TPR"]
        for rule in sorted(figures.rules, key=lambda rule: -rule.auroc):
            mark = "*" if rule.rule == figures.rule else " "
            lines.append(f"{mark} {rule.rule:12}  {rule.auroc:.3f}   {rule.fpr95:.3f}")
        if figures.threshold is not None and figures.kept is not None and figures.accepted is not None:
            lines.append(
                f"threshold {figures.threshold:.4f}: {_percent(figures.kept)} of the labels' images are "
                f"answered, and {_percent(figures.accepted)} of the others (held out)"
            )
        lines.append("")
    lines.append(f"only the surest (area under risk against coverage {figures.area:.4f})")
    lines += [f"answer {_percent(c)}: {_percent(risk)} wrong" for c, risk in figures.risks]
    lines += [
        "",
        f"sets of labels for {_percent(figures.coverage)}: {_percent(figures.covered)} hold the right one "
        f"(held out), {figures.set_size:.2f} labels on average, {_percent(figures.empty)} empty",
    ]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
