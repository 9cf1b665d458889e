"""The robustness page: conditions in, one self-contained page out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nshot.evaluation.corruptions import FAMILIES, STRENGTHS
from nshot.evaluation.robustness import Condition, Tally
from nshot.pages import charts
from nshot.pages.engine import Html
from nshot.pages.report import (
    Cell,
    Figure,
    between,
    facts,
    headline,
    number,
    page,
    percent,
    section,
    side_by_side,
    table,
)


def write(conditions: Sequence[Condition], run: Mapping[str, object], *, reference: str) -> str:
    """The page.

    Args:
        conditions: the base first.
        run: what was run, with what.
        reference: the classifier that effective robustness is measured against.
    """
    base = conditions[0]
    domains = [c for c in conditions if c.kind == "domain"]
    corruptions = [c for c in conditions if c.kind == "corruption"]
    parts = [_headline(base, domains, corruptions)]
    if domains:
        parts.append(section("Other data sets", _table(domains, reference), note=_NOTE))
    if corruptions:
        drawn = [_chart(family, corruptions) for family in dict.fromkeys(c.name for c in corruptions)]
        parts.append(
            section(
                "Corrupted images",
                side_by_side(*drawn),
                _table(corruptions, reference),
                note=f"Accuracy on {_asked(corruptions[0]):,} images at five strengths of each corruption; "
                "none: the unchanged images.",
            )
        )
    parts.append(section("What was run", facts(run)))
    return page(
        f"Robustness on {run['data']}",
        *parts,
        subtitle=f"{_asked(base):,} images, {len(base.labels):,} labels, {run.get('model', 'a classifier')}",
    )


_NOTE = (
    "Relative robustness is the share of the base accuracy that is left, on the labels that both sets hold. "
    "Effective robustness is the accuracy above that of the reference, were it mixed with random answers "
    "until its base accuracy is the same, in percentage points."
)


def _headline(base: Condition, domains: Sequence[Condition], corruptions: Sequence[Condition]) -> Html:
    cards = []
    for name, tally in base.tallies.items():
        rest = [
            f"{what} {percent(_mean(group, name)).content}"
            for what, group in (("other data sets", domains), ("corrupted", corruptions))
            if group
        ]
        cards.append(Figure(percent(tally.accuracy).content, name, "; ".join(rest)))
    return headline(*cards)


def _asked(condition: Condition) -> int:
    return next(iter(condition.tallies.values())).asked


def _mean(conditions: Sequence[Condition], name: str) -> float:
    """The mean over conditions, which weigh the same however many images they have."""
    return sum(c.tallies[name].accuracy for c in conditions) / len(conditions)


def _table(conditions: Sequence[Condition], reference: str) -> Html:
    rows: list[Sequence[Cell | str | int]] = []
    corrupted = any(each.strength for each in conditions)
    for each in conditions:
        for name, tally in each.tallies.items():
            effective = each.effective(name, reference)
            rows.append(
                [
                    each.name,
                    *([_strength(each)] if corrupted else []),
                    name,
                    *([] if corrupted else [len(each.labels), tally.asked]),
                    percent(tally.base),
                    percent(tally.accuracy),
                    _interval(tally),
                    number(tally.relative, 2),
                    Cell("–", None) if math.isnan(effective) else Cell(f"{100 * effective:+.1f}", effective),
                ]
            )
    heads = [
        *(("corruption", "strength") if corrupted else ("data set",)),
        "classifier",
        *(() if corrupted else ("labels", "images")),
        "base accuracy",
        "accuracy",
        "95 % interval",
        "relative",
        "effective, points",
    ]
    return table(heads, rows)


def _strength(condition: Condition) -> Cell:
    """The step of 1 to 5, and what it is in the corruption's own unit."""
    family = FAMILIES.get(condition.name)
    value = "" if family is None else f" ({family.values[condition.strength - 1]:g})"
    return Cell(f"{condition.strength}{value}", condition.strength)


def _interval(tally: Tally) -> Cell:
    low, high = tally.interval
    return Cell(between(low, high), low)


def _chart(family: str, corruptions: Sequence[Condition]) -> Html:
    mine = sorted((c for c in corruptions if c.name == family), key=lambda c: c.strength)
    strengths = [0.0, *(float(c.strength) for c in mine)]
    series = [
        charts.Series(
            name, strengths, [mine[0].tallies[name].base, *(c.tallies[name].accuracy for c in mine)]
        )
        for name in mine[0].tallies
    ]
    known = FAMILIES.get(family)
    names = None if known is None else ["none", *(f"{value:g}" for value in known.values)]
    label = "strength, 1 to 5" if known is None else known.measure
    x = charts.Axis(label, 0.0, float(len(STRENGTHS)), ticks=range(len(STRENGTHS) + 1), names=names)
    return charts.lines(family, series, x, charts.Axis("accuracy", 0.0, 1.0, share=True))
