"""`nshot sort`: images into one folder per label, and back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.help import Command
from nshot.cli.kinds import kind_of
from nshot.cli.labelling import given, labelled, table_option
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
    from nshot.output.sorting import Mode, Move

_SHOWN = 5  # moves told of a plan, at most


@click.command("sort", cls=Command, short_help="Sort images into one folder per label, or undo that.")
@click.argument("paths", nargs=-1, required=True, metavar="[SOURCE...] TARGET")
@click.option(
    "--copy", "mode", flag_value="copy", type=click.Choice(["copy", "link", "move"]), help="Do it: copy."
)
@click.option("--link", "mode", flag_value="link", help="Do it: symbolic links.")
@click.option("--move", "mode", flag_value="move", help="Do it: move.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--undo", "take_back", is_flag=True, help="Take back the last sort into TARGET.")
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
    paths: tuple[str, ...],
    mode: Mode | None,
    dry_run: bool,
    take_back: bool,
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
    """Sort images into TARGET, a folder per label, and unsure/ for what has no single answer.

    Says what it would do, and does nothing until --copy, --link or --move is given. Nothing is overwritten,
    and everything can be undone. Without --reject or a calibrated classifier, images that seem to show
    none of the labels are told by the background rule; --reject off sorts every image. An image's sidecars
    (photo.jpg.xmp, photo.xmp) go with it.

    \b
    nshot sort photos/ sorted/ --labels "cat, dog"           # what would happen
    nshot sort photos/ sorted/ --labels "cat, dog" --move
    nshot sort sorted/ --table corrected.csv --move
    nshot sort --undo sorted/
    nshot sort --undo photos/ sorted/                        # sorted elsewhere, or by somebody else

    Exit status: 0 all sorted, 1 some images failed or were left alone, 2 the request itself was wrong.
    """
    if take_back and dry_run:
        raise RequestError("--undo takes back at once: leave out --dry-run")
    if take_back:
        leave_out(
            "--undo takes back what was sorted",
            table=table,
            **given(label_options, classifier_file, decision_options, journal_options),
        )
        return _undo(paths, model_options.limits.memory)
    journal_options.check()
    kind = kind_of(classifier_file=classifier_file, multi=decision_options.multi)
    cascade_options.check(kind, classifier_file)
    *sources, last = paths
    target = Path(last)
    if not sources and table is None:
        raise RequestError("name the images and then the folder to sort them into")
    if target.exists() and not target.is_dir():
        raise RequestError(f"{target} is not a folder: the last path is where the images go")

    from nshot.output.sorting import UNSURE, carry_out, folder_names, plan

    answered, failed, labels = labelled(
        table,
        sources,
        label_options,
        classifier_file,
        decision_options,
        model_options,
        cascade_options,
        listing=listing,
        journal_options=journal_options,
        several=False,
        quiet=quiet,
        verbose=verbose,
    )
    files = [(image, own[0] if len(own) == 1 else None) for image, own in answered]
    moves = plan(files, target, folder_names(labels))
    missing = "add --copy, --link or --move" if mode is None else "leave out --dry-run"
    mode = None if dry_run else mode
    _tell(moves, target, mode)
    if mode is not None:
        given_up = carry_out(moves, target, mode)
        failed += [(str(move.source), reason) for move, reason in given_up]
        if len(moves) > len(given_up):
            echo(f"\nto take it back: nshot sort --undo {target}")
    elif moves:
        echo(f"\nnothing was done: {missing}")
    for source, reason in () if quiet else failed:
        tell_failed(source, reason)
    images_moved = [move for move in moves if not move.sidecar]
    unsure = sum(move.target.parent.name == UNSURE for move in images_moved)
    if table is None and unsure > len(images_moved) / 2 and not quiet:
        say(
            "more than half have no answer. If they should, calibrate on some labelled images; for "
            'wide labels such as "animal", name other things with --background, or use --reject off'
        )
    if not moves and not failed:
        raise RequestError(f"no image to sort in {' '.join(sources)}")
    return 1 if failed else 0


def _tell(moves: list[Move], target: Path, mode: Mode | None) -> None:
    sidecars = [move for move in moves if move.sidecar]
    moves = [move for move in moves if not move.sidecar]
    counts = Counter(str(move.target.parent) for move in moves)
    done = {None: "would be sorted", "copy": "to copy", "link": "to link", "move": "to move"}[mode]
    along = f", and {len(sidecars):,} sidecars with them" if sidecars else ""
    echo(f"{len(moves):,} images {done} into {target}{along}")
    width = max((len(folder) for folder in counts), default=0)
    for folder, count in sorted(counts.items()):
        echo(f"  {folder + '/':{width + 1}}  {count:,}")
    if mode is None and moves:
        echo("")
        for move in moves[:_SHOWN]:
            echo(f"  {spelled(str(move.source))} -> {spelled(str(target / move.target))}")
        if len(moves) > _SHOWN:
            echo(f"  ... and {len(moves) - _SHOWN:,} more")


def _undo(paths: tuple[str, ...], memory: int) -> int:
    from nshot.output.sorting import undo

    *sources, target = map(Path, paths)
    undone = undo(target, sources, memory=memory)
    echo(f"{undone.restored:,} images taken back")
    for path, reason in undone.left:
        echo(f"left alone: {spelled(path)}: {reason}", err=True)
    if undone.earlier:
        say(f"{undone.earlier} earlier sorts into {target} can be taken back too")
    return 1 if undone.left else 0
