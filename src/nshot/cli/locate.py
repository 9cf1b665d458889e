"""`nshot locate`: images and labels in, boxes out."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from nshot.bounded import read_bytes
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
from nshot.cli.options.talk import echo
from nshot.errors import ImageError, RequestError
from nshot.images.remarks import Remarks
from nshot.labels.prompts import DEFAULT_TEMPLATE, split_labels
from nshot.types import Embedded, Failure, Limits, Located

if TYPE_CHECKING:
    from nshot.images.sources import Source
    from nshot.model import Model
    from nshot.regions.detector import Detector
    from nshot.regions.thresholds import Thresholds


@click.command("locate", cls=Command, short_help="Say where things are in each image.")
@source_arguments
@label_options
@classifier_option
@model_options
@click.option(
    "--method",
    type=click.Choice(["auto", "boxes", "tiles"]),
    default="auto",
    show_default=True,
    help="boxes: by a detector, OWLv2. tiles: by any model of images and texts. auto: as the model can.",
)
@click.option(
    "--like",
    multiple=True,
    metavar="IMAGE",
    help="Find what this image shows, in place of labels; repeat it for several. With a detector only.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    metavar="SCORE",
    help="The score that a box must have.",
)
@click.option(
    "--thresholds",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A threshold per label, as nshot evaluate --boxes learns them.",
)
@click.option(
    "--nms",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="With a detector: of boxes of one label that overlap by more than this, only the best.  "
    "[default: off; 0.3 with --like]",
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
    help="With tiles: what else there may be in the images.  [default: everyday things]",
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
    method: str,
    like: tuple[str, ...],
    threshold: float,
    thresholds: Path | None,
    nms: float | None,
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

    A detector (OWLv2) gives a box around each thing; it takes seconds per image, once: another question to
    the same images takes milliseconds. Any other model does it by tiles: crops at several scales, each
    encoded like an image, and the best one per label. A box is then a whole tile.

    \b
    nshot locate photos/ --labels "person, bicycle" --model owlv2 -o boxes.json
    nshot locate photos/ --like logo.png --model owlv2 --drawn looked/
    nshot locate photos/ --labels "scratch, dent" --method tiles -o boxes.jsonl

    Exit status: 0 all answered, 1 some images failed, 2 the request itself was wrong.
    """
    from nshot.atomic import check_output, make_folder
    from nshot.output.boxes import format_of, open_boxes
    from nshot.regions.thresholds import read_thresholds

    format = format_of(format, output)
    if output is not None:
        check_output(output, [*sources, classifier_file, label_options.labels_file, thresholds])
    if drawn is not None:
        make_folder(drawn)
    learnt = None if thresholds is None else read_thresholds(thresholds)
    settings = _Settings(threshold, learnt, nms, levels, overlap, background, like)
    asked: _Asked
    if _by_detector(method, model_options, classifier_file, like):
        asked = _ask_detector(label_options, model_options, settings, quiet=quiet)
    else:
        asked = _ask_tiles(label_options, classifier_file, model_options, settings, quiet=quiet)
    remarks = Remarks()
    images = listing.open(asked.model, sources, remarks)
    with open_boxes(format, output, labels=asked.labels, resume=resume, request=asked.request) as sink:
        answered = sum(sink.answered.values())
        located = asked.locate(_without(images, dict(sink.answered)))
        if learnt is not None:
            located = learnt.decided(located, asked.labels)
        shown = not (quiet or (output is None and sys.stdout.isatty()))
        drawing = _Drawing(drawn, asked.model.limits, asked.labels)
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
        echo(f"nshot: {answered} images, {answered - sink.failed} answered, {sink.failed} failed", err=True)
    return 1 if sink.failed else 0


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the command's own options say."""

    threshold: float
    thresholds: Thresholds | None
    nms: float | None
    levels: int
    overlap: float
    background: str | None
    like: tuple[str, ...]

    @property
    def least(self) -> float:
        """The least score that any label's box must have; what single labels need is looked at later."""
        return self.threshold if self.thresholds is None else self.thresholds.least(self.threshold)


class _Asked(NamedTuple):
    """A model that was asked something.

    Attributes:
        model: the model.
        labels: all that can be found.
        locate: images in, answers out.
        request: a digest of everything that changes an answer.
    """

    model: Model | Detector
    labels: Sequence[str]
    locate: Callable[[Iterable[Source | Embedded | Failure]], Iterator[Located | Failure]]
    request: str


def _by_detector(
    method: str, model_options: ModelOptions, classifier_file: Path | None, like: Sequence[str]
) -> bool:
    """Whether a detector is asked: --method says so, else the model's own kind."""
    if method != "auto" or classifier_file is not None:
        return method == "boxes"
    if model_options.model is None:
        return bool(like)
    if model_options.model == "owlv2":
        return True
    from nshot.models.checkpoint import find
    from nshot.models.owlv2 import BoxTower

    return isinstance(find(model_options.model, model_options.revision).config.vision, BoxTower)


def _ask_detector(
    label_options: LabelOptions, model_options: ModelOptions, settings: _Settings, *, quiet: bool
) -> _Asked:
    templates = label_options.read_templates() or [DEFAULT_TEMPLATE]
    if settings.like:
        if label_options.any:
            raise RequestError("give labels or --like, not both")
        detector = model_options.load_detector(quiet=quiet)
        examples = {Path(image).stem if len(settings.like) > 1 else "like": image for image in settings.like}
        if len(examples) < len(settings.like):
            raise RequestError("images of --like need different names: they are the labels")
        nms = 0.3 if settings.nms is None else settings.nms
        from nshot.models.digests import file_digest

        digests = [file_digest(Path(image)) for image in settings.like]
        return _Asked(
            detector,
            list(examples),
            lambda images: detector.locate_like(images, examples, threshold=settings.least, nms=nms),
            _request([detector.recipe.digest, list(examples), digests, settings]),
        )
    given = label_options.given(quiet=quiet, alone=True)
    if given is None:
        raise RequestError('give the labels with --labels "person, bicycle" or with --labels-file FILE')
    if label_options.label_vectors is not None:
        raise RequestError("--label-vectors is for tiles: a detector takes words, or images by --like")
    detector = model_options.load_detector(quiet=quiet)
    return _Asked(
        detector,
        list(given.labels),
        lambda images: detector.locate(
            images, given.labels, templates=templates, threshold=settings.least, nms=settings.nms
        ),
        _request([detector.recipe.digest, given.labels, templates, settings]),
    )


def _ask_tiles(
    label_options: LabelOptions,
    classifier_file: Path | None,
    model_options: ModelOptions,
    settings: _Settings,
    *,
    quiet: bool,
) -> _Asked:
    from nshot.cli.asking import check_one_file, from_file, say_language

    if settings.like or settings.nms is not None:
        raise RequestError("--like and --nms are for detectors: add --model owlv2")
    templates = label_options.read_templates() or [DEFAULT_TEMPLATE]
    if classifier_file is not None:
        if label_options.any:
            raise RequestError("give labels or --classifier, not both")
        check_one_file(classifier_file, "tiles are asked of")
        model, classifier = from_file(classifier_file, model_options, quiet=quiet)
    else:
        given = label_options.given(quiet=quiet, alone=True)
        if given is None:
            raise RequestError('give the labels with --labels "scratch, dent" or with --labels-file FILE')
        model = model_options.load(quiet=quiet)
        classifier = label_options.classifier(model, given.labels)
        say_language(given.labels, model, quiet=quiet)
    words = None if settings.background is None else split_labels(settings.background)
    numbers = [each.tobytes() for each in (classifier.matrix, classifier.scale, classifier.bias)]
    return _Asked(
        model,
        classifier.labels,
        lambda images: model.locate(
            images,
            classifier,
            templates=templates,
            background=words,
            levels=settings.levels,
            overlap=settings.overlap,
            threshold=settings.least,
        ),
        _request([model.recipe.digest, classifier.labels, templates, settings], *numbers),
    )


class _Drawing:
    """Draws the boxes of images that are files; of others nothing is left to draw on."""

    def __init__(self, folder: Path | None, limits: Limits, labels: Iterable[str]) -> None:
        from nshot.regions.files import DrawnFolder

        self._folder = None if folder is None else DrawnFolder(folder, "boxes")
        self._limits = limits
        self._labels = tuple(labels)
        self._left_out = 0

    def draw(self, located: Located) -> None:
        """Draw one image, if drawings are wanted."""
        from nshot.images.prepare import load
        from nshot.regions.drawing import draw_boxes, scaled_to

        if self._folder is None:
            return
        try:
            data = read_bytes(located.source, self._limits.max_bytes)
            image = load(data, self._limits, side=2048).image
        except (OSError, ValueError, ImageError):
            self._left_out += 1
            return
        boxes = scaled_to(located.boxes, image.width / located.size[0], image.height / located.size[1])
        self._folder.write(located.source, draw_boxes(image, boxes, self._labels))

    def say(self, *, quiet: bool) -> None:
        """Say of how many images there is no drawing."""
        if self._left_out and not quiet:
            say(f"{self._left_out:,} images are not drawn: they are no files that can be read again")


def _request(asked: Sequence[object], *numbers: bytes) -> str:
    """What must agree between a run and its --resume: everything that changes an answer."""
    said = hashlib.sha256(repr(asked).encode())
    for each in numbers:
        said.update(each)
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
