"""`nshot calibrate`: learn from labelled images when not to believe an answer."""

from __future__ import annotations

from pathlib import Path

import click

from nshot.cli.calibrate.request import Request
from nshot.cli.data import data_options
from nshot.cli.facets import facets_option
from nshot.cli.help import Command
from nshot.cli.kinds import Kind, kind_of
from nshot.cli.options import MULTI, classifier_option, label_options, model_options, packed, talk_options
from nshot.cli.staged import cascade_options
from nshot.cli.tree import tree_option


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
    help='The rule that says "none of these".  [default: background]',
)
@click.option(
    "--wrong",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Of images that show none of the labels, how many may be answered all the same.  [default: 0.05]",
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
    help="The smallest sets of that coverage, or larger ones for harder images.  [default: least]",
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
@packed("request", Request, ())
def command(request: Request) -> int:
    """Learn from labelled images when not to believe an answer.

    DATA is a folder with a folder per label, a table or an export with labels, an archive, vectors, or
    hf://owner/name: images that the classifier has not learnt from. The classifier is a saved one, or
    zero-shot over --labels, --labels-file or the labels of the data. Images of other labels than the
    classifier's count as images of none. With facets, DATA is a table with a column of labels per facet; what
    a facet says itself of its calibration comes before the options here. With a tree, what is learnt is how
    deep to answer, so that answers contain the truth as often as --coverage says (0.9 unless given).

    \b
    nshot calibrate photos-by-class/ -o animals.nshot
    nshot calibrate photos-by-class/ --classifier animals.nshot --none holidays/ --coverage 0.9
    nshot calibrate tags.csv --label-separator ";" --multi -o tags.nshot
    nshot classify new/ --classifier animals.nshot

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    request.check_outputs()
    kind = kind_of(
        tree_file=request.tree_file,
        facets_given=request.facets_given,
        classifier_file=request.classifier_file,
        multi=request.multi,
    )
    request.cascade_options.check(kind, request.classifier_file)
    if kind is Kind.TREE:
        from nshot.cli.calibrate.tree import calibrate
    elif kind is Kind.FACETS:
        from nshot.cli.calibrate.facets import calibrate
    elif kind is Kind.SEVERAL:
        from nshot.cli.calibrate.several import calibrate
    else:
        from nshot.cli.calibrate.one import calibrate
    return calibrate(request)
