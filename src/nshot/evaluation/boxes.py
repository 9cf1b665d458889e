"""How good boxes are: average precision by the reference's own code, and a threshold per label.

annotations.json (COCO) + what nshot locate wrote -> AP50, AP50:95, thresholds, what is missed or false
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from nshot.bounded import parsed, read_json
from nshot.errors import NONSENSE, RequestError, brief
from nshot.extras import pycocotools
from nshot.regions.suppress import overlaps
from nshot.regions.thresholds import Threshold, Thresholds
from nshot.types import Box

_MOST = 2**30  # bytes of memory that annotations may take while they are read
_LONGEST = 2**24  # characters of a line

Place: TypeAlias = "tuple[float, float, float, float]"
Verdict: TypeAlias = Literal["right", "false", "missed"]

OVERLAP = 0.5
"""Intersection over union from which a box is right."""

_FOLDS = 5


class TrueBox(NamedTuple):
    """A known box: its label; x, y, width and height in pixels; a crowd is neither right nor missed."""

    label: str
    box: Place
    crowd: bool


@dataclass(frozen=True, slots=True)
class BoxedImage:
    """An image whose boxes are known, and those that were found.

    Attributes:
        file: its name in the annotations.
        path: where it is, relative to the annotations.
        size: width and height, in pixels.
        true: what is there.
        found: what was found; None: it was not asked, or failed.
    """

    file: str
    path: Path
    size: tuple[int, int]
    true: tuple[TrueBox, ...]
    found: tuple[Box, ...] | None


class LabelFigures(NamedTuple):
    """One label's figures: AP in [0, 1], nan where no image shows the label."""

    boxes: int
    ap50: float
    ap: float


@dataclass(frozen=True, slots=True, eq=False)
class BoxEvaluation:
    """What was measured.

    Attributes:
        images: every image of the annotations.
        labels: of the annotations, in their order.
        figures: by label.
        thresholds: the score at which each label's F1 is best, and how often "absent" is wrong then: of
            images that show the label, the share without a box of it over the threshold that the other images
            gave (five folds).
    """

    images: tuple[BoxedImage, ...]
    labels: tuple[str, ...]
    figures: Mapping[str, LabelFigures]
    thresholds: Thresholds

    @property
    def ap50(self) -> float:
        """The mean of the labels' average precision at an overlap of a half."""
        return _mean([each.ap50 for each in self.figures.values()])

    @property
    def ap(self) -> float:
        """The mean of the labels' average precision over overlaps of 0.50, 0.55 ... 0.95: COCO's AP."""
        return _mean([each.ap for each in self.figures.values()])

    def to_dict(self) -> dict[str, Any]:
        """Every number, ready for JSON; what is not a number is null."""
        labels = {}
        for name, each in self.figures.items():
            learnt = self.thresholds.of.get(name)
            labels[name] = {
                "boxes": each.boxes,
                "ap50": _number(each.ap50),
                "ap": _number(each.ap),
                "threshold": None if learnt is None else learnt.score,
                "missed": None if learnt is None else _number(learnt.missed),
            }
        asked = sum(image.found is not None for image in self.images)
        return {
            "images": len(self.images),
            "answered": asked,
            "ap50": _number(self.ap50),
            "ap": _number(self.ap),
            "labels": labels,
        }


def read_boxes(annotations: Path, found: Path) -> tuple[list[BoxedImage], list[str]]:
    """Annotations, with what was found in their images.

    An image's name in what was found may have more folders before it than in the annotations.

    Args:
        annotations: COCO's JSON; images stand beside it.
        found: what nshot locate wrote, JSONL or COCO.

    Returns:
        The images, and all labels of the annotations.

    Raises:
        RequestError: a file that cannot be read, or holds something else; or no image in common.
    """
    try:
        told = read_json(annotations, _MOST)
        names = {each["id"]: str(each["name"]) for each in told["categories"]}
        true: dict[Any, list[TrueBox]] = {image["id"]: [] for image in told["images"]}
        for each in told["annotations"]:
            x, y, width, height = map(float, each["bbox"])
            box = TrueBox(names[each["category_id"]], (x, y, width, height), bool(each.get("iscrowd")))
            true[each["image_id"]].append(box)
        images = {image["id"]: image for image in told["images"]}
        sizes = {key: (int(image["width"]), int(image["height"])) for key, image in images.items()}
        files = {key: str(image["file_name"]) for key, image in images.items()}
    except OSError as error:
        raise RequestError(f"{annotations} cannot be read: {error.strerror or error}") from error
    except NONSENSE as error:
        raise RequestError(
            f"{annotations} does not hold boxes: COCO's JSON has images, categories and annotations with "
            f"bbox ({type(error).__name__}: {brief(error)})"
        ) from error
    answers = _answers(found)
    by_end: dict[str, list[str]] = {}
    for source in answers:
        by_end.setdefault(PurePosixPath(source.replace("\\", "/")).name, []).append(source)
    result = []
    for key, file in files.items():
        parts = PurePosixPath(file.replace("\\", "/")).parts
        near = [
            source
            for source in by_end.get(parts[-1] if parts else "", ())
            if PurePosixPath(source.replace("\\", "/")).parts[-len(parts) :] == parts
        ]
        if len(near) > 1:
            raise RequestError(f"{file} may be {near[0]} or {near[1]}: give images of one folder")
        boxes = answers[near[0]] if near else None
        result.append(BoxedImage(file, annotations.parent / file, sizes[key], tuple(true[key]), boxes))
    if not any(image.found is not None for image in result):
        raise RequestError(f"no image of {annotations} is in {found}: were others asked?")
    return result, list(dict.fromkeys(names.values()))


def _answers(path: Path) -> dict[str, tuple[Box, ...] | None]:
    """What nshot locate wrote: an image's name -> its boxes, or None where it failed."""
    try:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            found: dict[str, tuple[Box, ...] | None] = {}
            with path.open(encoding="utf-8") as file:
                while line := file.readline(_LONGEST):
                    if line.strip():
                        record = parsed(line)
                        boxes_of = None if "error" in record else tuple(map(_box, record["boxes"]))
                        found[str(record["source"])] = boxes_of
            return found
        told = read_json(path, _MOST)
        names = {each["id"]: each["name"] for each in told["categories"]}
        files = {image["id"]: str(image["file_name"]) for image in told["images"]}
        boxes: dict[str, list[Box]] = {file: [] for file in files.values()}
        for each in told["annotations"]:
            box = {"label": names[each["category_id"]], "score": each["score"], "box": each["bbox"]}
            boxes[files[each["image_id"]]].append(_box(box))
        return {file: tuple(each) for file, each in boxes.items()}
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}") from error
    except NONSENSE as error:
        raise RequestError(
            f"{path} does not hold boxes that nshot locate wrote, as .jsonl or as COCO's .json "
            f"({type(error).__name__}: {brief(error)})"
        ) from error


def _box(told: Mapping[str, Any]) -> Box:
    x, y, width, height = map(float, told["box"])
    return Box(str(told["label"]), float(told["score"]), (x, y, width, height))


def evaluate_boxes(images: Sequence[BoxedImage], labels: Sequence[str]) -> BoxEvaluation:
    """Measure boxes. An image that has no answer counts as one in which nothing was found.

    Args:
        images: what is there, and what was found; boxes of other labels are left out.
        labels: what is measured.

    Raises:
        MissingExtra: pycocotools is not installed.
    """
    figures = average_precision(images, labels)
    thresholds = {}
    for label in labels:
        learnt = _threshold(images, label)
        if learnt is not None:
            thresholds[label] = learnt
    return BoxEvaluation(tuple(images), tuple(labels), figures, Thresholds(thresholds))


def average_precision(images: Sequence[BoxedImage], labels: Sequence[str]) -> dict[str, LabelFigures]:
    """AP50 and AP50:95 of each label, by pycocotools: its 101 recalls, at most 100 boxes per image.

    Raises:
        MissingExtra: pycocotools is not installed.
    """
    coco = pycocotools()
    place = {label: number for number, label in enumerate(labels, 1)}
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        for each in image.true:
            if each.label in place:
                _, _, width, height = each.box
                told: dict[str, Any] = {"id": len(annotations) + 1, "image_id": number}
                told["category_id"] = place[each.label]
                told |= {"bbox": list(each.box), "area": width * height, "iscrowd": int(each.crowd)}
                annotations.append(told)
        for found in image.found or ():
            if found.label in place:
                told = {"image_id": number, "category_id": place[found.label]}
                results.append(told | {"bbox": list(found.box), "score": found.score})
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        truth = coco.coco.COCO()
        truth.dataset = {
            "info": {},
            "images": [
                {"id": number, "width": image.size[0], "height": image.size[1]}
                for number, image in enumerate(images, 1)
            ],
            "categories": [{"id": number, "name": label} for label, number in place.items()],
            "annotations": annotations,
        }
        truth.createIndex()
        if results:
            measured = coco.cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
            measured.evaluate()
            measured.accumulate()
            precision = measured.eval["precision"][:, :, :, 0, -1]  # overlaps, recalls, labels
        else:
            shown = {each.label for image in images for each in image.true if not each.crowd}
            precision = np.zeros((10, 101, len(labels)))
            precision[:, :, [label not in shown for label in labels]] = -1
    boxes = dict.fromkeys(labels, 0)
    for image in images:
        for each in image.true:
            boxes[each.label] = boxes.get(each.label, 0) + (not each.crowd)
    return {
        label: LabelFigures(boxes[label], _over(precision[0, :, k]), _over(precision[:, :, k]))
        for k, label in enumerate(labels)
    }


def _over(precision: Any) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else math.nan


def judged(
    image: BoxedImage, thresholds: Thresholds | None = None
) -> list[tuple[Verdict, str, Place, float]]:
    """Every box of an image: found and right, found and false, or missed; best scores first.

    A box is right if it overlaps one of its label by a half, that no better one took. What lies on a crowd is
    neither.

    Args:
        image: the image.
        thresholds: boxes below their label's are not there.
    """
    said: list[tuple[Verdict, str, Place, float]] = []
    least = {} if thresholds is None else thresholds.of
    kept = [box for box in image.found or () if box.label not in least or box.score >= least[box.label].score]
    taken: set[int] = set()
    for box in sorted(kept, key=lambda each: -each.score):
        own = [k for k, each in enumerate(image.true) if each.label == box.label]
        shared = overlaps(_corners([box.box]), _corners([image.true[k].box for k in own]))[0]
        free = [
            (over, k)
            for over, k in zip(shared, own, strict=True)
            if k not in taken and not image.true[k].crowd
        ]
        over, best = max(free, default=(0.0, -1))
        if over >= OVERLAP:
            taken.add(best)
            said.append(("right", box.label, box.box, box.score))
        elif not any(image.true[k].crowd and over >= OVERLAP for over, k in zip(shared, own, strict=True)):
            said.append(("false", box.label, box.box, box.score))
    said += [
        ("missed", each.label, each.box, math.nan)
        for k, each in enumerate(image.true)
        if k not in taken and not each.crowd
    ]
    return said


def _corners(boxes: Sequence[Place]) -> Any:
    array = np.array(boxes, float).reshape(-1, 4)
    return np.concatenate([array[:, :2], array[:, :2] + array[:, 2:]], axis=1)


def _threshold(images: Sequence[BoxedImage], label: str) -> Threshold | None:
    """The best threshold on all images; and, by thresholds of the others, how often "absent" is wrong."""
    own = [image for image in images if any(t.label == label and not t.crowd for t in image.true)]
    score = _best_score(images, label)
    if score is None:
        return None
    missed = 0
    for fold in range(_FOLDS):
        others = [image for number, image in enumerate(images) if number % _FOLDS != fold]
        least = _best_score(others, label)
        least = score if least is None else least
        for number, image in enumerate(images):
            if number % _FOLDS == fold and image in own:
                best = max((box.score for box in image.found or () if box.label == label), default=-1.0)
                missed += best < least
    return Threshold(score, missed / len(own))


def _best_score(images: Sequence[BoxedImage], label: str) -> float | None:
    """The score from which on boxes of a label have the best F1; None: there is nothing to learn from."""
    scores: list[tuple[float, bool]] = []
    there = 0
    for image in images:
        only = BoxedImage(
            image.file,
            image.path,
            image.size,
            tuple(each for each in image.true if each.label == label),
            tuple(each for each in image.found or () if each.label == label),
        )
        there += sum(not each.crowd for each in only.true)
        scores += [
            (score, verdict == "right") for verdict, _, _, score in judged(only) if verdict != "missed"
        ]
    if not there or not any(right for _, right in scores):
        return None
    scores.sort(key=lambda each: -each[0])
    right = np.cumsum([each for _, each in scores])
    f1 = 2 * right / (np.arange(1, len(scores) + 1) + there)
    values = np.array([score for score, _ in scores])
    last = np.append(values[1:] != values[:-1], True)  # equal scores stand or fall together
    return float(values[int(np.where(last, f1, -1).argmax())])


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
