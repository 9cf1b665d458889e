"""`nshot evaluate`: how good is it, on labelled images."""

from __future__ import annotations

from pathlib import Path

import click

from nshot.cli.data import data_options
from nshot.cli.evaluate.request import Request
from nshot.cli.facets import facets_option
from nshot.cli.help import Command
from nshot.cli.kinds import Kind, check_rank, kind_of
from nshot.cli.options import (
    classifier_option,
    decision_options,
    label_options,
    model_options,
    packed,
    talk_options,
)
from nshot.cli.refusing import leave_out
from nshot.cli.staged import cascade_options
from nshot.cli.tree import rank_option, tree_option


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
@packed("request", Request, ())
def command(request: Request) -> int:
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
    request.make_folder()
    if request.boxes is not None:
        return _boxes(request)
    kind = kind_of(
        tree_file=request.tree_file,
        facets_given=request.facets_given,
        classifier_file=request.classifier_file,
        multi=request.decision_options.multi,
    )
    request.cascade_options.check(kind, request.classifier_file)
    check_rank(request.rank, kind)
    if kind is Kind.TREE:
        from nshot.cli.evaluate.tree import evaluate
    elif kind is Kind.FACETS:
        from nshot.cli.evaluate.facets import evaluate
    else:
        from nshot.cli.evaluate.one import evaluate
    return evaluate(request)


def _boxes(request: Request) -> int:
    from nshot.cli.boxes import evaluate

    labels, decision, data = request.label_options, request.decision_options, request.data_options
    assert request.boxes is not None
    leave_out(
        "boxes are measured as they were written, without a model",
        labels=labels.labels,
        labels_file=labels.labels_file,
        label_vectors=labels.label_vectors,
        template=labels.template,
        templates=labels.templates,
        facets=request.facets_given,
        tree=request.tree_file,
        rank=request.rank,
        classifier=request.classifier_file,
        multi=decision.multi,
        coverage=decision.coverage,
        **decision.rules,
        training=request.training,
        compare=request.compare,
        first=request.cascade_options.first,
        agree=request.cascade_options.agree,
        **data.labelled,
    )
    return evaluate(Path(data.data), request.boxes, request.output, request.model_options.limits)
