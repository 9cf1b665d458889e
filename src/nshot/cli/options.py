"""Options that several commands share, and what they turn into."""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nshot.errors import NshotError, RequestError
from nshot.images.remarks import Remarks
from nshot.labels.files import LabelFile, read_label_file, read_labels
from nshot.labels.lint import check
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels, read_templates, split_labels
from nshot.paths import as_url, spelled
from nshot.types import Embedded, Failure, Limits

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.embedder import Embedder
    from nshot.images.sources import Source
    from nshot.model import Model
    from nshot.regions.detector import Detector
    from nshot.server.session import Word

T = TypeVar("T")
Command = Callable[..., Any]


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_LEAST_MEMORY = 50 * 10**6


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Bytes as a person writes them: 500MB, 1.5GB, 2G; too few to decode anything with are refused."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([KMGT]?)B?", value.strip().upper())
    size = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < _LEAST_MEMORY:
        raise click.BadParameter(
            f"{value!r} is not a size of 50MB or more, such as 500MB or 2GB.", ctx=ctx, param=param
        )
    return size


@dataclass(frozen=True, slots=True)
class JournalOptions:
    """What ``--journal`` and its companions say."""

    journal_file: Path | None
    corrected: bool
    facet: str | None

    def check(self) -> None:
        """Refuse its companions without it.

        Raises:
            RequestError: ``--corrected`` or ``--facet`` alone.
        """
        for given, name in ((self.corrected, "--corrected"), (self.facet, "--facet")):
            if given and self.journal_file is None:
                raise RequestError(f"{name} needs --journal")

    def words(self) -> Mapping[str, Word] | None:
        """What was said: digest of the image's content -> the word on it; None without a journal."""
        if self.journal_file is None:
            return None
        from nshot.server.session import LABELS, read_words

        return read_words(self.journal_file).of(self.facet or LABELS).said


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What ``--model`` and its companions say."""

    model: str | None
    revision: str | None
    device: Any
    precision: Any
    decode: Any
    fit: Any
    batch_size: int | None
    workers: int | None
    store: Path | None
    no_store: bool
    memory: int | None
    timeout: float | None
    allow_private: bool

    @property
    def limits(self) -> Limits:
        """What one image and the whole run may take, and where from."""
        usual = Limits()
        return Limits(
            memory=self.memory or usual.memory,
            timeout=self.timeout or usual.timeout,
            allow_private=self.allow_private,
        )

    def told(self) -> dict[str, Any]:
        """What a worker on another machine gives to ``nshot.load``: all but the store."""
        from nshot.models.checkpoint import DEFAULT_MODEL

        model = self.model or DEFAULT_MODEL
        return {
            "model": str(Path(model).resolve()) if Path(model).is_dir() and "/" in model else model,
            "revision": self.revision,
            "device": self.device,
            "precision": self.precision,
            "decode": self.decode,
            "fit": self.fit,
            "batch_size": self.batch_size,
            "workers": self.workers,
            "limits": self.limits,
        }

    def load(self, *, quiet: bool = False, as_first: bool = False) -> Model:
        """The model, loaded; ``as_first``: to stand first in a cascade."""
        from nshot.model import load
        from nshot.models.catalogue import entry
        from nshot.models.checkpoint import DEFAULT_MODEL

        if self.store is not None and self.no_store:
            raise click.UsageError("--store and --no-store exclude each other.")
        model = load(
            self.model or DEFAULT_MODEL,
            revision=self.revision,
            device=self.device,
            precision=self.precision,
            decode=self.decode,
            fit=self.fit,
            batch_size=self.batch_size,
            workers=self.workers,
            store=False if self.no_store else self.store or True,
            limits=self.limits,
            progress=not quiet,
            as_first=as_first,
        )
        if not quiet and (known := entry(model.name)) is not None and known.restricted:
            say(f"the licence of {model.name} is {known.licence}")
        return model

    def load_detector(self, *, quiet: bool = False) -> Detector:
        """The same as a detector: OWLv2 if no model is named."""
        from nshot.regions.detector import DEFAULT_DETECTOR, load_detector

        if self.store is not None and self.no_store:
            raise click.UsageError("--store and --no-store exclude each other.")
        return load_detector(
            self.model or DEFAULT_DETECTOR,
            revision=self.revision,
            device=self.device,
            precision=self.precision,
            workers=self.workers,
            store=False if self.no_store else self.store or True,
            limits=self.limits,
            progress=not quiet,
        )


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """What ``--labels`` and its companions say."""

    labels: str | None
    labels_file: Path | None
    label_vectors: Path | None
    template: tuple[str, ...]
    templates: Path | None

    @property
    def any(self) -> bool:
        """Whether labels were named, in whatever way."""
        return any(way is not None for way in (self.labels, self.labels_file, self.label_vectors))

    def read(self) -> tuple[Labels, list[str]]:
        """The labels, and the templates they are written into.

        Raises:
            RequestError: none or two of a kind given, or a file that cannot be read.
        """
        if (self.labels is None) == (self.labels_file is None):
            raise RequestError(
                'give the labels with --labels "cat, dog" or with --labels-file FILE, one of the two'
            )
        given = self.given()
        assert given is not None
        return given.labels, self.read_templates() or [DEFAULT_TEMPLATE]

    def classifier(self, model: Model, labels: Labels) -> Classifier:
        """The labels as a classifier: out of their prompts, or out of --label-vectors.

        Raises:
            RequestError: labels or templates that cannot be used, or vectors of another model.
        """
        if self.label_vectors is not None:
            from nshot.classifier.label_vectors import from_label_vectors

            return from_label_vectors(self.label_vectors, model, dimension=model.dimension)
        from nshot.classifier.zero_shot import zero_shot

        return zero_shot(model, labels, self.read_templates() or [DEFAULT_TEMPLATE])

    def given(self, *, quiet: bool = True, alone: bool = False) -> LabelFile | None:
        """The labels that were named, checked, or None; what a person should know about them is said.

        Args:
            quiet: say nothing.
            alone: one label is a sound question, since there is a rule that rejects images.

        Raises:
            RequestError: named in both ways, a file that cannot be read, or labels that nobody can mean.
        """
        ways = [way for way in (self.labels, self.labels_file, self.label_vectors) if way is not None]
        if not ways:
            return None
        if len(ways) > 1:
            raise RequestError(
                "give the labels with --labels, --labels-file or --label-vectors, one of the three"
            )
        if self.label_vectors is not None:
            from nshot.classifier.label_vectors import labels_of

            return LabelFile(labels_of(self.label_vectors))
        if self.labels is not None:
            found, source = LabelFile(split_labels(self.labels)), "--labels"
        else:
            found, source = read_label_file(self.labels_file or ""), str(self.labels_file)
        typed = self.labels is not None
        # of their language the model has to be asked, see say_language
        notes = check(found.labels, source=source, typed=typed, alone=alone, multilingual=True)
        for note in () if quiet else (*found.notes, *notes):
            say(note)
        return found

    def read_templates(self) -> list[str]:
        """The templates that were given, if any.

        Raises:
            RequestError: given in two ways, or a file that cannot be read.
        """
        if self.template and self.templates is not None:
            raise RequestError("give templates with --template or with --templates FILE, not with both")
        return list(self.template) if self.templates is None else read_templates(self.templates)


@dataclass(frozen=True, slots=True)
class Listing:
    """How SOURCE is listed."""

    image_column: str | None
    image_root: Path | None
    strict: bool

    def open(
        self, model: Embedder, sources: Sequence[str], remarks: Remarks, *, keep_columns: bool = False
    ) -> Iterator[Source | Embedded | Failure]:
        """What the sources name, checked now and listed later; ``remarks`` says what was passed over."""
        return model.sources(
            sources,
            stdin=sys.stdin.buffer,
            image_column=self.image_column,
            image_root=self.image_root,
            strict=self.strict,
            keep_columns=keep_columns,
            remarks=remarks,
        )

    def labelled(self, sources: Sequence[str], remarks: Remarks) -> Iterator[Source]:
        """The images of labelled data, with their labels."""
        from nshot.datasets.labelled import Columns, open_labelled

        for source in sources:
            data = open_labelled(
                source, columns=Columns(self.image_column), image_root=self.image_root, strict=self.strict
            )
            yield from data
            for line in (*data.remarks.news(), *data.remarks.counts()):
                remarks.note(line)


def tell_remarks(remarks: Remarks, *, quiet: bool) -> None:
    """How the data was read, and what was passed over, on stderr; each thing once."""
    for line in () if quiet else (*remarks.news(), *remarks.counts()):
        say(line)


@dataclass(frozen=True, slots=True)
class DecisionOptions:
    """What ``--coverage``, ``--reject`` and their companions say."""

    coverage: float | None
    reject: Any
    threshold: float | None
    background: str | None
    background_file: Path | None
    multi: bool = False

    def words(self) -> Labels:
        """The background labels: those given, or everyday ones.

        Raises:
            RequestError: given twice, or a file that cannot be read.
        """
        from nshot.decision import EVERYDAY

        if self.background is not None and self.background_file is not None:
            raise RequestError(
                "give the background with --background or with --background-file, not with both"
            )
        if self.background_file is not None:
            return read_labels(self.background_file)
        return EVERYDAY if self.background is None else split_labels(self.background)


_MODEL = (
    click.option(
        "--model",
        metavar="ID_OR_FOLDER",
        help="A model on the Hugging Face Hub, or a folder.  [default: openai/clip-vit-base-patch32]",
    ),
    click.option("--revision", metavar="R", help="Branch, tag or commit on the Hub."),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "f32", "bf16", "f32-small", "int8"]),
        default="auto",
        show_default=True,
        metavar="KIND",
        help="f32, bf16, f32-small, int8 or auto. auto: bf16 where the processor has it, else f32. "
        "f32-small: weights in 8 bits, computing in f32, for machines with little memory. int8: what "
        "nshot quantise made.",
    ),
    click.option(
        "--decode",
        type=click.Choice(["exact", "fast"]),
        default="exact",
        show_default=True,
        help="fast: decode large JPEGs at a reduced size.",
    ),
    click.option(
        "--fit",
        type=click.Choice(["own", "crop", "pad", "squash"]),
        default="own",
        show_default=True,
        help="How an image becomes square. own: as the model was trained. crop: its centre. pad: all of it, "
        "with borders. squash: all, out of proportion.",
    ),
    click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Images encoded at once."),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads that decode.  [default: one per core]",
    ),
    click.option(
        "--store",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Where vectors are kept, so that no image is encoded twice.  [default: in the cache folder]",
    ),
    click.option("--no-store", is_flag=True, help="Keep no vectors."),
    click.option(
        "--memory",
        callback=_size,
        metavar="SIZE",
        help="Memory for reading and decoding, over what the model takes, such as 2GB.  [default: 900MB]",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="The most time that decoding one image may take.  [default: 10]",
    ),
    click.option("--allow-private", is_flag=True, help="Let URLs point into private networks."),
)

_LABELS = (
    click.option("--labels", metavar='"A, B"', help="The labels, in plain words, separated by commas."),
    click.option(
        "--labels-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A label per line, JSON {label: [synonyms or whole prompts]}, or a file of another tool.",
    ),
    click.option(
        "--label-vectors",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Vectors of the labels from elsewhere (.npz, .parquet), in the place of prompts.",
    ),
    click.option(
        "--template",
        multiple=True,
        metavar="T",
        help="The prompt, {} where the label goes; repeat it to average several.  "
        f"[default: {DEFAULT_TEMPLATE}]",
    ),
    click.option(
        "--templates", type=click.Path(path_type=Path), metavar="FILE", help="Templates, one per line."
    ),
)

_CLASSIFIER = click.option(
    "--classifier",
    "classifier_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A classifier that nshot saved, instead of labels.",
)

MULTI = click.option(
    "--multi",
    is_flag=True,
    help="An image may show any number of the labels; each is decided by itself.",
)

_DECISION = (
    MULTI,
    click.option(
        "--coverage",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="SHARE",
        help="Answer with sets of labels that hold the right one this often, such as 0.9; needs a classifier "
        "that nshot calibrate has seen.",
    ),
    click.option(
        "--reject",
        type=click.Choice(["background", "cosine", "margin", "energy", "off"]),
        help='The rule that says "none of these". background needs no threshold; off answers always.',
    ),
    click.option(
        "--threshold",
        type=float,
        metavar="T",
        help="The threshold of that rule: an image below it shows none of the labels. With --multi: the "
        "score from which a label is shown, 0.05 unless it was learnt.",
    ),
    click.option(
        "--background",
        metavar='"A, B"',
        help="What else there may be in the images, for the background rule.  [default: everyday things]",
    ),
    click.option(
        "--background-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The same from a file, one per line.",
    ),
)

RAY = click.option(
    "--ray",
    metavar="ADDRESS",
    help="Let the nodes of a Ray cluster do it. auto: the cluster that this machine is part of; "
    "ray://head:10001 or host:port: another; local: one of this machine's own.",
)
IMAGE_COLUMN = click.option(
    "--image-column", metavar="NAME", help="The column of a table that holds the images."
)
IMAGE_ROOT = click.option(
    "--image-root",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="The folder that names of images in a table are relative to.  [default: the table's own]",
)
STRICT = click.option(
    "--strict",
    is_flag=True,
    help="Files in folders that are no images (sidecars, videos ...) are failures, not skipped.",
)

_SOURCES = (IMAGE_COLUMN, IMAGE_ROOT, STRICT)

_OUTPUT = (
    click.option(
        "--format",
        type=click.Choice(["table", "jsonl", "json", "csv", "tsv", "parquet", "coco", "labelstudio"]),
        help="How answers are written.  [default: by the name of -o, else table]",
    ),
    click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where answers go."),
    click.option(
        "--resume",
        is_flag=True,
        help="Continue an earlier run: images that -o already has an answer for are left out.",
    ),
)

FACET = click.option(
    "--facet", metavar="NAME", help="With --journal: the corrections of this facet, where several were asked."
)

_JOURNAL = (
    click.option(
        "--journal",
        "journal_file",
        type=click.Path(path_type=Path, exists=True),
        metavar="FILE_OR_FOLDER",
        help="Corrections made on the page of nshot serve: what a person said counts before the model.",
    ),
    click.option("--corrected", is_flag=True, help="With --journal: only what somebody has spoken about."),
    FACET,
)

_TALK = (
    click.option("-q", "--quiet", is_flag=True, help="Say nothing on stderr but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Say more on stderr."),
)


def model_options(command: Command) -> Command:
    """Add the model's options; the command gets them as ``model_options: ModelOptions``."""
    return packed("model_options", ModelOptions, _MODEL)(command)


def label_options(command: Command) -> Command:
    """Add the labels' options; the command gets them as ``label_options: LabelOptions``."""
    return packed("label_options", LabelOptions, _LABELS)(command)


def classifier_option(command: Command) -> Command:
    """Add --classifier; the command gets ``classifier_file``."""
    return _decorated(command, (_CLASSIFIER,))


def decision_options(command: Command) -> Command:
    """Add --coverage, --reject and more; the command gets them as ``decision_options: DecisionOptions``."""
    return packed("decision_options", DecisionOptions, _DECISION)(command)


def talk_options(command: Command) -> Command:
    """Add -q and -v; the command gets ``quiet`` and ``verbose``, and logging is set up by then."""

    @functools.wraps(command)
    def wrapped(*args: Any, quiet: bool, verbose: bool, **others: Any) -> Any:
        _set_up_logging(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
        return command(*args, quiet=quiet, verbose=verbose, **others)

    return _decorated(wrapped, _TALK)


def journal_options(command: Command) -> Command:
    """Add --journal, --corrected and --facet; the command gets ``journal_options: JournalOptions``."""
    return packed("journal_options", JournalOptions, _JOURNAL)(command)


def source_arguments(command: Command) -> Command:
    """Add SOURCE... and how it is listed; the command gets ``sources`` and ``listing: Listing``."""
    argument = click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
    return argument(packed("listing", Listing, _SOURCES)(command))


def listing_options(command: Command) -> Command:
    """Add how images are listed, to a command with arguments of its own; it gets ``listing: Listing``."""
    return packed("listing", Listing, _SOURCES)(command)


def output_options(command: Command) -> Command:
    """Add --format, -o and --resume; the command gets ``format``, ``output`` and ``resume``."""
    return _decorated(into_stores(command), _OUTPUT)


def into_stores(command: Command) -> Command:
    """Let a command with ``output`` write a file into an object store: here first, as a whole, then there."""

    @functools.wraps(command)
    def wrapped(*args: Any, output: Path | None, **others: Any) -> Any:
        from nshot.objects import is_object_url, uploaded

        url = "" if output is None else as_url(output)
        if output is None or not is_object_url(url) or not output.suffix:
            return command(*args, output=output, **others)
        if others.get("resume"):
            raise RequestError(f"{url} is written as a whole: leave out --resume, or name a file here")
        with uploaded(url) as local:
            status = command(*args, output=local, **others)
        click.echo(f"written: {url}", err=True)
        return status

    return wrapped


def say(message: str) -> None:
    """A note for the person, on stderr."""
    click.echo(f"note: {spelled(message)}", err=True)


def packed(name: str, kind: type[Any], options: Iterable[Command]) -> Callable[[Command], Command]:
    """Add options to a command, which gets their values as one dataclass, in an argument of that name."""
    fields = kind.__dataclass_fields__

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*args: Any, **values: Any) -> Any:
            packed = kind(**{field: values.pop(field) for field in fields})
            return command(*args, **{name: packed}, **values)

        return _decorated(wrapped, options)

    return decorate


def _decorated(command: Command, options: Iterable[Command]) -> Command:
    for option in reversed(tuple(options)):
        command = option(command)
    return command


def _set_up_logging(level: int) -> None:
    logger = logging.getLogger("nshot")
    logger.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Spelled("nshot: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)


class _Spelled(logging.Formatter):
    """Names in messages reach the terminal in printable text."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the name is logging's)
        return spelled(super().formatMessage(record))


def format_of(format: str | None, output: Path | None) -> str:
    """The format asked for, or the one that the output's name says."""
    if format is None and output is not None:
        from nshot.output.sinks import format_by_name

        return format_by_name(output)
    return format or "table"


def progress(
    items: Iterable[T], *, shown: bool, sources: Sequence[str] = (), skipped: int = 0, unit: str = " images"
) -> Iterator[T]:
    """The items, with a bar of rate and time left on stderr.

    Args:
        items: what is counted.
        shown: whether to show the bar at all; it never is where stderr is no terminal.
        sources: what was named on the command line, counted meanwhile for the time left.
        skipped: items that an earlier run has done.
        unit: what is counted.
    """
    if not shown or not sys.stderr.isatty():
        yield from items
        return
    from tqdm import tqdm

    with tqdm(initial=skipped, unit=unit, dynamic_ncols=True, file=sys.stderr, leave=False) as bar:
        Thread(target=_count, args=(sources, bar), daemon=True).start()
        for item in items:
            yield item
            bar.update()


def tell_failure(failure: Failure) -> None:
    """A failed image, named on stderr, above the bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"failed: {spelled(failure.source)}: {spelled(failure.message)}", file=sys.stderr)


def _count(sources: Sequence[str], bar: Any) -> None:
    """Give the bar its total, where finding it takes no more than listing names."""
    from nshot.images.sources import expand

    if all(Path(source).is_dir() or (guess_type(source)[0] or "").startswith("image/") for source in sources):
        with suppress(NshotError):
            bar.total = sum(1 for _ in expand(sources))
