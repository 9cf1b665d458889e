"""Files and JSON that nobody vouches for: what reading them takes is known before it is taken."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

MOST = 2**26
"""Bytes of a file of settings, of words, or of other things that are read whole."""

HEAVIEST = 900_000_000
"""Bytes of memory that JSON which is read whole takes, at most; odd JSON takes fifty times its own."""

LONGEST = 2**28
"""Bytes of memory that one line of a journal or of answers takes, at most."""

_BLOCK = 2**20

# bytes of memory for each value, object, list, text, and element of XML that these begin or end
_COSTS = {b",": 40.0, b":": 60.0, b"{": 250.0, b"[": 90.0, b'"': 30.0, b"<": 300.0, b"=": 200.0}
# for each byte of a file, of its text and of the texts in it: Python keeps one, two or four for each letter
_NARROW, _WIDER, _WIDEST = 3.0, 5.0, 9.0
_HALVES = re.compile(rb"\\u[dD]|\xed[\xa0-\xbf]")  # of a character in UTF-16, written out or as bytes
_WIDE = re.compile(rb"[\xf0-\xff]|\\u[dD]")


def weight(blocks: Iterable[bytes]) -> int:
    """Bytes of memory that reading JSON or XML as a whole takes at most, told from its bytes in blocks."""
    size, parts, letter = 0, 0.0, _NARROW
    for block in blocks:
        size += len(block)
        if _WIDE.search(block):
            letter = _WIDEST
        elif letter == _NARROW and not (block.isascii() and b"\\u" not in block):
            letter = _WIDER
        parts += sum(cost * block.count(part) for part, cost in _COSTS.items())
    return int(size * letter + parts)


def weight_of(path: Path) -> int:
    """The same of a file."""
    with path.open("rb") as file:
        return weight(iter(lambda: file.read(_BLOCK), b""))


class Heavy(ValueError):
    """What is to be read would take more memory than it may."""


def lines(file: BinaryIO, longest: int = LONGEST) -> Iterator[bytes]:
    """The lines of a file of JSON lines, each weighed before anybody parses it; the last may lack its end.

    Raises:
        Heavy: one of them takes more bytes of memory than that.
    """
    most = int(longest / _NARROW)  # bytes: none takes less than that for each
    while line := file.readline(most + 1):
        if len(line) > most or weight([line]) > longest:
            raise Heavy(f"a line of it takes more than {longest / 1e6:,.0f} MB of memory")
        yield line


def read_json(path: str | os.PathLike[str], memory: int) -> Any:
    """The content of a file of JSON, in UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or nested too deeply, or would take more bytes of memory than that.
    """
    return weighed(read_regular(path, memory), memory)


def parsed(text: str | bytes, *, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def weighed(
    text: str | bytes, memory: int = HEAVIEST, *, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """What JSON says that lies in the memory already, unless it would take more than that.

    Raises:
        ValueError: it would, or it is no JSON, or nested too deeply.
    """
    heavy = weight([text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text])
    if heavy > memory:
        raise Heavy(f"reading it takes about {heavy / 1e6:,.0f} MB, more than {memory / 1e6:,.0f} MB")
    return parsed(text, pairs=pairs)


def received(body: bytes) -> Any:
    """What JSON says that came over the network: its texts are whole, so that an answer can repeat them.

    Raises:
        ValueError: it is none, is nested too deeply, or a text holds half a character.
    """
    content = parsed(body)
    if _HALVES.search(body):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("half a character (a lone surrogate)") from error
    return content


def read_regular(path: str | os.PathLike[str], most: int = MOST) -> bytes:
    """A file that was found and not named: no pipe or device, which could keep us waiting or act.

    Raises:
        OSError: it cannot be read, is no regular file, or has more bytes.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError(None, "not a regular file")
    return read_bytes(path, most)


def read_bytes(path: str | os.PathLike[str], most: int = MOST) -> bytes:
    """A whole file, perhaps a pipe, such as a shell makes.

    Raises:
        OSError: it cannot be read, or has more bytes.
    """
    with Path(path).open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(None, f"larger than {most / 1e6:,.0f} MB")
    return data
