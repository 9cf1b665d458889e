"""What a sort is about to do, on disk before it does it: the one thing that undoing needs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from nshot.errors import OutputError

Mode: TypeAlias = Literal["copy", "link", "move"]

JOURNAL = ".nshot-sort.jsonl"


@dataclass(frozen=True, slots=True)
class Move:
    """One file and where it belongs.

    Attributes:
        source: absolute path of the file.
        target: its path below the target folder.
        sidecar: whether it goes along with an image, as its edits and keywords.
    """

    source: Path
    target: Path
    sidecar: bool = False


@dataclass(slots=True, eq=False)
class Run:
    """One sort, as the journal tells of it.

    Attributes:
        number: its place in the journal.
        mode: what was done.
        made: the target and what above it had to be made, outermost first.
        folders: folders below the target that had to be made.
        times: access and modification times, in ns, of the folders that files are taken from.
        items: source, target, size and mtime_ns of each file.
        failed: numbers of the items that were not carried out.
        undone: whether it was taken back.
    """

    number: int
    mode: Mode
    made: list[str]
    folders: list[str]
    times: dict[str, list[int]]
    items: list[dict[str, Any]]
    failed: set[int]
    undone: bool = False

    def restore_times(self) -> None:
        """Files came and went in these folders: let them not show it."""
        if self.mode == "move":
            for path, (accessed, modified) in self.times.items():
                with suppress(OSError):
                    os.utime(path, ns=(accessed, modified))


def planned(moves: list[Move], target: Path, mode: Mode) -> dict[str, Any]:
    """The run as the journal holds it: all that undoing needs."""
    folders = dict.fromkeys(move.target.parent for move in moves)
    items = []
    for move in moves:
        known = move.source.stat()
        items.append(
            {
                "source": str(move.source),
                "target": str(move.target),
                "size": known.st_size,
                "mtime_ns": known.st_mtime_ns,
            }
        )
    times = {}
    for folder in dict.fromkeys(move.source.parent for move in moves):
        known = folder.stat()
        times[str(folder)] = [known.st_atime_ns, known.st_mtime_ns]
    return {
        "version": 1,
        "mode": mode,
        "made": [str(path) for path in reversed((target, *target.parents)) if not path.exists()],
        "folders": [str(folder) for folder in folders if not (target / folder).exists()],
        "times": times,
        "items": items,
    }


class Journal:
    """The journal, open and locked. A line a run with its whole plan; then what failed; then "undone"."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file

    def runs(self) -> list[Run]:
        """Every run so far, in order."""
        runs: list[Run] = []
        for line in self._path.read_bytes().splitlines():
            entry = json.loads(line)
            if "items" in entry:
                if entry["version"] != 1:
                    raise OutputError(f"{self._path} was written by a later nshot: undo with that one")
                runs.append(
                    Run(
                        number=len(runs),
                        mode=entry["mode"],
                        made=entry["made"],
                        folders=entry["folders"],
                        times=entry["times"],
                        items=entry["items"],
                        failed=set(),
                    )
                )
            elif "failed" in entry:
                runs[-1].failed.add(entry["failed"])
            else:
                runs[entry["undone"]].undone = True
        return runs

    def write(self, entry: dict[str, Any]) -> None:
        """Append a line; a kill cannot take it back, a power cut can before ``sync``."""
        self._file.write((json.dumps(entry) + "\n").encode())
        self._file.flush()

    def sync(self) -> None:
        """Bring it to disk."""
        os.fsync(self._file.fileno())
        sync_folder(self._path.parent)

    def remove(self) -> None:
        """Nothing is left to undo."""
        self._path.unlink()

    def repair(self) -> None:
        """Cut off a line that a kill tore, so that what is appended stands on its own."""
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self._path, whole)


@contextmanager
def open_journal(target: Path) -> Iterator[Journal]:
    """The journal of a target folder, made if it is not there, for one process at a time.

    Raises:
        OutputError: another process has it.
    """
    path = target / JOURNAL
    with path.open("ab") as file:
        try:
            import fcntl
        except ImportError:  # Windows: no lock, and two sorts at once are the person's own care
            pass
        else:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(f"another nshot sort is at work in {target}") from error
        journal = Journal(path, file)
        journal.repair()
        yield journal


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
