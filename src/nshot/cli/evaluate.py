"""`nshot evaluate`: how good is it, on labelled images."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

import nshot
from nshot.atomic import make_folder
from nshot.cli.data import DataOptions, check_choice, data_options, embed, tell_failures, told_seen
from nshot.cli.facets import (
    ask_facets,
    check_labels,
    embed_by_facet,
    evaluate_facets,
    facets_option,
    failures_of,
    is_faceted,
    table_of,
)
from nshot.cli.help import Command
from nshot.cli.options import (
    DecisionOptions,
    LabelOptions,
    ModelOptions,
    classifier_option,
    decision_options,
    label_options,
    model_options,
    say,
    talk_options,
)
from nshot.cli.staged import CascadeOptions, cascade_options, say_sent, staged
from nshot.cli.tree import ask_tree, evaluate_with_tree, is_tree, rank_option, tree_option
from nshot.cli.twice import tell_otherwise_labelled, tell_shared
from nshot.errors import OutputError, RequestError
from nshot.labels.prompts import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from nshot.datasets.labelled import LabelledSet
    from nshot.embedder import Embedder
    from nshot.embeddings import Embeddings
    from nshot.evaluation.evaluation import Evaluation, Rival
    from nshot.images.sources import Source
    from nshot.types import Embedded, Failure

_NAMES = {
    "mean_per_class_recall": "mean per-class recall",
    "mean_average_precision": "mean average precision",
    "mean_f1": "mean F1",
}
_MODULES = {"pillow": "PIL"}


@click.command("evaluate", cls=Command, short_help="Say how good the answers are, on labelled images.")
@data_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the report goes."
)
@click.option(
    "--training",
    metavar="DATA",
    help="What was learnt from: images of it that are measured on as well are counted and listed.",
)
@click.option("--compare", metavar="MODEL,MODEL", help="Models to measure side by side; the first leads.")
@click.option(
    "--boxes",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Measure boxes that nshot locate wrote (.json or .jsonl) against DATA, COCO's JSON of true ones.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of resampling and cross-validation.")
@label_options
@facets_option
@tree_option
@rank_option
@classifier_option
@decision_options
@model_options
@cascade_options
@talk_options
def command(
    data_options: DataOptions,
    output: Path | None,
    training: str | None,
    compare: str | None,
    boxes: Path | None,
    seed: int,
    label_options: LabelOptions,
    facets_given: str | None,
    tree_file: Path | None,
    rank: str | None,
    classifier_file: Path | None,
    decision_options: DecisionOptions,
    model_options: ModelOptions,
    cascade_options: CascadeOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Say how good the answers are, on labelled images.

    DATA is a folder with a folder per label, a table or an export with labels, an archive, vectors, or
    hf://owner/name, a data set on the Hub. The labels are those of the data, unless --labels or
    --labels-file say how they are written. The report is one page (index.html), every number
    (report.json), and every image's answer (predictions.parquet or .csv). With facets, DATA is a table with
    a column of labels per facet, and each facet has its figures. With a tree, the figures tell how deep the
    answers go and how often they contain the truth, at each depth and by threshold.

    \b
    nshot evaluate photos-by-class/ -o report/
    nshot evaluate test.csv --image-column path --label-column species
    nshot evaluate photos-by-class/ --classifier animals.nshot
    nshot evaluate annotations.json --boxes boxes.json -o report/
    nshot evaluate hf://frgfm/imagenette --config 320px --split validation \\
        --revision refs/convert/parquet

    Exit status: 0 all answered, 1 some images failed, 2 the request itself was wrong.
    """
    from nshot.classifier.calibrating import seen_before
    from nshot.cli.asking import decided, from_file, say_language, say_synonyms
    from nshot.evaluation.evaluation import compare as side_by_side
    from nshot.evaluation.evaluation import evaluate, prompt_ways

    folder = _made(output, [*data_options.inputs(label_options, training), tree_file])
    if boxes is not None:
        from nshot.cli.boxes import evaluate as evaluate_boxes

        _made(output, [boxes])
        return evaluate_boxes(Path(data_options.data), boxes, folder, model_options.limits)
    alone = decision_options.reject not in (None, "off") or classifier_file is not None
    in_stages = cascade_options.check(alone=(tree_file, facets_given))
    if rank is not None and not is_tree(tree_file, classifier_file):
        raise RequestError("--rank is a level of a tree: give --tree as well")
    if is_tree(tree_file, classifier_file):
        if compare or training is not None or facets_given is not None:
            raise RequestError("a tree is measured by itself: leave out --compare, --training, --facets")
        labelled = data_options.open(model_options, None, quiet=quiet)
        model, placed = ask_tree(
            tree_file,
            classifier_file,
            label_options,
            decision_options,
            data_options.of_model(model_options),
            rank=rank,
            quiet=quiet,
        )
        images = embed(model, labelled, quiet=quiet)
        run = _run(data_options.data, model, model_options, label_options.read_templates(), seed)
        run |= {"tree": str(tree_file or classifier_file), "rank": rank}
        evaluate_with_tree(placed, images, folder, run, quiet=quiet)
        failures = list(images.failures.values())
        return tell_failures(failures, len(images), quiet=quiet, verbose=verbose)
    if is_faceted(facets_given, classifier_file):
        if compare or training is not None:
            raise RequestError(
                "facets are measured on one model and one table: leave out --compare, --training"
            )
        options = data_options.of_model(model_options)
        model, facets = ask_facets(
            facets_given, classifier_file, label_options, decision_options, options, quiet=quiet
        )
        tables = embed_by_facet(model, data_options, facets, quiet=quiet)
        check_labels(facets, tables, quiet=quiet)
        found = evaluate_facets(model, facets, tables, label_options.read_templates(), seed=seed)
        for facet, each in found.items():
            click.echo(f"{facet}: ", nl=False)
            _tell(each, [])
            click.echo()
        if folder is not None:
            run = _run(data_options.data, model, model_options, label_options.read_templates(), seed)
            run |= {"facets": facets_given or str(classifier_file)}
            _report_facets(folder, found, table_of(model, data_options), run, model)
        return failures_of(tables, quiet=quiet)
    given = label_options.given(quiet=quiet, alone=True)
    if in_stages and compare:
        raise RequestError("--compare measures models side by side, and --first one before the other")
    if classifier_file is not None and (given is not None or compare):
        raise RequestError("--classifier brings its labels and its model: give neither labels nor --compare")
    templates = label_options.read_templates()  # rather now than after a download
    labelled = data_options.open(model_options, given, quiet=quiet)
    if labelled.templates and not templates:
        label_options = replace(label_options, template=labelled.templates)
        templates = label_options.read_templates()
        say(f"prompts are the {len(labelled.templates)} templates of {labelled.name}")
    if (known := labelled.classes if given is None else given.labels) is not None:
        check_choice(known, alone=alone or labelled.multi)
    model_options = data_options.of_model(model_options)
    evaluations, models = [], []
    for name in _models(model_options.model, compare):
        options, classifier = replace(model_options, model=name), None
        if classifier_file is not None:
            model, classifier = from_file(classifier_file, options, quiet=quiet)
        else:
            model = options.load(quiet=quiet)
        if in_stages:
            if classifier is None:
                if known is None:
                    raise RequestError("the labels are not known before the images are read: give --labels")
                classifier = label_options.classifier(model, known)
            model, classifier = staged(
                cascade_options, model, classifier, labelled, label_options, options, quiet=quiet
            )
        images = embed(model, labelled, quiet=quiet)
        labels = list(classifier.labels if classifier else images.classes) if given is None else given.labels
        check_choice(labels, alone=alone or images.multi)
        ways = prompt_ways(model, labels, templates)
        if label_options.label_vectors is not None:
            classifier = label_options.classifier(model, labels)
            ways = {label_options.label_vectors.name: classifier} | ways
        if classifier is not None and classifier_file is not None:
            ways = {classifier_file.name: classifier} | ways
            if learnt := seen_before(classifier, images):
                say(f"WARNING: {told_seen(learnt, len(images))}: evaluate on images that it has not seen")
        asked = classifier or label_options.classifier(model, labels)
        if classifier_file is None:
            say_language(labels, model, quiet=quiet)
            say_synonyms(asked, quiet=quiet)
        one = decision_options.reject is not None or decision_options.coverage is not None
        several = images.multi and not one and asked.decision is None
        asked = decided(
            asked, replace(decision_options, multi=decision_options.multi or several), label_options, model
        )
        evaluations.append(evaluate(asked, images, ways, seed=seed))
        models.append(model)
    rivals = side_by_side([model.name for model in models], evaluations, seed=seed)
    leading = evaluations[0]
    _tell(leading, rivals)
    _tell_published(labelled, leading, models[0].name)
    _doubts(leading, folder, quiet=quiet)
    if training is not None:
        part = ("train", "val", "test")
        learnt_from = data_options.open_other(training, model_options, given, prefer=part, quiet=quiet)
        _both(leading, embed(models[0], learnt_from, quiet=quiet), training, folder)
    if folder is not None:
        run = _run(data_options.data, models[0], model_options, templates, seed)
        run |= {"classifier": str(classifier_file), "templates": None} if classifier_file is not None else {}
        if data_options.on_hub:
            run |= {"config": data_options.config, "split": data_options.split}
        _report(folder, labelled, leading, rivals, run, models[0])
    say_sent(models[0], quiet=quiet)
    failures = list(leading.images.failures.values())
    return tell_failures(failures, len(leading.images), quiet=quiet, verbose=verbose)


def _doubts(evaluation: Evaluation, folder: Path | None, *, quiet: bool) -> None:
    """Labels in doubt and images with two labels: counted on the screen, listed in the folder."""
    from nshot.evaluation.doubts import write_copies, write_doubts

    pairs = tell_otherwise_labelled(
        evaluation.images, "" if folder is None else ": see duplicates.csv", quiet=quiet
    )
    if folder is None:
        return
    if evaluation.suspects:
        write_doubts(folder / "doubts.csv", evaluation)
    if pairs:
        write_copies(folder / "duplicates.csv", evaluation.images, pairs)


def _both(evaluation: Evaluation, training: Embeddings, name: str, folder: Path | None) -> None:
    """Images that are in the training data too, on the screen and in the folder."""
    from nshot.evaluation.doubts import write_copies

    pairs = tell_shared(evaluation.images, training, name, "the figures flatter what was learnt from it")
    if folder is not None and pairs:
        write_copies(folder / "in-training.csv", evaluation.images, pairs, training)


def _models(model: str | None, compare: str | None) -> list[str | None]:
    """The models to measure, the leading one first."""
    named = [name.strip() for name in (compare or "").split(",") if name.strip()]
    if model is not None or not named:
        return [model, *(name for name in named if name != model)]
    return [*named]


_WRITTEN = (
    *("index.html", "report.json", "predictions.parquet", "predictions.csv"),
    *("doubts.csv", "duplicates.csv", "in-training.csv"),
)


def _made(output: Path | None, inputs: Sequence[Path | str | None]) -> Path | None:
    """The report's folder, made before any image is read; no file of the report is an input."""
    if output is not None:
        make_folder(output)
        places = {output.resolve(), *((output / name).resolve() for name in _WRITTEN)}
        for given in inputs:
            if given is not None and Path(given).resolve() in places:
                raise OutputError(
                    f"{given} is read by this command, and a report in {output} would be written over it: "
                    "name another folder with -o"
                )
    return output


def _tell_published(labelled: LabelledSet, evaluation: Evaluation, model: str) -> None:
    """The published figure of a published set, with what it is compared to here."""
    from nshot.datasets.clip_benchmark import set_of
    from nshot.models.catalogue import published

    name = set_of(labelled.name) if labelled.templates else None
    if name is None or (known := published(model, name)) is None:
        return
    kind = "mean per-class recall" if known.per_label else "top-1"
    here = evaluation.figures["mean_per_class_recall" if known.per_label else "top_1"]
    say(f"{kind} here {100 * here:.1f} %, published for {model} on {name}: {known.value:.1f} %")


def _tell(evaluation: Evaluation, models: Sequence[Rival]) -> None:
    """The headline, on standard output."""
    figures, (low, high) = evaluation.figures, evaluation.interval
    lone = len(evaluation.classifier.labels) == 1  # every answer is right, by chance as well
    top = f"{_share(figures['top_1'])}   95 % interval {100 * low:.1f} to {100 * high:.1f} %"
    lines = [("top-1", "says nothing of one label" if lone else top)]
    if len(evaluation.classifier.labels) > 5:
        lines.append(("top-5", _share(figures["top_5"])))
    for name in () if lone else ("mean_per_class_recall", "mean_average_precision", "mean_f1"):
        if name in figures:
            lines.append((_NAMES[name], _share(figures[name])))
    if evaluation.shown is None:  # each of several labels has a score of its own, and it promises no share
        lines.append(("calibration error", f"{100 * figures['expected_calibration_error']:.1f} points"))
    if "answered" in figures:
        right = _share(figures["right_of_answered"]).strip()
        of_those = "" if lone else f"   of those right {right}"
        lines.append(("answered", _share(figures["answered"]) + of_those))
    if "set_coverage" in figures:
        size = figures["mean_set_size"]
        lines.append(("sets hold it", f"{_share(figures['set_coverage'])}   {size:.2f} labels in a set"))
    known = () if lone else evaluation.rivals
    lines += [(rival.name, _share(rival.value)) for rival in known if rival.interval is None]
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


def _report_facets(
    folder: Path,
    evaluations: Mapping[str, Evaluation],
    data: Iterable[Source | Embedded | Failure],
    run: dict[str, object],
    embedder: Embedder,
) -> None:
    from nshot.evaluation import facets_page
    from nshot.evaluation import files as evaluation_files
    from nshot.evaluation import page as evaluation_page
    from nshot.images.sources import Source

    run = {name: value for name, value in run.items() if value is not None}
    table = "predictions.parquet" if find_spec("pyarrow") else "predictions.csv"
    evaluation_files.write_facet_predictions(folder / table, evaluations)
    told = {facet: evaluation_files.to_dict(each) for facet, each in evaluations.items()}
    evaluation_files.write_json(folder / "report.json", {"facets": told, "run": run})
    sources = [each for each in data if isinstance(each, Source)]
    thumbs = {
        name: evaluation_page.thumbnails(sources, each, embedder.limits) for name, each in evaluations.items()
    }
    page = facets_page.write(evaluations, run, thumbs=thumbs)
    evaluation_files.write_page(folder / "index.html", page)
    click.echo(f"\n{folder / 'index.html'}")
