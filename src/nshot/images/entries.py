"""A name or some bytes -> a source; nothing is looked at before it is read."""

from __future__ import annotations

from functools import partial

from nshot.errors import ImageTooLarge
from nshot.images import hub
from nshot.images.source import Source, is_url
from nshot.objects import is_object_url
from nshot.types import Limits


def entry(name: str, limits: Limits) -> Source:
    """One file or URL of a list, whether it is there or not."""
    if not is_url(name):
        return Source.file(name, max_bytes=limits.max_bytes)
    if is_object_url(name):
        from nshot.images.stored import Object

        return Source(name, None, Object(name, limits.max_bytes), size=None)
    if hub.is_hub(name):
        return listed(name, limits, None, None)
    from nshot.images.fetch import fetch

    read = partial(fetch, name, max_bytes=limits.max_bytes, allow_private=limits.allow_private)
    return Source(name, None, read, size=None)


def listed(url: str, limits: Limits, size: int | None, mark: int | None) -> Source:
    """An object that was listed.

    Args:
        url: in an object store, or in a data set on the Hub.
        limits: the limits on one image.
        size: what its store said of its size.
        mark: what its store said of its version.
    """
    from nshot.images import stored

    read = partial(hub.read if hub.is_hub(url) else stored.read, url, limits.max_bytes)
    return Source(url, None, read, size=None if size is None else min(size, limits.max_bytes), mark=mark)


def held(name: str, data: bytes, limits: Limits) -> Source:
    """Bytes that are in memory already."""
    if len(data) > limits.max_bytes:
        return Source.failed(name, ImageTooLarge(f"more than the limit of {limits.max_bytes:,} bytes"))
    return Source.of(data, name=name)
