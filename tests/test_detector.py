"""A detector that takes words: boxes, found once and asked anything. Parity is in tests/parity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import OWLV2, tiny_owlv2
from PIL import Image

import nshot
from nshot.cli import run
from nshot.errors import DeviceError, RequestError, UnsupportedArchitecture
from nshot.regions.padded import Padded
from nshot.regions.suppress import overlaps, suppressed
from nshot.regions.thresholds import Threshold, Thresholds, read_thresholds
from nshot.types import Box, Located

LABELS = ["a cat", "a dog", "a bus"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_owlv2(tmp_path_factory.mktemp("owlv2") / "model")


@pytest.fixture(scope="module")
def detector(folder: Path) -> nshot.Detector:
    return nshot.load_detector(folder, precision="f32")


def all_of(found: Any) -> list[Located]:
    answers = list(found)
    assert all(isinstance(answer, Located) for answer in answers)
    return answers


def test_each_box_has_one_label_and_lies_in_the_image(detector: nshot.Detector, photos: Path) -> None:
    for answer in all_of(detector.locate(photos, LABELS, threshold=0.0)):
        assert 0 < len(answer.boxes) <= 16
        assert [box.score for box in answer.boxes] == sorted((b.score for b in answer.boxes), reverse=True)
        for box in answer.boxes:
            x, y, width, height = box.box
            assert box.label in LABELS
            assert min(x, y) >= 0
            assert min(width, height) > 0
            assert x + width <= answer.size[0] + 1e-6
            assert y + height <= answer.size[1] + 1e-6


def test_a_question_does_not_change_another_s_answer(detector: nshot.Detector) -> None:
    image = Image.effect_noise((90, 60), 80).convert("RGB")
    found, size = detector.detect(image)
    assert size == (90, 60)
    assert found.boxes.shape == (1, 16, 4)
    queries = detector.embed_texts(LABELS)
    np.testing.assert_allclose(found.logits(queries)[..., :1], found.logits(queries[:1]), atol=1e-5)


def test_a_second_question_finds_nothing_anew_and_the_same_answer_is_the_same(
    folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = all_of(nshot.load_detector(folder).locate(photos, LABELS, threshold=0.0))
    first = all_of(nshot.load_detector(folder, store=tmp_path / "s").locate(photos, LABELS, threshold=0.0))

    def refuse(*_: object) -> None:
        raise AssertionError("encoded or decoded again")

    again = nshot.load_detector(folder, store=tmp_path / "s")
    monkeypatch.setattr(again.encoder, "detect", refuse)
    monkeypatch.setattr(Padded, "__call__", refuse)
    second = all_of(again.locate(photos, LABELS, threshold=0.0))
    assert plain == first == second
    assert len(all_of(again.locate(photos, ["a red bird"], threshold=0.0))) == 12


def test_regions_of_any_size_are_kept_and_a_part_that_is_lost_is_known(tmp_path: Path) -> None:
    import sqlite3

    from nshot.store.store import Store

    with Store(tmp_path / "s.sqlite") as store:
        for size in (0, 1, 2**19, 2**19 + 1, 5_000_000):
            content = np.random.default_rng(size).bytes(size)
            store.put_regions(b"%032d" % size, content, "recipe")
            assert store.regions(b"%032d" % size, "recipe") == content
        assert store.regions(b"x" * 32, "recipe") is None
        assert store.regions(b"%032d" % 1, "another") is None
    with sqlite3.connect(tmp_path / "s.sqlite") as connection:
        key = b"%032d" % 5_000_000 + (3).to_bytes(4, "little")
        assert connection.execute("DELETE FROM vectors WHERE key = ?", (key,)).rowcount == 1
    connection.close()
    with Store(tmp_path / "s.sqlite") as store:
        assert store.regions(b"%032d" % 5_000_000, "recipe") is None


def test_boxes_that_overlap_are_told_once_where_that_is_wanted(detector: nshot.Detector) -> None:
    image = Image.effect_noise((90, 60), 80).convert("RGB")
    (everything,) = all_of(detector.locate(image, LABELS, threshold=0.0))
    (few,) = all_of(detector.locate(image, LABELS, threshold=0.0, nms=0.2))
    assert len(few.boxes) < len(everything.boxes)
    for label in LABELS:
        own = np.array([box.box for box in few.boxes if box.label == label]).reshape(-1, 4)
        corners = np.concatenate([own[:, :2], own[:, :2] + own[:, 2:]], axis=1)
        assert np.triu(overlaps(corners, corners), 1).max(initial=0) <= 0.2 + 1e-9


def test_overlap_is_intersection_over_union() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 0, 0]], float)
    np.testing.assert_allclose(overlaps(boxes[:1], boxes)[0], [1, 1 / 3, 0, 0])
    assert suppressed(boxes, np.array([0.5, 0.9, 0.1, 0.2]), 0.3).tolist() == [1, 3, 2]


def test_an_example_image_finds_what_it_shows(detector: nshot.Detector) -> None:
    example = Image.effect_noise((64, 64), 90).convert("RGB")
    (answer,) = all_of(detector.locate_like(example, {"it": example}, threshold=0.0, nms=None))
    found, _ = detector.detect(example)
    best = int(found.objectness[0].argmax())
    queries = found.classes[:, best]
    top = int(found.logits(queries)[0, :, 0].argmax())
    middle = found.boxes[0, top, :2] * 64
    x, y, width, height = answer.boxes[0].box
    assert x - 1 <= min(max(middle[0], 0), 64) <= x + width + 1
    assert y - 1 <= min(max(middle[1], 0), 64) <= y + height + 1
    with pytest.raises(RequestError, match="an example image at least"):
        detector.locate_like(example, {})
    with pytest.raises(RequestError, match="the example of it cannot be used"):
        detector.locate_like(example, {"it": b"nothing"})


@pytest.mark.parametrize("size", [(640, 480), (97, 131), (1, 1), (31, 900), (300, 300)])
def test_the_square_is_padded_below_and_on_the_right_with_black(size: tuple[int, int]) -> None:
    square = Padded(64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).normalised(Image.new("RGB", size, "white"))
    width, height = (round(edge * 64 / max(size)) for edge in size)
    assert square.shape == (3, 64, 64)
    assert (square[:, : height - 2, : width - 2] > 0.99).all()
    assert (square[:, height + 2 :] < 0.01).all()
    assert (square[:, :, width + 2 :] < 0.01).all()


def test_a_detector_is_no_model_and_a_model_no_detector(folder: Path, tiny: Path) -> None:
    with pytest.raises(UnsupportedArchitecture, match="nshot locate"):
        nshot.load(folder)
    with pytest.raises(UnsupportedArchitecture, match="--method tiles"):
        nshot.load_detector(tiny)


def test_a_detector_in_f32_small_holds_its_weights_in_8_bits_and_finds_nearly_the_same(
    folder: Path, detector: nshot.Detector
) -> None:
    small = nshot.load_detector(folder, precision="f32-small")
    image = Image.new("RGB", (40, 30), "red")
    (one, _), (other, _) = detector.detect(image), small.detect(image)
    assert np.abs(one.boxes - other.boxes).max() < 0.02
    assert not np.array_equal(one.boxes, other.boxes)  # as they were where its weights stayed in f32
    with pytest.raises(DeviceError, match="a detector takes auto, f32, bf16 or f32-small"):
        nshot.load_detector(folder, precision="int8")


def test_a_bad_request_is_told_before_any_image_is_read(detector: nshot.Detector) -> None:
    for options, message in (({"threshold": 1.5}, "threshold"), ({"nms": -1.0}, "nms")):
        with pytest.raises(RequestError, match=message):
            detector.locate("nowhere.png", LABELS, **options)  # type: ignore[arg-type]


def test_torch_and_openvino_agree(folder: Path, detector: nshot.Detector) -> None:
    pytest.importorskip("torch", reason="the [torch] extra is not installed")
    pytest.importorskip("transformers", reason="the [torch] extra is not installed")
    image = Image.effect_noise((90, 60), 80).convert("RGB")
    other, _ = nshot.load_detector(folder, runtime="torch", device="cpu").detect(image)
    found, _ = detector.detect(image)
    for name in ("boxes", "objectness", "classes", "shift", "scale"):
        np.testing.assert_allclose(getattr(found, name), getattr(other, name), atol=1e-5)


# --- thresholds -------------------------------------------------------------------------------------------


def test_thresholds_per_label_decide_and_absence_says_how_often_it_is_wrong(tmp_path: Path) -> None:
    learnt = Thresholds({"cat": Threshold(0.5, 0.1), "dog": Threshold(0.2, 0.3)})
    (tmp_path / "t.json").write_text(learnt.to_json())
    read = read_thresholds(tmp_path / "t.json")
    assert read == learnt
    assert read.least(0.4) == 0.2
    boxes = tuple(
        Box(label, score, (0, 0, 1, 1)) for label, score in (("cat", 0.4), ("dog", 0.3), ("bus", 0.1))
    )
    (decided,) = read.decided([Located("a", boxes, (5, 5))], ["cat", "dog", "bus"])
    assert isinstance(decided, Located)
    assert [box.label for box in decided.boxes] == ["dog", "bus"]
    assert decided.absent == {"cat": 0.1}
    assert decided.to_dict()["absent"] == {"cat": 0.1}


def test_a_file_without_thresholds_is_refused(tmp_path: Path) -> None:
    for content in ("{}", "[]", '{"thresholds": {"cat": 3}}', "nothing"):
        (tmp_path / "t.json").write_text(content)
        with pytest.raises(RequestError, match="does not hold thresholds"):
            read_thresholds(tmp_path / "t.json")
    with pytest.raises(RequestError, match="cannot be read"):
        read_thresholds(tmp_path / "none.json")


# --- the command line -------------------------------------------------------------------------------------


def test_locate_knows_a_detector_by_itself(folder: Path, photos: Path, tmp_path: Path) -> None:
    ask = ["locate", str(photos), "--model", str(folder), "-q", "--threshold", "0", "-o"]
    assert run([*ask, str(tmp_path / "a.jsonl"), "--labels", "a cat, a dog"]) == 0
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert len(records) == 12
    assert {box["label"] for record in records for box in record["boxes"]} <= {"a cat", "a dog"}
    assert run([*ask, str(tmp_path / "b.json"), "--like", str(photos / "01.png")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["categories"][0]["name"] == "like"


def test_what_does_not_go_together_is_refused(
    folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(folder), "-q"]
    image = str(photos / "01.png")
    for more, message in (
        ([*model, "--labels", "a cat", "--like", image], "not both"),
        ([*model, "--like", image, "--like", image], "different names"),
        ([*model], "give the labels"),
        ([*model, "--labels", "a cat", "--compile"], "not for a detector"),
        ([*model, "--labels", "a cat", "--processes"], "not for a detector"),
        (["--model", "sketchbook", "-q", "--labels", "red star", "--nms", "0.5"], "are for detectors"),
        (["--model", "sketchbook", "-q", "--labels", "a", "--method", "boxes"], "finds no boxes of its own"),
    ):
        assert run(["locate", str(photos), *more]) == 2
        assert message in capsys.readouterr().err


def test_another_size_of_square_is_read(tmp_path: Path) -> None:
    config = OWLV2 | {"vision_config": OWLV2["vision_config"] | {"image_size": 96}}
    larger = nshot.load_detector(tiny_owlv2(tmp_path / "m", config=config))
    found, _ = larger.detect(Image.new("RGB", (50, 40), "red"))
    assert found.boxes.shape == (1, 36, 4)
