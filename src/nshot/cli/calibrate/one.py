"""``nshot calibrate`` of one label per image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nshot.cli.calibrate.request import PREFERRED, Request
from nshot.cli.calibrate.telling import told
from nshot.cli.data import check_choice, embed, tell_failures, told_seen
from nshot.cli.options import say
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.cli.staged import staged
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.embeddings import Embeddings
    from nshot.model import Model


def calibrate(request: Request) -> int:
    """Learn when to believe the answers, say the figures, and save the classifier."""
    from nshot.classifier.calibrating import calibrate, enough, seen_before, split
    from nshot.cli.asking import background_vectors

    learning = request.learning()
    model, classifier, images = _asked(request)
    none = request.embed_none(model)
    if len(some := enough(classifier, images, seed=request.seed)) < len(images):
        say(f"{len(some):,} of the {len(images):,} images, drawn at random, are learnt from: that is enough")
        images = some
    _, _, foreign = split(classifier, images)
    if foreign:
        others = sorted({images.labels[row][0] for row in foreign} if images.labels else ())
        say(f"of other labels, so taken as none of these: {', '.join(others)}")
    if several := sum(len(own) != 1 for own in images.labels or ()):
        say(f"{several} images with several labels or none were left out")
    if learnt := seen_before(classifier, images):
        say(f"WARNING: {told_seen(learnt, len(images))}: calibrate on images that it has not seen")
    background = None
    if request.needs_background:
        background = background_vectors(request.words, request.label_options, model)
    calibrated = calibrate(classifier, images, none=none, background=background, **learning)
    figures = calibrated.report
    echo(told(figures))
    for note in figures.notes:
        say(note)
    request.write_report(figures.to_dict())
    request.save(calibrated)
    failures = [*images.failures.values(), *(none.failures.values() if none is not None else ())]
    return tell_failures(failures, len(images) + (0 if none is None else len(none)), quiet=request.quiet)


def _asked(request: Request) -> tuple[Model, Classifier, Embeddings]:
    """The model, the classifier of the file or of the labels, and the images."""
    from nshot.cli.asking import from_file, say_language

    quiet, label_options, model_options = request.quiet, request.label_options, request.own_model
    given = label_options.given(quiet=quiet, alone=True)
    if request.classifier_file is not None and given is not None:
        raise RequestError("give labels or --classifier, not both")
    if not request.needs_background and (request.classifier_file or label_options.label_vectors):
        leave_out(
            "the labels' vectors are there already, so no prompt is written",
            template=label_options.template,
            templates=label_options.templates,
        )
    in_stages = request.cascade_options.first is not None
    labelled = request.data_options.open(request.model_options, given, prefer=PREFERRED, quiet=quiet)
    model_options = replace(model_options, asked=lambda _: labelled)
    known = labelled.classes if given is None else given.labels
    if request.classifier_file is not None:
        model, classifier = from_file(request.classifier_file, model_options, quiet=quiet)
    else:
        if known is not None:
            check_choice(known, alone=bool(request.strangers))
        model = model_options.load(quiet=quiet, question=label_options.question(known))
        if in_stages and known is None:
            raise RequestError("the labels are not known before the images are read: give --labels")
        if not in_stages:
            images = embed(model, labelled, quiet=quiet)
            known = list(images.classes) if given is None else given.labels
        assert known is not None
        say_language(known, model, quiet=quiet)
        classifier = label_options.classifier(model, known)
        if not in_stages:
            return model, classifier, images
    if in_stages:
        model, classifier = staged(
            request.cascade_options,
            model,
            classifier,
            label_options,
            None,
            model_options,
            quiet=quiet,
        )
    return model, classifier, embed(model, labelled, quiet=quiet)
