"""`nshot tag`: labels into the keywords of XMP sidecars, and back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.help import Command
from nshot.cli.kinds import kind_of
from nshot.cli.labelling import Labelled, given, labelled, table_option
from nshot.cli.options import (
    DecisionOptions,
    JournalOptions,
    LabelOptions,
    Listing,
    ModelOptions,
    classifier_option,
    decision_options,
    journal_options,
    label_options,
    listing_options,
    model_options,
    say,
    talk_options,
)
from nshot.cli.options.talk import echo, tell_failed
from nshot.cli.refusing import leave_out
from nshot.cli.staged import CascadeOptions, cascade_options
from nshot.errors import RequestError
from nshot.paths import spelled

if TYPE_CHECKING:
    from nshot.output.tagging import Tag
    from nshot.output.tagging.tagging import Naming

_SHOWN = 5  # sidecars of a plan that are named, at most


@click.command(
    "tag", cls=Command, short_help="Write labels as keywords that photo managers read, or undo that."
)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--write", is_flag=True, help="Do it: write the sidecars.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option(
    "--undo",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Take back the last tagging in FOLDER.",
)
@click.option(
    "--sidecar",
    "naming",
    type=click.Choice(["full", "stem"]),
    default="full",
    show_default=True,
    help="How new sidecars are named. full: photo.jpg.xmp (darktable, digiKam); stem: photo.xmp (Lightroom).",
)
@table_option
@listing_options
@label_options
@classifier_option
@decision_options
@model_options
@cascade_options
@journal_options
@talk_options
def command(
    sources: tuple[str, ...],
    write: bool,
    dry_run: bool,
    undo: Path | None,
    naming: Naming,
    table: Path | None,
    listing: Listing,
    label_options: LabelOptions,
    classifier_file: Path | None,
    decision_options: DecisionOptions,
    model_options: ModelOptions,
    cascade_options: CascadeOptions,
    journal_options: JournalOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Write labels as keywords into XMP sidecars, where Lightroom, darktable and digiKam look.

    Says what it would write, and writes nothing until --write is given. Images are not changed; keywords and
    edits that a sidecar has already stay as they are; everything can be undone. Images without an answer get
    no keyword: unless --reject or a calibrated classifier says otherwise, those that seem to show none of the
    labels are told by the background rule. A label with levels, such as animal/dog, becomes a hierarchical
    keyword.

    \b
    nshot tag photos/ --labels "cat, dog"            # what would be written
    nshot tag photos/ --labels "cat, dog" --write
    nshot tag --table corrected.csv --write
    nshot tag --undo photos/

    Exit status: 0 all tagged, 1 some images failed or were left alone, 2 the request itself was wrong.
    """
    if undo is not None and dry_run:
        raise RequestError("--undo takes back at once: leave out --dry-run")
    if undo is not None:
        leave_out(
            "--undo takes back what was tagged",
            table=table,
            **given(label_options, classifier_file, decision_options, journal_options),
        )
        return _undo(undo, sources)
    journal_options.check()
    kind = kind_of(classifier_file=classifier_file, multi=decision_options.multi)
    cascade_options.check(kind, classifier_file)
    missing = "leave out --dry-run" if write else "add --write"
    write = write and not dry_run
    if not sources and table is None:
        raise RequestError("name the images to tag, or a table of their labels with --table")

    from nshot.output.tagging import plan_tags, write_tags

    images, failed, _ = labelled(
        table,
        sources,
        label_options,
        classifier_file,
        decision_options,
        model_options,
        cascade_options,
        listing=listing,
        journal_options=journal_options,
        quiet=quiet,
        verbose=verbose,
    )
    tags, unfit = plan_tags(images, naming=naming)
    failed += unfit
    _tell(images, tags, write)
    if write:
        folders: dict[Path, list[Tag]] = {}
        for tag in tags:
            folders.setdefault(_root(tag.sidecar, sources), []).append(tag)
        for folder, own in folders.items():
            failed += write_tags(own, folder)
        for folder in folders:
            echo(f"\nto take it back: nshot tag --undo {spelled(str(folder))}")
    elif tags:
        echo(f"\nnothing was written: {missing}")
    for source, reason in () if quiet else failed:
        tell_failed(source, reason)
    if not images and not failed:
        raise RequestError(f"no image to tag in {' '.join(sources)}")
    return 1 if failed else 0


def _root(sidecar: Path, sources: tuple[str, ...]) -> Path:
    """The folder whose journal knows the sidecar: the outermost one that was named, else its own."""
    above = sidecar.absolute().parents
    named = [path for path in (Path(source).absolute() for source in sources) if path in above]
    return min(named, key=lambda path: len(path.parts)) if named else sidecar.absolute().parent


def _tell(images: Labelled, tags: list[Tag], write: bool) -> None:
    counts = Counter(label for _, labels in images for label in labels)
    answered = sum(bool(labels) for _, labels in images)
    made = sum(tag.before is None for tag in tags)
    echo(
        f"{answered:,} of {len(images):,} images have a label; {len(tags):,} sidecars "
        f"{'to write' if write else 'would be written'}: {made:,} new, {len(tags) - made:,} extended"
    )
    width = max((len(spelled(label)) for label in counts), default=0)
    for label, count in sorted(counts.items()):
        echo(f"  {spelled(label):{width}}  {count:,}")
    if not write and tags:
        echo("")
        for tag in tags[:_SHOWN]:
            echo(f"  {spelled(str(tag.sidecar))}: {spelled(', '.join(tag.labels))}")
        if len(tags) > _SHOWN:
            echo(f"  ... and {len(tags) - _SHOWN:,} more")


def _undo(folder: Path, sources: tuple[str, ...]) -> int:
    from nshot.output.tagging import undo_tags

    if sources:
        raise RequestError(
            "name only the folder whose last tagging is to be taken back: nshot tag --undo FOLDER"
        )
    undone = undo_tags(folder)
    echo(f"{undone.restored:,} sidecars are as they were")
    for path, reason in undone.left:
        echo(f"left alone: {spelled(path)}: {reason}", err=True)
    if undone.earlier:
        say(f"{undone.earlier} earlier runs in {folder} can be taken back too")
    return 1 if undone.left else 0
