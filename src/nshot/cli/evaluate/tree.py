"""``nshot evaluate`` of a tree of labels: how deep answers go, and how often they are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nshot.cli.data import embed, tell_failures, told_seen
from nshot.cli.evaluate.request import Request, table_name
from nshot.cli.evaluate.telling import tell_placed
from nshot.cli.options import say
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.cli.tree import ask_tree

if TYPE_CHECKING:
    from nshot.datasets.labelled import LabelledSet
    from nshot.evaluation.placed import PlacedEvaluation
    from nshot.model import Model


def evaluate(request: Request) -> int:
    """Measure a tree, say the headline, and write the report."""
    from nshot.classifier.calibrating import seen_before
    from nshot.evaluation.placed import evaluate_tree

    quiet = request.quiet
    leave_out(
        "a tree is measured by itself",
        compare=request.compare,
        training=request.training,
        domain_column=request.data_options.domain_column,
    )
    labelled = request.data_options.open(request.model_options, None, quiet=quiet)
    model, asked = ask_tree(
        request.tree_file,
        request.classifier_file,
        request.label_options,
        request.decision_options,
        request.own_model,
        rank=request.rank,
        quiet=quiet,
    )
    images = embed(model, labelled, quiet=quiet)
    if learnt := seen_before(asked.classifier, images):
        say(f"WARNING: {told_seen(learnt, len(images))}: evaluate on images that it has not seen")
    found = evaluate_tree(asked, images)
    if found.left_out and not quiet:
        say(f"{found.left_out} images without exactly one label of the tree were left out")
    tell_placed(found)
    if request.output is not None:
        _report(request, labelled, found, model)
    failures = list(images.failures.values())
    return tell_failures(failures, len(images), quiet=quiet, verbose=request.verbose)


def _report(request: Request, labelled: LabelledSet, found: PlacedEvaluation, model: Model) -> None:
    from nshot.evaluation import files, placed_page

    folder, templates = request.output, request.label_options.read_templates()
    assert folder is not None
    tree = str(request.tree_file or request.classifier_file)
    run = request.facts(model, templates, {"tree": tree, "rank": request.rank})
    files.write_placed(folder / table_name(), found)
    files.write_json(folder / "report.json", found.to_dict() | {"run": run})
    thumbs = placed_page.thumbnails(labelled, found, model.limits)
    files.write_page(folder / "index.html", placed_page.write(found, run, thumbs=thumbs))
    echo(f"\n{folder / 'index.html'}")
