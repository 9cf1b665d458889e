from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nshot.classifier.classifier import Classifier
from nshot.classifier.file import load, save
from nshot.decision import Calibration, Decision, Rejection
from nshot.errors import OutputError, RequestError

CLASSIFIER = Classifier(
    ["katze", "犬"], [[1.0, 0.2], [0.0, 1.0]], scale=[90.0, 110.0], bias=[0.5, -1.0], space="a" * 64
)


def test_a_classifier_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "pets.nshot"
    decision = Decision(Calibration(1.5), Rejection("margin", 0.02)).to_dict()
    save(path, CLASSIFIER, model="openai/clip", decision=decision, recipe={"method": "pulled"})
    saved = load(path)
    vectors = np.random.default_rng(0).normal(size=(5, 2))
    assert np.array_equal(saved.classifier.logits(vectors), CLASSIFIER.logits(vectors))
    assert saved.classifier.labels == ("katze", "犬")
    assert saved.classifier.space == "a" * 64
    assert (saved.model, saved.decision, saved.recipe) == ("openai/clip", decision, {"method": "pulled"})
    assert saved.classifier.decision is not None
    assert saved.classifier.decision.to_dict() == decision


def test_without_a_decision_there_is_none(tmp_path: Path) -> None:
    save(tmp_path / "c", CLASSIFIER, model="m")
    assert load(tmp_path / "c").decision is None


def test_another_model_is_refused_and_both_are_named(tmp_path: Path) -> None:
    save(tmp_path / "c", CLASSIFIER, model="openai/clip")
    saved = load(tmp_path / "c")
    saved.check_model("a" * 64, "anything")
    saved.check_model(None, "unknown")
    with pytest.raises(RequestError, match=r"pets.nshot belongs to openai/clip .* in use is laion/clip"):
        saved.check_model("b" * 64, "laion/clip", name="pets.nshot")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.nshot"
    save(path, CLASSIFIER, model="old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save(path, CLASSIFIER, model="new")
    assert load(path).model == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        save(tmp_path / "no" / "c", CLASSIFIER, model="m")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_what_is_not_a_classifier_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.nshot"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"odd\.nshot is not a classifier"):
        load(path)


def test_other_safetensors_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "model.safetensors"
    save_file({"matrix": np.zeros((2, 2), np.float32)}, str(path))
    with pytest.raises(RequestError, match="not a classifier that this version"):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"there is no classifier file .*gone"):
        load(tmp_path / "gone")


def test_loading_and_classifying_needs_no_scikit_learn(tmp_path: Path) -> None:
    path = tmp_path / "c.nshot"
    save(path, CLASSIFIER, model="m")
    check = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from nshot.classifier.file import load\n"
        f"print(load({str(path)!r}).classifier.predict([[0, 1]])[0].label)"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", check], capture_output=True, encoding="utf-8", check=False
    )
    assert done.stdout.strip() == "犬", done.stderr
