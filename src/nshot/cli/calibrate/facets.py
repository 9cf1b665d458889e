"""``nshot calibrate`` of facets: each on its own column of a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nshot.cli.calibrate.request import Request
from nshot.cli.calibrate.telling import told
from nshot.cli.data import told_seen
from nshot.cli.facets import ask_facets, embed_by_facet, failures_of, on_table
from nshot.cli.options import DecisionOptions, say
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.cli.several import told as told_each

if TYPE_CHECKING:
    from nshot.classifier.facets import Facets
    from nshot.model import Model
    from nshot.types import Floats


def calibrate(request: Request) -> int:
    """Learn of each facet when to believe its answers, say the figures, and save all of them."""
    from nshot.classifier.calibrating import seen_before

    learning, quiet = request.learning(), request.quiet
    nothing = DecisionOptions(None, None, None, None, None, request.multi)
    model, facets = ask_facets(
        request.facets_given,
        request.classifier_file,
        request.label_options,
        nothing,
        on_table(request.own_model, request.data_options),
        quiet=quiet,
    )
    if len(facets.several) == len(facets):
        leave_out(
            "several labels per image are each decided by themselves",
            **request.given_learning(),
            coverage=request.coverage,
            background=request.background,
            background_file=request.background_file,
        )
    tables = embed_by_facet(model, request.data_options, facets, quiet=quiet)
    none = request.embed_none(model)
    for name, classifier in facets.items():
        if learnt := seen_before(classifier, tables[name]):
            say(f"WARNING: {name}: {told_seen(learnt, len(tables[name]))}: calibrate on other images")
    made = facets.calibrated(tables, none=none, background=_backgrounds(request, model, facets), **learning)
    for name, classifier in made.items():
        report = classifier.report
        if name in made.several:
            echo(f"{name}\n{told_each(report)}\n")
            continue
        echo(f"{name}\n{told(report)}\n")
        for note in report.notes:
            say(f"{name}: {note}")
    request.write_report({name: classifier.report.to_dict() for name, classifier in made.items()})
    request.save(made)
    return failures_of(tables, none, quiet=quiet)


def _backgrounds(request: Request, model: Model, facets: Facets) -> dict[str, Floats | None]:
    """Of each facet that needs it, the vectors of its background: its own words, in its own templates."""
    from nshot.classifier.zero_shot import zero_shot
    from nshot.cli.asking import background_rows
    from nshot.labels.prompts import DEFAULT_TEMPLATE

    found: dict[str, Floats | None] = {}
    for name, classifier in facets.items():
        rule = (classifier.made.get("calibrate") or {}).get("reject", request.rule)
        own = classifier.made.get("background")
        if name in facets.several or not (rule == "background" or own or request.needs_background):
            continue
        templates = tuple(classifier.made.get("templates") or request.label_options.read_templates())
        if own:
            found[name] = zero_shot(model, own, templates or (DEFAULT_TEMPLATE,)).matrix
        else:
            prompts = replace(request.label_options, template=templates, templates=None)
            found[name] = background_rows(request.words, prompts, model).matrix
    return found
