"""``nshot calibrate`` of a tree of labels: how deep to answer."""

from __future__ import annotations

from nshot.cli.calibrate.request import PREFERRED, Request
from nshot.cli.calibrate.telling import percent
from nshot.cli.data import embed, tell_failures, told_seen
from nshot.cli.options import DecisionOptions, say
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.cli.tree import ask_tree


def calibrate(request: Request) -> int:
    """Learn how deep in a tree to answer, so that answers contain the truth as often as asked."""
    from nshot.classifier.calibrating import seen_before

    quiet = request.quiet
    leave_out(
        "a tree answers with a higher node where it is unsure",
        **request.given_learning(),
        background=request.background,
        background_file=request.background_file,
    )
    nothing = DecisionOptions(None, None, None, None, None)
    labelled = request.data_options.open(request.model_options, None, prefer=PREFERRED, quiet=quiet)
    model, asked = ask_tree(
        request.tree_file,
        request.classifier_file,
        request.label_options,
        nothing,
        request.own_model,
        quiet=True,
    )
    images = embed(model, labelled, quiet=quiet)
    given = sorted({own[0] for own in images.labels or () if len(own) == 1})
    if strange := [label for label in given if asked.tree.find(label) is None]:
        say(f"left out, for the tree does not have them: {', '.join(strange)}")
    if learnt := seen_before(asked.classifier, images):
        say(f"WARNING: {told_seen(learnt, len(images))}: calibrate on images that it has not seen")
    coverage = 0.9 if request.coverage is None else request.coverage
    calibrated = asked.calibrated(images, coverage)
    placing = calibrated.placing
    assert placing is not None
    echo(f"calibrated on {len(placing.scores):,} images: answers contain the truth {percent(coverage)}")
    request.write_report(
        {
            "images": len(placing.scores),
            "coverage": coverage,
            "threshold": placing.threshold,
            "weight_of_inner_nodes": placing.weight,
        }
    )
    request.save(calibrated)
    return tell_failures(list(images.failures.values()), len(images), quiet=quiet)
