"""`nshot calibrate`: learn from labelled images when not to believe an answer."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.atomic import write_bytes
from nshot.cli.data import DataOptions, check_choice, data_options, embed, tell_failures, told_seen
from nshot.cli.facets import (
    ask_facets,
    check_labels,
    embed_by_facet,
    facets_option,
    facets_path,
    failures_of,
    is_faceted,
)
from nshot.cli.help import Command
from nshot.cli.options import (
    MULTI,
    DecisionOptions,
    LabelOptions,
    ModelOptions,
    classifier_option,
    label_options,
    model_options,
    say,
    talk_options,
)
from nshot.cli.several import calibrate_each, is_several
from nshot.cli.several import told as told_each
from nshot.cli.staged import CascadeOptions, cascade_options, staged
from nshot.cli.tree import ask_tree, is_tree, tree_option
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.decision import CalibrationReport
    from nshot.decision.conformal import Kind
    from nshot.model import Model
    from nshot.types import Floats


@click.command(
    "calibrate", cls=Command, short_help="Learn from labelled images when not to believe an answer."
)
@data_options
@classifier_option
@label_options
@facets_option
@tree_option
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
@click.option(
    "--sets",
    "kind",
    type=click.Choice(("least", "adaptive")),
    default="least",
    show_default=True,
    help="The smallest sets of that coverage, or larger ones for harder images.",
)
@MULTI
@click.option("--never-empty", is_flag=True, help="Sets of at least one label, which may cover more.")
@click.option("--background", metavar='"A, B"', help="What else there may be in images.  [everyday things]")
@click.option(
    "--background-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The same from a file, one per line.",
)
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Every figure."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the cross-validation and the sets.")
@model_options
@cascade_options
@talk_options
def command(
    data_options: DataOptions,
    classifier_file: Path | None,
    label_options: LabelOptions,
    facets_given: str | None,
    tree_file: Path | None,
    output: Path | None,
    strangers: tuple[str, ...],
    reject: str,
    wrong: float,
    coverage: float | None,
    surest: float | None,
    kind: Kind,
    multi: bool,
    never_empty: bool,
    background: str | None,
    background_file: Path | None,
    report: Path | None,
    seed: int,
    model_options: ModelOptions,
    cascade_options: CascadeOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Learn from labelled images when not to believe an answer.

    DATA is a folder with a folder per label, a table or an export with labels, an archive, vectors, or
    hf://owner/name: images that the classifier has not learnt from. The classifier is a saved one, or
    zero-shot over --labels, --labels-file or the labels of the data. Images of other labels than the
    classifier's count as images of none. With facets, DATA is a table with a column of labels per facet.

    \b
    nshot calibrate photos-by-class/ -o animals.nshot
    nshot calibrate photos-by-class/ --classifier animals.nshot --none holidays/ --coverage 0.9
    nshot calibrate tags.csv --label-separator ";" --multi -o tags.nshot
    nshot classify new/ --classifier animals.nshot

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot.atomic import check_output
    from nshot.classifier.calibrating import calibrate, enough, seen_before, split
    from nshot.classifier.zero_shot import zero_shot
    from nshot.cli.asking import background_rows, from_file, say_language
    from nshot.labels.prompts import DEFAULT_TEMPLATE

    in_stages = cascade_options.check(alone=(tree_file, facets_given, multi or None))
    read = data_options.inputs(label_options, background_file, *strangers)
    read += [facets_path(facets_given), tree_file]
    if output is not None:  # a classifier may be calibrated in its place
        check_output(output, read)
    if report is not None:
        check_output(report, [*read, classifier_file, output])
    if is_tree(tree_file, classifier_file):
        for value, name in (
            *((strangers, "--none"), (surest, "--surest"), (multi, "--multi"), (facets_given, "--facets")),
            *((never_empty, "--never-empty"), (background or background_file, "--background")),
        ):
            if value:
                raise RequestError(f"a tree answers with a higher node where it is unsure: leave out {name}")
        return _calibrate_tree(
            tree_file,
            classifier_file,
            data_options,
            label_options,
            model_options,
            coverage or 0.9,
            output or classifier_file,
            report,
            quiet=quiet,
        )
    if is_several(multi, classifier_file):
        if facets_given is not None or strangers or coverage is not None or surest is not None:
            raise RequestError(
                "with several labels per image each is decided by itself: leave out --facets, --none, "
                "--coverage and --surest"
            )
        words = DecisionOptions(None, None, None, background, background_file)
        return calibrate_each(
            data_options,
            classifier_file,
            label_options,
            words,
            model_options,
            output,
            report,
            seed=seed,
            quiet=quiet,
        )
    learn = partial(
        calibrate,
        reject=None if reject == "off" else reject,  # type: ignore[arg-type]
        wrong=wrong,
        coverage=coverage,
        surest=surest,
        kind=kind,
        randomized=not never_empty,
        seed=seed,
    )

    def rows(model: Model) -> Floats | None:
        """The background's vectors, where a rule needs them."""
        if reject != "background" and not (background or background_file):
            return None
        words = DecisionOptions(None, None, None, background, background_file)
        return background_rows(words, label_options, model).matrix

    if is_faceted(facets_given, classifier_file):
        from nshot.classifier.facets import Facets

        nothing = DecisionOptions(None, None, None, None, None)
        of_model = data_options.of_model(model_options)
        model, facets = ask_facets(
            facets_given, classifier_file, label_options, nothing, of_model, quiet=quiet
        )
        tables = embed_by_facet(model, data_options, facets, quiet=quiet)
        check_labels(facets, tables, quiet=quiet)
        none = model.embed(model.sources(strangers)) if strangers else None
        background_of_all = rows(model)
        made = {}
        for name, each in facets.items():
            if learnt := seen_before(each, tables[name]):
                say(f"WARNING: {name}: {told_seen(learnt, len(tables[name]))}: calibrate on other images")
            made[name] = learn(each, tables[name], none=none, background=background_of_all)
            if name in facets.several:
                click.echo(f"{name}\n{told_each(made[name].report)}\n")
                continue
            click.echo(f"{name}\n{_told(made[name].report)}\n")
            for note in made[name].report.notes:
                say(f"{name}: {note}")
        if report is not None:
            told = {name: each.report.to_dict() for name, each in made.items()}
            write_bytes(report, (json.dumps(told, indent=2) + "\n").encode())
        if (path := output or classifier_file) is None:
            say("nothing was saved: name a file with -o")
        else:
            Facets(made).save(path)
            click.echo(path)
        return failures_of(tables, none, quiet=quiet)
    given = label_options.given(quiet=quiet, alone=True)
    if given is not None and classifier_file is not None:
        raise RequestError("give labels or --classifier, not both")
    labelled = data_options.open(model_options, given, prefer=("val", "test", "train"), quiet=quiet)
    if labelled.classes is not None and classifier_file is None:
        check_choice(labelled.classes if given is None else given.labels, alone=bool(strangers))
    model_options = data_options.of_model(model_options)
    if classifier_file is not None:
        model, classifier = from_file(classifier_file, model_options, quiet=quiet)
        if in_stages:
            model, classifier = staged(
                cascade_options, model, classifier, labelled, label_options, model_options, quiet=quiet
            )
        images = embed(model, labelled, quiet=quiet)
    elif in_stages:
        model = model_options.load(quiet=quiet)
        known = labelled.classes if given is None else given.labels
        if known is None:
            raise RequestError("the labels are not known before the images are read: give --labels")
        say_language(known, model, quiet=quiet)
        classifier = label_options.classifier(model, known)
        model, classifier = staged(
            cascade_options, model, classifier, labelled, label_options, model_options, quiet=quiet
        )
        images = embed(model, labelled, quiet=quiet)
    else:
        model = model_options.load(quiet=quiet)
        images = embed(model, labelled, quiet=quiet)
        templates = label_options.read_templates() or (DEFAULT_TEMPLATE,)
        labels = given.labels if given is not None else list(images.classes)
        say_language(labels, model, quiet=quiet)
        classifier = zero_shot(model, labels, templates)
    if reject == "background" and "cascade" in classifier.made:
        say("the background rule compares with texts of one model, and a cascade has two: cosine is taken")
        reject, learn = "cosine", partial(learn, reject="cosine")
    none = model.embed(model.sources(strangers)) if strangers else None
    if len(some := enough(classifier, images, seed=seed)) < len(images):
        say(f"{len(some):,} of the {len(images):,} images, drawn at random, are learnt from: that is enough")
        images = some
    _, _, foreign = split(classifier, images)
    if foreign:
        others = sorted({images.labels[row][0] for row in foreign} if images.labels else ())
        say(f"of other labels, so taken as none of these: {', '.join(others)}")
    if several := sum(len(own) != 1 for own in images.labels or ()):
        say(f"{several} images with several labels or none were left out")
    if learnt := seen_before(classifier, images):
        say(f"WARNING: {told_seen(learnt, len(images))}: calibrate on images that it has not seen")

    calibrated = learn(classifier, images, none=none, background=rows(model))
    figures = calibrated.report
    click.echo(_told(figures))
    for note in figures.notes:
        say(note)
    if report is not None:
        write_bytes(report, (json.dumps(figures.to_dict(), indent=2) + "\n").encode())
    if (path := output or classifier_file) is None:
        say("nothing was saved: name a file with -o")
    else:
        calibrated.save(path)
        click.echo(f"\n{path}")
    failures = [*images.failures.values(), *(none.failures.values() if none is not None else ())]
    return tell_failures(failures, len(images) + (0 if none is None else len(none)), quiet=quiet)


def _calibrate_tree(
    tree_file: Path | None,
    classifier_file: Path | None,
    data_options: DataOptions,
    label_options: LabelOptions,
    model_options: ModelOptions,
    coverage: float,
    output: Path | None,
    report: Path | None,
    *,
    quiet: bool,
) -> int:
    """Learn how deep in a tree to answer, so that answers contain the truth as often as asked."""
    from nshot.classifier.calibrating import seen_before

    nothing = DecisionOptions(None, None, None, None, None)
    labelled = data_options.open(model_options, None, prefer=("val", "test", "train"), quiet=quiet)
    of_model = data_options.of_model(model_options)
    model, asked = ask_tree(tree_file, classifier_file, label_options, nothing, of_model, quiet=True)
    images = embed(model, labelled, quiet=quiet)
    given = sorted({own[0] for own in images.labels or () if len(own) == 1})
    strange = [label for label in given if asked.tree.find(label) is None]
    if strange:
        say(f"left out, for the tree does not have them: {', '.join(strange)}")
    if learnt := seen_before(asked.classifier, images):
        say(f"WARNING: {told_seen(learnt, len(images))}: calibrate on images that it has not seen")
    calibrated = asked.calibrated(images, coverage)
    placing = calibrated.placing
    assert placing is not None
    click.echo(
        f"calibrated on {len(placing.scores):,} images: answers contain the truth {_percent(coverage)}"
    )
    if report is not None:
        told = {
            "images": len(placing.scores),
            "coverage": coverage,
            "threshold": placing.threshold,
            "weight_of_inner_nodes": placing.weight,
        }
        write_bytes(report, (json.dumps(told, indent=2) + "\n").encode())
    if output is None:
        say("nothing was saved: name a file with -o")
    else:
        calibrated.save(output)
        click.echo(output)
    return tell_failures(list(images.failures.values()), len(images), quiet=quiet)


def _told(figures: CalibrationReport) -> str:
    """The figures for a person."""
    lines = [f"{figures.images:,} images of the labels, {_percent(figures.accuracy)} of them right", ""]
    if figures.after is not None:
        before, after = figures.before, figures.after
        lines += [
            "the scores are kept as they are: calibrating them does not surely help"
            if figures.temperature is None
            else f"temperature {figures.temperature:.3f}"
            + (f", bias {figures.bias:.3f}" if figures.bias else ""),
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
