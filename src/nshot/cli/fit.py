"""`nshot fit`: a classifier from a few examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nshot.cli.data import DataOptions, data_options, embed, tell_failures
from nshot.cli.facets import (
    ask_facets,
    check_labels,
    embed_by_facet,
    facets_option,
    facets_path,
    failures_of,
    given_facets,
)
from nshot.cli.help import Command
from nshot.cli.options import (
    FACET,
    MULTI,
    DecisionOptions,
    LabelOptions,
    ModelOptions,
    label_options,
    model_options,
    say,
    talk_options,
)
from nshot.cli.prompted import Prompted, embed_prompted
from nshot.cli.several import fit_each, told
from nshot.cli.tree import fit_tree, tree_option
from nshot.cli.twice import in_test_part, tell_otherwise_labelled, tell_shared
from nshot.errors import RequestError
from nshot.labels.facets import Facet
from nshot.labels.prompts import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from nshot.few_shot import Fitted
    from nshot.few_shot.choose import Trial

NO_DECISION = DecisionOptions(None, None, None, None, None)
_ENOUGH = 0.98  # right on held-out images
_METHODS = ("auto", "zero-shot", "probe", "pulled", "gaussian")


@click.command("fit", cls=Command, short_help="Make a classifier from a few labelled images.")
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
@click.option(
    "--journal",
    "journal_file",
    type=click.Path(path_type=Path, exists=True),
    metavar="FILE_OR_FOLDER",
    help="Corrections made on the page of nshot serve: DATA are the images, and what was said their labels.",
)
@click.option(
    "--test",
    metavar="DATA",
    help="What the classifier will be measured on: images of it that it learns from are told.",
)
@FACET
@MULTI
@label_options
@facets_option
@tree_option
@model_options
@talk_options
def command(
    data_options: DataOptions,
    output: Path,
    method: Any,
    strength: float | None,
    seed: int,
    journal_file: Path | None,
    test: str | None,
    facet: str | None,
    multi: bool,
    label_options: LabelOptions,
    facets_given: str | None,
    tree_file: Path | None,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Make a classifier from labelled images, from one to thousands per label.

    DATA is a folder with a folder per label, a table or an export with labels, an archive, vectors, or
    hf://owner/name. Labels of --labels-file without an image answer from their prompts; labels of the data
    that it does not name are known by their images alone. Where examples do not beat the prompts,
    zero-shot is kept, and it says so. With --facets, DATA is a table with a column of labels per facet;
    with --journal as well, a folder of images as ever. With --tree, the labels are the tree's leaves. Images
    that are alike but labelled otherwise are told, and so are those that are in the test data too: --test,
    or the test part of a folder that has one.

    \b
    nshot fit examples/ --labels-file labels.txt -o banknotes.nshot
    nshot fit photos.csv --facets facets.json -o photos.nshot
    nshot fit photos/ --journal photos/ --labels "cat, dog" -o animals.nshot
    nshot fit tags.csv --label-separator ";" --multi -o tags.nshot
    nshot classify new/ --classifier banknotes.nshot

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot.atomic import check_output
    from nshot.few_shot.examples import fit

    read = data_options.inputs(label_options, journal_file)
    check_output(output, [*read, facets_path(facets_given), tree_file])
    if test is not None and (
        facets_given is not None or journal_file is not None or multi or tree_file is not None
    ):
        raise RequestError(
            "--test goes with one label per image: leave out --facets, --journal, --multi, --tree"
        )
    if tree_file is not None:
        if facets_given is not None or journal_file is not None or multi:
            raise RequestError(
                "a tree is fitted on labelled images alone: leave out --facets, --journal, --multi"
            )
        report, status = fit_tree(
            tree_file,
            data_options,
            label_options,
            model_options,
            output,
            method=method,
            strength=strength,
            seed=seed,
            quiet=quiet,
        )
        click.echo(f"{_told(report, every=verbose)}\n\n{output}")
        return status
    if multi and (facets_given is not None or method != "auto" or strength is not None):
        raise RequestError(
            "with several labels per image there is one method: leave out --facets, --method and --strength"
        )
    if multi and journal_file is None:
        if facet is not None:
            raise RequestError("--facet needs --journal")
        return fit_each(data_options, label_options, model_options, output, seed=seed, quiet=quiet)
    if facets_given is not None:
        if journal_file is not None:
            if facet is not None:
                raise RequestError("give --facets, for all of them, or --facet with its labels, not both")
            asked = _asked_facets(facets_given, label_options)
            return _from_journal(
                data_options.data, journal_file, output, asked, model_options, together=True, quiet=quiet
            )
        from nshot.classifier.facets import Facets

        model, zero = ask_facets(
            facets_given, None, label_options, NO_DECISION, data_options.of_model(model_options), quiet=quiet
        )
        images = embed_by_facet(model, data_options, zero, quiet=quiet)
        check_labels(zero, images, quiet=quiet)
        made = {
            name: fit(images[name], each, multi=True, seed=seed)
            if name in zero.several
            else fit(images[name], each, method=method, strength=strength, seed=seed)
            for name, each in zero.items()
        }
        Facets(made).save(output)
        for name, each in made.items():
            report = each.report
            said = told(report) if name in zero.several else _told(report, every=verbose)
            click.echo(f"{name}\n{said}\n")
        click.echo(output)
        return failures_of(images, quiet=quiet)
    if journal_file is not None:
        labels, templates = label_options.read()
        asked = [Facet(facet or "labels", labels, tuple(templates), multi=multi)]
        return _from_journal(
            data_options.data, journal_file, output, asked, model_options, together=False, quiet=quiet
        )
    if facet is not None:
        raise RequestError("--facet needs --journal")
    prompted = embed_prompted(data_options, label_options, model_options, quiet=quiet)
    _tell_twice(prompted, data_options, label_options, model_options, test, quiet=quiet)
    fitted = fit(prompted.examples, prompted.zero, method=method, strength=strength, seed=seed)
    fitted.save(output)
    click.echo(_told(fitted.report, every=verbose))
    if not quiet and (said := _beyond(prompted, fitted.report, data_options.data)):
        click.echo(said)
    click.echo(f"\n{output}")
    failures = list(prompted.examples.failures.values())
    return tell_failures(failures, len(prompted.examples), quiet=quiet)


def _tell_twice(
    prompted: Prompted,
    data_options: DataOptions,
    label_options: LabelOptions,
    model_options: ModelOptions,
    test: str | None,
    *,
    quiet: bool,
) -> None:
    """Examples that are there twice: under two labels, or in the test data too."""
    so = "figures measured there will flatter this classifier"
    tell_otherwise_labelled(prompted.examples, quiet=quiet)
    if test is not None:
        given = label_options.given(quiet=True, alone=True)
        measured = data_options.open_other(test, model_options, given, quiet=quiet)
        tell_shared(prompted.examples, embed(prompted.model, measured, quiet=quiet), test, so)
    elif not quiet and (same := in_test_part(prompted.examples, data_options, model_options)):
        many = "1 image is" if len(same) == 1 else f"{len(same):,} images are"
        say(f"WARNING: {many} in the test part of {data_options.data} too, such as {same[0]}: {so}")


def _asked_facets(given: str, label_options: LabelOptions) -> list[Facet]:
    if label_options.any:
        raise RequestError("facets bring their own labels: leave out --labels")
    usual = tuple(label_options.read_templates() or [DEFAULT_TEMPLATE])
    return [replace(each, templates=each.templates or usual) for each in given_facets(given).values()]


def _from_journal(
    data: str,
    journal_file: Path,
    output: Path,
    facets: Sequence[Facet],
    model_options: ModelOptions,
    *,
    together: bool,
    quiet: bool,
) -> int:
    """What the page of nshot serve would make from the same corrections: a classifier, or facets together."""
    from nshot.classifier.facets import Facets
    from nshot.server.session import Question, ReadOnly, Session, find_journal, read_words

    path = find_journal(journal_file)
    model = model_options.load(quiet=quiet)
    session = Session(lambda: model, [data], ReadOnly(path, read_words(path).untaken()))
    session.start()
    session.wait()
    if session.state()["phase"] != "ready":
        raise RequestError(session.state()["error"] or f"no image of {data} could be read")
    made, learnt = {}, False
    for facet in facets:
        question = Question.of(facet.labels, templates=facet.templates, facet=facet.name, multi=facet.multi)
        proposal = session.learn(question)
        asked = session.ask(question)[0] if proposal is None else proposal.asked
        made[facet.name] = session.made(asked, proposal)
        learnt = learnt or proposal is not None
        told = "no corrections" if proposal is None else f"{proposal.examples} corrections; {proposal.reason}"
        click.echo(f"{facet.name}: {told}" if together else told)
        if proposal is not None and proposal.left:
            say(f"{len(proposal.left)} corrections were left out: they do not tell of every label")
    if not learnt:
        raise RequestError(f"{path} says nothing of these labels about images in {data}")
    (Facets(made) if together else made[facets[0].name]).save(output)
    click.echo(f"\n{output}")
    failed = [row.failure for row in session.images.rows if row.failure is not None]
    return tell_failures(failed, len(session.images) - len(failed), quiet=quiet)


def _beyond(prompted: Prompted, fitted: Fitted, data: str) -> str:
    """Whether more images would help, and else what fine-tuning would cost; "" where there are too few."""
    from nshot.few_shot.growth import fine_tuning_cost, growth
    from nshot.labels.prompts import write_prompts

    examples = prompted.examples
    found = growth(examples.vectors, examples.label, fitted, prompted.zero)
    if found is None:
        return ""
    said = (
        f"with half of the images {100 * found.half:.1f} %, with all of them {100 * found.whole:.1f} % of "
        f"{found.images} held-out ones ({100 * found.low:+.1f} to {100 * found.high:+.1f} points): "
    )
    if found.grows:
        return said + "more images still help, and do so sooner than fine-tuning"
    if found.whole >= _ENOUGH:
        return said + "little is left to win"
    prompts = [text for each in write_prompts(list(fitted.classifier.labels)) for text in each.prompts]
    cost = fine_tuning_cost(prompted.model, len(examples), prompts)
    return (
        f"{said}more images like these help little. A larger model may (nshot models), or fine-tuning: at "
        f"least {_time(cost.whole)} of processor time here for all weights, {_time(cost.text)} for the text "
        f"tower, which\nnshot curve {data} --fine-tune measures beside this classifier"
    )


def _time(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"


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
