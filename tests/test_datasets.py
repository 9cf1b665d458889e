"""Labelled images: folders, tables, and the Hub's Parquet from a stand-in."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, hub_server
from PIL import Image

from nshot.datasets.labelled import Columns, open_labelled
from nshot.errors import HubUnavailable, LabelError, SourceError
from nshot.images.sources import Source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def image(colour: str) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(held, "PNG")
    return held.getvalue()


def put(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image(colour))


def labels(examples: Any) -> list[tuple[str, ...]]:
    return [example.labels for example in examples]


def write_parquet(path: Path, rows: list[tuple[str, Any]], names: list[str] | None = None) -> None:
    """As the Hub's tools write them: an image struct, and the labels' names in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": image(colour), "path": f"{colour}.png"} for colour, _ in rows]
    table = pa.table({"image": images, "label": [label for _, label in rows]})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        held = json.dumps({"info": {"features": features}}).encode()
        table = table.replace_schema_metadata({b"huggingface": held})
    pq.write_table(table, path)


def test_a_folder_of_classes_takes_its_labels_from_the_folders(tmp_path: Path) -> None:
    put(tmp_path / "dog" / "1.png")
    put(tmp_path / "cat" / "deep" / "2.png")
    (tmp_path / "nothing yet").mkdir()
    data = open_labelled(tmp_path)
    assert data.classes == ("cat", "dog", "nothing yet")
    assert labels(data) == [("cat",), ("dog",)]
    assert labels(data) == [("cat",), ("dog",)]  # listed afresh
    assert [e.name for e in data][1] == str(tmp_path / "dog" / "1.png")
    assert next(iter(data)).read() == image("red")


def test_folders_of_domains_hold_folders_of_classes(tmp_path: Path) -> None:
    put(tmp_path / "photo" / "cat" / "1.png")
    put(tmp_path / "sketch" / "cat" / "1.png")
    data = open_labelled(tmp_path, domain_folders=True)
    assert data.classes == ("cat",)
    assert [e.domain for e in data] == ["photo", "sketch"]


def test_a_folder_without_folders_says_where_labels_come_from(tmp_path: Path) -> None:
    put(tmp_path / "1.png")
    with pytest.raises(SourceError, match=r"label/image\.jpg"):
        open_labelled(tmp_path)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_text_table_has_images_labels_and_domains_in_columns(tmp_path: Path, separator: str) -> None:
    put(tmp_path / "a.png")
    suffix = ".tsv" if separator == "\t" else ".csv"
    table = (tmp_path / "test").with_suffix(suffix)
    rows = [["path", "species", "from"], ["a.png", "fox", "zoo"], [], ["b.png", "owl", ""]]
    table.write_text("\n".join(separator.join(row) for row in rows))
    data = open_labelled(table, columns=Columns(label="species", domain="from"))
    assert data.classes == ("fox", "owl")
    assert [(e.labels, e.domain) for e in data] == [(("fox",), "zoo"), (("owl",), None)]
    assert next(iter(data)).read() == image("red")


def test_a_text_with_a_separator_holds_several_labels(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,label\na.png,cat|dog\nb.png,\n")
    data = open_labelled(tmp_path / "t.csv", columns=Columns(separator="|"))
    assert data.multi
    assert labels(data) == [("cat", "dog"), ()]


def test_a_row_without_a_label_is_left_out_and_counted(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,label\na.png,cat\nb.png,\nc.png,nan\n")
    data = open_labelled(tmp_path / "t.csv")
    assert labels(data) == [("cat",)]
    assert data.remarks.counts() == ["2 images have no label and are left out (1 empty, 1 'nan')"]


def test_numbers_need_names(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,label\na.png,1\nb.png,0.0\n")
    with pytest.raises(LabelError, match="numbers"):
        open_labelled(tmp_path / "t.csv")
    assert labels(open_labelled(tmp_path / "t.csv", columns=Columns(names=["cat", "dog"]))) == [
        ("dog",),
        ("cat",),
    ]
    numbered = Columns(names=["cat", "dog"], numbers={1: "cat", 2: "dog"})
    with pytest.raises(SourceError, match=r"label 0\.0, but there are 2 names, for 1 to 2"):
        open_labelled(tmp_path / "t.csv", columns=numbered)


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,what,when\na.png,cat,now\n")
    with pytest.raises(SourceError, match=r"path, what, when.*--label-column"):
        open_labelled(tmp_path / "t.csv")
    with pytest.raises(SourceError, match="no column 'kind'"):
        open_labelled(tmp_path / "t.csv", columns=Columns(label="kind"))


def test_parquet_brings_its_images_and_the_names_of_its_labels(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", [("red", 1), ("blue", 0)], ["cat", "dog"])
    data = open_labelled(tmp_path / "t.parquet")
    assert data.classes == ("cat", "dog")
    assert labels(data) == [("dog",), ("cat",)]
    assert [source.read() for source in data] == [image("red"), image("blue")]


def test_lists_in_parquet_are_several_labels(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", [("red", ["cat", "dog"]), ("blue", [])])
    data = open_labelled(tmp_path / "t.parquet")
    assert data.multi
    assert labels(data) == [("cat", "dog"), ()]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        open_labelled(tmp_path / "nothing")


# The Hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", server.endpoint)
        yield server


def converted(hub: Hub, tmp_path: Path) -> None:
    main, copy = tmp_path / "main", tmp_path / "copy"
    main.mkdir()
    (main / "tiny.py").write_text("raise SystemExit('a script ran')")
    for number, rows in enumerate([[("red", 1), ("blue", 0)], [("green", 1)]]):
        write_parquet(copy / "320px" / "validation" / f"000{number}.parquet", rows, ["cat", "dog"])
    write_parquet(copy / "320px" / "train" / "0000.parquet", [("red", 0)], ["cat", "dog"])
    write_parquet(copy / "full" / "train" / "0000.parquet", [("red", 0)], ["cat", "dog"])
    hub.models["datasets/owner/tiny"] = {"main": main, "refs/convert/parquet": copy}


def of_hub(**options: Any) -> list[Source]:
    return list(open_labelled("hf://owner/tiny", **options))


def test_a_script_repository_is_not_run_but_pointed_to_its_parquet(hub: Hub, tmp_path: Path) -> None:
    converted(hub, tmp_path)
    with pytest.raises(SourceError, match=r"loading script.*--revision refs/convert/parquet"):
        of_hub()


def test_the_hubs_parquet_is_read_shard_after_shard(hub: Hub, tmp_path: Path) -> None:
    converted(hub, tmp_path)
    data = open_labelled(
        "hf://owner/tiny", config="320px", split="validation", revision="refs/convert/parquet"
    )
    assert data.classes == ("cat", "dog")
    assert hub.downloaded == {"320px/validation/0000.parquet"}
    examples = list(data)
    assert hub.downloaded == {"320px/validation/0000.parquet", "320px/validation/0001.parquet"}
    assert labels(examples) == [("dog",), ("cat",), ("dog",)]
    assert [e.name for e in examples] == [f"hf://owner/tiny[{row}]" for row in range(3)]
    assert examples[2].read() == image("green")


def test_a_choice_that_must_be_made_names_what_there_is(hub: Hub, tmp_path: Path) -> None:
    converted(hub, tmp_path)
    where = {"revision": "refs/convert/parquet"}
    with pytest.raises(SourceError, match="--config, one of: 320px, full"):
        of_hub(**where)
    with pytest.raises(SourceError, match="--split, one of: train, validation"):
        of_hub(config="320px", **where)
    with pytest.raises(SourceError, match="no --split test; there is: train"):
        of_hub(config="full", split="test", **where)
    assert len(of_hub(config="full", **where)) == 1


def test_the_usual_layouts_of_shards_are_known(hub: Hub, tmp_path: Path) -> None:
    write_parquet(tmp_path / "m" / "data" / "test-00000-of-00001.parquet", [("red", "cat")])
    write_parquet(tmp_path / "m" / "data" / "train-00000-of-00001.parquet", [("red", "cat")] * 3)
    hub.models["datasets/owner/tiny"] = {"main": tmp_path / "m"}
    assert len(of_hub(split="test")) == 1
    assert len(of_hub(split="train")) == 3


def test_what_was_fetched_is_read_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    converted(hub, tmp_path)
    where = {"config": "320px", "split": "validation", "revision": "refs/convert/parquet"}
    assert len(of_hub(**where)) == 3
    hub.failing = True
    assert len(of_hub(**where)) == 3


def test_an_unknown_data_set_and_an_unreachable_hub_are_told_apart(hub: Hub) -> None:
    with pytest.raises(SourceError, match="no data set owner/tiny"):
        of_hub()
    hub.failing = True
    with pytest.raises(HubUnavailable, match="check the network"):
        of_hub()
