"""Labelled images as people have them: none is measured as something else without a word."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nshot.datasets.labelled import Columns, LabelledSet, open_labelled
from nshot.errors import LabelError, RequestError, SourceError
from nshot.images.remarks import Remarks
from nshot.images.sources import expand
from nshot.output.sorting.journal import JOURNAL

LABELS = {"star": "red", "heart": "blue", "fish": "green"}
ROWS = [(f"train/{label}{number}.png", label) for label in LABELS for number in range(2)]


def image(colour: str = "red") -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(held, "PNG")
    return held.getvalue()


def put(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image(colour))
    return path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Six images of three labels in train/."""
    for name, label in ROWS:
        put(tmp_path / name, LABELS[label])
    return tmp_path


def answers(data: LabelledSet) -> list[tuple[str, str]]:
    """(name, label) of each image, read."""
    found = []
    for source in data:
        assert source.read() == image(LABELS[(source.labels or ("",))[0]]), source
        found.append((Path(source.name).name, (source.labels or ("",))[0]))
    return sorted(found)


ALL = sorted((Path(name).name, label) for name, label in ROWS)


def comma(rows: Any = ROWS, header: str = "image,label") -> str:
    return "\n".join([header, *(f"{name},{label}" for name, label in rows)]) + "\n"


def lines(rows: Any, separator: str) -> str:
    return "\n".join(separator.join(row) for row in rows) + "\n"


def renamed(change: Callable[[str], str]) -> list[tuple[str, str]]:
    return [(change(name), label) for name, label in ROWS]


SPELLINGS: dict[str, tuple[str, bytes | str]] = {
    "semicolons": ("t.csv", lines([("image", "label"), *ROWS], ";")),
    "a sep line": ("t.csv", "sep=;\r\n" + lines([("image", "label"), *ROWS], ";")),
    "bars": ("t.csv", lines([("image", "label"), *ROWS], "|")),
    "tabs in a csv": ("t.csv", lines([("image", "label"), *ROWS], "\t")),
    "a byte order mark": ("t.csv", comma().encode("utf-8-sig")),
    "UTF-16": ("t.csv", comma().encode("utf-16")),
    "UTF-16, big end first": ("t.csv", b"\xfe\xff" + comma().encode("utf-16-be")),
    "UTF-16 without a mark": ("t.csv", comma().encode("utf-16-le")),
    "UTF-32": ("t.csv", comma().encode("utf-32")),
    "old Mac lines": ("t.csv", comma().replace("\n", "\r")),
    "everything quoted": (
        "t.csv",
        lines([('"image"', '"label"'), *((f'"{a}"', f'"{b}"') for a, b in ROWS)], ", "),
    ),
    "blank rows and empty cells behind": ("t.csv", comma().replace("\n", ",,\n\n")),
    "a comment above": ("t.csv", "# exported today\n" + comma()),
    "no header": ("t.csv", lines(ROWS, ",")),
    "a list with blanks": ("t.txt", lines(ROWS, " ")),
    "a row number in front": (
        "t.csv",
        ",image,label\n" + lines([(str(i), *row) for i, row in enumerate(ROWS)], ","),
    ),
    "a row number without a name": (
        "t.csv",
        "image,label\n" + lines([(str(i), *row) for i, row in enumerate(ROWS)], ","),
    ),
    "names in other words": ("t.csv", comma(header="File Name,Class-Name")),
    "an unknown label column": ("t.csv", comma(header="filename,breed")),
    "ids": ("t.csv", comma(renamed(lambda n: Path(n).stem), "id,breed")),
    "image_id": ("t.csv", comma(renamed(lambda n: Path(n).name), "image_id,label")),
    "without endings": ("t.csv", comma(renamed(lambda n: n.removesuffix(".png")))),
    "endings in capitals": ("t.csv", comma(renamed(lambda n: n.replace(".png", ".PNG")))),
    "Windows paths": ("t.csv", comma(renamed(lambda n: "C:\\data\\" + n.replace("/", "\\")))),
    "another machine's paths": ("t.csv", comma(renamed(lambda n: "/home/ann/shapes/" + n))),
    "a dot in front": ("t.csv", comma(renamed(lambda n: "./" + n))),
    "blanks around": ("t.csv", comma(renamed(lambda n: f"  {n} "))),
    "addresses of files": ("t.csv", comma(renamed(lambda n: "file:///mnt/x/" + n))),
    "labels with blanks around": ("t.csv", comma([(name, f" {label} ") for name, label in ROWS])),
    "lists of one": ("t.csv", comma([(name, f"['{label}']") for name, label in ROWS])),
    "one-hot": (
        "t.csv",
        "image,star,heart,fish\n" + lines([(n, *(str(int(b == c)) for c in LABELS)) for n, b in ROWS], ","),
    ),
    "one-hot with truths": (
        "t.csv",
        "image,star,heart,fish\n" + lines([(n, *(str(b == c) for c in LABELS)) for n, b in ROWS], ","),
    ),
    "lines of JSON": ("t.jsonl", "\n".join(json.dumps({"file_name": n, "label": b}) for n, b in ROWS)),
    "lines of JSON in a .json": ("t.json", "\n".join(json.dumps({"image": n, "label": b}) for n, b in ROWS)),
    "records": ("t.json", json.dumps([{"image": n, "label": b} for n, b in ROWS])),
    "records in an object": ("t.json", json.dumps({"data": [{"image": n, "label": b} for n, b in ROWS]})),
    "columns": (
        "t.json",
        json.dumps(
            {
                "image": {str(i): n for i, (n, _) in enumerate(ROWS)},
                "label": {str(i): b for i, (_, b) in enumerate(ROWS)},
            }
        ),
    ),
    "pandas' split form": ("t.json", json.dumps({"columns": ["image", "label"], "index": [], "data": ROWS})),
    "labels by name": ("t.json", json.dumps(dict(ROWS))),
    "names by label": ("t.json", json.dumps({c: [n for n, b in ROWS if b == c] for c in LABELS})),
    "COCO": (
        "annotations/t.json",
        json.dumps(
            {
                "images": [{"id": i, "file_name": n.removeprefix("train/")} for i, (n, _) in enumerate(ROWS)],
                "annotations": [
                    {"image_id": i, "category_id": list(LABELS).index(b) + 1} for i, (_, b) in enumerate(ROWS)
                ],
                "categories": [{"id": i + 1, "name": name} for i, name in enumerate(LABELS)],
            }
        ),
    ),
    "Label Studio": (
        "t.json",
        json.dumps(
            [
                {
                    "data": {"image": f"/data/upload/1/0a1b2c3d-{Path(n).name}"},
                    "annotations": [{"result": [{"type": "choices", "value": {"choices": [b]}}]}],
                }
                for n, b in ROWS
            ]
        ),
    ),
    "Label Studio, local files": (
        "t.json",
        json.dumps(
            [
                {
                    "data": {"image": f"/data/local-files/?d={n}"},
                    "annotations": [{"result": [{"type": "choices", "value": {"choices": [b]}}]}],
                }
                for n, b in ROWS
            ]
        ),
    ),
    "Label Studio's CSV": (
        "t.csv",
        "annotation_id,annotator,choice,image\n" + lines([("7", "1", b, n) for n, b in ROWS], ","),
    ),
    "VIA": (
        "t.json",
        json.dumps(
            {
                f"{n}123": {"filename": n, "size": 123, "regions": [], "file_attributes": {"kind": b}}
                for n, b in ROWS
            }
        ),
    ),
    "a project of VIA with regions": (
        "t.json",
        json.dumps(
            {
                "_via_img_metadata": {
                    n: {
                        "filename": n,
                        "regions": [{"region_attributes": {"shape": b}}],
                        "file_attributes": {},
                    }
                    for n, b in ROWS
                }
            }
        ),
    ),
    "VIA's CSV": (
        "t.csv",
        "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
        + "".join(f'{n},12,"{{""shape"":""{b}""}}",0,0,"{{}}","{{}}"\n' for n, b in ROWS),
    ),
    "Label Studio's short JSON": (
        "t.json",
        json.dumps([{"id": 1, "image": n, "shape": b, "annotator": 1, "annotation_id": 5} for n, b in ROWS]),
    ),
    "objects for labels": (
        "t.json",
        json.dumps([{"image": n, "label": {"id": 1, "name": b}} for n, b in ROWS]),
    ),
    "objects for images": ("t.json", json.dumps([{"image": {"path": n}, "label": b} for n, b in ROWS])),
    "CVAT": (
        "annotations.xml",
        "<annotations><version>1.1</version>"
        + "".join(
            f'<image id="{i}" name="{n}"><tag label="{b}" source="manual"></tag></image>'
            for i, (n, b) in enumerate(ROWS)
        )
        + "</annotations>",
    ),
    "Datumaro": (
        "t.json",
        json.dumps(
            {
                "categories": {"label": {"labels": [{"name": name} for name in LABELS]}},
                "items": [
                    {
                        "id": Path(n).stem,
                        "annotations": [{"type": "label", "label_id": list(LABELS).index(b)}],
                        "image": {"path": n},
                    }
                    for n, b in ROWS
                ],
            }
        ),
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_table_is_read_however_it_is_written(here: Path, spelling: str) -> None:
    name, content = SPELLINGS[spelling]
    (here / name).parent.mkdir(exist_ok=True)
    (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    data = open_labelled(here / name)
    assert sorted(data.classes or ()) == sorted(LABELS)
    assert answers(data) == ALL


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.csv", lines([(n, "x", b) for n, b in ROWS], ","), "none of its columns.*1, 2, 3"),
        ("t.csv", comma([(n, "0.0" if b == "star" else "1.0") for n, b in ROWS]), "numbers"),
        ("t.csv", comma([(n, "True" if b == "star" else "False") for n, b in ROWS]), "question"),
        ("t.csv", comma([(n, f"n0144{ord(b[0]):04}") for n, b in ROWS]), "WordNet"),
        ("t.csv", comma([(n, f"class_{ord(b[0])}") for n, b in ROWS]), "codes"),
        ("t.csv", comma([(n, n) for n, _ in ROWS]), "names of images"),
        ("t.csv", comma([(n, ("train", "test")[b == "star"]) for n, b in ROWS]), "parts of a data set"),
        ("t.csv", comma([(n, "star"), (n, "Star")] if (n := ROWS[0][0]) else []), "same label"),
        ("t.csv", comma(renamed(lambda n: "else/" + n.replace(".", "_"))), "--image-root"),
        ("t.csv", "source,label,cosine,margin,score\ntrain/star0.png,star,0.2,0.1,1\n", "answers of nshot"),
        ("t.csv", "", "empty"),
        ("t.csv", "<html><table><tr><td>image</td></tr></table>", "not a text table"),
        ("t.csv", "PK\x03\x04\0\0", "not a text table"),
        ("t.csv", "| image | label |\n|---|---|\n| train/star0.png | star |\n", "punctuation"),
        ("t.csv", "My export\n" + comma(), "line of names"),
        ("t.csv", "image,label\n", "no rows|names no image"),
        ("t.csv", comma([(n, "") for n, _ in ROWS]), "no row has a label"),
        ("t.xlsx", "PK", "spreadsheet.*CSV"),
        ("t.json", '{"a": {"b": 1}, "c": 2}', "no known form"),
        ("t.xml", "<annotation><object/></annotation>", "no known form"),
        ("t.xml", '<!DOCTYPE a [<!ENTITY x "y">]><annotations/>', "entities"),
    ],
)
def test_what_nobody_can_mean_is_refused_with_the_cause(
    here: Path, name: str, text: str, reason: str
) -> None:
    (here / name).write_text(text)
    with pytest.raises(RequestError, match=reason):
        open_labelled(here / name)


def test_an_unclosed_quotation_mark_swallows_no_row(here: Path) -> None:
    text = comma().replace("train/star1.png,star", 'train/star1.png,"star')
    (here / "t.csv").write_text(text)
    data = open_labelled(here / "t.csv")
    assert answers(data) == ALL
    assert any("quotation mark" in note for note in data.remarks.news())
    (here / "t.csv").write_text(text.replace("train/fish0.png,fish", 'train/fish0.png,fish"'))
    assert answers(open_labelled(here / "t.csv")) == ALL


def test_a_cell_of_several_lines_is_one_cell(here: Path) -> None:
    text = comma(header="image,label,note").replace("star0.png,star", 'star0.png,star,"one\ntwo, three"')
    (here / "t.csv").write_text(text)
    assert answers(open_labelled(here / "t.csv")) == ALL


def test_a_row_with_a_cell_too_many_loses_its_label_and_is_told(here: Path) -> None:
    (here / "t.csv").write_text(comma().replace("heart1.png,heart", "heart1.png,heart, red"))
    data = open_labelled(here / "t.csv")
    assert len(answers(data)) == 5
    assert any("line 5 has 3 cells" in note for note in data.remarks.news())
    assert data.remarks.counts() == ["1 image has no label and is left out (1 empty)"]


def test_a_name_that_is_there_as_written_is_found_as_written(tmp_path: Path) -> None:
    for name in (" a.png", "b\\c.png", "d.png"):
        put(tmp_path / name, "blue")
    put(tmp_path / "a.png", "red")
    put(tmp_path / "b" / "c.png", "red")
    (tmp_path / "t.csv").write_text("image,label\n a.png,heart\nb\\c.png,heart\nd.png,heart\nd.png,star\n")
    sources = list(open_labelled(tmp_path / "t.csv"))
    assert [source.read() for source in sources] == [image("blue")] * 4


def test_a_name_that_could_be_two_files_is_neither(tmp_path: Path) -> None:
    for name in ("one/a.png", "two/a.png", "one/b.png"):
        put(tmp_path / name)
    (tmp_path / "t.csv").write_text("image,label\na.png,star\nb.png,heart\n")
    bad, good = open_labelled(tmp_path / "t.csv")
    assert good.read() == image()
    with pytest.raises(Exception, match="could be"):
        bad.read()
    first, _ = open_labelled(tmp_path / "t.csv", image_root=tmp_path / "one")
    assert first.read() == image()
    with pytest.raises(SourceError, match="no such folder"):
        open_labelled(tmp_path / "t.csv", image_root=tmp_path / "three")


def test_numbers_and_truths_have_the_names_that_are_given(here: Path) -> None:
    order = list(LABELS)
    (here / "t.csv").write_text(comma([(n, f"{order.index(b)}.0") for n, b in ROWS]))
    assert answers(open_labelled(here / "t.csv", columns=Columns(names=order))) == ALL
    (here / "t.csv").write_text(comma([(n, str(order.index(b) + 5)) for n, b in ROWS]))
    numbers = {place + 5: name for place, name in enumerate(order)}
    assert answers(open_labelled(here / "t.csv", columns=Columns(names=order, numbers=numbers))) == ALL


def test_numbers_that_count_from_one_are_said(here: Path) -> None:
    (here / "t.csv").write_text(comma([(n, "1" if b == "heart" else "2") for n, b in ROWS]))
    notes = open_labelled(here / "t.csv", columns=Columns(names=list(LABELS))).remarks.news()
    assert any("numbers from 1" in note and "'heart'" in note for note in notes)


def test_a_column_of_words_beside_the_numbers_is_preferred_and_said(here: Path) -> None:
    (here / "t.csv").write_text("image,label,label_name\n" + lines([(n, "7", b) for n, b in ROWS], ","))
    data = open_labelled(here / "t.csv")
    assert answers(data) == ALL
    assert any("'label_name'" in note for note in data.remarks.news())


def test_rows_of_parts_are_said_and_chosen(here: Path) -> None:
    parts = [("train", "valid")[number % 2] for number in range(len(ROWS))]
    (here / "t.csv").write_text(
        "image,label,split\n" + lines([(*row, part) for row, part in zip(ROWS, parts, strict=True)], ",")
    )
    data = open_labelled(here / "t.csv")
    assert answers(data) == ALL
    assert any("3 train, 3 valid" in note for note in data.remarks.news())
    assert len(answers(open_labelled(here / "t.csv", split="validation"))) == 3
    with pytest.raises(SourceError, match="no rows of 'test'"):
        open_labelled(here / "t.csv", split="test")


def test_labels_of_another_encoding_are_refused_and_those_of_western_europe_said(here: Path) -> None:
    (here / "t.csv").write_bytes(comma([(n, "звезда") for n, _ in ROWS]).encode("cp1251"))
    with pytest.raises(LabelError, match="another encoding"):
        open_labelled(here / "t.csv")
    (here / "t.csv").write_bytes(comma([(n, "étoile") for n, _ in ROWS]).encode("cp1252"))
    data = open_labelled(here / "t.csv")
    assert data.classes == ("étoile",)
    assert any("Windows-1252" in note for note in data.remarks.news())


def test_an_image_that_is_named_in_several_rows_is_said(here: Path) -> None:
    (here / "t.csv").write_text(comma([*ROWS, (ROWS[0][0], "heart")]))
    notes = open_labelled(here / "t.csv").remarks.news()
    assert any("1 of the rows" in note and "1 of them with another label" in note for note in notes)


def test_labels_that_look_like_lists_are_said(here: Path) -> None:
    (here / "t.csv").write_text(comma([(n, f"{b}|thing") for n, b in ROWS]))
    notes = open_labelled(here / "t.csv").remarks.news()
    assert any("--label-separator '|'" in note for note in notes)
    (here / "t.csv").write_text(comma([(n, f"{b} thing") for n, b in ROWS], "image,tags"))
    notes = open_labelled(here / "t.csv").remarks.news()
    assert any("--label-separator ' '" in note for note in notes)


# Folders and archives


def folders(top: Path, *names: str) -> Path:
    for name in names:
        for label, colour in LABELS.items():
            put(top / name.format(label) / "1.png", colour)
    return top


@pytest.mark.parametrize(
    "names",
    [
        ("train/{}", "val/{}", "test/{}"),
        ("Train/{}", "Valid/{}"),
        ("training_set/{}", "test_set/{}"),
        ("seg_train/seg_train/{}", "seg_test/seg_test/{}"),
        ("data/train/{}", "data/test/{}"),
        ("train2017/{}", "val2017/{}"),
        ("{}/train", "{}/test"),
        ("inner/{}",),
        ("DEV/{}", "TESTING/{}"),
        ("{}",),
    ],
)
def test_parts_and_wrappings_are_no_labels(tmp_path: Path, names: tuple[str, ...]) -> None:
    data = open_labelled(folders(tmp_path, *names))
    assert data.classes == ("fish", "heart", "star")
    assert [label for _, label in answers(data)] == ["fish", "heart", "star"]
    assert bool(data.remarks.news()) == (names != ("{}",))


def test_a_part_can_be_named(tmp_path: Path) -> None:
    top = folders(tmp_path, "train/{}", "val/{}", "test/{}")
    for split in ("train", "val", "validation", "test"):
        assert len(answers(open_labelled(top, split=split))) == 3
    assert {Path(s.name).parts[-3] for s in open_labelled(top, prefer=("train", "val", "test"))} == {"train"}
    with pytest.raises(SourceError, match="no part 'extra'"):
        open_labelled(top, split="extra")


def test_a_class_that_is_called_test_is_a_class(tmp_path: Path) -> None:
    for name in ("test", "exam", "quiz"):
        put(tmp_path / name / "1.png")
    assert open_labelled(tmp_path).classes == ("exam", "quiz", "test")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("photo/{}", "sketch/{}"), "--domain-folders"),
        (("images",), "no folder per label|boxes"),
        (("0", "1", "2"), "numbers"),
        (("n01440764", "n01443537"), "WordNet"),
        (("fold1", "fold2"), "codes"),
        (("2021-01", "2021-02", "2021-03"), "codes"),
        (("100APPLE", "101APPLE"), "codes"),
        (("images", "masks"), "no folder per label"),
        (("original", "resized", "thumbnails"), "no folder per label"),
        (("a/train/{}", "a/test/{}", "b/train/{}", "b/test/{}"), "several data sets"),
        (("train/{}", "unlabeled"), "looks like a part"),
    ],
)
def test_folders_that_are_no_labels_are_refused(tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    folders(tmp_path, *names)
    with pytest.raises(RequestError, match=reason):
        open_labelled(tmp_path)


def test_numbered_folders_have_the_names_that_are_given(tmp_path: Path) -> None:
    for number, colour in enumerate(LABELS.values()):
        put(tmp_path / str(number) / "1.png", colour)
    data = open_labelled(tmp_path, columns=Columns(names=list(LABELS)))
    assert [label for _, label in answers(data)] == ["fish", "heart", "star"]


def test_boxes_beside_images_are_no_labels(tmp_path: Path) -> None:
    for part in ("train", "val"):
        put(tmp_path / part / "images" / "1.png")
        (tmp_path / part / "labels").mkdir()
        (tmp_path / part / "labels" / "1.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(SourceError, match="boxes"):
        open_labelled(tmp_path)


def test_one_part_of_images_with_boxes_is_no_label(tmp_path: Path) -> None:
    put(tmp_path / "images" / "train" / "1.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(SourceError, match="boxes"):
        open_labelled(tmp_path)


def test_numbers_that_are_written_as_texts_have_their_names_in_coco(tmp_path: Path) -> None:
    put(tmp_path / "1.png")
    content = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "annotations": [{"image_id": "1", "category_id": "2"}],
        "categories": [{"id": 2, "name": "star"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    assert open_labelled(tmp_path / "coco.json").classes == ("star",)


@pytest.mark.parametrize("left", [".gitkeep", "Thumbs.db", "README", "notes.txt", ".DS_Store", "clip.mp4"])
def test_a_folder_without_an_image_is_a_label_without_one(tmp_path: Path, left: str) -> None:
    (folders(tmp_path, "{}") / "moon").mkdir()
    (tmp_path / "moon" / left).write_text("some words")
    data = open_labelled(tmp_path)
    assert data.classes == ("fish", "heart", "moon", "star")
    assert len(answers(data)) == 3


def test_a_folder_called_none_or_na_is_a_label(tmp_path: Path) -> None:
    for name in ("none", "NA", "nan"):
        put(tmp_path / name / "1.png")
    assert [source.labels for source in open_labelled(tmp_path)] == [("NA",), ("nan",), ("none",)]


def test_images_beside_the_folders_of_labels_are_counted(tmp_path: Path) -> None:
    put(folders(tmp_path, "{}") / "loose.png")
    data = open_labelled(tmp_path)
    assert len(answers(data)) == 3
    assert "1 image has no label" in data.remarks.counts()[0]


def test_a_folder_that_sort_made_is_not_read_as_labels(tmp_path: Path) -> None:
    (folders(tmp_path, "{}") / ".nshot-sort.jsonl").write_text("{}")
    with pytest.raises(SourceError, match="nshot sort"):
        open_labelled(tmp_path)
    assert (tmp_path / JOURNAL).is_file()  # the name that nshot sort gives it


def test_a_list_in_the_folder_says_what_its_images_are(here: Path) -> None:
    (here / "train" / "metadata.csv").write_text(comma(renamed(lambda n: Path(n).name), "file_name,label"))
    for folder in (here, here / "train"):
        assert answers(open_labelled(folder)) == ALL
    (here / "train" / "metadata.csv").rename(here / "train" / "labels.csv")
    with pytest.raises(SourceError, match=r"labels\.csv says what each image is"):
        open_labelled(here / "train")


def test_labels_in_names_are_read_by_a_pattern_and_suggested(tmp_path: Path) -> None:
    for label, colour in LABELS.items():
        for number in range(2):
            put(tmp_path / f"{label}.{number}.png", colour)
    with pytest.raises(SourceError, match=r"--label-pattern '\{label\}\.\*'"):
        open_labelled(tmp_path)
    put(tmp_path / "readme.png")
    data = open_labelled(tmp_path, label_pattern="{label}.*.png")
    assert len(answers(data)) == 6
    assert "named otherwise" in data.remarks.counts()[0]
    regex = r"(?P<label>[a-z]+)\.\d"
    assert len(answers(open_labelled(tmp_path, label_pattern=regex))) == 6
    for pattern in ("x_*", "{label}_{label}", "(?P<label>["):
        with pytest.raises(SourceError, match="label-pattern"):
            open_labelled(tmp_path, label_pattern=pattern)


def test_an_archive_of_folders_is_read_like_folders(tmp_path: Path) -> None:
    folders(tmp_path / "t", "shapes/{}")
    put(tmp_path / "t" / "__MACOSX" / "star" / "x.png")
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for path in sorted((tmp_path / "t").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "t"))
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "t" / "shapes", "shapes")
    for name in ("t.zip", "t.tar.gz"):
        data = open_labelled(tmp_path / name)
        assert data.classes == ("fish", "heart", "star")
        assert [label for _, label in answers(data)] == ["fish", "heart", "star"]


def shard(path: Path, samples: list[dict[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, sample in enumerate(samples):
            for ending, data in sample.items():
                info = tarfile.TarInfo(f"{number:06}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("ending", ["cls", "txt", "json"])
def test_webdataset_shards_are_streamed_with_their_labels(tmp_path: Path, ending: str) -> None:
    said: dict[str, Callable[[str], bytes]] = {
        "cls": lambda b: str(list(LABELS).index(b)).encode(),
        "txt": str.encode,
        "json": lambda b: json.dumps({"label": b}).encode(),
    }
    samples = [{"png": image(colour), ending: said[ending](label)} for label, colour in LABELS.items()]
    shard(tmp_path / "s" / "0.tar", samples)
    shard(tmp_path / "s" / "1.tar", samples[:1])
    if ending == "cls":
        with pytest.raises(LabelError, match="numbers"):
            open_labelled(tmp_path / "s")
        (tmp_path / "s" / "classnames.txt").write_text("\n".join(LABELS))
    assert len(answers(open_labelled(tmp_path / "s"))) == 4
    assert len(answers(open_labelled(tmp_path / "s" / "1.tar"))) == 1


def test_parquet_in_a_folder_is_read_shard_by_shard(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    for split in ("train", "test"):
        table = pa.table(
            {"image": [{"bytes": image(c), "path": None} for c in LABELS.values()], "label": list(LABELS)}
        )
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    data = open_labelled(tmp_path)
    assert sorted((s.labels or ("",))[0] for s in data) == sorted(LABELS)
    assert any("'test'" in note for note in data.remarks.news())


# What is an image


def leftovers(top: Path) -> None:
    for name in ("a.xmp", "b.xmp", "c.mp4", "d.json", "Thumbs.db", "README", "e.docx", "f.zip"):
        (top / name).write_bytes(b"just text" if name == "README" else b"\0\1")
    put(top / "__MACOSX" / "x.png")


def test_what_is_no_image_in_a_folder_is_skipped_and_counted(tmp_path: Path) -> None:
    put(tmp_path / "photo.png")
    leftovers(tmp_path)
    remarks = Remarks()
    assert [Path(s.name).name for s in expand([tmp_path], remarks=remarks)] == ["photo.png"]
    assert remarks.counts() == [
        "skipped 9: 2 .xmp, 1 .json, 1 Thumbs.db, 1 __MACOSX, 1 archives, 1 documents, 1 text, 1 video"
    ]
    strict = list(expand([tmp_path], strict=True))
    assert len(strict) == 9
    with pytest.raises(Exception, match=r"no image, by its name \(\.xmp\)"):
        next(s for s in strict if s.name.endswith("a.xmp")).read()


def test_what_claims_to_be_an_image_or_is_named_alone_is_not_skipped(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no image")
    (tmp_path / "video.mp4").write_text("no image")
    assert len(list(expand([tmp_path]))) == 1
    assert len(list(expand([tmp_path / "video.mp4", tmp_path / "broken.jpg"]))) == 2
    (tmp_path / "broken.jpg").unlink()
    with pytest.raises(SourceError, match="holds no images: skipped 1: 1 video"):
        expand([tmp_path])


def test_leftovers_in_an_archive_are_counted_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a.png", image())
        archive.writestr("a.xmp", "x")
        archive.writestr("LICENSE", "some words")
    remarks = Remarks()
    assert len(list(expand([tmp_path / "t.zip"], remarks=remarks))) == 1
    assert remarks.counts() == ["skipped 2: 1 .xmp, 1 text"]


def test_takeouts_json_beside_photographs_costs_nothing(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / f"IMG_{number}.png")
        (tmp_path / f"IMG_{number}.png.json").write_text("{}")
        (tmp_path / f"IMG_{number}.png.supplemental-metadata.json").write_text("{}")
    assert len(list(expand([tmp_path]))) == 3
