"""A person at work with a set of images: everything that the page shows and does, callable from Python."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.classifier.cascade import CascadeClassifier
from nshot.classifier.classifier import Classifier
from nshot.classifier.facets import Facets
from nshot.embedder import Embedder
from nshot.errors import RequestError
from nshot.server.session import finding, learning, several, taking_away
from nshot.server.session.acts import LABELS
from nshot.server.session.asked import Answers, Asked, Question
from nshot.server.session.files import LARGE, Files
from nshot.server.session.images import Images
from nshot.server.session.journal import CLASSIFIERS, Journal, ReadOnly
from nshot.server.session.learning import Audited, Proposal
from nshot.server.session.questions import Questions
from nshot.server.session.reading import Reading
from nshot.server.session.thumbnails import render
from nshot.server.session.words import Word
from nshot.types import Faceted, Failure, Prediction

_NEAR = 12
_TOLD = 12  # labels told of one image, with their scores
_TOLD_OF_SEVERAL = 60
_DIGEST = re.compile("[0-9a-f]{64}")


class Session:
    """Images that are read in the background, and everything that is asked and said of them.

    Safe to use from several threads. ``start`` returns at once; what is read can be asked at once.

    Args:
        load: gives the model; called in the background.
        specs: files, folders, globs, archives, tables, files of vectors.
        journal: where corrections go; open.
        by: who corrects.
        thumbnails: the file that small images are kept in; None keeps none.
        saved: a classifier to start from, until another is taken; or one for each facet.
        fetched: bytes of the model that a download has brought so far; None where none is under way.
        remark: what a person should know of the model, a sentence; empty for nothing.
    """

    def __init__(
        self,
        load: Callable[[], Embedder],
        specs: Sequence[str],
        journal: Journal | ReadOnly,
        *,
        by: str = "you",
        thumbnails: str | Path | None = None,
        saved: Classifier | Mapping[str, Classifier] | None = None,
        fetched: Callable[[], int | None] = lambda: None,
        remark: Callable[[], str] = lambda: "",
    ) -> None:
        self.remark = remark
        self.specs = list(specs)
        self.images = Images()
        self.journal = journal
        self.by = by
        self.number = secrets.token_hex(8)  # of this run: rows of another run are other rows
        self.files = Files(self.images, thumbnails)
        self._saved = {LABELS: saved} if isinstance(saved, Classifier) else dict(saved or {})
        self.reading = Reading(load, self.specs, self.images, self.files, self._saved, fetched)
        self._proposals: dict[str, Proposal] = {}  # by facet: the page shows one of each
        self._taken: dict[str, tuple[str, Classifier]] = {}
        self._lock = threading.RLock()
        self._looking = threading.Lock()
        self._duplicates: tuple[int, dict[str, Any]] | None = None

    def start(self) -> None:
        """Load the model and read the images, in the background."""
        self.reading.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Until every image is read; whether it is."""
        return self.reading.wait(timeout)

    @property
    def closing(self) -> threading.Event:
        """Set when it is to stop."""
        return self.reading.closing

    def close(self) -> None:
        """Stop reading, and let another process have the journal."""
        self.reading.close()
        self.journal.close()
        self.files.close()

    def state(self) -> dict[str, Any]:
        """How far the reading is, how many acts there are, and the classifiers that were taken, by facet."""
        facets = list(self.journal.state.facets.items())
        return self.reading.state() | {
            "session": self.number,
            "remark": self.remark(),
            "acts": len(self.journal.lines),
            "taken": {name: str(self._taken_file(told.taken)) for name, told in facets if told.taken},
        }

    # Asking

    @property
    def questions(self) -> Questions:
        """Where answers are computed.

        Raises:
            RequestError: the model is not there yet.
        """
        if self.reading.questions is None:
            raise RequestError(self.reading.error or "the model is being loaded: ask again in a moment")
        return self.reading.questions

    @property
    def model(self) -> Embedder | None:
        """The loaded model, perhaps a cascade; None while it is not there yet."""
        return self.reading.model

    def ask(self, question: Question, rows: int | None = None) -> tuple[Asked, Answers]:
        """Every image's answer.

        Args:
            question: what is asked.
            rows: how many rows to answer for, at most; all by default.
        """
        taken = self.journal.state.of(question.facet).taken or ""
        asked = self.questions.prepare(question, self._current(question.facet), state=taken)
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
            of, decision = asked.classifier, asked.decision
            seen = vector[None]
            cosines = asked.words.cosines(seen)[0]
            if isinstance(of, CascadeClassifier):
                seen = images.joined([row])
                cosines = of.cosines(seen)[0]
                told["stage"] = of.answered_by(seen)[0]
            scores = decision.scores(decision.logits(of.compare(seen)), of.activation)[0]
            order = np.argsort(-scores, kind="stable")[: _TOLD if asked.several is None else _TOLD_OF_SEVERAL]
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

    def ranked(self, key: str, place: int) -> NDArray[np.uint32]:
        """Rows in the order of what speaks for one label of a question with any number of labels.

        Raises:
            RequestError: the question is forgotten, is none of several labels, or has no such label.
        """
        asked = self.questions.known(key)
        if asked.several is None or not 0 <= place < len(asked.question.labels):
            raise RequestError("the question has no such label to order images by")
        return several.ranked(self.questions, asked, self.images.snapshot(), place)

    def duplicates(self) -> dict[str, Any]:
        """Images of which one is enough, in three kinds; found once for all that is read.

        Returns:
            ``groups``: the kind, the rows (the best first) and the files of each; ``measured``: how copies
            were told from others.

        Raises:
            RequestError: images are still being read.
        """
        if self.reading.phase != "ready":
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

        While images are still being read any content may be spoken about: a page that goes on after a restart
        knows images that are not here yet.

        Raises:
            RequestError: an image that is not here.
        """
        complete = self.reading.phase in ("ready", "failed", "empty")
        for act in acts:
            if "take" in act or "sample" in act:
                raise RequestError("a classifier is taken, and an audit drawn, by routes of their own")
            digests = act.get("digests", [])
            if not isinstance(digests, list) or not all(isinstance(each, str) for each in digests):
                raise RequestError("the digests of what was done are a list of texts")
            for digest in digests:
                if complete or not _DIGEST.fullmatch(digest):
                    self.row(digest)
        return self.journal.append(acts, by=self.by)

    def learn(self, question: Question) -> Proposal | None:
        """A classifier from the corrections, and what it would change; nothing changes yet.

        Raises:
            RequestError: the model is a cascade.
        """
        if self.questions.cascade is not None:
            raise RequestError(
                "learning needs one model, and two answer here: what was said is kept, and nshot serve "
                "without --first, or nshot fit --journal, learns from it"
            )
        asked, _ = self.ask(question)
        images = self.images.snapshot()
        proposal = learning.learn(self.questions, asked, images, self.said(question.facet), self.apart())
        if proposal is not None:
            with self._lock:
                self._proposals[question.facet] = proposal
        return proposal

    def take(self, token: str, id: str) -> int:
        """Answer by a proposed classifier from now on; an act like any other.

        Raises:
            RequestError: the proposal is forgotten.
        """
        with self._lock:
            proposal = next((each for each in self._proposals.values() if each.token == token), None)
            if proposal is None:
                if self.journal.state.knows(id):
                    return len(self.journal.lines)
                raise RequestError("this proposal is forgotten: fit again")
            folder = self.journal.path.parent / CLASSIFIERS
            folder.mkdir(exist_ok=True)
            name = f"{hashlib.sha256(id.encode()).hexdigest()[:16]}.nshot"
            self.save(folder / name, proposal.asked, proposal)
            act = {"id": id, "take": name, "facet": proposal.asked.question.facet}
            return self.journal.append([act], by=self.by)

    def save(self, path: Path, asked: Asked, proposal: Proposal | None = None) -> None:
        """A question's classifier as a file that every command reads."""
        self.made(asked, proposal).save(path)

    def made(self, asked: Asked, proposal: Proposal | None = None) -> Classifier:
        """A question's classifier, with what it was made of."""
        made = {} if proposal is None or proposal.fitted is None else proposal.fitted.recipe()
        classifier = learning.saved(asked)
        if isinstance(classifier, CascadeClassifier):
            return classifier
        return classifier.with_provenance(
            model=self.questions.embedder.name,
            made={**made, "templates": list(asked.question.templates)},
            examples=[
                bytes.fromhex(self.images.rows[row].digest) for row in (proposal.rows if proposal else ())
            ],
        )

    def learnt(self, question: Question) -> Classifier:
        """What the corrections make of a question now, taken or not; its words alone where there are none."""
        proposal = None if self.questions.cascade is not None else self.learn(question)
        return self.made(self.ask(question)[0] if proposal is None else proposal.asked, proposal)

    def next(self, question: Question) -> list[int]:
        """Rows worth labelling next."""
        asked, answers = self.ask(question)
        images = self.images.snapshot(len(answers.label))
        return learning.next_images(asked, answers, images, self.said(question.facet), self.apart())

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
            if self.reading.phase != "ready":
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
        words = self._rows(self.journal.state.of(question.facet).audited)
        return sample, total, learning.audit(asked, answers, sample, words)

    def audit_of(self, proposal: Proposal) -> Audited | None:
        """How often a proposed classifier is right on the audit's images; None without an audit."""
        sample = self.journal.state.sample
        if sample is None:
            return None
        answers = self.questions.answers(proposal.asked, self.images.snapshot())
        rows = [self.images.by_digest[d] for d in sample[0] if d in self.images.by_digest]
        words = self._rows(self.journal.state.of(proposal.asked.question.facet).audited)
        return learning.audit(proposal.asked, answers, rows, words)

    def said(self, facet: str = LABELS) -> dict[int, Word]:
        """Row -> what was said of it."""
        return self._rows(self.journal.state.of(facet).said)

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
        self,
        classifier: Classifier,
        rows: Collection[int] | None = None,
        *,
        only: bool = False,
        facet: str = LABELS,
    ) -> Iterator[Prediction | Failure]:
        """Every file's answer, a person's word before the model's.

        Args:
            classifier: what answers where nobody has spoken.
            rows: of these rows; all by default.
            only: only what somebody has spoken about.
            facet: whose words.
        """
        said = self.journal.state.of(facet).said
        joined = isinstance(classifier, CascadeClassifier)
        images = taking_away.files_of(self.images, rows, joined=joined)
        return taking_away.answers(classifier, images, said, only=only)

    def faceted(
        self, facets: Facets, rows: Collection[int] | None = None, *, only: bool = False
    ) -> Iterator[Faceted | Failure]:
        """Every file's answers to several questions; see ``records``."""
        images = taking_away.files_of(self.images, rows)
        return taking_away.faceted(facets, images, self.journal.state, only=only)

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

    def heat(self, digest: str, key: str, place: int) -> bytes:
        """A WebP of an image with the evidence for a label laid over it; see ``finding.heat``."""
        further = self.images.snapshot().further
        late = further is not None and bool(further[self.row(digest)].any())
        data = self.files.read(digest)
        return render(finding.heat(self.questions, data, key, place, further=late), LARGE)

    # Inside

    def _current(self, facet: str) -> Classifier | None:
        """The classifier that was taken last for a facet, or the one to start from."""
        name = self.journal.state.of(facet).taken
        if name is None or self.questions.cascade is not None:  # what was taken is of one model
            return self._saved.get(facet)
        with self._lock:
            if facet not in self._taken or self._taken[facet][0] != name:
                self._taken[facet] = (name, Classifier.open(self._taken_file(name)))
            return self._taken[facet][1]

    def _taken_file(self, name: str) -> Path:
        return self.journal.path.parent / CLASSIFIERS / Path(name).name

    def _rows(self, words: Mapping[str, Word]) -> dict[int, Word]:
        known = self.images.by_digest
        return {known[digest]: word for digest, word in list(words.items()) if digest in known}
