"""``nshot evaluate`` of facets: each on its own column of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nshot.cli.evaluate.request import LEARNT, Request, table_name
from nshot.cli.evaluate.telling import tell
from nshot.cli.facets import ask_facets, embed_by_facet, failures_of, on_table, table_of
from nshot.cli.options import say
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nshot.evaluation.evaluation import Evaluation
    from nshot.model import Model


def evaluate(request: Request) -> int:
    """Measure every facet, say each headline, and write the report."""
    from nshot.classifier.calibrating import seen_before
    from nshot.cli.data import told_seen
    from nshot.evaluation.facets import evaluate_facets

    leave_out(
        "facets are measured on one model and one table", compare=request.compare, training=request.training
    )
    templates = request.label_options.read_templates()
    model, facets = ask_facets(
        request.facets_given,
        request.classifier_file,
        request.label_options,
        request.decision_options,
        on_table(request.own_model, request.data_options),
        quiet=request.quiet,
    )
    if len(facets.several) == len(facets) or request.decision_options.reject is None:
        leave_out(LEARNT, threshold=request.decision_options.threshold)
    tables = embed_by_facet(model, request.data_options, facets, quiet=request.quiet)
    for name, classifier in facets.items():
        if learnt := seen_before(classifier, tables[name]):
            seen = told_seen(learnt, len(tables[name]))
            say(f"WARNING: {name}: {seen}: evaluate on images that it has not seen")
    found = evaluate_facets(facets, tables, model, templates, seed=request.seed)
    for name, evaluation in found.items():
        echo(f"{name}: ", nl=False)
        tell(evaluation)
        echo()
    if request.output is not None:
        _report(request, found, model)
    return failures_of(tables, quiet=request.quiet)


def _report(request: Request, evaluations: Mapping[str, Evaluation], model: Model) -> None:
    from nshot.evaluation import facets_page, files, page
    from nshot.images.sources import Source

    folder, templates = request.output, request.label_options.read_templates()
    assert folder is not None
    run = request.facts(model, templates, {"facets": request.facets_given or str(request.classifier_file)})
    files.write_facet_predictions(folder / table_name(), evaluations)
    told = {facet: files.to_dict(each) for facet, each in evaluations.items()}
    files.write_json(folder / "report.json", {"facets": told, "run": run})
    sources = [each for each in table_of(model, request.data_options) if isinstance(each, Source)]
    thumbs = {name: page.thumbnails(sources, each, model.limits) for name, each in evaluations.items()}
    files.write_page(folder / "index.html", facets_page.write(evaluations, run, thumbs=thumbs))
    echo(f"\n{folder / 'index.html'}")
