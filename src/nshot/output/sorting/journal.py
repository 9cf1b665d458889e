"""What a sort is about to do, on disk before it does it: the one thing that undoing needs."""

from __future__ import annotations

import hmac
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from nshot.atomic import cut_torn_line, own_file
from nshot.bounded import parsed, weight
from nshot.errors import OutputError, brief
from nshot.seals import key_of_person
from nshot.types import DEFAULT_LIMITS

Mode: TypeAlias = Literal["copy", "link", "move"]

JOURNAL = ".nshot-sort.jsonl"

_SEAL = ', "seal": "'  # the last of a line, so that the seal is told before the rest is read
_BLOCK = 2**20


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
        sealed: whether this person's nshot wrote it, and nobody changed it since.
        undone: whether it was taken back.
    """

    number: int
    mode: Mode
    made: list[str]
    folders: list[str]
    times: dict[str, list[int]]
    items: list[dict[str, Any]]
    failed: set[int]
    sealed: bool = False
    undone: bool = False

    def elsewhere(self, target: Path, sources: Sequence[Path]) -> Path | None:
        """The first place outside of these folders that undoing would touch, links followed."""
        below = Path(os.path.realpath(target))
        for made in map(Path, self.made):
            if made != target and made not in target.parents:
                return made
        if self.mode == "move":
            given = [Path(os.path.realpath(source)) for source in sources]
            places = {Path(item["source"]).parent for item in self.items} | set(map(Path, self.times))
            for place in sorted(places):
                real = Path(os.path.realpath(place))
                if not any(real.is_relative_to(one) for one in (below, *given)):
                    return place
        return None

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

    def runs(self, memory: int = DEFAULT_LIMITS.memory) -> list[Run]:
        """Every run so far, in order.

        Args:
            memory: the most bytes that what others wrote may take.
        """
        runs: list[Run] = []
        number, seal = 0, key_of_person(make=False)
        try:
            for line, sealed in self._lines(seal, memory):
                number += 1
                entry = parsed(line)
                if "items" in entry:
                    if entry["version"] != 1:
                        raise OutputError(f"{self._path} was written by a later nshot: undo with that one")
                    runs.append(_run(len(runs), entry))
                    runs[-1].sealed = sealed or (seal is not None and entry.get("seal") == _seal(entry, seal))
                elif "failed" in entry:
                    runs[-1].failed.add(_whole(entry["failed"], len(runs[-1].items)))
                else:
                    runs[_whole(entry["undone"], len(runs))].undone = True
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise OutputError(
                f"{self._path}, line {number} is damaged, so nothing is undone ({brief(error)})"
            ) from error
        return runs

    def _lines(self, key: bytes | None, memory: int) -> Iterator[tuple[bytes, bool]]:
        """Each line, and whether its bytes are sealed; what is not is weighed before it is read whole."""
        held = 0
        with self._path.open("rb") as file:
            for begin, end in _spans(file):
                sealed = key is not None and _is_sealed(file, begin, end, key)
                held += 0 if sealed else weight(_blocks(file, begin, end))
                if held > memory:
                    raise OutputError(
                        f"reading {self._path}, which you did not write on this machine, takes more than "
                        f"{memory / 1e6:,.0f} MB: nothing is undone. Give more with --memory"
                    )
                yield b"".join(_blocks(file, begin, end)), sealed

    def write(self, entry: dict[str, Any]) -> None:
        """Append a line; a kill cannot take it back, a power cut can before ``sync``."""
        line = json.dumps(entry, sort_keys=True)
        if "items" in entry and (key := key_of_person(make=True)) is not None:
            line = f'{line.removesuffix("}")}{_SEAL}{_seal(entry, key)}"}}'
        self._file.write(f"{line}\n".encode())
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
        cut_torn_line(self._path)


def _seal(entry: dict[str, Any], key: bytes) -> str:
    said = json.dumps({name: value for name, value in entry.items() if name != "seal"}, sort_keys=True)
    return hmac.new(key, said.encode(), "sha256").hexdigest()


def _is_sealed(file: BinaryIO, begin: int, end: int, key: bytes) -> bool:
    """Whether a line is what ``Journal.write`` made with this key, told without parsing it."""
    rest = max(begin, end - len(_SEAL) - 64 - len('"}\n'))
    file.seek(rest)
    found = re.fullmatch(f'{_SEAL}([0-9a-f]{{64}})"}}\n'.encode(), file.read(end - rest))
    if found is None:
        return False
    seal = hmac.new(key, digestmod="sha256")
    for block in _blocks(file, begin, rest):
        seal.update(block)
    seal.update(b"}")
    return hmac.compare_digest(seal.hexdigest().encode(), found[1])


def _spans(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where each line begins and ends."""
    begin = place = 0
    while True:
        file.seek(place)
        block = file.read(_BLOCK)
        for found in re.finditer(b"\n", block):
            yield begin, place + found.end()
            begin = place + found.end()
        place += len(block)
        if not block:
            if begin < place:
                yield begin, place
            return


def _blocks(file: BinaryIO, begin: int, end: int) -> Iterator[bytes]:
    file.seek(begin)
    while begin < end and (block := file.read(min(_BLOCK, end - begin))):
        begin += len(block)
        yield block


def _run(number: int, entry: dict[str, Any]) -> Run:
    """A run out of its line; whatever is not as ``planned`` makes it is an error."""
    if entry["mode"] not in ("copy", "link", "move"):
        raise ValueError("an unknown mode")
    items, times = entry["items"], entry["times"]
    for item in items:
        _path(item["source"], absolute=True)
        _path(item["target"], absolute=False)
        _whole(item["size"]), _whole(item["mtime_ns"], low=-(2**63))
    for folder, pair in times.items():
        _path(folder, absolute=True)
        if len(pair) != 2:
            raise ValueError("times that are no pair")
        _whole(pair[0], low=-(2**63)), _whole(pair[1], low=-(2**63))
    return Run(
        number=number,
        mode=entry["mode"],
        made=[_path(path, absolute=True) for path in entry["made"]],
        folders=[_path(path, absolute=False) for path in entry["folders"]],
        times=times,
        items=items,
        failed=set(),
    )


def _path(text: Any, *, absolute: bool) -> str:
    """A path as it is; one that leads out of its folder is an error."""
    if not isinstance(text, str) or "\0" in text or os.path.isabs(text) != absolute:  # noqa: PTH117
        raise ValueError("a path that is none")
    os.fsencode(text)
    if ".." in Path(text).parts or (not absolute and not Path(text).parts):
        raise ValueError(f"a path that leads elsewhere: {text[:60]!r}")
    return text


def _whole(number: Any, below: int = 2**63, low: int = 0) -> int:
    if type(number) is not int or not low <= number < below:
        raise ValueError("a number that is out of place")
    return number


@contextmanager
def open_journal(target: Path) -> Iterator[Journal]:
    """The journal of a target folder, made if it is not there, for one process at a time.

    Raises:
        OutputError: another process has it.
    """
    path = target / JOURNAL
    own_file(path)
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
