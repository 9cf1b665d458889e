"""`nshot robustness`: how much is lost on images of other kinds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.data import DataOptions, data_options, tell_failures
from nshot.cli.help import Command
from nshot.cli.options import (
    LabelOptions,
    ModelOptions,
    label_options,
    model_options,
    progress,
    say,
    talk_options,
)
from nshot.cli.options.talk import echo
from nshot.cli.prompted import embed_prompted
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.evaluation.robustness import Condition


@click.command(
    "robustness", cls=Command, short_help="Measure on images of other kinds, and on corrupted images."
)
@data_options
@click.option(
    "--other",
    "others",
    multiple=True,
    metavar="DATA",
    help="Images of another kind with the same labels, or some of them; repeatable.",
)
@click.option(
    "--classifier",
    "classifier_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The few-shot column.  [default: fitted on half of DATA]",
)
@click.option(
    "--supervised",
    metavar="MODEL",
    help="A supervised model as a further column, such as microsoft/resnet-50: a probe on its features, "
    "trained on half of DATA. Needs nshot[torch].",
)
@click.option(
    "--corruptions",
    default="all",
    show_default=True,
    metavar="all|none|NAME,...",
    help="Of noise, blur, contrast, brightness, jpeg, pixelation, rotation, occlusion.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="At most so many images are corrupted: each is encoded five times per corruption.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="FOLDER",
    help="Where the report goes.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the halves and the corruptions.")
@label_options
@model_options
@talk_options
def command(
    data_options: DataOptions,
    others: tuple[str, ...],
    classifier_file: Path | None,
    supervised: str | None,
    corruptions: str,
    images: int,
    output: Path,
    seed: int,
    label_options: LabelOptions,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Measure classifiers on images of other kinds, and on corrupted images.

    Columns are CLIP zero-shot, CLIP few-shot, and with --supervised a probe on a supervised model. Half of
    DATA is what the latter two learn from; the other half is the base that all are measured on. Other sets
    are measured on the labels that they share with it. The report is a page (index.html) and every number
    (robustness.json).

    \b
    nshot robustness photos/ --other sketches/ --other paintings/ -o report/

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot.atomic import make_folder
    from nshot.classifier.classifier import Classifier
    from nshot.evaluation import files as evaluation_files
    from nshot.evaluation import robustness_page
    from nshot.evaluation.measuring import measure
    from nshot.evaluation.supervised import Supervised

    families = _families(corruptions)
    make_folder(output)
    few = None if classifier_file is None else Classifier.open(classifier_file)
    prompted = embed_prompted(
        data_options, label_options, model_options, prefer=("test", "val", "train"), quiet=quiet
    )
    model = prompted.model
    if few is not None:
        few.check_space(model.recipe, model.name, name=str(classifier_file))
        if set(few.labels) != set(prompted.zero.labels):
            raise RequestError(f"{classifier_file} has other labels than the data: name them with --labels")
    sets = [data_options.data, *others]
    short = [Path(each).name for each in sets]
    name, *names = short if len(set(short)) == len(sets) else sets
    measured = measure(
        model,
        prompted.labelled,
        prompted.examples,
        prompted.zero,
        few=few,
        supervised=None if supervised is None else Supervised(supervised),
        name=name,
        others={
            each: data_options.open_other(other, model_options, quiet=quiet)
            for each, other in zip(names, others, strict=True)
        },
        families=families,
        most=images,
        seed=seed,
        watch=lambda records: progress(records, shown=not quiet),
    )
    for each, count in () if quiet else measured.left_out.items():
        if count:
            say(f"{each}: {count} images of other labels left out")
    reference = measured.reference
    run = {
        "data": data_options.data,
        "other sets": ", ".join(others) or "none",
        "model": model.name,
        "recipe": model.recipe.digest,
        "few-shot": measured.few_shot if classifier_file is None else str(classifier_file),
        "supervised": supervised or "none",
        "reference of effective robustness": reference,
        "seed": seed,
    }
    content = {"run": run, "conditions": [c.to_dict(reference) for c in measured.conditions]}
    evaluation_files.write_json(output / "robustness.json", content)
    evaluation_files.write_page(
        output / "index.html", robustness_page.write(measured.conditions, run, reference=reference)
    )
    echo(_told(measured.conditions))
    echo(f"\n{output / 'index.html'}")
    return tell_failures(measured.failures, len(prompted.examples), quiet=quiet)


def _families(text: str) -> list[str]:
    from nshot.evaluation.corruptions import FAMILIES

    if text in ("all", "none"):
        return list(FAMILIES) if text == "all" else []
    wanted = [part.strip() for part in text.split(",")]
    if strange := [name for name in wanted if name not in FAMILIES]:
        raise RequestError(f"--corruptions are all, none, or of {', '.join(FAMILIES)}; not {strange[0]!r}")
    return wanted


def _told(conditions: Sequence[Condition]) -> str:
    """A row per condition, a column per classifier; corruptions in the mean over their strengths."""
    names = list(conditions[0].tallies)
    width = max(len(c.name) for c in conditions) + 2
    lines = [" " * width + "".join(f"{name:>{max(len(name), 8) + 3}}" for name in names)]
    for name in dict.fromkeys(c.name for c in conditions):
        group = [c for c in conditions if c.name == name]
        means = [100 * sum(c.tallies[n].accuracy for c in group) / len(group) for n in names]
        cells = [f"{mean:{max(len(n), 8) + 1}.1f} %" for mean, n in zip(means, names, strict=True)]
        lines.append(f"{name:{width}}" + "".join(cells))
    return "\n".join(lines)
