"""The images behind embeddings, listed once more where they themselves are needed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator

from nshot.embeddings import Embeddings
from nshot.images.sources import Source


def again(data: Iterable[Source], images: Embeddings, rows: Iterable[int]) -> Iterator[tuple[int, Source]]:
    """Rows with their sources, in the order of the set; a row whose image is gone by now is left out.

    Found by name, so that files which came or went meanwhile shift nothing; of equal names, the first listed
    is the first row.

    Args:
        data: the set that the images came from.
        images: its embeddings.
        rows: the rows that are wanted.
    """
    wanted: defaultdict[str, deque[int]] = defaultdict(deque)
    kept = set(rows)
    named = {images.sources[row] for row in kept}
    for row, name in enumerate(images.sources):
        if name in named:
            wanted[name].append(row)
    left = len(kept)
    for source in data if kept else ():
        if places := wanted.get(source.name):
            row = places.popleft()
            if row in kept:
                yield row, source
                left -= 1
                if not left:
                    return
