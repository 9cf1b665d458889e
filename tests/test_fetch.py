"""Fetching: within its limits, from public addresses alone, over the connection that was checked."""

from __future__ import annotations

import base64
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nshot.errors import FetchError, ForbiddenAddress, ImageTooLarge
from nshot.images.fetch import fetch, is_routable


class Handler(BaseHTTPRequestHandler):
    seen: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        type(self).seen.append((self.path, dict(self.headers)))
        name, _, argument = self.path[1:].partition("?")
        getattr(self, f"send_{name}", self.send_missing)(argument)

    def body(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def send_ok(self, _argument: str) -> None:
        self.body(b"picture")

    def send_missing(self, _argument: str) -> None:
        self.body(b"<html>", 404)

    def send_to(self, argument: str) -> None:
        self.body(b"", 302, Location=argument)

    def send_loop(self, _argument: str) -> None:
        self.body(b"", 301, Location="/loop")

    def send_endless(self, _argument: str) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(bytes(10_000))

    def send_drip(self, _argument: str) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b".")
            time.sleep(0.02)

    def send_dripheader(self, _argument: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        self.send_drip("")

    def send_short(self, _argument: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"pic")

    def send_chunked(self, _argument: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\r\npic\r\n4\r\nture\r\n0\r\n\r\n")

    def send_garbage(self, _argument: str) -> None:
        self.wfile.write(b"\0\1\2 this is not http\r\n\r\n")

    def log_message(self, *_arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_arguments: Any) -> None:
        pass  # a client that hangs up is what these tests are about


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def get(url: str, **options: Any) -> bytes:
    return fetch(url, **{"max_bytes": 1000, "timeout": 5, "allow_private": True, **options})


@pytest.mark.parametrize("path", ["/ok", "/chunked", "/to?/ok", "/to?/to?/ok", "/ok?a b=ä#part"])
def test_an_image_comes_also_in_chunks_and_through_redirects(server: str, path: str) -> None:
    assert get(server + path) == b"picture"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nothing", "404"),
        ("/loop", "more than 5 redirects"),
        ("/short", "cut off after 3 of 7"),
        ("/garbage", "no answer"),
        ("/to?file:///etc/passwd", "only http and https"),
        ("/to?ftp://127.0.0.1/x", "only http and https"),
        ("/to?http://host:port/", "no answer: Port could not be cast"),
    ],
)
def test_an_answer_without_an_image_says_why(server: str, path: str, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        get(server + path)


@pytest.mark.parametrize(
    "url", ["http://", "http:///x", "http://host:port/", "http://a b/", "http://a\r\nb/", "x"]
)
def test_a_malformed_url_is_an_error_of_its_own(url: str) -> None:
    with pytest.raises(FetchError):
        get(url)


def test_more_bytes_than_the_limit_are_not_taken(server: str) -> None:
    for path, limit in (("/ok", 6), ("/endless", 100_000)):
        with pytest.raises(ImageTooLarge):
            get(server + path, max_bytes=limit)
    assert get(server + "/ok", max_bytes=7) == b"picture"


@pytest.mark.parametrize("path", ["/drip", "/dripheader"])
def test_the_time_limit_holds_against_a_server_that_sends_a_byte_at_a_time(server: str, path: str) -> None:
    with pytest.raises(FetchError, match=r"within 0\.3 s"):  # it would drip for ever
        get(server + path, timeout=0.3, max_bytes=10**9)


def test_the_time_limit_holds_against_a_slow_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: release.wait(5) and [])
    with pytest.raises(FetchError, match=r"within 0\.2 s"):
        get("http://slow.test/", timeout=0.2)
    release.set()


def test_a_name_that_does_not_resolve_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: Any, **_options: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(FetchError, match=r"nowhere\.test cannot be resolved"):
        get("http://nowhere.test/")


def test_a_closed_port_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(FetchError, match="refused"):
        get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.0.0.1"),
        *("192.168.1.1", "198.18.0.1", "224.0.1.1", "240.0.0.1", "255.255.255.255"),
        *(
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:0a00:0001::",
        ),
        *(
            "2001:0:4136:e378:8000:63bf:f5ff:fffe",
            "fc00::1",
            "fe80::1%eth0",
            "fec0::1",
            "ff0e::1",
            "2001:db8::1",
        ),
        *("", "localhost"),
    ],
)
def test_an_address_that_is_not_public_is_not_routable(address: str) -> None:
    assert not is_routable(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:0808:0808::1"]
)
def test_a_public_address_is_routable_also_inside_ipv6(address: str) -> None:
    assert is_routable(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
    ],
)
def test_the_own_machine_is_refused_however_it_is_written(server: str, host: str) -> None:
    port = server.rpartition(":")[2]
    before = len(Handler.seen)
    with pytest.raises(FetchError) as caught:
        get(f"http://{host}:{port}/ok", allow_private=False)
    assert isinstance(caught.value, ForbiddenAddress) or "cannot be resolved" in str(caught.value)
    assert len(Handler.seen) == before


def resolving(monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> list[str]:
    """Make names resolve to addresses; returns the list of names that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_options: Any) -> list[Any]:
        asked.append(host)
        found = names.get(host.partition(".")[0], [host])
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_one_private_address_among_a_names_public_ones_is_enough_to_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, mixed=["8.8.8.8", "10.0.0.1"])
    with pytest.raises(ForbiddenAddress, match=r"mixed\.test is 10\.0\.0\.1"):
        get("http://mixed.test/", allow_private=False)


def test_a_redirect_to_a_private_address_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import nshot.images.fetch

    port = server.rpartition(":")[2]
    resolving(monkeypatch, public=["127.0.0.1"], private=["127.0.0.2"])
    monkeypatch.setattr(nshot.images.fetch, "is_routable", lambda address: address != "127.0.0.2")
    with pytest.raises(ForbiddenAddress, match=r"private\.test is 127\.0\.0\.2"):
        get(f"http://public.test:{port}/to?http://private.test:{port}/ok", allow_private=False)


def test_a_name_is_resolved_once_and_its_address_used_under_its_own_name(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.rpartition(":")[2]
    asked = resolving(monkeypatch, images=["127.0.0.1"])
    assert get(f"http://images.test:{port}/ok") == b"picture"
    assert asked == ["images.test"]
    assert Handler.seen[-1][1]["Host"] == f"images.test:{port}"


def test_the_second_address_is_tried_where_the_first_does_not_answer(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.rpartition(":")[2]
    resolving(monkeypatch, two=["127.0.0.9", "127.0.0.1"])
    assert get(f"http://two.test:{port}/ok") == b"picture"


def test_credentials_go_to_their_own_host_alone(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = server.rpartition(":")[2]
    resolving(monkeypatch, own=["127.0.0.1"], other=["127.0.0.1"])
    get(f"http://me:p%40ss@own.test:{port}/to?http://other.test:{port}/ok")
    (_, first), (_, second) = Handler.seen[-2:]
    assert base64.b64decode(first["Authorization"].removeprefix("Basic ")) == b"me:p@ss"
    assert "Authorization" not in second


def test_proxies_of_the_environment_are_ignored(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert get(server + "/ok") == b"picture"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate of this test")
def test_https_is_verified_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=own.test"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:own.test", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
        timeout=60,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    resolving(monkeypatch, own=["127.0.0.1"], other=["127.0.0.1"])
    with Server(("127.0.0.1", 0), Handler) as served:
        served.socket = context.wrap_socket(served.socket, server_side=True)
        threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
        port = served.server_port
        with pytest.raises(FetchError, match="no secure connection"):
            get(f"https://own.test:{port}/ok")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert get(f"https://own.test:{port}/ok") == b"picture"
        with pytest.raises(FetchError, match="no secure connection"):
            get(f"https://other.test:{port}/ok")
        served.shutdown()


@pytest.mark.parametrize(
    "address",
    [
        *(
            "168.63.129.16",
            "192.0.0.192",
            "100.100.100.200",
            "169.254.169.254",
            "169.254.170.2",
            "fd00:ec2::254",
        ),
        *(
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "2001:db8::1",
            "2001:2::1",
            "64:ff9b:1::1",
            "100::1",
            "::8.8.8.8",
        ),
        *("192.0.0.8", "192.88.99.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "224.0.0.1", "ff0e::1"),
        *(
            "::ffff:168.63.129.16",
            "64:ff9b::a9fe:a9fe",
            "2002:a83f:8110::1",
            "fec0::1",
            "fe80::1%eth0",
            "4000::1",
        ),
    ],
)
def test_what_iana_or_a_cloud_keeps_for_itself_is_not_fetched_from(address: str) -> None:
    assert not is_routable(address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "8.8.8.8",
            "168.63.129.17",
            "192.0.0.9",
            "192.0.0.10",
            "192.31.196.1",
            "192.52.193.1",
            "192.175.48.1",
        ),
        *(
            "2606:4700::1",
            "2001:4860:4860::8888",
            "2001:1::1",
            "2001:4:112::1",
            "2001:20::1",
            "2620:4f:8000::1",
        ),
        *("64:ff9b::808:808", "::ffff:8.8.8.8", "2a00:1450::1"),
    ],
)
def test_what_is_globally_reachable_may_be_fetched_from(address: str) -> None:
    assert is_routable(address)
