"""Several labels per image on the command line: learning from images that show any number of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.atomic import write_bytes
from nshot.cli.data import DataOptions, embed, tell_failures, told_seen
from nshot.cli.options import DecisionOptions, LabelOptions, ModelOptions, say
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.several import SeveralReport
    from nshot.embeddings import Embeddings
    from nshot.model import Model

_SHOWN = 40  # labels in a report on the screen, the most frequent first


def is_several(multi: bool, classifier_file: Path | None) -> bool:
    """Whether several labels are asked for: by --multi, or by what a classifier file has learnt."""
    if multi or classifier_file is None or not classifier_file.is_file():
        return multi
    from nshot.classifier import file
    from nshot.classifier.classifier import Classifier

    if file.format_of(classifier_file) != file.FORMAT:
        return False
    return Classifier.open(classifier_file).several is not None


def zero_shot_of(
    data_options: DataOptions,
    label_options: LabelOptions,
    words: DecisionOptions,
    model_options: ModelOptions,
    *,
    prefer: tuple[str, ...],
    quiet: bool,
) -> tuple[Model, Classifier, Embeddings]:
    """The images, embedded, and a classifier of their labels, or of the labels given, with its background."""
    from nshot.cli.asking import each_by_itself, say_language, say_synonyms

    given = label_options.given(quiet=quiet, alone=True)
    labelled = data_options.open(model_options, given, prefer=prefer, quiet=quiet)
    model = data_options.of_model(model_options).load(quiet=quiet)
    images = embed(model, labelled, quiet=quiet)
    names = given.labels if given is not None else list(images.classes)
    if not names:
        raise RequestError(f"no image of {labelled.name} has a label")
    say_language(names, model, quiet=quiet)
    zero = label_options.classifier(model, names)
    say_synonyms(zero, quiet=quiet)
    return model, each_by_itself(zero, words, label_options, model), images


def calibrate_each(
    data_options: DataOptions,
    classifier_file: Path | None,
    label_options: LabelOptions,
    words: DecisionOptions,
    model_options: ModelOptions,
    output: Path | None,
    report: Path | None,
    *,
    seed: int,
    quiet: bool,
) -> int:
    """``nshot calibrate --multi``: a threshold for each label."""
    from nshot.classifier.several import calibrate_several, several_labels
    from nshot.cli.asking import from_file

    prefer = ("val", "test", "train")
    if classifier_file is not None:
        if label_options.any:
            raise RequestError("give labels or --classifier, not both")
        labelled = data_options.open(model_options, None, prefer=prefer, quiet=quiet)
        model, classifier = from_file(classifier_file, data_options.of_model(model_options), quiet=quiet)
        classifier = several_labels(classifier, None)
        images = embed(model, labelled, quiet=quiet)
        from nshot.classifier.calibrating import seen_before

        if learnt := seen_before(classifier, images):
            say(f"WARNING: {told_seen(learnt, len(images))}: calibrate on images that it has not seen")
    else:
        model, classifier, images = zero_shot_of(
            data_options, label_options, words, model_options, prefer=prefer, quiet=quiet
        )
    if (strange := sorted(set(images.classes) - set(classifier.labels))) and not quiet:
        say(f"left out, for the classifier does not have them: {', '.join(strange)}")
    calibrated = calibrate_several(classifier, images, seed=seed)
    return _ended(calibrated, images, output or classifier_file, report, quiet=quiet)


def fit_each(
    data_options: DataOptions,
    label_options: LabelOptions,
    model_options: ModelOptions,
    output: Path,
    *,
    seed: int,
    quiet: bool,
) -> int:
    """``nshot fit --multi``: a classifier from images that show any number of labels."""
    from nshot.few_shot.examples import fit

    words = DecisionOptions(None, None, None, None, None)
    _, zero, images = zero_shot_of(
        data_options, label_options, words, model_options, prefer=("train", "val", "test"), quiet=quiet
    )
    fitted = fit(images, zero, multi=True, seed=seed)
    return _ended(fitted, images, output, None, quiet=quiet)


def _ended(
    classifier: Classifier, images: Embeddings, output: Path | None, report: Path | None, *, quiet: bool
) -> int:
    from nshot.cli.asking import say_several

    click.echo(told(classifier.report))
    if not quiet:
        say_several(classifier)
    if report is not None:
        content = json.dumps(classifier.report.to_dict(), indent=2, ensure_ascii=False)
        write_bytes(report, (content + "\n").encode())
    if output is None:
        say("nothing was saved: name a file with -o")
    else:
        classifier.save(output)
        click.echo(f"\n{output}")
    return tell_failures(list(images.failures.values()), len(images), quiet=quiet)


def told(report: SeveralReport) -> str:
    """The figures for a person: held-out F1 of each label with its interval, the most frequent first."""
    figures = report.per_label
    lines = [f"{report.images:,} images, {len(report.labels):,} labels"]
    if report.losses:
        lines.append("kept: zero-shot" if report.pull is None else f"chosen: pull {report.pull:g}")
    lines += [
        f"mean average precision {100 * report.mean_average_precision:.1f} %, "
        f"mean F1 {100 * report.mean_f1:.1f} % (held out)",
        "",
    ]
    order = sorted(range(len(report.labels)), key=lambda k: -int(figures.support[k]))
    width = max(len(label) for label in report.labels)
    lines.append(f"{'label':{width}}  images  threshold      F1   95 % interval")
    for k in order[:_SHOWN]:
        low, high = 100 * figures.f1_interval[k]
        line = f"{report.labels[k]:{width}}  {figures.support[k]:6,}"
        if not figures.support[k]:
            lines.append(f"{line}  no image")
            continue
        threshold = f"{report.score_thresholds[k]:9.3f}" if report.thresholds.decided[k] else "   ranked"
        lines.append(f"{line}  {threshold}  {100 * figures.f1[k]:5.1f} %  {low:.1f} to {high:.1f} %")
    if len(order) > _SHOWN:
        lines.append(f"... and {len(order) - _SHOWN} more")
    return "\n".join(lines)
