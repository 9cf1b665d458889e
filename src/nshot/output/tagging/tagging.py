"""Labels into sidecars, so that nothing is lost and everything can be taken back.

    (image, labels) --plan--> Tag(sidecar, before, after) --journal, fsync--> written --undo--> as it was

The journal, ``FOLDER/.nshot-tag.jsonl``, holds what each sidecar was before, and is on disk before the first
one is touched. Each sidecar is replaced as a whole. So whatever a kill leaves, ``undo_tags`` knows it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nshot.atomic import Lock, cut_torn_line, own_file, replacing, writing
from nshot.bounded import lines, parsed, read_regular
from nshot.errors import NONSENSE, OutputError, brief
from nshot.output.tagging.xmp import LARGEST, SidecarError, with_keywords

JOURNAL = ".nshot-tag.jsonl"

Naming: TypeAlias = Literal["full", "stem"]


@dataclass(frozen=True, slots=True)
class Tag:
    """One sidecar that gets keywords.

    Attributes:
        sidecar: its path.
        labels: what is added; those that it has already are left as they are.
        before: its bytes; None where there is none yet.
        after: its bytes with the keywords.
    """

    sidecar: Path
    labels: tuple[str, ...]
    before: bytes | None
    after: bytes


@dataclass(frozen=True, slots=True)
class TagsUndone:
    """What ``undo_tags`` did.

    Attributes:
        restored: sidecars that are as they were, or gone where there was none.
        left: (sidecar, why it was left alone).
        earlier: runs that can still be undone.
    """

    restored: int
    left: tuple[tuple[str, str], ...]
    earlier: int


def plan_tags(
    images: Iterable[tuple[Path, Sequence[str]]], *, naming: Naming = "full"
) -> tuple[list[Tag], list[tuple[str, str]]]:
    """What each sidecar becomes; nothing is touched.

    A sidecar that is there is used, whichever way it is named. Images that share one give it all their
    labels.

    Args:
        images: each image with its labels; one without labels gets nothing.
        naming: how new sidecars are named: "full" is ``photo.jpg.xmp`` (darktable, digiKam), "stem" is
            ``photo.xmp`` (Lightroom).

    Returns:
        The tags, without those that would change nothing; and (sidecar, reason) of what cannot be tagged.
    """
    wanted: dict[Path, dict[str, None]] = {}
    for image, labels in images:
        for sidecar in _sidecars(image, naming) if labels else ():
            wanted.setdefault(sidecar, {}).update(dict.fromkeys(labels))
    tags, failed = [], []
    for sidecar, own in wanted.items():
        try:
            if sidecar.is_symlink():
                raise SidecarError("it is a link: tag the images beside the file that it leads to")
            before = read_regular(sidecar) if os.path.lexists(sidecar) else None
            after = with_keywords(before, tuple(own))
        except (OSError, SidecarError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            failed.append((str(sidecar), reason))
            continue
        if after != before:
            tags.append(Tag(sidecar, tuple(own), before, after))
    return tags, failed


def write_tags(
    tags: Iterable[Tag], folder: Path, *, done: Callable[[Tag], None] | None = None
) -> list[tuple[str, str]]:
    """Write the sidecars, journal first.

    Args:
        tags: the plan; every sidecar is in the folder or below it.
        folder: where the journal is, and what ``undo_tags`` is asked for.
        done: called after each sidecar.

    Returns:
        (sidecar, reason) of each that could not be written.

    Raises:
        OutputError: the journal cannot be written, or another run is at work in the folder.
    """
    folder = folder.absolute()
    tags = list(tags)
    if not tags:
        return []
    failed = []
    journal = folder / JOURNAL
    own_file(journal)
    lock = Lock(journal)
    try:
        with writing(journal), journal.open("ab") as file:
            cut_torn_line(journal)
            file.write(_line({"version": 1, "sidecars": len(tags)}))
            for tag in tags:
                file.write(_line(_entry(tag, folder)))
            file.write(_line({"begun": True}))
            file.flush()
            os.fsync(file.fileno())  # from here on, whatever happens can be taken back
        for tag in tags:
            try:
                _put(tag.sidecar, tag.before, tag.after)
            except OutputError as error:
                failed.append((str(tag.sidecar), str(error)))
            if done is not None:
                done(tag)
    finally:
        lock.release()
    return failed


def undo_tags(folder: Path) -> TagsUndone:
    """Take back the last run, finished or interrupted; an undo that was interrupted itself goes on.

    A sidecar that somebody has changed since is left alone and told.

    Raises:
        OutputError: nothing to undo there, or it cannot be written, or the journal is damaged.
    """
    folder = folder.absolute()
    journal = folder / JOURNAL
    own_file(journal)
    if not journal.exists():
        raise OutputError(f"nothing to undo in {folder}: there is no {JOURNAL}")
    left: list[tuple[str, str]] = []
    restored = 0
    lock = Lock(journal)
    try:
        with writing(journal):
            cut_torn_line(journal)
            runs = _runs(journal)
            standing = [run for run in runs if not run.undone]
            with journal.open("rb") as file:
                for place in reversed(standing[-1].entries if standing else []):
                    file.seek(place)
                    entry = _checked(parsed(file.readline()))
                    sidecar = folder / entry["sidecar"]
                    why = _take_back(sidecar, entry)
                    if why:
                        left.append((str(sidecar), why))
                    restored += why is None
            for run in standing[-1:]:
                with journal.open("ab") as file:
                    file.write(_line({"undone": run.number}))
                    file.flush()
                    os.fsync(file.fileno())
                standing.pop()
            if not standing:
                journal.unlink()
    finally:
        lock.release()
    return TagsUndone(restored, tuple(left), len(standing))


def _sidecars(image: Path, naming: Naming) -> list[Path]:
    """The sidecars of an image that are there; else the one that would be made."""
    full, stem = image.with_name(f"{image.name}.xmp"), image.with_suffix(".xmp")
    upper = [image.with_name(f"{image.name}.XMP"), image.with_suffix(".XMP")]
    there = [path for path in (full, stem, *upper) if path.is_file()]
    distinct: list[Path] = []
    for path in there:
        if not any(path.samefile(other) for other in distinct):
            distinct.append(path)
    return distinct or [full if naming == "full" else stem]


def _entry(tag: Tag, folder: Path) -> dict[str, Any]:
    """What undoing needs; a path below the folder."""
    try:
        name = tag.sidecar.absolute().relative_to(folder)
    except ValueError:
        raise OutputError(f"{tag.sidecar} is not below {folder}") from None
    before = None if tag.before is None else base64.b64encode(zlib.compress(tag.before)).decode()
    times = None if tag.before is None else tag.sidecar.stat().st_mtime_ns
    after = hashlib.sha256(tag.after).hexdigest()
    return {"sidecar": str(name), "before": before, "mtime_ns": times, "after": after}


def _put(sidecar: Path, before: bytes | None, after: bytes) -> None:
    now = read_regular(sidecar) if sidecar.exists() else None
    if now != before:
        raise OutputError("it was changed meanwhile")
    with replacing(sidecar, locked=True) as part:
        part.write_bytes(after)


def _take_back(sidecar: Path, entry: dict[str, Any]) -> str | None:
    """None: it is as it was. Otherwise why it was left alone; "" where there was nothing to take back."""
    sidecar.with_name(f".{sidecar.name[:100]}.part").unlink(missing_ok=True)
    before = None if entry["before"] is None else _unpacked(entry["before"])
    now = read_regular(sidecar) if sidecar.exists() else None
    if now == before:
        return ""
    if now is None:
        return "it is not there any more"
    if hashlib.sha256(now).hexdigest() != entry["after"]:
        return "it was changed since"
    if before is None:
        sidecar.unlink()
        return None
    with replacing(sidecar, locked=True) as part:
        part.write_bytes(before)
        os.utime(part, ns=(entry["mtime_ns"], entry["mtime_ns"]))  # now: a kill may come right behind
    return None


# The journal


@dataclass(slots=True)
class _Run:
    number: int
    entries: list[int]  # where their lines begin: a sidecar as it was may be large
    begun: bool = False
    undone: bool = False


def _runs(journal: Path) -> list[_Run]:
    """Every run so far whose plan was on disk; one that was not has touched nothing."""
    runs: list[_Run] = []
    try:
        with journal.open("rb") as file:
            end = 0
            for line in lines(file):
                begin, end = end, end + len(line)
                entry = parsed(line)
                if "version" in entry:
                    if entry["version"] != 1:
                        raise OutputError(f"{journal} was written by a later nshot: undo with that one")
                    runs.append(_Run(len(runs), []))
                elif "begun" in entry:
                    runs[-1].begun = True
                elif "undone" in entry:
                    runs[entry["undone"]].undone = True
                else:
                    _checked(entry)
                    runs[-1].entries.append(begin)
    except (*NONSENSE, zlib.error, binascii.Error) as error:
        raise OutputError(f"{journal} is damaged ({brief(error)}): nothing was taken back") from error
    for run in runs:
        run.undone |= not run.begun
    return runs


def _checked(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry that points to a sidecar below the folder, and nowhere else."""
    name = Path(entry["sidecar"])
    if name.is_absolute() or ".." in name.parts or name.suffix.lower() != ".xmp":
        raise ValueError(f"{entry['sidecar']!r} is no sidecar below this folder")
    if entry["before"] is not None:
        _unpacked(entry["before"])
        if type(entry["mtime_ns"]) is not int or not 0 <= entry["mtime_ns"] < 2**63:
            raise ValueError("a time that is none")
    str(entry["after"]), entry["mtime_ns"]
    return entry


def _unpacked(before: str) -> bytes:
    """A sidecar as it was; more than any sidecar is an error, before it fills the memory."""
    data = zlib.decompressobj().decompress(base64.b64decode(before, validate=True), LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError("a sidecar larger than any")
    return data


def _line(entry: dict[str, Any]) -> bytes:
    return (json.dumps(entry) + "\n").encode()
