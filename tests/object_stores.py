"""Stand-ins for object stores on 127.0.0.1: moto's server, and one of our own that fails on purpose."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

import pytest

from nshot.objects import settings, stores


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let s3:// mean this server."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    forget()


def forget() -> None:
    """Settings are read anew."""
    stores._store.cache_clear()
    settings.forget()


@contextmanager
def moto_server() -> Iterator[str]:
    """Moto's stand-in for S3."""
    import logging

    moto = pytest.importorskip("moto.server", reason="the stand-in for S3 is moto's server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    connection = http.client.HTTPConnection(host, port)
    connection.request("PUT", "/bucket")
    assert connection.getresponse().status == 200
    connection.close()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class FaultyStore:
    """A small S3 that does to a read what it is told to: 503, 403, 404, a cut, a hang.

    Attributes:
        objects: key -> bytes.
        faults: key -> what to do with its reads: called with how often it was asked before; None to answer.
        asked: how often each key was read.
        lists: pages that were listed.
        cut_lists: whether the so-and-so-many-th page is cut off in the middle.
        names: for a listing of many: the keys behind one, so many of them.
        seen: the headers of each request.
        page: the most names in a page of a listing.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.faults: dict[str, Callable[[int], str | None]] = {}
        self.asked: Counter[str] = Counter()
        self.lists = 0
        self.page = 1000
        self.cut_lists: Callable[[int], bool] = lambda _: False
        self.heads = 0
        self.names: Callable[[str, int], list[str]] | None = None
        self.seen: deque[Mapping[str, str]] = deque(maxlen=1000)
        self.let_go = threading.Event()
        self._lock = threading.Lock()

    def count(self, key: str) -> int:
        with self._lock:
            self.asked[key] += 1
            return self.asked[key] - 1

    @contextmanager
    def serving(self) -> Iterator[str]:
        store = self

        class Handler(_Handler):
            pass

        Handler.store = store
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self.let_go.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    store: FaultyStore
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def parse_request(self) -> bool:
        """Read the headers, and keep them."""
        fine = super().parse_request()
        if fine:
            self.store.seen.append(dict(self.headers))
        return fine

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True

    def _answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.store.heads += 1
        self.do_GET()

    def do_PUT(self) -> None:
        key = unquote(urlsplit(self.path).path).split("/", 2)[2]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        only = self.headers.get("If-None-Match") == "*"
        only = only or self.headers.get("x-goog-if-generation-match") == "0"
        if only and key in self.store.objects:
            self._answer(412)
            return
        self.store.objects[key] = body
        self._answer(200, headers={"ETag": _tag(body)})

    def do_DELETE(self) -> None:
        """Delete one object, as Google's store does it."""
        key = unquote(urlsplit(self.path).path).split("/", 2)[2]
        self._answer(204 if self.store.objects.pop(key, None) is not None else 404)

    def do_POST(self) -> None:
        """Delete several objects, as S3 does it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        keys = [unescape(key) for key in re.findall("<Key>(.*?)</Key>", body)]
        for key in keys:
            self.store.objects.pop(key, None)
        rows = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{rows}</DeleteResult>".encode())

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if "list-type" in query:
            self._list(query)
            return
        key = unquote(parts.path).split("/", 2)[2]
        fault = None
        if self.command == "GET":
            before = self.store.count(key)
            told = self.store.faults.get(key)
            fault = None if told is None else told(before)
        if fault in ("403", "404", "503"):
            fault += {"403": " AccessDenied", "404": " NoSuchKey", "503": " SlowDown"}[fault]
        if fault is not None and fault[0].isdigit():  # such as "400 ExpiredToken"
            number, code = fault.split()
            self._answer(int(number), f"<Error><Code>{code}</Code></Error>".encode())
            return
        if fault == "hang":
            self.store.let_go.wait(60)
            self.close_connection = True
            return
        body = self.store.objects.get(key)
        if body is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        headers = {"ETag": _tag(body), "Last-Modified": formatdate(0, usegmt=True)}
        status, first, last = 200, 0, len(body)
        if asked := self.headers.get("Range"):
            low, high = asked.removeprefix("bytes=").split("-")
            first, last = int(low), min(int(high) + 1 if high else len(body), len(body))
            headers["Content-Range"] = f"bytes {first}-{last - 1}/{len(body)}"
            status = 206
        if fault == "cut":
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(last - first)}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[first : (first + last) // 2])
            self.wfile.flush()
            time.sleep(0.01)
            self.connection.close()
            self.close_connection = True
            return
        self._answer(status, body[first:last], headers)

    def _list(self, query: Mapping[str, str]) -> None:
        self.store.lists += 1
        prefix = query.get("prefix", "")
        after = max(query.get("start-after", ""), query.get("continuation-token", ""))
        count = min(int(query.get("max-keys", 1000)), self.store.page)
        folders: list[str] = []
        if self.store.names is not None:
            page = self.store.names(after, count)
        else:
            known = [key for key in sorted(self.store.objects) if key.startswith(prefix)]
            if query.get("delimiter"):
                below = {key for key in known if "/" in key[len(prefix) :]}
                folders = sorted({key[: key.index("/", len(prefix)) + 1] for key in below})
                known = [key for key in known if key not in below]
            page = [key for key in known if key > after][:count]
        more = len(page) == count
        common = "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in folders)
        rows = common + "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{_tag(self.store.objects.get(key, b''))}</ETag>"
            f"<Size>{len(self.store.objects.get(key, b''))}</Size></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        body = (
            f"<ListBucketResult><Name>bucket</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{count}</MaxKeys>{token}"
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{rows}</ListBucketResult>"
        ).encode()
        if self.store.cut_lists(self.store.lists):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self._answer(200, body)


def _tag(body: bytes) -> str:
    return f'"{md5(body, usedforsecurity=False).hexdigest()}"'


def use_google(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let gs:// mean this server: the XML interface of Google's store is that of S3."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
    forget()


@contextmanager
def azure_server(objects: dict[str, bytes], *, signed: bool = True) -> Iterator[str]:
    """A stand-in for Azure's blobs, as far as they are listed, read, written and deleted here.

    Args:
        objects: name of a blob -> its bytes; of one container.
        signed: whether every request must be signed with the account's key; else none may be.
    """

    class Handler(_Azure):
        pass

    Handler.objects, Handler.blocks, Handler.signed = objects, {}, signed
    Handler.store = FaultyStore()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_azure(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let az:// mean this server."""
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", endpoint)
    forget()


class _Azure(_Handler):
    objects: dict[str, bytes]
    blocks: dict[str, bytes]
    signed: bool

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        account, container, *key = unquote(parts.path).lstrip("/").split("/", 2)
        assert (account, container) == ("devstoreaccount1", "container")
        signature = self.headers.get("Authorization", "")
        assert signature.startswith("SharedKey devstoreaccount1:") if self.signed else not signature
        return (key or [""])[0], query

    def do_GET(self) -> None:
        key, query = self._asked()
        if query.get("comp") == "list":
            self._list(query)
            return
        body = self.objects.get(key)
        if body is None:
            self._answer(404, headers={"x-ms-error-code": "BlobNotFound"})
            return
        headers = {"ETag": _tag(body), "Last-Modified": formatdate(0, usegmt=True)}
        if asked := self.headers.get("x-ms-range") or self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last or len(body)) + 1, len(body))
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(body)}"
            self._answer(206, body[int(first) : end], headers)
            return
        self._answer(200, body, headers)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        key, query = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if query.get("comp") == "block":
            self.blocks[query["blockid"]] = body
            self._answer(201)
            return
        if query.get("comp") == "blocklist":
            names = re.findall("<(?:Uncommitted|Latest)>(.*?)</", body.decode())
            body = b"".join(self.blocks.pop(name) for name in names)
        if self.headers.get("If-None-Match") == "*" and key in self.objects:
            self._answer(409, headers={"x-ms-error-code": "BlobAlreadyExists"})
            return
        self.objects[key] = body
        self._answer(201, headers={"ETag": _tag(body), "Last-Modified": formatdate(0, usegmt=True)})

    def do_POST(self) -> None:
        """Delete several blobs: a request per part of the body, an answer per part."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        answers = []
        for number, path in enumerate(re.findall(r"DELETE (\S+) HTTP", body)):
            self.objects.pop(unquote(path).lstrip("/").split("/", 2)[2], None)
            answers.append(
                f"--b\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
                "HTTP/1.1 202 Accepted\r\nx-ms-request-id: 1\r\n\r\n\r\n"
            )
        answer = "".join([*answers, "--b--\r\n"]).encode()
        self._answer(202, answer, {"Content-Type": "multipart/mixed; boundary=b"})

    def _list(self, query: Mapping[str, str]) -> None:
        prefix, marker = query.get("prefix", ""), query.get("marker", "")
        known = [key for key in sorted(self.objects) if key.startswith(prefix)]
        folders: list[str] = []
        if query.get("delimiter"):
            below = {key for key in known if "/" in key[len(prefix) :]}
            folders = sorted({key[: key.index("/", len(prefix)) + 1] for key in below})
            known = [key for key in known if key not in below]
        page = [key for key in known if key > marker][:5]  # so few, so that there are several pages
        more = len(page) == 5
        rows = "".join(f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>" for folder in folders)
        rows += "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{formatdate(0, usegmt=True)}"
            f"</Last-Modified><Content-Length>{len(self.objects[key])}</Content-Length>"
            f"<Content-Type>x</Content-Type><Etag>{_tag(self.objects[key])}</Etag>"
            "</Properties></Blob>"
            for key in page
        )
        self._answer(
            200,
            f'<?xml version="1.0"?><EnumerationResults><Prefix>{escape(prefix)}</Prefix><Blobs>{rows}</Blobs>'
            f"<NextMarker>{escape(page[-1]) if more else ''}</NextMarker></EnumerationResults>".encode(),
        )
