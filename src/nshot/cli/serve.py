"""`nshot serve`: images on a page, to look at, correct, learn from and take away; and an endpoint."""

from __future__ import annotations

import getpass
import webbrowser
from contextlib import suppress
from pathlib import Path
from threading import Timer

import click

from nshot.cli.endpoint import EndpointOptions, endpoint_options, serve_endpoint
from nshot.cli.help import Command
from nshot.cli.options import (
    LabelOptions,
    ModelOptions,
    classifier_option,
    label_options,
    model_options,
    talk_options,
)
from nshot.errors import MissingExtra, RequestError


@click.command("serve", cls=Command, short_help="Look at images, correct and teach, in a browser.")
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
@label_options
@classifier_option
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
    port: int,
    show: bool,
    journal: Path | None,
    endpoint_options: EndpointOptions,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Show images on a page in the browser: ask with labels, correct, learn, search, take the answers away.

    The page is for this computer alone (127.0.0.1). Images are read in the background; what is ready can be
    asked at once. Corrections are kept beside the images and survive whatever happens to the server.

    Without SOURCE, and beside the page, an endpoint answers other programs: POST / as Hugging Face's clients
    ask, /v1/embeddings as OpenAI's do, /v1/classify, /health, /ready, /metrics, /openapi.json.

    \b
    nshot serve photos/ --labels "cat, dog, hot dog"
    nshot serve photos/ --classifier animals.nshot
    nshot serve --model openai/clip-vit-base-patch32 --classifiers saved/

    Exit status: 0 stopped, 2 the request itself was wrong.
    """
    try:
        from nshot.server.app import build
        from nshot.server.run import listen, run
    except ImportError as error:
        raise MissingExtra('serving needs starlette and uvicorn: pip install "nshot[serve]"') from error
    from dataclasses import replace

    from nshot.classifier.classifier import Classifier
    from nshot.images.sources import expand
    from nshot.labels.prompts import DEFAULT_TEMPLATE
    from nshot.models.checkpoint import DEFAULT_MODEL
    from nshot.models.hub import under_way
    from nshot.paths import cache_dir
    from nshot.server.session import JOURNAL, Journal, Session

    given = label_options.labels is not None or label_options.labels_file is not None
    if not sources:
        if given or classifier_file is not None or journal is not None:
            raise RequestError(
                "name the images to show, such as a folder; an endpoint takes its labels from each request, "
                "and saved classifiers from --classifiers FOLDER"
            )
        if model_options.model is None:
            raise RequestError("name the images to show, such as a folder; or --model, for an endpoint alone")
        return serve_endpoint(endpoint_options, model_options, port=port, quiet=quiet, verbose=verbose)
    endpoint_options.check_page()
    for source in sources:
        if not Path(source).is_dir():  # an empty folder is shown as such; what is not there is an error
            expand([source])
    if given and classifier_file is not None:
        raise RequestError("give labels or --classifier, not both")
    labels, templates = label_options.read() if given else ([], label_options.read_templates())
    saved = None if classifier_file is None else Classifier.open(classifier_file)
    if saved is not None:
        labels = list(saved.labels)
        model_options = replace(model_options, model=model_options.model or saved.model)
    folder = Path(sources[0]) if len(sources) == 1 and Path(sources[0]).is_dir() else Path()
    synonyms = labels if isinstance(labels, dict) else {}
    start = {
        "title": ", ".join(sources),
        "sources": list(sources),
        "folder": f"{str(folder).rstrip('/')}/" if folder != Path() else "",
        "labels": [{"label": each, "synonyms": list(synonyms.get(each, ()))} for each in labels],
        "templates": templates or [DEFAULT_TEMPLATE],
        "classifier": None if classifier_file is None else str(classifier_file),
        "rejects": saved is not None and bool(saved.decision and saved.decision.rejection),
        "calibrated": saved is not None and bool(saved.decision and saved.decision.calibrated),
        "journal": str(folder) if journal is None else str(journal),
        "model": model_options.model,
    }
    session = Session(
        lambda: model_options.load(quiet=True),
        sources,
        Journal(journal or folder / JOURNAL),
        by=_user(),
        thumbnails=cache_dir() / "thumbnails.sqlite",
        saved=saved,
        fetched=lambda: under_way(model_options.model or DEFAULT_MODEL),
    )
    try:
        listening = listen("127.0.0.1", port)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        if not quiet:
            click.echo(f"{address}   Ctrl+C stops it", err=True)
        if show:
            Timer(0.5, lambda: webbrowser.open(address)).start()
        session.start()
        endpoint = endpoint_options.endpoint(lambda: session.model)

        def stop() -> None:
            endpoint.stop()
            session.closing.set()

        run(build(session, start, endpoint), listening, stopping=stop, verbose=verbose)
        endpoint.close()
    finally:
        session.close()
    return 0


def _user() -> str:
    with suppress(Exception):  # no name in a container is no reason not to start
        return getpass.getuser()
    return "you"
