"""`nshot embed`: images in, vectors out."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from nshot.cli.help import Command
from nshot.cli.options import (
    RAY,
    Listing,
    ModelOptions,
    model_options,
    progress,
    say,
    source_arguments,
    talk_options,
    tell_failure,
    tell_remarks,
)
from nshot.cli.options.talk import echo
from nshot.errors import RequestError
from nshot.images.remarks import Remarks
from nshot.types import Failure

if TYPE_CHECKING:
    from nshot.distributed.plan import Maker, Plan
    from nshot.distributed.run import Request
    from nshot.model import Model


@click.command("embed", cls=Command, short_help="Write images' vectors to a file or a folder.")
@source_arguments
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE_OR_FOLDER",
    help="Where the vectors go: a file .npz or .parquet; or a folder, here or in an object store "
    "(s3://bucket/vectors/), of Parquet files that are made one after the other.",
)
@click.option(
    "--labelled",
    is_flag=True,
    help="Keep labels too: SOURCE is labelled images, as nshot evaluate reads them.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Make only the shards of the Ith of N jobs, such as 3/16.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images in each of its files.  [default: 2000]",
)
@click.option(
    "--half",
    is_flag=True,
    help="Keep vectors as float16, in half the space and with cosines off by up to 0.0003.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Make the shards that hold failures once more.",
)
@click.option(
    "--plan-only",
    is_flag=True,
    help="List the images and write the plan, and make no shard yet.",
)
@RAY
@model_options
@talk_options
def command(
    sources: tuple[str, ...],
    listing: Listing,
    output: str,
    labelled: bool,
    shard: str | None,
    shard_size: int | None,
    half: bool,
    again: bool,
    plan_only: bool,
    ray: str | None,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Write images' vectors, their names and the recipe that made them to a file, or to a folder of files.

    Such a file or folder is a SOURCE for every command that takes images.

    A folder is for many images: it holds a plan (manifest.parquet) and a Parquet file for every 2,000 images.
    Run the same command again after an interruption, or on many machines at once, each with its --shard: what
    is there already is not made again.

    \b
    nshot embed photos/ -o vectors.npz
    nshot classify vectors.npz --labels "cat, dog"
    nshot embed photos-by-class/ --labelled -o examples.npz
    nshot fit examples.npz -o animals.nshot
    nshot embed s3://bucket/photos/ -o vectors/
    nshot embed s3://bucket/photos/ -o vectors/ --shard 3/16
    """
    from nshot.objects import is_object_url, uploaded

    if not _is_folder(output, parted=bool(shard or shard_size or half or again or plan_only or ray)):
        with ExitStack() as until_written:
            local = output
            if is_object_url(output):
                local = str(until_written.enter_context(uploaded(output)))
            written = _to_file(sources, listing, local, labelled, model_options, quiet=quiet, verbose=verbose)
        echo(f"{written.made:,} vectors: {output}")
        return 1 if written.failed else 0
    from nshot.distributed.plan import SHARD
    from nshot.distributed.run import Request

    if ray is not None and shard is not None:
        raise RequestError("--ray shares out all shards by itself: leave out --shard")

    root = None if listing.image_root is None else str(listing.image_root)
    request = Request(
        sources,
        labelled,
        listing.image_column,
        root,
        listing.strict,
        "float16" if half else "float32",
        shard_size or SHARD,
    )
    model, plan = _planned(output, request, model_options, shard=shard, ray=ray, quiet=quiet)
    if plan_only:
        echo(f"{plan.told()}: {plan.folder.name}")
        return 0
    return _shards(plan, model, shard, ray, model_options, again=again, quiet=quiet, verbose=verbose)


def _is_folder(output: str, *, parted: bool) -> bool:
    """Whether the output is a folder of files, by its name or by options that only a folder has."""
    if output.lower().endswith((".npz", ".parquet")) and not Path(output).is_dir():
        if parted:
            raise RequestError(
                f"shards go into a folder, and {output} is a file: name one with -o, such as vectors/"
            )
        return False
    return parted or output.endswith("/") or "://" in output or Path(output).is_dir()


def _planned(
    output: str,
    request: Request,
    options: ModelOptions,
    *,
    shard: str | None,
    ray: str | None,
    quiet: bool,
) -> tuple[Model | Maker, Plan]:
    """The model as it was planned, here or, as far as it can be told of, on a Ray cluster; and the plan."""
    from nshot.distributed.plan import Plan
    from nshot.distributed.run import maker_there, planned
    from nshot.objects import open_folder

    folder = open_folder(output, make=True)
    known = Plan.open(folder)
    if known is not None and options.precision == "auto":
        options = replace(options, precision=known.meta["precision"])
    if known is not None and options.device == "auto" and known.meta["device"] == "cpu":
        options = replace(options, device="cpu")
    if shard is not None and options.store is None:
        options = replace(options, no_store=True)  # the parts are what is kept
    model = options.load(quiet=quiet) if ray is None else maker_there(options.told(), ray)
    remarks = Remarks()
    terminal = sys.stderr.isatty() and not quiet

    def told(count: int) -> None:
        if terminal and count:
            click.echo(f"\r{count:,} images listed", nl=False, err=True)

    plan = planned(output, request, model, remarks=remarks, stdin=sys.stdin.buffer, told=told)
    if terminal and known is None:
        echo("", err=True)
    if known is not None and not quiet:
        listed = f"{plan.images:,} images that were listed when it was made"
        say(f"{folder.name} has a plan already, which is gone on with: {listed}")
    tell_remarks(remarks, quiet=quiet)
    return model, plan


def _shards(
    plan: Plan,
    model: Model | Maker,
    shard: str | None,
    ray: str | None,
    options: ModelOptions,
    *,
    again: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    from nshot.distributed.report import Progress
    from nshot.distributed.run import make_shards
    from nshot.embedder import Embedder

    images = plan.images
    if shard is not None:
        from nshot.distributed.shards import shards_of

        images = round(images * len(shards_of(shard, plan.shards)) / max(plan.shards, 1))
    bar = Progress(images, lambda line: echo(f"nshot: {line}", err=True), shown=not quiet)

    def told(item: object) -> None:
        bar.image(item)  # type: ignore[arg-type]
        if isinstance(item, Failure) and not quiet:
            tell_failure(item)

    try:
        if ray is not None:
            from nshot.distributed.run import share_out

            for summary in share_out(plan, options.told(), ray, again=again):
                bar.shard(summary, counted=False)
        else:
            assert isinstance(model, Embedder)
            for summary in make_shards(plan, model, shard=shard, again=again, told=told):
                bar.shard(summary)
    finally:
        bar.close()
    total = bar.total
    for line in bar.report() if not quiet or verbose else ():
        echo(f"nshot: {line}", err=True)
    if total.failed and ray is not None and not quiet:
        say(f"nshot shards status {plan.folder.name} --failed names them")
    echo(f"{total.rows - total.failed:,} vectors: {plan.folder.name}")
    return 1 if total.failed or total.broken else 0


def _to_file(
    sources: tuple[str, ...],
    listing: Listing,
    output: str,
    labelled: bool,
    model_options: ModelOptions,
    *,
    quiet: bool,
    verbose: bool,
) -> _Written:
    from nshot.atomic import check_output
    from nshot.embeddings import open_writer

    check_output(output, sources)
    embedder = listing.over(model_options, sources).load(quiet=quiet)
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
        echo(f"nshot: {written} images, {written - failed} embedded, {failed} failed", err=True)
    return _Written(written - failed, failed)


class _Written(NamedTuple):
    made: int
    failed: int
