"""The image that a table means: the name as it is written first, then as people and programs change it.

A table that was written on another machine names images with backslashes, with blanks around them, without
their ending, without their folder or with a folder of long ago. What had to be changed is noted once, and a
change that could mean two files means none.
"""

# Names stay as they were typed, odd bytes included: pathlib would rewrite them.
# ruff: noqa: PTH113, PTH118, PTH120, PTH122, PTH119

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from nshot.errors import SourceError
from nshot.images import folders
from nshot.images.kinds import IMAGES, is_image_name
from nshot.paths import as_url, as_written

_MOST = 100_000  # files that are looked through for names without their folder
_LONGEST = 2**15  # characters of a name; no system has longer paths
_DEEPEST = 64  # folders at a name's front that are left out on trial
_BLANKS = "blanks around them are left out"
_BACKSLASHES = "backslashes are read as slashes"
_ASIDE = frozenset(
    [
        "annotations",
        "annotation",
        "labels",
        "label",
        "splits",
        "split",
        "lists",
        "list",
        "metadata",
        "meta",
        "csv",
        "data",
        "json",
    ]
)


class Resolver:
    """Names in a table -> files.

    Args:
        folder: the table's own.
        root: the folder that names are relative to, where the person says so.
        encoding: the table's, so that names on disk in the same one are found.

    Attributes:
        notes: what had to be changed in names, each once.
    """

    def __init__(
        self, folder: str, root: str | os.PathLike[str] | None = None, encoding: str = "utf-8"
    ) -> None:
        if root is not None and not os.path.isdir(root):  # noqa: PTH112
            raise SourceError(f"--image-root {os.fspath(root)}: no such folder")
        self.notes: list[str] = []
        self._own = folder
        self._roots = [folder] if root is None else [os.fspath(root)]
        self._here = root is None
        name = os.path.basename(os.path.abspath(folder)).lower()  # noqa: PTH100
        if root is None and name in _ASIDE:
            self._roots.append(os.path.join(folder, os.pardir))
        self._encoding = encoding
        self._dropped: str | None = None  # what is left out at the front of every name
        self._under: dict[str, list[str]] | None = None

    def written(self, name: str) -> str:
        """Where a name points as it is written."""
        return os.path.join(self._roots[0], name)

    def find(self, name: str) -> str | None:
        """The file that a name means, or None.

        Raises:
            LookupError: it could mean several files, which are named.
        """
        if len(name) > _LONGEST:
            return None
        if os.path.isfile(path := self.written(name)):
            return path
        own = as_written(name)  # out of a table that nshot wrote
        if own != name and os.path.isfile(path := self.written(own)):
            return path
        if self._here and os.path.isfile(own) and os.path.dirname(own):
            return self._noted(own, "they are relative to the working folder, not to the table's")
        for spelling, change in self._spellings(name):
            for root in self._roots:
                path = os.path.join(root, spelling)
                if os.path.isfile(path):
                    return self._noted(path, change)
                if (whole := self._completed(path)) is not None:
                    return self._noted(whole, change, "their endings are supplied")
            if (found := self._elsewhere(spelling)) is not None:
                return self._noted(found, change)
        return None

    def _noted(self, path: str, *changes: str) -> str:
        for change in changes:
            if change and change not in self.notes:
                self.notes.append(change)
        return path

    def _spellings(self, name: str) -> Iterator[tuple[str, str]]:
        """The name and what it may have been before a program changed it, with what was changed."""
        yield name, ""
        bare = name.strip().strip("\"'")
        if bare != name:
            yield bare, _BLANKS
        turned = re.sub(r"^[A-Za-z]:", "", bare.replace("\\", "/"))
        if turned != bare:
            yield turned, _BACKSLASHES
        if "://" in turned or "%" in turned or "?" in turned:
            parts = _split(turned)
            local = (parse_qs(parts.query).get("d") or [unquote(parts.path)])[0]
            yield local, "the path is taken out of the address"
            turned = local
        if not turned.isascii() and self._encoding == "cp1252":
            yield os.fsdecode(turned.encode("cp1252", "replace")), "in Windows-1252 as the table is"
        if hashed := re.fullmatch(r"(.*/)?[0-9a-f]{8}-(.+)", turned):
            yield (hashed[1] or "") + hashed[2], "the digits that Label Studio puts in front are left out"

    def _completed(self, path: str) -> str | None:
        """The one image with this name and some ending; an ending that is there may be in the other case."""
        folder, base = os.path.split(path)
        if not base or not os.path.isdir(folder or "."):  # noqa: PTH112
            return None
        endings: tuple[str, ...] = IMAGES
        if is_image_name(base):
            path, ending = os.path.splitext(path)
            endings = (ending.lower(),)
        found = {}
        for ending in endings:
            for each in (ending, ending.upper()):
                if os.path.isfile(path + each):
                    held = os.stat(path + each)  # noqa: PTH116
                    found[held.st_dev, held.st_ino] = path + each
        return _only(base, list(found.values()))

    def _elsewhere(self, name: str) -> str | None:
        """A name with folders below other folders, or a name without a folder in some folder below."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts:
            return None
        if len(parts) == 1:
            return None if "\\" in name else self._below(parts[0])
        if self._dropped is not None:
            if not name.startswith(self._dropped):
                return None
            return self._at(name[len(self._dropped) :])
        for count in range(1, min(len(parts), _DEEPEST)):
            rest = "/".join(parts[count:])
            if (path := self._at(rest)) is not None:
                self._dropped = name[: len(name) - len(rest)]
                self._noted(path, f"{self._dropped!r} at their front is left out")
                return path
        return None

    def _at(self, name: str) -> str | None:
        for root in self._roots:
            path = os.path.join(root, name)
            if os.path.isfile(path):
                return path
            if (path := self._completed(path) or "") != "":
                return path
        return None

    def _below(self, base: str) -> str | None:
        """The one image of this name in the folders below."""
        if self._under is None:
            self._under = self._indexed()
        found = _only(base, self._under.get(base, []))
        if found is None and not is_image_name(base):
            found = _only(base, self._under.get(base + "\0", []))
        if found is not None:
            folder = os.path.relpath(os.path.dirname(found), self._roots[0])
            if not any(note.startswith("they are found in") for note in self.notes):
                self._noted(
                    found, f"they are found in folders below, such as {folder}/ (--image-root names one)"
                )
        return found

    def _indexed(self) -> dict[str, list[str]]:
        """Paths of images by their name, and by their name without its ending (a zero byte behind it)."""
        index: dict[str, list[str]] = {}
        for root in self._roots:
            for number, (path, error) in enumerate(folders.walk(root)):
                if number >= _MOST:
                    return {}
                base = os.path.basename(path)
                if error is None and is_image_name(base):
                    index.setdefault(base, []).append(path)
                    index.setdefault(os.path.splitext(base)[0] + "\0", []).append(path)
            if index:
                break
        return index


class InStore:
    """Names in a table of an object store -> URLs; nothing is looked at.

    Args:
        table: the table's URL.
        root: the folder or URL that names are relative to; None: the table's own.

    Attributes:
        notes: what had to be changed in names, each once.
    """

    def __init__(self, table: str, root: str | os.PathLike[str] | None = None) -> None:
        self.notes: list[str] = []
        base = table.rpartition("/")[0] if root is None else as_url(root)
        self._base = base.rstrip("/")

    def written(self, name: str) -> str:
        """Where a name points as it is written."""
        return f"{self._base}/{as_written(name).removeprefix('./').lstrip('/')}"

    def find(self, name: str) -> str:
        """What a name means: backslashes and blanks around it are another system's."""
        bare = name.strip()
        turned = bare.replace("\\", "/")
        for changed, note in ((bare != name, _BLANKS), (turned != bare, _BACKSLASHES)):
            if changed and note not in self.notes:
                self.notes.append(note)
        return self.written(turned)


def _only(base: str, found: list[str]) -> str | None:
    if len(found) > 1:
        raise LookupError(f"{base!r} could be {found[0]} or {found[1]}: write the folder and the ending")
    return found[0] if found else None


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # such as a bracket that is no address: a name like any other
        return SplitResult("", "", url, "", "")
