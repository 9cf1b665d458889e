"""`nshot locate`: images and labels in, boxes out."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.help import Command
from nshot.cli.options import (
    LabelOptions,
    Listing,
    ModelOptions,
    classifier_option,
    label_options,
    model_options,
    progress,
    say,
    source_arguments,
    talk_options,
    tell_failure,
    tell_remarks,
)
from nshot.errors import ImageError, RequestError
from nshot.images.remarks import Remarks
from nshot.labels.prompts import DEFAULT_TEMPLATE, split_labels
from nshot.types import Embedded, Failure, Located

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.images.sources import Source
    from nshot.model import Model


@click.command("locate", cls=Command, short_help="Say where things are in each image.")
@source_arguments
@label_options
@classifier_option
@model_options
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    metavar="SCORE",
    help="The score that a box must have.",
)
@click.option(
    "--levels",
    type=click.IntRange(1, 8),
    default=3,
    show_default=True,
    metavar="N",
    help="Scales of the tiles: as wide as the image's shorter edge, a half of it, a quarter ...",
)
@click.option(
    "--overlap",
    type=click.FloatRange(0, 0.9),
    default=0.5,
    show_default=True,
    metavar="SHARE",
    help="How much of a tile the next one shares.",
)
@click.option(
    "--background",
    metavar='"A, B"',
    help="What else there may be in the images.  [default: everyday things]",
)
@click.option(
    "--drawn",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also write each image with its boxes drawn on it, into this folder.",
)
@click.option(
    "--format",
    type=click.Choice(["table", "jsonl", "coco", "csv"]),
    help="How boxes are written.  [default: by the name of -o, .json for COCO; else table]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where boxes go.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue an earlier run: images that -o already has an answer for are left out.",
)
@talk_options
def command(
    sources: tuple[str, ...],
    listing: Listing,
    label_options: LabelOptions,
    classifier_file: Path | None,
    model_options: ModelOptions,
    threshold: float,
    levels: int,
    overlap: float,
    background: str | None,
    drawn: Path | None,
    format: str | None,
    output: Path | None,
    resume: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Say where in each image the labels are: boxes in pixels of the upright image.

    Any model of images and texts does it by tiles: crops at several scales, each encoded like an image, and
    the best one per label. A box is then a whole tile.

    \b
    nshot locate photos/ --labels "scratch, dent" -o boxes.json
    nshot locate scans/ --labels "tumour" --background "tissue, glass" --levels 5 --drawn looked/

    Exit status: 0 all answered, 1 some images failed, 2 the request itself was wrong.
    """
    from nshot.atomic import check_output, make_folder
    from nshot.cli.asking import from_file, say_language
    from nshot.output.boxes import format_of, open_boxes

    format = format_of(format, output)
    if output is not None:
        check_output(output, [*sources, classifier_file, label_options.labels_file])
    if drawn is not None:
        make_folder(drawn)
    templates = label_options.read_templates() or [DEFAULT_TEMPLATE]
    if classifier_file is not None:
        if label_options.any:
            raise RequestError("give labels or --classifier, not both")
        model, classifier = from_file(classifier_file, model_options, quiet=quiet)
    else:
        given = label_options.given(quiet=quiet, alone=True)
        if given is None:
            raise RequestError('give the labels with --labels "scratch, dent" or with --labels-file FILE')
        model = model_options.load(quiet=quiet)
        classifier = label_options.classifier(model, given.labels)
        say_language(given.labels, model, quiet=quiet)
    words = None if background is None else split_labels(background)
    remarks = Remarks()
    images = listing.open(model, sources, remarks)
    asked = [model.recipe.digest, classifier.labels, templates, words, threshold, levels, overlap]
    with open_boxes(
        format, output, labels=classifier.labels, resume=resume, request=_request(asked, classifier)
    ) as sink:
        answered = sum(sink.answered.values())
        located = model.locate(
            _without(images, dict(sink.answered)),
            classifier,
            templates=templates,
            background=words,
            levels=levels,
            overlap=overlap,
            threshold=threshold,
        )
        shown = not (quiet or (output is None and sys.stdout.isatty()))
        drawing = _Drawing(drawn, model, classifier.labels)
        for answer in progress(located, shown=shown, sources=sources, skipped=answered):
            sink.write(answer)
            remarks.decoded.add(answer.notes)
            answered += 1
            if isinstance(answer, Failure):
                if shown:
                    tell_failure(answer)
            else:
                drawing.draw(answer)
        if not answered:
            raise RequestError(f"no image in {' '.join(sources)}")
    tell_remarks(remarks, quiet=quiet)
    drawing.say(quiet=quiet)
    if sink.failed or verbose:
        click.echo(
            f"nshot: {answered} images, {answered - sink.failed} answered, {sink.failed} failed", err=True
        )
    return 1 if sink.failed else 0


class _Drawing:
    """Draws the boxes of images that are files; of others nothing is left to draw on."""

    def __init__(self, folder: Path | None, model: Model, labels: Iterable[str]) -> None:
        from nshot.regions.files import DrawnFolder

        self._folder = None if folder is None else DrawnFolder(folder, "boxes")
        self._limits = model.limits
        self._labels = tuple(labels)
        self._left_out = 0

    def draw(self, located: Located) -> None:
        """Draw one image, if drawings are wanted."""
        from nshot.images.prepare import load
        from nshot.regions.drawing import draw_boxes, scaled_to

        if self._folder is None:
            return
        try:
            image = load(Path(located.source).read_bytes(), self._limits, side=2048).image
        except (OSError, ValueError, ImageError):
            self._left_out += 1
            return
        boxes = scaled_to(located.boxes, image.width / located.size[0], image.height / located.size[1])
        self._folder.write(located.source, draw_boxes(image, boxes, self._labels))

    def say(self, *, quiet: bool) -> None:
        """Say of how many images there is no drawing."""
        if self._left_out and not quiet:
            say(f"{self._left_out:,} images are not drawn: they are no files that can be read again")


def _request(asked: Sequence[object], classifier: Classifier) -> str:
    """What must agree between a run and its --resume: everything that changes an answer."""
    said = hashlib.sha256(json.dumps(asked, default=str).encode())
    for numbers in (classifier.matrix, classifier.scale, classifier.bias):
        said.update(numbers.tobytes())
    return said.hexdigest()


def _without(
    images: Iterable[Source | Embedded | Failure], answered: dict[str, int]
) -> Iterator[Source | Embedded | Failure]:
    """The images that an earlier run has not answered; a name listed twice is asked twice."""
    for image in images:
        name = image.source if isinstance(image, (Embedded, Failure)) else image.name
        if answered.get(name, 0) > 0:
            answered[name] -= 1
        else:
            yield image
