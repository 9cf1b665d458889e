"""``nshot calibrate`` of several labels per image: a threshold for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nshot.cli.calibrate.request import PREFERRED, Request
from nshot.cli.data import embed, told_seen
from nshot.cli.options import say
from nshot.cli.refusing import leave_out
from nshot.cli.several import tell, zero_shot_of
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.embeddings import Embeddings


def calibrate(request: Request) -> int:
    """Learn from which score each label is shown, say the figures, and save the classifier."""
    from nshot.classifier.several import calibrate_several

    leave_out(
        "several labels per image are each decided by themselves",
        **request.given_learning(),
        coverage=request.coverage,
    )
    classifier, images = _asked(request)
    if (strange := sorted(set(images.classes) - set(classifier.labels))) and not request.quiet:
        say(f"left out, for the classifier does not have them: {', '.join(strange)}")
    calibrated = calibrate_several(classifier, images, seed=request.seed)
    status = tell(calibrated, images, quiet=request.quiet)
    request.write_report(calibrated.report.to_dict())
    request.save(calibrated)
    return status


def _asked(request: Request) -> tuple[Classifier, Embeddings]:
    from nshot.classifier.calibrating import seen_before
    from nshot.classifier.several import several_labels
    from nshot.cli.asking import check_several, from_file

    labels, quiet = request.label_options, request.quiet
    if request.classifier_file is None:
        _, classifier, images = zero_shot_of(
            request.data_options, labels, request.words, request.model_options, prefer=PREFERRED, quiet=quiet
        )
        return classifier, images
    if labels.any:
        raise RequestError("give labels or --classifier, not both")
    leave_out(
        "a saved classifier brings its own prompts and background",
        template=labels.template,
        templates=labels.templates,
        background=request.background,
        background_file=request.background_file,
    )
    labelled = request.data_options.open(request.model_options, None, prefer=PREFERRED, quiet=quiet)
    model, classifier = from_file(request.classifier_file, request.own_model, quiet=quiet)
    check_several(classifier)
    classifier = several_labels(classifier, None)
    images = embed(model, labelled, quiet=quiet)
    if learnt := seen_before(classifier, images):
        say(f"WARNING: {told_seen(learnt, len(images))}: calibrate on images that it has not seen")
    return classifier, images
