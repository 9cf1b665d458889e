"""Several labels per image on the command line: learning from images that show any number of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nshot.cli.data import DataOptions, embed, tell_failures
from nshot.cli.options import DecisionOptions, LabelOptions, ModelOptions
from nshot.cli.options.talk import echo
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.several import SeveralReport
    from nshot.embeddings import Embeddings
    from nshot.model import Model

_SHOWN = 40  # labels in a report on the screen, the most frequent first


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
    from nshot.cli.asking import check_prompts, each_by_itself, say_language, say_synonyms

    given = label_options.given(quiet=quiet, alone=True)
    labelled = data_options.open(model_options, given, prefer=prefer, quiet=quiet)
    options = replace(data_options.of_model(model_options), asked=lambda _: labelled)
    model = options.load(
        quiet=quiet, question=label_options.question(labelled.classes if given is None else given.labels)
    )
    images = embed(model, labelled, quiet=quiet)
    names = given.labels if given is not None else list(images.classes)
    if not names:
        raise RequestError(f"no image of {labelled.name} has a label")
    say_language(names, model, quiet=quiet)
    zero = label_options.classifier(model, names)
    say_synonyms(zero, quiet=quiet)
    check_prompts(zero, None, label_options, replace(words, multi=True))
    return model, each_by_itself(zero, words, label_options, model), images


def tell(classifier: Classifier, images: Embeddings, *, quiet: bool) -> int:
    """Say what was learnt, which labels are decided, and what failed; the exit status that it means."""
    from nshot.cli.asking import say_several

    echo(told(classifier.report))
    if not quiet:
        say_several(classifier)
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
