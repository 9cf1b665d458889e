"""`nshot serve`: images on a page, to look at, correct, learn from and take away; and an endpoint."""

from __future__ import annotations

import getpass
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread, Timer
from typing import TYPE_CHECKING, Any

import click

from nshot.cli.endpoint import EndpointOptions, endpoint_options, serve_endpoint
from nshot.cli.facets import check_for_page, facets_option, given_facets
from nshot.cli.help import Command
from nshot.cli.kinds import kind_of
from nshot.cli.options import (
    MULTI,
    LabelOptions,
    ModelOptions,
    classifier_option,
    label_options,
    model_options,
    say,
    talk_options,
)
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.cli.staged import CascadeOptions, Staging, cascade_options
from nshot.errors import MissingExtra, RequestError
from nshot.labels.facets import Facet, ready_facets
from nshot.labels.prompts import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.server.session import Session


@click.command("serve", cls=Command, short_help="Look at images, correct and teach, in a browser.")
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
@label_options
@classifier_option
@facets_option
@MULTI
@click.option("--tree", "tree_file", hidden=True)
@cascade_options
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: a free one.")
@click.option("--open/--no-open", "show", default=True, help="Open the page in a browser.  [default: yes]")
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where corrections are kept.  [default: .nshot-journal.jsonl in the folder of images]",
)
@endpoint_options
@model_options
@talk_options
def command(
    sources: tuple[str, ...],
    label_options: LabelOptions,
    classifier_file: Path | None,
    facets_given: str | None,
    multi: bool,
    tree_file: str | None,
    cascade_options: CascadeOptions,
    port: int,
    show: bool,
    journal: Path | None,
    endpoint_options: EndpointOptions,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Show images on a page in the browser: ask with labels, correct, learn, search, take the answers away.

    The page is for this computer alone (127.0.0.1), unless --host and --token open it to others. Images are
    read in the background; what is ready can be asked at once. Corrections are kept beside the images and
    survive whatever happens to the server.

    Without SOURCE, and beside the page, an endpoint answers other programs: POST / as Hugging Face's clients
    ask, /v1/embeddings as OpenAI's do, /v1/classify, /health, /ready, /metrics, /openapi.json.

    \b
    nshot serve photos/ --labels "cat, dog, hot dog"
    nshot serve photos/ --labels "beach, dog, sunset" --multi
    nshot serve photos/ --classifier animals.nshot
    nshot serve photos/ --facets "time of day, weather"
    nshot serve photos/ --labels "cat, dog" --model openai/clip-vit-large-patch14 \\
        --first openai/clip-vit-base-patch32
    nshot serve --model openai/clip-vit-base-patch32 --classifiers saved/

    Exit status: 0 stopped, 2 the request itself was wrong.
    """
    try:
        from nshot.server.app import build
        from nshot.server.run import listen, run
    except ImportError as error:
        raise MissingExtra('serving needs starlette and uvicorn: pip install "nshot[serve]"') from error
    from nshot.classifier.cascade import CascadeClassifier
    from nshot.cli.asking import first_stage
    from nshot.images.sources import expand
    from nshot.models.checkpoint import DEFAULT_MODEL
    from nshot.models.hub import under_way
    from nshot.paths import cache_dir
    from nshot.server.session import JOURNAL, Journal, Session

    if tree_file is not None:
        raise RequestError(
            "the page asks a list of labels, not a tree: nshot classify --tree gives the answers, and the "
            "tree's leaves can be asked here with --labels"
        )
    kind = kind_of(facets_given=facets_given, classifier_file=classifier_file, multi=multi)
    cascade_options.check(kind, classifier_file)
    if not sources:
        leave_out(
            "a cascade is learnt on images: show some, or ask for a saved one from --classifiers FOLDER",
            first=cascade_options.first,
        )
        if (
            label_options.any
            or multi
            or facets_given is not None
            or classifier_file is not None
            or journal is not None
        ):
            raise RequestError(
                "name the images to show, such as a folder; an endpoint takes its labels from each request, "
                "and saved classifiers from --classifiers FOLDER"
            )
        if model_options.model is None:
            raise RequestError("name the images to show, such as a folder; or --model, for an endpoint alone")
        return serve_endpoint(endpoint_options, model_options, port=port, quiet=quiet, verbose=verbose)
    endpoint_options.check(page=True)
    hosts = endpoint_options.hosts()
    for source in sources:
        if not Path(source).is_dir():  # an empty folder is shown as such; what is not there is an error
            expand([source])
    asked, saved = _asked(label_options, classifier_file, facets_given, multi=multi)
    if cascade_options.first is not None and not (saved or asked[0].labels):
        raise RequestError('a cascade is learnt for its labels: give them with --labels "cat, dog"')
    staging = Staging(cascade_options, label_options, classifier_file, sources, quiet=quiet)
    if saved and not any(isinstance(each, CascadeClassifier) for each in saved.values()):
        model_options = replace(model_options, model=model_options.model or next(iter(saved.values())).model)
    folder = Path(sources[0]) if len(sources) == 1 and Path(sources[0]).is_dir() else Path()
    start = {
        "title": ", ".join(sources),
        "sources": list(sources),
        "folder": f"{str(folder).rstrip('/')}/" if folder != Path() else "",
        "facets": [_told(each, saved.get(each.name)) for each in asked],
        "ready": [_told(each) for each in ready_facets().values()],
        "asked": facets_given,
        "classifier": None if classifier_file is None else str(classifier_file),
        "journal": str(folder) if journal is None else str(journal),
        "model": model_options.model,
        "first": cascade_options.first,
    }
    session = Session(
        lambda: staging.load(model_options, saved),
        sources,
        Journal(journal or folder / JOURNAL, memory=model_options.limits.memory),
        by=_user(),
        thumbnails=cache_dir() / "thumbnails.sqlite",
        saved=saved,
        fetched=lambda: under_way(model_options.model or DEFAULT_MODEL),
        remark=lambda: staging.remark,
    )
    try:
        listening = listen(endpoint_options.host, port)
        address = endpoint_options.address(listening.getsockname()[1])
        if not quiet:
            echo(f"{address}   Ctrl+C stops it", err=True)
        if show:
            Timer(0.5, lambda: webbrowser.open(address)).start()
        session.start()
        Thread(target=_tell, args=(session,), daemon=True).start()
        endpoint = endpoint_options.endpoint(lambda: session.model, first_stage(model_options))

        def stop() -> None:
            endpoint.stop()
            session.closing.set()

        app = build(session, start, endpoint, hosts=hosts, token=endpoint_options.token)
        run(app, listening, stopping=stop, verbose=verbose, drain=endpoint_options.drain)
        endpoint.close()
    finally:
        session.close()
    return 0


def _asked(
    label_options: LabelOptions, classifier_file: Path | None, facets_given: str | None, *, multi: bool
) -> tuple[list[Facet], dict[str, Classifier]]:
    """The questions to begin with, and saved classifiers that answer them.

    Raises:
        RequestError: more than one way of naming them, or something that the page does not show.
    """
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.facets import Facets, open_classifier
    from nshot.server.session import LABELS

    if label_options.label_vectors is not None:
        raise RequestError(
            "the page asks with words: give --labels; --label-vectors goes with nshot classify"
        )
    labelled = label_options.any
    if sum((labelled, classifier_file is not None, facets_given is not None)) > 1:
        raise RequestError("give labels, --classifier or --facets: one of them")
    templates = tuple(label_options.read_templates() or [DEFAULT_TEMPLATE])
    if facets_given is not None:
        if multi:
            raise RequestError('with --facets, each facet says for itself whether it is "multi"')
        given = given_facets(facets_given).values()
        check_for_page(given)
        return [replace(each, templates=each.templates or templates) for each in given], {}
    if classifier_file is None:
        labels = label_options.read()[0] if labelled else ()
        return [Facet(LABELS, labels, templates, multi=multi)], {}
    opened = open_classifier(classifier_file)
    if not isinstance(opened, (Classifier, Facets)):
        raise RequestError(
            f"{classifier_file} holds a tree of labels, and the page asks a list: nshot classify gives its "
            "answers"
        )
    saved = {LABELS: opened} if isinstance(opened, Classifier) else dict(opened)
    if multi and any(each.several is None for each in saved.values()):
        raise RequestError(
            f"{classifier_file} answers with one label per image: fit or calibrate one with --multi, or give "
            "--labels with --multi"
        )
    each = saved.items()
    return [Facet(name, of.labels, templates, multi=of.several is not None) for name, of in each], saved


def _told(facet: Facet, saved: Classifier | None = None) -> dict[str, Any]:
    """A facet as the page takes it."""
    synonyms = facet.labels if isinstance(facet.labels, Mapping) else {}
    decision = None if saved is None else saved.decision
    return {
        "name": facet.name,
        "labels": [{"label": each, "synonyms": list(synonyms.get(each, ()))} for each in facet.labels],
        "templates": list(facet.templates),
        "multi": facet.multi,
        "rejects": decision is not None and decision.rejection is not None,
        "calibrated": decision is not None and decision.calibrated,
    }


def _tell(session: Session) -> None:
    """Say on stderr what the page shows too: that there is nothing to show, and why."""
    session.wait()
    state, named = session.state(), " ".join(session.specs)
    if state["phase"] == "empty":
        say(f"there is no image in {named}; the page stays open: put some there and read again")
    elif state["phase"] == "failed":
        say(f"none of the {state['rows']:,} images in {named} could be read: the page says why")
    elif state["phase"] == "error":
        say(f"reading stopped: {state['error']}")


def _user() -> str:
    with suppress(Exception):  # no name in a container is no reason not to start
        return getpass.getuser()
    return "you"
