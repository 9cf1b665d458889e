"""The forms in which trees of labels are written -> a path of names per leaf.

    animal/dog/beagle                                                     paths, or a column per level
    {"animal": {"dog": ["beagle", "poodle"], "cat": {}}, "vehicle": ["car"]}         nested
    {"name": "animal", "children": [{"name": "dog"}, {"name": "cat"}]}               nodes with children
    {"leaves": ["n02084071"], "labels": {"n02084071": "dog"}, "edges": [[parent, child]]}
    {"nodes": {"dog": {"parent": "animal"}, "animal": {"parent": null}}}             nodes with parents
    {"categories": [{"name": "dog", "supercategory": "animal"}]}                     COCO's
    {"tree": ..., "labels": {"n02084071": "dog"}}                                    with names of ids

A table's first row may name its levels, where these are ranks of biology (kingdom, ..., genus, species).

Ids of WordNet may stand for names in each of them, and a bare list of ids brings WordNet's own tree.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from nshot.bounded import weighed
from nshot.errors import LabelError
from nshot.labels import wordnet

MOST = 100
"""Levels of a tree, at most."""

Paths: TypeAlias = list[tuple[str, ...]]
Ids: TypeAlias = dict[str, str]
_CHILDREN = ("children", "Subcategory", "subcategories")  # the second is Open Images'
_RANKS = {
    *("domain", "kingdom", "phylum", "subphylum", "superclass", "class", "subclass", "superorder", "order"),
    *(
        "suborder",
        "superfamily",
        "family",
        "subfamily",
        "tribe",
        "genus",
        "subgenus",
        "species",
        "subspecies",
    ),
}
_NAMES = ("name", "label", "LabelName", "id")


def paths_of(text: str) -> tuple[Paths, Ids, tuple[str, ...]]:
    """The paths from the root to each leaf, the names of ids that stood for names, and those of levels.

    Raises:
        LabelError: no tree; or ids that have no name.
    """
    ranks: tuple[str, ...] = ()
    if text.lstrip()[:1] in ("{", "["):
        try:
            paths, ids = _texts(*_of_json(weighed(text, pairs=_pairs)))
        except json.JSONDecodeError as error:
            raise LabelError(f"starts like JSON but is not: {error}") from error
    else:
        try:
            (paths, ranks), ids = _of_lines(text), {}
        except csv.Error as error:
            raise LabelError(f"cannot be read as lines of paths: {error}") from error
    return *_named(paths, ids), ranks


def _texts(paths: Paths, ids: Ids) -> tuple[Paths, Ids]:
    """The same, where all names are texts."""
    for path in paths:
        for name in path:
            _text(name, path)
    for id, name in ids.items():
        _text(name, (id,))
    return paths, ids


def _text(name: Any, path: Sequence[Any]) -> str:
    """The name of a label, which has to be a text: str(None) would be a label called "None"."""
    if isinstance(name, str):
        return name
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    told = json.dumps(name)
    told = told if len(told) < 60 else f"{told[:60]}..."
    where = "/".join(each for each in path if isinstance(each, str))
    raise LabelError(
        f"a label{f' at {where}' if where else ''} has the name {told}, which is "
        f"{kinds.get(type(name), 'no text')}: the name of a label is a text, in quotation marks"
    )


def _named(paths: Paths, ids: Ids) -> tuple[Paths, Ids]:
    """The same with a name in the place of each id of WordNet's that had none."""
    bare = dict.fromkeys(name for path in paths for name in path if wordnet.is_id(name))
    if not bare:
        return paths, ids
    if all(len(path) == 1 and path[0] in bare for path in paths):
        paths = wordnet.ways([path[0] for path in paths])
        bare = dict.fromkeys(name for path in paths for name in path)
    names = wordnet.names(list(bare), taken={name for path in paths for name in path})
    return [tuple(names.get(name, name) for name in path) for path in paths], ids | names


def _of_lines(text: str) -> tuple[Paths, tuple[str, ...]]:
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    head = [cell.strip().lower() for cell in rows[0]] if len(rows) > 1 else []
    ranks = tuple(head) if len(head) > 1 and set(head) <= _RANKS else ()
    if ranks or head in (["path"], ["label"]):
        rows = rows[1:]
    found: Paths = []
    for row in rows:
        cells = [cell.strip() for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        found.append(tuple(cells[0].strip("/").split("/") if len(cells) == 1 else cells))
    return found, ranks


def _of_json(content: Any) -> tuple[Paths, Ids]:
    if isinstance(content, Mapping):
        if isinstance(content.get("edges"), list):
            return _of_edges(content)
        for key in ("nodes", "parent", "parents"):
            if _tells_parents(content.get(key)):
                return _of_parents(content[key], content.get("leaves"))
        if isinstance(content.get("tree"), (Mapping, list)) and _is_about(content, "tree"):
            names: Ids = dict(content.get("labels") or {})
            paths, ids = _of_json(content["tree"])
            return [tuple(names.get(name, name) for name in path) for path in paths], ids | names
    categories = content.get("categories") if isinstance(content, Mapping) else None
    if isinstance(categories, list) and all(isinstance(x, Mapping) and "name" in x for x in categories):
        return [_of_category(each) for each in categories], {}
    found: Paths = []
    seen: Ids = {}
    _walk(content, (), found, seen)
    return found, seen


def _tells_parents(nodes: Any) -> bool:
    """Whether each node tells its parent; a label may be called "nodes" or "parent" too."""
    above = [told.get("parent") if isinstance(told, Mapping) else told for told in _values(nodes)]
    return any(isinstance(each, str) and each for each in above) and all(
        each is None or isinstance(each, str) for each in above
    )


def _is_about(content: Mapping[str, Any], key: str) -> bool:
    """Whether all beside that key is names and notes; a label may be called "tree" too."""
    others = {name: told for name, told in content.items() if name != key}
    texts = [*others.values(), *_values(others.pop("labels", None))]
    named = all(isinstance(told, str) for told in texts if not isinstance(told, Mapping))
    return bool(texts) and named and not any(isinstance(told, Mapping) for told in others.values())


def _values(found: Any) -> list[Any]:
    return list(found.values()) if isinstance(found, Mapping) else []


def _of_category(category: Mapping[str, Any]) -> tuple[str, ...]:
    above, name = category.get("supercategory"), category["name"]
    return (name,) if above in (None, "", "none", name) else (above, name)


def _walk(below: Any, way: tuple[str, ...], found: Paths, ids: Ids) -> None:
    if isinstance(below, Mapping) and (name := _name_of(below)) is not None:
        way = (*way, name)
        if isinstance(id := below.get("id"), str) and id != name:
            ids[id] = name
        children = next((below[key] for key in _CHILDREN if below.get(key)), None)
        if children is None:
            found.append(way)
        else:
            _walk(children, way, found, ids)
    elif isinstance(below, Mapping) and below:
        if _is_node(below):
            _text(next(below[key] for key in _NAMES if key in below), way)
        for name, deeper in below.items():
            _walk(deeper, (*way, name), found, ids)
    elif isinstance(below, list) and below:
        for each in below:
            if isinstance(each, Mapping) and each:
                _walk(each, way, found, ids)
            else:
                found.append((*way, _text(each, way)))
    elif way and (below is None or below in ({}, [], "")):  # a leaf
        found.append(way)
    else:
        raise LabelError(f"no tree of labels at {'/'.join(way) or 'the top'}: write {{label: {{...}}}}")


def _name_of(node: Mapping[str, Any]) -> str | None:
    """The name of a node with children, or of a leaf in such a tree; None: a mapping of labels."""
    return next((node[key] for key in _NAMES if isinstance(node.get(key), str) and node[key]), None)


def _is_node(given: Mapping[str, Any]) -> bool:
    """Whether it tells a node with children whose name is no text, rather than labels of these names."""
    below = any(isinstance(given.get(key), list) and given[key] for key in _CHILDREN)
    names = [given[key] for key in _NAMES if key in given]
    return below and bool(names) and not any(isinstance(name, (Mapping, list)) and name for name in names)


def _of_edges(content: Mapping[str, Any]) -> tuple[Paths, Ids]:
    """Leaves by id, and edges from parent to child: as trees over WordNet are written."""
    try:
        above: dict[str, str] = {}
        for parent, child in content["edges"]:
            if above.setdefault(child, parent) != parent:
                raise LabelError(f"{child!r} is below both {above[child]!r} and {parent!r}")
        names = dict(content.get("labels", {}))
        parents = set(above.values())
        given = content.get("leaves") or [child for child in above if child not in parents]
        leaves = [each if isinstance(each, str) else each["wnid"] for each in given]
        names |= {
            each["wnid"]: each["label"] for each in given if not isinstance(each, str) and "label" in each
        }
        return _climbed(leaves, above, names)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LabelError(
            'edges need {"leaves": [...], "labels": {id: name}, "edges": [[parent, child]]}'
        ) from error


def _of_parents(given: Mapping[str, Any], named: Any) -> tuple[Paths, Ids]:
    """Nodes by name or id, each with its parent and perhaps a name."""
    try:
        nodes = {
            str(node): told if isinstance(told, Mapping) else {"parent": told} for node, told in given.items()
        }
        above = {node: told["parent"] for node, told in nodes.items() if told.get("parent") is not None}
        names: Ids = {}
        for node, told in nodes.items():
            if name := told.get("name") or told.get("label"):
                names[node] = name
            elif isinstance(word := told.get("synset"), str):  # crane.n.05: two synsets may share a word
                plain = word.split(".")[0].replace("_", " ")
                names[node] = f"{plain} ({node})" if plain in names.values() else plain
        parents = set(above.values())
        found = named or [node for node in nodes if node not in parents]
        leaves = [each if isinstance(each, str) else each.get("wnid") or each["id"] for each in found]
        if strange := [leaf for leaf in leaves if leaf not in nodes]:
            raise LabelError(f"the leaf {strange[0]!r} is not among the nodes")
        return _climbed(leaves, above, names)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LabelError('nodes need {"nodes": {id: {"parent": id or null, "name": name}}}') from error


def _climbed(leaves: Iterable[str], above: Mapping[str, str], names: Ids) -> tuple[Paths, Ids]:
    found: Paths = []
    for leaf in leaves:
        way = [leaf]
        while way[-1] in above:
            way.append(above[way[-1]])
            if len(way) > MOST:
                raise LabelError(f"the edges above {leaf!r} go in a circle")
        found.append(tuple(names.get(each, each) for each in reversed(way)))
    return found, names


def _pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise LabelError(f"given twice in one place: {', '.join(map(repr, twice))}")
    return dict(pairs)
