"""``nshot fit --journal``: what the page of nshot serve would make from the same corrections."""

from __future__ import annotations

from dataclasses import replace

from nshot.cli.data import tell_failures
from nshot.cli.facets import check_for_page, given_facets
from nshot.cli.fit.request import Request
from nshot.cli.kinds import Kind
from nshot.cli.options import say
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.errors import RequestError
from nshot.labels.facets import OFF, Facet
from nshot.labels.prompts import DEFAULT_TEMPLATE


def fit_journal(request: Request, kind: Kind) -> int:
    """Learn from what was said on the page: a classifier, or facets together.

    Raises:
        RequestError: a tree, of which a journal does not tell; options of labelled data; or a journal that
            says nothing of these labels about these images.
    """
    from nshot.classifier.facets import Facets
    from nshot.server.session import Question, ReadOnly, Session, find_journal, read_words

    together = kind is Kind.FACETS
    facets = _asked(request, kind)
    assert request.journal_file is not None
    path, data = find_journal(request.journal_file), request.data_options.data
    model = request.model_options.load(quiet=request.quiet)
    session = Session(lambda: model, [data], ReadOnly(path, read_words(path).untaken()))
    session.start()
    session.wait()
    if session.state()["phase"] != "ready":
        raise RequestError(session.state()["error"] or f"no image of {data} could be read")
    made, learnt = {}, False
    for facet in facets:
        none = facet.none is None or facet.none.rule != OFF
        question = Question.of(
            facet.labels, templates=facet.templates, none=none, facet=facet.name, multi=facet.multi
        )
        proposal = session.learn(question)
        asked = session.ask(question)[0] if proposal is None else proposal.asked
        made[facet.name] = session.made(asked, proposal)
        learnt = learnt or proposal is not None
        told = "no corrections" if proposal is None else f"{proposal.examples} corrections; {proposal.reason}"
        echo(f"{facet.name}: {told}" if together else told)
        if proposal is not None and proposal.left:
            say(f"{len(proposal.left)} corrections were left out: they do not tell of every label")
    if not learnt:
        raise RequestError(f"--journal: {path} says nothing of these labels about images in {data}")
    (Facets(made) if together else made[facets[0].name]).save(request.output)
    echo(f"\n{request.output}")
    failed = [row.failure for row in session.images.rows if row.failure is not None]
    return tell_failures(failed, len(session.images) - len(failed), quiet=request.quiet)


def _asked(request: Request, kind: Kind) -> list[Facet]:
    """The questions; of one list of labels, one of its name."""
    if kind is Kind.TREE:
        raise RequestError("a journal tells of a list of labels, not of a tree: leave out --journal")
    options, data = request.label_options, request.data_options
    leave_out(
        "DATA are images here, and their labels are in the journal",
        **data.labelled,
        image_column=data.image_column,
        image_root=data.image_root,
        test=request.test,
    )
    leave_out(
        "what is learnt from corrections is what the page would propose",
        method=request.method,
        strength=request.strength,
    )
    if kind is not Kind.FACETS:
        leave_out("the corrections were made on labels in words", label_vectors=options.label_vectors)
        labels, templates = options.read()
        return [Facet(request.facet or "labels", labels, tuple(templates), multi=request.multi)]
    if request.facet is not None:
        raise RequestError("give --facets, for all of them, or --facet with its labels, not both")
    if options.any:
        raise RequestError("facets bring their own labels: leave out --labels")
    usual = tuple(options.read_templates() or [DEFAULT_TEMPLATE])
    found = list(given_facets(request.facets_given or "", multi=request.multi).values())
    check_for_page(found, off=True)
    return [replace(each, templates=each.templates or usual) for each in found]
