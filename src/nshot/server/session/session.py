"""A person at work with a set of images: everything that the page shows and does, callable from Python."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nshot.classifier.classifier import Classifier
from nshot.embedder import Embedder
from nshot.errors import NshotError, RequestError
from nshot.images.sources import expand
from nshot.server.session import finding, learning, taking_away
from nshot.server.session.files import Files
from nshot.server.session.images import Images
from nshot.server.session.journal import CLASSIFIERS, Journal, ReadOnly, Word
from nshot.server.session.learning import Audited, Proposal
from nshot.server.session.questions import Answers, Asked, Question, Questions
from nshot.types import Failure, Prediction

LARGE = 1280  # pixels of the large view's longer side
_NEAR = 12
_HITS = 240

log = logging.getLogger("nshot")


class Session:
    """Images that are read in the background, and everything that is asked and said of them.

    Safe to use from several threads. ``start`` returns at once; what is read can be asked at once.

    Args:
        load: gives the model; called in the background.
        specs: files, folders, globs, archives, tables, files of vectors.
        journal: where corrections go; open.
        by: who corrects.
        thumbnails: the file that small images are kept in; None keeps none.
        saved: a classifier to start from, until another is taken.
        fetched: bytes of the model that a download has brought so far; None where none is under way.
    """

    def __init__(
        self,
        load: Callable[[], Embedder],
        specs: Sequence[str],
        journal: Journal | ReadOnly,
        *,
        by: str = "you",
        thumbnails: str | Path | None = None,
        saved: Classifier | None = None,
        fetched: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.specs = list(specs)
        self.images = Images()
        self.journal = journal
        self.by = by
        self.number = secrets.token_hex(8)  # of this run: rows of another run are other rows
        self.closing = threading.Event()
        self._load = load
        self._saved = saved
        self._fetched = fetched
        self.files = Files(self.images, thumbnails)
        self._questions: Questions | None = None
        self._proposals: dict[str, Proposal] = {}
        self._taken: tuple[str | None, Classifier | None] = (None, None)
        self._going = threading.Event()
        self._going.set()
        self._phase = "model"
        self._error = ""
        self._looked: dict[str, Any] = {}
        self._total: int | None = None
        self._files = 0
        self._began = 0.0
        self._lock = threading.RLock()
        self._looking = threading.Lock()
        self._duplicates: tuple[int, dict[str, Any]] | None = None
        self._thread: threading.Thread | None = None

    # Reading

    def start(self) -> None:
        """Load the model and read the images, in the background."""
        self._thread = threading.Thread(target=self._run, name="nshot-index", daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Until every image is read; whether it is."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is not None and not self._thread.is_alive()

    def pause(self, on: bool) -> None:
        """Stop reading for a while, or go on."""
        self._going.clear() if on else self._going.set()

    def again(self) -> None:
        """Read once more: what failed may be mended, and new images may have come."""
        if self._thread is None or not self._thread.is_alive():
            self.start()

    def close(self) -> None:
        """Stop reading, and let another process have the journal."""
        self.closing.set()
        self._going.set()
        if self._thread is not None:
            self._thread.join(10)
        self.journal.close()
        self.files.close()

    def state(self) -> dict[str, Any]:
        """How far the reading is: what the page shows beside its title."""
        phase = "paused" if self._phase == "reading" and not self._going.is_set() else self._phase
        spent = time.monotonic() - self._began if self._began else 0.0
        rate = self._files / spent if spent > 0.5 else None
        left = None
        if rate and self._total is not None and phase == "reading":
            left = max(self._total - self._files, 0) / rate
        return {
            "session": self.number,
            "phase": phase,
            "error": self._error,
            "rows": len(self.images),
            "failed": self.images.failed,
            "repeated": self.images.repeated,
            "files": self._files,
            "total": self._total,
            "rate": rate,
            "left": left,
            "acts": len(self.journal.lines),
            "taken": None
            if self.journal.state.taken is None
            else str(self._taken_file(self.journal.state.taken)),
            "fetched": self._fetched() if phase == "model" else None,
            "model": None if self._questions is None else self._questions.embedder.name,
        } | self._looked

    def _run(self) -> None:
        try:
            if self._questions is None:
                self._questions = Questions(self._load())
                if self._saved is not None:
                    embedder = self._questions.embedder
                    self._saved.check_space(embedder.recipe, embedder.name)
            self._phase, self._files, self._began = "reading", 0, time.monotonic()
            self._looked = {}
            threading.Thread(target=self._count, daemon=True).start()
            embedder = self._questions.embedder
            for record in embedder.embed_images(self.files.noted(embedder.sources(self.specs))):
                self._files += 1
                self.images.add([record])
                self._going.wait()
                if self.closing.is_set():
                    return
            self._total = self._files
            read = len(self.images) - self.images.failed
            self._phase = "ready" if read else "failed" if len(self.images) else "empty"
        except NshotError as error:
            nothing = not len(self.images) and "hold" in str(error)
            self._phase, self._error = ("empty" if nothing else "error"), str(error)
        except Exception as error:  # told on the page: a thread that dies in silence would leave it waiting
            log.debug("reading stopped", exc_info=True)
            self._phase, self._error = "error", f"{type(error).__name__}: {error}"
        if self._phase == "empty":
            self._looked = {"looked": _looked(self.specs)}
        if self._phase == "failed":
            self._looked = {"failures": self.failures()}

    def _count(self) -> None:
        with suppress(NshotError):
            if all(Path(spec).is_dir() for spec in self.specs):
                self._total = sum(1 for _ in expand(self.specs))

    def failures(self) -> list[dict[str, Any]]:
        """Why images could not be read: a kind each, how many, and one of them."""
        kinds: Counter[tuple[str, str]] = Counter()
        sample: dict[tuple[str, str], str] = {}
        for row in self.images.rows:
            if row.failure is not None:
                kind = (row.failure.type, row.failure.message)
                kinds[kind] += 1
                sample.setdefault(kind, row.name)
        return [
            {"type": type, "message": message, "files": count, "such_as": sample[type, message]}
            for (type, message), count in kinds.most_common(20)
        ]

    # Asking

    @property
    def questions(self) -> Questions:
        """Where answers are computed.

        Raises:
            RequestError: the model is not there yet.
        """
        if self._questions is None:
            raise RequestError(self._error or "the model is being loaded: ask again in a moment")
        return self._questions

    @property
    def model(self) -> Embedder | None:
        """The loaded model; None while it is not there yet."""
        return None if self._questions is None else self._questions.embedder

    def ask(self, question: Question, rows: int | None = None) -> tuple[Asked, Answers]:
        """Every image's answer.

        Args:
            question: what is asked.
            rows: how many rows to answer for, at most; all by default.
        """
        asked = self.questions.prepare(question, self._current(), state=self.journal.state.taken or "")
        return asked, self.questions.answers(asked, self.images.snapshot(rows))

    def about(self, digest: str, key: str | None) -> dict[str, Any]:
        """One image: its answers, its file, what is near it."""
        row = self.row(digest)
        known = self.images.rows[row]
        told: dict[str, Any] = {
            "digest": known.digest,
            "name": known.name,
            "others": known.others[:20],
            "note": self.journal.state.notes.get(known.digest, ""),
            "notes": list(known.notes),
            "failure": None,
        }
        if known.failure is not None:
            told["failure"] = {"type": known.failure.type, "message": known.failure.message}
            return told
        told |= self.files.told(known.name)
        images = self.images.snapshot()
        vector = images.vectors[row]
        if key is not None:
            asked = self.questions.known(key)
            of = asked.classifier
            logits = of.cosines(vector[None]) * of.scale + of.bias
            scores = asked.decision.scores(logits, of.activation)[0]
            cosines = asked.words.cosines(vector[None])[0]
            order = np.argsort(-scores, kind="stable")[:12]
            names = of.labels
            told["scores"] = [
                {"label": names[k], "place": k, "score": float(scores[k]), "cosine": float(cosines[k])}
                for k in order.tolist()
            ]
        near = images.vectors @ vector
        near[~images.read] = -2
        near[row] = -2
        nearest = np.argsort(-near, kind="stable")[:_NEAR]
        told["near"] = [[int(k), float(near[k])] for k in nearest if near[k] > -2]
        return told

    def duplicates(self) -> dict[str, Any]:
        """Images of which one is enough, in three kinds; found once for all that is read.

        Returns:
            ``groups``: the kind, the rows (the best first) and the files of each; ``measured``: how copies
            were told from others.

        Raises:
            RequestError: images are still being read.
        """
        if self._phase != "ready":
            raise RequestError("duplicates are looked for among all images: wait until they are read")
        with self._looking:
            if self._duplicates is None or self._duplicates[0] != len(self.images.files):
                self._duplicates = (
                    len(self.images.files),
                    finding.duplicates(self.images, self.questions.embedder),
                )
            return self._duplicates[1]

    def search(self, words: str = "", like: Sequence[str] = (), data: bytes | None = None) -> dict[str, Any]:
        """See ``finding.search``."""
        return finding.search(self.images, self.questions, words, [self.row(digest) for digest in like], data)

    # Saying and learning

    def say(self, acts: Sequence[Mapping[str, Any]]) -> int:
        """Keep what a person did; on disk when this returns. See ``Journal.append``.

        Raises:
            RequestError: an image that is not here.
        """
        for act in acts:
            if "take" in act or "sample" in act:
                raise RequestError("a classifier is taken, and an audit drawn, by routes of their own")
            for digest in act.get("digests", ()):
                self.row(digest)
        return self.journal.append(acts, by=self.by)

    def learn(self, question: Question) -> Proposal | None:
        """A classifier from the corrections, and what it would change; nothing changes yet."""
        asked, _ = self.ask(replace(question))
        images = self.images.snapshot()
        proposal = learning.learn(self.questions, asked, images, self.said(), self.apart())
        if proposal is not None:
            with self._lock:
                self._proposals = {proposal.token: proposal}  # one is enough: the page shows one
        return proposal

    def take(self, token: str, id: str) -> int:
        """Answer by a proposed classifier from now on; an act like any other.

        Raises:
            RequestError: the proposal is forgotten.
        """
        with self._lock:
            proposal = self._proposals.get(token)
            if proposal is None:
                if self.journal.state.knows(id):
                    return len(self.journal.lines)
                raise RequestError("this proposal is forgotten: fit again")
            folder = self.journal.path.parent / CLASSIFIERS
            folder.mkdir(exist_ok=True)
            name = f"{hashlib.sha256(id.encode()).hexdigest()[:16]}.nshot"
            self.save(folder / name, proposal.asked, proposal)
            return self.journal.append([{"id": id, "take": name}], by=self.by)

    def save(self, path: Path, asked: Asked, proposal: Proposal | None = None) -> None:
        """A question's classifier as a file that every command reads."""
        made = {} if proposal is None or proposal.fitted is None else proposal.fitted.recipe()
        classifier = learning.saved(asked).with_provenance(
            model=self.questions.embedder.name,
            made={**made, "templates": list(asked.question.templates)},
            examples=[
                bytes.fromhex(self.images.rows[row].digest) for row in (proposal.rows if proposal else ())
            ],
        )
        classifier.save(path)

    def next(self, question: Question) -> list[int]:
        """Rows worth labelling next."""
        asked, answers = self.ask(question)
        images = self.images.snapshot(len(answers.label))
        return learning.next_images(asked, answers, images, self.said(), self.apart())

    def audit(self, question: Question, *, anew: bool = False) -> tuple[list[int], int, Audited]:
        """The random sample, out of how many images it was drawn, and how often the answers are right on it.

        Args:
            question: whose answers to judge.
            anew: draw another sample: because there are more images now, or to judge once more.

        Raises:
            RequestError: images are still being read: a sample of some would not be one of all.
        """
        asked, answers = self.ask(question)
        if self.journal.state.sample is None or anew:
            if self._phase != "ready":
                raise RequestError("an audit draws from all images: wait until they are read")
            images = self.images.snapshot()
            rows = learning.draw(images, secrets.randbits(32))
            act = {
                "id": secrets.token_hex(12),
                "sample": int(images.read.sum()),
                "digests": [self.images.rows[row].digest for row in rows],
            }
            self.journal.append([act], by=self.by)
        assert self.journal.state.sample is not None
        digests, total = self.journal.state.sample
        sample = [self.images.by_digest[digest] for digest in digests if digest in self.images.by_digest]
        words = self._rows(self.journal.state.audited)
        return sample, total, learning.audit(asked, answers, sample, words)

    def audit_of(self, proposal: Proposal) -> Audited | None:
        """How often a proposed classifier is right on the audit's images; None without an audit."""
        sample = self.journal.state.sample
        if sample is None:
            return None
        answers = self.questions.answers(proposal.asked, self.images.snapshot())
        rows = [self.images.by_digest[d] for d in sample[0] if d in self.images.by_digest]
        return learning.audit(proposal.asked, answers, rows, self._rows(self.journal.state.audited))

    def said(self) -> dict[int, Word]:
        """Row -> what was said of it."""
        return self._rows(self.journal.state.said)

    def apart(self) -> frozenset[int]:
        """Rows of the audit, from which nothing is learnt."""
        sample = self.journal.state.sample
        known = self.images.by_digest
        return frozenset() if sample is None else frozenset(known[d] for d in sample[0] if d in known)

    # Taking away

    def classifier(self, question: Question) -> Classifier:
        """What answers the question, with its rules."""
        return learning.saved(self.ask(question)[0])

    def records(
        self, classifier: Classifier, rows: Collection[int] | None = None, *, only: bool = False
    ) -> Iterator[Prediction | Failure]:
        """Every file's answer, a person's word before the model's.

        Args:
            classifier: what answers where nobody has spoken.
            rows: of these rows; all by default.
            only: only what somebody has spoken about.
        """
        said = self.journal.state.said
        return taking_away.answers(classifier, taking_away.files_of(self.images, rows), said, only=only)

    # Files

    def row(self, digest: str) -> int:
        """The row of a content. See ``Images.row``."""
        return self.images.row(digest)

    def thumbnail(self, digest: str) -> bytes:
        """See ``Files.thumbnail``."""
        return self.files.thumbnail(digest)

    def large(self, digest: str) -> bytes:
        """See ``Files.large``."""
        return self.files.large(digest)

    # Inside

    def _current(self) -> Classifier | None:
        """The classifier that was taken last, or the one to start from."""
        name = self.journal.state.taken
        if name is None:
            return self._saved
        with self._lock:
            if self._taken[0] != name:
                self._taken = (name, Classifier.open(self._taken_file(name)))
            return self._taken[1]

    def _taken_file(self, name: str) -> Path:
        return self.journal.path.parent / CLASSIFIERS / Path(name).name

    def _rows(self, words: Mapping[str, Word]) -> dict[int, Word]:
        known = self.images.by_digest
        return {known[digest]: word for digest, word in list(words.items()) if digest in known}


def _looked(specs: Sequence[str]) -> dict[str, Any]:
    """What lies where no image was found."""
    kinds: Counter[str] = Counter()
    folders = 0
    for spec in specs:
        for path in Path(spec).rglob("*") if Path(spec).is_dir() else ():
            if path.is_dir():
                folders += 1
            elif not path.name.startswith("."):
                kinds[path.suffix.lower() or "no ending"] += 1
    return {"files": kinds.total(), "folders": folders + len(specs), "kinds": kinds.most_common(5)}
