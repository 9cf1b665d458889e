"""`nshot fit`: a classifier from a few examples."""

from __future__ import annotations

from pathlib import Path

import click

from nshot.cli.data import data_options
from nshot.cli.facets import facets_option
from nshot.cli.fit.request import METHODS, Request
from nshot.cli.help import Command
from nshot.cli.kinds import Kind, kind_of
from nshot.cli.options import FACET, MULTI, label_options, model_options, packed, talk_options
from nshot.cli.refusing import leave_out
from nshot.cli.tree import tree_option


@click.command("fit", cls=Command, short_help="Make a classifier from a few labelled images.")
@data_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Where the classifier goes, such as banknotes.nshot.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    help="auto: chosen by cross-validation on the images given.  [default: auto]",
)
@click.option("--strength", type=float, metavar="X", help="C of the probe, the pull, or the share.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the cross-validation.")
@click.option(
    "--journal",
    "journal_file",
    type=click.Path(path_type=Path, exists=True),
    metavar="FILE_OR_FOLDER",
    help="Corrections made on the page of nshot serve: DATA are the images, and what was said their labels.",
)
@click.option(
    "--test",
    metavar="DATA",
    help="What the classifier will be measured on: images of it that it learns from are told.",
)
@FACET
@MULTI
@label_options
@facets_option
@tree_option
@model_options
@talk_options
@packed("request", Request, ())
def command(request: Request) -> int:
    """Make a classifier from labelled images, from one to thousands per label.

    DATA is a folder with a folder per label, a table or an export with labels, an archive, vectors, or
    hf://owner/name. Labels of --labels-file without an image answer from their prompts; labels of the data
    that it does not name are known by their images alone. Where examples do not beat the prompts,
    zero-shot is kept, and it says so. With --facets, DATA is a table with a column of labels per facet;
    with --journal as well, a folder of images as ever. With --tree, the labels are the tree's leaves. Images
    that are alike but labelled otherwise are told, and so are those that are in the test data too: --test,
    or the test part of a folder that has one.

    \b
    nshot fit examples/ --labels-file labels.txt -o banknotes.nshot
    nshot fit photos.csv --facets facets.json -o photos.nshot
    nshot fit photos/ --journal photos/ --labels "cat, dog" -o animals.nshot
    nshot fit tags.csv --label-separator ";" --multi -o tags.nshot
    nshot classify new/ --classifier banknotes.nshot

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    request.check_output()
    kind = kind_of(tree_file=request.tree_file, facets_given=request.facets_given, multi=request.multi)
    if request.method == "probe":
        written = request.label_options
        leave_out("a probe learns from images alone", template=written.template, templates=written.templates)
    if request.journal_file is not None:
        from nshot.cli.fit.journal import fit_journal

        return fit_journal(request, kind)
    leave_out("a facet's corrections are in a journal (--journal)", facet=request.facet)
    if kind is not Kind.ONE:
        leave_out("test images are compared with those of one label per image", test=request.test)
    if kind is Kind.TREE:
        from nshot.cli.fit.tree import fit
    elif kind is Kind.FACETS:
        from nshot.cli.fit.facets import fit
    elif kind is Kind.SEVERAL:
        from nshot.cli.fit.several import fit
    else:
        from nshot.cli.fit.one import fit
    return fit(request)
