"""``nshot classify`` of a folder of vectors into a folder of answers."""

from __future__ import annotations

from nshot.cli.classify.request import Request
from nshot.cli.kinds import Kind
from nshot.cli.refusing import leave_out


def classify(request: Request, kind: Kind) -> int:
    """Answer every part of a folder of vectors, as arrays."""
    from nshot.cli.asking import ask
    from nshot.cli.folders import ask_folder

    leave_out(
        "a folder of answers holds the labels' scores alone: name a file with -o, such as answers.jsonl, or",
        adapt=request.adapt,
        journal=request.journal_options.journal_file,
        facets=request.facets_given,
        tree=request.tree_file,
        keep_columns=request.keep_columns,
        heatmaps=request.heatmaps,
        resume=request.resume,
        multi=request.decision_options.multi,
    )
    leave_out("vectors are of one model", first=request.cascade_options.first)
    embedder, classifier = ask(
        request.label_options,
        request.classifier_file,
        request.decision_options,
        request.model_options,
        quiet=request.quiet,
        verbose=request.verbose,
    )
    assert request.output is not None
    return ask_folder(
        request.sources[0],
        request.output,
        embedder,
        classifier,
        request.top_k or 5,
        request.ray,
        quiet=request.quiet,
    )
