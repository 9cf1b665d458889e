"""`nshot next`: which images to label next."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nshot.cli.asking import check_one_file, from_file
from nshot.cli.help import Command
from nshot.cli.options import (
    Listing,
    ModelOptions,
    model_options,
    progress,
    source_arguments,
    talk_options,
    tell_remarks,
)
from nshot.cli.options.talk import echo, tell_failure
from nshot.errors import RequestError
from nshot.images.remarks import Remarks
from nshot.paths import spelled


@click.command("next", cls=Command, short_help="Say which images to label next.")
@source_arguments
@click.option(
    "--classifier",
    "classifier_file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The classifier to improve.",
)
@click.option(
    "-n", "--count", type=click.IntRange(min=1), default=20, show_default=True, help="How many to name."
)
@click.option(
    "--labelled",
    multiple=True,
    metavar="SOURCE",
    help="Images that have labels already: nothing like them is named again; repeatable.",
)
@click.option(
    "--format",
    type=click.Choice(["paths", "jsonl"]),
    default="paths",
    show_default=True,
    help="paths: one name per line. jsonl: also the label it would get now, and its score.",
)
@model_options
@talk_options
def command(
    sources: tuple[str, ...],
    listing: Listing,
    classifier_file: Path,
    count: int,
    labelled: tuple[str, ...],
    format: str,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Say which images to label next: those the classifier is unsure of, no two alike.

    Names go to standard output, the most useful first. Label them, add them to the examples, and fit again.

    \b
    nshot next unlabeled/ --classifier banknotes.nshot -n 20

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot.few_shot import select

    check_one_file(
        classifier_file, "the images to label next are chosen for what is fitted, on the vectors of"
    )
    embedder, classifier = from_file(classifier_file, listing.over(model_options, sources), quiet=quiet)
    remarks = Remarks()
    images = listing.open(embedder, sources, remarks)
    found = embedder.stored(sources)
    if found is None:
        found = embedder.collect(progress(embedder.embed_images(images), shown=not quiet))
    for failure in () if quiet else found.failures.values():
        tell_failure(failure)
    tell_remarks(remarks, quiet=quiet)
    if not len(found):
        raise RequestError(f"no image in {' '.join(sources)}")
    known = embedder.embed(embedder.sources(labelled)) if labelled else None
    chosen = select(found.vectors, classifier, count, labelled=None if known is None else known.vectors)
    for row in chosen.tolist():
        item = found[row]
        if format == "paths":
            echo(spelled(item.source))
            continue
        scores = classifier.scores(item.vector[None])[0]
        best = int(scores.argmax())
        record = {
            "source": spelled(item.source),
            "label": classifier.labels[best],
            "score": float(scores[best]),
        }
        click.echo(json.dumps(record, ensure_ascii=False))
    return 1 if found.failures else 0
