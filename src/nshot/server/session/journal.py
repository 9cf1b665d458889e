"""What a person said about images: an append-only file, keyed by the images' content, so that files may move.

    {"id": "a", "at": 1764000000.0, "by": "ann", "digests": ["5e..."], "now": {"label": "cat"}, "was": [null]}
    {"id": "b", "at": 1764000002.5, "by": "ann", "undo": "a"}

A line is an act. What holds now is a fold of the lines: for each image, the last act that is not undone. Undo
and redo are acts too, so nothing is ever erased, and both work after a restart. An act is on disk (fsync)
before it is acknowledged; the same id twice is one act, so whoever got no answer may send it again.

Where several questions (facets) are asked of the images, an act says whose answer it is about:
``"facet": "time of day"``. Without one it is about the labels that were asked alone.

Where an image may show any number of labels, a word is all that it shows, ``{"labels": ["cat", "dog"]}``,
and the act says which labels were asked: nothing is known of one that was not. An act on images that were
not alike says a word of each. ``asked`` may name an earlier act that had the same list.

    {"id": "c", "digests": ["5e...", "9a..."], "each": [{"labels": ["cat"]}, {"labels": []}],
     "asked": ["cat", "dog"]}
    {"id": "d", "digests": ["5e..."], "now": {"labels": ["cat", "dog"]}, "asked": "c"}
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from nshot.atomic import own_file
from nshot.bounded import Heavy, lines, parsed, weight
from nshot.errors import NONSENSE, OutputError, RequestError, brief
from nshot.server.session.acts import LABELS, State
from nshot.server.session.words import LONGEST, Word, labels_asked, read_word
from nshot.types import DEFAULT_LIMITS

JOURNAL = ".nshot-journal.jsonl"
CLASSIFIERS = ".nshot-classifiers"  # beside the journal: the classifiers that were taken
_VERSION = 1
_FIRST = {"nshot_journal": _VERSION}
# A server that was killed may leave a process that decodes, which holds the lock until it notices.
_PATIENCE = 5.0  # seconds


class Journal:
    """The file, open and locked for one process; safe to use from several threads.

    Raises:
        OutputError: it cannot be written there, another process has it, or it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, memory: int = DEFAULT_LIMITS.memory) -> None:
        self.path = Path(path)
        self._memory = memory
        self.state = State()
        self.version = 0  # grows with every act
        self.lines: list[dict[str, Any]] = []
        self._lock = threading.RLock()
        own_file(self.path)
        try:
            self._file: FileIO = self.path.open("ab", buffering=0)  # what failed must not come later
        except OSError as error:
            raise OutputError(
                f"corrections cannot be kept in {self.path} ({error.strerror}): "
                "name another file with --journal"
            ) from error
        try:
            _lock(self._file, self.path)
            self._read()
        except BaseException:
            self._file.close()
            raise

    def append(self, acts: Sequence[Mapping[str, Any]], *, by: str) -> int:
        """Keep acts; they are on disk when this returns.

        Args:
            acts: each with an "id" and either "digests" and "now" or "each" (and "audit", "asked"), "note",
                "take", "sample", "undo" or "redo", and perhaps "facet", as in the file; what is known by its
                id already is not kept twice.
            by: who acted.

        Returns:
            The number of acts in the file.

        Raises:
            RequestError: an act of no known form.
            OutputError: it could not be written (the disk is full); none of them is kept.
        """
        with self._lock:
            fresh: list[dict[str, Any]] = []
            ids: set[str] = set()
            for act in acts:
                id = str(act.get("id"))
                if not self.state.knows(id) and id not in ids:
                    fresh.append(self._checked(act, by))
                    ids.add(fresh[-1]["id"])
            if not fresh:
                return len(self.lines)
            if len(fresh) == 1:
                self.state.check(fresh[0])
            self._write(fresh)
            for line in fresh:
                try:
                    self.state.check(line)
                except RequestError:
                    continue  # one of several, made of no effect by another window's act: kept, and harmless
                self.state.fold(line)
                self.lines.append(line)
            self.version += 1
            return len(self.lines)

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()

    def _checked(self, act: Mapping[str, Any], by: str) -> dict[str, Any]:
        id = act.get("id")
        if not isinstance(id, str) or not 0 < len(id) <= 64:
            raise RequestError("an act needs an id, a text of at most 64 characters")
        line: dict[str, Any] = {"id": id, "at": round(time.time(), 3), "by": by}
        if "undo" in act or "redo" in act:
            what = "undo" if "undo" in act else "redo"
            return line | {what: str(act[what])}
        digests = [str(digest) for digest in act.get("digests", ())]
        facet = act.get("facet", LABELS)
        if not isinstance(facet, str) or not 0 < len(facet) <= LONGEST:
            raise RequestError(f"a facet's name is a text of at most {LONGEST} characters")
        if facet != LABELS:
            line["facet"] = facet
        if "take" in act:
            return line | {"take": str(act["take"])}
        if "sample" in act:
            return line | {"sample": int(act["sample"]), "digests": digests}
        if not digests:
            raise RequestError("an act names the images that it is about")
        if "note" in act:
            if len(str(act["note"])) > LONGEST:
                raise RequestError(f"a note has at most {LONGEST} characters")
            was: list[Any] = [self.state.notes.get(digest) for digest in digests]
            return line | {"digests": digests, "note": str(act["note"]), "was": was}
        if "now" not in act and "each" not in act:
            raise RequestError("an act says what it is: now, each, note, take, undo or redo")
        asked = labels_asked(act.get("asked", ()))
        said = self.state.of(facet).said
        line["digests"] = digests
        if "each" in act:
            each = act["each"]
            if not isinstance(each, list) or len(each) != len(digests):
                raise RequestError(
                    "each is a list of what is said of each image, in the order of the digests"
                )
            line["each"] = [_held(read_word(word, asked)) for word in each]
        else:
            line["now"] = _held(read_word(act["now"], asked))
        line["was"] = [_held(said.get(digest)) for digest in digests]
        if asked:
            line["asked"] = self.state.short(asked)
        return line | ({"audit": True} if act.get("audit") else {})

    def _write(self, lines: Sequence[dict[str, Any]]) -> None:
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode(
            "utf-8", "replace"
        )
        size = os.fstat(self._file.fileno()).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), size)  # half an act would be read as damage
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _read(self) -> None:
        size, whole = self.path.stat().st_size, 0
        for size_of_line, line in _folded(self.state, self.path, self._memory):
            whole += size_of_line
            if line is not None:
                self.lines.append(line)
        if whole < size:  # a kill tore the last line: it was never acknowledged
            os.truncate(self.path, whole)
        if not whole:
            self._write([_FIRST])


class ReadOnly:
    """A journal that is only read, for a command: it takes no act and no lock."""

    def __init__(self, path: Path, state: State) -> None:
        self.path = path
        self.state = state
        self.lines: list[dict[str, Any]] = []

    def append(self, acts: Sequence[Mapping[str, Any]], *, by: str) -> int:
        """Refused."""
        raise RequestError(f"{self.path} is only read here")

    def close(self) -> None:
        """Nothing is open."""


def find_journal(path: str | os.PathLike[str]) -> Path:
    """The journal's file: itself, or that of the folder of images that it lies in.

    Raises:
        RequestError: there is none.
    """
    file = Path(path)
    if file.is_dir():
        file = file / JOURNAL
    if not file.is_file():
        raise RequestError(f"there is no journal {file}: nshot serve makes one when something is corrected")
    return file


def read_words(path: str | os.PathLike[str], *, memory: int = DEFAULT_LIMITS.memory) -> State:
    """What a journal holds, without locking it: for a command that only reads.

    Args:
        path: the file, or the folder of images that it lies in.
        memory: the most bytes that what it says may take.

    Raises:
        RequestError: there is none, it is damaged, or it says more than that.
    """
    file = find_journal(path)
    state = State()
    for _ in _folded(state, file, memory):
        pass
    return state


def _folded(state: State, path: Path, memory: int) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The file's whole lines, each once it is folded in: its bytes, and the act; None: no act.

    Raises:
        OutputError: one of them is damaged, or all that they say takes more bytes of memory than that.
    """
    number = held = 0
    try:
        with path.open("rb") as file:
            for text in lines(file, memory):
                if not text.endswith(b"\n"):
                    if not number and not json.dumps(_FIRST).encode().startswith(text):
                        raise OutputError(
                            f"{path} is no journal of corrections: name another file with --journal"
                        )
                    return
                number += 1
                held += weight([text])
                if held > memory:
                    raise Heavy
                yield len(text), _fold(state, text, path)
    except (OSError, RequestError, *NONSENSE) as error:
        if isinstance(error, OutputError):
            raise
        if isinstance(error, Heavy):
            raise OutputError(
                f"what {path} says takes more than {memory / 1e6:,.0f} MB of memory: give more with "
                "--memory, or name another file with --journal"
            ) from None
        raise OutputError(
            f"line {number} of {path} is damaged ({brief(error)}): mend it, or name "
            "another file with --journal"
        ) from error


def _fold(state: State, text: bytes, path: Path) -> dict[str, Any] | None:
    """Fold a line in; None: it is no act."""
    line: dict[str, Any] = parsed(text)
    if "nshot_journal" in line:
        if line["nshot_journal"] != _VERSION:
            raise OutputError(f"{path} was written by a later nshot: use that one")
        return None
    if not isinstance(line["id"], str):
        raise ValueError("an act without an id")
    state.fold(line)
    return line


def _held(word: Word | None) -> dict[str, Any] | None:
    return None if word is None else word.to_dict()


def _lock(file: FileIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: no lock, and two servers on one folder are the person's own care
        return
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise OutputError(
                    f"another nshot serve is at work with {path}: stop it, or use --journal"
                ) from error
            time.sleep(0.05)
