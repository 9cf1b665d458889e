"""Boxes out: lines for a person, JSON lines, COCO, CSV with a row per box.

COCO and CSV cannot be gone on with when a run was interrupted, so JSON lines grow beside them; see
``nshot.output.sinks.journaled``.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from nshot.atomic import Lock, check_output
from nshot.bounded import read_json
from nshot.errors import OutputError
from nshot.output.sinks.formats import Jsonl, Record, Written
from nshot.output.sinks.journaled import JournaledSink
from nshot.output.sinks.sink import Sink
from nshot.output.sinks.target import FileTarget, StreamTarget
from nshot.paths import spelled
from nshot.types import DEFAULT_LIMITS, Failure, Located

FORMATS = ("table", "jsonl", "coco", "csv")

_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "coco", ".csv": "csv", ".txt": "table"}
_SHORT = 12  # digits of the request's digest that each record holds
_COLUMNS = ("source", "label", "score", "x", "y", "width", "height", "image_width", "image_height")
_LAST = ("notes", "error_type", "error_message")


def format_of(format: str | None, output: Path | None) -> str:
    """The format asked for, or the one that the output's name says.

    Raises:
        OutputError: an ending that says no format.
    """
    if format is not None or output is None:
        return format or "table"
    found = _ENDINGS.get(output.suffix.lower())
    if found is None:
        raise OutputError(f"{output}: name it .json (COCO), .jsonl, .csv or .txt, or give --format")
    return found


def open_boxes(
    format: str,
    output: Path | None,
    *,
    labels: Sequence[str],
    resume: bool = False,
    request: str = "",
    stream: BinaryIO | None = None,
) -> Sink:
    """A sink for ``Located`` and ``Failure``; nothing is touched before the first record.

    Args:
        format: one of ``FORMATS``.
        output: the file; None for the stream. It is locked against other runs until the sink is closed.
        labels: all that can be found: COCO's categories, in their order.
        resume: go on with what an interrupted run left in ``output``.
        request: what was asked: a run is only resumed with the same.
        stream: where boxes go without ``output``; standard output by default.

    Raises:
        OutputError: they cannot go there, another run writes there, or it cannot be resumed.
    """
    if output is None and format == "coco":
        raise OutputError("COCO needs a file: name it with -o boxes.json")
    if resume and (output is None or format == "table"):
        raise OutputError("only a file of jsonl, coco or csv can be resumed: name it with -o")
    path = None if output is None else check_output(output)
    if path is None or (path.exists() and not path.is_file()):
        if resume or format == "coco":
            raise OutputError(f"{output} is not a regular file, so {format} cannot go there like this")
        plain: Any = {"jsonl": Jsonl(), "csv": _Csv(), "table": _Lines()}[format]
        return Sink(plain, StreamTarget(path or stream or sys.stdout.buffer))
    lock, run = Lock(path), request[:_SHORT]
    try:
        if format in ("coco", "csv"):
            kind = CocoSink if format == "coco" else CsvSink
            return kind(path, names=labels, resume=resume, request=request, run=run, lock=lock)
        lines: Any = Jsonl(run) if format == "jsonl" else _Lines()
        file = FileTarget(path, request=request, resumable=format == "jsonl")
        return Sink(lines, file, resume=resume, run=run, lock=lock)
    except BaseException:
        lock.release()
        raise


class _Lines:
    """A line per box: image, label, score, x, y, width, height."""

    header = b""

    def encode(self, record: Record) -> bytes:
        name = spelled(record.source)
        if isinstance(record, Failure):
            return f"{name}  failed: {spelled(record.message)}\n".encode()
        assert isinstance(record, Located)
        lines = []
        for box in record.boxes:
            x, y, width, height = (round(edge) for edge in box.box)
            lines.append(f"{name}  {spelled(box.label)} {box.score:.3f}  at {x}, {y}, {width} x {height}\n")
        return "".join(lines or [f"{name}  nothing found\n"]).encode()

    def read(self, file: BinaryIO) -> Iterator[Written]:
        raise ValueError("a table")


class _Csv:
    """A row per box, and one without a label for an image without boxes."""

    header = (",".join((*_COLUMNS, *_LAST)) + "\n").encode()

    def encode(self, record: Record) -> bytes:
        told: dict[str, Any] = json.loads(Jsonl().encode(record))
        return "".join(map(_row, _rows(told))).encode()

    def read(self, file: BinaryIO) -> Iterator[Written]:
        raise ValueError("rows of boxes")


class BoxesSink(JournaledSink):
    """Writes the journal, then the file.

    Args:
        path: the file.
        names: the labels, in the order of the request.
        options: those of ``JournaledSink``.
    """

    def __init__(self, path: Path, *, names: Sequence[str], **options: Any) -> None:
        self._names = [spelled(name) for name in names]
        super().__init__(path, **options)


class CocoSink(BoxesSink):
    """COCO: images, categories, annotations with a score. What failed stands in ``info``."""

    def _convert(self, lines: Iterator[bytes], part: Path) -> None:
        records = [json.loads(line) for line in lines]
        part.write_text(json.dumps(coco_of(records, self._names), ensure_ascii=False), encoding="utf-8")

    def _records(self) -> Iterator[dict[str, Any]]:
        told = read_json(self._path, DEFAULT_LIMITS.memory)
        names = {each["id"]: each["name"] for each in told["categories"]}
        boxes: dict[int, list[dict[str, Any]]] = {}
        for each in told["annotations"]:
            box = {"label": names[each["category_id"]], "score": each["score"], "box": each["bbox"]}
            boxes.setdefault(each["image_id"], []).append(box)
        run = {"run": told["info"]["run"]} if told["info"].get("run") else {}
        for image in told["images"]:
            record = {"source": image["file_name"], "width": image["width"], "height": image["height"]}
            yield record | {"boxes": boxes.get(image["id"], [])} | run
        for failed in told["info"]["failed"]:
            yield failed | run


class CsvSink(BoxesSink):
    """CSV, a row per box."""

    def _convert(self, lines: Iterator[bytes], part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(_Csv.header.decode())
            for line in lines:
                file.writelines(map(_row, _rows(json.loads(line))))

    def _records(self) -> Iterator[dict[str, Any]]:
        raise ValueError("a finished table of boxes")


def coco_of(records: Sequence[dict[str, Any]], labels: Sequence[str]) -> dict[str, Any]:
    """Records as JSONL has them in COCO's form: ``bbox`` is x, y, width, height in pixels, from 0."""
    place = {label: number for number, label in enumerate(labels, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    run = next((record["run"] for record in records if "run" in record), None)
    for record in records:
        if "error" in record:
            failed.append({"source": record["source"], "error": record["error"]})
            continue
        image = {"id": len(images) + 1, "file_name": record["source"]}
        images.append(image | {"width": record["width"], "height": record["height"]})
        for box in record["boxes"]:
            category = place.setdefault(box["label"], len(place) + 1)
            _, _, width, height = box["box"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box["box"],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                    "score": box["score"],
                }
            )
    info: dict[str, Any] = {"description": "boxes found by nshot", "failed": failed}
    return {
        "info": info | ({"run": run} if run else {}),
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": label} for label, number in place.items()],
    }


def _rows(record: dict[str, Any]) -> Iterator[list[Any]]:
    source, notes = record["source"], "; ".join(record.get("notes", ()))
    if "error" in record:
        yield [
            source,
            *[""] * (len(_COLUMNS) - 1),
            notes,
            record["error"]["type"],
            record["error"]["message"],
        ]
        return
    size = [record["width"], record["height"]]
    for box in record["boxes"]:
        yield [source, box["label"], f"{box['score']:.6f}", *box["box"], *size, notes, "", ""]
    if not record["boxes"]:
        yield [source, *[""] * 6, *size, notes, "", ""]


class _Line:
    """Keeps what is written to it last."""

    text = ""

    def write(self, text: str) -> None:
        self.text = text


def _row(cells: Sequence[Any]) -> str:
    line = _Line()
    safe = [
        f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell
        for cell in cells
    ]
    csv.writer(line, lineterminator="\n").writerow(safe)
    return line.text
