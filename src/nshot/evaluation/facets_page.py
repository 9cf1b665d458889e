"""The evaluation of several facets as one page: all figures side by side, then each facet by itself."""

from __future__ import annotations

from collections.abc import Mapping

from nshot.evaluation.evaluation import Evaluation
from nshot.evaluation.page import sections
from nshot.pages import charts
from nshot.pages.report import Cell, facts, folded, page, percent, section, table


def write(
    evaluations: Mapping[str, Evaluation],
    run: Mapping[str, object],
    *,
    thumbs: Mapping[str, Mapping[int, str]] | None = None,
) -> str:
    """The page.

    Args:
        evaluations: each facet's, by its name.
        run: what was run, with what; the "data" and the "model" also head the page.
        thumbs: per facet, row -> data URI.
    """
    rows = []
    for name, e in evaluations.items():
        top, recall = e.figures["top_1"], e.figures.get("mean_per_class_recall")
        rows.append(
            (
                name,
                len(e.images),
                len(e.classifier.labels),
                percent(top),
                Cell(charts.whisker(top, *e.interval, span=(0, 1)), top),
                Cell("–") if recall is None else percent(recall),
                Cell(
                    f"{100 * e.figures['expected_calibration_error']:.1f} points",
                    e.figures["expected_calibration_error"],
                ),
            )
        )
    heads = (
        "facet",
        "images",
        "labels",
        "top-1",
        "95 % interval",
        "mean per-class recall",
        "calibration error",
    )
    note = "Each facet is a question by itself, measured on the images that have a label of it."
    parts = [section("Facets", table(heads, rows), note=note)]
    for name, e in evaluations.items():
        summary = f"{percent(e.figures['top_1']).content} of {len(e.images):,} images; show all figures"
        parts.append(section(name, folded(summary, *sections(e, (thumbs or {}).get(name, {})))))
    return page(
        f"Evaluation of {run.get('model', 'a classifier')}",
        *parts,
        section("What was run", facts(run)),
        subtitle=", ".join([f"{len(evaluations)} facets", *([str(run["data"])] if "data" in run else [])]),
    )
