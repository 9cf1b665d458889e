"""The page's routes: what they answer, and whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nshot
from nshot import sketchbook

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from nshot.server.app import build
from nshot.server.session import JOURNAL, Journal, Session

START = {"title": "<photos & more>", "sources": ["photos"], "facets": [], "ready": []}
ASK = {"labels": ["circle", "star"], "templates": ["a drawing of a {}"]}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        pairs = [pair for pair in sketchbook.PAIRS if pair[1] == ("circle", "star")[number % 2]]
        scene = sketchbook.sample(7_000_000 + number, pairs=pairs, several=0)
        sketchbook.draw(scene, 96).save(folder / f"{number:02}.jpg")
    (folder / "<b>broken.jpg").write_bytes(b"\xff\xd8 torn")
    clip = nshot.load("sketchbook")
    made = Session(lambda: clip, [str(folder)], Journal(folder / JOURNAL))
    made.start()
    assert made.wait(60)
    yield made
    made.close()


@pytest.fixture
def client(session: Session) -> Iterator[TestClient]:
    with TestClient(build(session, START), base_url="http://127.0.0.1:7860") as made:
        yield made


def columns(data: bytes) -> tuple[dict[str, object], list[list[float]]]:
    (length,) = np.frombuffer(data[:4], "<u4")
    header = json.loads(data[4 : 4 + length])
    rest, n = data[4 + length :], header["rows"]
    kinds = ("<u2", "<f2", "<f2", "<f2")
    return header, [
        np.frombuffer(rest[2 * n * k : 2 * n * (k + 1)], kind).tolist() for k, kind in enumerate(kinds)
    ]


def test_the_page_holds_no_script_of_its_own_and_escapes_names(client: TestClient) -> None:
    answer = client.get("/")
    assert "<photos" not in answer.text
    assert "&lt;photos &amp; more&gt;" in answer.text
    assert answer.text.count("<script") == answer.text.count('<script type="module" src=') == 1
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["referrer-policy"] == "no-referrer"
    for path in ("/static/main.js", "/static/page.css", "/theme.css"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/static/../page.py", "/static/%2e%2e/page.py", "/static/..%2fpage.py"])
def test_nothing_but_the_static_files_is_to_be_had(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_rows_and_answers_come_in_columns(client: TestClient, session: Session) -> None:
    data = client.get("/api/rows").content
    assert np.frombuffer(data[:4], "<u4") == 13
    assert data[4:36].hex() == session.images.rows[0].digest
    assert sum(data[4 + 13 * 32 : 4 + 13 * 33]) == 12
    assert data[4 + 13 * 33 :].decode().split("\0") == [row.name for row in session.images.rows]
    header, (label, score, margin, fits) = columns(client.post("/api/ask", json=ASK).content)
    assert header["labels"] == ["circle", "star"]
    lost = next(row for row, known in enumerate(session.images.rows) if known.failure)
    assert label[lost] == 0xFFFE
    assert set(label) <= {0, 1, 0xFFFE, 0xFFFF}
    assert all(0 <= value <= 1 for value in score)
    assert len(margin) == len(fits) == 13


def test_one_image_is_told_whole(client: TestClient, session: Session) -> None:
    key = columns(client.post("/api/ask", json=ASK).content)[0]["key"]
    row = next(row for row in session.images.rows if row.failure is None)
    about = client.post("/api/about", json={"digest": row.digest, "key": key}).json()
    assert [each["label"] for each in about["scores"]] in (["circle", "star"], ["star", "circle"])
    assert len(about["near"]) == 11
    assert about["size"] == [96, 96]
    plain = client.get(f"/images/{row.digest}.webp")
    heats = [client.get(f"/images/{row.digest}/{key}/{place}.webp") for place in (0, 1)]
    assert [heat.status_code for heat in heats] == [200, 200]
    assert len({plain.content, *(heat.content for heat in heats)}) == 3
    image = client.get(f"/thumbnails/{row.digest}.webp")
    assert (image.status_code, image.headers["content-type"]) == (200, "image/webp")
    assert "immutable" in image.headers["cache-control"]


def test_the_evidence_for_what_was_not_asked_is_not_there(client: TestClient, session: Session) -> None:
    key = columns(client.post("/api/ask", json=ASK).content)[0]["key"]
    row = next(row for row in session.images.rows if row.failure is None)
    for path in (f"{row.digest}/{key}/2", f"{row.digest}/forgotten/0", f"{'00' * 32}/{key}/0"):
        assert client.get(f"/images/{path}.webp").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/ask", {"labels": []}, 400),
        ("/api/ask", {"labels": ["cat"], "templates": ["no place"]}, 400),
        ("/api/ask", {"labels": ["cat", "cat"]}, 400),
        ("/api/ask", {"labels": [f"label {k}" for k in range(6000)]}, 400),
        ("/api/duplicates", {"move": [1]}, 400),
        ("/api/duplicates", {"undo": "/nonexistent"}, 400),
        ("/api/about", {"digest": "../../etc/passwd"}, 400),
        ("/api/acts", {"acts": [{"id": "x", "digests": ["00" * 32], "now": {"label": "cat"}}]}, 400),
        ("/api/acts", {"acts": [{"id": "x", "take": "../../x"}]}, 400),
        ("/api/take", {"token": "none", "id": "x"}, 400),
        ("/api/search", {"like": 5}, 400),
        ("/api/search", {"like": [{}]}, 400),
        ("/api/export", {**ASK, "as": "csv", "what": "selection", "rows": True}, 400),
        ("/api/export", {**ASK, "as": "csv", "facets": {"a": 1}}, 400),
        ("/api/export", {**ASK, "as": "sort", "target": "x" * 300}, 400),
        ("/api/export", {**ASK, "as": "sort", "target": "\0"}, 400),
        ("/api/acts", {"acts": [{"id": "x", "digests": [{}], "now": {"label": "cat"}}]}, 400),
        ("/api/acts", {"acts": [{"id": "x", "digests": 1.5, "now": {"label": "cat"}}]}, 400),
        ("/api/acts", {"acts": [{"id": [], "digests": [], "now": {"label": "cat"}}]}, 400),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    client: TestClient, path: str, body: dict[str, object], status: int
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert answer.json()["error"]


@pytest.mark.parametrize("path", ["rows?from=", "journal?from=", "events?acts="])
def test_a_number_of_thousands_of_digits_is_none(client: TestClient, session: Session, path: str) -> None:
    """Python reads no number of so many digits."""
    assert client.get(f"/api/{path}{'9' * 5000}").status_code == 400
    digest = session.images.rows[0].digest
    assert client.get(f"/images/{digest}/k/{'9' * 5000}.webp").status_code == 400
    assert client.get(f"/images/{digest}/k/x.webp").status_code == 400


@pytest.mark.parametrize(
    "body", [b"{", b"[1]", b"[" * 100_000, b"null", b'{"labels": ["\\ud800"]}'], ids=range(5)
)
def test_nothing_that_is_sent_breaks_the_server(client: TestClient, body: bytes) -> None:
    routes = ["ask", "about", "acts", "fit", "take", "next", "audit", "search", "export", "pause"]
    for path in routes:
        assert client.post(f"/api/{path}", content=body).status_code < 500


def test_a_request_that_is_too_large_is_refused(client: TestClient) -> None:
    assert client.post("/api/ask", content=b"x" * (17 * 2**20)).status_code == 413


def test_corrections_are_kept_learnt_from_and_undone(client: TestClient, session: Session) -> None:
    for number, row in enumerate(r for r in session.images.rows if r.failure is None):
        label = ("circle", "star")[number % 2]
        act = {"id": f"{number}", "digests": [row.digest], "now": {"label": label}}
        assert client.post("/api/acts", json={"acts": [act]}).status_code == 200
    fitted = client.post("/api/fit", json=ASK).json()
    assert fitted["examples"] == 12
    taken = client.post("/api/take", json={"token": fitted["token"], "id": "take"})
    assert taken.status_code == 200
    assert columns(client.post("/api/ask", json=ASK).content)[0]["learnt"] is True
    assert client.post("/api/acts", json={"acts": [{"id": "u", "undo": "take"}]}).status_code == 200
    assert columns(client.post("/api/ask", json=ASK).content)[0]["learnt"] is False
    assert len(client.get("/api/journal").json()) == 14


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "photos.example:7860"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_other_pages_and_other_names_are_refused(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    assert client.get("/api/state", headers=headers).status_code == status
    assert client.get("/api/state").status_code == 200


def test_a_page_for_others_asks_a_browser_for_the_token_once(session: Session) -> None:
    app = build(session, START, hosts={"*"}, token="secret")
    with TestClient(app, base_url="http://photos.example", follow_redirects=False) as client:
        for path in ("/api/state", "/api/rows?from=0", f"/thumbnails/{session.images.rows[0].digest}.webp"):
            assert client.get(path).status_code == 401
        form = client.get("/")
        assert form.status_code == 401
        assert "The token of this server" in form.text
        assert "photos" not in form.text
        assert "form-action 'self'" in form.headers["content-security-policy"]
        assert client.get("/static/page.css").status_code == 200
        same = {"Origin": "http://photos.example"}
        wrong = client.post("/login", data={"token": "no"}, headers=same)
        assert wrong.status_code == 401
        assert "not the token" in wrong.text
        assert not client.cookies
        elsewhere = {"Origin": "http://evil.example"}
        assert client.post("/login", data={"token": "secret"}, headers=elsewhere).status_code == 403
        endless = {**same, "content-length": "9" * 5000}  # more digits than Python reads as a number
        assert client.post("/login", content=b"token=no", headers=endless).status_code == 401
        right = client.post("/login", data={"token": "secret"}, headers=same)
        assert (right.status_code, right.headers["location"]) == (303, "/")
        cookie = right.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "secret" not in cookie
        assert client.get("/").status_code == 200
        assert client.get("/api/state").status_code == 200
        assert client.post("/api/ask", json=ASK, headers=elsewhere).status_code == 403
        client.cookies.set("nshot", "0" * 64)
        assert client.get("/api/state", headers={"Cookie": "nshot=0"}).status_code == 401
    again = build(session, START, hosts={"*"}, token="another")
    with TestClient(again, base_url="http://photos.example") as client:
        old = right.headers["set-cookie"].split(";")[0]
        assert client.get("/api/state", headers={"Cookie": old}).status_code == 401


def test_files_are_sorted_and_tagged_only_after_a_plan_was_shown_and_taken_back(
    client: TestClient, session: Session, tmp_path: Path
) -> None:
    folder = Path(session.specs[0])
    for form, target in (("sort", tmp_path / "sorted"), ("xmp", folder)):
        asked = {**ASK, "what": "all", "as": form, "target": str(target)}
        plan = client.post("/api/export", json=asked).json()
        assert plan["said"].startswith("Dry run: ")
        assert plan["files"] >= 6
        assert not list(tmp_path.rglob("*.jpg"))
        assert not list(folder.glob("*.xmp"))
        other = client.post("/api/export", json={**asked, "token": "another plan"}).json()
        assert other["token"] == plan["token"]
        done = client.post("/api/export", json={**asked, "token": plan["token"]}).json()
        made = list(tmp_path.rglob("*.jpg") if form == "sort" else folder.glob("*.xmp"))
        assert len(made) == plan["files"]
        back = client.post("/api/export", json={"as": form, "undo": done["undo"]}).json()
        assert "taken back" in back["said"]
        assert not any(path.exists() for path in made)


def test_files_of_elsewhere_are_not_moved(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").touch()
    answer = client.post("/api/duplicates", json={"move": [[str(tmp_path / "mine.jpg"), "same"]]})
    assert answer.status_code == 400
    assert (tmp_path / "mine.jpg").exists()
