"""`nshot classify`: images and labels in, answers out."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.facets import ask_facets, columns_of, facets_option, facets_path, is_faceted
from nshot.cli.help import Command
from nshot.cli.options import (
    RAY,
    DecisionOptions,
    JournalOptions,
    LabelOptions,
    Listing,
    ModelOptions,
    classifier_option,
    decision_options,
    format_of,
    journal_options,
    label_options,
    model_options,
    output_options,
    progress,
    say,
    source_arguments,
    talk_options,
    tell_failure,
    tell_remarks,
)
from nshot.cli.staged import CascadeOptions, cascade_options, say_sent, staged
from nshot.cli.tree import ask_tree, is_tree, rank_option, tree_option
from nshot.errors import RequestError
from nshot.images.remarks import Remarks
from nshot.types import Embedded, Faceted, Failure, Prediction

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.facets import Facets
    from nshot.classifier.tree import TreeClassifier
    from nshot.images.sources import Source


@click.command("classify", cls=Command, short_help="Say which label fits each image.")
@source_arguments
@label_options
@classifier_option
@facets_option
@tree_option
@rank_option
@decision_options
@model_options
@cascade_options
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    metavar="K",
    help="How many labels to show per image.  [default: 1 in a table, else 5]",
)
@click.option(
    "--adapt",
    is_flag=True,
    help="Adapt the labels to the images themselves, where there are enough; all are embedded first.",
)
@click.option(
    "--keep-columns",
    is_flag=True,
    help="Keep the other columns of a table, such as ids and true labels, beside the answers.",
)
@click.option(
    "--heatmaps",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also write each image with the evidence for its label laid over it, into this folder.",
)
@journal_options
@RAY
@output_options
@talk_options
def command(
    sources: tuple[str, ...],
    listing: Listing,
    label_options: LabelOptions,
    classifier_file: Path | None,
    facets_given: str | None,
    tree_file: Path | None,
    rank: str | None,
    decision_options: DecisionOptions,
    model_options: ModelOptions,
    cascade_options: CascadeOptions,
    top_k: int | None,
    adapt: bool,
    keep_columns: bool,
    heatmaps: Path | None,
    journal_options: JournalOptions,
    ray: str | None,
    format: str | None,
    output: Path | None,
    resume: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Say which label fits each image.

    SOURCE is a file, a folder, a glob, an archive, a table (.csv, .parquet), a file of vectors, a URL,
    or - for a list on standard input. Answers go to standard output or -o, everything else to stderr.

    \b
    nshot classify photos/ --labels "cat, dog, hot dog"
    nshot classify photos/ --labels-file labels.txt --format jsonl -o out.jsonl
    nshot classify photos/ --labels "cat, dog" --reject background
    nshot classify photos/ --classifier animals.nshot --coverage 0.9
    nshot classify photos/ --facets facets.json
    nshot classify photos/ --tree animals.json
    nshot classify photos/ --tree taxa.csv --rank genus
    nshot classify vectors/ --labels-file labels.txt -o answers/
    nshot classify photos/ --labels "cat, dog" --heatmaps evidence/
    nshot classify photos/ --labels-file tags.txt --multi

    Exit status: 0 all answered, 1 some images failed, 2 the request itself was wrong.
    """
    from nshot.atomic import check_output
    from nshot.cli.asking import ask
    from nshot.cli.folders import ask_folder, is_folder_of_answers

    in_stages = cascade_options.check()
    if in_stages:
        for given, name in (
            *(
                (adapt, "--adapt"),
                (facets_given, "--facets"),
                (tree_file, "--tree"),
                (heatmaps, "--heatmaps"),
            ),
            ("-" in sources, "a list on standard input"),
        ):
            if given:
                raise RequestError(f"{name} does not go with --first")
    if is_folder_of_answers(sources, output, format):
        for given, name in (
            *((adapt, "--adapt"), (journal_options.journal_file, "--journal"), (facets_given, "--facets")),
            *((tree_file, "--tree"), (keep_columns, "--keep-columns"), (heatmaps, "--heatmaps")),
        ):
            if given:
                raise RequestError(f"{name} does not go with a folder of answers: name a file with -o")
        if in_stages:
            raise RequestError("vectors are of one model: leave out --first")
        embedder, classifier = ask(
            label_options, classifier_file, decision_options, model_options, quiet=quiet, verbose=verbose
        )
        assert output is not None
        return ask_folder(sources[0], output, embedder, classifier, top_k or 5, ray, quiet=quiet)
    if ray is not None:
        raise RequestError(
            "--ray asks a folder of vectors into a folder: nshot classify vectors/ -o answers/"
        )
    from nshot.output.sinks import open_sink

    format = format_of(format, output)
    top_k = top_k or (1 if format == "table" else 5)
    if output is not None:  # rather now than after a download
        files = label_options.labels_file, label_options.templates, decision_options.background_file
        facets_file = facets_path(facets_given)
        check_output(output, [*sources, classifier_file, facets_file, tree_file, *files])
    journal_options.check()
    journal_file, corrected = journal_options.journal_file, journal_options.corrected
    if rank is not None and not is_tree(tree_file, classifier_file):
        raise RequestError("--rank is a level of a tree: give --tree as well")
    placing: TreeClassifier | None = None
    facets: Facets | None = None
    if is_tree(tree_file, classifier_file):
        for given, name in ((adapt, "--adapt"), (journal_file, "--journal"), (corrected, "--corrected")):
            if given:
                raise RequestError(f"{name} does not know trees of labels: leave it out")
        if facets_given is not None:
            raise RequestError("give --tree or --facets, not both")
        embedder, placing = ask_tree(
            tree_file,
            classifier_file,
            label_options,
            decision_options,
            model_options,
            rank=rank,
            quiet=quiet,
        )
        classifier = placing.classifier
    elif is_faceted(facets_given, classifier_file):
        if journal_options.facet is not None:
            raise RequestError("--facet belongs to one question, and not to facets")
        embedder, facets = ask_facets(
            facets_given, classifier_file, label_options, decision_options, model_options, quiet=quiet
        )
    else:
        embedder, classifier = ask(
            label_options, classifier_file, decision_options, model_options, quiet=quiet, verbose=verbose
        )
        if in_stages:
            sample = listing.open(embedder, sources, Remarks())
            embedder, classifier = staged(
                cascade_options, embedder, classifier, sample, label_options, model_options, quiet=quiet
            )
    if heatmaps is not None:
        from nshot.cli.heatmaps import check

        others = (facets, "--facets"), (adapt, "--adapt"), (journal_file, "--journal")
        check(heatmaps, [name for value, name in others if value])
    remarks = Remarks()
    images = listing.open(embedder, sources, remarks, keep_columns=keep_columns)
    if adapt:
        adapted, images = _adapted(
            {"": classifier} if facets is None else facets, embedder.embed_images(images), quiet=quiet
        )
        if facets is None:
            classifier = adapted[""]
        else:
            facets = type(facets)(adapted)
    if journal_file is not None and facets is not None:
        from nshot.server.session.taking_away import open_decisions

        facets = open_decisions(facets)
    elif journal_file is not None and classifier.decision is None:
        from nshot.decision import Decision

        classifier = classifier.with_decision(Decision())  # a person's word may be "none of these"
    asked: Classifier | Facets | TreeClassifier = placing or facets or classifier
    decision = None if facets is not None or placing is not None else classifier.decision

    # answers that a person watches are their own progress, and name what failed
    on_screen = output is None and sys.stdout.isatty()
    with open_sink(
        format,
        output,
        top_k=min(top_k, len(classifier.labels)) if facets is None else top_k,
        resume=resume,
        request=_request(asked, top_k, embedder.recipe.digest),
        labels=classifier.labels if facets is None else (),
        placed=placing is not None,
        kept=remarks.kept,
        decided=decision is not None or placing is not None,
        calibrated=decision is not None and decision.calibrated,
        facets=None if facets is None else columns_of(facets),
        facet_labels=None if facets is None else {name: each.labels for name, each in facets.items()},
    ) as sink:
        answered = sum(sink.answered.values())
        left = _without(images, sink.answered)
        if heatmaps is None:
            embedded = remarks.noting(embedder.embed_images(left))
            answers = _answers(asked, embedded, top_k, journal_options)
        else:
            from nshot.cli.heatmaps import drawn

            answers = drawn(
                embedder, left, placing or classifier, top_k=top_k, folder=heatmaps, remarks=remarks
            )
        for answer in progress(answers, shown=not (quiet or on_screen), sources=sources, skipped=answered):
            sink.write(answer)
            answered += 1
            if isinstance(answer, Failure) and not (quiet or on_screen):
                tell_failure(answer)
        if not answered:
            raise RequestError(f"no image in {' '.join(sources)}")
    tell_remarks(remarks, quiet=quiet)
    say_sent(embedder, quiet=quiet)
    if sink.failed or verbose:
        click.echo(
            f"nshot: {answered} images, {answered - sink.failed} answered, {sink.failed} failed", err=True
        )
    return 1 if sink.failed else 0


def _answers(
    classifier: Classifier | Facets | TreeClassifier,
    embedded: Iterable[Embedded | Failure],
    top_k: int,
    journal_options: JournalOptions,
) -> Iterator[Prediction | Faceted | Failure]:
    """The classifier's answers, corrected by a journal where one was named."""
    if (file := journal_options.journal_file) is None:
        return classifier.stream(embedded, top_k=top_k)
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.facets import Facets
    from nshot.server.session import read_words
    from nshot.server.session.taking_away import answers, faceted

    only = journal_options.corrected
    if isinstance(classifier, Facets):
        return faceted(classifier, embedded, read_words(file), top_k=top_k, only=only)
    assert isinstance(classifier, Classifier)  # trees were refused before anything was read
    return answers(classifier, embedded, journal_options.words() or {}, top_k=top_k, only=only)


def _adapted(
    asked: Mapping[str, Classifier], embedded: Iterable[Embedded | Failure], *, quiet: bool
) -> tuple[dict[str, Classifier], Iterator[Source | Embedded | Failure]]:
    """The classifiers adapted to all the images, and the images; whether they were is said on stderr.

    Args:
        asked: by the name of the facet; of one question, by no name.
        embedded: the images.
        quiet: say nothing.
    """
    import numpy as np

    from nshot.few_shot import adapt
    from nshot.few_shot.adapting import check_adaptable

    for name, classifier in asked.items():
        try:
            check_adaptable(classifier)
        except RequestError as error:
            raise RequestError(f"facet {name!r}: {error}" if name else str(error)) from error
        if classifier.decision is not None:
            raise RequestError(
                "--adapt changes the scores that a decision was learnt on: leave one of them out"
            )
    items = list(progress(embedded, shown=not quiet))
    vectors = [item.vector for item in items if isinstance(item, Embedded)]
    if not vectors:
        return dict(asked), iter(items)
    made = {}
    for name, classifier in asked.items():
        adapted = adapt(np.stack(vectors), classifier)
        if not quiet:
            reason = adapted.reason if adapted.used else f"not adapted: {adapted.reason}"
            say(f"{name}: {reason}" if name else reason)
        made[name] = adapted.classifier
    return made, iter(items)


def _request(asked: Classifier | Facets | TreeClassifier, top_k: int, recipe: str) -> str:
    """What must agree between a run and its --resume: everything that changes an answer."""
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.tree import TreeClassifier

    if isinstance(asked, TreeClassifier):
        known = asked.placing
        placing = None if known is None else [known.threshold, known.coverage, known.weight]
        inner = None if asked.inner is None else _request(asked.inner, top_k, recipe)
        told = [asked.tree.paths, placing, asked.rank, inner, _request(asked.classifier, top_k, recipe)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()
    if not isinstance(asked, Classifier):
        each = [(name, _request(classifier, top_k, recipe)) for name, classifier in asked.items()]
        return hashlib.sha256(json.dumps(each).encode()).hexdigest()
    decision = None if asked.decision is None else asked.decision.to_dict()
    said = hashlib.sha256(json.dumps([recipe, asked.labels, top_k, decision]).encode())
    for numbers in (asked.matrix, asked.scale, asked.bias):
        said.update(numbers.tobytes())
    return said.hexdigest()


def _without(
    images: Iterable[Source | Embedded | Failure], answered: Counter[str]
) -> Iterator[Source | Embedded | Failure]:
    """The images that an earlier run has not answered; a name listed twice is asked twice."""
    left = answered.copy()
    for image in images:
        name = image.source if isinstance(image, (Embedded, Failure)) else image.name
        if left[name] > 0:
            left[name] -= 1
        else:
            yield image
