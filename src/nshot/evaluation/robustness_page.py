"""The robustness page: conditions in, one self-contained page out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nshot.evaluation.robustness import Condition, Tally
from nshot.pages import charts
from nshot.pages.report import (
    Cell,
    Figure,
    Html,
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
        parts.append(section("Images of another kind", _table(domains, reference), note=_NOTE))
    if corruptions:
        drawn = [_chart(family, corruptions) for family in dict.fromkeys(c.name for c in corruptions)]
        parts.append(
            section(
                "The same images, made worse",
                side_by_side(*drawn),
                _table(corruptions, reference),
                note="Accuracy against strength; 0 is the image as it was.",
            )
        )
    parts.append(section("What was run", facts(run)))
    asked = next(iter(base.tallies.values())).asked
    return page(
        "And on other images?",
        *parts,
        subtitle=f"{asked:,} images, {len(base.labels):,} labels, {run['data']}",
    )


_NOTE = (
    "Relative robustness is the share of the base accuracy that is left, on the labels that both sets hold. "
    "Effective robustness is the accuracy above what the reference, diluted to the same base accuracy, "
    "would have, in points."
)


def _headline(base: Condition, domains: Sequence[Condition], corruptions: Sequence[Condition]) -> Html:
    cards = []
    for name, tally in base.tallies.items():
        rest = [
            f"{what} {percent(_mean(group, name)).content}"
            for what, group in (("other kinds", domains), ("made worse", corruptions))
            if group
        ]
        cards.append(Figure(percent(tally.accuracy).content, name, "; ".join(rest)))
    return headline(*cards)


def _mean(conditions: Sequence[Condition], name: str) -> float:
    """The mean over conditions, which weigh the same however many images they have."""
    return sum(c.tallies[name].accuracy for c in conditions) / len(conditions)


def _table(conditions: Sequence[Condition], reference: str) -> Html:
    rows: list[Sequence[Cell | str | int]] = []
    for each in conditions:
        for name, tally in each.tallies.items():
            effective = each.effective(name, reference)
            rows.append(
                [
                    each.name + (f" {each.strength}" if each.strength else ""),
                    name,
                    len(each.labels),
                    tally.asked,
                    percent(tally.base),
                    percent(tally.accuracy),
                    _interval(tally),
                    number(tally.relative, 2),
                    Cell("–", None) if math.isnan(effective) else Cell(f"{100 * effective:+.1f}", effective),
                ]
            )
    heads = [
        "condition",
        "classifier",
        "labels",
        "images",
        "base",
        "accuracy",
        "95 %",
        "relative",
        "effective",
    ]
    return table(heads, rows)


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
    y = charts.Axis("accuracy", 0.0, 1.0, share=True)
    return charts.lines(family, series, charts.Axis("strength", 0.0, 5.0, ticks=range(6)), y)
