"""The routes that one server answers, behind one guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from nshot.server.guard import Guard
from nshot.server.page import page_routes
from nshot.server.session import Session


def build(
    session: Session | None = None, start: Mapping[str, Any] | None = None, routes: Sequence[BaseRoute] = ()
) -> Starlette:
    """The application.

    Args:
        session: what the page shows; without one there is no page.
        start: what the page begins with.
        routes: further routes.
    """
    own = [] if session is None else page_routes(session, start or {})
    return Starlette(routes=[*routes, *own], middleware=[Middleware(Guard)])
