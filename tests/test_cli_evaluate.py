"""`nshot evaluate` as a person meets it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import tiny_checkpoint
from PIL import Image

import nshot
from nshot.cli import run
from nshot.decision import Calibration, Decision, Rejection

Evaluate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evaluate(tiny: Path, capfd: pytest.CaptureFixture[str]) -> Evaluate:
    """Runs the command on the tiny model: exit status, stdout, stderr."""

    def call(*arguments: object, model: Path | None = tiny) -> tuple[int, str, str]:
        chosen = ["--model", str(model)] if model else []
        status = run(["evaluate", *map(str, arguments), *chosen])
        out, err = capfd.readouterr()
        return status, out, err

    return call


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(9):
        path = tmp_path / "data" / ("cat", "dog", "red_bird")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (28 * number, 255 - 28 * number, 90 * (number % 3))).save(path)
    return tmp_path / "data"


def test_a_folder_of_classes_becomes_a_page_numbers_and_rows(
    evaluate: Evaluate, data: Path, tmp_path: Path
) -> None:
    report = tmp_path / "made" / "report"
    status, out, err = evaluate(data, "-o", report)
    assert status == 0
    assert "9 images, 3 labels" in out
    assert "top-1" in out
    assert str(report / "index.html") in out
    assert "'red_bird' as 'red bird'" in err
    content = json.loads((report / "report.json").read_text())
    assert content["labels"] == ["cat", "dog", "red_bird"]
    assert content["run"]["templates"] == "a photo of a {}"
    assert {"model", "weights (sha256)", "recipe", "versions", "seed"} <= content["run"].keys()
    names = [way["name"] for way in content["against"]]
    assert names[:4] == ["chance", "majority class", "a photo of a {}", "{}"]
    assert content["figures"]["top_1"] == next(
        way["top_1"] for way in content["against"] if way["name"] == "a photo of a {}"
    )
    assert (report / "predictions.parquet").exists() or (report / "predictions.csv").exists()
    html = (report / "index.html").read_text()
    assert content["run"]["recipe"] in html
    assert "data:image/jpeg" in html


def test_without_a_folder_the_headline_is_all(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    status, out, err = evaluate(data, "-q")
    assert (status, err) == (0, "")
    assert "majority class" in out
    assert set(tmp_path.rglob("*")) == before


def test_a_table_names_its_columns_and_a_labels_file_its_prompts(
    evaluate: Evaluate, data: Path, tmp_path: Path
) -> None:
    table = data.parent / "test.csv"
    table.write_text("file,kind,where\ndata/cat/0.png,0,a\ndata/dog/1.png,1,b\n")
    (tmp_path / "labels.json").write_text('{"cat": ["a cat"], "dog": ["a dog", "hound"], "owl": []}')
    (tmp_path / "templates.txt").write_text("a photo of a {}\na red {}\n")
    status, out, _ = evaluate(
        *(table, "--image-column", "file", "--label-column", "kind", "--domain-column", "where"),
        *("--labels-file", tmp_path / "labels.json", "--templates", tmp_path / "templates.txt"),
        *("-o", tmp_path / "report"),
    )
    assert status == 0
    assert "2 images, 3 labels" in out
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [domain["name"] for domain in content["domains"]] == ["a", "b"]
    assert content["against"][-1]["name"] == "all 2 templates together"
    assert content["figures"]["top_1"] == content["against"][-1]["top_1"]


def test_models_stand_side_by_side(evaluate: Evaluate, data: Path, tmp_path: Path, tiny: Path) -> None:
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    status, out, _ = evaluate(data, "--compare", f"{tiny},{other}", "-o", tmp_path / "r", model=None)
    assert status == 0
    assert str(other) in out
    content = json.loads((tmp_path / "r" / "report.json").read_text())
    assert [model["name"] for model in content["models"]] == [str(tiny), str(other)]
    assert content["run"]["model"] == str(tiny)
    assert "Models side by side" in (tmp_path / "r" / "index.html").read_text()


def test_an_image_that_cannot_be_read_is_named_and_counted(
    evaluate: Evaluate, data: Path, tmp_path: Path
) -> None:
    (data / "cat" / "broken.jpg").write_bytes(b"nothing")
    status, out, err = evaluate(data, "-o", tmp_path / "r")
    assert status == 1
    assert "9 images" in out
    assert "broken.jpg" in err
    assert "10 images, 9 answered, 1 failed" in err
    assert "broken.jpg" in (tmp_path / "r" / "index.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--labels", "cat, dog"], "'red_bird', none of the 2 labels"),
        (["--template", "no place"], "has no {}"),
    ],
)
def test_a_wrong_request_is_one_line_that_says_what(
    evaluate: Evaluate, data: Path, change: list[str], message: str
) -> None:
    status, out, err = evaluate(data, "-q", *change)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_nothing_is_embedded_twice(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store.db"
    assert evaluate(data, "--store", store)[0] == 0

    def refuse(*_: object) -> None:
        raise AssertionError("an image was encoded again")

    monkeypatch.setattr("nshot.encoders.openvino.OpenVINOEncoder.encode_images", refuse)
    status, out, _ = evaluate(data, "--store", store, "--template", "a drawing of a {}")
    assert status == 0
    assert "9 images" in out


@pytest.fixture
def saved(tiny: Path, tmp_path: Path) -> Path:
    """A classifier with a temperature, and a threshold that turns some images away."""
    clip = nshot.load(str(tiny))
    classifier = nshot.zero_shot(clip, ["cat", "dog", "red_bird"])
    decision = Decision(calibration=Calibration(temperature=50.0), rejection=Rejection("margin", 0.0))
    path = tmp_path / "animals.nshot"
    classifier.with_decision(decision).with_provenance(model=str(tiny)).save(path)
    return path


def test_a_saved_classifier_is_measured_with_its_decision_against_prompts(
    evaluate: Evaluate, data: Path, tmp_path: Path, saved: Path
) -> None:
    status, out, _ = evaluate(data, "--classifier", saved, "-o", tmp_path / "r", model=None)
    assert status == 0
    assert "answered" in out
    content = json.loads((tmp_path / "r" / "report.json").read_text())
    assert content["run"]["classifier"] == str(saved)
    assert [way["name"] for way in content["against"]][2:4] == ["animals.nshot", "a photo of a {}"]
    figures = content["figures"]
    assert figures["answered"] == 1.0
    assert figures["right_of_answered"] == figures["top_1"]
    # at a temperature of 50 no score of three labels is far from a third
    assert max(content["reliability"]["confidence"]) < 0.5
    status, out, _ = evaluate(
        data, "--classifier", saved, "--reject", "margin", "--threshold", "2", model=None
    )
    assert status == 0
    assert "answered" in out
    assert "  0.0 %" in out


def test_a_classifier_brings_its_own_labels(evaluate: Evaluate, data: Path, saved: Path) -> None:
    status, _, err = evaluate(data, "--classifier", saved, "--labels", "cat, dog", model=None)
    assert status == 2
    assert "brings its labels" in err


def test_a_lone_label_has_no_accuracy_on_the_page(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "dog")
    shutil.rmtree(data / "red_bird")
    status, _, err = evaluate(data, "--reject", "background", "-o", tmp_path / "report")
    assert status == 0, err
    page = (tmp_path / "report" / "index.html").read_text()
    assert "There is one label" in page
    assert "100.0" not in page
    assert "accuracy is given" in page
    assert "answered" in page


def test_a_file_in_the_place_of_the_reports_folder_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report").write_text("mine")
    assert run(["evaluate", str(tmp_path), "--model", "sketchbook", "-o", str(tmp_path / "report")]) == 2
    assert "-o names the folder" in capsys.readouterr().err
    assert (tmp_path / "report").read_text() == "mine"
