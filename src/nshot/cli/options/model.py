"""``--model`` and how it is loaded."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nshot.atomic import same_file
from nshot.cli.options.packing import Command, packed
from nshot.cli.options.talk import say
from nshot.errors import RequestError
from nshot.types import Limits

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.model import Model
    from nshot.regions.detector import Detector

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
class ModelOptions:
    """What ``--model`` and its companions say."""

    model: str | None
    revision: str | None
    device: Any
    precision: Any
    compiled: bool
    decode: Any
    fit: Any
    batch_size: int | None
    workers: int | None
    processes: bool | None
    store: Path | None
    no_store: bool
    memory: int | None
    timeout: float | None
    allow_private: bool
    asked: Callable[[Model], Any] | None = None
    """Lists images like those that will be asked, where there are any: what an int8 form is made on."""

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
            "compiled": self.compiled,
            "decode": self.decode,
            "fit": self.fit,
            "batch_size": self.batch_size,
            "workers": self.workers,
            "processes": self.processes,
            "limits": self.limits,
        }

    def load(
        self,
        *,
        quiet: bool = False,
        as_first: bool = False,
        question: Callable[[Model], Classifier] | None = None,
    ) -> Model:
        """The model, loaded; with ``--precision int8`` its form is made on the images where it is missing.

        Args:
            quiet: say nothing.
            as_first: it is to stand first in a cascade.
            question: what answers are compared for in f32 and in int8; None: everyday words.
        """
        from nshot.model import load
        from nshot.models.catalogue import entry
        from nshot.models.checkpoint import DEFAULT_MODEL

        if self.store is not None and self.no_store:
            raise click.UsageError("--store and --no-store exclude each other.")
        if self.precision == "int8" and self.asked is not None:
            from nshot.cli.quantise import make_where_missing

            make_where_missing(replace(self, precision="f32", device="cpu"), question, quiet=quiet)
        model = load(
            self.model or DEFAULT_MODEL,
            revision=self.revision,
            device=self.device,
            precision=self.precision,
            compiled=self.compiled,
            decode=self.decode,
            fit=self.fit,
            batch_size=self.batch_size,
            workers=self.workers,
            processes=self.processes,
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
        for given, option in ((self.compiled, "--compile"), (self.processes, "--processes")):
            if given:
                raise click.UsageError(f"{option} is for models of images and texts, not for a detector.")
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
        "nshot quantise made; where it is missing, it is made first, on a sample of the images.",
    ),
    click.option(
        "--compile",
        "compiled",
        is_flag=True,
        help="On a GPU, compile the image tower first: it takes a minute or so, and pays in long runs.",
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
        "--processes/--no-processes",
        default=None,
        help="Decode in processes, one for each of --workers, which do not wait for each other's Python.  "
        "[default: for a GPU with 8 workers or more]",
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


def model_options(command: Command) -> Command:
    """Add the model's options; the command gets them as ``model_options: ModelOptions``."""
    return packed("model_options", ModelOptions, _MODEL)(_beside_the_store(command))


def _beside_the_store(command: Command) -> Command:
    """Refuse a store that is another of the command's files as well, and would be written over."""

    @functools.wraps(command)
    def wrapped(*args: Any, model_options: ModelOptions, **others: Any) -> Any:
        if not model_options.no_store:
            from nshot.store.store import default_path

            store = model_options.store or default_path()
            context = click.get_current_context()
            for option in context.command.params:
                value = context.params.get(option.name or "")
                if option.name == "store" or not isinstance(option, click.Option):
                    continue
                if isinstance(value, (str, Path)) and same_file(value, store):
                    raise RequestError(f"{option.opts[0]} {value} is the store of vectors: name another file")
        return command(*args, model_options=model_options, **others)

    return wrapped
