"""Images with the labels that they are to be sorted or tagged by: out of a model, or out of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import click

from nshot.cli.options import (
    Command,
    DecisionOptions,
    JournalOptions,
    LabelOptions,
    Listing,
    ModelOptions,
    progress,
    tell_remarks,
)
from nshot.cli.refusing import leave_out
from nshot.cli.staged import CascadeOptions, say_sent, staged
from nshot.errors import RequestError
from nshot.images.remarks import Remarks
from nshot.paths import as_written
from nshot.types import Decided, Failure

Labelled: TypeAlias = "list[tuple[Path, tuple[str, ...]]]"
Failed: TypeAlias = "list[tuple[str, str]]"


def table_option(command: Command) -> Command:
    """Add --table; the command gets ``table``."""
    option: Command = click.option(
        "--table",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Labels from a table in place of a model: nshot's answers, perhaps corrected, or any other.",
    )(command)
    return option


def labelled(
    table: Path | None,
    sources: Sequence[str],
    label_options: LabelOptions,
    classifier_file: Path | None,
    decision_options: DecisionOptions,
    model_options: ModelOptions,
    cascade_options: CascadeOptions,
    *,
    listing: Listing,
    journal_options: JournalOptions,
    several: bool = True,
    quiet: bool,
    verbose: bool,
) -> tuple[Labelled, Failed, Sequence[str]]:
    """Every image that is a file with its labels, what failed, and all labels: of a table, else of a model.

    Args:
        table: a table of labels in place of a model.
        sources: the images.
        label_options: the labels.
        classifier_file: a classifier in place of labels.
        decision_options: what is rejected; without a rule or a classifier, the background rule.
        model_options: the model.
        cascade_options: a smaller model before it.
        listing: how the images are listed.
        journal_options: what somebody has put right on the page.
        several: an image may have several labels.
        quiet: say nothing.
        verbose: say more.
    """
    if table is not None:
        leave_out(
            "the labels are those of --table",
            first=cascade_options.first,
            agree=cascade_options.agree,
            **given(label_options, classifier_file, decision_options, journal_options),
        )
        found, failed = _of_table(table, sources, listing.image_root)
        return found, failed, list(dict.fromkeys(label for _, own in found for label in own))
    usual = (classifier_file, decision_options.reject, decision_options.coverage) == (None, None, None)
    if usual and not decision_options.multi:
        decision_options = replace(decision_options, reject="background")
    from nshot.cli.asking import ask

    model_options = listing.over(model_options, sources)
    if cascade_options.first is not None and "-" in sources:
        raise RequestError("a list on standard input does not go with --first")
    embedder, classifier = ask(
        label_options, classifier_file, decision_options, model_options, quiet=quiet, verbose=verbose
    )
    if cascade_options.first is not None:
        embedder, classifier = staged(
            cascade_options,
            embedder,
            classifier,
            label_options,
            decision_options,
            model_options,
            quiet=quiet,
        )
    if not several and classifier.several is not None:
        raise RequestError(
            "an image with several labels has no folder of its own: nshot tag writes them as keywords"
        )
    answered: Labelled = []
    failed = []
    remarks = Remarks()
    listed = listing.open(embedder, sources, remarks)
    images = remarks.noting(embedder.embed_images(listed))
    answers = classifier.stream(images, top_k=1)
    if (words := journal_options.words()) is not None:
        from nshot.server.session import taking_away

        answers = taking_away.answers(classifier, images, words, top_k=1, only=journal_options.corrected)
    labels = dict.fromkeys(classifier.labels)
    for answer in progress(answers, shown=not quiet, sources=sources):
        if isinstance(answer, Failure):
            failed.append((answer.source, answer.message))
        elif not Path(answer.source).is_file():
            failed.append((answer.source, "it is not a file on disk"))
        else:
            own = answer.labels if isinstance(answer, Decided) else (answer.label,) if answer.label else ()
            labels.update(dict.fromkeys(own))
            answered.append((Path(answer.source), own))
    tell_remarks(remarks, quiet=quiet)
    say_sent(embedder, quiet=quiet)
    return answered, failed, list(labels)


def given(
    label_options: LabelOptions,
    classifier_file: Path | None,
    decision_options: DecisionOptions,
    journal_options: JournalOptions,
) -> dict[str, object]:
    """What was given of a model's labels, by the options' names."""
    return {
        "labels": label_options.labels,
        "labels_file": label_options.labels_file,
        "label_vectors": label_options.label_vectors,
        "template": label_options.template,
        "templates": label_options.templates,
        "classifier": classifier_file,
        "multi": decision_options.multi,
        "coverage": decision_options.coverage,
        **decision_options.rules,
        "journal": journal_options.journal_file,
        "corrected": journal_options.corrected,
        "facet": journal_options.facet,
    }


def _of_table(table: Path, sources: Sequence[str], root: Path | None) -> tuple[Labelled, Failed]:
    """The images that a table names, with its labels, and those that are not there.

    Args:
        table: a table of images and labels; names are as they are written, or relative to the table's folder.
        sources: files or folders to which images must belong; any image if none.
        root: the folder that names are relative to, in the place of the table's.

    Raises:
        SourceError: no such table, or no such columns in it.
    """
    from nshot.datasets.corrections import read_corrections

    within = [Path(source).absolute() for source in sources]
    found: Labelled = []
    failed: Failed = []
    for written, labels in read_corrections(table).items():
        image = next((path for path in _meant(written, root or table.parent) if path.is_file()), None)
        if image is None:
            failed.append((written, "no such file"))
        elif not within or any(place in (image.absolute(), *image.absolute().parents) for place in within):
            found.append((image, labels))
    if not found and not failed:
        raise RequestError(f"{table} names no image{f' in {chr(32).join(sources)}' if sources else ''}")
    return found, failed


def _meant(written: str, folder: Path) -> list[Path]:
    """The files that a name in a table may mean: as it is, and as nshot spells odd names in its outputs."""
    names = dict.fromkeys((written, as_written(written)))
    return [place for name in names for place in (Path(name), folder / name)]
