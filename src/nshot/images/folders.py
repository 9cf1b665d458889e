"""Folders and glob patterns -> the names of the files below them."""

# Names stay as they were typed, odd bytes and leading dots included: pathlib would rewrite them.
# ruff: noqa: PTH112, PTH116, PTH118, PTH207

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
from collections.abc import Iterator
from typing import TypeAlias

from nshot.images.kinds import Skipped, left_behind

# A file's name; or a folder's, and why it could not be listed.
Entry: TypeAlias = tuple[str, OSError | None]


def walk(top: str, pattern: list[str] | None = None, skipped: Skipped | None = None) -> Iterator[Entry]:
    """Everything below a folder that is neither hidden nor a folder, by name, level by level as asked for.

    Folders that an operating system leaves, such as __MACOSX, are passed over like hidden ones.

    Links to folders are followed, but each folder is listed once, so that loops end. A level's own names are
    sorted, hence held; no other memory grows with the number of files.

    Args:
        top: the folder; "" for the current one.
        pattern: a glob pattern's parts, from a ** on; only what matches them is yielded.
        skipped: where the folders that are passed over are counted.
    """
    seen: set[tuple[int, int]] = set()
    levels = [iter([""])]
    while levels:
        below = next(levels[-1], None)
        if below is None:
            levels.pop()
        elif below and not below.endswith("/"):
            if pattern is None or _fits(below.split("/"), pattern):
                yield os.path.join(top, below), None
        else:
            folder = os.path.join(top, below)
            try:
                info = os.stat(folder or ".")
                if (info.st_dev, info.st_ino) not in seen:
                    seen.add((info.st_dev, info.st_ino))
                    levels.append(iter(_names(folder or ".", below, skipped)))
            except OSError as error:
                yield folder, error


def matching(pattern: str, skipped: Skipped | None = None) -> Iterator[Entry]:
    """What a glob pattern matches, by name.

    As in a shell, a match that is a folder stands for all it holds; but what ** leads to are files alone.
    """
    parts = pattern.split("/")
    if "**" not in parts:
        found = sorted(glob.glob(pattern))
        return itertools.chain.from_iterable(
            walk(name, None, skipped) if os.path.isdir(name) else [(name, None)] for name in found
        )
    # glob's own ** follows every link to a folder, around loops as well; walk() does not.
    place = parts.index("**")
    head = "/".join(parts[:place]) or ("/" if pattern.startswith("/") else "")
    tail = [part for part, _ in itertools.groupby(parts[place:])]
    tops = sorted(glob.glob(head)) if glob.has_magic(head) else [head]
    return itertools.chain.from_iterable(
        walk(top, tail, skipped) for top in tops if os.path.isdir(top or ".")
    )


def is_pattern(name: str) -> bool:
    """Whether a name that is no file may be a glob pattern."""
    return glob.has_magic(name) and not os.path.lexists(name)


def subfolders(folder: str) -> list[str]:
    """The names of the folders in a folder that may hold somebody's images, sorted.

    Raises:
        OSError: the folder cannot be listed.
    """
    with os.scandir(folder or ".") as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry) and not left_behind(entry.name))


def _names(folder: str, below: str, skipped: Skipped | None) -> list[str]:
    """A folder's entries that are not hidden, by name, under `below`; folders end in a slash."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                names.append(below + entry.name)
            elif not left_behind(entry.name):
                names.append(f"{below}{entry.name}/")
            elif skipped is not None:
                skipped.kinds[entry.name] += 1
    return sorted(names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for one: reading it will say so
        return False


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Whether a path below the walk's top matches; ** stands for any number of folders, none included."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return len(pattern) == 1 or any(_fits(parts[skip:], pattern[1:]) for skip in range(len(parts)))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
