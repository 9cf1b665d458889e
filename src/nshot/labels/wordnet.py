"""WordNet's ids, such as n02084071: their names and what lies above them, from a WordNet on this machine.

An id is the place of a noun in the file ``data.noun`` of WordNet 3.0, so nothing but that file is needed. It
is looked for where WordNet itself, Debian's package wordnet-base and NLTK keep it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

from nshot.errors import LabelError

_ID = re.compile(r"n\d{8}")
_FILE = "data.noun"
_HELP = (
    "the labels are ids of WordNet, and there is no WordNet 3.0 on this machine to name them: install one "
    "(apt install wordnet-base, or in Python nltk.download('wordnet')), name its folder in the environment "
    'variable WNSEARCHDIR, or write {"labels": {id: name}, "tree": {...}}'
)


class _Synset(NamedTuple):
    """Its words, the most usual first, and the id above it; None at the top."""

    words: tuple[str, ...]
    above: str | None


def is_id(name: str) -> bool:
    """Whether a label is one of WordNet's ids of nouns."""
    return _ID.fullmatch(name) is not None


def names(ids: Sequence[str], taken: Collection[str] = ()) -> dict[str, str]:
    """A name for each id: its first word that no other has, else that word with the id behind it.

    Args:
        ids: such as "n02084071".
        taken: names that are not to be given.

    Raises:
        LabelError: no WordNet on this machine, or an id that it does not have.
    """
    nouns, used, found = _nouns(), set(taken), {}
    for id in ids:
        words = _synset(nouns, id).words
        name = next((word for word in words if word not in used), f"{words[0]} ({id})")
        used.add(name)
        found[id] = name
    return found


def ways(ids: Sequence[str]) -> list[tuple[str, ...]]:
    """The ids from the lowest that is above all of them to each; of several parents, WordNet's first.

    Raises:
        LabelError: as ``names``.
    """
    nouns, found = _nouns(), []
    for id in ids:
        way = [id]
        while (above := _synset(nouns, way[-1]).above) is not None:
            way.append(above)
        found.append(way[::-1])
    common = next(
        (level for level, here in enumerate(zip(*found, strict=False)) if len(set(here)) > 1),
        min(map(len, found)),
    )
    return [tuple(way[max(common - 1, 0) :]) for way in found]


def _synset(nouns: bytes, id: str) -> _Synset:
    place = int(id[1:])
    line = nouns[place : nouns.find(b"\n", place)].decode("utf-8", "replace")
    head = line.split(" | ")[0].split(" ")
    if place >= len(nouns) or head[0] != id[1:] or len(head) < 6 or head[2] != "n":
        raise LabelError(f"WordNet 3.0 has no noun {id!r}")
    count = int(head[3], 16)
    words = tuple(dict.fromkeys(word.replace("_", " ") for word in head[4 : 4 + 2 * count : 2]))
    pointers = head[5 + 2 * count :]
    kinds = zip(pointers[0::4], pointers[1::4], pointers[2::4], strict=False)
    return _Synset(
        words, next((f"n{to}" for kind, to, part in kinds if kind in ("@", "@i") and part == "n"), None)
    )


def _nouns() -> bytes:
    return _read(tuple(map(str, _folders(os.environ))))


@lru_cache(maxsize=1)
def _read(folders: tuple[str, ...]) -> bytes:
    for folder in map(Path, folders):
        try:
            if folder.suffix == ".zip":
                with ZipFile(folder) as packed:
                    return packed.read(f"wordnet/{_FILE}")
            return (folder / _FILE).read_bytes()
        except (OSError, KeyError, BadZipFile):
            continue
    raise LabelError(_HELP)


def _folders(environment: Mapping[str, str]) -> Iterator[Path]:
    if own := environment.get("WNSEARCHDIR"):
        yield Path(own)
    if home := environment.get("WNHOME"):
        yield Path(home) / "dict"
    yield from (Path("/usr/share/wordnet"), Path("/usr/local/WordNet-3.0/dict"))
    roots = [Path(each) for each in environment.get("NLTK_DATA", "").split(os.pathsep) if each]
    roots += [Path.home() / "nltk_data", Path(sys.prefix) / "nltk_data"]
    roots += [Path("/usr/share/nltk_data"), Path("/usr/local/share/nltk_data")]
    for root in roots:
        yield from (root / "corpora" / "wordnet", root / "corpora" / "wordnet.zip")
