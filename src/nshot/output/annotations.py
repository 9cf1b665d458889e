"""Answers as annotations of other tools: COCO JSON, and Label Studio's tasks with predictions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from nshot.atomic import write_bytes
from nshot.errors import ImageError
from nshot.output.sinks.formats import Record
from nshot.output.sinks.sink import Sink
from nshot.types import CORRECTED, Decided, Faceted, Failure, Located, Placed, Prediction

ANNOTATIONS = ("coco", "labelstudio")


Labels: TypeAlias = Sequence[str] | Mapping[str, Sequence[str]]
"""What can be answered; of facets, by the facet's name."""


def coco(records: Iterable[Record], labels: Labels) -> dict[str, Any]:
    """COCO's object: an image per record, a category per label, an annotation per answered label.

    An annotation is of the whole image: ``bbox`` covers it where its size is known. ``score`` is nshot's; an
    answer that a person gave has none. Of facets, a category's ``supercategory`` is the facet; of a tree, the
    node above the label. Images that could not be read are left out.
    """
    asked = labels if isinstance(labels, Mapping) else {"": labels}
    categories: list[dict[str, Any]] = []
    place: dict[tuple[str, str], int] = {}

    def category(question: str, label: str, above: str) -> int:
        if (question, label) not in place:
            place[question, label] = len(categories) + 1
            categories.append({"id": len(categories) + 1, "name": label})
        if above:
            categories[place[question, label] - 1]["supercategory"] = above
        return place[question, label]

    for question, own in asked.items():
        for label in own:
            category(question, label, question)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        if isinstance(record, (Failure, Located)):
            continue
        image: dict[str, Any] = {"id": len(images) + 1, "file_name": record.source}
        size = _size(record.source)
        if size is not None:
            image |= {"width": size[0], "height": size[1]}
        images.append(image)
        for question, answer in _questions(record):
            for label in _answered(answer):
                annotation: dict[str, Any] = {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    # may be none of those asked: a person's own word, or an inner node of a tree
                    "category_id": category(question, label, question or _above(answer)),
                    "iscrowd": 0,
                }
                if size is not None:
                    annotation |= {"bbox": [0, 0, *size], "area": size[0] * size[1]}
                if not _is_corrected(answer):
                    annotation["score"] = round(_score(answer, label), 6)
                annotations.append(annotation)
    return {"images": images, "annotations": annotations, "categories": categories}


def label_studio(records: Iterable[Record], labels: Labels) -> list[dict[str, Any]]:
    """Label Studio's tasks, for a labelling interface with ``<Choices name="label" toName="image">``.

    Of facets, one ``<Choices name="FACET" toName="image">`` each. What a person said is an annotation, what
    the model answers a prediction, whose score is the lowest of its answers'. Images that could not be read
    are left out.
    """
    tasks: list[dict[str, Any]] = []
    for record in records:
        if isinstance(record, (Failure, Located)):
            continue
        task: dict[str, Any] = {"data": {"image": record.source}}
        said: list[dict[str, Any]] = []
        answered: list[dict[str, Any]] = []
        scores: list[float] = []
        for question, answer in _questions(record):
            choices = list(_answered(answer))
            result = {
                "from_name": question or "label",
                "to_name": "image",
                "type": "choices",
                "value": {"choices": choices},
            }
            if _is_corrected(answer):
                said += [result] if choices else []
                task.setdefault("annotations", [{"result": said}])
            elif choices:
                answered.append(result)
                scores.append(round(_score(answer, choices[0]), 6))
        if answered:
            task["predictions"] = [{"model_version": "nshot", "score": min(scores), "result": answered}]
        tasks.append(task)
    return tasks


class AnnotationSink(Sink):
    """Takes records, and writes them as one file when the run is complete; otherwise nothing.

    Args:
        format: one of ``ANNOTATIONS``.
        path: the file.
        labels: all that can be answered; of facets, by the facet's name.
    """

    def __init__(self, format: str, path: Path, labels: Labels) -> None:
        self.answered: Counter[str] = Counter()
        self.failed = 0
        self._as = format
        self._path = path
        self._asked = labels
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
        content = (coco if self._as == "coco" else label_studio)(self._records, self._asked)
        write_bytes(self._path, json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))


def _questions(record: Prediction | Faceted) -> list[tuple[str, Prediction]]:
    """The answers by their question; one alone has no name."""
    return list(record.facets.items()) if isinstance(record, Faceted) else [("", record)]


def _above(record: Prediction) -> str:
    return record.path[-2] if isinstance(record, Placed) and len(record.path) > 1 else ""


def _answered(record: Prediction) -> tuple[str, ...]:
    if isinstance(record, Decided):
        return record.labels
    return () if record.label is None else (record.label,)


def _is_corrected(record: Prediction) -> bool:
    return CORRECTED in record.notes


def _score(record: Prediction, label: str) -> float:
    if isinstance(record, Placed):
        return record.score  # of the node, which may be a leaf's that is told with its own share
    return next((each.score for each in record.predictions if each.label == label), record.score)


def _size(name: str) -> tuple[int, int] | None:
    """A file's size in pixels as it is seen upright, from its header."""
    from nshot.images.prepare import header
    from nshot.images.sources import Source

    with suppress(ImageError):  # no file, such as a member of an archive
        return header(Source.file(name).read()).size
    return None
