"""What ``nshot evaluate`` says on standard output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nshot.cli.options import say
from nshot.cli.options.talk import echo

if TYPE_CHECKING:
    from nshot.datasets.labelled import LabelledSet
    from nshot.evaluation.evaluation import Evaluation, Rival
    from nshot.evaluation.placed import PlacedEvaluation

_NAMES = {
    "mean_per_class_recall": "mean per-class recall",
    "mean_average_precision": "mean average precision",
    "mean_f1": "mean F1",
}


def tell(evaluation: Evaluation, models: Sequence[Rival] = ()) -> None:
    """The headline, on standard output."""
    figures, (low, high) = evaluation.figures, evaluation.interval
    lone = len(evaluation.classifier.labels) == 1  # every answer is right, by chance as well
    top = f"{share(figures['top_1'])}   95 % interval {100 * low:.1f} to {100 * high:.1f} %"
    lines = [("top-1", "says nothing of one label" if lone else top)]
    if len(evaluation.classifier.labels) > 5:
        lines.append(("top-5", share(figures["top_5"])))
    for name in () if lone else ("mean_per_class_recall", "mean_average_precision", "mean_f1"):
        if name in figures:
            lines.append((_NAMES[name], share(figures[name])))
    if evaluation.shown is None:  # each of several labels has a score of its own, and it promises no share
        lines.append(("calibration error", f"{100 * figures['expected_calibration_error']:.1f} points"))
    if "answered" in figures:
        right = share(figures["right_of_answered"]).strip()
        of_those = "" if lone else f"   of those right {right}"
        lines.append(("answered", share(figures["answered"]) + of_those))
    if "set_coverage" in figures:
        size = figures["mean_set_size"]
        lines.append(("sets hold it", f"{share(figures['set_coverage'])}   {size:.2f} labels in a set"))
    known = () if lone else evaluation.rivals
    lines += [(rival.name, share(rival.value)) for rival in known if rival.interval is None]
    if evaluation.suspects:
        lines.append(("labels in doubt", f"{len(evaluation.suspects)}"))
    if len(models) > 1:
        lines += [(model.name, share(model.value)) for model in models]
    width = max(len(name) for name, _ in lines)
    echo(f"{len(evaluation.images):,} images, {len(evaluation.classifier.labels):,} labels\n")
    for name, value in lines:
        echo(f"{name:{width}}  {value}")


def tell_published(labelled: LabelledSet, evaluation: Evaluation, model: str) -> None:
    """The published figure of a published set, with what it is compared to here."""
    from nshot.datasets.clip_benchmark import set_of
    from nshot.models.catalogue import published

    name = set_of(labelled.name) if labelled.templates else None
    if name is None or (known := published(model, name)) is None:
        return
    kind = "mean per-class recall" if known.per_label else "top-1"
    here = evaluation.figures["mean_per_class_recall" if known.per_label else "top_1"]
    say(f"{kind} here {100 * here:.1f} %, published for {model} on {name}: {known.value:.1f} %")


def tell_placed(found: PlacedEvaluation) -> None:
    """The headline of a tree, and a row per depth."""
    f, (low, high) = found.figures, found.interval
    echo(f"{len(found.images):,} images, a tree of {len(found.asked.tree.leaves):,} leaves\n")
    for name, told in (
        (
            "contain the truth",
            f"{share(f['covered'])}   95 % interval {100 * low:.1f} to {100 * high:.1f} %",
        ),
        ("mean depth", f"{f['depth']:7.2f}   of {found.asked.tree.depth}"),
        ("own label itself", share(f["exact"])),
        ("mean distance", f"{f['distance']:7.2f}   edges from the answer to the own label"),
        ("best leaf", f"{share(f['leaf_right'])}   mean distance {f['leaf_distance']:.2f}"),
    ):
        echo(f"{name:18} {told}")
    echo("\ndepth   images   right at it   answers   of these right")
    for level in found.levels:
        of_those = "" if not level.answers else f"{share(level.right_of_answers):>17}"
        right = share(level.right) if level.images else ""
        echo(f"{level.depth:5} {level.images:8,} {right:>13} {level.answers:9,}{of_those}".rstrip())


def share(value: float) -> str:
    """A share as a person reads it, in a column."""
    return f"{100 * value:5.1f} %"
