"""A tree over labels: nested JSON, paths in a table, or edges, such as WordNet's.

{"animal": {"dog": ["beagle", "poodle"], "cat": {}}, "vehicle": ["car"]}     nested JSON
animal/dog/beagle                                                            a path per line
{"leaves": [{"wnid": "n02084071", "label": "dog"}], "labels": {...}, "edges": [[parent, child]]}
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nshot.errors import LabelError
from nshot.labels.prompts import read_plain

_MOST = 100  # levels


class Tree:
    """Labels in a tree; the leaves are what is asked, in the order in which the tree holds them.

    Args:
        paths: every leaf as the names from the root to it. Trees with several roots are fine.

    Attributes:
        leaves: the leaves' names, so ordered that the leaves under any node lie side by side.
        paths: of each leaf, the names from the root to it.
        spans: of each node (by name), the first of its leaves and the one after the last.
        ways: of each node (by name), the names from the root to it.

    Raises:
        LabelError: no leaf, an empty name, or a name in two places, which is told with both.
    """

    def __init__(self, paths: Iterable[Sequence[str]]) -> None:
        given = [tuple(name.strip() for name in path) for path in paths]
        if not given:
            raise LabelError("a tree needs at least one label")
        self.ways: dict[str, tuple[str, ...]] = {}
        nested: dict[str, Any] = {}
        seen: set[tuple[str, ...]] = set()
        for path in given:
            if not path or not all(path):
                raise LabelError(f"an empty label in {'/'.join(path)!r}")
            if len(path) > _MOST:
                raise LabelError(f"{path[-1]!r} lies more than {_MOST} levels deep")
            if path in seen:
                raise LabelError(f"the label {path[-1]!r} is given twice, as {'/'.join(path)}")
            seen.add(path)
            here = nested
            for depth, name in enumerate(path, 1):
                way = path[:depth]
                if (known := self.ways.setdefault(name, way)) != way:
                    raise LabelError(
                        f"the label {name!r} is in two branches, {'/'.join(known)} and {'/'.join(way)}: "
                        "an answer could not say which is meant, so rename one"
                    )
                here = here.setdefault(name, {})
        leaves: list[tuple[str, ...]] = []
        self.spans: dict[str, tuple[int, int]] = {}
        self._gather(nested, (), leaves)
        self.paths = tuple(leaves)
        self.leaves = tuple(path[-1] for path in leaves)

    def _gather(self, nested: Mapping[str, Any], way: tuple[str, ...], leaves: list[tuple[str, ...]]) -> None:
        for name, below in nested.items():
            first = len(leaves)
            if below:
                self._gather(below, (*way, name), leaves)
            else:
                leaves.append((*way, name))
            self.spans[name] = first, len(leaves)


def read_tree(path: str | os.PathLike[str]) -> Tree:
    """The tree of a file: nested JSON, JSON with edges, or a text or CSV with a path per line.

    In a CSV with several columns, each column is a level; in one with a single column, "/" stands between
    two levels.

    Raises:
        LabelError: a file that cannot be read, is no tree, or has a label in two branches.
    """
    text = read_plain(Path(path), LabelError)
    try:
        if text.lstrip()[:1] in ("{", "["):
            return Tree(_of_json(json.loads(text, object_pairs_hook=_pairs)))
        return Tree(_of_lines(text))
    except json.JSONDecodeError as error:
        raise LabelError(f"{path} starts like JSON but is not: {error}") from error
    except RecursionError as error:
        raise LabelError(f"{path} is nested too deeply to be a tree of labels") from error
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error


def _of_lines(text: str) -> list[Sequence[str]]:
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    found: list[Sequence[str]] = []
    for row in rows:
        cells = [cell.strip() for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        found.append(cells[0].strip("/").split("/") if len(cells) == 1 else cells)
    return found


def _of_json(content: Any) -> list[Sequence[str]]:
    if isinstance(content, Mapping) and isinstance(content.get("edges"), list):
        return _of_edges(content)
    found: list[Sequence[str]] = []

    def walk(below: Any, way: tuple[str, ...]) -> None:
        if isinstance(below, Mapping) and below:
            for name, deeper in below.items():
                walk(deeper, (*way, name))
        elif isinstance(below, list) and below:
            for each in below:
                if isinstance(each, str):
                    found.append((*way, each))
                else:
                    walk(each, way)
        elif not below and way:  # {}, [], "" or null: a leaf
            found.append(way)
        else:
            raise LabelError(f"no tree of labels at {'/'.join(way) or 'the top'}: write {{label: {{...}}}}")

    walk(content, ())
    return found


def _of_edges(content: Mapping[str, Any]) -> list[Sequence[str]]:
    """Leaves by id, and edges from parent to child: as trees over WordNet are written."""
    try:
        above: dict[str, str] = {}
        for parent, child in content["edges"]:
            if above.setdefault(child, parent) != parent:
                raise LabelError(f"{child!r} is below both {above[child]!r} and {parent!r}")
        names = dict(content.get("labels", {}))
        leaves = [each if isinstance(each, str) else each["wnid"] for each in content["leaves"]]
        names |= {each["wnid"]: each["label"] for each in content["leaves"] if not isinstance(each, str)}
        found: list[Sequence[str]] = []
        for leaf in leaves:
            way = [leaf]
            while way[-1] in above:
                way.append(above[way[-1]])
                if len(way) > _MOST:
                    raise LabelError(f"the edges above {leaf!r} go in a circle")
            found.append([names.get(each, each) for each in reversed(way)])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LabelError(
            'edges need {"leaves": [...], "labels": {id: name}, "edges": [[parent, child]]}'
        ) from error
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise LabelError(f"given twice in one place: {', '.join(map(repr, twice))}")
    return dict(pairs)
