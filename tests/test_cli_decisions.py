"""`calibrate`, the decision in `classify`, and `sort`, from the command line on the tiny checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nshot.classifier.classifier import Classifier
from nshot.cli import run
from nshot.decision import Decision

LABELS = ["cat", "dog", "car"]


@pytest.fixture
def by_class(tmp_path: Path) -> Path:
    """Images of three labels, and of a fourth."""
    rng = np.random.default_rng(0)
    for place, label in enumerate([*LABELS, "bus"]):
        folder = tmp_path / "by-class" / label
        folder.mkdir(parents=True)
        for number in range(15):
            pixels = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
            pixels[..., place % 3] += np.uint8(100)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "by-class"


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_calibrated_classifier_applies_its_decision_in_classify(
    by_class: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "c.nshot", tmp_path / "report.json"
    asked = ["calibrate", str(by_class), "--labels", "cat, dog, car", "--model", str(tiny), "-o", str(out)]
    assert run([*asked, "--wrong", "0.2", "--report", str(report)]) == 0
    told = capsys.readouterr()
    assert "expected calibration error" in told.out
    assert "taken as none of these: bus" in told.err
    figures = json.loads(report.read_text())
    assert (figures["images"], figures["none_images"]) == (45, 15)
    saved = Classifier.open(out)
    assert saved.decision is not None
    assert saved.decision.rejection is not None
    assert saved.decision.rejection.rule == "background"

    assert run(["classify", str(by_class), "--classifier", str(out), "--format", "jsonl"]) == 0
    answers = records(capsys.readouterr().out)
    assert {"label", "none"} == {answer["answer"] for answer in answers}
    # a model of random weights: no temperature makes its scores better, and it is said
    assert "the scores are kept as they are" in told.out
    assert all("score" in answer and "probability" not in answer for answer in answers)

    sets = ["classify", str(by_class), "--classifier", str(out), "--coverage", "0.8", "--format", "jsonl"]
    assert run(sets) == 0
    answers = records(capsys.readouterr().out)
    assert {answer["answer"] for answer in answers} == {"set"}
    assert len({len(answer["labels"]) for answer in answers}) > 1

    assert run(["classify", str(by_class), "--classifier", str(out), "--reject", "off", "-q"]) == 0
    assert "none of these" not in capsys.readouterr().out


def test_calibrating_a_saved_classifier_writes_it_back(
    by_class: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.nshot"
    asked = ["calibrate", str(by_class), "-q", "--reject", "cosine", "--wrong", "0.3"]
    assert run([*asked, "--model", str(tiny), "-o", str(out)]) == 0
    assert Classifier.open(out).labels == ("bus", "car", "cat", "dog")
    assert run([*asked, "--classifier", str(out), "--surest", "0.5"]) == 0
    decision = Classifier.open(out).decision
    assert isinstance(decision, Decision)
    assert decision.surest is not None


def test_classify_without_a_decision_writes_the_plain_record_and_with_one_says_none(
    by_class: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["classify", str(by_class / "cat"), "--labels", "cat, dog", "--model", str(tiny), "-q"]
    asked += ["--format", "jsonl"]
    assert run(asked) == 0
    plain = records(capsys.readouterr().out)
    keys = {key for record in plain for key in record}
    assert keys - {"notes"} == {"source", "label", "score", "cosine", "margin", "predictions"}
    assert run([*asked, "--reject", "cosine", "--threshold", "0.99"]) == 0
    assert {record["answer"] for record in records(capsys.readouterr().out)} == {"none"}
    assert run([*asked, "--reject", "background", "--background", "bus, bird", "--threshold", "-9"]) == 0
    assert {record["answer"] for record in records(capsys.readouterr().out)} == {"label"}


def test_sets_are_the_smallest_unless_adaptive_ones_are_asked_for(
    by_class: Path, tiny: Path, tmp_path: Path
) -> None:
    for extra, kind in (([], "least"), (["--sets", "adaptive"], "adaptive")):
        out = tmp_path / f"{kind}.nshot"
        asked = ["calibrate", str(by_class), "--model", str(tiny), "-o", str(out), "--reject", "off", "-q"]
        assert run([*asked, *extra]) == 0
        decision = Classifier.open(out).decision
        assert decision is not None
        assert decision.sets is not None
        assert decision.sets.kind == kind


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--reject", "cosine"], "needs --threshold"),
        (["--threshold", "0.2"], "add --reject"),
        (["--coverage", "0.9"], "nshot calibrate"),
        (["--classifier", "nothing.nshot"], "not both"),
    ],
)
def test_a_decision_that_cannot_be_made_is_refused(
    by_class: Path, tiny: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    assert run(["classify", str(by_class), "--labels", "cat, dog", "--model", str(tiny), *extra]) == 2
    assert message in capsys.readouterr().err


def test_sort_does_nothing_until_told_and_can_be_undone(
    by_class: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (by_class / "cat" / "broken.png").write_bytes(b"\x89PNG no image")
    before = {path: path.stat().st_mtime_ns for path in by_class.rglob("*")}
    target = tmp_path / "sorted"
    asked = ["sort", str(by_class), str(target), "--labels", "cat, dog", "--model", str(tiny)]
    assert run([*asked, "-q"]) == 1
    assert "nothing was done" in capsys.readouterr().out
    assert not target.exists()

    assert run([*asked, "--move", "--threshold", "-9", "--reject", "background"]) == 1
    told = capsys.readouterr()
    assert "broken.png" in told.err
    assert f"nshot sort --undo {target}" in told.out
    assert [path.name for path in by_class.rglob("*.png")] == ["broken.png"]
    assert len([path for path in target.rglob("*.png") if path.parent.name in ("cat", "dog")]) == 60

    assert run(["sort", "--undo", str(target)]) == 0
    assert "60 images taken back" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in by_class.rglob("*")} == before
    assert not target.exists()


def test_sort_puts_what_has_no_answer_into_unsure(by_class: Path, tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "sorted"
    shutil.copytree(by_class / "cat", tmp_path / "cats")
    asked = ["sort", str(tmp_path / "cats"), str(target), "--labels", "cat, dog", "--model", str(tiny), "-q"]
    assert run([*asked, "--copy", "--reject", "margin", "--threshold", "1.5"]) == 0
    assert sorted(os.listdir(target)) == [".nshot-sort.jsonl", "unsure"]  # noqa: PTH208
    assert len(list((target / "unsure").iterdir())) == 15


def test_sort_asks_for_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, message in (
        (["sort", str(tmp_path), "--labels", "a, b"], "name the images and then the folder"),
        (["sort", "--undo", str(tmp_path)], "nothing to undo"),
        (["sort", "--undo", "a", "b"], "there is no .nshot-sort.jsonl"),
    ):
        assert run(args) == 2
        assert message in capsys.readouterr().err
