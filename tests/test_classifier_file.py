from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nshot
from nshot.classifier import file
from nshot.classifier.classifier import Classifier
from nshot.decision import Calibration, Decision, Rejection
from nshot.decision.conformal import Conformal
from nshot.decision.decision import Surest
from nshot.decision.several import Several
from nshot.errors import OutputError, RequestError
from nshot.types import Recipe

CLASSIFIER = Classifier(
    ["katze", "犬"], [[1.0, 0.2], [0.0, 1.0]], scale=[90.0, 110.0], bias=[0.5, -1.0], space="a" * 64
)


def test_a_classifier_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "pets.nshot"
    decision = Decision(Calibration(1.5), Rejection("margin", 0.02))
    told = CLASSIFIER.with_provenance(model="openai/clip", made={"method": "pulled"}, examples=[b"1" * 32])
    told.with_decision(decision).save(path)
    saved = nshot.open(path)
    assert isinstance(saved, Classifier)
    vectors = np.random.default_rng(0).normal(size=(5, 2))
    assert np.array_equal(saved.logits(vectors), CLASSIFIER.logits(vectors))
    assert saved.labels == ("katze", "犬")
    assert saved.space == "a" * 64
    assert (saved.model, saved.made) == ("openai/clip", {"method": "pulled"})
    assert saved.examples == {b"1" * 32}
    assert saved.decision is not None
    assert saved.decision.to_dict() == decision.to_dict()


def test_the_same_classifier_is_the_same_bytes(tmp_path: Path) -> None:
    told = CLASSIFIER.with_provenance(model="openai/clip", made={"method": "pulled"}, examples=[b"1" * 32])
    for number in range(8):  # what is told stood in another order each time
        told.save(tmp_path / f"{number}.nshot")
    assert len({(tmp_path / f"{number}.nshot").read_bytes() for number in range(8)}) == 1


def test_without_a_decision_there_is_none(tmp_path: Path) -> None:
    CLASSIFIER.save(tmp_path / "c")
    assert Classifier.open(tmp_path / "c").decision is None


def test_a_file_of_before_the_rename_is_read(tmp_path: Path) -> None:
    told = {"labels": ["a", "b"], "activation": "softmax", "fingerprint": "f" * 64, "model": "m"}
    arrays = {"matrix": np.eye(2), "scale": np.ones(2), "bias": np.zeros(2)}
    file.write(tmp_path / "c", arrays, told | {"decision": None, "recipe": {"method": "probe"}})
    saved = Classifier.open(tmp_path / "c")
    assert (saved.space, saved.made) == ("f" * 64, {"method": "probe"})


def test_another_model_is_refused_and_both_are_named() -> None:
    told = CLASSIFIER.with_provenance(model="openai/clip")
    told.check_space(Recipe("", "", "a" * 64), "anything")
    told.check_space(None, "unknown")
    with pytest.raises(RequestError, match=r"pets.nshot belongs to openai/clip .* are of laion/clip"):
        told.check_space(Recipe("", "", "b" * 64), "laion/clip", name="pets.nshot")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.nshot"
    CLASSIFIER.with_provenance(model="old").save(path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        CLASSIFIER.with_provenance(model="new").save(path)
    assert Classifier.open(path).model == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        CLASSIFIER.save(tmp_path / "no" / "c")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_what_is_not_a_classifier_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.nshot"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"odd\.nshot is not a classifier"):
        Classifier.open(path)


def test_other_safetensors_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "model.safetensors"
    save_file({"matrix": np.zeros((2, 2), np.float32)}, str(path))
    with pytest.raises(RequestError, match="not a classifier that this version"):
        Classifier.open(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"there is no classifier file .*gone"):
        Classifier.open(tmp_path / "gone")


def test_loading_and_classifying_needs_no_scikit_learn(tmp_path: Path) -> None:
    path = tmp_path / "c.nshot"
    CLASSIFIER.save(path)
    check = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from nshot.classifier.classifier import Classifier\n"
        f"print(Classifier.open({str(path)!r}).predict([[0, 1]])[0].label)"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", check], capture_output=True, encoding="utf-8", check=False
    )
    assert done.stdout.strip() == "犬", done.stderr


def _damaged(**changes: object) -> Callable[[dict[str, Any]], None]:
    def change(decision: dict[str, Any]) -> None:
        for place, value in changes.items():
            part, name = place.split("_")
            decision[part][name] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _damaged(calibration_temperature=1e-300),
        _damaged(calibration_bias=10**400),
        _damaged(surest_threshold="0.5"),
        _damaged(surest_risk=None),
        _damaged(sets_scores=[0.2, [0.1]]),
        _damaged(sets_scores=[0.2, 0.1]),
        _damaged(sets_labels=[0, 10**9]),  # a table of as many places was made
        _damaged(sets_labels=[0, -1]),
        _damaged(sets_seed=2**70),
        _damaged(rejection_threshold=math.nan),
        _damaged(rejection_rule="margin"),
        _damaged(rejection_background={"rows": 1, "float32": base64.b64encode(bytes(16)).decode()}),
    ],
)
def test_a_decision_that_is_damaged_is_refused_when_the_file_is_opened(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    sets = Conformal((0.1, 0.2), (0, 1))
    rule = Rejection("background", 0.1, np.eye(2, 8, dtype=np.float32))
    decision = Decision(Calibration(2.0), rule, Surest(0.9, 0.4, 0.05), sets, coverage=0.9)
    changed(tmp_path, decision, change)


@pytest.mark.parametrize(
    "change",
    [
        _damaged(several_thresholds=[0.1]),
        _damaged(several_thresholds=[0.1, math.nan]),
        _damaged(several_positives=[30]),
        _damaged(several_rivals={"rows": 1, "float32": base64.b64encode(bytes(32)).decode()}),
        _damaged(several_rivals={"rows": 2, "float32": base64.b64encode(bytes(32)).decode()}),
        _damaged(several_least="x"),
    ],
)
def test_thresholds_of_several_labels_that_are_damaged_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    several = Several(np.array([0.1, 0.2]), np.array([30, 40]), 20, np.ones((3, 8), np.float32))
    changed(tmp_path, Decision(several=several), change)


def changed(folder: Path, decision: Decision, change: Callable[[dict[str, Any]], None]) -> None:
    """A classifier with this decision opens and answers; with the change it is refused by its file's name."""
    path = folder / "x.nshot"
    whole = Classifier(["a", "b"], np.eye(2, 8), scale=100.0, decision=decision)
    whole.save(path)
    assert len(list(Classifier.open(path).predict(np.eye(2, 8)))) == 2
    arrays = {name: getattr(whole, name) for name in file.ARRAYS}
    told = json.loads(json.dumps(whole.told()))
    change(told["decision"])
    file.write(path, arrays, told)
    with pytest.raises(RequestError, match=r"x\.nshot"):
        Classifier.open(path)


@pytest.mark.parametrize(
    "made",
    [
        [],
        {"templates": 5},
        {"templates": ["a {}", 5]},
        {"background": {"cat": 1}},
        {"calibrate": ["reject"]},
        {"calibrate": {"coverage": "0.9"}},
        {"calibrate": {"other": 1}},
        {"asked": {"labels": ["cat"], "templates": []}},
        {"asked": {"labels": {}}},
    ],
)
def test_how_a_classifier_was_made_is_read_as_later_commands_need_it(tmp_path: Path, made: object) -> None:
    path = tmp_path / "x.nshot"
    whole = Classifier(["a", "b"], np.eye(2, 8), scale=100.0)
    file.write(path, {name: getattr(whole, name) for name in file.ARRAYS}, whole.told() | {"made": made})
    with pytest.raises(RequestError, match=r"x\.nshot.*how it was made"):
        Classifier.open(path)
