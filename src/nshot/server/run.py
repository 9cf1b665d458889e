"""Sockets and signals: an application is served until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from nshot.errors import RequestError

_GRACE = 5  # seconds for requests under way once it is to stop


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        RequestError: the port is taken, or may not be used.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise RequestError(
            f"cannot listen on {host}:{port} ({error.strerror}): name another port with --port"
        ) from error
    return listening


def run(
    app: ASGIApp, listening: socket.socket, *, stopping: Callable[[], None], verbose: bool = False
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: the application.
        listening: where; closed at the end.
        stopping: called once when it is to stop, so that streams end by themselves.
        verbose: log every request on stderr.
    """
    with listening:
        server_of(app, stopping=stopping, verbose=verbose).run(sockets=[listening])


def server_of(app: ASGIApp, *, stopping: Callable[[], None], verbose: bool = False) -> uvicorn.Server:
    """The server that ``run`` runs."""
    level = "info" if verbose else "warning"
    config = uvicorn.Config(app, log_level=level, timeout_graceful_shutdown=_GRACE, lifespan="off")
    return _Server(config, stopping)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping()
        super().handle_exit(sig, frame)
