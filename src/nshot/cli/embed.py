"""`nshot embed`: images in, vectors out."""

from __future__ import annotations

from pathlib import Path

import click

from nshot.cli.help import Command
from nshot.cli.options import (
    Listing,
    ModelOptions,
    model_options,
    progress,
    source_arguments,
    talk_options,
    tell_failure,
    tell_remarks,
)
from nshot.errors import RequestError
from nshot.images.remarks import Remarks
from nshot.types import Failure


@click.command("embed", cls=Command, short_help="Write images' vectors to a file.")
@source_arguments
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Where the vectors go: .npz or .parquet.",
)
@click.option(
    "--labelled",
    is_flag=True,
    help="Keep labels too: SOURCE is labelled images, as nshot evaluate reads them.",
)
@model_options
@talk_options
def command(
    sources: tuple[str, ...],
    listing: Listing,
    output: Path,
    labelled: bool,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Write images' vectors, their names and the recipe that made them to a file.

    Such a file is a SOURCE for every command that takes images.

    \b
    nshot embed photos/ -o vectors.npz
    nshot classify vectors.npz --labels "cat, dog"
    nshot embed photos-by-class/ --labelled -o examples.npz
    nshot fit examples.npz -o animals.nshot
    """
    from nshot.atomic import check_output
    from nshot.embeddings import open_writer

    check_output(output, sources)
    embedder = model_options.load(quiet=quiet)
    remarks = Remarks()
    images = listing.labelled(sources, remarks) if labelled else listing.open(embedder, sources, remarks)
    written = failed = 0
    with open_writer(output, recipe=embedder.recipe, model=embedder.name) as writer:
        embedded = remarks.noting(embedder.embed_images(images))
        for item in progress(embedded, shown=not quiet, sources=sources):
            writer.write(item)
            written += 1
            if isinstance(item, Failure):
                failed += 1
                if not quiet:
                    tell_failure(item)
        if not written:
            raise RequestError(f"no image in {' '.join(sources)}")
    tell_remarks(remarks, quiet=quiet)
    if failed or verbose:
        click.echo(f"nshot: {written} images, {written - failed} embedded, {failed} failed", err=True)
    click.echo(f"{written - failed:,} vectors: {output}")
    return 1 if failed else 0
