"""Images into folders by their labels, so that nothing is lost, overwritten or beyond undoing.

    (file, label) --plan--> Move(source, target) --journal, fsync--> copy, link or move --undo--> as it was

The whole plan is in a journal, ``TARGET/.nshot-sort.jsonl``, and on disk before the first file is touched: so
whatever a kill leaves behind, ``undo`` knows every place where a file can be.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nshot.errors import OutputError, brief
from nshot.output.sorting.journal import JOURNAL, Mode, Move, Run, open_journal, planned, sync_folder
from nshot.output.sorting.names import UNSURE, folded, free_name
from nshot.types import DEFAULT_LIMITS

_TAKEN = "another file has taken its old place"


@dataclass(frozen=True, slots=True)
class Undone:
    """What ``undo`` did.

    Attributes:
        restored: files that are back, or copies that are gone.
        left: (path below the target, why it was left alone).
        earlier: runs that can still be undone.
    """

    restored: int
    left: tuple[tuple[str, str], ...]
    earlier: int


def plan(files: Iterable[tuple[Path, str | None]], target: Path, folders: Mapping[str, str]) -> list[Move]:
    """Where each file goes; nothing is touched.

    A name that is taken in its folder, by a file that is there or by another that comes, gets a number. A
    file that is named twice goes once, and one that is in the target already stays. The sidecars of an image,
    ``photo.jpg.xmp`` and ``photo.xmp``, go with it, and keep their names beside it.

    Args:
        files: each file with its label, or None for ``unsure``.
        target: the folder of folders; need not exist.
        folders: each label's folder, from ``folder_names``.

    Raises:
        OutputError: the target cannot be a folder, or what it holds cannot be looked at.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100  (resolve would follow the links that are sorted)
    taken: dict[str, set[str]] = {}
    last: dict[str, dict[str, int]] = {}
    moves: dict[Path, Move] = {}
    for file, label in files:
        source = Path(os.path.abspath(file))  # noqa: PTH100
        if source in moves or target in source.parents:
            continue
        folder = UNSURE if label is None else folders[label]
        if folder not in taken:
            taken[folder] = _names_in(target / folder)
        sidecars = {path: ending for path, ending in _sidecars(source) if path not in moves}
        numbers = last.setdefault(folder, {})
        name = free_name(source.name, taken[folder], numbers, sidecars.values())
        stem = name.removesuffix(source.suffix)
        moves[source] = Move(source, Path(folder) / name)
        for sidecar, ending in sidecars.items():
            moves[sidecar] = Move(sidecar, Path(folder) / (stem + ending), sidecar=True)
        taken[folder] |= {folded(name), *(folded(stem + ending) for ending in sidecars.values())}
    return list(moves.values())


def _names_in(folder: Path) -> set[str]:
    try:
        return {folded(path.name) for path in folder.iterdir()}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:  # a file stands there, or no folder can have such a name
        why = getattr(error, "strerror", None) or brief(error)
        raise OutputError(f"nothing can be sorted into {str(folder)[:300]}: {why}") from error


def _sidecars(image: Path) -> list[tuple[Path, str]]:
    """The sidecars of an image that are there, and what stands behind the image's stem in their names."""
    endings = (f"{image.suffix}.xmp", ".xmp", f"{image.suffix}.XMP", ".XMP")
    found: list[tuple[Path, str]] = []
    for ending in endings:
        path = image.with_name(image.stem + ending)
        if path.is_file() and not any(path.samefile(other) for other, _ in found):
            found.append((path, ending))
    return found


def carry_out(
    moves: Iterable[Move], target: Path, mode: Mode, *, done: Callable[[Move], None] | None = None
) -> list[tuple[Move, str]]:
    """Copy, link or move the files, journal first.

    A move within a file system is one rename, so a file is always in exactly one of both places. Between two
    file systems it is copied, brought to disk and only then removed. Links are symbolic.

    Args:
        moves: the plan.
        target: the folder of folders; made if it is not there.
        mode: what to do.
        done: called after each file.

    Returns:
        (move, reason) of each file that could not be carried out; it stays where it was.

    Raises:
        OutputError: the target cannot be written, or another sort is at work in it.
    """
    moves = list(moves)
    target = Path(os.path.abspath(target))  # noqa: PTH100
    failed = [(move, "it is not there any more") for move in moves if not move.source.exists()]
    gone = {move.source for move, _ in failed}
    moves = [move for move in moves if move.source not in gone]
    if not moves:
        return failed
    try:
        journaled = planned(moves, target, mode)
        target.mkdir(parents=True, exist_ok=True)
        with open_journal(target) as journal:
            run = len(journal.runs())
            journal.write(journaled)
            journal.sync()  # from here on, whatever happens can be undone
            for folder in journaled["folders"]:
                (target / folder).mkdir()
            for number, move in enumerate(moves):
                try:
                    _put(move.source, target / move.target, mode, _part(target, run, number))
                except OSError as error:
                    failed.append((move, error.strerror or str(error)))
                    journal.write({"failed": number})
                if done is not None:
                    done(move)
            for folder in {target, *(target / move.target.parent for move in moves)}:
                sync_folder(folder)
    except OSError as error:
        raise OutputError(f"cannot sort into {target}: {error.strerror or error}") from error
    return failed


def undo(target: Path, sources: Sequence[Path] = (), *, memory: int = DEFAULT_LIMITS.memory) -> Undone:
    """Take back the last run, finished or interrupted; an undo that was interrupted itself goes on.

    Only what lies below the target and below the folders that are named is touched. A journal that this
    person's nshot wrote, and nobody changed since, may also move files back to where it took them from.

    Moved files go back, with the times of their folders; copies and links go if nobody changed them; folders
    that the run made go if they are empty. What cannot be taken back safely is left alone and told.

    Args:
        target: the folder that was sorted into.
        sources: the folders that files go back to.
        memory: the most bytes that a journal may take which this person's nshot did not write.

    Raises:
        OutputError: nothing to undo there, it cannot be written, or the journal points elsewhere.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100
    if not (target / JOURNAL).exists():
        raise OutputError(f"nothing to undo in {target}: there is no {JOURNAL}")
    left: list[tuple[str, str]] = []
    try:
        with open_journal(target) as journal:
            runs = journal.runs(memory)
            standing = [run for run in runs if not run.undone]
            taken_back, restored = standing[-1:], 0
            for run in taken_back:
                elsewhere = None if run.sealed else run.elsewhere(target, sources)
                if elsewhere is not None:
                    raise OutputError(
                        f"{target / JOURNAL} was not written by you on this machine, or was changed since, "
                        f"and it points to {elsewhere}: nothing is undone. If that is right, name the folder "
                        f"too: nshot sort --undo {elsewhere} {target}"
                    )
                for number in reversed(range(len(run.items))):
                    why = _take_back(run, number, target)
                    if why is None:
                        restored += 1
                    elif why:
                        left.append((run.items[number]["target"], why))
                for folder in run.folders:
                    with suppress(OSError):
                        (target / folder).rmdir()
                run.restore_times()  # before it counts as undone: an undo may be killed as well
                if _TAKEN not in dict(left).values():  # else it can be asked again when the place is free
                    journal.write({"undone": run.number})
                    journal.sync()
                    standing.pop()
            if not standing:
                journal.remove()
                for path in [path for run in reversed(runs) for path in reversed(run.made)]:
                    with suppress(OSError):
                        Path(path).rmdir()
            for run in taken_back:  # again, as the target may have been made in one of these folders
                run.restore_times()
    except OSError as error:
        raise OutputError(f"cannot undo in {target}: {error.strerror or error}") from error
    return Undone(restored, tuple(left), len(standing))


# One file


def _put(source: Path, target: Path, mode: Mode, part: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "something has appeared in its place", str(target))
    if mode == "link":
        target.symlink_to(source)
    elif mode == "copy":
        _copy(source, target, part, follow=True)
    else:
        if source.is_symlink() and not source.readlink().is_absolute():
            raise OSError(errno.EINVAL, "it is a relative link, which would lead nowhere from there")
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, target, part, follow=False)
            try:
                source.unlink()
            except OSError:
                target.unlink()
                raise


def _copy(source: Path, target: Path, part: Path, *, follow: bool) -> None:
    """The whole file or nothing at the target, with its times, on disk before this returns."""
    try:
        shutil.copy2(source, part, follow_symlinks=follow)
        if not part.is_symlink():
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(target.parent)


def _take_back(run: Run, number: int, target: Path) -> str | None:
    """None: it is as it was. Otherwise why it was left alone; "" where there was nothing to take back."""
    item = run.items[number]
    source, sorted_to = Path(item["source"]), target / item["target"]
    if not Path(os.path.realpath(sorted_to.parent)).is_relative_to(os.path.realpath(target)):
        return "a link in its place leads out of the folder"
    part = _part(target, run.number, number)
    part.unlink(missing_ok=True)
    if number in run.failed:
        return ""
    if not os.path.lexists(sorted_to):
        return "" if run.mode != "move" or os.path.lexists(source) else "it is in neither place any more"
    if run.mode == "link":
        if not (sorted_to.is_symlink() and sorted_to.readlink() == source):
            return "it is no longer the link that was made"
        sorted_to.unlink()
    elif run.mode == "copy":
        known = sorted_to.lstat()
        if (known.st_size, known.st_mtime_ns) != (item["size"], item["mtime_ns"]):
            return "the copy was changed since"
        sorted_to.unlink()
    elif os.path.lexists(source):
        if not _same(source, sorted_to):
            return _TAKEN
        sorted_to.unlink()  # killed between the copy and the removal that move a file to another file system
    else:
        source.parent.mkdir(parents=True, exist_ok=True)
        _put(sorted_to, source, "move", source.parent / part.name)
    return None


def _same(first: Path, second: Path) -> bool:
    if first.lstat().st_size != second.lstat().st_size:
        return False
    if first.is_symlink() or second.is_symlink():
        return first.is_symlink() and second.is_symlink() and first.readlink() == second.readlink()
    with first.open("rb") as one, second.open("rb") as other:
        while chunk := one.read(1 << 20):
            if chunk != other.read(len(chunk)):
                return False
    return True


def _part(target: Path, run: int, number: int) -> Path:
    """Where a copy grows; on the target's own file system, and known to undo."""
    return target / f".nshot-sort-{run}-{number}.part"
