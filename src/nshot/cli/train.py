"""`nshot train`: images with captions in, a checkpoint out."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nshot.bounded import parsed, read_bytes
from nshot.cli.help import Command
from nshot.cli.options import talk_options
from nshot.cli.options.talk import echo, tell_failure
from nshot.errors import RequestError
from nshot.labels.prompts import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from nshot.train.loop import Progress
    from nshot.train.run import Report

_LOGGED_EVERY = 30.0  # seconds


@click.command("train", cls=Command, short_help="Train a model, or fine-tune one.")
@click.argument("data", metavar="DATA")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="FOLDER",
    help="Where the model goes.",
)
@click.option("--from", "start", metavar="ID_OR_FOLDER", help="A model to go on from.  [default: a new one]")
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A new model's config.json.  [default: the sketchbook's small one]",
)
@click.option("--epochs", type=float, help="Passes over the data.  [default: 1, or 20 with --from]")
@click.option("--steps", type=int, metavar="N", help="Optimizer steps, in place of epochs.")
@click.option(
    "--batch-size",
    type=int,
    metavar="N",
    help="Images per step.  [default: 128, fewer for a small set]",
)
@click.option(
    "--lr",
    type=float,
    metavar="RATE",
    help="Highest learning rate.  [default: 0.001; with --from 0.00001, more for small models]",
)
@click.option(
    "--warmup",
    type=int,
    metavar="STEPS",
    help="Steps until it is reached.  [default: 150, or a tenth of a short run]",
)
@click.option("--weight-decay", type=float, default=0.1, show_default=True, help="AdamW's.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same run.")
@click.option(
    "--only",
    type=click.Choice(["all", "text", "projections"]),
    help="Which weights are trained; text locks the image tower.  [default: text for classes with --from]",
)
@click.option("--lora", type=int, default=0, metavar="RANK", help="Train LoRA adapters of this rank instead.")
@click.option(
    "--balanced/--no-balanced",
    default=None,
    help="Each class as often as any other.  [default: for a folder of classes]",
)
@click.option(
    "--patience",
    type=int,
    metavar="N",
    help="Stop after N held-out measurements without a better one; 0: never.  [default: 6 with --from]",
)
@click.option(
    "--blend",
    type=float,
    metavar="SHARE",
    help="Write the weights between those before (0) and after (1).  [default: as the curve recommends]",
)
@click.option(
    "--held-out",
    type=float,
    metavar="SHARE",
    help="Share of the data to measure on, not to train on.  [default: 0.05, or 0.2 with --from]",
)
@click.option(
    "--untouched", metavar="DATA", help="Images that the model should not get worse at; measured only."
)
@click.option("--template", multiple=True, metavar="T", help="What a folder's class names are written into.")
@click.option("--image-column", metavar="NAME", help="The column of a table that holds the images.")
@click.option("--caption-column", metavar="NAME", help="The column of a table that holds the captions.")
@click.option(
    "--crop",
    type=float,
    default=1.0,
    show_default=True,
    help="Least share of an image that random crops keep; 1: no crops.",
)
@click.option(
    "--colour-jitter",
    type=float,
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="How far brightness and saturation vary; 0: not at all, so that colours stay true.",
)
@click.option(
    "--drawings", type=int, default=300_000, show_default=True, help="With DATA sketchbook: how many."
)
@click.option("--half", is_flag=True, help="Write float16.")
@click.option("--threads", type=int, metavar="N", help="Cores.  [default: all]")
@click.option(
    "--compile/--no-compile",
    default=None,
    help="Fuse operations with torch.compile.  [default: in long runs on a GPU]",
)
@click.option("--checkpointing", is_flag=True, help="Less memory, a third slower (gradient checkpointing).")
@click.option(
    "--tensorboard",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Logs for TensorBoard, beside the training.csv in the output folder.",
)
@click.option("--minutes", type=float, default=5.0, show_default=True, help="Time between two saved states.")
@click.option("--resume", is_flag=True, help="Go on where a run that was killed stood.")
@talk_options
def command(
    data: str,
    output: Path,
    config: Path | None,
    batch_size: int | None,
    weight_decay: float,
    only: Any,
    template: tuple[str, ...],
    colour_jitter: float,
    quiet: bool,
    verbose: bool,
    **given: Any,
) -> int:
    """Train a CLIP model on images with captions, or fine-tune a CLIP or SigLIP model.

    DATA is a .csv, .tsv, .parquet or .jsonl table of images and captions, webdataset .tar files, a folder
    with a folder per class, or the word sketchbook: the drawings that the model of that name was trained on.
    Needs torch: pip install "nshot[train]".

    \b
    nshot train pairs.csv -o my-clip/
    nshot train pairs.parquet --from openai/clip-vit-base-patch32 -o my-clip/ --epochs 3
    nshot train photos-by-class/ --from my-clip/ --untouched known/ -o better/
    python -m torch.distributed.run --nproc_per_node 2 -m nshot train ...      # two processes

    Exit status: 0 trained, 1 trained without some images, 2 the request itself was wrong or the disk is full.
    """
    from nshot.train import Options, train

    if os.environ.get("RANK", "0") != "0":  # of several processes, the first one speaks
        quiet = True
        sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    chosen = [
        *("epochs", "steps", "lr", "warmup", "seed", "crop", "half", "threads", "compile", "minutes"),
        *("lora", "balanced", "patience", "checkpointing"),
    ]
    options = Options(
        batch=batch_size,
        decay=weight_decay,
        part=only,
        jitter=colour_jitter,
        **{name: given.pop(name) for name in chosen},
    )
    report = train(
        data,
        output,
        options=options,
        config=None if config is None else _config(config),
        templates=template or (DEFAULT_TEMPLATE,),
        report=(lambda progress: None) if quiet else _Teller(),
        **given,
    )
    if not quiet:
        if sys.stderr.isatty():
            click.echo(err=True)
        _show(report, output)
    return 1 if report.failures else 0


def _config(path: Path) -> dict[str, Any]:
    try:
        config = parsed(read_bytes(path))
    except ValueError as error:
        raise RequestError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise RequestError(f"{path} should be a table of settings")
    return config


class _Teller:
    """Progress on stderr: one line that changes on a terminal, a line every half minute in a log."""

    def __init__(self) -> None:
        self._on_screen = sys.stderr.isatty()
        self._said = -_LOGGED_EVERY

    def __call__(self, progress: Progress) -> None:
        recall = "" if progress.recall is None else f"  recall@1 {progress.recall:.3f}"
        line = (
            f"step {progress.step}/{progress.steps}  loss {progress.loss:.3f}  scale {progress.scale:.1f}"
            f"{recall}  {progress.images_per_s:.0f} images/s  {_time(progress.seconds_left)} left"
        )
        now = time.monotonic()
        if self._on_screen:
            click.echo(f"\r\x1b[K{line}", err=True, nl=False)
        elif now - self._said >= _LOGGED_EVERY or progress.step == progress.steps:
            echo(line, err=True)
            self._said = now


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _show(report: Report, output: Path) -> None:
    for failure in report.failures:
        tell_failure(failure)
    measured = list(dict.fromkeys(name for row in report.figures.values() for name in row))
    if measured:
        echo("share of images that are nearest to their own text")
        echo(f"{'':14}" + "".join(f"{name:>12}" for name in measured))
        for model, row in report.figures.items():
            echo(
                f"{model:14}"
                + "".join(f"{row[name]:12.3f}" if name in row else " " * 12 for name in measured)
            )
    if measured and report.curve:
        echo("\nblend         " + "".join(f"{name:>12}" for name in measured))
        for point in report.curve:
            mark = "*" if point.share == report.share else " "
            found = [x for x in (point.held_out, point.untouched) if x is not None]
            echo(f"{mark} {point.share:<12.1f}" + "".join(f"{x:12.3f}" for x in found))
    if report.share is not None:
        echo(f"written: the blend {report.share:g} ({report.reason})")
    if report.worth:
        echo(report.worth)
    best = "" if report.kept == report.steps else f", the best of them after {report.kept}"
    echo(f"{output}: trained on {report.images} images, {report.steps} steps{best}")
