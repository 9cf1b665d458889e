"""Where nshot keeps what it may lose, and how a file's name is written where only plain text may stand."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path


def cache_dir() -> Path:
    """The folder for nshot's own files: ``$NSHOT_CACHE``, else the platform's place for caches.

    The folder may not exist yet; whoever writes creates it. Everything in it can be deleted at any time.
    """
    if own := os.environ.get("NSHOT_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "nshot"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nshot"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "nshot" / "cache"
    return Path.home() / ".cache" / "nshot"


# What a terminal or a reader of text acts on: turns of direction, and what ends a line or is no text at all.
_TURNS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_ODD = re.compile(
    rf"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_TURNS}]|\\(?=x[0-9a-f]{{2}}|u[0-9a-f]{{4}})"
)
_ACTED_ON = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_TURNS}]")
_GUARDED = re.compile("'+[=+\\-@\t\r＝＋－＠]")
_SPELLED = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})")


def as_url(path: str | os.PathLike[str]) -> str:
    """A name as it was typed, where a ``Path`` has made one slash out of a URL's two."""
    return re.sub(r"^(s3|gs|az):/+", r"\1://", os.fspath(path))


def spelled(name: str) -> str:
    r"""A name in printable text that every encoding of Unicode can hold: the name itself, as a rule.

    Control characters become ``\x1b``, a byte that is not UTF-8 ``\xff``, turns of direction and other odd
    characters ``\u202e``; a backslash that would read as one of these becomes ``\x5c``. ``unspelled`` gives
    the name back.
    """
    return _ODD.sub(_escaped, name) if _ODD.search(name) else name


def harmless(text: str) -> str:
    """Lines in which what a terminal would act on, such as an escape code in a label, is written out."""
    return _ACTED_ON.sub(_escaped, text) if _ACTED_ON.search(text) else text


def unspelled(text: str) -> str:
    """The name that ``spelled`` was given."""
    return _SPELLED.sub(_meant, text) if "\\" in text else text


def utf8(text: str) -> str:
    """Parquet holds only UTF-8: other bytes, of a name that a message holds, are written out."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def unguarded(cell: str) -> str:
    """A cell without the apostrophe that kept it from being a formula."""
    return cell[1:] if _GUARDED.match(cell) else cell


def as_written(cell: str) -> str:
    """The name that nshot wrote into a cell; any other text comes back as it is."""
    return unspelled(unguarded(cell))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name, as Python holds it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def _meant(found: re.Match[str]) -> str:
    if found[2]:
        return chr(int(found[2], 16))
    code = int(found[1], 16)
    return chr(code if code < 0x80 else code + 0xDC00)
