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
import operator
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, TypeAlias

from nshot.atomic import own_file
from nshot.bounded import Heavy, lines, parsed, weight
from nshot.errors import NONSENSE, OutputError, RequestError, brief
from nshot.types import CORRECTED, DEFAULT_LIMITS, Answer, Decided, Faceted, Failure, Placed, Prediction

if TYPE_CHECKING:
    from nshot.classifier.tree import TreeClassifier

JOURNAL = ".nshot-journal.jsonl"
CLASSIFIERS = ".nshot-classifiers"  # beside the journal: the classifiers that were taken
LABELS = "labels"  # the facet of acts that name none: the labels that are asked alone
_VERSION = 1
# A server that was killed may leave a process that decodes, which holds the lock until it notices.
_PATIENCE = 5.0  # seconds
_LONGEST = 4096  # characters of a note or a label

Kind: TypeAlias = Literal["say", "note", "take", "audit"]


class Word(NamedTuple):
    """What was said of an image: a label, "none" (it shows none of the labels), "skip", or all that it shows.

    Attributes:
        answer: which of them.
        label: of "label".
        labels: of "labels": any number.
        asked: of "labels": those that the person could have named; those among them that are not in
            ``labels`` are not shown.
    """

    answer: Literal["label", "none", "skip", "labels"]
    label: str = ""
    labels: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """The labels that the image shows, as it was said."""
        return (self.label,) if self.answer == "label" else self.labels

    def tells_of(self, labels: Iterable[str]) -> bool:
        """Whether it is said of each of these labels if the image shows it."""
        return self.answer == "labels" and set(labels) <= set(self.asked)

    def alone(self) -> Word | None:
        """The word where an image has one label; None where it has several."""
        if self.answer != "labels":
            return self
        if len(self.labels) > 1:
            return None
        return Word("label", self.labels[0]) if self.labels else Word("none")

    def to_dict(self) -> dict[str, Any]:
        """As the journal and the page hold it."""
        if self.answer == "labels":
            return {"labels": list(self.labels)}
        return {"label": self.label} if self.answer == "label" else {"answer": self.answer}


def told_of(said: Mapping[int, Word], count: int) -> list[int]:
    """The rows, of the first ``count``, of which more was said than "skip"."""
    return [row for row, word in said.items() if row < count and word.answer != "skip"]


@dataclass(slots=True, eq=False)
class Entry:
    """One act.

    Attributes:
        id: chosen by whoever acted; distinct.
        at: seconds since the epoch.
        by: who.
        kind: "say": ``now`` of each image. "note": ``text``. "take": ``text`` is the classifier's file.
            "audit": the images of a random sample, of which ``text`` tells out of how many they were drawn.
        digests: hexadecimal sha256 of each image's content.
        now: what was said; None takes back what had been said.
        each: what was said of each image, by its digest, where it was not the same of all.
        was: what held of each image before.
        audit: said while the model's answer was hidden, of an image drawn at random.
        facet: the question whose answer it is about; a note and an audit's sample are about all.
        undone: whether it is undone now.
        past: undone, and followed by another act: it cannot be redone.
    """

    id: str
    at: float
    by: str
    kind: Kind
    digests: tuple[str, ...] = ()
    now: Word | None = None
    was: tuple[Word | None, ...] = ()
    text: str = ""
    audit: bool = False
    facet: str = LABELS
    undone: bool = False
    past: bool = False
    each: Mapping[str, Word | None] = field(default_factory=dict)

    def word(self, digest: str) -> Word | None:
        """What was said of one of its images."""
        return self.each[digest] if self.each else self.now


@dataclass(slots=True)
class Told:
    """What holds of one facet.

    Attributes:
        said: digest -> the last word on it.
        audited: digest -> the last word on it that was said in an audit.
        taken: file name of the classifier in use; None: words alone.
    """

    said: dict[str, Word] = field(default_factory=dict)
    audited: dict[str, Word] = field(default_factory=dict)
    taken: str | None = None


@dataclass(slots=True)
class State:
    """What holds after all acts.

    Attributes:
        entries: every act but undo and redo, in order.
        facets: what holds of each facet that somebody has spoken about.
        notes: digest -> its note.
        sample: the audit's images, and out of how many they were drawn; each facet is judged by the same.
    """

    entries: list[Entry] = field(default_factory=list)
    facets: dict[str, Told] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    sample: tuple[tuple[str, ...], int] | None = None
    _by_id: dict[str, Entry] = field(default_factory=dict)
    _of: dict[str, list[Entry]] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _asked: dict[str, tuple[str, ...]] = field(default_factory=dict)  # the lists of labels, by their act's id

    @property
    def said(self) -> dict[str, Word]:
        """Digest -> the last word on it, of the labels that are asked alone."""
        return self.of(LABELS).said

    def of(self, facet: str) -> Told:
        """What holds of a facet; nothing, where nobody has spoken about it."""
        return self.facets.get(facet) or Told()

    def untaken(self) -> State:
        """The same, as if no classifier had been taken."""
        return replace(self, facets={name: replace(each, taken=None) for name, each in self.facets.items()})

    def knows(self, id: str) -> bool:
        """Whether an act of this id was folded in."""
        return id in self._seen

    def fold(self, line: Mapping[str, Any]) -> None:
        """Add one line of the file."""
        self._seen.add(line["id"])
        if (target := line.get("undo") or line.get("redo")) is not None:
            entry = self._by_id[target]
            entry.undone = "undo" in line
            self._settle([entry])
            return
        asked = self.asked(line)
        if asked and not isinstance(line["asked"], str):
            self._asked[line["id"]] = asked
        entry = _entry(line, asked)
        for each in self.entries if entry.kind != "audit" else ():
            each.past = each.past or each.undone
        self.entries.append(entry)
        self._by_id[entry.id] = entry
        for digest in dict.fromkeys(entry.digests) if entry.kind in ("say", "note") else ():
            self._of.setdefault(digest, []).append(entry)
        self._settle([entry])

    def asked(self, line: Mapping[str, Any]) -> tuple[str, ...]:
        """The labels that an act was asked about, where it says so itself or names an act that does."""
        given = line.get("asked", ())
        return self._asked.get(given, ()) if isinstance(given, str) else _asked(given)

    def short(self, asked: tuple[str, ...]) -> str | list[str]:
        """These labels as an act has them: the id of the last act that said them, or all of them."""
        last = next(reversed(self._asked), None)
        return last if last is not None and self._asked[last] == asked else list(asked)

    def check(self, act: Mapping[str, Any]) -> None:
        """Refuse an undo or a redo that cannot be.

        Raises:
            RequestError: of an unknown act, or one that is undone already, or cannot be redone any more.
        """
        for what in ("undo", "redo"):
            if what in act:
                entry = self._by_id.get(act[what])
                if entry is None or entry.kind == "audit":
                    raise RequestError(f"there is no act {act[what]!r} to {what}")
                if entry.undone == (what == "undo") or (what == "redo" and entry.past):
                    raise RequestError(f"the act {act[what]!r} cannot be {what[:-1] + 'one'} now")

    def _settle(self, changed: Iterable[Entry]) -> None:
        for entry in changed:
            told = self.facets.setdefault(entry.facet, Told())
            if entry.kind == "take":
                takes = [e for e in self.entries if e.kind == "take" and not e.undone]
                own = [e.text for e in takes if e.facet == entry.facet]
                told.taken = own[-1] if own else None
            elif entry.kind == "audit":
                self.sample = entry.digests, int(entry.text)
            for digest in dict.fromkeys(entry.digests) if entry.kind in ("say", "note") else ():
                mine = [e for e in self._of[digest] if not e.undone]
                words = [e for e in mine if e.kind == "say" and e.facet == entry.facet]
                _set(told.said, digest, words[-1].word(digest) if words else None)
                in_audit = [e for e in words if e.audit]
                _set(told.audited, digest, in_audit[-1].word(digest) if in_audit else None)
                notes = [e.text for e in mine if e.kind == "note"]
                _set(self.notes, digest, notes[-1] if notes else None)


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
            self._file: BinaryIO = self.path.open("ab")
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
                if not self.state.knows(str(act.get("id"))) and act.get("id") not in ids:
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
        if not isinstance(facet, str) or not 0 < len(facet) <= _LONGEST:
            raise RequestError(f"a facet's name is a text of at most {_LONGEST} characters")
        if facet != LABELS:
            line["facet"] = facet
        if "take" in act:
            return line | {"take": str(act["take"])}
        if "sample" in act:
            return line | {"sample": int(act["sample"]), "digests": digests}
        if not digests:
            raise RequestError("an act names the images that it is about")
        if "note" in act:
            if len(str(act["note"])) > _LONGEST:
                raise RequestError(f"a note has at most {_LONGEST} characters")
            was: list[Any] = [self.state.notes.get(digest) for digest in digests]
            return line | {"digests": digests, "note": str(act["note"]), "was": was}
        if "now" not in act and "each" not in act:
            raise RequestError("an act says what it is: now, each, note, take, undo or redo")
        asked = _asked(act.get("asked", ()))
        said = self.state.of(facet).said
        line["digests"] = digests
        if "each" in act:
            each = act["each"]
            if not isinstance(each, list) or len(each) != len(digests):
                raise RequestError(
                    "each is a list of what is said of each image, in the order of the digests"
                )
            line["each"] = [_held(_word(word, asked)) for word in each]
        else:
            line["now"] = _held(_word(act["now"], asked))
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
            self._file.write(data)
            self._file.flush()
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
            self._write([{"nshot_journal": _VERSION}])


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


def corrected(
    record: Prediction | Failure, word: Word | None, tree: TreeClassifier | None = None
) -> Prediction | Failure:
    """The record with a person's word as its answer; what the model scores stays, and a note says so.

    Args:
        record: the model's answer.
        word: what was said of the image; None or a skipped image changes nothing.
        tree: the tree that the answer is a node of, if any.
    """
    if word is None or word.answer == "skip" or isinstance(record, Failure):
        return record
    notes = (*record.notes, CORRECTED)
    if tree is not None and isinstance(record, Placed):
        put_right = tree.put_right(record, word.shown[0] if word.shown else None)
        return replace(put_right, notes=(*put_right.notes, CORRECTED))
    kind: Answer = "none" if not word.shown else "several" if word.answer == "labels" else "label"
    calibrated = isinstance(record, Decided) and record.calibrated
    return Decided(
        record.source,
        record.predictions,
        record.margin,
        kind,
        word.shown,
        calibrated,
        notes=notes,
        beside=record.beside,
    )


def corrected_facets(record: Faceted | Failure, state: State, digest: str | None) -> Faceted | Failure:
    """The record with a person's words as the answers of those facets that somebody has spoken about.

    Args:
        record: the model's answers.
        state: what was said.
        digest: of the image's content; None where it is not known.
    """
    if isinstance(record, Failure) or digest is None:
        return record
    facets, notes = dict(record.facets), []
    for name, answer in record.facets.items():
        put_right = corrected(answer, state.of(name).said.get(digest))
        if put_right is not answer and not isinstance(put_right, Failure):
            facets[name] = put_right
            notes.append(f"{name}: {CORRECTED}")
    return replace(record, facets=facets, notes=(*record.notes, *notes)) if notes else record


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


def _entry(line: Mapping[str, Any], asked: tuple[str, ...]) -> Entry:
    digests = tuple(line.get("digests", ()))
    if not all(isinstance(text, str) for text in (*digests, line.get("take", ""), line.get("note", ""))):
        raise TypeError("a text that is none")
    common: dict[str, Any] = {
        "id": line["id"],
        "at": float(line.get("at", 0)),
        "by": str(line.get("by", "")),
        "digests": digests,
        "facet": str(line.get("facet", LABELS)),
    }
    if "take" in line:
        return Entry(**common, kind="take", text=line["take"])
    if "sample" in line:
        operator.index(line["sample"])
        return Entry(**common, kind="audit", text=str(line["sample"]))
    if "note" in line:
        return Entry(**common, kind="note", text=line["note"])
    was = tuple(_word(each) for each in line.get("was", ()))
    common |= {"was": was, "audit": bool(line.get("audit"))}
    if "each" in line:
        words = [_word(each, asked) for each in line["each"]]
        return Entry(**common, kind="say", each=dict(zip(line["digests"], words, strict=True)))
    return Entry(**common, kind="say", now=_word(line["now"], asked))


def _held(word: Word | None) -> dict[str, Any] | None:
    return None if word is None else word.to_dict()


def _asked(given: Any) -> tuple[str, ...]:
    labels = tuple(given) if isinstance(given, (list, tuple)) else (None,)
    if not all(isinstance(each, str) and each.strip() and len(each) <= _LONGEST for each in labels):
        raise RequestError("what was asked is a list of labels")
    return tuple(dict.fromkeys(str(each) for each in labels))


def _word(said: Any, asked: tuple[str, ...] = ()) -> Word | None:
    if said is None:
        return None
    if isinstance(said, Mapping) and "labels" in said:
        labels = _asked(said["labels"])
        if asked and (strange := sorted(set(labels) - set(asked))):
            raise RequestError(f"{strange[0]!r} is not among the labels that were asked")
        return Word("labels", labels=labels, asked=asked)
    if isinstance(said, Mapping):
        label, answer = said.get("label"), said.get("answer")
        if isinstance(label, str) and label.strip() and len(label) <= _LONGEST:
            return Word("label", label)
        if answer in ("none", "skip"):
            return Word(answer)
    raise RequestError(
        'what is said is {"label": "..."}, {"labels": [...]}, {"answer": "none"} or {"answer": "skip"}, '
        f"not {said!r}"
    )


def _set(of: dict[str, Any], digest: str, value: Any) -> None:
    if value is None:
        of.pop(digest, None)
    else:
        of[digest] = value


def _lock(file: BinaryIO, path: Path) -> None:
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
