"""What the pipeline remembers: a store that may break off in the middle of a run without an answer lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from nshot.errors import StoreError
from nshot.store.store import Stamp, Store
from nshot.types import Floats

T = TypeVar("T")

log = logging.getLogger("nshot")


class Memory:
    """The questions a run asks of its store; without a store, or after its first error, nothing is known.

    Args:
        store: None to remember nothing.

    Raises:
        StoreError: the store cannot be used from the start; later errors are logged as a warning, once.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store
        if store is not None:
            store.texts("", [])  # opens it: a wrong file is told before any image is read

    def __bool__(self) -> bool:
        return self._store is not None

    def vectors(self, digests: Sequence[bytes], recipe: str) -> dict[bytes, Floats]:
        """Vectors of images, by the digest of their bytes."""
        return self._ask(lambda store: store.vectors(digests, recipe), {})

    def texts(self, texts: Sequence[str], fingerprint: str) -> dict[str, Floats]:
        """Vectors of texts."""
        return self._ask(lambda store: store.texts(fingerprint, texts), {})

    def known_files(self, stamps: Sequence[Stamp]) -> dict[str, bytes]:
        """Digests of files that have not changed, by path."""
        return self._ask(lambda store: store.known_files(stamps), {})

    def keep(self, vectors: Mapping[bytes, Floats], files: Mapping[Stamp, bytes], recipe: str) -> None:
        """Remember vectors, and which files hold what."""
        if vectors:
            self._ask(lambda store: store.put_vectors(vectors, recipe), None)
        if files:
            self._ask(lambda store: store.put_files(files), None)

    def keep_texts(self, vectors: Mapping[str, Floats], fingerprint: str) -> None:
        """Remember texts."""
        self._ask(lambda store: store.put_texts(fingerprint, vectors), None)

    def _ask(self, question: Callable[[Store], T], otherwise: T) -> T:
        store = self._store
        if store is None:
            return otherwise
        try:
            return question(store)
        except StoreError as error:
            self._store = None
            log.warning("%s. Going on without it: no answer is lost.", error)
            return otherwise
