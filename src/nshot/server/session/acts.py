"""Acts, and what holds after them: a fold, in which the last act on an image that is not undone counts."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from nshot.errors import RequestError
from nshot.server.session.words import Word, corrected, labels_asked, read_word
from nshot.types import CORRECTED, Faceted, Failure

LABELS = "labels"  # the facet of acts that name none: the labels that are asked alone

Kind: TypeAlias = Literal["say", "note", "take", "audit"]


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
        return self._asked.get(given, ()) if isinstance(given, str) else labels_asked(given)

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
    was = tuple(read_word(each) for each in line.get("was", ()))
    common |= {"was": was, "audit": bool(line.get("audit"))}
    if "each" in line:
        words = [read_word(each, asked) for each in line["each"]]
        return Entry(**common, kind="say", each=dict(zip(line["digests"], words, strict=True)))
    return Entry(**common, kind="say", now=read_word(line["now"], asked))


def _set(of: dict[str, Any], digest: str, value: Any) -> None:
    if value is None:
        of.pop(digest, None)
    else:
        of[digest] = value
