"""Images read once more, for what they are compared by."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nshot.embeddings import Embeddings
from nshot.errors import ImageError, NshotError
from nshot.images.sources import Source
from nshot.search.hashing import Picture, look_at
from nshot.types import Failure


class Reader:
    """Reads images again, by their names or from a second listing, for what they are compared by."""

    def __init__(self, images: Embeddings, pictures: Iterable[Source | Any] | None) -> None:
        self._images = images
        self._pictures = pictures
        self.unreadable: set[int] = set()

    def look(
        self,
        rows: Iterable[int],
        looked: dict[int, Picture],
        digests: MutableSequence[bytes | None],
        *,
        hashed: bool,
    ) -> list[Failure]:
        """Fill in pictures and digests of some rows; the failures of those that cannot be read."""
        failures = []

        def take(item: tuple[int, Source]) -> tuple[int, bytes, Picture | None] | tuple[int, Failure]:
            row, source = item
            try:
                data = source.read()
                return row, hashlib.sha256(data).digest(), look_at(data) if hashed else None
            except ImageError as error:
                return row, Failure.of(source.name, error)

        with ThreadPoolExecutor() as pool:
            for answer in _bounded(pool, take, self._sources(set(rows))):
                if len(answer) == 2:
                    self.unreadable.add(answer[0])
                    failures.append(answer[1])
                    continue
                row, digest, seen = answer
                if digests[row] is None:
                    digests[row] = digest
                if seen is not None:
                    looked[row] = seen
        return failures

    def read(self, row: int) -> bytes | None:
        """One image's bytes, where its name is a file."""
        name = self._images.sources[row]
        try:
            return Source.file(name).read() if Path(name).is_file() else None
        except (NshotError, OSError, ValueError):
            return None

    def _sources(self, rows: set[int]) -> Iterator[tuple[int, Source]]:
        names = {self._images.sources[row]: row for row in rows} if self._pictures is not None else {}
        for source in self._pictures or ():
            row = names.get(getattr(source, "name", ""), -1)
            if row in rows and isinstance(source, Source):
                rows.discard(row)
                yield row, source
        self._pictures = None if not isinstance(self._pictures, Sequence) else self._pictures
        for row in sorted(rows):
            name = self._images.sources[row]
            try:
                there = Path(name).is_file()
            except (OSError, ValueError):
                there = False
            if there:
                yield row, Source.file(name)
            else:
                self.unreadable.add(row)


def _bounded(pool: ThreadPoolExecutor, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """As ``pool.map``, with few items under way at once."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(pool.submit(call, item))
        if len(waiting) > 64:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
