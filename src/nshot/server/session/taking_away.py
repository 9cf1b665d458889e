"""Answers and corrections as files: what the page's export panel does, and the command line does alike."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from nshot.classifier.classifier import Classifier
from nshot.classifier.facets import Facets
from nshot.classifier.tree import TreeClassifier
from nshot.decision import Decision
from nshot.errors import RequestError
from nshot.output.sinks import open_sink
from nshot.output.sinks.sink import Sink
from nshot.output.sorting import Mode, Move, carry_out, folder_names, plan, undo
from nshot.output.tagging import Tag, plan_tags, undo_tags, write_tags
from nshot.server.session.acts import State, corrected_facets
from nshot.server.session.images import Images
from nshot.server.session.words import Word, corrected
from nshot.types import Decided, Embedded, Faceted, Failure, Prediction

What: TypeAlias = Literal["all", "yours", "rows"]

FORMATS = {
    "csv": ("answers.csv", "text/csv"),
    "jsonl": ("answers.jsonl", "application/x-ndjson"),
    "parquet": ("answers.parquet", "application/vnd.apache.parquet"),
    "coco": ("answers.json", "application/json"),
    "labelstudio": ("answers.json", "application/json"),
}
_SHOWN = 8  # moves told of a plan


def answers(
    classifier: Classifier | TreeClassifier,
    images: Iterable[Embedded | Failure],
    words: Mapping[str, Word],
    *,
    top_k: int = 5,
    only: bool = False,
) -> Iterator[Prediction | Failure]:
    """The classifier's answers, with a person's in the place of those that were corrected.

    Args:
        classifier: what answers; where it is a tree, a person's word is one of its nodes.
        images: as an embedder yields them, with their digests.
        words: hexadecimal sha256 of a content -> what was said of it.
        top_k: labels per image.
        only: leave out what nobody has spoken about.

    Raises:
        RequestError: an image has several labels, and the classifier answers with one.
    """
    said: list[Word | None] = []

    def seen() -> Iterator[Embedded | Failure]:
        for image in images:
            digest = image.digest if isinstance(image, Embedded) else None
            word = None if digest is None else words.get(digest.hex())
            if only and (word is None or word.answer == "skip"):
                continue
            said.append(_fitting(word, classifier, image.source))
            yield image

    for number, answer in enumerate(classifier.stream(seen(), top_k=top_k)):
        yield corrected(answer, said[number], classifier if isinstance(classifier, TreeClassifier) else None)


def _fitting(word: Word | None, classifier: Classifier | TreeClassifier, source: str) -> Word | None:
    """The word in the form of the classifier's answers: one label, or any number of them."""
    if word is None or (isinstance(classifier, Classifier) and classifier.several is not None):
        return word
    alone = word.alone()
    if alone is None:
        raise RequestError(
            f"{source} was said to show {', '.join(word.labels)}, and one label per image is asked for: add "
            "--multi, or name another facet's journal"
        )
    return alone


def faceted(
    facets: Facets, images: Iterable[Embedded | Failure], state: State, *, top_k: int = 5, only: bool = False
) -> Iterator[Faceted | Failure]:
    """The answers to several questions, with a person's in the place of those that were corrected.

    Args:
        facets: what answers.
        images: as an embedder yields them, with their digests.
        state: what was said.
        top_k: labels per image and facet.
        only: leave out images that nobody has spoken about.
    """
    digests: list[str | None] = []

    def spoken(digest: str | None) -> bool:
        words = (state.of(name).said.get(digest or "") for name in facets)
        return any(word is not None and word.answer != "skip" for word in words)

    def seen() -> Iterator[Embedded | Failure]:
        for image in images:
            held = image.digest if isinstance(image, Embedded) else None
            digest = None if held is None else held.hex()
            if not only or spoken(digest):
                digests.append(digest)
                yield image

    for number, answer in enumerate(facets.stream(seen(), top_k=top_k)):
        yield corrected_facets(answer, state, digests[number])


def open_decisions(facets: Facets) -> Facets:
    """The facets, each with a decision: a person's word may be "none of these"."""
    return Facets(
        {name: each if each.decision else each.with_decision(Decision()) for name, each in facets.items()}
    )


def files_of(
    images: Images, rows: Collection[int] | None = None, *, joined: bool = False
) -> Iterator[Embedded | Failure]:
    """Every file of the session in its order, or those of some rows; ``joined``: as a cascade takes them."""
    snapshot = images.snapshot()
    for name, row in images.files:
        if row < len(snapshot) and (rows is None or row in rows):
            known = images.rows[row]
            if known.failure is not None:
                yield Failure(name, known.failure.type, known.failure.message)
            else:
                vector = snapshot.joined([row])[0] if joined else snapshot.vectors[row]
                yield Embedded(name, vector, digest=bytes.fromhex(known.digest), notes=known.notes)


def write(
    format: str,
    path: Path,
    asked: Classifier | Facets,
    records: Iterable[Prediction | Faceted | Failure],
) -> int:
    """Write records as nshot classify does; how many."""
    count = 0
    with _sink(format, path, asked) as sink:
        for record in records:
            sink.write(record if isinstance(record, Faceted) else decided(record))
            count += 1
    return count


def _sink(format: str, path: Path, asked: Classifier | Facets) -> Sink:
    if isinstance(asked, Facets):
        rules = {name: each.decision for name, each in asked.items()}
        told = {name: (True, rule is not None and rule.calibrated) for name, rule in rules.items()}
        labels = {name: each.labels for name, each in asked.items()}
        return open_sink(format, path, top_k=5, facets=told, facet_labels=labels)
    decision = asked.decision
    return open_sink(
        format,
        path,
        top_k=min(5, len(asked.labels)),
        labels=asked.labels,
        decided=True,
        calibrated=decision is not None and decision.calibrated,
        staged=bool(asked.stages),
    )


def decided(record: Prediction | Failure) -> Prediction | Failure:
    """The record in the form of decided answers: a file of corrections has one form throughout."""
    if isinstance(record, (Decided, Failure)):
        return record
    labels = () if record.label is None else (record.label,)
    return Decided(
        record.source,
        record.predictions,
        record.margin,
        "label",
        labels,
        False,
        notes=record.notes,
        stage=record.stage,
    )


def as_file(
    format: str, asked: Classifier | Facets, records: Iterable[Prediction | Faceted | Failure]
) -> tuple[bytes, str, str]:
    """The content of such a file, its usual name, and its media type.

    Raises:
        RequestError: a format that is not written here.
    """
    if format not in FORMATS:
        raise RequestError(f"no format {format!r}: there are {', '.join(FORMATS)}, nshot and sort")
    name, media = FORMATS[format]
    with tempfile.TemporaryDirectory(prefix="nshot-") as folder:
        path = Path(folder) / name
        write(format, path, asked, records)
        return path.read_bytes(), name, media


@dataclass(frozen=True, slots=True, eq=False)
class Sorted:
    """A plan to copy files into a folder per label, or to move duplicates away.

    Attributes:
        moves: what goes where.
        target: the folder.
        skipped: files that are no files of their own (members of archives), or could not be read.
    """

    moves: list[Move]
    target: Path
    skipped: int
    mode: Mode = "copy"

    def token(self, salt: str) -> str:
        """Tells this plan from every other, so that what is carried out is what was shown."""
        return _token(salt, self.target, (f"{move.source}\0{move.target}" for move in self.moves))

    def lines(self) -> list[str]:
        """Some of it, to read."""
        counts: dict[str, int] = {}
        for move in self.moves:
            counts[str(move.target.parent)] = counts.get(str(move.target.parent), 0) + 1
        told = [f"{folder}/: {count:,}" for folder, count in sorted(counts.items())]
        told += [f"{move.source} → {self.target / move.target}" for move in self.moves[:_SHOWN]]
        rest = len(self.moves) - _SHOWN
        return told + ([f"… and {rest:,} more"] if rest > 0 else [])

    def carry_out(self) -> int:
        """Do it; with how many files. See ``nshot.output.sorting``."""
        return len(self.moves) - len(carry_out(self.moves, self.target, self.mode))


def sort(target: Path, classifier: Classifier, records: Iterable[Prediction | Failure]) -> Sorted:
    """Plan it; nothing is touched."""
    files: list[tuple[Path, str | None]] = []
    labels = dict.fromkeys(classifier.labels)
    skipped = 0
    for record in records:
        if isinstance(record, Failure) or not Path(record.source).is_file():
            skipped += 1
            continue
        files.append((Path(record.source), record.label))
        if record.label is not None:
            labels.setdefault(record.label)
    return Sorted(plan(files, target, folder_names(labels)), target, skipped)


@dataclass(frozen=True, slots=True, eq=False)
class Tagged:
    """A plan to write labels as keywords into sidecars.

    Attributes:
        tags: what each sidecar becomes.
        folder: where its journal is, and what is asked to take it back.
    """

    tags: list[Tag]
    folder: Path

    def token(self, salt: str) -> str:
        """Tells this plan from every other."""
        return _token(salt, self.folder, (f"{tag.sidecar}\0{tag.labels}" for tag in self.tags))

    def lines(self) -> list[str]:
        """Some of it, to read."""
        told = [f"{tag.sidecar}: {', '.join(tag.labels)}" for tag in self.tags[:_SHOWN]]
        rest = len(self.tags) - _SHOWN
        return told + ([f"… and {rest:,} more"] if rest > 0 else [])

    def carry_out(self) -> int:
        """Write the sidecars; how many. See ``nshot.output.tagging``."""
        return len(self.tags) - len(write_tags(self.tags, self.folder))


def tag(folder: Path, records: Iterable[Prediction | Failure]) -> Tagged:
    """Plan keywords for the files below a folder; nothing is touched."""
    found: list[tuple[Path, tuple[str, ...]]] = []
    for record in records:
        if not isinstance(record, Failure) and Path(record.source).is_file():
            own = record.labels if isinstance(record, Decided) else (record.label,) if record.label else ()
            found.append((Path(record.source), own))
    return Tagged(plan_tags(found)[0], folder)


def untag(folder: Path) -> int:
    """Take the last keywords back; how many sidecars are as they were."""
    return undo_tags(folder).restored


def _token(salt: str, target: Path, parts: Iterable[str]) -> str:
    told = "\0".join((salt, str(target), *parts))
    return hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:32]


def put_aside(target: Path, files: Iterable[tuple[str, str]]) -> Sorted:
    """Plan to move files (name, kind of duplicate) away; nothing is touched."""
    there = [(Path(name), kind) for name, kind in files if Path(name).is_file()]
    folders = folder_names(dict.fromkeys(kind for _, kind in there))
    return Sorted(plan(there, target, folders), target, 0, "move")


def take_back(target: Path) -> int:
    """Undo the last sort into a folder; with how many files."""
    return undo(target).restored
