"""`nshot models`: which models there are, which one suits, and whether one is what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.data import DataOptions, data_options, embed
from nshot.cli.help import Command
from nshot.cli.options import ModelOptions, model_options, say, talk_options
from nshot.cli.options.talk import echo
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.evaluation.models import Photograph


@click.group("models", invoke_without_command=True, short_help="List models, compare them, verify one.")
@click.option("--speed", is_flag=True, help="Measure the images per second of those that are cached here.")
@click.pass_context
def command(context: click.Context, speed: bool) -> None:
    """List models worth knowing, with short names for --model; compare some on your images; verify one.

    ImageNet: published zero-shot accuracy in per cent. GFLOP: work per image. Params: of both towers, in
    millions. Cached: on this machine already.

    \b
    nshot models
    nshot models compare photos-by-class/ --models clip-b32,datacomp-b32,siglip2-b16
    nshot models verify clip-b32 --images references/
    """
    if context.invoked_subcommand is None:
        _list(speed)


def _list(speed: bool) -> None:
    from nshot.models.catalogue import CATALOGUE
    from nshot.models.hub import Repository

    head: tuple[str, ...] = (
        "name",
        "ImageNet",
        "GFLOP",
        "params",
        "pixels",
        "labels in",
        "licence",
        "cached",
        "id",
    )
    rows = [(*head, "images/s") if speed else head]
    for each in CATALOGUE:
        cached = Repository(each.id).has_weights()
        row: tuple[str, ...] = (
            each.short,
            "" if each.imagenet is None else f"{each.imagenet:.1f}",
            f"{each.gflop:.1f}",
            str(each.parameters),
            str(each.pixels),
            each.languages,
            each.licence.partition(":")[0],
            "yes" if cached else "",
            each.id,
        )
        rows.append((*row, _speed(each.id) if cached else "") if speed else row)
    _table(rows)
    echo("\nAny other CLIP, SigLIP or open_clip model of the Hub, or a folder, can be given to --model too.")


def _speed(name: str) -> str:
    from nshot.evaluation.models import images_per_second
    from nshot.model import load

    return f"{images_per_second(load(name)):.1f}"


@command.command("compare", cls=Command, short_help="Compare models on labelled images.")
@data_options
@click.option("--models", required=True, metavar="NAME,NAME", help="Two or more; the first is the reference.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="A chart, as SVG."
)
@model_options
@talk_options
def compare(
    data_options: DataOptions,
    models: str,
    output: Path | None,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Compare models on labelled images: zero-shot accuracy, with its interval and that of the difference to
    the first model; calibration error of the scores; images per second and memory on this machine.

    \b
    nshot models compare photos-by-class/ --models clip-b32,siglip2-b16 -o frontier.svg
    """
    from nshot.atomic import write_bytes
    from nshot.evaluation.models import compare_models, frontier

    names = [name.strip() for name in models.split(",") if name.strip()]
    if model_options.model is not None:
        raise RequestError("--models names the models: leave out --model")
    labelled = data_options.open(model_options, None, quiet=quiet)
    rows = compare_models(
        names,
        lambda name: replace(model_options, model=name).load(quiet=quiet),
        lambda embedder: embed(embedder, labelled, quiet=quiet),  # type: ignore[arg-type]
    )
    head = (
        "model",
        "right",
        "95 %",
        "against the first",
        "calibration error",
        "images/s",
        "memory",
        "ImageNet",
    )
    table: list[tuple[str, ...]] = [head]
    for row in rows:
        table.append(
            (
                row.name,
                f"{row.top1:.1%}",
                f"{row.interval.low:.1%} to {row.interval.high:.1%}",
                "" if row.gain is None else f"{100 * row.gain.low:+.1f} to {100 * row.gain.high:+.1f} points",
                f"{row.calibration_error:.3f}",
                f"{row.images_per_second:.1f}",
                "" if row.memory is None else f"{row.memory / 1e6:.0f} MB",
                "" if row.published is None else f"{row.published:.1f}",
            )
        )
    _table(table)
    if output is not None:
        write_bytes(output, frontier(rows).encode())
        if not quiet:
            say(f"the chart is in {output}")
    return 0


@command.command("verify", cls=Command, short_help="Compare a model's figures here with the published ones.")
@click.argument("name", metavar="MODEL")
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="FOLDER",
    help="Where the images of the references are: 000000039769.png of COCO val2017, 2.jpg to 50.jpg of the "
    "photographs.",
)
@model_options
@talk_options
def verify(name: str, images: Path | None, model_options: ModelOptions, quiet: bool, verbose: bool) -> int:
    """Compare what MODEL answers here with what is published for it: weights, image processor and tokenizer
    together. It runs in f32 and needs no network for a model that is cached.

    Without --images, what needs no file is checked: the ids that CLIP's tokenizer gives a few texts, and a
    drawing that nshot makes: what is not in it must not come first. Of sketchbook, which comes with nshot,
    the drawing's figures are recorded.

    Exit status: 0 all that was compared agrees, 1 something differs, or --images lacks a file, 2 nothing is
    published for the model.
    """
    from nshot.evaluation.models import drawn_logits, verify_photographs, verify_tokens
    from nshot.evaluation.models import verify as verified
    from nshot.models.references import ABSENT, DRAWN, REFERENCES

    options = replace(model_options, model=name, precision="f32", decode="exact", no_store=True, store=None)
    model = options.load(quiet=quiet)
    found, photographs = verified(model, images), verify_photographs(model, images)
    sound = True
    if not any(reference.image is None for reference, _ in found):
        echo("the drawing: nothing is recorded for this model; there is no star in it")
        drawn = dict(zip(DRAWN, drawn_logits(model), strict=True))
        sound = max(drawn, key=lambda text: drawn[text]) != ABSENT
        for text, here in drawn.items():
            echo(f"  {text!r}: here {here:.4f}{'' if sound or text != ABSENT else '  COMES FIRST'}")
    for text, agrees in verify_tokens(model).items():
        echo(f"tokens of {text!r}: {'as published' if agrees else 'DIFFER'}")
        sound = sound and agrees
    for reference, logits in found:
        echo(f"{reference.id}: {reference.source}")
        if logits is None:
            echo(f"  not compared: give the folder of {reference.image} with --images")
            continue
        for text, there, here in zip(reference.texts, reference.logits, logits, strict=True):
            fine = abs(here - there) <= reference.atol
            echo(f"  {text!r}: here {here:.4f}, published {there:.4f}{'' if fine else '  DIFFERS'}")
    _tell_photographs(photographs)
    if not found:
        known = ", ".join(sorted({reference.model for reference in REFERENCES}))
        raise RequestError(f"no published figures are known for {name}; they are for {known}")
    compared = [each.agrees for each in found] + [each.agrees for each in photographs]
    if images is None:
        compared = [agrees for agrees in compared if agrees is not None]
    return 0 if sound and all(compared) else 1


def _tell_photographs(photographs: Sequence[Photograph]) -> None:
    if not photographs:
        return
    measured = [each for each in photographs if each.off is not None]
    echo(f"photographs: {len(photographs)} vectors by transformers' CLIPModel and CLIPProcessor")
    if missing := len(photographs) - len(measured):
        echo(f"  not compared: {missing}; give their folder with --images")
    for each in measured:
        if not each.agrees:
            echo(f"  {each.name}: off by {each.off:.3f}  DIFFERS")
    if measured:
        agreeing = sum(bool(each.agrees) for each in measured)
        worst = max(each.off or 0.0 for each in measured)
        echo(f"  {agreeing} of {len(measured)} agree; the farthest is off by {worst:.4f}")


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
