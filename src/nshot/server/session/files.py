"""The files of a session's images, read again to be looked at: never by a path that somebody sends."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from nshot.errors import ImageError
from nshot.images.prepare import header, load
from nshot.images.sources import Source
from nshot.server.session.images import Images
from nshot.server.session.thumbnails import SIDE, Thumbnails, render
from nshot.types import Embedded, Failure

LARGE = 1280  # pixels of the large view's longer side


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
        """The sources, remembered; where a file cannot be read twice, its small image is made on the way."""
        for source in sources:
            if isinstance(source, Source):
                self._sources[source.name] = source
                if source.path is None:
                    source = replace(source, _read=partial(self._read_and_keep, source))
            yield source

    def _read_and_keep(self, source: Source) -> bytes:
        data = source.read()
        with suppress(ImageError):
            self._thumbnails.put(
                hashlib.sha256(data).digest(), render(load(data, draft=2 * SIDE, side=SIDE).image)
            )
        return data

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
