"""``nshot fit`` of facets: each on its own column of a table."""

from __future__ import annotations

from dataclasses import replace

from nshot.cli.facets import ask_facets, embed_by_facet, failures_of
from nshot.cli.fit.request import NO_DECISION, Request
from nshot.cli.fit.telling import told
from nshot.cli.options import say
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.cli.several import told as told_each


def fit(request: Request) -> int:
    """Learn each facet from its own images, say what was chosen, and save all of them."""
    from nshot.few_shot.facets import fit_facets

    quiet = request.quiet
    model, zero = ask_facets(
        request.facets_given,
        None,
        request.label_options,
        replace(NO_DECISION, multi=request.multi),
        request.own_model,
        quiet=quiet,
    )
    if len(zero.several) == len(zero):
        leave_out(
            "with several labels per image there is one method",
            method=request.method,
            strength=request.strength,
        )
    images = embed_by_facet(model, request.data_options, zero, quiet=quiet)
    made = fit_facets(images, zero, **request.learning())
    made.save(request.output)
    for name, each in made.items():
        report = each.report
        said = told_each(report) if name in made.several else told(report, every=request.verbose)
        echo(f"{name}\n{said}\n")
    echo(request.output)
    ruled = [name for name, each in zero.items() if each.made.get("none", "off") != "off"]
    if ruled and not quiet:
        say(
            f'{", ".join(ruled)}: the rule of "none of these" was one for prompts; nshot calibrate TABLE '
            f"--classifier {request.output} learns another"
        )
    return failures_of(images, quiet=quiet)
