"""A list of names on a stream: lines, or entries separated by NUL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

LONGEST_NAME = 2**16
"""Bytes; no system has longer ones."""

BLOCK = 2**16
"""Bytes read at once."""


def separated(stream: BinaryIO, block: bytes) -> Iterator[bytes]:
    """A list's entries: split at NUL where its beginning has one, else into lines without the blank ones.

    Of one longer than any name only the beginning is held.
    """
    more: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    separator, held = b"", b""
    while block:
        held += block
        if not separator:
            separator = (
                b"\0" if b"\0" in held else b"\n" if b"\n" in held or len(held) > LONGEST_NAME else b""
            )
        if separator:
            *whole, held = held.split(separator)
            yield from filter(None, (_trimmed(name, separator) for name in whole))
        held = held[: LONGEST_NAME + 1]
        block = more(BLOCK)
    if name := _trimmed(held, separator):
        yield name


def _trimmed(name: bytes, separator: bytes) -> bytes:
    if separator == b"\0":
        return name
    return name.removesuffix(b"\r") if name.strip() else b""
