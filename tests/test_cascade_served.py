"""A cascade on the page and behind the endpoint: one classifier, which says which of its models answered."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoints import half_size

import nshot
from nshot import cli
from nshot.classifier.cascade import Cascade, CascadeClassifier, verdicts_of
from nshot.cli.options import LabelOptions, ModelOptions
from nshot.cli.staged import CascadeOptions, Staging
from nshot.decision.staging import margins_of
from nshot.errors import RequestError
from nshot.server.session import Journal, Question, Session
from nshot.server.session.asked import NONE
from nshot.sketchbook import draw, sample

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from nshot.server.app import build
from nshot.server.endpoint import Endpoint

LABELS = ("red circle", "blue square", "green star", "yellow triangle", "purple heart", "black cross")
QUESTION = Question.of(LABELS, none=False)


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return half_size(tmp_path_factory.mktemp("served") / "smaller")


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawings")
    for number in range(60):
        draw(sample(7_100_000 + number)).save(folder / f"{number:02}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def cascade(smaller: Path, drawings: Path) -> Cascade:
    """Half of the drawings go on."""
    first, last = (nshot.load(name, precision="f32", store=False) for name in (smaller, "sketchbook"))
    small, large = (nshot.zero_shot(model, LABELS) for model in (first, last))
    margins = margins_of(small.logits(first.embed(sorted(drawings.glob("[0-9]*"))).vectors))
    made = {
        "precision": "f32",
        "last precision": "f32",
        "agree": 0.9,
        "learnt on": 60,
        "recipes": [first.recipe.digest, last.recipe.digest],
    }
    return Cascade(first, last, CascadeClassifier.of(small, large, float(np.median(margins)), made))


@pytest.fixture
def session(cascade: Cascade, drawings: Path, tmp_path: Path) -> Iterator[Session]:
    made = Session(lambda: cascade, [str(drawings)], Journal(tmp_path / "journal.jsonl"))
    made.start()
    assert made.wait(60)
    yield made
    made.close()


def expected(cascade: Cascade, drawings: Path) -> tuple[list[nshot.Prediction], list[str]]:
    embedded = cascade.embed(sorted(drawings.glob("[0-9]*")))
    answers = [each for each in cascade.classifier.predict(embedded) if isinstance(each, nshot.Prediction)]
    return answers, cascade.classifier.answered_by(embedded.vectors)


def test_the_page_gives_the_cascade_s_answers_and_says_which_model_answered(
    session: Session, cascade: Cascade, drawings: Path
) -> None:
    answers, stages = expected(cascade, drawings)
    assert len(set(stages)) == 2
    asked, found = session.ask(QUESTION)
    told = {Path(row.name).name: k for k, row in enumerate(session.images.rows)}
    for answer, stage in zip(answers, stages, strict=True):
        row = told[Path(answer.source).name]
        assert LABELS[int(found.label[row])] == answer.label
        assert found.score[row] == pytest.approx(answer.score, abs=1e-5)
        about = session.about(session.images.rows[row].digest, asked.key)
        assert about["stage"] == stage
        assert about["scores"][0]["label"] == answer.label
        assert about["scores"][0]["cosine"] == pytest.approx(answer.cosine, abs=1e-5)
    assert found.label[told["broken.png"]] == 0xFFFE
    assert "0.9 of the answers are promised" in asked.notes[0]
    assert session.state()["model"] == cascade.name


def test_what_is_near_and_what_is_searched_for_does_not_depend_on_who_answered(
    session: Session, cascade: Cascade, drawings: Path
) -> None:
    names = sorted(drawings.glob("[0-9]*"))
    vectors = cascade.first.embed(names).vectors
    digest = session.images.rows[0].digest
    row = names.index(Path(session.images.rows[0].name))
    near = session.about(digest, None)["near"]
    order = np.argsort(-(vectors @ vectors[row]), kind="stable")[1:4]
    assert [Path(session.images.rows[k].name) for k, _ in near[:3]] == [names[k] for k in order]
    hits = session.search("red circle")
    best = np.argsort(-(vectors @ cascade.first.embed_texts("red circle")[0]))[0]
    assert Path(session.images.rows[hits["rows"][0]].name) == names[best]


def test_other_labels_are_answered_by_the_first_model_and_a_note_says_so(
    session: Session, cascade: Cascade, drawings: Path
) -> None:
    other = Question.of(("circle", "square"), none=False)
    asked, found = session.ask(other)
    first = nshot.zero_shot(cascade.first, ["circle", "square"])
    wanted = list(first.predict(cascade.first.embed(sorted(drawings.glob("[0-9]*")))))
    rows = [k for k, row in enumerate(session.images.rows) if row.failure is None]
    assert [("circle", "square")[int(found.label[row])] for row in rows] == [each.label for each in wanted]
    assert "these answers are those of" in asked.notes[0]
    assert "stage" not in session.about(session.images.rows[0].digest, asked.key)


def test_none_of_these_may_be_answered_on_the_page(session: Session, cascade: Cascade) -> None:
    asked, found = session.ask(Question.of(LABELS))
    images = session.images.snapshot()
    classifier = session.classifier(Question.of(LABELS))
    seen = images.joined(np.flatnonzero(images.read))
    told = [each.answer == "none" for each in verdicts_of(classifier, seen)]
    assert (found.label[images.read] == NONE).tolist() == told
    assert asked.rejection is not None


def test_learning_is_refused_by_a_sentence_and_the_correction_is_kept(session: Session) -> None:
    digest = session.images.rows[0].digest
    assert session.say([{"id": "1", "digests": [digest], "now": {"label": "red circle"}}]) == 1
    with pytest.raises(RequestError, match="learning needs one model, and two answer here"):
        session.learn(QUESTION)


def test_the_page_s_export_is_a_cascade_and_its_records_are_the_answers(
    session: Session, cascade: Cascade, drawings: Path, tmp_path: Path
) -> None:
    session.learnt(QUESTION).save(tmp_path / "out.nshot")
    found = nshot.open(tmp_path / "out.nshot")
    assert isinstance(found, CascadeClassifier)
    assert found.threshold == cascade.classifier.threshold
    answers, _ = expected(cascade, drawings)
    records = {each.source: each.label for each in session.records(session.classifier(QUESTION))}
    assert [records[each.source] for each in answers] == [each.label for each in answers]


def test_the_evidence_is_that_of_the_model_that_answered(session: Session) -> None:
    asked, _ = session.ask(QUESTION)
    images = session.images.snapshot()
    assert images.further is not None
    went_on = images.further.any(axis=1) & images.read
    for rows in (np.flatnonzero(went_on), np.flatnonzero(~went_on & images.read)):
        assert session.heat(session.images.rows[int(rows[0])].digest, asked.key, 0)[:4] == b"RIFF"


def test_serve_learns_a_cascade_for_its_labels_and_says_what_it_found(
    smaller: Path, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the usual line was measured on photographs: with it most drawings show none of these labels, and go on
    monkeypatch.setattr("nshot.decision.rejection.DEFAULT_THRESHOLD", -0.5)
    model = ModelOptions(
        *("sketchbook", None, "cpu", "f32", False, "exact", "own", None, None, None, None, True),
        *(None, None, False),
    )
    labels = LabelOptions(", ".join(LABELS), None, None, (), None)
    staging = Staging(CascadeOptions(str(smaller), 0.5), labels, None, [str(drawings)], quiet=True)
    found = staging.load(model, {})
    assert isinstance(found, Cascade)
    assert "go on" in staging.remark
    made = Session(
        lambda: found, [str(drawings)], Journal(tmp_path / "j.jsonl"), remark=lambda: staging.remark
    )
    made.start()
    assert made.wait(60)
    asked, _ = made.ask(Question.of(LABELS))
    assert isinstance(asked.classifier, CascadeClassifier)
    other, _ = made.ask(Question.of(LABELS, templates=("a drawing of a {}",)))  # not what was learnt
    assert not isinstance(other.classifier, CascadeClassifier)
    assert made.state()["remark"] == staging.remark
    made.close()
    few = Staging(CascadeOptions(str(smaller), 0.99), labels, None, [str(drawings)], quiet=True)
    assert few.load(model, {}).name == "sketchbook"
    assert "60 images are too few" in few.remark


# --- the endpoint -----------------------------------------------------------------------------------------


def b64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def client_of(endpoint: Endpoint) -> TestClient:
    return TestClient(build(endpoint=endpoint), base_url="http://127.0.0.1:7860")


def test_the_endpoint_answers_by_a_saved_cascade_and_says_which_model_answered(
    cascade: Cascade, drawings: Path, tmp_path: Path
) -> None:
    cascade.classifier.save(tmp_path / "both.nshot")
    endpoint = Endpoint(lambda: cascade.last, classifiers=tmp_path, first=lambda _: cascade.first)
    endpoint.prepare()
    answers, stages = expected(cascade, drawings)
    names = sorted(drawings.glob("[0-9]*"))
    images = [*map(b64, names), b64(drawings / "broken.png")]
    with client_of(endpoint) as client:
        answer = client.post("/v1/classify", json={"images": images, "classifier": "both"})
        assert answer.status_code == 200
        *results, broken = answer.json()["results"]
        assert [each["label"] for each in results] == [each.label for each in answers]
        assert [each["stage"] for each in results] == stages
        assert [each["score"] for each in results] == pytest.approx(
            [each.score for each in answers], abs=1e-5
        )
        assert broken["status"] == "error"
        assert "stage" not in broken
        assert "of the answers are promised" in answer.json()["promise"]
        assert "not promised" not in answer.json()["promise"]
        lines = client.post("/v1/classify", json={"images": images, "classifier": "both", "stream": True})
        rows = [json.loads(line) for line in lines.text.splitlines()]
        assert [each.get("stage") for each in rows] == [*stages, None]
        sent = 60 + sum(stage == cascade.classifier.stages[1] for stage in stages)  # images, in both requests
        assert f"nshot_encoded_total {2 * sent}" in client.get("/metrics").text
        learnt = {**cascade.classifier.about, "recipes": ["another", cascade.last.recipe.digest]}
        cascade.classifier.with_provenance(made={"cascade": learnt}).save(tmp_path / "other.nshot")
        answer = client.post("/v1/classify", json={"images": images[:1], "classifier": "other"})
        assert "is not promised with these" in answer.json()["promise"]
        plain = client.post("/v1/classify", json={"images": images[:1], "labels": list(LABELS)}).json()
        assert "stage" not in plain["results"][0]
    endpoint.close()


def test_beside_the_page_its_own_labels_are_answered_by_both_models(cascade: Cascade, drawings: Path) -> None:
    asked = {"labels": {label: [] for label in LABELS}, "templates": ["a photo of a {}"]}
    own = cascade.classifier.with_provenance(made={"asked": asked})
    assert isinstance(own, CascadeClassifier)
    page = Cascade(cascade.first, cascade.last, own)
    endpoint = Endpoint(lambda: page)
    names = sorted(drawings.glob("[0-9]*"))[:12]
    _, stages = expected(cascade, drawings)
    with client_of(endpoint) as client:
        body = {"images": [b64(name) for name in names], "labels": list(LABELS)}
        results = client.post("/v1/classify", json=body).json()["results"]
        assert [each["stage"] for each in results] == stages[:12]
        others = client.post("/v1/classify", json=body | {"labels": ["circle", "star"]}).json()["results"]
        assert all("stage" not in each for each in others)
        inputs = [f"data:image/png;base64,{b64(names[0])}"]
        (vector,) = client.post("/v1/embeddings", json={"input": inputs}).json()["data"]
        assert len(vector["embedding"]) == cascade.last.dimension
    endpoint.close()


def test_a_cascade_of_another_model_is_refused_by_name(
    cascade: Cascade, drawings: Path, tmp_path: Path
) -> None:
    cascade.classifier.save(tmp_path / "both.nshot")
    endpoint = Endpoint(lambda: cascade.first, classifiers=tmp_path, first=lambda _: cascade.first)
    endpoint.prepare()
    with client_of(endpoint) as client:
        image = b64(drawings / "00.png")
        answer = client.post("/v1/classify", json={"images": [image], "classifier": "both"})
        assert answer.status_code == 400
        assert "the last stage of both belongs to sketchbook" in answer.json()["error"]
    endpoint.close()


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["photos", "--first", "small"], "a cascade is learnt for its labels"),
        (["--model", "sketchbook", "--first", "small"], "a cascade is learnt on images"),
        (["photos", "--labels", "a, b", "--multi", "--first", "small"], "several labels per image"),
        (["photos", "--facets", "weather", "--first", "small"], "this is several questions"),
        (["photos", "--labels", "a, b", "--agree", "0.9"], "add --first"),
    ],
)
def test_what_serve_cannot_make_a_cascade_of_is_refused_before_anything_is_served(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    image = io.BytesIO()
    draw(sample(1)).save(image, "PNG")
    (tmp_path / "photos" / "a.png").write_bytes(image.getvalue())
    assert cli.run(["serve", "--no-open", "--port", "0", *extra]) == 2
    assert says in capsys.readouterr().err
