"""`nshot classify`: images and labels in, answers out."""

from __future__ import annotations

from pathlib import Path

import click

from nshot.cli.classify.request import Request
from nshot.cli.facets import facets_option
from nshot.cli.folders import is_folder_of_answers
from nshot.cli.help import Command
from nshot.cli.kinds import check_rank, kind_of
from nshot.cli.options import (
    RAY,
    classifier_option,
    decision_options,
    journal_options,
    label_options,
    model_options,
    output_options,
    packed,
    source_arguments,
    talk_options,
)
from nshot.cli.staged import cascade_options
from nshot.cli.tree import rank_option, tree_option
from nshot.errors import RequestError


@click.command("classify", cls=Command, short_help="Say which label fits each image.")
@source_arguments
@label_options
@classifier_option
@facets_option
@tree_option
@rank_option
@decision_options
@model_options
@cascade_options
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    metavar="K",
    help="How many labels to show per image.  [default: 1 in a table, else 5]",
)
@click.option(
    "--adapt",
    is_flag=True,
    help="Adapt the labels to the images themselves, where there are enough; all are embedded first.",
)
@click.option(
    "--keep-columns",
    is_flag=True,
    help="Keep the other columns of a table, such as ids and true labels, beside the answers.",
)
@click.option(
    "--heatmaps",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also write each image with the evidence for its label laid over it, into this folder.",
)
@journal_options
@RAY
@output_options
@talk_options
@packed("request", Request, ())
def command(request: Request) -> int:
    """Say which label fits each image.

    SOURCE is a file, a folder, a glob, an archive, a table (.csv, .parquet), a file of vectors, a URL,
    or - for a list on standard input. Answers go to standard output or -o, everything else to stderr.

    \b
    nshot classify photos/ --labels "cat, dog, hot dog"
    nshot classify photos/ --labels-file labels.txt --format jsonl -o out.jsonl
    nshot classify photos/ --labels "cat, dog" --reject background
    nshot classify photos/ --classifier animals.nshot --coverage 0.9
    nshot classify photos/ --facets facets.json
    nshot classify photos/ --tree animals.json
    nshot classify photos/ --tree taxa.csv --rank genus
    nshot classify vectors/ --labels-file labels.txt -o answers/
    nshot classify photos/ --labels "cat, dog" --heatmaps evidence/
    nshot classify photos/ --labels-file tags.txt --multi

    Exit status: 0 all answered, 1 some images failed, 2 the request itself was wrong.
    """
    kind = kind_of(
        tree_file=request.tree_file,
        facets_given=request.facets_given,
        classifier_file=request.classifier_file,
        multi=request.decision_options.multi,
    )
    request.cascade_options.check(kind, request.classifier_file)
    request.journal_options.check()
    check_rank(request.rank, kind)
    if is_folder_of_answers(request.sources, request.output, request.format):
        from nshot.cli.classify.folder import classify
    else:
        if request.ray is not None:
            raise RequestError(
                "--ray asks a folder of vectors into a folder: nshot classify vectors/ -o answers/"
            )
        from nshot.cli.classify.images import classify
    return classify(request, kind)
