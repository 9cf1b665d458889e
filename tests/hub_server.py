"""A stand-in for the Hub on 127.0.0.1, for HF_ENDPOINT: serves folders, and misbehaves on request."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

LARGE = (".safetensors", ".bin", ".h5", ".msgpack")


@dataclass
class Hub:
    """What the server serves, how it misbehaves, and what it was asked.

    Attributes:
        endpoint: for HF_ENDPOINT.
        models: "owner/model" -> revision -> folder; a data set is "datasets/owner/name".
        tokens: "owner/model" -> the token without which it is hidden.
        gated: models whose terms were not accepted.
        breaks: file -> after how many bytes each of the next downloads of it breaks off.
        corrupted: files sent with other bytes than announced, as many.
        failing: answer everything with status 500.
        asked: (method, file, Range header) of every request for a file.
    """

    endpoint: str = ""
    models: dict[str, dict[str, Path]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    corrupted: set[str] = field(default_factory=set)
    failing: bool = False
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def downloaded(self) -> set[str]:
        """Files whose content was asked for."""
        return {file for method, file, _ in self.asked if method == "GET"}


def commit_of(model: str, revision: str) -> str:
    """The commit that a revision stands for; a commit stands for itself."""
    return revision if len(revision) == 40 else hashlib.sha1(f"{model} {revision}".encode()).hexdigest()


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Run a stand-in Hub in a thread of this process."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            if self.path.startswith("/api/"):
                return self._describe()
            model, _, rest = self.path.lstrip("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            revision = unquote(revision)
            if not file or hub.failing:
                return self._refuse(500 if file else 404)
            hub.asked.append((self.command, file, self.headers["Range"]))
            token = hub.tokens.get(model)
            if model not in hub.models or (token and self.headers["Authorization"] != f"Bearer {token}"):
                return self._refuse(401, "RepoNotFound")
            if model in hub.gated:
                return self._refuse(403, "GatedRepo")
            folders = {commit_of(model, name): folder for name, folder in hub.models[model].items()}
            commit = commit_of(model, revision)
            if commit not in folders:
                return self._refuse(404, "RevisionNotFound")
            if not (folders[commit] / file).is_file():
                return self._refuse(404, "EntryNotFound", commit)
            return self._send(file, (folders[commit] / file).read_bytes(), commit)

        def _describe(self) -> None:
            name, _, revision = self.path.removeprefix("/api/").partition("/revision/")
            revision = unquote(revision.partition("?")[0])
            folder = hub.models.get(name, {}).get(revision)
            if hub.failing or folder is None:
                missing = "RevisionNotFound" if name in hub.models else "RepoNotFound"
                self._refuse(*((500, "") if hub.failing else (404, missing)))
                return
            files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
            about = {
                "id": name.partition("/")[2],
                "sha": commit_of(name, revision),
                "siblings": [{"rfilename": file} for file in sorted(files)],
            }
            content = json.dumps(about).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _refuse(self, status: int, code: str = "", commit: str | None = None) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            if commit:
                self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, file: str, content: bytes, commit: str) -> None:
            hasher = hashlib.sha256 if file.endswith(LARGE) else hashlib.sha1
            etag = hasher(content).hexdigest()
            if file in hub.corrupted:
                content = content[:-1] + bytes([content[-1] ^ 1])
            size, start = len(content), 0
            if requested := self.headers["Range"]:
                start = int(requested.removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("Content-Length", str(size - start))
            self.end_headers()
            if self.command == "HEAD":
                return
            content = content[start:]
            if hub.breaks.get(file):
                content = content[: hub.breaks[file].pop(0)]
                self.close_connection = True
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
