"""`fit`, `curve`, `next` and `robustness` from the command line, on the tiny checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_checkpoint
from PIL import Image

from nshot.classifier.classifier import Classifier
from nshot.cli import run

LABELS = ["red", "green", "blue"]


@pytest.fixture
def by_class(tmp_path: Path) -> Path:
    return paint(tmp_path / "by-class", 8, seed=0)


def paint(folder: Path, per_label: int, *, seed: int, labels: list[str] = LABELS) -> Path:
    """Noisy images of one colour each, which even random weights tell apart."""
    generator = np.random.default_rng(seed)
    for label in labels:
        place = folder / label
        place.mkdir(parents=True)
        for number in range(per_label):
            pixels = generator.integers(0, 90, (40, 40, 3), dtype=np.uint8)
            pixels[..., LABELS.index(label.lower())] += np.uint8(160)
            Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def test_a_fitted_classifier_answers_in_classify_and_says_how_it_was_chosen(
    by_class: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "colours.nshot"
    assert run(["fit", str(by_class), "--model", str(tiny), "-o", str(out), "-q"]) == 0
    told = capsys.readouterr().out
    assert "24 images of 3 labels, 8 to 8 each" in told
    assert "chosen: " in told
    saved = Classifier.open(out)
    assert saved.model == str(tiny)
    assert saved.made["examples"] == {"blue": 8, "green": 8, "red": 8}
    new = paint(tmp_path / "new", 4, seed=9)
    assert run(["classify", str(new), "--classifier", str(out), "--format", "jsonl", "-q"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert np.mean([answer["label"] == Path(answer["source"]).parent.name for answer in answers]) > 0.9


def test_labels_without_images_and_images_without_a_prompt_both_count(
    by_class: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.nshot"
    asked = ["fit", str(by_class), "--labels", "red, green, violet", "--model", str(tiny), "-o", str(out)]
    assert run(asked) == 0
    assert "without a prompt: blue" in capsys.readouterr().err
    saved = Classifier.open(out)
    assert saved.labels == ("red", "green", "violet", "blue")
    assert saved.made["examples"]["violet"] == 0


def test_a_classifier_of_another_model_is_refused_by_name(
    by_class: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.nshot"
    other = tiny_checkpoint(tmp_path / "other", seed=7)
    assert run(["fit", str(by_class), "--model", str(tiny), "-o", str(out), "-q"]) == 0
    assert run(["classify", str(by_class), "--classifier", str(out), "--model", str(other)]) == 2
    assert f"belongs to {tiny}" in capsys.readouterr().err


def test_a_broken_image_is_named_and_the_others_are_fitted(
    by_class: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (by_class / "red" / "broken.png").write_bytes(b"\x89PNG nothing")
    assert run(["fit", str(by_class), "--model", str(tiny), "-o", str(tmp_path / "c")]) == 1
    assert "broken.png" in capsys.readouterr().err
    assert (tmp_path / "c").exists()


def test_a_curve_is_a_table_a_figure_and_numbers(
    by_class: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "curve"
    asked = [
        "curve",
        str(by_class),
        "--shots",
        "0,1,all",
        "--draws",
        "2",
        "--model",
        str(tiny),
        "-o",
        str(out),
    ]
    assert run([*asked, "-q"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("zero-shot", "linear probe, tuned", "nshot", "all"))
    content = json.loads((out / "curve.json").read_text())
    assert {point["shots"] for point in content["points"]} == {0, 1, "all"}
    assert (out / "curve.svg").read_text().startswith("<svg")


def test_shots_that_are_no_numbers_are_refused(
    by_class: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["curve", str(by_class), "--shots", "1,many", "--model", str(tiny)]) == 2
    assert "many" in capsys.readouterr().err


def test_next_names_as_many_images_as_asked_each_once(
    by_class: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.nshot"
    assert run(["fit", str(by_class), "--model", str(tiny), "-o", str(out), "-q"]) == 0
    pool = paint(tmp_path / "pool", 5, seed=3)
    capsys.readouterr()
    assert run(["next", str(pool), "--classifier", str(out), "-n", "4", "-q"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert len(set(names)) == 4
    assert all(Path(name).is_file() for name in names)
    asked = ["next", str(pool), "--classifier", str(out), "-n", "2", "--format", "jsonl"]
    assert run([*asked, "--labelled", str(by_class), "-q"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(set(record) == {"source", "label", "score"} for record in records)


def test_robustness_compares_domains_and_corruptions_and_its_numbers_follow_from_its_counts(
    by_class: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = paint(tmp_path / "other", 4, seed=5, labels=["Red", "BLUE"])
    out = tmp_path / "report"
    asked = ["robustness", str(by_class), "--other", str(other), "--corruptions", "blur, jpeg", "-q"]
    assert run([*asked, "--model", str(tiny), "-o", str(out)]) == 0
    assert "blur" in capsys.readouterr().out
    conditions = json.loads((out / "robustness.json").read_text())["conditions"]
    assert [c["kind"] for c in conditions] == ["base", "domain", *["corruption"] * 10]
    assert conditions[1]["labels"] == ["blue", "red"]
    for each in conditions:
        for figures in each["classifiers"].values():
            assert figures["accuracy"] == figures["right"] / figures["asked"]
            if figures["relative"] is not None:
                base = figures["base_right"] / figures["base_asked"]
                assert figures["relative"] == pytest.approx(figures["accuracy"] / base)
    page = (out / "index.html").read_text()
    assert "Robustness on " in page
    again = tmp_path / "again"
    assert run([*asked, "--model", str(tiny), "-o", str(again)]) == 0
    assert json.loads((again / "robustness.json").read_text())["conditions"] == conditions


def test_classify_adapts_where_there_are_enough_images_and_says_when_not(
    by_class: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = tmp_path / "c.nshot"
    assert run(["fit", str(by_class), "--model", str(tiny), "-o", str(fitted), "-q"]) == 0
    few = paint(tmp_path / "few", 2, seed=1)
    asked = ["--classifier", str(fitted), "--adapt", "--format", "jsonl"]
    capsys.readouterr()
    assert run(["classify", str(few), *asked]) == 0
    told = capsys.readouterr()
    assert "not adapted: 6 images for 3 labels are too few" in told.err
    assert len(told.out.splitlines()) == 6
    many = paint(tmp_path / "many", 25, seed=2)
    assert run(["classify", str(many), *asked]) == 0
    told = capsys.readouterr()
    assert "adapted to 75 images" in told.err
    assert len(told.out.splitlines()) == 75
