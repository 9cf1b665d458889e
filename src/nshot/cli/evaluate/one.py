"""``nshot evaluate`` of one list of labels, one label per image or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from nshot.cli.data import check_choice, embed, tell_failures, told_seen
from nshot.cli.evaluate.request import LEARNT, Request, table_name
from nshot.cli.evaluate.telling import tell, tell_published
from nshot.cli.options import ModelOptions, say
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.cli.staged import say_sent, staged
from nshot.cli.twice import tell_otherwise_labelled, tell_shared
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.datasets.labelled import LabelledSet
    from nshot.embeddings import Embeddings
    from nshot.evaluation.evaluation import Evaluation, Rival
    from nshot.labels.prompts import Labels
    from nshot.model import Model


def evaluate(request: Request) -> int:
    """Measure one model, or several side by side; say the headline, and write the report."""
    from nshot.evaluation.evaluation import compare

    labels, compared = request.label_options, request.compare
    in_stages = request.cascade_options.first is not None
    request.decision_options.check(several=request.classifier_file is not None)
    given = labels.given(quiet=request.quiet, alone=True)
    if in_stages and compared:
        raise RequestError("--compare measures models side by side, and --first one before the other")
    if request.classifier_file is not None and (given is not None or compared):
        raise RequestError("--classifier brings its labels and its model: give neither labels nor --compare")
    templates = labels.read_templates()  # rather now than after a download
    labelled = request.data_options.open(request.model_options, given, quiet=request.quiet)
    if labelled.templates and not templates:
        request = replace(request, label_options=replace(labels, template=labelled.templates))
        templates = request.label_options.read_templates()
        say(f"prompts are the {len(labelled.templates)} templates of {labelled.name}")
    named = None if given is None else given.labels
    known = labelled.classes if named is None else named
    if known is not None:
        check_choice(known, alone=_alone(request) or labelled.multi)
    measured = [
        _measured(request, replace(request.own_model, model=name), labelled, named, templates)
        for name in _models(request.own_model.model, compared)
    ]
    (model, leading), evaluations = measured[0], [each for _, each in measured]
    rivals = compare([each.name for each, _ in measured], evaluations, seed=request.seed)
    tell(leading, rivals)
    tell_published(labelled, leading, model.name)
    _doubts(request, leading)
    if request.training is not None:
        part = ("train", "val", "test")
        learnt_from = request.data_options.open_other(
            request.training, request.model_options, given, prefer=part, quiet=request.quiet
        )
        _both(request, leading, embed(model, learnt_from, quiet=request.quiet))
    if request.output is not None:
        _report(request, labelled, leading, rivals, model, templates)
    say_sent(model, quiet=request.quiet)
    failures = list(leading.images.failures.values())
    return tell_failures(failures, len(leading.images), quiet=request.quiet, verbose=request.verbose)


def _alone(request: Request) -> bool:
    """Whether one label is a sound question: there is a rule that rejects images, perhaps a saved one."""
    return request.decision_options.reject not in (None, "off") or request.classifier_file is not None


def _measured(
    request: Request,
    options: ModelOptions,
    labelled: LabelledSet,
    given: Labels | None,
    templates: Sequence[str],
) -> tuple[Model, Evaluation]:
    """One model, and its evaluation."""
    from nshot.classifier.calibrating import seen_before
    from nshot.classifier.cascade import CascadeClassifier
    from nshot.cli.asking import check_background, decided, say_language, say_synonyms
    from nshot.evaluation.evaluation import evaluate, prompt_ways

    label_options, quiet = request.label_options, request.quiet
    model, classifier = _opened(request, options, labelled, given)
    images = embed(model, labelled, quiet=quiet)
    labels = list(classifier.labels if classifier else images.classes) if given is None else given
    check_choice(labels, alone=_alone(request) or images.multi)
    if isinstance(classifier, CascadeClassifier):
        ways = {f"{classifier.stages[0]} alone": classifier.first_alone()}
    else:
        ways = prompt_ways(model, labels, templates)
    if label_options.label_vectors is not None:
        classifier = label_options.classifier(model, labels)
        ways = {label_options.label_vectors.name: classifier} | ways
    if classifier is not None and request.classifier_file is not None:
        ways = {request.classifier_file.name: classifier} | ways
        if learnt := seen_before(classifier, images):
            say(f"WARNING: {told_seen(learnt, len(images))}: evaluate on images that it has not seen")
    asked = classifier or label_options.classifier(model, labels)
    if request.classifier_file is None:
        say_language(labels, model, quiet=quiet)
        say_synonyms(asked, quiet=quiet)
    if request.cascade_options.first is None:  # a cascade was made of answers with their decision
        words = request.decision_options
        one = words.reject is not None or words.coverage is not None
        several = images.multi and not one and asked.decision is None
        words = replace(words, multi=words.multi or several)
        check_background(asked, words)
        asked = decided(asked, words, label_options, model)
    if asked.several is not None:
        leave_out(LEARNT, threshold=request.decision_options.threshold)
    return model, evaluate(asked, images, ways, seed=request.seed)


def _opened(
    request: Request, options: ModelOptions, labelled: LabelledSet, given: Labels | None
) -> tuple[Model, Classifier | None]:
    """The model, and the classifier where it is known before the images are read."""
    from nshot.cli.asking import check_background, decided, from_file

    if request.classifier_file is not None:
        model, classifier = from_file(request.classifier_file, options, quiet=request.quiet)
    else:
        question = request.label_options.question(labelled.classes if given is None else given)
        model, classifier = options.load(quiet=request.quiet, question=question), None
    if request.cascade_options.first is None:
        return model, classifier
    if classifier is None:
        known = labelled.classes if given is None else given
        if known is None:
            raise RequestError("the labels are not known before the images are read: give --labels")
        classifier = request.label_options.classifier(model, known)
    if labelled.multi:
        raise RequestError(
            f"--first goes with one label per image, and images of {labelled.name} have several: leave it out"
        )
    check_background(classifier, request.decision_options)
    classifier = decided(classifier, request.decision_options, request.label_options, model)
    return staged(
        request.cascade_options,
        model,
        classifier,
        request.label_options,
        request.decision_options,
        options,
        quiet=request.quiet,
    )


def _doubts(request: Request, evaluation: Evaluation) -> None:
    """Labels in doubt and images with two labels: counted on the screen, listed in the folder."""
    from nshot.evaluation.doubts import write_copies, write_doubts

    folder = request.output
    pairs = tell_otherwise_labelled(
        evaluation.images, "" if folder is None else ": see duplicates.csv", quiet=request.quiet
    )
    if folder is None:
        return
    if evaluation.suspects:
        write_doubts(folder / "doubts.csv", evaluation)
    if pairs:
        write_copies(folder / "duplicates.csv", evaluation.images, pairs)


def _both(request: Request, evaluation: Evaluation, training: Embeddings) -> None:
    """Images that are in the training data too, on the screen and in the folder."""
    from nshot.evaluation.doubts import write_copies

    pairs = tell_shared(
        evaluation.images, training, request.training or "", "the figures flatter what was learnt from it"
    )
    if request.output is not None and pairs:
        write_copies(request.output / "in-training.csv", evaluation.images, pairs, training)


def _models(model: str | None, compare: str | None) -> list[str | None]:
    """The models to measure, the leading one first."""
    named = [name.strip() for name in (compare or "").split(",") if name.strip()]
    if model is not None or not named:
        return [model, *(name for name in named if name != model)]
    return [*named]


def _report(
    request: Request,
    labelled: LabelledSet,
    evaluation: Evaluation,
    models: Sequence[Rival],
    model: Model,
    templates: Sequence[str],
) -> None:
    from nshot.classifier.cascade import Cascade
    from nshot.evaluation import files, page

    more: dict[str, object] = {}
    if request.classifier_file is not None:
        more = {"classifier": str(request.classifier_file), "templates": None}
    if isinstance(model, Cascade):
        more["cascade"] = model.promise
    if request.data_options.on_hub:
        more |= {"config": request.data_options.config, "split": request.data_options.split}
    run, folder = request.facts(model, templates, more), request.output
    assert folder is not None
    files.write_predictions(folder / table_name(), evaluation)
    content = files.to_dict(evaluation) | {"run": run}
    if len(models) > 1:
        content["models"] = [asdict(each) for each in models]
    files.write_json(folder / "report.json", content)
    thumbs = page.thumbnails(labelled, evaluation, model.limits)
    files.write_page(folder / "index.html", page.write(evaluation, run, thumbs=thumbs, models=models))
    echo(f"\n{folder / 'index.html'}")
