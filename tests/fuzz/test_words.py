"""Files of words: labels, facets, trees, templates, thresholds; and boxes of objects."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fuzz.attack import SECONDS, attack
from fuzz.damage import mutated_json, mutated_text
from nshot.errors import LabelError
from nshot.evaluation.boxes import read_boxes
from nshot.labels.facets import read_facets
from nshot.labels.files import read_label_file
from nshot.labels.lint import check
from nshot.labels.prompts import read_templates, split_labels, write_prompts
from nshot.labels.tree import read_tree
from nshot.regions.thresholds import read_thresholds

LABELS: dict[str, str] = {
    "lines.txt": "cat\ndog, hot\n# a note\nyellow_bird\n",
    "quoted.txt": 'labels = [\n"cat",\n"dog",\n]\n',
    "numbered.txt": "0 cat\n1: dog\n2 bird\n",
    "numbers_last.txt": "cat,0\ndog,1\n",
    "synsets.txt": "n01440764 tench, Tinca tinca\nn02084071 dog\n",
    "bullets.txt": "- cat\n* dog\n",
    "one.txt": "cat, dog, bird",
    "items.pbtxt": 'item {\n  id: 1\n  name: "cat"\n}\nitem {\n  id: 2\n  display_name: "dog"\n}\n',
    "table.csv": "id,name\n0,cat\n1,dog\n",
    "table.tsv": "label\tcount\ncat\t3\ndog\t4\n",
    "data.yaml": "path: x\nnc: 2\nnames:\n  0: cat\n  1: dog\n",
    "inline.yaml": "names: ['cat', 'dog']  # two\nval: y\n",
    "items.yml": "- cat\n- dog\n",
    "python.json": "{'cat': 0, 'dog': 1}",
}

LABELS_JSON: dict[str, Any] = {
    "list.json": ["cat", "dog"],
    "phrases.json": {"cat": ["kitten", "a photo of a cat"], "dog": []},
    "numbers.json": {"0": "cat", "1": "dog"},
    "numbers_of.json": {"cat": 0, "dog": 1},
    "imagenet.json": {"0": ["n01440764", "tench"], "1": ["n02084071", "dog"]},
    "config.json": {"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0}},
    "entries.json": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    "deep.json": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}},
}


def read_labels(path: Path) -> None:
    """All that a command does with a file of labels before it needs a model."""
    found = read_label_file(path)
    check(found.labels, source=str(path))
    write_prompts(found.labels)


def attack_files(
    reader: str,
    samples: Mapping[str, bytes],
    change: Callable[[bytes, random.Random], bytes],
    read: Callable[[Path], object],
    room: Path,
    short: int,
) -> None:
    def made(source: random.Random) -> tuple[str, bytes]:
        name = source.choice(sorted(samples))
        return name, change(samples[name], source)

    def written(given: tuple[str, bytes]) -> None:
        name, data = given
        path = room / name
        path.write_bytes(data)
        read(path)

    attack(reader, made, written, short=short)


def as_json(samples: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: json.dumps(content).encode() for name, content in samples.items()}


def test_labels(room: Path) -> None:
    samples = {name: text.encode() for name, text in LABELS.items()}
    attack_files("labels in text", samples, mutated_text, read_labels, room, 250)


def test_labels_in_json(room: Path) -> None:
    attack_files("labels in JSON", as_json(LABELS_JSON), mutated_json, read_labels, room, 200)


def test_labels_that_are_typed() -> None:
    def read(data: bytes) -> None:
        labels = split_labels(data.decode("utf-8", "replace"))
        check(labels, typed=True)
        write_prompts(labels)

    def made(source: random.Random) -> bytes:
        return mutated_text(b'cat, dog, "salt, pepper"', source)

    attack("labels that are typed", made, read, short=60)


FACETS = {
    "a.json": {
        "subject": ["dog", "cat"],
        "time of day": {"labels": ["day", "night"], "templates": ["a photo taken at {}"], "multi": True},
        "place": {"labels": {"beach": ["a photo of a beach"], "city": []}, "measured": "0.9 of 100 images"},
    }
}


def test_facets(room: Path) -> None:
    attack_files("facets", as_json(FACETS), mutated_json, read_facets, room, 150)


TREES_JSON: dict[str, Any] = {
    "nested.json": {"animal": {"dog": ["beagle", "poodle"], "cat": {}}, "vehicle": ["car"]},
    "nodes.json": {
        "name": "all",
        "children": [{"name": "dog", "id": "n1"}, {"name": "cat", "children": [{"name": "x"}]}],
    },
    "edges.json": {
        "leaves": ["b", "c"],
        "labels": {"b": "dog", "c": "cat", "a": "animal"},
        "edges": [["a", "b"], ["a", "c"]],
    },
    "parents.json": {
        "nodes": {"dog": {"parent": "animal"}, "cat": {"parent": "animal"}, "animal": {"parent": None}}
    },
    "coco.json": {"categories": [{"id": 1, "name": "dog", "supercategory": "animal"}, {"name": "car"}]},
    "named.json": {"tree": {"a": ["b", "c"]}, "labels": {"a": "animal", "b": "dog", "c": "cat"}},
    "open_images.json": {"LabelName": "/m/0", "Subcategory": [{"LabelName": "/m/1"}, {"LabelName": "/m/2"}]},
}


def test_trees_in_json(room: Path) -> None:
    attack_files("trees in JSON", as_json(TREES_JSON), mutated_json, read_tree, room, 150)


def test_trees_in_text(room: Path) -> None:
    samples = {
        "paths.txt": b"animal/dog/beagle\nanimal/dog/poodle\nanimal/cat\nvehicle\n",
        "levels.csv": b"kingdom,genus,species\nanimalia,canis,wolf\nanimalia,felis,cat\nplantae,rosa,rose\n",
    }
    attack_files("trees in text", samples, mutated_text, read_tree, room, 100)


def test_templates(room: Path) -> None:
    samples = {"a.txt": b"a photo of a {}\na drawing of {label}.\n", "b.json": b'["a photo of a {}", "{}"]'}

    def read(path: Path) -> None:
        write_prompts(["cat", "dog"], read_templates(path))

    attack_files("templates", samples, mutated_text, read, room, 100)


def test_thresholds(room: Path) -> None:
    sample = {
        "a.json": {"thresholds": {"cat": {"score": 0.3, "missed": 0.05}, "dog": {"score": 1, "missed": 0}}}
    }
    attack_files("thresholds", as_json(sample), mutated_json, read_thresholds, room, 80)


COCO = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 80, "height": 60},
        {"id": 2, "file_name": "b/c.jpg", "width": 9, "height": 9},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 30.5, 4], "iscrowd": 0, "area": 122},
        {"id": 2, "image_id": 2, "category_id": 3, "bbox": [0, 0, 3, 4], "iscrowd": 1},
    ],
    "categories": [{"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}],
}
FOUND = [
    {"source": "x/a.jpg", "boxes": [{"label": "cat", "score": 0.5, "box": [1, 2, 3, 4]}], "notes": []},
    {"source": "x/b/c.jpg", "error": {"type": "UndecodableImage", "message": "bad"}},
]


@pytest.mark.parametrize("which", ["annotations", "lines", "answers"])
def test_boxes(which: str, room: Path) -> None:
    told = COCO | {"annotations": [each | {"score": 0.5} for each in COCO["annotations"]]}
    files = {
        "annotations": (room / "true.json", json.dumps(COCO).encode()),
        "lines": (room / "found.jsonl", "".join(json.dumps(each) + "\n" for each in FOUND).encode()),
        "answers": (room / "found.json", json.dumps(told).encode()),
    }
    for path, data in files.values():
        path.write_bytes(data)
    path, whole = files[which]
    found = files["lines" if which == "annotations" else which][0]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_boxes(files["annotations"][0], found)

    attack(f"boxes, {which}", lambda source: mutated_json(whole, source), read, short=60)


@pytest.mark.parametrize(
    "text",
    [
        "a" + " " * 500_000 + "b\nc",
        "1" + " " * 500_000 + "2\n",
        "item {" * 100_000,
        "a" + "\t " * 50_000 + "b",
    ],
)
def test_labels_that_expressions_could_search_forever_are_read_at_once(room: Path, text: str) -> None:
    path = room / "labels.txt"
    path.write_text(text)
    begun = os.times()
    found = read_label_file(path)
    with suppress(LabelError):
        check(found.labels, source=str(path), alone=True)
    assert len(found.labels) <= 2
    ended = os.times()
    assert ended.user - begun.user < SECONDS
