"""A tree over labels: its leaves are asked, and an answer may be any of its nodes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nshot.errors import NONSENSE, LabelError, brief
from nshot.labels.prompts import read_plain
from nshot.labels.tree_paths import MOST, paths_of


class Tree:
    """Labels in a tree; the leaves are what is asked, in the order in which the tree holds them.

    Args:
        paths: every leaf as the names from the root to it. Trees with several roots are fine.
        ids: other names of nodes, such as WordNet's ids, by which labelled images may name them.
        ranks: names of the levels from the roots on, such as "genus" and "species"; none: numbers only.

    Attributes:
        ids: those of nodes that the tree has.
        leaves: the leaves' names, so ordered that the leaves under any node lie side by side.
        paths: of each leaf, the names from the root to it.
        spans: of each node (by name), the first of its leaves and the one after the last.
        ways: of each node (by name), the names from the root to it.

    Raises:
        LabelError: no leaf, a name that is empty or no text, or one in two places, which is told with both.
    """

    def __init__(
        self,
        paths: Iterable[Sequence[str]],
        ids: Mapping[str, str] | None = None,
        ranks: Sequence[str] = (),
    ) -> None:
        self.ranks = tuple(ranks)
        given = list(map(tuple, paths))
        for path in given:
            for name in path:
                if not isinstance(name, str):
                    raise LabelError(f"the label {name!r} is of type {type(name).__name__}, not a text")
        given = [tuple(name.strip() for name in path) for path in given]
        if not given:
            raise LabelError("a tree needs at least one label")
        self.ways: dict[str, tuple[str, ...]] = {}
        nested: dict[str, Any] = {}
        seen: set[tuple[str, ...]] = set()
        for path in given:
            if not path or not all(path):
                raise LabelError(f"an empty label in {'/'.join(path)!r}")
            if len(path) > MOST:
                raise LabelError(f"{path[-1]!r} lies more than {MOST} levels deep")
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
        self.ids = {id: name for id, name in (ids or {}).items() if name in self.spans and id != name}

    @property
    def depth(self) -> int:
        """How many nodes the longest path has."""
        return max(map(len, self.paths))

    def rank(self, name: str) -> int:
        """The depth of a level, by its number from 1, the roots, or by its name.

        Raises:
            LabelError: there is none.
        """
        if name.lower() in self.ranks:
            return self.ranks.index(name.lower()) + 1
        if name.isdecimal() and len(name) < 10 and 1 <= int(name) <= self.depth:
            return int(name)
        known = f" or {', '.join(self.ranks)}" if self.ranks else ""
        raise LabelError(f"the tree has levels 1 to {self.depth}{known}, not {name!r}")

    @property
    def inner(self) -> tuple[str, ...]:
        """The nodes that are no leaves, parents before their children."""
        leaves = set(self.leaves)
        return tuple(name for name in self.ways if name not in leaves)

    def find(self, label: str) -> str | None:
        """The node of that name or id; None where the tree has none."""
        return label if label in self.spans else self.ids.get(label)

    def _gather(self, nested: Mapping[str, Any], way: tuple[str, ...], leaves: list[tuple[str, ...]]) -> None:
        for name, below in nested.items():
            first = len(leaves)
            if below:
                self._gather(below, (*way, name), leaves)
            else:
                leaves.append((*way, name))
            self.spans[name] = first, len(leaves)


def read_tree(path: str | os.PathLike[str]) -> Tree:
    """The tree of a file: JSON, or a text or CSV with a path per line.

    A label that is one of WordNet's ids is named by WordNet; see ``nshot.labels.tree_paths`` for all forms.

    Raises:
        LabelError: a file that cannot be read, is no tree, or has a label in two branches; or ids without
            a WordNet on this machine.
    """
    text = read_plain(Path(path), LabelError)
    try:
        return Tree(*paths_of(text))
    except RecursionError as error:
        raise LabelError(f"{path} is nested too deeply to be a tree of labels") from error
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error
    except NONSENSE as error:
        raise LabelError(f"{path} is no tree of labels: {brief(error)}") from error
