"""The endpoint of `nshot serve`: its options, and how it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from nshot.cli.options import ModelOptions, packed
from nshot.cli.options.talk import echo
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.classifier.cascade import CascadeClassifier
    from nshot.embedder import Embedder
    from nshot.server.endpoint import Endpoint

_HERE = "127.0.0.1"
_GRACE = 30  # seconds for what is in flight once the endpoint is to stop


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """What ``--host`` and its companions say."""

    host: str
    token: str | None
    allow_host: tuple[str, ...]
    allow_urls: bool
    classifiers: Path | None
    max_waiting: int
    max_items: int
    max_body: int
    max_seconds: float
    drain: float
    allow_origin: tuple[str, ...]

    def endpoint(
        self, model: Callable[[], Embedder | None], first: Callable[[CascadeClassifier], Embedder]
    ) -> Endpoint:
        """The endpoint over a model that may still be on its way; ``first`` loads that of a saved cascade."""
        from nshot.server.bounds import Bounds
        from nshot.server.endpoint import Endpoint

        body = self.max_body * 2**20
        return Endpoint(
            model,
            classifiers=self.classifiers,
            allow_urls=self.allow_urls,
            first=first,
            bounds=Bounds(
                body=body,
                bodies=4 * body,
                items=min(self.max_items, self.max_waiting),
                waiting=self.max_waiting,
                answering=self.max_seconds,
            ),
        )

    def check(self, *, page: bool) -> None:
        """Refuse origins that are none, or that could reach the page.

        Raises:
            RequestError: such an origin.
        """
        for origin in self.allow_origin:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
                raise RequestError(f"{origin} is no origin: write https://example.org, without a path")
        if page and self.allow_origin:
            raise RequestError(
                "--allow-origin goes with an endpoint alone, without SOURCE: the page is no API"
            )

    def address(self, port: int) -> str:
        """Where it answers."""
        return f"http://[{self.host}]:{port}/" if ":" in self.host else f"http://{self.host}:{port}/"

    def hosts(self) -> frozenset[str]:
        """Names that the server may be asked under.

        Raises:
            RequestError: other computers could ask, and no token was given.
        """
        from nshot.server.guard import LOCAL

        if self.host not in LOCAL and not self.token:
            raise RequestError(
                f"on {self.host} other computers can ask: add --token SECRET, or set NSHOT_TOKEN"
            )
        if self.host not in LOCAL and not self.allow_host:
            return frozenset("*")
        return LOCAL | {self.host, *(name.lower() for name in self.allow_host)}


endpoint_options = packed(
    "endpoint_options",
    EndpointOptions,
    (
        click.option("--host", default=_HERE, show_default=True, help="The address; others need --token."),
        click.option(
            "--token",
            envvar="NSHOT_TOKEN",
            metavar="SECRET",
            help="What requests must bring: Authorization: Bearer SECRET. Or set NSHOT_TOKEN.",
        ),
        click.option(
            "--allow-host",
            multiple=True,
            metavar="NAME",
            help="A further name of the server.",
        ),
        click.option("--allow-urls", is_flag=True, help="Fetch images that a request names by their URLs."),
        click.option(
            "--classifiers",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            metavar="FOLDER",
            help="Saved classifiers NAME.nshot, asked for by name and read anew when they change.",
        ),
        click.option(
            "--max-waiting",
            type=click.IntRange(1),
            default=256,
            show_default=True,
            help="Images, and requests, that may wait; above it the answer is 429.",
        ),
        click.option(
            "--max-items", type=click.IntRange(1), default=256, show_default=True, help="Images per request."
        ),
        click.option(
            "--max-body", type=click.IntRange(1), default=64, show_default=True, help="MiB per request."
        ),
        click.option(
            "--max-seconds",
            type=click.FloatRange(0.1),
            default=60.0,
            show_default=True,
            help="Seconds for an answer; after that it is 429.",
        ),
        click.option(
            "--drain",
            type=click.FloatRange(0),
            default=0.0,
            show_default=True,
            help="Seconds after SIGTERM in which /ready says no and requests are still taken.",
        ),
        click.option(
            "--allow-origin",
            multiple=True,
            metavar="ORIGIN",
            help="A web page's origin that may ask (CORS), such as https://example.org.  [default: none]",
        ),
    ),
)


def serve_endpoint(
    options: EndpointOptions, model_options: ModelOptions, *, port: int, quiet: bool, verbose: bool
) -> int:
    """Serve the endpoint alone until it is told to stop."""
    from nshot.cli.asking import first_stage
    from nshot.server.app import build
    from nshot.server.observe import to_stderr
    from nshot.server.run import listen, run

    options.check(page=False)
    hosts = options.hosts()
    listening = listen(options.host, port)
    with listening:
        model = replace(model_options, store=None, no_store=True).load(quiet=quiet)
        endpoint = options.endpoint(lambda: model, first_stage(model_options))
        endpoint.prepare()
        if not quiet:
            at = options.address(listening.getsockname()[1])
            echo(f"{at}   {model.name}   Ctrl+C stops it", err=True)
        app = build(
            endpoint=endpoint,
            hosts=hosts,
            token=options.token,
            origins=options.allow_origin,
            log=None if quiet else to_stderr,
        )
        run(app, listening, stopping=endpoint.stop, verbose=verbose, grace=_GRACE, drain=options.drain)
        endpoint.close()
    return 0
