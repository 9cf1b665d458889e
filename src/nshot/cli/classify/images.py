"""``nshot classify`` of images, one by one, into a file or onto the screen."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from nshot.cli.classify.request import Request
from nshot.cli.classify.resuming import digest_of, unanswered
from nshot.cli.facets import ask_facets, columns_of
from nshot.cli.kinds import Kind
from nshot.cli.options import JournalOptions, format_of, progress, tell_failure, tell_remarks
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.cli.staged import say_sent, staged
from nshot.cli.tree import ask_tree
from nshot.errors import RequestError
from nshot.images.remarks import Remarks
from nshot.types import Embedded, Faceted, Failure, Prediction

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.facets import Facets
    from nshot.classifier.tree import TreeClassifier
    from nshot.embeddings import Parts
    from nshot.images.sources import Source
    from nshot.model import Model
    from nshot.output.sinks.sink import Sink

    Asked = Classifier | Facets | TreeClassifier


def classify(request: Request, kind: Kind) -> int:
    """Ask every image, and write every answer."""
    _check(request, kind)
    model, asked = _asked(request, kind)
    remarks, quiet = Remarks(), request.quiet
    images = request.listing.open(model, request.sources, remarks, keep_columns=request.keep_columns)
    if request.adapt:
        from nshot.cli.classify.adapting import adapted_to

        asked, images = adapted_to(asked, model.embed_images(images), quiet=quiet)
    if request.journal_options.journal_file is not None:
        asked = _correctable(asked)
    format = format_of(request.format, request.output)
    top_k = request.top_k or (1 if format == "table" else 5)
    if (large := _large(request, model, asked, format)) is not None:
        from nshot.cli.classify.vectors import classify as classify_vectors

        with _sink(request, format, top_k, model, asked, remarks, many=True) as sink:
            return classify_vectors(request, sink, *large, top_k)
    # answers that a person watches are their own progress, and name what failed
    on_screen = request.output is None and sys.stdout.isatty()
    with _sink(request, format, top_k, model, asked, remarks) as sink:
        answered = sum(sink.answered.values())
        left = unanswered(images, sink.answered)
        answers = _answers(request, model, asked, left, top_k, remarks)
        for answer in progress(
            answers, shown=not (quiet or on_screen), sources=request.sources, skipped=answered
        ):
            sink.write(answer)
            answered += 1
            if isinstance(answer, Failure) and not (quiet or on_screen):
                tell_failure(answer)
        if not answered:
            raise RequestError(f"no image in {' '.join(request.sources)}")
    tell_remarks(remarks, quiet=quiet)
    say_sent(model, quiet=quiet)
    return summed_up(request, sink, answered)


def summed_up(request: Request, sink: Sink, answered: int) -> int:
    """Say how many are answered where some are not; the exit status."""
    if sink.failed or request.verbose:
        echo(f"nshot: {answered} images, {answered - sink.failed} answered, {sink.failed} failed", err=True)
    return 1 if sink.failed else 0


def _check(request: Request, kind: Kind) -> None:
    """Refuse what does not go together, and make the folder of heatmaps, before anything is loaded."""
    from nshot.cli.asking import check_one_file

    journal = request.journal_options
    request.check_output()
    if kind is Kind.FACETS:
        leave_out("--facet belongs to one question, and these are several", facet=journal.facet)
    if kind is Kind.SEVERAL:
        leave_out("several labels do not exclude each other, so nothing is adapted", adapt=request.adapt)
    if request.cascade_options.first is not None:
        leave_out(
            "--first asks a smaller model before the other",
            adapt=request.adapt,
            heatmaps=request.heatmaps,
        )
        if "-" in request.sources:
            raise RequestError("a list on standard input does not go with --first")
    if request.adapt:
        check_one_file(request.classifier_file, "what is adapted is of")
    if request.heatmaps is not None:
        from nshot.cli.heatmaps import check

        check_one_file(request.classifier_file, "the evidence in an image is that of")

        asked = {
            "--facets": kind is Kind.FACETS,
            "--adapt": request.adapt,
            "--journal": journal.journal_file,
            "--precision int8": request.model_options.precision == "int8",  # patches are encoded in f32
        }
        check(request.heatmaps, [name for name, given in asked.items() if given])


def _asked(request: Request, kind: Kind) -> tuple[Model, Asked]:
    """The model, and what is asked of it."""
    from nshot.cli.asking import ask

    on = request.listing.over(request.model_options, request.sources)
    options = request.label_options, request.decision_options, on
    named, saved = request.classifier_file, request.facets_given
    if kind is Kind.TREE:
        return ask_tree(request.tree_file, named, *options, rank=request.rank, quiet=request.quiet)
    if kind is Kind.FACETS:
        return ask_facets(saved, named, *options, quiet=request.quiet)
    labels, decision, model_options = options
    model, asked = ask(labels, named, decision, model_options, quiet=request.quiet, verbose=request.verbose)
    if request.cascade_options.first is None:
        return model, asked
    return staged(
        request.cascade_options,
        model,
        asked,
        labels,
        decision,
        model_options,
        quiet=request.quiet,
    )


def _correctable(asked: Asked) -> Asked:
    """The same with a decision: a person's word may be "none of these"."""
    from nshot.classifier.facets import Facets
    from nshot.classifier.tree import TreeClassifier
    from nshot.decision import Decision
    from nshot.server.session.taking_away import open_decisions

    if isinstance(asked, Facets):
        return open_decisions(asked)
    if isinstance(asked, TreeClassifier) or asked.decision is not None:
        return asked
    return asked.with_decision(Decision())


def _large(
    request: Request, model: Model, asked: Asked, format: str
) -> tuple[list[Parts], Classifier] | None:
    """The folders of vectors, where there is nothing else, and so large that they are asked by row groups."""
    from nshot.embeddings import Parts, is_parts

    if (
        format not in ("jsonl", "json", "csv", "tsv", "parquet")
        or request.adapt
        or request.heatmaps is not None
        or request.journal_options.journal_file is not None
        or not all(map(is_parts, request.sources))
    ):
        return None
    from nshot.distributed import into_file

    folders = [Parts(source) for source in request.sources]
    if not into_file.fits(asked) or not into_file.is_large(folders):
        return None
    for parts in folders:
        model.check_space(parts.recipe, parts.model, f"the vectors in {parts.name}")
    return folders, asked


def _sink(
    request: Request,
    format: str,
    top_k: int,
    model: Model,
    asked: Asked,
    remarks: Remarks,
    *,
    many: bool = False,
) -> Sink:
    """Where the answers go."""
    from nshot.classifier.facets import Facets
    from nshot.classifier.tree import TreeClassifier
    from nshot.output.sinks import open_sink

    same = digest_of(asked, top_k, model.recipe.digest)
    if isinstance(asked, Facets):
        return open_sink(
            format,
            request.output,
            top_k=top_k,
            resume=request.resume,
            request=same,
            kept=remarks.kept,
            facets=columns_of(asked),
            facet_labels={name: each.labels for name, each in asked.items()},
        )
    placed = isinstance(asked, TreeClassifier)
    decision = None if isinstance(asked, TreeClassifier) else asked.decision
    return open_sink(
        format,
        request.output,
        top_k=min(top_k, len(asked.labels)),
        resume=request.resume,
        request=same,
        labels=asked.labels,
        placed=placed,
        kept=remarks.kept,
        decided=placed or decision is not None,
        staged=not isinstance(asked, TreeClassifier) and bool(asked.stages),
        calibrated=decision is not None and decision.calibrated,
        many=many,
    )


def _answers(
    request: Request,
    model: Model,
    asked: Asked,
    images: Iterable[Source | Embedded | Failure],
    top_k: int,
    remarks: Remarks,
) -> Iterator[Prediction | Faceted | Failure]:
    """The answers, drawn or corrected by a journal where that was asked for."""
    from nshot.classifier.facets import Facets

    if request.heatmaps is not None:
        from nshot.cli.heatmaps import drawn

        assert not isinstance(asked, Facets)  # refused before anything was loaded
        return drawn(model, images, asked, top_k=top_k, folder=request.heatmaps, remarks=remarks)
    embedded = remarks.noting(model.embed_images(images))
    if request.journal_options.journal_file is None:
        return asked.stream(embedded, top_k=top_k)
    return _corrected(asked, embedded, top_k, request.journal_options)


def _corrected(
    asked: Asked, embedded: Iterable[Embedded | Failure], top_k: int, journal: JournalOptions
) -> Iterator[Prediction | Faceted | Failure]:
    from nshot.classifier.facets import Facets
    from nshot.server.session import read_words
    from nshot.server.session.taking_away import answers, faceted

    assert journal.journal_file is not None
    if isinstance(asked, Facets):
        state = read_words(journal.journal_file)
        return faceted(asked, embedded, state, top_k=top_k, only=journal.corrected)
    return answers(asked, embedded, journal.words() or {}, top_k=top_k, only=journal.corrected)
