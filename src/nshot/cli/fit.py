"""`nshot fit`: a classifier from a few examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nshot.cli.data import DataOptions, data_options, tell_failures
from nshot.cli.options import LabelOptions, ModelOptions, label_options, model_options, talk_options
from nshot.cli.prompted import embed_prompted

if TYPE_CHECKING:
    from nshot.few_shot import Fitted
    from nshot.few_shot.choose import Trial

_METHODS = ("auto", "zero-shot", "probe", "pulled", "gaussian")


@click.command("fit", short_help="Make a classifier from a few labelled images.")
@data_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Where the classifier goes, such as banknotes.nshot.",
)
@click.option(
    "--method",
    type=click.Choice(_METHODS),
    default="auto",
    show_default=True,
    help="auto: chosen by cross-validation on the images given.",
)
@click.option("--strength", type=float, metavar="X", help="C of the probe, the pull, or the share.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the cross-validation.")
@label_options
@model_options
@talk_options
def command(
    data_options: DataOptions,
    output: Path,
    method: Any,
    strength: float | None,
    seed: int,
    label_options: LabelOptions,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Make a classifier from labelled images, one to thousands a label.

    DATA is a folder with a folder a label, a table (.csv, .tsv, .parquet) with a column of labels, or
    hf://owner/name. Labels of --labels-file without an image answer from their prompts; labels of the data
    that it does not name are known by their images alone. Where examples do not beat the prompts,
    zero-shot is kept, and it says so.

    \b
    nshot fit examples/ --labels-file labels.txt -o banknotes.nshot
    nshot classify new/ --classifier banknotes.nshot

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot.atomic import check_output
    from nshot.few_shot.examples import fit

    check_output(output)
    prompted = embed_prompted(data_options, label_options, model_options, quiet=quiet)
    fitted = fit(prompted.examples, prompted.zero, method=method, strength=strength, seed=seed)
    fitted.save(output)
    click.echo(_told(fitted.report, every=verbose))
    click.echo(f"\n{output}")
    failures = list(prompted.examples.failures.values())
    return tell_failures(failures, len(prompted.examples), quiet=quiet)


def _told(fitted: Fitted, *, every: bool) -> str:
    """The report for a person: examples, candidates on held-out examples, the choice and why."""
    counts = fitted.examples.values()
    lines = [f"{sum(counts):,} images of {len(counts)} labels, {min(counts)} to {max(counts)} each", ""]
    if fitted.trials:
        lines.append("method           held-out right   against zero-shot")
        best: dict[str, Trial] = {}
        for trial in fitted.trials:
            key = str(trial.candidate) if every else trial.candidate.method
            leads = key not in best or trial.right > best[key].right or trial.candidate == fitted.candidate
            if leads and not (key in best and best[key].candidate == fitted.candidate):
                best[key] = trial
        for trial in best.values():
            mark = "*" if trial.candidate == fitted.candidate else " "
            line = f"{mark} {trial.candidate!s:14} {100 * trial.accuracy:6.1f} %"
            if fitted.zero_shot not in (None, trial):
                line += f"        {100 * trial.gain:+5.1f} ± {196 * trial.error:.1f} points"
            lines.append(line)
        lines.append("")
    lines.append(f"chosen: {fitted.candidate}; {fitted.reason}")
    return "\n".join(lines)
