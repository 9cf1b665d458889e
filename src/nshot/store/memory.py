"""What the pipeline remembers: a store that may break off in the middle of a run without an answer lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from nshot.errors import StoreError
from nshot.store.database import BusyStore, DamagedStore, UnreachableStore
from nshot.store.store import Stamp, Store
from nshot.types import Floats

T = TypeVar("T")

log = logging.getLogger("nshot")

_PATIENCE = 2  # waits for a store that another process keeps locked
_MOST_ERRORS = 100  # a disk on which every new store is damaged again


class Memory:
    """The questions a run asks of its store; without a store, or after its errors, nothing is known.

    A damaged store is set aside, under another name, and a new one begun. One that another process keeps
    locked, a full disk, a lost permission: the run goes on without it. Each is logged as a warning, once.

    Args:
        store: None to remember nothing.

    Raises:
        StoreError: the file is not a store.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._errors = 0
        if store is not None:
            try:
                store.texts("", [])  # opens it: a wrong file is told before any image is read
            except (DamagedStore, BusyStore, UnreachableStore) as error:
                self._recover(store, error)

    def __bool__(self) -> bool:
        return self._store is not None

    def vectors(self, digests: Sequence[bytes], recipe: str) -> dict[bytes, Floats]:
        """Vectors of images, by the digest of their bytes."""
        return self._ask(lambda store: store.vectors(digests, recipe), {})

    def notes(self, digests: Sequence[bytes], recipe: str) -> dict[bytes, tuple[str, ...]]:
        """What was to be said of images when their vectors were made, by the digest of their bytes."""
        return self._ask(lambda store: store.notes(digests, recipe), {})

    def regions(self, digest: bytes, recipe: str) -> bytes | None:
        """What was kept of an image's regions, by the digest of its bytes."""
        return self._ask(lambda store: store.regions(digest, recipe), None)

    def keep_regions(self, digest: bytes, content: bytes, files: Mapping[Stamp, bytes], recipe: str) -> None:
        """Remember an image's regions, and which file holds it."""
        self._ask(lambda store: store.put_regions(digest, content, recipe), None)
        if files:
            self._ask(lambda store: store.put_files(files), None)

    def holds(self, recipe: str) -> bool:
        """Whether there are vectors of this recipe."""
        return self._ask(lambda store: store.holds(recipe), False)

    def texts(self, texts: Sequence[str], fingerprint: str) -> dict[str, Floats]:
        """Vectors of texts."""
        return self._ask(lambda store: store.texts(fingerprint, texts), {})

    def known_files(self, stamps: Sequence[Stamp]) -> dict[str, bytes]:
        """Digests of files that have not changed, by path."""
        return self._ask(lambda store: store.known_files(stamps), {})

    def knows(self, path: str) -> bool:
        """Whether a file or an object of this name was seen before, whatever it holds by now."""
        return self._ask(lambda store: store.knows(path), False)

    def keep(
        self,
        vectors: Mapping[bytes, Floats],
        files: Mapping[Stamp, bytes],
        recipe: str,
        notes: Mapping[bytes, tuple[str, ...]] | None = None,
    ) -> None:
        """Remember vectors, what is to be said of some of their images, and which files hold what."""
        if notes:  # first: a vector that is known must not hide what there is to say
            self._ask(lambda store: store.put_notes(notes, recipe), None)
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
            self._recover(store, error)
            return otherwise

    def _recover(self, store: Store, error: StoreError) -> None:
        """Say what is wrong, and go on with a new store or with none; threads may come here at once."""
        self._errors += 1
        if isinstance(error, BusyStore) and self._errors < _PATIENCE:
            return
        if isinstance(error, DamagedStore) and self._errors < _MOST_ERRORS:
            try:
                aside = store.set_aside()
            except StoreError as another:
                error = another
            else:
                if aside is not None:
                    log.warning("%s. It is set aside as %s, and a new one is begun.", error, aside)
                return
        if self._store is not None:
            self._store = None
            log.warning("%s. Going on without it: no answer is lost.", error)
