"""Labels and file names -> names that every usual file system takes, and that are free."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

UNSURE = "unsure"

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_LONGEST = 120  # bytes of a folder's name: room for a number behind it, on every file system


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """A folder name for each label that every usual file system takes: distinct even where case is ignored.

    ``unsure`` is kept for the files without an answer.
    """
    taken, names = {folded(UNSURE)}, {}
    for label in labels:
        name = free_name(_safe(label), taken)
        taken.add(folded(name))
        names[label] = name
    return names


def _safe(label: str) -> str:
    name = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", label).encode("utf-8", "replace").decode())
    name = re.sub(r"\s+", " ", name).strip()
    if name.startswith("."):  # would be hidden, or lead out of the folder
        name = "_" + name[1:]
    while len(name.encode()) > _LONGEST:
        name = name[:-1]
    name = name.rstrip(". ") or "_"
    return name + "_" if _RESERVED.fullmatch(name) else name


def free_name(
    name: str, taken: set[str], last: dict[str, int] | None = None, beside: Iterable[str] = ()
) -> str:
    """The name, or the first of "name (2)", "name (3)" ... that is not taken.

    Args:
        name: the name wanted.
        taken: folded names that are taken.
        last: the number that each folded name got last; with it, many equal names take no longer than others.
        beside: endings of what goes along under the same name, ".jpg.xmp" or ".xmp", to be free as well.
    """
    stem, suffix = Path(name).stem, Path(name).suffix
    number, free, own = 1, name, stem
    if last is not None and folded(name) in taken:
        number = last.get(folded(name), 1)
    while folded(free) in taken or any(folded(own + ending) in taken for ending in beside):
        number += 1
        own = f"{stem} ({number})"
        free = own + suffix
    if last is not None:
        last[folded(name)] = number
    return free


def folded(name: str) -> str:
    """What file systems that ignore case and composition take for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
