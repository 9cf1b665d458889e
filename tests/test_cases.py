"""Inputs that people really have, recorded beside the repository: right answers, or a word about why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nshot.cli import run

CASES = Path(__file__).parents[2] / "shared" / "cases"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="needs the recorded cases in shared/")

Nshot = Callable[..., tuple[int, str, str]]


@pytest.fixture
def nshot(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Nshot:
    """Runs a command inside a case's folder, with the sketchbook: exit status, stdout, stderr."""

    def call(case: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(CASES / case)
        status = run([*map(str, arguments), "--model", "sketchbook"])
        out, err = capfd.readouterr()
        return status, out, err

    return call


def right(out: str, images: int, labels: int) -> bool:
    """Whether all of so many images of so many labels were answered rightly."""
    return f"{images} images, {labels} labels" in out and "top-1                  100.0 %" in out


@pytest.mark.parametrize(("folder", "labels"), [("shapes", 4), ("unpacked", 3)])
def test_a_folder_of_hidden_files_is_an_empty_class_or_none(
    nshot: Nshot, tmp_path: Path, folder: str, labels: int
) -> None:
    case = "class-folder-of-hidden-files"
    status, out, err = nshot(case, "evaluate", folder)
    assert (status, right(out, 6, labels)) == (0, True)
    assert ("__MACOSX" in err) == (folder == "unpacked")
    assert nshot(case, "fit", folder, "-o", tmp_path / "c.nshot")[0] == 0
    assert nshot(case, "calibrate", folder, "--wrong", "0.4")[0] == 0
    assert nshot(case, "curve", folder, "--shots", "0,1", "--draws", "1")[0] == 0
    robustness = ("robustness", folder, "--corruptions", "none", "-o", tmp_path / "r")
    assert nshot(case, *robustness)[0] == 0


@pytest.mark.parametrize(
    "data", ["shapes", "shapes/train", "lines", "lines/train", "lines/train/metadata.jsonl"]
)
def test_a_list_beside_the_images_says_what_they_are(nshot: Nshot, data: str) -> None:
    status, out, err = nshot("folder-with-a-list-of-labels", "evaluate", data)
    assert (status, right(out, 6, 3)) == (0, True)
    assert data.endswith("jsonl") or "metadata" in err


@pytest.mark.parametrize("command", ["evaluate", "fit", "calibrate", "curve", "robustness"])
@pytest.mark.parametrize("data", ["shapes", "."])
def test_parts_of_a_data_set_are_no_labels(nshot: Nshot, tmp_path: Path, command: str, data: str) -> None:
    options: dict[str, list[object]] = {
        "fit": ["-o", tmp_path / "c.nshot"],
        "robustness": ["-o", tmp_path / "r", "--corruptions", "none"],
        "curve": ["--shots", "0,1", "--draws", "1"],
        "calibrate": ["--wrong", "0.4"],
    }
    status, out, err = nshot("split-folders", command, data, *options.get(command, []))
    assert status == 0
    part = {"evaluate": "test", "robustness": "test", "calibrate": "val"}.get(command, "train")
    assert f"images are those of the part '{part}' of " in err
    assert command != "evaluate" or right(out, 6, 3)


def test_one_part_is_read_as_it_is(nshot: Nshot) -> None:
    status, out, err = nshot("split-folders", "evaluate", "shapes/test")
    assert (status, right(out, 6, 3), err) == (0, True, "")


@pytest.mark.parametrize(
    ("table", "images", "word"),
    [
        ("ids.csv", 6, "train/"),
        ("image_ids.csv", 6, "train/"),
        ("backslashes.csv", 6, "backslashes"),
        ("elsewhere.csv", 6, "'/mnt/data/shapes/'"),
        ("spaces.csv", 6, "blanks"),
        ("no_header.csv", 6, "no header"),
        ("one_hot.csv", 6, "STAR, HEART, FISH"),
        ("utf16.csv", 6, "UTF-16"),
        ("windows.csv", 6, "Windows-1252"),
        ("one_unlabelled.csv", 5, "1 image has no label"),
    ],
)
def test_a_table_that_names_images_otherwise_is_read_and_it_is_said_how(
    nshot: Nshot, table: str, images: int, word: str
) -> None:
    status, out, err = nshot("tables-that-name-pictures-otherwise", "evaluate", table)
    assert status == 0
    assert f"{images} images, 3 labels" in out
    assert word in err


def test_the_folder_of_a_tables_images_can_be_named(nshot: Nshot) -> None:
    case = "tables-that-name-pictures-otherwise"
    status, out, err = nshot(case, "evaluate", "image_ids.csv", "--image-root", "train")
    assert (status, right(out, 6, 3), err) == (0, True, "")
    shown = nshot(case, "classify", "image_ids.csv", "--image-root", "train", "--labels", "star, heart, fish")
    assert shown[0] == 0
    assert nshot(case, "evaluate", "image_ids.csv", "--image-root", "nowhere")[0] == 2


@pytest.mark.parametrize("table", ["decimals.csv", "whole.csv"])
def test_numbers_that_became_decimals_are_numbers(nshot: Nshot, table: str) -> None:
    case = "labels-that-became-decimals"
    status, _, err = nshot(case, "evaluate", table)
    assert status == 2
    assert "numbers" in err
    assert "--labels-file" in err
    status, out, _ = nshot(case, "evaluate", table, "--labels-file", "names.txt")
    assert (status, right(out, 9, 3)) == (0, True)


def test_true_and_false_are_no_labels(nshot: Nshot) -> None:
    status, _, err = nshot(
        "labels-that-became-decimals", "evaluate", "truth.csv", "--label-column", "is_star"
    )
    assert status == 2
    assert "True" in err


def answers(out: str) -> dict[str, str]:
    return {Path(row["source"]).stem: row["label"] for row in map(json.loads, out.splitlines())}


@pytest.mark.parametrize(
    "file",
    [
        *("colons.txt", "data.yaml", "id2label.json", "labels.csv", "name_to_number.json", "numbered.txt"),
        *("one_column.csv", "quoted.txt", "utf16.txt"),
    ],
)
def test_labels_out_of_other_files_are_the_labels(nshot: Nshot, file: str) -> None:
    images = ("star.png", "heart.png", "fish.png")
    case = "labels-out-of-other-files"
    status, out, err = nshot(case, "classify", *images, "--labels-file", file, "--format", "jsonl")
    assert status == 0
    assert answers(out) == {"star": "star", "heart": "heart", "fish": "fish"}
    assert file in err


@pytest.mark.parametrize("file", ["line.txt", "tabs.txt", "labels.txt"])
def test_labels_in_one_line_are_taken_apart_and_it_is_said(nshot: Nshot, file: str) -> None:
    images = ("star.png", "heart.png", "fish.png")
    status, out, err = nshot(
        "one-label-by-accident", "classify", *images, "--labels-file", file, "--format", "jsonl"
    )
    assert status == 0
    assert answers(out) == {"star": "star", "heart": "heart", "fish": "fish"}
    assert ("taken apart" in err) == (file != "labels.txt")


@pytest.mark.parametrize("labels", ["star;heart;fish", "star|heart|fish", "star\theart", "labels.txt"])
def test_one_label_that_was_meant_as_several_is_refused(nshot: Nshot, labels: str) -> None:
    status, out, err = nshot("one-label-by-accident", "classify", "star.png", "--labels", labels)
    assert (status, out) == (2, "")
    assert "label" in err


def test_a_lone_label_gets_a_word_unless_a_rule_rejects(nshot: Nshot) -> None:
    case = "one-label-by-accident"
    status, _, err = nshot(case, "classify", "star.png", "--labels-file", "one.txt")
    assert status == 0
    assert "nothing to choose" in err
    status, _, err = nshot(case, "classify", "star.png", "--labels-file", "one.txt", "--reject", "background")
    assert (status, err) == (0, "")


@pytest.mark.parametrize("command", ["evaluate", "fit", "calibrate", "curve"])
def test_one_label_alone_is_not_measured(nshot: Nshot, tmp_path: Path, command: str) -> None:
    (tmp_path / "star").mkdir()
    (tmp_path / "star" / "1.png").write_bytes((CASES / "one-label-by-accident" / "star.png").read_bytes())
    more = ["-o", tmp_path / "c.nshot"] if command == "fit" else []
    status, out, err = nshot("one-label-by-accident", command, tmp_path, *more)
    assert (status, out) == (2, "")
    assert "one label alone" in err
