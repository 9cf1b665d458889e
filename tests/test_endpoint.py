"""The endpoint: what its clients get, what it refuses, and that nothing is lost when it stops."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nshot
from nshot import sketchbook

pytest.importorskip("starlette")
pytest.importorskip("httpx")

import httpx
from starlette.routing import Route
from starlette.testclient import TestClient

from nshot.server.app import build
from nshot.server.batching import Batcher, Busy, Reading
from nshot.server.bounds import Bounds
from nshot.server.endpoint import Endpoint
from nshot.server.known import MOST_SETS, Known
from nshot.server.run import listen, server_of

LABELS = ["circle", "star", "square"]
TEMPLATE = "a drawing of a {}"
TORN = b"\xff\xd8 torn"


def drawing(number: int) -> bytes:
    buffer = io.BytesIO()
    sketchbook.draw(sketchbook.sample(7_300_000 + number), 96).save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def clip() -> nshot.Model:
    return nshot.load("sketchbook", store=False)


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return [drawing(number) for number in range(32)]


@pytest.fixture
def endpoint(clip: nshot.Model, tmp_path: Path) -> Iterator[Endpoint]:
    made = Endpoint(lambda: clip, classifiers=tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[TestClient]:
    with TestClient(build(endpoint=endpoint), base_url="http://127.0.0.1:7860") as made:
        yield made


@pytest.fixture
def address(endpoint: Endpoint) -> Iterator[str]:
    listening = listen("127.0.0.1", 0)
    server = server_of(build(endpoint=endpoint), stopping=endpoint.stop)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)
    listening.close()


def bounded(clip: nshot.Model, **bounds: Any) -> TestClient:
    return TestClient(
        build(endpoint=Endpoint(lambda: clip, bounds=Bounds(**bounds))), base_url="http://127.0.0.1:7860"
    )


def test_hugging_face_s_client_gets_the_library_s_answers(
    address: str, clip: nshot.Model, images: list[bytes], tmp_path: Path
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    client = hub.InferenceClient(model=address)
    path = tmp_path / "a.png"
    path.write_bytes(images[1])
    for given, data in ((images[0], images[0]), (path, images[1])):
        answer = client.zero_shot_image_classification(given, LABELS, hypothesis_template=TEMPLATE)
        (expected,) = clip.classify(data, LABELS, templates=[TEMPLATE])
        assert [each.label for each in answer] == [each.label for each in expected.predictions]
        assert [each.score for each in answer] == pytest.approx(
            [each.score for each in expected.predictions], abs=1e-5
        )
    named = client.zero_shot_image_classification(images[0], LABELS, model=f"{address}/models/sketchbook")
    (expected,) = clip.classify(images[0], LABELS, templates=["This is a photo of {}."])
    assert named[0].label == expected.label
    vectors = client.feature_extraction("a drawing of a star", model=address)
    assert np.allclose(vectors, clip.embed_texts("a drawing of a star"), atol=1e-5)
    with pytest.raises(hub.errors.HfHubHTTPError, match="damaged"):
        client.zero_shot_image_classification(TORN, LABELS)


def test_openai_s_client_gets_vectors_of_texts_and_images(
    address: str, clip: nshot.Model, images: list[bytes]
) -> None:
    openai = pytest.importorskip("openai")
    uri = f"data:image/png;base64,{b64(images[0])}"
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        for form in ({}, {"encoding_format": "float"}):
            answer = client.embeddings.create(model="clip", input=[uri, "a drawing of a star"], **form)
            vectors = np.array([each.embedding for each in answer.data])
            assert np.allclose(vectors[0], clip.embed(images[0]).vectors[0], atol=1e-5)
            assert np.allclose(vectors[1], clip.embed_texts("a drawing of a star")[0], atol=1e-5)
        with pytest.raises(openai.BadRequestError, match="input 1"):
            client.embeddings.create(model="clip", input=[uri, "data:image/png;base64,AAAA"])
        with pytest.raises(openai.NotFoundError, match="sketchbook"):
            client.embeddings.create(model="text-embedding-3-small", input="a star")


def test_a_bad_image_fails_alone_and_the_error_names_it(
    client: TestClient, clip: nshot.Model, images: list[bytes]
) -> None:
    named = [{"image": b64(data), "name": f"{k}.png"} for k, data in enumerate(images)]
    named[7]["image"] = b64(TORN)
    answer = client.post("/v1/classify", json={"images": named, "labels": LABELS, "templates": TEMPLATE})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [each["index"] for each in results] == list(range(32))
    assert [each["index"] for each in results if each["status"] == "error"] == [7]
    assert results[7]["source"] == "7.png"
    assert results[7]["error"]["type"] == "UndecodableImage"
    expected = clip.classify(images, LABELS, templates=[TEMPLATE])
    assert [each["label"] for k, each in enumerate(results) if k != 7] == [
        each.label for k, each in enumerate(expected) if k != 7
    ]


def test_many_images_are_answered_line_by_line(client: TestClient, images: list[bytes]) -> None:
    body = {"images": [*map(b64, images[:5]), "not base64!"], "labels": LABELS, "stream": True}
    answer = client.post("/v1/classify", json=body)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    records = [json.loads(line) for line in answer.text.splitlines()]
    assert [each["status"] for each in records] == ["ok"] * 5 + ["error"]


def test_files_of_a_form_stay_on_disk_until_they_are_decoded_and_are_closed_in_the_end(
    clip: nshot.Model, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartParser

    monkeypatch.setattr(MultiPartParser, "spool_max_size", 1000)
    rolled: list[bool] = []
    closed: list[bool] = []
    close = UploadFile.close

    async def closing(file: UploadFile) -> None:
        rolled.append(bool(getattr(file.file, "_rolled", False)))
        await close(file)
        closed.append(file.file.closed)

    monkeypatch.setattr(UploadFile, "close", closing)
    endpoint = Endpoint(lambda: clip)
    with TestClient(build(endpoint=endpoint), base_url="http://127.0.0.1:7860") as client:
        for stream in ("false", "true"):
            files = [("images", (f"{k}.png", image)) for k, image in enumerate(images[:3])]
            data = {"labels": "circle, star", "stream": stream}
            answer = client.post("/v1/classify", files=files, data=data)
            assert answer.text.count('"status": "ok"') + answer.text.count('"status":"ok"') == 3
            assert endpoint._bodies.held == 0
            assert endpoint._requests == 0
    assert rolled == closed == [True] * 6
    endpoint.close()


def test_a_form_with_files_is_answered_like_json(client: TestClient, images: list[bytes]) -> None:
    files = [("images", (f"{k}.png", data)) for k, data in enumerate([*images[:3], TORN])]
    answer = client.post("/v1/classify", files=files, data={"labels": "circle, star", "top_k": "1"})
    results = answer.json()["results"]
    assert [each["status"] for each in results] == ["ok", "ok", "ok", "error"]
    assert results[3]["source"] == "3.png"
    assert len(results[0]["predictions"]) == 1


def test_a_saved_classifier_is_swapped_when_its_file_changes_and_kept_when_the_new_one_is_broken(
    client: TestClient, clip: nshot.Model, images: list[bytes], tmp_path: Path
) -> None:
    from nshot.classifier.zero_shot import zero_shot

    def labels() -> set[str]:
        answer = client.post("/v1/classify", json={"images": [b64(images[0])], "classifier": "mine"})
        return {each["label"] for each in answer.json()["results"][0]["predictions"]}

    zero_shot(clip, ["circle", "star"]).save(tmp_path / "mine.nshot")
    assert labels() == {"circle", "star"}
    zero_shot(clip, ["square", "moon"]).save(tmp_path / "mine.nshot")
    os.utime(tmp_path / "mine.nshot", (1, 1))
    assert labels() == {"square", "moon"}
    (tmp_path / "mine.nshot").write_bytes(b"broken")
    assert labels() == {"square", "moon"}
    for name in ("other", "../mine", str(tmp_path / "mine")):
        answer = client.post("/v1/classify", json={"images": [b64(images[0])], "classifier": name})
        assert answer.status_code == 404
        assert "mine" in answer.json()["error"]


def test_labels_are_encoded_once_and_only_so_many_sets_are_kept(clip: nshot.Model) -> None:
    known = Known(clip)
    first = known.of(["circle", "star"], [TEMPLATE])
    assert known.of(["circle", "star"], [TEMPLATE]) is first
    for number in range(MOST_SETS):
        known.of([f"circle {number}", "star"], [TEMPLATE]).result()
    assert known.of(["circle", "star"], [TEMPLATE]) is not first
    known.close()


def test_images_of_several_requests_are_encoded_together(clip: nshot.Model, images: list[bytes]) -> None:
    class Slow:
        """An encoder that waits, at its first call, until all images are there."""

        streams, batch = 1, 64
        sizes: list[int] = []  # noqa: RUF012

        def encode_images(self, pixels: Any) -> Any:
            self.sizes.append(len(pixels))
            if len(self.sizes) == 1:
                go.wait(60)
            return clip.encoder.encode_images(pixels)

    go = threading.Event()
    slow = Slow()
    model = nshot.load("sketchbook", store=False)
    model.encoder = slow  # type: ignore[assignment]
    batcher = Batcher(model, most=8)
    first = batcher.submit([Reading(lambda: images[0])])
    while not slow.sizes:
        time.sleep(0.01)
    rest = [batcher.submit([Reading(partial(bytes, data))])[0] for data in images[1:8]]
    with pytest.raises(Busy):
        batcher.submit([Reading(lambda: images[0])])
    while batcher._queue.qsize() < 7:
        time.sleep(0.01)
    go.set()
    vectors = [each.result(60).vector for each in [*first, *rest]]
    assert slow.sizes == [1, 7]
    assert np.allclose(vectors, clip.embed(images[:8]).vectors, atol=1e-5)
    assert batcher.waiting == 0
    batcher.close()


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/", {"inputs": "AA", "parameters": {"candidate_labels": ["a", "a"]}}, "a"),
        ("/", {}, "inputs"),
        ("/", [], "object"),
        ("/v1/classify", {"images": [], "labels": ["a"]}, "at least one"),
        ("/v1/classify", {"images": ["AA"]}, "labels or classifier"),
        ("/v1/classify", {"images": [3], "labels": ["a"]}, "an image must be"),
        ("/v1/classify", {"images": ["AA"], "labels": ["a"], "topk": 3}, "unknown: topk"),
        ("/v1/classify", {"images": ["AA"], "labels": ["a"], "top_k": 0}, "top_k"),
        ("/v1/classify", {"images": ["AA"], "labels": [""]}, "label"),
        ("/v1/classify", {"images": ["AA"], "labels": ["\ud800"]}, "surrogate"),
        ("/v1/classify", {"images": ["AA"], "labels": ["word " * 500]}, "word"),
        ("/v1/embeddings", {"input": []}, "at least one"),
        ("/v1/embeddings", {"input": [[1, 2]]}, "strings"),
        ("/v1/embeddings", {"input": "a", "dimensions": 8}, "dimensions"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(client: TestClient, path: str, body: Any, says: str) -> None:
    answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert says in str(answer.json()["error"])


def test_what_is_no_json_is_told_so(client: TestClient) -> None:
    for content in (b"", b"{", b"\xff", b"[" * 100_000):
        answer = client.post("/v1/classify", content=content)
        assert answer.status_code == 400
        assert "not JSON" in answer.json()["error"]


def test_too_many_bytes_are_refused_with_and_without_a_length(clip: nshot.Model) -> None:
    with bounded(clip, body=1000) as client:
        assert client.post("/v1/classify", content=b"x" * 1001).status_code == 413
        endless = {"content-length": "9" * 5000}  # more digits than Python reads as a number
        assert client.post("/v1/classify", content=b"x", headers=endless).status_code == 413
        assert client.post("/v1/classify", content=iter([b"x" * 600, b"x" * 600])).status_code == 413
        answer = client.post("/v1/classify", files=[("images", ("a.png", b"x" * 2000))])
        assert answer.status_code == 413


def test_bodies_that_are_too_many_bytes_together_are_told_to_come_again(clip: nshot.Model) -> None:
    with bounded(clip, body=10_000, bodies=5_000) as client:
        answer = client.post("/v1/classify", content=b" " * 8_000)
        assert answer.status_code == 429
        assert answer.headers["retry-after"]
        assert client.post("/", json={"inputs": "a star"}).status_code == 200


@pytest.mark.parametrize(
    ("bounds", "says"), [({"waiting": 0}, "requests are waiting"), ({"answering": 1e-9}, "no answer within")]
)
def test_requests_beyond_what_may_wait_and_late_answers_are_told_to_come_again(
    clip: nshot.Model, bounds: dict[str, Any], says: str
) -> None:
    with bounded(clip, **bounds) as client:
        answer = client.post("/", json={"inputs": "a star"})
        assert answer.status_code == 429
        assert says in answer.json()["error"]
        assert answer.headers["retry-after"]


def test_too_many_images_are_refused_and_too_much_waiting_is_told_to_come_again(clip: nshot.Model) -> None:
    body = {"images": ["AA"] * 5, "labels": LABELS}
    with bounded(clip, items=4) as client:
        assert client.post("/v1/classify", json=body).status_code == 413
    with bounded(clip, waiting=4) as client:
        answer = client.post("/v1/classify", json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    with bounded(clip, waiting=4) as client:
        answer = client.post("/v1/embeddings", json={"input": ["data:,"] * 5})
        assert answer.json()["error"]["type"] == "rate_limit_error"


def test_a_bomb_is_an_error_of_its_own(client: TestClient, images: list[bytes]) -> None:
    head = bytes.fromhex("89504e470d0a1a0a0000000d49484452000100000001000008020000005243f3b2")
    answer = client.post("/v1/classify", json={"images": [b64(head), b64(images[0])], "labels": LABELS})
    assert [each["status"] for each in answer.json()["results"]] == ["error", "ok"]


def test_a_body_that_does_not_arrive_is_given_up(clip: nshot.Model) -> None:
    endpoint = Endpoint(lambda: clip, bounds=Bounds(sending=0.2))
    listening = listen("127.0.0.1", 0)
    server = server_of(build(endpoint=endpoint), stopping=endpoint.stop)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    with socket.create_connection(listening.getsockname(), 30) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nx")
        answer = b"".join(iter(lambda: slow.recv(4096), b""))
    server.should_exit = True
    thread.join(30)
    listening.close()
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_head_that_does_not_arrive_is_given_up(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nshot.server.run._HEAD", 0.2)
    where = httpx.URL(address)
    with socket.create_connection((where.host, where.port), 30) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: 127")
        assert slow.recv(4096) == b""


def test_answers_do_not_wait_for_acknowledgements() -> None:
    listening = listen("127.0.0.1", 0)
    with listening, socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
        assert accepted.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY for these alone


def test_urls_are_not_fetched_unless_allowed_and_never_from_private_addresses(clip: nshot.Model) -> None:
    body = {"images": ["http://127.0.0.1:9/a.png"], "labels": LABELS}
    for allowed, says in ((False, "--allow-urls"), (True, "not a public address")):
        endpoint = Endpoint(lambda: clip, allow_urls=allowed)
        with TestClient(build(endpoint=endpoint), base_url="http://127.0.0.1") as client:
            (result,) = client.post("/v1/classify", json=body).json()["results"]
        assert result["error"]["type"] == "ForbiddenAddress"
        assert says in result["error"]["message"]
        endpoint.close()


def test_other_names_other_pages_and_wrong_tokens_are_refused(endpoint: Endpoint) -> None:
    with TestClient(build(endpoint=endpoint), base_url="http://127.0.0.1:7860") as client:
        for headers, status in (
            ({"Host": "evil.example"}, 421),
            ({"Host": "[::1"}, 421),
            ({"Origin": "http://evil.example"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
        ):
            answer = client.post("/", json={"inputs": "a star"}, headers=headers)
            assert answer.status_code == status
            assert "access-control-allow-origin" not in answer.headers
        assert client.options("/", headers={"Origin": "http://evil.example"}).status_code == 403
    with TestClient(build(endpoint=endpoint, hosts={"*"}, token="secret"), base_url="http://any") as client:
        assert client.get("/health").status_code == 200
        for headers, status in (({}, 401), ({"Authorization": "Bearer no"}, 401)):
            assert client.post("/", json={"inputs": "a star"}, headers=headers).status_code == status
            assert client.get("/metrics", headers=headers).status_code == status
        right = {"Authorization": "Bearer secret"}
        assert client.post("/", json={"inputs": "a star"}, headers=right).status_code == 200


def test_only_pages_of_origins_that_are_named_may_ask(endpoint: Endpoint) -> None:
    named, other = "https://example.org", "https://evil.example"
    app = build(endpoint=endpoint, hosts={"*"}, token="secret", origins=[named])
    right = {"Authorization": "Bearer secret", "Sec-Fetch-Site": "cross-site"}
    with TestClient(app, base_url="http://any") as client:
        before = client.options("/v1/classify", headers={"Origin": named, "Sec-Fetch-Site": "cross-site"})
        assert before.status_code == 204
        assert before.headers["access-control-allow-origin"] == named
        assert "authorization" in before.headers["access-control-allow-headers"]
        answer = client.post("/", json={"inputs": "a star"}, headers=right | {"Origin": named})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == named
        assert "Origin" in answer.headers["vary"]
        assert client.post("/", json={"inputs": "x"}, headers={"Origin": named}).status_code == 401
        for refused in (
            client.options("/v1/classify", headers={"Origin": other}),
            client.post("/", json={"inputs": "a star"}, headers=right | {"Origin": other}),
            client.post("/", json={"inputs": "a star"}, headers=right),
        ):
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers


def test_requests_carry_an_id_and_are_logged_as_json(endpoint: Endpoint, images: list[bytes]) -> None:
    lines: list[str] = []
    with TestClient(build(endpoint=endpoint, log=lines.append), base_url="http://127.0.0.1") as client:
        body = {"images": [b64(images[0])], "labels": LABELS}
        mine = client.post("/v1/classify", json=body, headers={"X-Request-ID": "mine-1"})
        odd = client.post("/v1/classify", json=body, headers={"X-Request-ID": 'x"\\y'})
        client.get("/health")
    assert mine.headers["x-request-id"] == "mine-1"
    assert re.fullmatch("[0-9a-f]{32}", odd.headers["x-request-id"])
    told = [json.loads(line) for line in lines]
    assert [(each["id"], each["status"], each["images"]) for each in told] == [
        ("mine-1", 200, 1),
        (odd.headers["x-request-id"], 200, 1),
    ]


def test_figures_for_prometheus_count_requests_and_images(client: TestClient, images: list[bytes]) -> None:
    client.post("/v1/classify", json={"images": [b64(images[0]), "AAAA"], "labels": LABELS})
    text = client.get("/metrics").text
    assert 'nshot_requests_total{route="/v1/classify",status="200"} 1' in text
    assert 'nshot_images_total{status="ok"} 1' in text
    assert 'nshot_images_total{status="error"} 1' in text
    assert "nshot_images_waiting 0" in text
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) .+|[a-z_]+(\{([a-z]+="[^"]*",?)+\})? [\d.e+-]+', line)


def test_it_is_ready_once_an_image_can_be_answered_and_no_more_when_it_stops(clip: nshot.Model) -> None:
    there: list[nshot.Model] = []
    endpoint = Endpoint(lambda: there[0] if there else None)
    with TestClient(build(endpoint=endpoint), base_url="http://127.0.0.1") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
        assert client.post("/", json={"inputs": "a star"}).status_code == 503
        there.append(clip)
        assert client.get("/ready").json() == {"status": "ready", "model": "sketchbook"}
        endpoint.stop()
        assert client.get("/ready").status_code == 503
        assert client.post("/", json={"inputs": "a star"}).status_code == 200
    endpoint.close()


def test_the_openapi_document_names_every_route(client: TestClient, endpoint: Endpoint) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    routes = {
        (route.path.replace(":path", ""), method.lower())
        for route in endpoint.routes()
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    told = {(path, name) for path, item in paths.items() for name in item if name in ("get", "post")}
    assert told == routes


def test_another_address_needs_a_token_and_an_origin_is_one(tmp_path: Path) -> None:
    from nshot.cli import run

    alone = ["serve", "--model", "sketchbook", "--port", "0"]
    assert run([*alone, "--host", "0.0.0.0"]) == 2
    assert run([*alone, "--allow-origin", "example.org"]) == 2
    assert run([*alone, "--allow-origin", "https://example.org/page"]) == 2
    assert run(["serve", str(tmp_path), "--allow-origin", "https://example.org", "--no-open"]) == 2
    assert run(["serve", str(tmp_path), "--host", "0.0.0.0", "--no-open"]) == 2
    assert run(["serve", "--port", "0"]) == 2
    assert run([*alone, "--labels", "a, b"]) == 2


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM")
def test_readiness_ends_before_the_socket_closes_where_there_is_time_to_drain(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nshot.server.run as running

    now = [1000.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(running, "time", Clock)
    listening = listen("127.0.0.1", 0)
    server = server_of(build(endpoint=endpoint), stopping=endpoint.stop, drain=5)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    assert httpx.get(f"{address}/ready", timeout=60).status_code == 200
    server.handle_exit(signal.SIGTERM, None)
    assert httpx.get(f"{address}/ready").status_code == 503
    assert httpx.post(f"{address}/", json={"inputs": "a star"}, timeout=60).status_code == 200
    assert thread.is_alive()
    now[0] += 6
    thread.join(60)
    assert not thread.is_alive()
    listening.close()


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM")
def test_sigterm_loses_no_request_and_ends_with_status_0(images: list[bytes]) -> None:
    command = [sys.executable, "-m", "nshot", "serve", "--model", "sketchbook", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = re.search(r"http://\S+", line)
        assert address, line
        body = {"images": list(map(b64, images)), "labels": LABELS}
        statuses: list[int] = []

        def ask() -> None:
            with httpx.Client(timeout=60) as client:
                statuses.append(client.post(f"{address[0]}v1/classify", json=body).status_code)

        with httpx.Client(timeout=60) as client:
            assert client.get(f"{address[0]}ready").status_code == 200
            threads = [threading.Thread(target=ask) for _ in range(6)]
            for thread in threads:
                thread.start()
            while "nshot_images_waiting 0\n" in client.get(f"{address[0]}metrics").text:
                if len(statuses) == 6:
                    break
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        logged = process.stderr.read().splitlines()
        assert process.wait(60) == 0
    assert statuses == [200] * 6
    assert all(json.loads(each)["status"] == 200 for each in logged)


def test_the_last_answer_of_a_connection_says_so_when_the_server_stops(
    clip: nshot.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nshot.server.run._LAST", 30)
    endpoint = Endpoint(lambda: clip)
    listening = listen("127.0.0.1", 0)
    server = server_of(build(endpoint=endpoint), stopping=endpoint.stop, grace=60)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    address = "http://{}:{}".format(*listening.getsockname())
    with httpx.Client(timeout=30) as client:
        client.post(f"{address}/", json={"inputs": "a star"})
        server.should_exit = True
        while server.servers and server.servers[0].is_serving():
            time.sleep(0.001)
        answer = client.post(f"{address}/", json={"inputs": "a star"})
    thread.join(30)
    listening.close()
    endpoint.close()
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_half_a_character_is_refused_wherever_it_stands(client: TestClient, images: list[bytes]) -> None:
    """JSON can say half of a character of UTF-16, which no answer could repeat."""
    picture = base64.b64encode(images[0]).decode()
    body = {"images": [{"image": picture, "name": "\ud800"}], "labels": ["circle", "star"]}
    for spelled in (
        json.dumps(body).encode(),
        json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"),
    ):
        answer = client.post("/v1/classify", content=spelled, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert "half a character" in answer.json()["error"]
    body["images"][0]["name"] = "\U0001f600"  # type: ignore[index]
    assert client.post("/v1/classify", json=body).status_code == 200


def test_a_field_of_brackets_is_no_number(client: TestClient, images: list[bytes]) -> None:
    answer = client.post(
        "/v1/classify",
        files=[("images", ("a.jpg", images[0], "image/jpeg"))],
        data={"labels": "circle, star", "top_k": "[" * 5000},
    )
    assert answer.status_code == 400
    assert "top_k" in answer.json()["error"]


@pytest.mark.parametrize("end", [b"", b"--xyz", b"--xyz-"])
def test_a_form_that_is_cut_off_is_refused_and_not_answered_in_part(
    client: TestClient, images: list[bytes], end: bytes
) -> None:
    def part(head: bytes, content: bytes) -> bytes:
        return b"--xyz\r\nContent-Disposition: form-data; name=" + head + b"\r\n\r\n" + content + b"\r\n"

    body = part(b'"labels"', b"circle, star")
    body += part(b'"images"; filename="a.jpg"', images[0]) + part(b'"images"; filename="b.jpg"', images[1])
    kind = {"Content-Type": "multipart/form-data; boundary=xyz"}

    cut = client.post("/v1/classify", content=body + end, headers=kind)
    whole = client.post("/v1/classify", content=body + b"--xyz--", headers=kind)

    assert cut.status_code == 400
    assert "cut off" in cut.json()["error"]
    assert len(whole.json()["results"]) == 2
