"""Facets: several independent questions about each image, from a JSON file or out of a small library.

    {"subject": ["dog", "cat"],
     "time of day": {"labels": ["day", "night"], "templates": ["a photo taken at {}"]},
     "plant": {"labels": ["rose", "tulip"], "none": {"background": ["grass", "sky"], "threshold": 0.08},
               "calibrate": {"coverage": 0.95}}}

A facet is its labels, as a labels file has them, or an object of ``labels`` and what else it has of its own
(see ``Facet``): ``templates``, ``activation``, ``none``, ``multi``, ``calibrate``.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_args

from nshot.bounded import weighed
from nshot.errors import LabelError, TemplateError
from nshot.labels.prompts import DEFAULT_TEMPLATE, Labels, read_plain, write_prompts
from nshot.types import Activation

_KEYS = ("labels", "templates", "activation", "none", "multi", "calibrate", "measured")
_NONE_KEYS = ("rule", "threshold", "background")
RULES = ("background", "cosine", "margin", "energy")
"""Of "none of these", as a facet may name them; see ``nshot.decision.Rejection``."""

OFF = "off"
"""A facet that always answers, whatever rule the others have."""

# names that a record or its columns have already
TAKEN = ("source", "notes", "error", "error_type", "error_message", "run", "columns", "facets")


@dataclass(frozen=True, slots=True)
class NoneRule:
    """When a facet answers "none of these".

    Attributes:
        rule: one of ``RULES``, or ``OFF``. Of a facet of several labels: "", for each label is decided by
            itself.
        threshold: the evidence under which it does, in units of a cosine; of a facet of several labels, the
            score in (0, 1) from which a label is shown. None: the usual one.
        background: what else images may show; empty: everyday things.
    """

    rule: str
    threshold: float | None = None
    background: Labels = ()


@dataclass(frozen=True, slots=True)
class Facet:
    """One question.

    Attributes:
        name: what it is called in the answers and in a table of labelled images.
        labels: names, or ``{label: [synonyms or whole prompts]}``.
        templates: each with ``{}`` where the label goes; empty: those that are usual for the run.
        measured: how often it was right, of what and with which model, in words; empty: not known.
        multi: an image may show any number of the labels, each decided by itself.
        activation: softmax over the labels, or each label's own sigmoid; None: the model's.
        none: when it answers "none of these"; None: as is usual for the run.
        calibrate: what calibrating it asks for in the place of what is usual for the run, as
            ``nshot.calibrate`` takes it: "reject", "wrong", "coverage", "surest", "kind", "randomized".
    """

    name: str
    labels: Labels
    templates: tuple[str, ...] = ()
    measured: str = ""
    multi: bool = False
    activation: Activation | None = None
    none: NoneRule | None = None
    calibrate: Mapping[str, Any] = field(default_factory=dict)


def read_facets(path: str | os.PathLike[str]) -> dict[str, Facet]:
    """The facets of a JSON file, by name, in its order.

    Raises:
        LabelError: a file that cannot be read, or a facet that is no question; the facet is named.
        TemplateError: a template without a place for the label.
    """
    text = read_plain(Path(path), LabelError)
    try:
        found = weighed(text, pairs=_pairs)
    except (ValueError, LabelError) as error:
        raise LabelError(f"{path}: {error}") from error
    return parse_facets(found, source=os.fspath(path))


def parse_facets(given: Any, *, source: str = "facets") -> dict[str, Facet]:
    """The facets that a mapping tells: ``{name: labels}``, or ``{name: {"labels": ..., ...}}`` as in a file.

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
    if not isinstance(value, Mapping) or "labels" not in value or isinstance(value["labels"], str):
        value = {"labels": value}  # a label may be called "labels", with one synonym
    try:
        return _told(name, value)
    except (LabelError, TemplateError) as error:
        raise type(error)(f"{source}: facet {name!r}: {error}") from error


def _told(name: str, value: Mapping[str, Any]) -> Facet:
    _known(value, _KEYS)
    templates, multi = value.get("templates", ()), value.get("multi", False)
    activation, measured = value.get("activation"), value.get("measured", "")
    if not isinstance(measured, str):
        raise LabelError("what was 'measured' must be told in words")
    if not isinstance(multi, bool):
        raise LabelError("'multi' is true or false")
    if activation not in (None, *get_args(Activation)):
        raise LabelError(
            f"'activation' is {' or '.join(map(repr, get_args(Activation)))}, not {activation!r}"
        )
    if multi and activation is not None:
        raise LabelError("with 'multi' each label is decided by itself: leave out 'activation'")
    if not _are_texts(templates):
        raise LabelError("'templates' must be a list of texts")
    labels = _labels("labels", value["labels"])
    usual = tuple(templates) or (DEFAULT_TEMPLATE,)
    write_prompts(labels, usual)
    none = None if value.get("none") is None else _none(value["none"], multi, usual)
    if len(labels) < 2 and not multi and (none is None or none.rule in (OFF, "margin")):
        raise LabelError("it has one label: there is nothing to choose, unless 'none' says so")
    calibrate = _calibrate(value.get("calibrate", {}))
    if multi and calibrate:
        raise LabelError("with 'multi' a threshold is learnt for each label: leave out 'calibrate'")
    return Facet(name, labels, tuple(templates), measured, multi, activation, none, calibrate)


def _none(value: Any, multi: bool, templates: tuple[str, ...]) -> NoneRule:
    """What a facet says of "none of these": true, false, a rule's name, or an object."""
    if isinstance(value, (bool, str)):
        value = {"rule": value if isinstance(value, str) else RULES[0] if value else OFF}
        if multi:
            raise LabelError("with 'multi' each label is decided by itself: 'none' has no rule")
    if not isinstance(value, Mapping) or not value:
        raise LabelError('\'none\' is true, false, a rule or {"rule": "background", "threshold": 0.07}')
    _known(value, _NONE_KEYS, of="'none' has")
    if multi and "rule" in value:
        raise LabelError("with 'multi' each label is decided by itself: leave out the 'rule' of 'none'")
    rule, threshold = value.get("rule", "" if multi else RULES[0]), value.get("threshold")
    if rule not in (*RULES, OFF) and not multi:
        raise LabelError(f"there is no rule {rule!r} of 'none': there are {', '.join((*RULES, OFF))}")
    if threshold is not None and not _is_number(threshold):
        raise LabelError(f"the 'threshold' of 'none' is a number, not {threshold!r}")
    if threshold is None and rule in RULES[1:]:
        raise LabelError(
            f"the rule {rule!r} of 'none' needs a 'threshold'; "
            f'nshot calibrate finds one for "calibrate": {{"reject": "{rule}"}}'
        )
    if multi and threshold is not None and not 0 < threshold < 1:
        raise LabelError(f"with 'multi' the 'threshold' is a score between 0 and 1, not {threshold!r}")
    if threshold is not None and rule == OFF:
        raise LabelError("'none' is off, so it has no 'threshold'")
    background: Labels = ()
    if "background" in value:
        if rule not in ("", RULES[0]):
            raise LabelError(f"the rule {rule!r} has no 'background': the rule {RULES[0]!r} does")
        background = _labels("background", value["background"])
        write_prompts(background, templates)
    return NoneRule(rule, None if threshold is None else float(threshold), background)


def _calibrate(value: Any) -> dict[str, Any]:
    """What calibrating asks for, as ``nshot.calibrate`` takes it."""
    if not isinstance(value, Mapping):
        raise LabelError("'calibrate' is an object, such as {\"coverage\": 0.95}")
    _known(value, ("reject", "wrong", "coverage", "surest", "sets", "never_empty"), of="'calibrate' has")
    found: dict[str, Any] = {}
    if "reject" in value:
        if (rule := value["reject"]) not in (*RULES, OFF):
            raise LabelError(
                f"there is no rule {rule!r} of 'calibrate': there are {', '.join((*RULES, OFF))}"
            )
        if rule == OFF and "wrong" in value:
            raise LabelError("'wrong' of 'calibrate' belongs to a rule, and 'reject' is off")
        found["reject"] = None if rule == OFF else rule
    for key in ("coverage", "wrong", "surest"):
        if key not in value:
            continue
        share = value[key]
        if not _is_number(share) or not 0 < share < 1:
            raise LabelError(f"{key!r} of 'calibrate' is a share between 0 and 1, not {share!r}")
        found[key] = float(share)
    if "sets" in value:
        if value["sets"] not in ("least", "adaptive"):
            raise LabelError(f"'sets' of 'calibrate' is 'least' or 'adaptive', not {value['sets']!r}")
        found["kind"] = value["sets"]
    if "never_empty" in value:
        if not isinstance(value["never_empty"], bool):
            raise LabelError("'never_empty' of 'calibrate' is true or false")
        found["randomized"] = not value["never_empty"]
    return found


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _known(value: Mapping[str, Any], keys: tuple[str, ...], of: str = "it has") -> None:
    if unknown := sorted(map(str, set(value) - set(keys))):
        raise LabelError(f"{of} {', '.join(map(repr, unknown))}: there are only {', '.join(map(repr, keys))}")


def _labels(key: str, labels: Any) -> Labels:
    if _are_texts(labels):
        return tuple(labels)
    if isinstance(labels, Mapping):
        told: dict[str, Any] = {
            label: [said] if isinstance(said, str) else said for label, said in labels.items()
        }
        if all(map(_are_texts, told.values())):
            return told
    raise LabelError(f"{key!r} must be a list of texts, or {{label: [synonyms or prompts]}}")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise LabelError(f"given twice: {', '.join(map(repr, twice))}")
    return dict(pairs)
