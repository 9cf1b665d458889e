"""A session's images, read in the background: how far that is, and what stands in its way."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nshot.classifier.cascade import Cascade
from nshot.classifier.classifier import Classifier
from nshot.embedder import Embedder
from nshot.errors import NshotError
from nshot.images.sources import expand
from nshot.server.session.acts import LABELS
from nshot.server.session.files import Files
from nshot.server.session.images import Images
from nshot.server.session.questions import Questions

log = logging.getLogger("nshot")

Phase: TypeAlias = Literal["model", "reading", "ready", "failed", "empty", "error"]


class Reading:
    """Loads the model, then reads the images; all of it in a thread of its own.

    Args:
        load: gives the model.
        specs: files, folders, globs, archives, tables, files of vectors.
        images: where they go.
        files: where their files are noted.
        saved: classifiers that must belong to the model; a cascade's is added.
        fetched: bytes of the model that a download has brought so far; None where none is under way.

    Attributes:
        phase: how far it is.
        error: why it stopped.
        questions: where answers are computed; None until the model is there.
        closing: set when it is to stop.
    """

    def __init__(
        self,
        load: Callable[[], Embedder],
        specs: Sequence[str],
        images: Images,
        files: Files,
        saved: dict[str, Classifier],
        fetched: Callable[[], int | None],
    ) -> None:
        self.phase: Phase = "model"
        self.error = ""
        self.questions: Questions | None = None
        self.closing = threading.Event()
        self._load = load
        self._model: Embedder | None = None
        self._specs = specs
        self._images = images
        self._files = files
        self._saved = saved
        self._fetched = fetched
        self._going = threading.Event()
        self._going.set()
        self._looked: dict[str, Any] = {}
        self._total: int | None = None
        self._done = 0
        self._began = 0.0
        self._thread: threading.Thread | None = None

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
        """Stop."""
        self.closing.set()
        self._going.set()
        if self._thread is not None:
            self._thread.join(10)

    def state(self) -> dict[str, Any]:
        """How far it is: what the page shows beside its title."""
        paused = self.phase == "reading" and not self._going.is_set()
        spent = time.monotonic() - self._began if self._began else 0.0
        rate = self._done / spent if spent > 0.5 else None
        left = None
        if rate and self._total is not None and self.phase == "reading" and not paused:
            left = max(self._total - self._done, 0) / rate
        return {
            "phase": "paused" if paused else self.phase,
            "error": self.error,
            "rows": len(self._images),
            "failed": self._images.failed,
            "repeated": self._images.repeated,
            "files": self._done,
            "total": self._total,
            "rate": rate,
            "left": left,
            "fetched": self._fetched() if self.phase == "model" else None,
            "model": None if self._model is None else self._model.name,
        } | self._looked

    @property
    def model(self) -> Embedder | None:
        """What embeds the images; None while it is not there yet."""
        return self._model

    def _run(self) -> None:
        try:
            if self.questions is None:
                embedder = self._load()
                if isinstance(embedder, Cascade):
                    self._saved[LABELS] = embedder.classifier
                    self._images.first = embedder.first.dimension
                for each in self._saved.values():
                    each.check_space(embedder.recipe, embedder.name)
                self.questions = Questions(embedder)
                self._model = embedder
            self.phase, self._done, self._began = "reading", 0, time.monotonic()
            self._looked = {}
            threading.Thread(target=self._count, daemon=True).start()
            assert self._model is not None
            listed = self._files.noted(self._model.sources(self._specs))
            for record in self._model.embed_images(listed, thumbnails=self._files):
                self._done += 1
                self._images.add([record])
                self._going.wait()
                if self.closing.is_set():
                    return
            self._total = self._done
            read = len(self._images) - self._images.failed
            self.phase = "ready" if read else "failed" if len(self._images) else "empty"
        except NshotError as error:
            nothing = not len(self._images) and "hold" in str(error)
            self.phase, self.error = ("empty" if nothing else "error"), str(error)
        except Exception as error:  # told on the page: a thread that dies in silence would leave it waiting
            log.debug("reading stopped", exc_info=True)
            self.phase, self.error = "error", f"{type(error).__name__}: {error}"
        if self.phase == "empty":
            self._looked = {"looked": looked(self._specs)}
        if self.phase == "failed":
            self._looked = {"failures": _failures(self._images)}

    def _count(self) -> None:
        with suppress(NshotError):
            if all(Path(spec).is_dir() for spec in self._specs):
                self._total = sum(1 for _ in expand(self._specs))


def _failures(images: Images) -> list[dict[str, Any]]:
    """Why images could not be read: a kind each, how many, and one of them."""
    kinds: Counter[tuple[str, str]] = Counter()
    sample: dict[tuple[str, str], str] = {}
    for row in images.rows:
        if row.failure is not None:
            kind = (row.failure.type, row.failure.message)
            kinds[kind] += 1
            sample.setdefault(kind, row.name)
    return [
        {"type": type, "message": message, "files": count, "such_as": sample[type, message]}
        for (type, message), count in kinds.most_common(20)
    ]


def looked(specs: Sequence[str]) -> dict[str, Any]:
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
