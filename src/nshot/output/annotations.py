"""Answers as annotations of other tools: COCO JSON, and Label Studio's tasks with predictions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nshot.atomic import write_bytes
from nshot.output.sinks.formats import Record
from nshot.output.sinks.sink import Sink
from nshot.types import CORRECTED, Decided, Faceted, Failure, Prediction

ANNOTATIONS = ("coco", "labelstudio")


def coco(records: Iterable[Record], labels: Sequence[str]) -> dict[str, Any]:
    """COCO's object: an image per record, a category per label, an annotation per answered label.

    An annotation is of the whole image: ``bbox`` covers it where its size is known. ``score`` is nshot's; an
    answer that a person gave has none. Images that could not be read are left out.
    """
    categories = [{"id": k, "name": label} for k, label in enumerate(labels, 1)]
    place = {label: k for k, label in enumerate(labels, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        if isinstance(record, (Failure, Faceted)):
            continue
        image: dict[str, Any] = {"id": len(images) + 1, "file_name": record.source}
        size = _size(record.source)
        if size is not None:
            image |= {"width": size[0], "height": size[1]}
        images.append(image)
        for label in _answered(record):
            if label not in place:  # a person's own word may be another than those that were asked
                place[label] = len(categories) + 1
                categories.append({"id": place[label], "name": label})
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "category_id": place[label],
                "iscrowd": 0,
            }
            if size is not None:
                annotation |= {"bbox": [0, 0, *size], "area": size[0] * size[1]}
            if not _is_corrected(record):
                annotation["score"] = round(_score(record, label), 6)
            annotations.append(annotation)
    return {"images": images, "annotations": annotations, "categories": categories}


def label_studio(records: Iterable[Record], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Label Studio's tasks, for a labelling interface with ``<Choices name="label" toName="image">``.

    What a person said is an annotation, what the model answers a prediction. Images that could not be read
    are left out.
    """
    tasks: list[dict[str, Any]] = []
    for record in records:
        if isinstance(record, (Failure, Faceted)):
            continue
        choices = list(_answered(record))
        result = [
            {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": choices}}
        ]
        task: dict[str, Any] = {"data": {"image": record.source}}
        if _is_corrected(record):
            task["annotations"] = [{"result": result if choices else []}]
        elif choices:
            score = round(_score(record, choices[0]), 6)
            task["predictions"] = [{"model_version": "nshot", "score": score, "result": result}]
        tasks.append(task)
    return tasks


class AnnotationSink(Sink):
    """Takes records, and writes them as one file when the run is complete; otherwise nothing.

    Args:
        format: one of ``ANNOTATIONS``.
        path: the file.
        labels: all that can be answered.
    """

    def __init__(self, format: str, path: Path, labels: Sequence[str]) -> None:
        self.answered: Counter[str] = Counter()
        self.failed = 0
        self._as = format
        self._path = path
        self._names = list(labels)
        self._records: list[Record] = []

    def write(self, record: Record) -> None:
        """Take a record."""
        self._records.append(record)
        self.failed += isinstance(record, Failure)

    def flush(self) -> None:
        """Nothing is written before the end."""

    def close(self, *, complete: bool) -> None:
        """Write the file, if the run is complete.

        Raises:
            OutputError: it cannot be written.
        """
        if not complete:
            return
        content = (coco if self._as == "coco" else label_studio)(self._records, self._names)
        write_bytes(self._path, json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))


def _answered(record: Prediction) -> tuple[str, ...]:
    if isinstance(record, Decided):
        return record.labels
    return () if record.label is None else (record.label,)


def _is_corrected(record: Prediction) -> bool:
    return CORRECTED in record.notes


def _score(record: Prediction, label: str) -> float:
    return next((each.score for each in record.predictions if each.label == label), record.score)


def _size(name: str) -> tuple[int, int] | None:
    """A file's size in pixels as it is seen upright, from its header."""
    from PIL import Image

    with suppress(Exception), Image.open(name) as image:  # no file, or one that Pillow alone cannot open
        width, height = image.size
        return (height, width) if image.getexif().get(0x0112, 1) >= 5 else (width, height)
    return None
