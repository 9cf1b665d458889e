"""What an operator sees: an id for each request, one line of JSON in the log, and figures for Prometheus."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts since the start, in Prometheus' text form; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._images: Counter[str] = Counter()
        self._buckets = [0] * (len(_SECONDS) + 1)
        self._seconds = 0.0
        self.under_way = 0

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        with self._lock:
            self._requests[route, status] += 1
            self._seconds += seconds
            self._buckets[next((k for k, most in enumerate(_SECONDS) if seconds <= most), -1)] += 1

    def images(self, right: int, failed: int) -> None:
        """Images were answered."""
        with self._lock:
            self._images["ok"] += right
            self._images["error"] += failed

    def text(self, gauges: Mapping[str, tuple[str, str, float]]) -> str:
        """All figures; ``gauges`` are further ones: what each is, its type, its value."""
        with self._lock:
            return "\n".join([*self._lines(gauges), ""])

    def _lines(self, gauges: Mapping[str, tuple[str, str, float]]) -> Iterator[str]:
        yield from _head("nshot_requests_total", "Requests answered.", "counter")
        for (route, status), count in sorted(self._requests.items()):
            yield f'nshot_requests_total{{route="{route}",status="{status}"}} {count}'
        yield from _head("nshot_images_total", "Images answered, by what became of them.", "counter")
        for what in ("ok", "error"):
            yield f'nshot_images_total{{status="{what}"}} {self._images[what]}'
        yield from _head(
            "nshot_request_seconds", "Seconds from a request to the end of its answer.", "histogram"
        )
        total = 0
        for most, count in zip((*_SECONDS, "+Inf"), self._buckets, strict=True):
            total += count
            yield f'nshot_request_seconds_bucket{{le="{most}"}} {total}'
        yield f"nshot_request_seconds_sum {self._seconds:.6f}"
        yield f"nshot_request_seconds_count {total}"
        yield from _head("nshot_requests_under_way", "Requests not yet answered.", "gauge")
        yield f"nshot_requests_under_way {self.under_way}"
        for name, (help, kind, value) in gauges.items():
            yield from _head(name, help, kind)
            yield f"{name} {value:g}"


def _head(name: str, help: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"


class Observed:
    """Gives each request an id, and tells of it once it is answered.

    Args:
        app: what is observed.
        metrics: where requests are counted.
        log: writes one line; None for no log.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, log: Callable[[str], None] | None = None) -> None:
        self.app = app
        self.metrics = metrics
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        name = asked if _ID.fullmatch(asked) else uuid.uuid4().hex
        told: dict[str, Any] = {}
        scope.setdefault("state", {})["told"] = told
        begun, status, size = time.perf_counter(), 500, 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = name
            size += len(message.get("body", b""))
            await send(message)

        self.metrics.under_way += 1
        try:
            await self.app(scope, receive, sending)
        finally:
            self.metrics.under_way -= 1
            seconds = time.perf_counter() - begun
            route = getattr(scope.get("route"), "path", None) or "other"
            self.metrics.request(route, status, seconds)
            if self.log is not None and route not in ("/health", "/ready", "/metrics"):
                line = {"time": round(time.time(), 3), "id": name, "method": scope["method"]}
                line |= {"path": scope["path"], "status": status, "seconds": round(seconds, 4), "sent": size}
                self.log(json.dumps(line | told))


def to_stderr(line: str) -> None:
    """One line of the log."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
