"""Labels that stand in the names of files: cat.0.jpg, IMG_star_12.png, 2021/fox-3.jpg."""

from __future__ import annotations

import re
from collections.abc import Callable

from nshot.errors import SourceError

_LABEL = "{label}"


def by_pattern(pattern: str) -> Callable[[str], str | None]:
    """What finds the label in a name.

    Args:
        pattern: a name with ``{label}`` where the label stands and ``*`` for anything else, such as
            "{label}_*" or "*/{label}.*.jpg"; or a regular expression with a group ``(?P<label>...)``. Without
            a slash it is held against the name alone, else against the path below the folder.

    Raises:
        SourceError: no place for a label, or no regular expression.
    """
    if "(?P<label>" in pattern:
        try:
            regex = re.compile(pattern)
        except re.error as error:
            raise SourceError(f"--label-pattern {pattern!r} is no regular expression: {error}") from error
        return lambda name: _group(regex.search(name.replace("\\", "/")))
    if pattern.count(_LABEL) != 1:
        raise SourceError(
            f"--label-pattern {pattern!r} needs {_LABEL} once, such as '{_LABEL}_*' for cat_12.jpg"
        )
    ending = "" if pattern.endswith(("*", _LABEL)) or "." in pattern.rsplit(_LABEL, 1)[1] else ".*"
    wild = pattern + (".*" if pattern.endswith(_LABEL) else ending)
    regex = re.compile(
        "".join(
            "(?P<label>[^/]+?)"
            if part == _LABEL
            else ".*"
            if part == "*"
            else "."
            if part == "?"
            else re.escape(part)
            for part in re.split(r"(\{label\}|\*|\?)", wild)
        )
    )

    def find(name: str) -> str | None:
        name = name.replace("\\", "/")
        return _group(regex.fullmatch(name if "/" in pattern else name.rsplit("/", 1)[-1]))

    return find


def _group(match: re.Match[str] | None) -> str | None:
    return match["label"].strip(" _-.") or None if match else None
