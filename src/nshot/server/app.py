"""The routes that one server answers, behind one guard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from nshot.server.endpoint import Endpoint
from nshot.server.guard import LOCAL, Guard
from nshot.server.login import Login
from nshot.server.observe import Observed
from nshot.server.page import page_routes
from nshot.server.session import Session


def build(
    session: Session | None = None,
    start: Mapping[str, Any] | None = None,
    endpoint: Endpoint | None = None,
    *,
    hosts: Collection[str] = LOCAL,
    token: str | None = None,
    origins: Collection[str] = (),
    log: Callable[[str], None] | None = None,
) -> Starlette:
    """The application.

    Args:
        session: what the page shows; without one there is no page.
        start: what the page begins with.
        endpoint: the routes for other programs; without one there are none.
        hosts: names that the server may be asked under.
        token: what every request must bring.
        origins: other origins whose pages may ask.
        log: writes a line about each request.
    """
    page = [] if session is None else page_routes(session, start or {})
    login = None
    if session is not None and token is not None:
        login = Login(token)
        page += login.routes()
    routes: Sequence[BaseRoute] = page if endpoint is None else [*endpoint.routes(), *page]
    middleware = [Middleware(Guard, hosts=hosts, token=token, origins=origins, login=login)]
    if endpoint is not None:
        middleware.insert(0, Middleware(Observed, metrics=endpoint.metrics, log=log))
    return Starlette(routes=routes, middleware=middleware)
