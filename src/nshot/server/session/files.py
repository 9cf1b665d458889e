"""The files of a session's images, read again to be looked at: never by a path that somebody sends."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nshot.errors import ImageError
from nshot.images.prepare import Small, header, load
from nshot.images.sources import Source
from nshot.server.session.images import Images
from nshot.server.session.thumbnails import SIDE, Thumbnails, render
from nshot.types import Embedded, Failure

LARGE = 1280  # pixels of the large view's longer side
_DEAR = 2**20  # pixels of an image that is not decoded twice: of a smaller one only what is looked at is

log = logging.getLogger("nshot")


class Files:
    """Where the images' files are, and what is made of them. Safe to use from several threads.

    Args:
        images: the session's.
        thumbnails: the file that small images are kept in; None keeps none.
    """

    def __init__(self, images: Images, thumbnails: str | os.PathLike[str] | None) -> None:
        self._images = images
        self._thumbnails = Thumbnails(thumbnails)
        self._sources: dict[str, Source] = {}

    def close(self) -> None:
        """Close the thumbnails' file."""
        self._thumbnails.close()

    def noted(self, sources: Iterable[Source | Embedded | Failure]) -> Iterator[Source | Embedded | Failure]:
        """The sources, remembered."""
        for source in sources:
            if isinstance(source, Source):
                self._sources[source.name] = source
            yield source

    # Small images that are made on the way, see ``nshot.pipeline.Thumbnails``

    def wanted(self, source: Source, digest: bytes) -> Small | None:
        """One of each large image, and of each that cannot be read twice."""
        if self._thumbnails.full or self._thumbnails.holds(digest):
            return None
        return Small(SIDE, 0 if source.path is None else _DEAR)

    def put(self, digest: bytes, pixels: NDArray[np.uint8]) -> None:
        """Keep one."""
        try:
            self._thumbnails.put(digest, render(Image.fromarray(pixels)))
        except Exception:  # it is made when it is looked at: no reason to lose the image's vector
            log.debug("no small image was made", exc_info=True)

    def passed(self, source: Source, digest: bytes, data: bytes) -> None:
        """Make one of an image that cannot be read twice, though its vector is known."""
        if source.path is None and self.wanted(source, digest) is not None:
            with suppress(ImageError):
                self.put(digest, np.asarray(load(data, draft=2 * SIDE, side=SIDE).image))

    def thumbnail(self, digest: str) -> bytes:
        """A small WebP of an image.

        Raises:
            RequestError: no such image.
            ImageError: its file is gone, or holds something else now.
        """
        self._images.row(digest)
        key = bytes.fromhex(digest)
        held = self._thumbnails.get(key)
        if held is None:
            held = render(load(self.read(digest), draft=2 * SIDE, side=SIDE).image)
            self._thumbnails.put(key, held)
        return held

    def large(self, digest: str) -> bytes:
        """A large WebP of an image; the small one where its file cannot be read again."""
        try:
            return render(load(self.read(digest), draft=2 * LARGE, side=LARGE).image, LARGE)
        except ImageError:
            return self.thumbnail(digest)

    def read(self, digest: str) -> bytes:
        """An image's own bytes, of the content that was asked about.

        Raises:
            RequestError: no such image.
            ImageError: its file is gone, or holds something else now.
        """
        row = self._images.rows[self._images.row(digest)]
        gone: ImageError | None = None
        for name in (row.name, *row.others):
            source = self._sources.get(name)
            if source is None or source.path is None:
                continue
            try:
                data = source.read()
            except ImageError as error:
                gone = error
                continue
            if hashlib.sha256(data).hexdigest() == digest:
                return data
            gone = ImageError(f"{name} has changed since it was read")
        raise gone or ImageError(f"{row.name} cannot be read again")

    def told(self, name: str) -> dict[str, Any]:
        """What the file itself tells: size in pixels, when it was taken."""
        source = self._sources.get(name)
        if source is None or source.path is None:
            return {}
        with suppress(ImageError):  # it may have gone: nothing here is worth an error
            data = source.read()
            found = header(data)
            told: dict[str, Any] = {"size": list(found.size), "bytes": len(data)}
            return told | ({"taken": found.taken[:19]} if found.taken else {})
        return {}
