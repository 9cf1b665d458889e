"""JSON, lines of JSON, and the exports of labelling tools, as rows with columns.

Known are records, columns and pandas' split form, {name: label}, {label: [names]}, COCO, Label Studio, VIA,
Datumaro, and CVAT's XML. Lines of JSON are read one by one, as often as they are asked for; none of the
others can be read in pieces, so what would fill the memory is refused.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from nshot.bounded import weight, weight_of
from nshot.errors import SourceError, brief
from nshot.images.delimited import LONGEST, encoding_of, lines_of, opened
from nshot.images.kinds import is_image_name

_SAID = "boxes and outlines are read as labels of the whole image"


@dataclass(slots=True)
class Records:
    """Rows and what is known of them.

    Attributes:
        rows: a mapping of columns to cells each; an empty one for what is no record.
        form: the format's name, where it is that of a tool.
        notes: what a person should know about how it was read.
    """

    rows: Iterable[dict[str, Any]]
    form: str | None = None
    notes: list[str] = field(default_factory=list)

    def described(self) -> tuple[list[str], list[str]]:
        """All columns, in the order in which they are met, and those of them that hold lists."""
        columns: dict[str, bool] = {}
        for row in self.rows:
            for name, value in row.items():
                columns[name] = columns.get(name, False) or isinstance(value, list)
            if len(columns) > _MOST_COLUMNS:
                raise SourceError(f"records of more than {_MOST_COLUMNS:,} different columns are no table")
        return list(columns), [name for name, holds in columns.items() if holds]


def read(path: Path, memory: int) -> Records:
    """The records of a file.

    Args:
        path: the file.
        memory: bytes that it may take; what can be read line by line takes next to nothing.

    Raises:
        SourceError: it cannot be read, is of no known form, or takes more memory than that.
    """
    try:
        encoding, notes = encoding_of(path)
        found = None if path.suffix.lower() == ".xml" else _lines(path, encoding)
        if found is None:
            try:
                _refuse_large(path, memory)
                with opened(path, encoding) as file:
                    text = file.read()
                found = _whole(path, text)
            except SourceError:
                if (found := _some_lines(path, encoding)) is None:
                    raise
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise SourceError(f"{path} cannot be read: {reason}") from error
    found.notes[:0] = notes
    if found.form:
        found.notes.append(f"{path} is read as an export of {found.form}")
    return found


def _whole(path: Path, text: str) -> Records:
    if not text.strip():
        raise SourceError(f"{path} is empty")
    if path.suffix.lower() == ".xml":
        return _xml(path, text)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is neither JSON nor lines of JSON: {brief(error)}") from error
    return _content(path, content)


def _refuse_large(path: Path, memory: int) -> None:
    """Refuse what would fill the memory when it is read whole."""
    size = weight_of(path)
    if size > memory:
        raise SourceError(
            f"{path} would take about {size / 1e6:,.0f} MB of memory to read, and the run has "
            f"{memory / 1e6:,.0f} MB: save it as lines of JSON (.jsonl) or as CSV, which are read row by "
            "row, or give more with --memory"
        )


_MOST_COLUMNS = 10_000
_LOOKED_AT = 1000  # lines by which a file is known for lines of JSON
_SHORT = 100  # characters of a line
_LONG, _HEAVIEST = 2**20, 2**27  # characters of a line that is weighed, and bytes that an object may take


@dataclass(frozen=True, slots=True)
class _Lines:
    """A JSON object per line; what is none stays a row, which names no image."""

    path: Path
    encoding: str

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (row or {} for _, row in self.numbered())

    def numbered(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """(line, object) of each line that is not blank; None for what is no object.

        Raises:
            SourceError: the file cannot be read any more.
        """
        try:
            with opened(self.path, self.encoding) as file:
                number, lines = 1, lines_of(file)
                for line in lines:
                    long, last = len(line) >= LONGEST, line
                    while long and not last.endswith("\n") and (last := next(lines, "\n")):
                        pass
                    if line.strip():
                        yield number, None if long else _object(line)
                    number += last.count("\n")
        except OSError as error:
            raise SourceError(f"{self.path} cannot be read: {error.strerror or error}") from error


def _object(line: str) -> dict[str, Any] | None:
    if len(line) > _LONG and weight([line.encode("utf-8", "replace")]) > _HEAVIEST:
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _lines(path: Path, encoding: str) -> Records | None:
    """Lines of JSON; None where it is no object alone on the first line, with others below it."""
    lines = _Lines(path, encoding)
    first = list(itertools.islice(lines.numbered(), 2))
    if len(first) < 2 or first[0][1] is None:
        return None
    broken = next((number for number, row in lines.numbered() if row is None), None)
    notes = [] if broken is None else [f"{path}, line {broken} is no JSON object"]
    return Records(lines, notes=notes)


def _some_lines(path: Path, encoding: str) -> Records | None:
    """Lines of JSON by the file's name, whose first line is none; None where few of them begin as objects."""
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return None
    with opened(path, encoding) as file:
        begun = [line[:_SHORT].lstrip()[:1] for line in itertools.islice(lines_of(file), _LOOKED_AT)]
    if begun.count("{") <= len(begun) / 2:
        return None
    return Records(_Lines(path, encoding), notes=[f"{path}: its first line is no JSON object"])


def _content(path: Path, content: Any) -> Records:
    """JSON as a whole: the first form that fits."""
    for form in (_coco, _label_studio, _via, _datumaro, _plain_json):
        if (found := form(content)) is not None:
            return found
    raise SourceError(
        f"{path} is JSON of no known form: a list of records with an image and a label each, COCO, and the "
        "exports of Label Studio, VIA, Datumaro and CVAT are read"
    )


def _plain_json(content: Any) -> Records | None:
    if isinstance(content, dict):
        content = _unwrapped(content)
    if isinstance(content, list):
        if content and all(isinstance(row, dict) for row in content):
            return Records(content)
        if content and all(isinstance(row, (list, tuple)) and len(row) == 2 for row in content):
            return Records([{"image": row[0], "label": row[1]} for row in content])
        return None
    if not isinstance(content, dict) or not content:
        return None
    values = list(content.values())
    if isinstance(content.get("columns"), list) and isinstance(content.get("data"), list):
        columns = [str(name) for name in content["columns"]]
        return Records([dict(zip(columns, row, strict=False)) for row in content["data"]])
    if all(
        isinstance(value, dict) for value in values
    ):  # columns of {row: cell}, or {name: {attribute: value}}
        if any(map(is_image_name, content)):
            return Records([{"image": name} | value for name, value in content.items()])
        keys = list(values[0])
        if all(list(value) == keys for value in values):
            return Records([{column: content[column][key] for column in content} for key in keys])
        return None
    if all(isinstance(value, list) for value in values):
        if all(isinstance(name, str) and is_image_name(name) for value in values for name in value):
            return Records([{"image": name, "label": label} for label in content for name in content[label]])
        if any(map(is_image_name, content)):
            return Records([{"image": name, "label": labels} for name, labels in content.items()])
        if len({len(value) for value in values}) == 1:
            return Records([dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)])
        return None
    if all(isinstance(value, (str, int)) for value in values) and any(map(is_image_name, content)):
        return Records([{"image": name, "label": label} for name, label in content.items()])
    return None


def _unwrapped(content: dict[str, Any]) -> Any:
    """The one list of records in an object that holds nothing else of the kind."""
    inside = [
        v for v in content.values() if isinstance(v, list) and v and all(isinstance(r, dict) for r in v)
    ]
    return inside[0] if len(inside) == 1 else content


def _coco(content: Any) -> Records | None:
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        return None
    if not isinstance(content.get("annotations"), list):
        return None
    names = {str(each.get("id")): str(each.get("name")) for each in content.get("categories") or []}
    of: dict[Any, dict[str, None]] = {}
    boxes = False
    for each in content["annotations"]:
        if not isinstance(each, dict) or "image_id" not in each:
            return None
        boxes = boxes or bool(each.get("bbox") or each.get("segmentation"))
        if "category_id" in each:
            number = str(each["category_id"])
            of.setdefault(str(each["image_id"]), {})[names.get(number, number)] = None
    rows = [
        {"image": each.get("file_name") or each.get("path"), "label": list(of.get(str(each.get("id")), ()))}
        for each in content["images"]
    ]
    return Records(_flat(rows), "COCO", [_SAID] if boxes else [])


def _label_studio(content: Any) -> Records | None:
    if not isinstance(content, list) or not content or not all(isinstance(task, dict) for task in content):
        return None
    if all(isinstance(task.get("data"), dict) for task in content):
        rows: list[dict[str, Any]] = []
        disagree, areas = 0, False
        for task in content:
            answers = set()
            for annotation in task.get("annotations") or task.get("completions") or []:
                if annotation.get("was_cancelled"):
                    continue
                chosen, area = _chosen(annotation.get("result") or [])
                areas = areas or area
                answers.add(tuple(chosen))
            disagree += len(answers) > 1
            label = list(answers.pop()) if len(answers) == 1 else []
            rows.append({"image": _task_image(task["data"]), "label": label})
        notes = [f"{disagree} images got different labels by different people: they have no label"]
        return Records(_flat(rows), "Label Studio", (notes if disagree else []) + ([_SAID] if areas else []))
    if all("annotation_id" in task or "annotator" in task for task in content):
        return Records(
            [{k: _choices(v) if k != "image" else _upload(v) for k, v in task.items()} for task in content],
            "Label Studio",
        )
    return None


def _chosen(result: Iterable[Any]) -> tuple[list[str], bool]:
    """The labels of one annotation, and whether they are those of boxes or outlines."""
    labels: dict[str, None] = {}
    area = False
    for part in result:
        value = part.get("value") if isinstance(part, dict) else None
        for kind, given in (value or {}).items():
            if kind == "choices" or kind.endswith("labels"):
                area = area or kind != "choices"
                labels |= dict.fromkeys(map(str, given if isinstance(given, list) else [given]))
    return list(labels), area


def _task_image(data: dict[str, Any]) -> str | None:
    name = next(
        (data[key] for key in ("image", "img", "url", "photo") if isinstance(data.get(key), str)), None
    )
    if name is None:
        name = next((value for value in data.values() if isinstance(value, str)), None)
    return None if name is None else _upload(name)


def _upload(name: Any) -> Any:
    """An image's name as it was before Label Studio took it in."""
    if not isinstance(name, str):
        return name
    if "/data/local-files/" in name:
        return (parse_qs(urlsplit(name).query).get("d") or [name])[0]
    if name.startswith(("/data/upload/", "upload/")):
        return re.sub(r"^[0-9a-f]{8}-", "", unquote(name.rsplit("/", 1)[1]))
    return name


def _choices(cell: Any) -> Any:
    return cell["choices"] if isinstance(cell, dict) and isinstance(cell.get("choices"), list) else cell


def _via(content: Any) -> Records | None:
    """The VGG Image Annotator: attributes of the file, else those of its regions."""
    if isinstance(content, dict) and isinstance(content.get("_via_img_metadata"), dict):
        content = content["_via_img_metadata"]
    if not isinstance(content, dict) or not content:
        return None
    images = list(content.values())
    if not all(isinstance(i, dict) and "filename" in i and "regions" in i for i in images):
        return None
    rows: list[dict[str, Any]] = []
    areas = False
    for image in images:
        given = image.get("file_attributes") or {}
        row = {name: _picked(value) for name, value in given.items()}
        if not given:
            regions = image["regions"]
            for region in regions.values() if isinstance(regions, dict) else regions:
                areas = True
                for name, value in (region.get("region_attributes") or {}).items():
                    held = _picked(value)
                    row.setdefault(name, {}).update(dict.fromkeys(held if isinstance(held, list) else [held]))
            row = {name: list(held) for name, held in row.items()}
        rows.append({"image": image["filename"]} | row)
    attributes = {name for row in rows for name in row} - {"image"}
    if len(attributes) == 1:  # the only attribute is the label, whatever it is called
        (only,) = attributes
        rows = [{"image": row["image"], "label": row.get(only)} for row in rows]
        if all(isinstance(row["label"], list) or row["label"] is None for row in rows):
            rows = _flat([row | {"label": row["label"] or []} for row in rows])
    return Records(rows, "VIA", [_SAID] if areas else [])


def _picked(value: Any) -> Any:
    """A checkbox holds {option: true}."""
    if isinstance(value, dict):
        return [option for option, ticked in value.items() if ticked]
    return value


def _datumaro(content: Any) -> Records | None:
    if not isinstance(content, dict) or not isinstance(content.get("items"), list):
        return None
    categories = content.get("categories")
    try:
        names = [each["name"] for each in categories["label"]["labels"]]  # type: ignore[index]
        rows, areas = [], False
        for item in content["items"]:
            image = item.get("image") or item.get("media") or {}
            given = [each for each in item.get("annotations") or [] if "label_id" in each]
            areas = areas or any(each.get("type") != "label" for each in given)
            labels = list(dict.fromkeys(names[each["label_id"]] for each in given))
            rows.append({"image": image.get("path") or item.get("id"), "label": labels})
    except (KeyError, IndexError, TypeError):
        return None
    return Records(_flat(rows), "Datumaro", [_SAID] if areas else [])


def _xml(path: Path, text: str) -> Records:
    """CVAT for images."""
    if "<!DOCTYPE" in text[:2000] or "<!ENTITY" in text:
        raise SourceError(f"{path} declares entities, which nshot does not read in XML")
    try:
        root = ElementTree.fromstring(text.encode("utf-8", "replace") if "encoding=" in text[:200] else text)
    except (ElementTree.ParseError, ValueError) as error:
        raise SourceError(f"{path} is no XML that can be read: {error}") from error
    images = root.findall("image")
    if root.tag != "annotations" or not images:
        raise SourceError(
            f"{path} is XML of no known form: CVAT's 'CVAT for images' is read; give a table of images and "
            "labels"
        )
    rows, areas = [], False
    for image in images:
        tags = [each.get("label") for each in image.findall("tag")]
        inside = [each.get("label") for each in image if each.tag != "tag" and each.get("label")]
        areas = areas or bool(inside and not tags)
        rows.append({"image": image.get("name"), "label": list(dict.fromkeys(filter(None, tags or inside)))})
    return Records(_flat(rows), "CVAT", [_SAID] if areas else [])


def _flat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of lists of one label each, or none, as rows of a label."""
    if all(len(row["label"]) <= 1 for row in rows):
        return [row | {"label": row["label"][0] if row["label"] else None} for row in rows]
    return rows
