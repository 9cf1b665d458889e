"""`nshot curve`: what would a few examples buy?"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.data import DataOptions, data_options, tell_failures
from nshot.cli.help import Command
from nshot.cli.options import LabelOptions, ModelOptions, label_options, model_options, talk_options
from nshot.cli.options.talk import echo
from nshot.cli.prompted import Prompted, embed_prompted
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.few_shot.curve import FineTune, Point, Shots
    from nshot.types import Floats


@click.command("curve", cls=Command, short_help="Measure what more examples would buy.")
@data_options
@click.option(
    "--shots",
    default="0,1,2,4,8,16,all",
    show_default=True,
    metavar="N,N,...",
    help="Numbers of examples per label to try; 0 is zero-shot.",
)
@click.option(
    "--draws", type=click.IntRange(min=1), default=5, show_default=True, help="Draws of examples to average."
)
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.33,
    show_default=True,
    metavar="SHARE",
    help="Share of the images to measure on.",
)
@click.option(
    "--supervised",
    metavar="MODEL",
    help="A supervised model beside them, such as microsoft/resnet-50: a probe on its features. Needs "
    "nshot[torch].",
)
@click.option(
    "--fine-tune",
    is_flag=True,
    help="The text tower fine-tuned on the same examples beside them, as nshot train does with classes, and "
    "the time it takes. Needs nshot[train].",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where curve.svg and curve.json go.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@label_options
@model_options
@talk_options
def command(
    data_options: DataOptions,
    shots: str,
    draws: int,
    held_out: float,
    supervised: str | None,
    fine_tune: bool,
    output: Path | None,
    seed: int,
    label_options: LabelOptions,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Measure what more examples per label would buy, on labelled images.

    Draws examples, fits on them, and measures on images that were held out: zero-shot, a plain linear probe
    (logistic regression with C = 1, and with C tuned), and what nshot fit would choose.

    \b
    nshot curve photos-by-class/ --shots 0,1,2,4,8,16,all -o curve/

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot.atomic import make_folder, write_bytes
    from nshot.evaluation.curve_chart import draw
    from nshot.few_shot.curve import curve

    counts = _shots(shots)
    if output is not None:
        make_folder(output)
    if fine_tune:
        from nshot.train import train  # noqa: F401  (says what to install before anything is encoded)
    prompted = embed_prompted(data_options, label_options, model_options, quiet=quiet)
    examples = prompted.examples
    points = curve(
        examples.vectors,
        examples.label,
        prompted.zero,
        shots=counts,
        draws=draws,
        held_out=held_out,
        others={} if supervised is None else {f"{supervised}, probe": _features(supervised, prompted)},
        fine_tune=_text_tuner(prompted, label_options) if fine_tune else None,
        seed=seed,
    )
    echo(table(points))
    if fine_tune:
        echo(f"\n{costs(points)}")
    if output is not None:
        name, images = data_options.data, len(examples)
        content = {
            "data": name,
            "model": prompted.model.name,
            "recipe": prompted.model.recipe.digest,
            "images": images,
            "draws": draws,
            "held_out": held_out,
            "seed": seed,
            "points": [asdict(p) | {"mean": p.mean, "low": p.low, "high": p.high} for p in points],
        }
        write_bytes(output / "curve.json", (json.dumps(content, indent=2) + "\n").encode())
        chart = draw(points, f"{Path(name).name}: accuracy by examples")
        write_bytes(output / "curve.svg", chart.encode("utf-8", "surrogateescape"))
        echo(f"\n{output / 'curve.svg'}")
    return tell_failures(list(examples.failures.values()), len(examples), quiet=quiet)


def table(points: Sequence[Point]) -> str:
    """A row per method, a column per number of examples: the mean, and the worst and best draw below it."""
    columns: list[Shots] = list(dict.fromkeys(p.shots for p in points))
    width = max(len(p.method) for p in points)
    lines = [" " * width + "".join(f"{count:>12}" for count in columns)]
    for method in dict.fromkeys(p.method for p in points):
        mine = {p.shots: p for p in points if p.method == method}
        cells = [f"{100 * mine[c].mean:10.1f} %" if c in mine else " " * 12 for c in columns]
        spans = [
            f"{100 * mine[c].low:.0f} to {100 * mine[c].high:.0f}".rjust(12) if c in mine else " " * 12
            for c in columns
        ]
        lines += [f"{method:{width}}" + "".join(cells).rstrip(), " " * width + "".join(spans).rstrip()]
    return "\n".join(lines)


def costs(points: Sequence[Point]) -> str:
    """What the most examples took."""
    from nshot.few_shot.curve import FINE_TUNED, NSHOT

    lines = []
    for method in (NSHOT, FINE_TUNED):
        if mine := [point for point in points if point.method == method and point.seconds]:
            most = mine[-1]
            each = sum(most.seconds) / len(most.seconds)
            lines.append(f"{method}: {each:.1f} s of processor time for {most.examples:.0f} images")
    return "\n".join([*lines, "beside encoding them, once"])


def _text_tuner(prompted: Prompted, label_options: LabelOptions) -> FineTune:
    from nshot.labels.prompts import DEFAULT_TEMPLATE, write_prompts
    from nshot.train.texts import TextTuner

    if label_options.label_vectors is not None:
        raise RequestError("--fine-tune trains on the labels' texts: give --labels, not --label-vectors")
    given = label_options.given()
    labels = list(prompted.zero.labels) if given is None else given.labels
    written = write_prompts(labels, label_options.read_templates() or [DEFAULT_TEMPLATE])
    return TextTuner(prompted.model.name, {each.label: each.prompts for each in written})


def _shots(text: str) -> list[Shots]:
    try:
        return [part.strip() if part.strip() == "all" else int(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(f"--shots are whole numbers or all, a comma between two, not {text!r}") from error


def _features(name: str, prompted: Prompted) -> Floats:
    """The supervised model's features of the same images, decoded once more."""
    from nshot.evaluation.supervised import Supervised
    from nshot.images.prepare import load

    network = Supervised(name)
    wanted, limits = set(prompted.examples.positions.tolist()), prompted.model.limits
    if sys.stderr.isatty():
        echo(f"note: {len(wanted)} images through {name}", err=True)
    sources = (source for position, source in enumerate(prompted.labelled) if position in wanted)
    return network.features(load(source.read(), limits).image for source in sources)
