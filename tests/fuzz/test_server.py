"""What clients send to the endpoint: bodies of JSON in every form, and forms of many parts."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import nshot
from fuzz.attack import attack
from fuzz.damage import mutated, mutated_json
from fuzz.test_archives import IMAGE
from fuzz.test_images import SAMPLES, changed
from nshot.errors import ImageError
from nshot.types import Limits

pytest.importorskip("starlette")
pytest.importorskip("multipart")

from nshot.server import shapes
from nshot.server.app import build
from nshot.server.bounds import Bounds
from nshot.server.endpoint import Endpoint
from nshot.server.session import JOURNAL, Journal, Session

PICTURE = base64.b64encode(IMAGE).decode()
BODIES: dict[str, Any] = {
    "/v1/classify": {
        "images": [
            PICTURE,
            {"image": f"data:image/jpeg;base64,{PICTURE}", "name": "a"},
            {"url": {"url": PICTURE}},
        ],
        "labels": {"circle": ["a ring"], "star": []},
        "templates": ["a drawing of a {}"],
        "top_k": 1,
        "stream": False,
    },
    "/": {
        "inputs": PICTURE,
        "parameters": {"candidate_labels": ["circle", "star"], "hypothesis_template": "a {}"},
    },
    "/models/sketchbook": {"inputs": {"image": PICTURE, "candidateLabels": "circle,star"}},
    "/v1/embeddings": {
        "input": ["a star", {"image": PICTURE}, {"text": "x"}],
        "model": "clip",
        "encoding_format": "base64",
    },
    "/embed": {"inputs": ["a star", "a circle"]},
}


def test_shapes_of_bodies() -> None:
    """What is asked, and what the images are that come as text."""
    readers = (shapes.classify, shapes.zero_shot, shapes.texts, shapes.embeddings)

    def made(source: random.Random) -> tuple[int, bytes]:
        body = BODIES[source.choice(sorted(BODIES))]
        return source.randrange(len(readers)), mutated_json(json.dumps(body).encode(), source)

    def read(given: tuple[int, bytes]) -> None:
        try:
            body = json.loads(given[1])
        except (ValueError, RecursionError):
            return
        asked = readers[given[0]](body)
        images = (
            asked.images if isinstance(asked, shapes.Asked) else asked[0] if isinstance(asked, tuple) else []
        )
        for image in images:
            if isinstance(image, shapes.Given):
                read_bytes = image.read(Limits(max_bytes=2**20), urls=False).read
                try:
                    read_bytes()
                except ImageError:
                    continue

    attack("bodies, shapes", made, read, short=200)


def form(source: random.Random) -> tuple[bytes, bytes]:
    """A content type, and a form of many parts."""
    mark = source.choice((b"xyz", b"xyz", b"----WebKitFormBoundary7", b"", b'"q"', b"a" * 300))
    parts = b""
    for _ in range(source.choice((1, 3, 3, 30))):
        name = source.choice(
            (b"images", b"image", b"labels", b"templates", b"top_k", b"stream", b"x", b"", b"classifier")
        )
        file = source.choice(
            (b"", b'; filename="a.jpg"', b'; filename="../../b\xff.jpg"', b"; filename*=utf-8''%00.jpg")
        )
        told = source.choice(
            (IMAGE, b"circle, star", b"1", b"true", b"[" * 3000, b"9" * 5000, b"", b"\xff\xfe", b"a {}")
        )
        kind = source.choice(
            (
                b"",
                b"Content-Type: image/jpeg\r\n",
                b"Content-Transfer-Encoding: base64\r\n",
                b"A" * 9000 + b": b\r\n",
            )
        )
        parts += (
            b"--" + mark + b'\r\nContent-Disposition: form-data; name="' + name + b'"' + file + b"\r\n" + kind
        )
        parts += b"\r\n" + told + b"\r\n"
    parts += b"--" + mark + source.choice((b"--\r\n", b"--", b""))
    boundary = source.choice((mark, mark, mark, b"other", b""))
    return b"multipart/form-data; boundary=" + boundary, mutated(parts, source) if source.randrange(
        2
    ) else parts


@pytest.fixture(scope="module")
def clip() -> nshot.Model:
    return nshot.load("sketchbook", store=False)


Given = tuple[str, list[tuple[bytes, bytes]], list[bytes], bool]  # path, headers, body; whether it goes away

PATHS = [
    *[
        "/models/",
        "/models/a/b/c",
        "/models/%00",
        "/models/" + "x" * 5000,
        "/models/../x",
        "//",
        "",
        "/\x1b[2J",
    ],
    *[
        "/v1/models",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
        "/v1/classify/",
        "/embed?x=1",
        "/\x1b[2J",
    ],
]
FORM = b"multipart/form-data"
KINDS = [
    *[b"", b"text/plain", b"image/jpeg", b"application/octet-stream", b"application/x-www-form-urlencoded"],
    *[b"application/json; charset=utf-16", b"application/json; charset=\xff", b"APPLICATION/JSON;;="],
    *[FORM, FORM + b"; boundary", FORM + b'; boundary="', FORM + b"; boundary=" + b"x" * 5000],
    *[b"multipart/", b"multipart/mixed; boundary=xyz", b"\xff" * 99],
]
HEADERS = [
    *[(b"content-length", told) for told in (b"0", b"5", b"-1", b"9" * 5000, b"1e3", b"", b"1, 2", b"\xb2")],
    *[(b"accept", told) for told in (b"application/x-ndjson", b"\xff", b"*/*;q=x", b"a" * 9000)],
    *[(b"content-encoding", told) for told in (b"gzip", b"br", b"x")],
    *[(b"transfer-encoding", b"chunked"), (b"expect", b"100-continue"), (b"range", b"bytes=0-")],
    *[(b"x-request-id", b"a\nb" * 50), (b"authorization", b"Bearer \xff"), (b"cookie", b"a=b; " * 900)],
]
NAMED = [
    *["data:;base64,", "data:,x", "data:" * 300, f"data:image/png,{PICTURE[:40]}", PICTURE[:50] + "\n"],
    *["http://127.0.0.1/", "file:///", "s3://a/b", "=" * 50, "é", "%2F", PICTURE + "====", f" {PICTURE} "],
    *[f"data:image/jpeg;base64,{PICTURE[:-1]}", PICTURE.replace("/", "_")],
]
STATUSES = (200, 307, 400, 404, 405, 411, 413, 415, 422)


def with_images(path: str, source: random.Random) -> Any:
    """A body, in which some images are damaged, or are named in another way."""
    text = json.dumps(BODIES[path])
    match source.randrange(4):
        case 0:
            other = base64.b64encode(changed(source.choice(sorted(SAMPLES)), source)).decode()
        case 1:
            other = source.choice(NAMED)
        case _:
            return BODIES[path]
    return json.loads(text.replace(PICTURE, json.dumps(other)[1:-1], source.choice((1, 9))))


async def asked(app: Any, given: Given, method: str = "POST") -> int:
    """The status of an answer, 0 without one."""
    path, headers, pieces, leaves = given
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:7860"), *headers],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 7860),
    }
    status = 0
    gone = asyncio.Event()
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    messages[-1]["more_body"] = False
    if leaves:  # before it has sent all
        messages[-1] = {"type": "http.disconnect"}

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        if leaves:
            return {"type": "http.disconnect"}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            gone.set()

    await app(scope, receive, send)
    return status


def in_pieces(path: str, kind: bytes, body: bytes, source: random.Random) -> Given:
    """A request as a network may bring it, or that is broken off."""
    headers = [(b"content-type", kind), *source.sample(HEADERS, source.choice((0, 0, 0, 1, 3)))]
    cuts = sorted(source.randrange(len(body) + 1) for _ in range(source.choice((0, 1, 1, 5))))
    pieces = [body[a:b] for a, b in pairwise((0, *cuts, len(body)))]
    return path, headers, pieces, source.randrange(30) == 0


def test_requests(clip: nshot.Model) -> None:
    """Through the whole endpoint; every answer is a status that is no fault of the server's."""
    endpoint = Endpoint(lambda: clip, bounds=Bounds(body=2**20, sending=5, answering=20))
    app = build(endpoint=endpoint)
    loop = asyncio.new_event_loop()

    def made(source: random.Random) -> Given:
        path = source.choice(sorted(BODIES))
        kind, body = b"application/json", mutated_json(json.dumps(with_images(path, source)).encode(), source)
        if source.randrange(3) == 0:
            path, (kind, body) = "/v1/classify", form(source)
        if source.randrange(8) == 0:
            path = source.choice(PATHS)
        if source.randrange(8) == 0:
            kind = source.choice(KINDS)
        return in_pieces(path, kind, body, source)

    def read(given: Given) -> None:
        status = loop.run_until_complete(asked(app, given))
        assert status in STATUSES or (given[3] and status in (0, 499)), status

    try:
        for path, body in BODIES.items():  # the compiled towers stay open from here on
            read((path, [(b"content-type", b"application/json")], [json.dumps(body).encode()], False))
        attack("requests", made, read, short=60)
        assert endpoint._bodies.held == 0
    finally:
        endpoint.close()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def test_requests_of_the_page(clip: nshot.Model, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of the page's; a plan is only looked at, as its token is not known."""
    photos = room / "photos"
    photos.mkdir()
    for name in "abc":
        (photos / f"{name}.jpg").write_bytes(IMAGE)
    (photos / "d.jpg").write_bytes(b"torn")
    monkeypatch.chdir(room)
    session = Session(lambda: clip, [str(photos)], Journal(room / JOURNAL), thumbnails=room / "t.sqlite")
    session.start()
    assert session.wait(60)
    app = build(session, {"title": "x", "sources": ["photos"], "facets": [], "ready": []})
    loop = asyncio.new_event_loop()
    digest = session.images.rows[0].digest
    question = {"labels": ["circle", "star"], "templates": ["a drawing of a {}"], "facet": "", "multi": False}
    act = {"id": "1", "digests": [digest], "now": {"label": "circle"}}
    bodies: dict[str, Any] = {
        "ask": question,
        "ranked": {"key": "k", "place": 0},
        "about": {"digest": digest, "key": "k"},
        "acts": {"acts": [act, {"id": "2", "undo": "1"}, {"id": "3", "digests": [digest], "note": "odd"}]},
        "fit": question,
        "take": {"token": "x", "id": "4"},
        "next": question,
        "audit": question | {"anew": True},
        "search": {"words": "a star", "like": [digest]},
        "duplicates": {"move": [[str(photos / "a.jpg"), "same"]], "target": "trash"},
        "export": question | {"as": "csv", "what": "selection", "rows": [0, 1]},
        "export?": question | {"as": "sort", "target": "sorted", "facets": [question | {"facet": "a"}]},
        "pause": {"on": False},
    }
    gets = (
        *("rows?from=", "journal?from=", "state?", "events?acts=-"),
        *(f"../images/{digest}/k/", "../thumbnails/", "../images/"),
    )

    def made(source: random.Random) -> tuple[str, Given]:
        if source.randrange(6) == 0:
            odd = source.choice(("0", "1", "9" * 30, "9" * 5000, "-1", "x", "%00", "\xb2", digest, "0.webp"))
            place = source.choice(gets)
            path = f"/api/{place}{odd}".replace("/api/../", "/") + source.choice(("", ".webp"))
            return "GET", in_pieces(path, b"", b"", source)
        name = source.choice(sorted(bodies))
        body = mutated_json(json.dumps(bodies[name]).encode(), source)
        return "POST", in_pieces(f"/api/{name}", b"application/json", body, source)

    def read(given: tuple[str, Given]) -> None:
        status = loop.run_until_complete(asked(app, given[1], given[0]))
        assert status in (*STATUSES, 410) or (given[1][3] and status in (0, 499)), status

    try:
        attack("requests of the page", made, read, short=60, long=20_000)
        assert sorted(path.name for path in photos.iterdir()) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
        assert {path.name for path in room.iterdir()} <= {"photos", JOURNAL, "t.sqlite", *LEFT}
    finally:
        session.close()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


LEFT = ("t.sqlite-wal", "t.sqlite-shm", f"{JOURNAL}.lock", "classifiers")
