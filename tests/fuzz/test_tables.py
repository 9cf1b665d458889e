"""Tables of images and labels: every form and encoding, damaged, and Parquet of unusual types."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fuzz.attack import attack, one_line
from fuzz.damage import mutated, mutated_json, mutated_text
from fuzz.test_archives import IMAGE, LIMITS
from nshot.datasets.corrections import read_corrections
from nshot.datasets.labelled import open_labelled
from nshot.errors import NshotError
from nshot.images.sources import expand

Change = Callable[[bytes, random.Random], bytes]

ROWS = [
    ("a.jpg", "cat"),
    ('b, "c".jpg', "dög"),
    ("d.jpg", "x"),
    ("", "cat"),
    ("https://example.com/a.jpg", "3"),
]

TEXTS = {
    "commas.csv": "image,label\n" + "".join('"{}",{}\n'.format(a.replace('"', '""'), b) for a, b in ROWS),
    "semicolons.csv": "Bild;Klasse;ä\n" + "".join(f"{a};{b};1,5\n" for a, b in ROWS),
    "headless.csv": "".join(f"{a},{n}\n" for n, (a, _) in enumerate(ROWS)),
    "ticks.csv": "image,cat,dog\na.jpg,1,0\nd.jpg,0,1\n",
    "split.csv": "path,label,split\na.jpg,cat,train\nd.jpg,dog,test\n",
    "lists.csv": "image,labels\na.jpg,\"['cat', 'dog']\"\nd.jpg,cat|dog\n",
    "tabs.tsv": "path\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in ROWS),
    "blanks.txt": "a.jpg 0\nd.jpg 1\n",
    "tags.xml": '<annotations><image name="a.jpg"><tag label="cat"/></image><image name="d.jpg">'
    '<box label="dog" xtl="1"/></image></annotations>',
}

JSONS: dict[str, Any] = {
    "records.json": [{"image": a, "label": b} for a, b in ROWS],
    "pairs.json": [["a.jpg", "cat"], ["d.jpg", "dog"]],
    "names.json": {"a.jpg": "cat", "d.jpg": "dog"},
    "of_label.json": {"cat": ["a.jpg"], "dog": ["d.jpg", "e.jpg"]},
    "columns.json": {"image": ["a.jpg", "d.jpg"], "label": [0, 1]},
    "cells.json": {"image": {"0": "a.jpg", "1": "d.jpg"}, "label": {"0": "x", "1": "y"}},
    "split.json": {"columns": ["image", "label"], "index": [0, 1], "data": [["a.jpg", "x"], ["d.jpg", "y"]]},
    "wrapped.json": {"version": 1, "rows": [{"image": "a.jpg", "label": "x"}]},
    "coco.json": {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 8}, {"id": 2, "file_name": "d.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]},
            {"image_id": 2, "category_id": 2},
        ],
        "categories": [{"id": 2, "name": "cat", "supercategory": "animal"}],
    },
    "label_studio.json": [
        {
            "id": 1,
            "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"},
            "annotations": [
                {"result": [{"value": {"choices": ["cat"]}, "type": "choices"}], "was_cancelled": False}
            ],
        },
        {
            "data": {"image": "/data/local-files/?d=a.jpg"},
            "annotations": [{"result": [{"value": {"rectanglelabels": ["x"]}}]}],
        },
    ],
    "label_studio_min.json": [
        {"image": "a.jpg", "choice": {"choices": ["a", "b"]}, "annotator": 1, "annotation_id": 3}
    ],
    "via.json": {
        "a.jpg123": {
            "filename": "a.jpg",
            "size": 123,
            "regions": [],
            "file_attributes": {"kind": {"cat": True, "x": False}},
        },
        "d.jpg5": {
            "filename": "d.jpg",
            "regions": [{"region_attributes": {"kind": "dog"}}],
            "file_attributes": {},
        },
    },
    "via2.json": {
        "_via_img_metadata": {"a": {"filename": "a.jpg", "regions": {}, "file_attributes": {"l": "cat"}}}
    },
    "datumaro.json": {
        "categories": {"label": {"labels": [{"name": "cat"}, {"name": "dog"}]}},
        "items": [{"id": "a", "image": {"path": "a.jpg"}, "annotations": [{"type": "label", "label_id": 1}]}],
    },
}


def read_as(kind: int, path: Path) -> None:
    """As images, with all their cells; as labelled images; or as a table of corrections."""
    if kind == 0:
        for source in expand([path], limits=LIMITS, keep_columns=True):
            if source.remote:
                continue
            try:
                source.read()
            except NshotError as error:
                one_line(error)
    elif kind == 1:
        for source in open_labelled(path, limits=LIMITS):
            assert isinstance(source.labels, tuple)
    else:
        read_corrections(path)


def attack_tables(reader: str, samples: Mapping[str, bytes], change: Change, room: Path, short: int) -> None:
    (room / "a.jpg").write_bytes(IMAGE)

    def made(source: random.Random) -> tuple[str, bytes, int]:
        name = source.choice(sorted(samples))
        return name, change(samples[name], source), source.randrange(3)

    def read(given: tuple[str, bytes, int]) -> None:
        name, data, kind = given
        path = room / name
        path.write_bytes(data)
        read_as(kind, path)

    attack(reader, made, read, short=short)


def test_tables_of_text(room: Path) -> None:
    samples = {name: text.encode() for name, text in TEXTS.items()}
    attack_tables("tables of text", samples, mutated_text, room, 300)


def test_tables_of_json(room: Path) -> None:
    samples = {name: json.dumps(content).encode() for name, content in JSONS.items()}
    attack_tables("tables of JSON", samples, mutated_json, room, 300)


def test_lines_of_json(room: Path) -> None:
    lines = "".join(json.dumps({"image": a, "label": b, "n": [1]}) + "\n" for a, b in ROWS)
    attack_tables("lines of JSON", {"lines.jsonl": lines.encode()}, mutated_json, room, 100)


def parquets() -> dict[str, bytes]:
    if not find_spec("pyarrow"):
        return {}
    import pyarrow as pa
    from pyarrow import parquet

    both = {"bytes": IMAGE, "path": "a.jpg"}
    columns: dict[str, Any] = {
        "structs": [both, {"bytes": None, "path": "a.jpg"}, None],
        "texts": ["a.jpg"] * 5,
        "views": pa.array(["a.jpg", "d.jpg"], pa.string_view()),
        "large": pa.array(["a.jpg", "d.jpg"], pa.large_string()),
        "bytes": [IMAGE, b"", b"\xff"],
        "dictionary": pa.array(["a.jpg", "a.jpg", None]).dictionary_encode(),
        "bytes_of_numbers": [{"bytes": [1, 2], "path": "a.jpg"}],
        "lists": [["a.jpg"], [], None],
        "numbers": [1, 2, 3],
        "fixed": pa.array([b"abcd", b"efgh"], pa.binary(4)),
        "maps": pa.array([[("path", "a.jpg")], []], pa.map_(pa.string(), pa.string())),
        "times": pa.array([10**15, 0], pa.timestamp("us", "UTC")),
    }
    found = {}
    for number, (name, column) in enumerate(columns.items()):
        sink = pa.BufferOutputStream()
        table = pa.table({"image": column, "label": list(range(len(column)))})
        if name == "structs":
            features = {
                "info": {"features": {"label": {"names": ["cat", "dog", "x"], "_type": "ClassLabel"}}}
            }
            table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        parquet.write_table(
            table,
            sink,
            compression=("none", "snappy", "gzip", "zstd", "brotli", "lz4")[number % 6],
            data_page_version=("1.0", "2.0")[number % 2],
            row_group_size=2,
        )
        found[name] = sink.getvalue().to_pybytes()
    return found


PARQUETS = parquets()


def parquet_changed(data: bytes, source: random.Random) -> bytes:
    """Damage to the footer, which tells where everything is, or anywhere."""
    if source.randrange(3) == 0:
        return mutated(data, source, others=tuple(PARQUETS.values()))
    length = int.from_bytes(data[-8:-4], "little")
    footer = bytearray(data[-8 - length : -8])
    for _ in range(source.choice((1, 1, 2, 4))):
        place = source.randrange(len(footer))
        if source.randrange(4):
            footer[place] = source.choice(
                (footer[place] ^ 1 << source.randrange(8), source.randrange(256), 0, 0xFF, 0x7F)
            )
        else:
            footer = bytearray(mutated(bytes(footer), source)) or bytearray(1)
    return data[: -8 - length] + bytes(footer) + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.skipif(not PARQUETS, reason="needs pyarrow")
def test_tables_in_parquet(room: Path) -> None:
    samples = {f"{name}.parquet": data for name, data in PARQUETS.items()}
    attack_tables("tables in Parquet", samples, parquet_changed, room, 150)
