"""``nshot fit`` of a tree of labels: its leaves."""

from __future__ import annotations

from nshot.cli.data import embed, tell_failures
from nshot.cli.fit.request import NO_DECISION, PREFERRED, Request
from nshot.cli.fit.telling import told
from nshot.cli.options import say
from nshot.cli.options.talk import echo
from nshot.cli.tree import ask_tree


def fit(request: Request) -> int:
    """Learn the leaves of a tree, say what was chosen, and save them with it."""
    from nshot.few_shot.tree import fit_tree

    quiet = request.quiet
    labelled = request.data_options.open(request.model_options, None, prefer=PREFERRED, quiet=quiet)
    model, asked = ask_tree(
        request.tree_file, None, request.label_options, NO_DECISION, request.own_model, quiet=True
    )
    images = embed(model, labelled, quiet=quiet)
    fitted = fit_tree(images, asked, **request.learning())
    report = fitted.classifier.report
    if (left := len(images) - sum(report.examples.values())) and not quiet:
        say(
            f"{left} images were left out: they have several labels or none, or theirs is no leaf of the tree"
        )
    fitted.save(request.output)
    echo(f"{told(report, every=request.verbose)}\n\n{request.output}")
    return tell_failures(list(images.failures.values()), len(images), quiet=quiet)
