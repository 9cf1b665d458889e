"""`nshot quantise`: the image tower in 8 bits, on one's own images, and what it is worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.help import Command
from nshot.cli.options import (
    DecisionOptions,
    LabelOptions,
    Listing,
    ModelOptions,
    classifier_option,
    label_options,
    model_options,
    say,
    source_arguments,
    talk_options,
    tell_remarks,
)
from nshot.cli.options.talk import echo
from nshot.images.remarks import Remarks

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.quantising import Int8Report
    from nshot.model import Model


_SHOWN = 20  # changed answers that are listed


@click.command("quantise", cls=Command, short_help="Make a model's int8 form on your images, and measure it.")
@source_arguments
@label_options
@classifier_option
@model_options
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write every figure into this file, as JSON.",
)
@talk_options
def command(
    sources: tuple[str, ...],
    listing: Listing,
    label_options: LabelOptions,
    classifier_file: Path | None,
    model_options: ModelOptions,
    report: Path | None,
    quiet: bool,
    verbose: bool,
) -> int:
    """Make the int8 form of a model's image tower on your images, and say what it is worth here.

    300 of the images, drawn at random, are calibrated on, and up to 1000 others are asked in f32 and in int8:
    how near the vectors are, how many answers stay the same, which change, and the time and size of both. The
    form is kept: --precision int8 uses it then, unless less than 98 % of its answers are those of f32; as the
    first model of a cascade (--first int8) it may be used all the same. Texts stay in f32. Needs the extra
    [int8].

    \b
    nshot quantise photos/ --labels-file labels.txt
    nshot classify photos/ --labels-file labels.txt --precision int8
    nshot classify photos/ --labels-file labels.txt --precision f32 --first int8

    Exit status: 0 it may be used, 1 it is refused, 2 the request itself was wrong.
    """
    from nshot.atomic import check_output, write_bytes
    from nshot.classifier.quantising import quantise
    from nshot.cli.asking import ask, check_one_file
    from nshot.encoders.int8 import PAYS

    if report is not None:
        check_output(report, [*sources, classifier_file, label_options.labels_file, label_options.templates])
    check_one_file(classifier_file, "an int8 form is made of")
    nothing = DecisionOptions(None, None, None, None, None)
    exact = replace(model_options, precision="f32", device="cpu")
    model, classifier = ask(label_options, classifier_file, nothing, exact, quiet=quiet, verbose=verbose)
    remarks = Remarks()
    found = quantise(model, classifier, listing.open(model, sources, remarks), progress=not quiet)
    tell_remarks(remarks, quiet=quiet)
    echo(told(found))
    if report is not None:
        write_bytes(report, (json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())
        echo(report)
    if not found.accepted:
        say(f"int8 is refused for {model.name}, but may stand first in a cascade: --first int8")
        return 1
    if found.gain < PAYS:
        say(f"int8 does not pay on this machine: it is {found.gain:.1f} times as fast as f32")
    return 0


def told(found: Int8Report) -> str:
    """The figures for a person."""
    low, high = found.interval
    time, size = found.milliseconds, found.megabytes
    speed, sizes = f"{time['int8']:.2f} ms per image", f"{size['int8']:.1f} MB"
    for name in time:
        if name != "int8":
            speed += f"; {time[name]:.2f} in {name}: {time[name] / time['int8']:.1f} times as fast"
            sizes += f"; {size[name]:.1f} in {name}"
    lines = [
        f"calibrated on {found.calibrated_on} images, measured on {found.images} others",
        f"vectors    cosine with f32: median {found.cosine_median:.4f}, 1 % below {found.cosine_low:.4f}",
        f"answers    {found.agreement:.1%} those of f32 ({low:.1%} to {high:.1%}); {found.flipped} changed",
        f"time       {speed}",
        f"size       {sizes}",
        "",
        "margin under f32        images  same answer",
    ]
    lines += [f"{b.low:9.2f} to {b.high:<9.2f} {b.images:>8}  {b.agreement:.1%}" for b in found.bands]
    if found.flips:
        lines += ["", "changed answers, the surest first"]
        lines += [f"{f.source}: {f.f32} -> {f.int8} (margin {f.margin:.2f})" for f in found.flips[:_SHOWN]]
        if found.flipped > _SHOWN:
            lines.append(f"... and {found.flipped - _SHOWN} more, all in --report FILE")
    return "\n".join(lines)


def make_where_missing(
    exact: ModelOptions, question: Callable[[Model], Classifier] | None, *, quiet: bool
) -> None:
    """Make a model's int8 form on a sample of the images, where there is none that was measured.

    Args:
        exact: the model in f32, and the images.
        question: what answers are compared for; None: which of the everyday words fits.
        quiet: say nothing.

    Raises:
        RequestError: there are too few images.
    """
    from nshot.classifier.quantising import quantise
    from nshot.classifier.zero_shot import zero_shot
    from nshot.decision import EVERYDAY
    from nshot.encoders.int8 import record

    model = exact.load(quiet=True)
    if exact.asked is None or (record(model.checkpoint) or {}).get("report"):
        return
    if not quiet:
        say(f"there is no int8 form of {model.name} yet: it is made now, on a sample of these images")
    asked = zero_shot(model, EVERYDAY) if question is None else question(model)
    found = quantise(model, asked, exact.asked(model), progress=not quiet)
    if not quiet:
        low, high = found.interval
        words = "" if question is not None else ", asked which of 140 everyday words fits,"
        say(
            f"int8: {found.agreement:.1%} of the answers on {found.images} other images{words} are those of "
            f"f32 ({low:.1%} to {high:.1%}), {found.gain:.1f} times as fast. nshot quantise tells all"
        )
