"""How good boxes are: average precision as pycocotools has it, thresholds, the report."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nshot.cli import run
from nshot.errors import RequestError
from nshot.evaluation.boxes import (
    BoxedImage,
    TrueBox,
    average_precision,
    evaluate_boxes,
    judged,
    read_boxes,
)
from nshot.types import Box

pytest.importorskip("pycocotools", reason="the [eval] extra is not installed")

LABELS = ["cat", "dog", "bus"]


def boxed(true: list[tuple[Any, ...]], found: list[tuple[Any, ...]] | None, number: int = 0) -> BoxedImage:
    known = tuple(TrueBox(label, box, bool(crowd)) for label, box, *crowd in true)
    boxes = None if found is None else tuple(Box(*each) for each in found)
    return BoxedImage(f"{number}.png", Path(f"{number}.png"), (100, 100), known, boxes)


def crafted() -> dict[str, list[BoxedImage]]:
    """Twenty cases: the plain ones by hand, the others at random."""
    a, b, far = (10, 10, 20, 20), (50, 50, 20, 20), (70, 5, 20, 20)
    near = (12, 11, 20, 20)
    cases = {
        "right": [boxed([("cat", a)], [("cat", 0.9, a)])],
        "nearly right": [boxed([("cat", a)], [("cat", 0.9, near)])],
        "another place": [boxed([("cat", a)], [("cat", 0.9, far)])],
        "another label": [boxed([("cat", a)], [("dog", 0.9, a)])],
        "nothing found": [boxed([("cat", a)], [])],
        "no answer": [boxed([("cat", a)], None), boxed([("dog", a)], [("dog", 0.5, a)], 1)],
        "nothing there": [boxed([], [("cat", 0.9, a)]), boxed([("cat", b)], [("cat", 0.3, b)], 1)],
        "found twice": [boxed([("cat", a)], [("cat", 0.9, a), ("cat", 0.8, near)])],
        "the better one is worse placed": [boxed([("cat", a)], [("cat", 0.8, a), ("cat", 0.9, near)])],
        "two of a kind": [boxed([("cat", a), ("cat", b)], [("cat", 0.9, b), ("cat", 0.4, a)])],
        "a crowd": [boxed([("cat", a, True), ("cat", b)], [("cat", 0.9, a), ("cat", 0.8, b)])],
        "equal scores": [
            boxed([("cat", a)], [("cat", 0.5, a), ("cat", 0.5, far)]),
            boxed([("cat", b)], [("cat", 0.5, b), ("dog", 0.5, b)], 1),
        ],
        "a label that nobody asked": [boxed([("cat", a)], [("cat", 0.9, a), ("cow", 0.9, a)])],
    }
    rng = np.random.default_rng(0)
    for number in range(7):
        images = []
        for image in range(12):
            true = [
                (
                    LABELS[rng.integers(3)],
                    (*rng.integers(0, 70, 2).tolist(), *rng.integers(5, 30, 2).tolist()),
                )
                for _ in range(rng.integers(0, 6))
            ]
            found = [
                (label, float(rng.random()), tuple(float(e + rng.normal(0, 1 + number)) for e in box))
                for label, box in true
                if rng.random() < 0.8
            ]
            found = [(label, s, (x, y, max(w, 1.0), max(h, 1.0))) for label, s, (x, y, w, h) in found]
            found += [
                (
                    LABELS[rng.integers(3)],
                    float(rng.random()),
                    (*rng.uniform(0, 70, 2), *rng.uniform(5, 30, 2)),
                )
                for _ in range(rng.integers(0, 4))
            ]
            images.append(boxed(true, found, image))
        cases[f"at random {number}"] = images
    return cases


CASES = crafted()


def reference(images: list[BoxedImage]) -> list[tuple[float, float]]:
    """AP50 and AP of each label, asked of pycocotools through files, as anybody would."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        for each in image.true:
            x, y, w, h = each.box
            told = {"id": len(annotations) + 1, "image_id": number, "category_id": LABELS.index(each.label)}
            annotations.append({**told, "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(each.crowd)})
        for box in image.found or ():
            if box.label in LABELS:
                told = {"image_id": number, "category_id": LABELS.index(box.label)}
                results.append({**told, "score": box.score, "bbox": list(box.box)})
    figures = []
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number, "width": 100, "height": 100} for number in range(len(images))],
            "categories": [{"id": k, "name": label} for k, label in enumerate(LABELS)],
            "annotations": annotations,
        }
        truth.createIndex()
        for k in range(len(LABELS)):
            one = COCOeval(truth, truth.loadRes(results), "bbox")
            one.params.catIds = [k]
            one.evaluate()
            one.accumulate()
            one.summarize()
            figures.append((one.stats[1], one.stats[0]))
    return figures


def test_there_are_twenty_cases() -> None:
    assert len(CASES) == 20


@pytest.mark.parametrize("case", CASES)
def test_average_precision_is_that_of_pycocotools(case: str) -> None:
    images = CASES[case]
    found = average_precision(images, LABELS)
    if not any(image.found for image in images):
        assert found["cat"][1:] == (0, 0)
        assert math.isnan(found["dog"].ap)
        return
    for label, (ap50, ap) in zip(LABELS, reference(images), strict=True):
        assert np.nan_to_num(found[label].ap50, nan=-1) == pytest.approx(ap50, abs=1e-12)
        assert np.nan_to_num(found[label].ap, nan=-1) == pytest.approx(ap, abs=1e-12)


def test_each_box_is_right_false_or_missed() -> None:
    def verdicts(case: str) -> list[str]:
        return [verdict for verdict, *_ in judged(CASES[case][0])]

    assert verdicts("right") == ["right"]
    assert verdicts("another place") == ["false", "missed"]
    assert verdicts("another label") == ["false", "missed"]
    assert verdicts("found twice") == ["right", "false"]
    assert verdicts("a crowd") == ["right"], "what lies on a crowd is neither"


def test_thresholds_are_learnt_and_say_how_often_absence_is_wrong() -> None:
    images = []
    for number in range(40):
        there = number % 2 == 0
        seen = there and number % 8 != 0  # a quarter of the cats is not found
        found = [("cat", 0.2 + 0.001 * number, (70, 70, 9, 9))]
        found += [("cat", 0.7 + 0.001 * number, (10, 10, 20, 20))] if seen else []
        images.append(boxed([("cat", (10, 10, 20, 20))] if there else [], found, number))
    learnt = evaluate_boxes(images, ["cat"]).thresholds.of["cat"]
    assert 0.3 < learnt.score <= 0.71
    assert learnt.missed == pytest.approx(0.25, abs=0.06)


# --- the command line -------------------------------------------------------------------------------------


def written(folder: Path, *, found: str = "boxes.jsonl") -> tuple[Path, Path]:
    images, annotations, records = [], [], []
    for number in range(6):
        Image.new("RGB", (100, 80), (40 * number, 90, 90)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 100, "height": 80})
        annotations.append({"id": number, "image_id": number, "category_id": 7, "bbox": [10, 10, 30, 20]})
        box = [10, 10, 30, 20] if number % 2 else [60, 50, 10, 10]
        told = {"label": "cat", "score": 0.5 + number / 100, "box": box}
        records.append({"source": f"some/where/{number}.png", "width": 100, "height": 80, "boxes": [told]})
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "cat"}]}
    (folder / "annotations.json").write_text(json.dumps(truth))
    (folder / found).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / "annotations.json", folder / found


def test_evaluate_measures_boxes_and_writes_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, found = written(tmp_path)
    report = tmp_path / "report"
    assert run(["evaluate", str(truth), "--boxes", str(found), "-o", str(report)]) == 0
    assert "AP50" in capsys.readouterr().out
    told = json.loads((report / "report.json").read_text())
    assert told["labels"]["cat"]["boxes"] == 6
    assert 0 < told["ap50"] < 1
    page = (report / "index.html").read_text()
    assert page.count("data:image/jpeg") == 6
    assert "1 missed" in page
    thresholds = json.loads((report / "thresholds.json").read_text())["thresholds"]
    assert thresholds.keys() == {"cat"}


def test_an_image_without_an_answer_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, found = written(tmp_path)
    found.write_text("\n".join(found.read_text().splitlines()[:4]) + "\n")
    assert run(["evaluate", str(truth), "--boxes", str(found)]) == 1
    assert "2 of 6 images have no answer" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"categories": [], "images": [], "annotations": []}'])
def test_what_holds_no_boxes_is_refused(content: str, tmp_path: Path) -> None:
    truth, found = written(tmp_path)
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(RequestError):
        read_boxes(tmp_path / "other.json", found)
    with pytest.raises(RequestError):
        read_boxes(truth, tmp_path / "other.json")
