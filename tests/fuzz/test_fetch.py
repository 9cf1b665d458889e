"""What a web server answers: any bytes, in the place of an image or of where it is."""

from __future__ import annotations

import gzip
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fuzz.attack import attack
from fuzz.damage import mutated, mutated_text
from fuzz.test_archives import IMAGE
from nshot.images.fetch import fetch

_LARGEST = 2**16


@contextmanager
def answering(sent: list[bytes]) -> Iterator[int]:
    """A server that answers each request with the first of these, and closes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    asked = connection.recv(65536)
                    while asked.startswith(b"GET") and b"\r\n\r\n" not in asked:
                        asked += connection.recv(65536) or b"\r\n\r\n"
                    connection.sendall(sent[0])
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


STATUS = [
    *[b"HTTP/1.1 200 OK"] * 4,
    *[b"HTTP/1.0 200", b"HTTP/9.9 200 OK", b"ICY 200 OK", b"", b"HTTP/1.1 206 Partial", b"HTTP/1.1 204 x"],
    *[
        b"HTTP/1.1 302 Found",
        b"HTTP/1.1 301 x",
        b"HTTP/1.1 999 x",
        b"HTTP/1.1 -1 x",
        b"HTTP/1.1 " + b"2" * 5000,
    ],
    *[b"HTTP/1.1 404 " + b"x" * 60_000, b"HTTP/1.1 404 \xff" * 9, b"HTTP/1.1 404 \x1b[2J\x0b"],
    b"HTTP/1.1 " + b"2" * 5000,
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
]
PLACES = [
    *[b"", b"//", b"ftp://x/", b"\xff\xfe", b"/" + b"x" * 50_000, b"http://HERE", b"http://[::1"],
    *[
        b"http://127.0.0.1:" + b"9" * 30,
        b"http://a\x00b/",
        b"http://" + b"a." * 200,
        b"http://\xc3\xbc.example/",
    ],
    *[b"http://u:p@HERE%0d%0a", b"https://HERE"],
]
FIELDS = [
    *[b"Transfer-Encoding: chunked", b"Content-Encoding: gzip", b"Connection: keep-alive", b"Upgrade: x"],
    *[b"Content-Length: " + b"9" * 5000, b"Content-Length: x", b"A" * 70_000 + b": b"],
    *[b"no colon", b": x", b" y"],
]


def answer(source: random.Random, port: int) -> bytes:
    """A response that is well-formed but for what it says."""
    body = source.choice((IMAGE, IMAGE, b"", b"x" * 3000, gzip.compress(IMAGE), b"<html>"))
    status = source.choice(STATUS)
    here = b"127.0.0.1:%d/" % port
    fields = [
        *FIELDS,
        *[b"Location: " + told.replace(b"HERE", here) for told in PLACES],
        *[
            b"Content-Length: %d" % told
            for told in (0, 5, len(body), len(body) + 5, -1, 10**30, _LARGEST + 1)
        ],
    ]
    head = [status, *source.sample(fields, source.choice((0, 1, 1, 2, 4)))]
    if source.randrange(20) == 0:
        head += [b"X-%d: y" % number for number in range(200)]
    if b"Transfer-Encoding: chunked" in head:
        size = source.choice((b"%x" % len(body), b"-1", b"f" * 30, b"xyz", b"", b"5;" + b"e" * 70_000, b"0"))
        body = (
            size
            + b"\r\n"
            + body
            + source.choice((b"\r\n0\r\n\r\n", b"\r\n", b"", b"\r\n0\r\n" + b"T: x\r\n" * 300))
        )
    ending = source.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"))
    return ending.join([*head, b"", body])


def test_answers_of_a_web_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine is ever asked, whatever the answer says."""
    known = socket.getaddrinfo

    def resolved(host: Any, *args: Any, **options: Any) -> Any:
        if host not in ("127.0.0.1", b"127.0.0.1"):
            raise socket.gaierror("no such name")
        return known(host, *args, **options)

    monkeypatch.setattr("nshot.images.fetch.socket.getaddrinfo", resolved)
    sent = [b""]
    with answering(sent) as port:

        def made(source: random.Random) -> bytes:
            data = answer(source, port)
            match source.randrange(4):
                case 0:
                    return mutated(data, source)
                case 1:
                    return mutated_text(data, source)
            return data

        def read(data: bytes) -> None:
            sent[0] = data
            url = f"http://127.0.0.1:{port}/a.jpg"
            assert len(fetch(url, max_bytes=_LARGEST, timeout=5, allow_private=True)) <= _LARGEST

        attack("answers over HTTP", made, read, short=80)
