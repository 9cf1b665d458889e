"""The classifiers that an endpoint answers with: labels asked before, and files in a folder, by name."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nshot.classifier import file
from nshot.classifier.cascade import CascadeClassifier
from nshot.classifier.classifier import Classifier
from nshot.classifier.zero_shot import zero_shot
from nshot.embedder import Embedder
from nshot.errors import NshotError, RequestError
from nshot.labels.prompts import Labels
from nshot.types import Floats

log = logging.getLogger("nshot")

MOST_SETS = 64  # sets of labels whose vectors are kept
_SUFFIX = ".nshot"


class UnknownClassifier(RequestError):
    """No classifier of that name is in the folder."""


class Known:
    """Classifiers by their labels or by their name; safe to use from several threads.

    Texts are encoded in one thread, by an embedder of its own that shares the model's weights.

    Args:
        model: a loaded model.
        folder: where ``NAME.nshot`` files are; None for none. A file that changes is read anew when it is
            next asked for, and takes the place of the old one at once; one that cannot be read leaves the
            old one.
    """

    def __init__(self, model: Embedder, folder: Path | None = None) -> None:
        self._own = Embedder(model.checkpoint, model.encoder, model.preprocessor, limits=model.limits)
        self._folder = folder
        self._lock = threading.Lock()
        self._sets: OrderedDict[Any, Future[Classifier]] = OrderedDict()
        self._files: dict[str, tuple[Any, Classifier]] = {}
        self._broken: dict[str, Any] = {}
        self._texts = ThreadPoolExecutor(1, thread_name_prefix="nshot-serve-texts")

    def of(self, labels: Labels, templates: Sequence[str]) -> Future[Classifier]:
        """The zero-shot classifier of these labels; known at once where they were asked before."""
        told = (
            tuple((label, tuple(words)) for label, words in labels.items())
            if isinstance(labels, Mapping)
            else tuple(labels)
        )
        key = (isinstance(labels, Mapping), told, tuple(templates))
        with self._lock:
            found = self._sets.get(key)
            if found is None or (found.done() and found.exception() is not None):
                found = self._sets[key] = self._texts.submit(zero_shot, self._own, labels, templates)
            self._sets.move_to_end(key)
            while len(self._sets) > MOST_SETS:
                self._sets.popitem(last=False)
        return found

    def texts(self, texts: Sequence[str]) -> Future[Floats]:
        """Unit vectors of texts as they are: float32[n, d]."""
        return self._texts.submit(self._own.embed_texts, texts)

    def names(self) -> list[str]:
        """The names that can be asked for."""
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(path.stem for path in self._folder.iterdir() if path.suffix == _SUFFIX)

    def named(self, name: str) -> Classifier:
        """The classifier of that name.

        Raises:
            UnknownClassifier: there is none. A name is looked up in the folder's list, so no path gets out.
            RequestError: it cannot be read and never was, or belongs to another model.
        """
        if self._folder is None or name not in self.names():
            there = ", ".join(self.names()) or "none"
            raise UnknownClassifier(f"no classifier is called {name!r}: there is {there}")
        path = self._folder / f"{name}{_SUFFIX}"
        with self._lock:
            known = self._files.get(name)
            try:
                stat = path.stat()
                stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                if known is not None and stamp in (known[0], self._broken.get(name)):
                    return known[1]
                fresh = self._opened(path, name)
            except (OSError, NshotError) as error:
                if known is None:
                    raise RequestError(f"the classifier {name!r} cannot be used: {error}") from error
                if isinstance(error, NshotError):
                    self._broken[name] = stamp
                log.warning("the classifier %r is left as it was: %s", name, error)
                return known[1]
            self._files[name] = (stamp, fresh)
            return fresh

    def _opened(self, path: Path, name: str) -> Classifier:
        if not file.is_cascade(path):
            fresh = Classifier.open(path)
            fresh.check_space(self._own.recipe, self._own.name, name=name)
            return fresh
        both = CascadeClassifier.open(path)
        both.last.check_space(self._own.recipe, self._own.name, name=f"the last stage of {name}")
        return both

    def close(self) -> None:
        """Stop."""
        self._texts.shutdown(cancel_futures=True)
