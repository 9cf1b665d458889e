"""`nshot duplicates`: images of which one is enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nshot.cli.help import Command
from nshot.cli.options import say, tell_failure
from nshot.cli.options.talk import echo, tell_failed
from nshot.cli.searched import Asked, asked_options
from nshot.errors import RequestError
from nshot.paths import spelled

if TYPE_CHECKING:
    from nshot.search import Duplicates, Group

_COLUMNS = ("group", "kind", "best", "sources")
_SAID = {"same": "the same bytes", "copy": "the same picture", "scene": "the same scene"}


@click.command("duplicates", cls=Command, short_help="Find images of which one is enough.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(["same", "copy", "scene"]),
    multiple=True,
    help="Only this kind; repeatable.  [default: all; for --sort, same and copy]",
)
@click.option(
    "--scene",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="COSINE",
    help="Least cosine of one scene.  [default: as near as copies of these images are]",
)
@click.option(
    "--sort",
    "target",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Move all but the best image of each group there; nshot sort --undo FOLDER takes it back.",
)
@click.option("--dry-run", is_flag=True, help="With --sort: say what would be moved, and do nothing.")
@asked_options
def command(
    asked: Asked,
    kinds: tuple[str, ...],
    scene: float | None,
    target: Path | None,
    dry_run: bool,
) -> int:
    """Find duplicates of three kinds: the same bytes, the same picture, the same scene.

    The same picture is one that was resized, recompressed, converted or cropped by a few percent. How alike
    two images must be is measured on copies made of your own images, and the share of wrong pairs is told.
    The same scene is what the model can hardly tell apart. In each group every image is a duplicate of the
    best one: in colour, of most pixels, the sharpest, in a lossless format, in this order.

    \b
    nshot duplicates photos/ -o groups.jsonl
    nshot duplicates photos/ -o groups.html
    nshot duplicates photos/ --sort trash/ --dry-run

    JSONL holds a record per group: group, kind, best, sources (the best first).

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot import search

    kind = asked.kind()
    if dry_run and target is None:
        raise RequestError("--dry-run says what --sort would do: add --sort FOLDER")
    if target is not None and target.exists() and not target.is_dir():
        raise RequestError(f"{target} is not a folder")
    model = asked.load()
    photos = asked.embedded(model)
    chosen: tuple[Any, ...] = kinds or (("same", "copy") if target is not None else search.KINDS)
    found = search.duplicates(photos, embedder=model, pictures=asked.again(model), scene=scene, kinds=chosen)
    groups = list(found.groups)
    if not asked.quiet:
        _tell(found)
        for failure in found.failures:
            if failure not in photos.failures.values():
                tell_failure(failure)
    if kind == "html":
        from nshot.search.sheets import duplicates_page, shower

        shown = {name for group in groups for name in group.sources}
        page = duplicates_page(replace(found, groups=tuple(groups)), shower(asked.again(model), shown))
        asked.write_page(page)
    elif asked.output is not None or target is None:
        asked.write((group.to_dict() for group in groups), _COLUMNS, kind, _table(groups))
    given_up = 0 if target is None else _sort(groups, target, dry_run)
    return 1 if found.failures or given_up else 0


def _tell(found: Duplicates) -> None:
    measured = found.measured
    if measured.recall is not None:
        say(
            f"copies made of these images and found again: {measured.recall:.1%}, "
            f"at {measured.bits:.0%} equal bits or more"
        )
    if measured.compared or measured.found:
        say(
            f"pairs called copies: {measured.found:,}; estimated wrong: {measured.false_rate:.2%}, at most "
            f"{measured.at_most:.2%} ({measured.decoys:,} of {measured.compared:,} decoys)"
        )
    if measured.dropped:
        say("very many images are near each other: only the nearest pairs were compared")


def _table(groups: Sequence[Group]) -> Iterator[str]:

    if not groups:
        yield "no duplicates"
    for group in groups:
        yield f"{group.number}  {_SAID[group.kind]}, {len(group.sources)} images"
        for name in group.sources:
            yield f"   {'*' if name == group.best else ' '} {spelled(name)}"


def _sort(groups: Sequence[Group], target: Path, dry_run: bool) -> int:
    """Move all but the best of each group; the number of files that stayed."""
    from nshot.output.sorting import carry_out, folder_names, plan

    files: list[tuple[Path, str | None]] = []
    others = 0
    for group in groups:
        for name in group.sources[1:]:
            if Path(name).is_file():
                files.append((Path(name), group.kind))
            else:
                others += 1
    moves = plan(files, target, folder_names(dict.fromkeys(group.kind for group in groups)))
    verb = "would be moved" if dry_run else "to move"
    echo(f"{len(moves):,} images {verb} into {target}")
    for move in moves if dry_run else ():
        echo(f"  {spelled(str(move.source))} -> {spelled(str(target / move.target))}")
    if others:
        say(f"{others:,} duplicates are no files of their own, so they stay")
    if dry_run:
        echo("\nnothing was done: leave out --dry-run")
        return 0
    failed = carry_out(moves, target, "move")
    for move, reason in failed:
        tell_failed(str(move.source), reason)
    if len(moves) > len(failed):
        echo(f"to take it back: nshot sort --undo {target}")
    return len(failed)
