"""XMP sidecars: keywords added, every other byte as it was.

A keyword stands where photo managers look for it: ``dc:subject`` (all of them; it is the IPTC keyword of
XMP), and a label with levels, ``animal/dog``, also in ``lr:hierarchicalSubject`` (Lightroom, darktable) and
``digiKam:TagsList``. The file is read with expat, to know the place of what is there, and text is put in at
that place: what other programs have written, which nshot need not understand, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape

from nshot.paths import spelled

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PROPERTIES = {
    "dc:subject": ("http://purl.org/dc/elements/1.1/", "subject", "Bag"),
    "lr:hierarchicalSubject": ("http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject", "Bag"),
    "digiKam:TagsList": ("http://www.digikam.org/ns/1.0/", "TagsList", "Seq"),
}
_LISTS = tuple(f"{_RDF} {name}" for name in ("Bag", "Seq", "Alt"))
LARGEST = 2**24  # bytes; edits of a raw file with many masks take some hundred kilobytes

_NEW = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="nshot">\n'
    f' <rdf:RDF xmlns:rdf="{_RDF}">\n'
    " </rdf:RDF>\n"
    "</x:xmpmeta>\n"
    '<?xpacket end="w"?>\n'
)


class SidecarError(ValueError):
    """A sidecar that nshot does not change: damaged, or of an unusual form."""


@dataclass(slots=True)
class _Found:
    """Where something stands in a sidecar.

    Attributes:
        end: byte offset of the closing tag of the list, or of the empty tag in its place.
        empty: whether it is an empty tag, as in ``<rdf:Bag/>``.
        items: the texts in the list.
    """

    end: int = -1
    empty: bool = False
    items: list[str] = field(default_factory=list)


def with_keywords(sidecar: bytes | None, labels: Sequence[str]) -> bytes:
    """A sidecar with these labels among its keywords; the very same bytes where it has them all already.

    Args:
        sidecar: what is there; None to make a new one.
        labels: the labels; "/" or "|" stands between the levels of a hierarchy.

    Raises:
        SidecarError: the sidecar cannot be read or is of an unusual form; it is better left alone.
    """
    data = _NEW.encode() if sidecar is None else sidecar
    wanted = _wanted(labels)
    closing, lists = _read(data)
    pieces: list[tuple[int, int, str]] = []  # (from, to, what comes there)
    missing = []
    for name, values in wanted.items():
        found = lists.get(name)
        fresh = [value for value in values if found is None or value not in found.items]
        if not fresh:
            continue
        if found is None:
            missing.append((name, fresh))
        elif found.empty:
            whole = data[found.end : data.index(b"/>", found.end) + 2]
            tag = whole[1:-1].rstrip().removesuffix(b"/").rstrip().decode()
            name_only = tag.split()[0]
            items = _items(fresh, name_only.rpartition(":")[0])
            pieces.append((found.end, found.end + len(whole), f"<{tag}>\n{items}</{name_only}>"))
        else:
            prefix = data[found.end + 2 : data.index(b">", found.end)].strip().decode().rpartition(":")[0]
            pieces.append((found.end, found.end, _items(fresh, prefix)))
    if missing:
        pieces.append((closing, closing, _description(missing)))
    for start, end, text in sorted(pieces, reverse=True):
        data = data[:start] + text.encode() + data[end:]
    return data


def keywords_of(sidecar: bytes) -> list[str]:
    """The plain keywords (``dc:subject``) of a sidecar.

    Raises:
        SidecarError: it cannot be read.
    """
    found = _read(sidecar)[1].get("dc:subject")
    return [] if found is None else list(found.items)


def _wanted(labels: Iterable[str]) -> dict[str, list[str]]:
    """Which values belong into which property."""
    wanted: dict[str, dict[str, None]] = {name: {} for name in _PROPERTIES}
    for label in labels:
        levels = [spelled(part.strip()) for part in label.replace("|", "/").split("/") if part.strip()]
        if len(levels) < 2:
            wanted["dc:subject"][spelled(label)] = None
            continue
        wanted["dc:subject"] |= dict.fromkeys(levels)
        wanted["lr:hierarchicalSubject"]["|".join(levels)] = None
        wanted["digiKam:TagsList"]["/".join(levels)] = None
    return {name: list(values) for name, values in wanted.items()}


def _items(values: Iterable[str], prefix: str) -> str:
    name = f"{prefix}:li" if prefix else "li"
    return "".join(f"<{name}>{escape(value)}</{name}>\n" for value in values)


def _description(missing: Iterable[tuple[str, list[str]]]) -> str:
    """A block of its own for the properties that the sidecar lacks; XMP allows several."""
    namespaces, body = [f'xmlns:rdf="{_RDF}"'], ""
    for name, values in missing:
        namespace, _, container = _PROPERTIES[name]
        namespaces.append(f'xmlns:{name.partition(":")[0]}="{namespace}"')
        body += f"<{name}>\n<rdf:{container}>\n{_items(values, 'rdf')}</rdf:{container}>\n</{name}>\n"
    return f'<rdf:Description rdf:about="" {" ".join(namespaces)}>\n{body}</rdf:Description>\n'


def _read(data: bytes) -> tuple[int, dict[str, _Found]]:
    """The place of the closing tag of rdf:RDF, and of the lists of keywords."""
    if len(data) > LARGEST:
        raise SidecarError(f"it has {len(data):,} bytes, which no sidecar should have")
    reader = _Reader(data)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = lambda name, _: reader.start(name, parser.CurrentByteIndex)
    parser.EndElementHandler = lambda name: reader.end(name, parser.CurrentByteIndex)
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse
    parser.XmlDeclHandler = _check_encoding
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise SidecarError(f"it is not well-formed XML ({error})") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SidecarError("it is not in UTF-8")
    if reader.closing < 0:
        raise SidecarError("it holds no rdf:RDF")
    if data[reader.closing : reader.closing + 2] != b"</":
        raise SidecarError("its rdf:RDF is an empty tag")
    return reader.closing, reader.lists


def _refuse(*_: Any) -> None:
    raise SidecarError("it declares a document type, which no sidecar needs")


def _check_encoding(_version: str, encoding: str | None, _standalone: int) -> None:
    if encoding is not None and encoding.lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise SidecarError(f"it is in {encoding}, not in UTF-8")


class _Reader:
    """What expat tells, put together."""

    def __init__(self, data: bytes) -> None:
        self.closing = -1
        self.lists: dict[str, _Found] = {}
        self._data = data
        self._path: list[str] = []
        self._starts: list[int] = []
        self._just_begun = False
        self._text: list[str] | None = None
        self._names = {f"{space} {local}": name for name, (space, local, _) in _PROPERTIES.items()}

    def _within(self) -> str | None:
        """The property whose list is open, if one is."""
        return self._names.get(self._path[-2]) if len(self._path) >= 2 else None

    def start(self, name: str, at: int) -> None:
        self._path.append(name)
        self._starts.append(at)
        self._just_begun = True
        own = self._within()
        if own is not None and name in _LISTS:
            self.lists.setdefault(own, _Found())
        if name == f"{_RDF} li":
            self._text = []

    def text(self, text: str) -> None:
        self._just_begun = False
        if self._text is not None:
            self._text.append(text)

    def end(self, name: str, at: int) -> None:
        own, start = self._within(), self._starts.pop()
        # of <a/>, expat tells the end right behind it
        empty = self._just_begun and self._data[at - 2 : at] == b"/>"
        self._just_begun = False
        at = start if empty else at
        if name == f"{_RDF} li" and self._text is not None and len(self._path) >= 3:
            listed = self._names.get(self._path[-3])
            if listed is not None and listed in self.lists:
                self.lists[listed].items.append("".join(self._text))
            self._text = None
        elif own is not None and name in _LISTS:
            found = self.lists[own]
            found.end, found.empty = at, empty
        elif name in self._names and self._names[name] not in self.lists:
            raise SidecarError(f"its {self._names[name]} is no list")
        elif name == f"{_RDF} RDF":
            self.closing = at
        self._path.pop()
