"""Facets: several independent questions about each image, from a JSON file or out of a small library.

    {"subject": ["dog", "cat"],
     "time of day": {"labels": ["day", "night"], "templates": ["a photo taken at {}"]}}

A facet is its labels, as a labels file has them, or an object with ``labels`` and, if wanted, ``templates``
and ``"multi": true`` where an image may show several of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nshot.errors import LabelError, TemplateError
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels, read_plain, write_prompts

_KEYS = {"labels", "templates", "measured", "multi"}
# names that a record or its columns have already
TAKEN = ("source", "notes", "error", "error_type", "error_message", "run", "columns", "facets")


@dataclass(frozen=True, slots=True)
class Facet:
    """One question.

    Attributes:
        name: what it is called in the answers and in a table of labelled images.
        labels: names, or ``{label: [synonyms or whole prompts]}``.
        templates: each with ``{}`` where the label goes; empty: those that are usual for the run.
        measured: how often it was right, of what and with which model, in words; empty: not known.
        multi: an image may show any number of the labels, each decided by itself.
    """

    name: str
    labels: Labels
    templates: tuple[str, ...] = ()
    measured: str = ""
    multi: bool = False


def read_facets(path: str | os.PathLike[str]) -> dict[str, Facet]:
    """The facets of a JSON file, by name, in its order.

    Raises:
        LabelError: a file that cannot be read, or a facet that is no question; the facet is named.
        TemplateError: a template without a place for the label.
    """
    text = read_plain(Path(path), LabelError)
    try:
        found = json.loads(text, object_pairs_hook=_pairs)
    except RecursionError as error:
        raise LabelError(f"{path} is nested too deeply to be facets") from error
    except (json.JSONDecodeError, LabelError) as error:
        raise LabelError(f"{path}: {error}") from error
    return parse_facets(found, source=os.fspath(path))


def parse_facets(given: Any, *, source: str = "facets") -> dict[str, Facet]:
    """The facets that a mapping tells: ``{name: labels}`` or ``{name: {"labels": ..., "templates": [...]}}``.

    Args:
        given: names to labels.
        source: what to call it in errors.

    Raises:
        LabelError: no facet, or one that is no question; the facet is named.
        TemplateError: a template without a place for the label.
    """
    if not isinstance(given, Mapping) or not given:
        raise LabelError(f'{source} holds no facets: write {{"subject": ["dog", "cat"], "place": [...]}}')
    return {name: _facet(name, value, source) for name, value in given.items()}


@cache
def _ready() -> dict[str, Facet]:
    return read_facets(Path(__file__).with_name("ready_facets.json"))


def ready_facets() -> dict[str, Facet]:
    """A small library of facets: of photographs (time of day, weather, indoor or outdoor, season, shot size),
    of images of any kind (medium), and of drawings (shape, colour, texture, drawing style, background).

    Those of drawings say at which figure they were measured (``Facet.measured``). How well a model answers
    the others has not been measured, for want of labelled images and a model of photographs: evaluate them on
    images of your own before you rely on them.
    """
    return dict(_ready())


def _facet(name: Any, value: Any, source: str) -> Facet:
    if not isinstance(name, str) or not name.strip():
        raise LabelError(f"{source}: a facet without a name")
    if name in TAKEN:
        raise LabelError(f"{source}: a facet cannot be called {name!r}, which every record has of its own")
    labels: Any = value
    templates: Any = ()
    measured, multi = "", False
    if isinstance(value, Mapping) and "labels" in value and not isinstance(value["labels"], str):
        if unknown := sorted(set(value) - _KEYS):
            raise LabelError(
                f"{source}: facet {name!r} has {', '.join(map(repr, unknown))}: "
                "there are only 'labels', 'templates', 'multi' and 'measured'"
            )
        labels, templates = value["labels"], value.get("templates", ())
        if not isinstance(measured := value.get("measured", ""), str):
            raise LabelError(f"{source}: what was measured of facet {name!r} must be told in words")
        if not isinstance(multi := value.get("multi", False), bool):
            raise LabelError(f"{source}: 'multi' of facet {name!r} is true or false")
    if not isinstance(templates, (list, tuple)) or not all(isinstance(each, str) for each in templates):
        raise LabelError(f"{source}: the templates of facet {name!r} must be a list of texts")
    labels = _labels(name, labels, source)
    try:
        write_prompts(labels, tuple(templates) or (DEFAULT_TEMPLATE,))
    except (LabelError, TemplateError) as error:
        raise type(error)(f"{source}: facet {name!r}: {error}") from error
    if len(labels) < 2 and not multi:
        raise LabelError(f"{source}: facet {name!r} has one label: there is nothing to choose")
    return Facet(name, labels, tuple(templates), measured, multi)


def _labels(name: str, labels: Any, source: str) -> Labels:
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        return tuple(labels)
    if isinstance(labels, Mapping):
        told: dict[str, Any] = {
            label: [said] if isinstance(said, str) else said for label, said in labels.items()
        }
        if all(isinstance(said, list) and all(isinstance(x, str) for x in said) for said in told.values()):
            return told
    raise LabelError(
        f"{source}: the labels of facet {name!r} must be a list of texts, or {{label: [synonyms or prompts]}}"
    )


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise LabelError(f"given twice: {', '.join(map(repr, twice))}")
    return dict(pairs)
