"""`nshot evaluate`: how good is it, on labelled images."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

import nshot
from nshot.atomic import writing
from nshot.cli.options import (
    DecisionOptions,
    LabelOptions,
    ModelOptions,
    classifier_option,
    decision_options,
    label_options,
    model_options,
    progress,
    say,
    talk_options,
    tell_failure,
)
from nshot.errors import RequestError
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels, lint

if TYPE_CHECKING:
    from nshot.datasets.labelled import LabelledSet
    from nshot.embedder import Embedder
    from nshot.evaluation.evaluation import Evaluation, Rival

_MODULES = {"pillow": "PIL"}


@click.command("evaluate", short_help="Say how good the answers are, on labelled images.")
@click.argument("data", metavar="DATA")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the report goes."
)
@click.option("--image-column", metavar="NAME", help="The column of a table that holds the images.")
@click.option("--label-column", metavar="NAME", help="The column that holds the labels.")
@click.option("--label-separator", metavar="TEXT", help="What separates several labels in one cell.")
@click.option("--domain-column", metavar="NAME", help="A column to break the figures down by.")
@click.option("--domain-folders", is_flag=True, help="The folders are domain/label, not label.")
@click.option("--config", metavar="NAME", help="Configuration of a data set on the Hub.")
@click.option("--split", metavar="NAME", help="Split of a data set on the Hub: train, validation, test ...")
@click.option(
    "--model-revision",
    metavar="R",
    help="Revision of the model, where DATA is on the Hub and --revision is its own.",
)
@click.option("--compare", metavar="MODEL,MODEL", help="Models to measure side by side; the first leads.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of resampling and cross-validation.")
@label_options
@classifier_option
@decision_options
@model_options
@talk_options
def command(
    data: str,
    output: Path | None,
    image_column: str | None,
    label_column: str | None,
    label_separator: str | None,
    domain_column: str | None,
    domain_folders: bool,
    config: str | None,
    split: str | None,
    model_revision: str | None,
    compare: str | None,
    seed: int,
    label_options: LabelOptions,
    classifier_file: Path | None,
    decision_options: DecisionOptions,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Say how good the answers are, on labelled images.

    DATA is a folder with a folder a label, a table (.csv, .tsv, .parquet) with a column of labels, or
    hf://owner/name, a data set on the Hub. The labels are those of the data, unless --labels or
    --labels-file say how they are written. The report is one page (index.html), every number
    (report.json), and every image's answer (predictions.parquet or .csv).

    \b
    nshot evaluate photos-by-class/ -o report/
    nshot evaluate test.csv --image-column path --label-column species
    nshot evaluate photos-by-class/ --classifier animals.nshot
    nshot evaluate hf://frgfm/imagenette --config 320px --split validation \\
        --revision refs/convert/parquet

    Exit status: 0 all answered, 1 some images failed, 2 the request itself was wrong.
    """
    from nshot.classifier.zero_shot import zero_shot
    from nshot.cli.asking import decided, from_file
    from nshot.datasets.labelled import Columns, open_labelled
    from nshot.evaluation.evaluation import collect, evaluate, prompt_ways
    from nshot.evaluation.evaluation import compare as side_by_side

    folder = _made(output)
    given: Labels | None = None
    if label_options.labels is not None or label_options.labels_file is not None:
        given, _ = label_options.read()
        for note in () if quiet else lint(given):
            say(note)
    if classifier_file is not None and (given is not None or compare):
        raise RequestError("--classifier brings its labels and its model: give neither labels nor --compare")
    templates = label_options.read_templates()  # rather now than after a download
    on_hub = data.startswith("hf://")
    names = None if given is None else list(given)
    labelled = open_labelled(
        data,
        columns=Columns(image_column, label_column, domain_column, label_separator, names),
        domain_folders=domain_folders,
        config=config,
        split=split,
        revision=model_options.revision if on_hub else None,
        allow_private=model_options.allow_private,
    )
    if on_hub or model_revision is not None:
        model_options = replace(model_options, revision=model_revision)
    evaluations, embedders = [], []
    for model in _models(model_options.model, compare):
        options, classifier = replace(model_options, model=model), None
        if classifier_file is not None:
            embedder, classifier = from_file(classifier_file, options, quiet=quiet)
        else:
            embedder = options.load(quiet=quiet)
        images = collect(
            labelled,
            lambda sources, of=embedder: progress(of.embed_images(sources), shown=not quiet),  # type: ignore[misc]
        )
        labels = given if given is not None else list(classifier.labels if classifier else images.classes)
        ways = prompt_ways(embedder, labels, templates)
        if classifier is not None and classifier_file is not None:
            ways = {classifier_file.name: classifier} | ways
        asked = classifier or zero_shot(embedder, labels, templates or (DEFAULT_TEMPLATE,))
        asked = decided(asked, decision_options, label_options, embedder)
        evaluations.append(evaluate(images, asked, ways, seed=seed))
        embedders.append(embedder)
    rivals = side_by_side([embedder.name for embedder in embedders], evaluations, seed=seed)
    leading = evaluations[0]
    for note in [] if quiet or given is not None else lint(leading.classifier.labels):
        say(note)
    failures = leading.images.failures
    for failure in () if quiet else failures:
        tell_failure(failure)
    _tell(leading, rivals)
    if folder is not None:
        run = _run(data, embedders[0], model_options, templates, seed)
        run |= {"classifier": str(classifier_file), "templates": None} if classifier_file is not None else {}
        run |= {"config": config, "split": split} if on_hub else {}
        _report(folder, labelled, leading, rivals, run, embedders[0])
    if failures or verbose:
        n = len(leading.images)
        click.echo(f"nshot: {n + len(failures)} images, {n} answered, {len(failures)} failed", err=True)
    return 1 if failures else 0


def _models(model: str | None, compare: str | None) -> list[str | None]:
    """The models to measure, the leading one first."""
    named = [name.strip() for name in (compare or "").split(",") if name.strip()]
    if model is not None or not named:
        return [model, *(name for name in named if name != model)]
    return [*named]


def _made(output: Path | None) -> Path | None:
    """The report's folder, made before any image is read."""
    if output is not None:
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
    return output


def _tell(evaluation: Evaluation, models: Sequence[Rival]) -> None:
    """The headline, on standard output."""
    figures, (low, high) = evaluation.figures, evaluation.interval
    lines = [("top-1", f"{_share(figures['top_1'])}   95 % interval {100 * low:.1f} to {100 * high:.1f} %")]
    if len(evaluation.classifier.labels) > 5:
        lines.append(("top-5", _share(figures["top_5"])))
    for name in ("mean_per_class_recall", "mean_average_precision"):
        if name in figures:
            lines.append((name.replace("_", " ").replace("per class", "per-class"), _share(figures[name])))
    lines.append(("calibration error", f"{100 * figures['expected_calibration_error']:.1f} points"))
    if "answered" in figures:
        right = _share(figures["right_of_answered"]).strip()
        lines.append(("answered", f"{_share(figures['answered'])}   of those right {right}"))
    if "set_coverage" in figures:
        size = figures["mean_set_size"]
        lines.append(("sets hold it", f"{_share(figures['set_coverage'])}   {size:.2f} labels in a set"))
    lines += [(rival.name, _share(rival.value)) for rival in evaluation.rivals if rival.interval is None]
    if evaluation.suspects:
        lines.append(("labels in doubt", f"{len(evaluation.suspects)}"))
    if len(models) > 1:
        lines += [(model.name, _share(model.value)) for model in models]
    width = max(len(name) for name, _ in lines)
    click.echo(f"{len(evaluation.images):,} images, {len(evaluation.classifier.labels):,} labels\n")
    for name, value in lines:
        click.echo(f"{name:{width}}  {value}")


def _share(value: float) -> str:
    return f"{100 * value:5.1f} %"


def _run(
    data: str, embedder: Embedder, options: ModelOptions, templates: Sequence[str], seed: int
) -> dict[str, object]:
    """What was run, with what: enough to run it again."""
    from datetime import datetime

    encoder = embedder.encoder
    installed = ("numpy", "pillow", "openvino", "torch", "transformers")
    versions = [f"nshot {nshot.__version__}", f"Python {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in installed if find_spec(_MODULES.get(name, name))]
    return {
        "data": data,
        "model": embedder.name,
        "revision": embedder.checkpoint.revision,
        "weights (sha256)": embedder.checkpoint.digest,
        "recipe": embedder.recipe.digest,
        "device and precision": f"{encoder.device}, {encoder.precision}",
        "decode and fit": f"{options.decode}, {options.fit}",
        "templates": " | ".join(templates or (DEFAULT_TEMPLATE,)),
        "seed": seed,
        "versions": ", ".join(versions),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _report(
    folder: Path,
    labelled: LabelledSet,
    evaluation: Evaluation,
    models: Sequence[Rival],
    run: dict[str, object],
    embedder: Embedder,
) -> None:
    from nshot.evaluation import files as evaluation_files
    from nshot.evaluation import page as evaluation_page

    run = {name: value for name, value in run.items() if value is not None}
    table = "predictions.parquet" if find_spec("pyarrow") else "predictions.csv"
    evaluation_files.write_predictions(folder / table, evaluation)
    content = evaluation_files.to_dict(evaluation) | {"run": run}
    if len(models) > 1:
        content["models"] = [asdict(model) for model in models]
    evaluation_files.write_json(folder / "report.json", content)
    thumbs = evaluation_page.thumbnails(labelled, evaluation, embedder.limits)
    page = evaluation_page.write(evaluation, run, thumbs=thumbs, models=models)
    evaluation_files.write_page(folder / "index.html", page)
    click.echo(f"\n{folder / 'index.html'}")
