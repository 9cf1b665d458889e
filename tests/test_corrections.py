"""Labels in doubt, copies, corrections, and embeddings from elsewhere: what a person does with a report."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nshot.cli import run
from nshot.datasets.corrections import corrected, read_corrections
from nshot.datasets.labelled import open_labelled
from nshot.embeddings import Embeddings
from nshot.errors import LabelError, SourceError
from nshot.model import load
from nshot.search import copies, differently_labelled
from nshot.sketchbook import draw, sample

Nshot = Callable[..., tuple[int, str, str]]
LABELS = ("fish", "heart", "star")


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Nshot:
    """Runs a command with the sketchbook: exit status, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = run([*map(str, arguments), "--model", "sketchbook"])
        out, err = capfd.readouterr()
        return status, out, err

    return call


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Drawings of one plain shape, six of each label."""
    left = dict.fromkeys(LABELS, 6)
    for number in range(4000):
        scene = sample(number)
        label = scene.things[0].shape
        if scene.style == "flat" and len(scene.things) == 1 and left.get(label):
            left[label] -= 1
            path = tmp_path / "data" / label / f"{left[label]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(scene).save(path)
    return tmp_path / "data"


def unit(rows: list[list[float]], labels: list[str]) -> Embeddings:
    return Embeddings.of(np.array(rows), labels)


def test_copies_are_found_once_and_those_of_two_labels_are_told_apart() -> None:
    images = unit([[1, 0], [0, 1], [1, 0.001], [0, 1]], ["a", "b", "b", "b"])
    pairs = copies(images)
    assert [(each.row, each.other) for each in pairs] == [(0, 2), (1, 3)]
    assert [(each.row, each.other) for each in differently_labelled(images, pairs)] == [(0, 2)]
    other = unit([[0, 1]], ["b"])
    assert [(each.row, each.other) for each in copies(images, other)] == [(1, 0), (3, 0)]


def test_images_that_a_model_hardly_tells_apart_are_no_copies() -> None:
    assert copies(unit([[1, 0.0001 * row] for row in range(50)], ["a"] * 50)) == []


def test_doubts_are_written_corrected_and_read_back(command: Nshot, data: Path, tmp_path: Path) -> None:
    (data / "star" / "0.png").rename(data / "heart" / "wrong.png")
    shutil.copy(data / "fish" / "1.png", data / "star" / "copy.png")
    report = tmp_path / "report"
    status, out, err = command("evaluate", data, "-o", report)
    assert status == 0
    assert "labelled otherwise" in err
    with (report / "duplicates.csv").open() as file:
        (pair,) = csv.DictReader(file)
    assert {pair["label"], pair["copy_label"]} == {"fish", "star"}
    with (report / "doubts.csv").open() as file:
        rows = {Path(row["image"]).name: row for row in csv.DictReader(file)}
    assert rows["wrong.png"]["label"] == "heart"
    assert rows["wrong.png"]["suggested"] == "star"
    with (tmp_path / "right.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label"])
        table.writerow([data / "heart" / "wrong.png", "star"])
        table.writerow([data / "star" / "copy.png", ""])
    status, out, err = command("evaluate", data, "--corrections", tmp_path / "right.csv")
    assert status == 0
    assert "17 images have" not in err
    assert "18 images, 3 labels" in out
    assert "another label" in err
    assert command("fit", data, "--corrections", tmp_path / "right.csv", "-o", tmp_path / "c.nshot")[0] == 0


def test_images_that_were_learnt_from_are_found_among_those_measured_on(
    command: Nshot, data: Path, tmp_path: Path
) -> None:
    train = tmp_path / "train"
    for label in ("heart", "star"):
        (train / label).mkdir(parents=True)
        shutil.copy(data / label / "3.png", train / label / "again.png")
    status, _, err = command("evaluate", data, "--training", train, "-o", tmp_path / "r")
    assert status == 0
    assert "WARNING: 2 of the 18 images are in" in err
    with (tmp_path / "r" / "in-training.csv").open() as file:
        assert {Path(row["copy"]).name for row in csv.DictReader(file)} == {"again.png"}


def test_one_label_with_a_rule_gets_no_share_of_right_answers(command: Nshot, data: Path) -> None:
    shutil.rmtree(data / "fish")
    shutil.rmtree(data / "heart")
    status, out, _ = command("evaluate", data, "--reject", "background")
    assert status == 0
    assert "says nothing of one label" in out
    assert "of those right" not in out
    assert "chance" not in out
    assert "interval" not in out


def test_corrections_that_fit_nothing_are_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("image,label\nelsewhere.png,star\n")
    with pytest.raises(SourceError, match=r"corrects no image.*elsewhere\.png"):
        corrected(open_labelled(data), read_corrections(tmp_path / "r.csv"), "r.csv")


def test_labels_travel_into_a_file_of_vectors_and_back(command: Nshot, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for name in ("v.npz", "v.parquet"):
        assert command("embed", data, "--labelled", "-o", tmp_path / name)[0] == 0
        status, out, err = command("evaluate", tmp_path / name)
        assert (status, err) == (0, "")
        assert "18 images, 3 labels" in out
        assert command("fit", tmp_path / name, "-o", tmp_path / "c.nshot")[0] == 0
        assert command("evaluate", tmp_path / name, "--split", "test")[0] == 2
        assert command("calibrate", tmp_path / name, "--wrong", "0.4")[0] == 0


def test_vectors_from_elsewhere_are_measured_and_what_is_missing_is_said(
    command: Nshot, data: Path, tmp_path: Path
) -> None:
    assert command("embed", data, "--labelled", "-o", tmp_path / "v.npz")[0] == 0
    with np.load(tmp_path / "v.npz") as held:
        vectors, labels = held["vectors"], held["labels"]
    numbers = np.array([LABELS.index(label) for label in labels])
    file = tmp_path / "theirs.npz"
    np.savez(file, embeddings=vectors, y=numbers, class_names=np.array(LABELS))
    status, out, err = command("evaluate", file, "-o", tmp_path / "r")
    assert status == 0
    assert "18 images, 3 labels" in out
    assert "does not say which model" in err
    np.savez(file, embeddings=vectors, y=numbers)
    with pytest.raises(LabelError, match="numbers"):
        open_labelled(file)
    (tmp_path / "names.txt").write_text("\n".join(LABELS))
    assert "18 images" in command("evaluate", file, "--labels-file", tmp_path / "names.txt")[1]
    np.savez(file, embeddings=vectors)
    assert "without labels" in command("evaluate", file)[2]
    np.savez(file, embeddings=vectors, labels=labels[:-1])
    assert "17 labels" in command("evaluate", file)[2]
    np.savez(file, embeddings=vectors[:, :10], labels=labels)
    status, _, err = command("evaluate", file)
    assert status == 2
    assert "10 long" in err


def test_vectors_without_their_images_are_not_made_worse(command: Nshot, data: Path, tmp_path: Path) -> None:
    assert command("embed", data, "--labelled", "-o", tmp_path / "v.npz")[0] == 0
    shutil.rmtree(data)
    robustness = ("robustness", tmp_path / "v.npz", "-o", tmp_path / "r", "--corruptions")
    status, _, err = command(*robustness, "noise")
    assert status == 2
    assert "--corruptions none" in err
    assert command(*robustness, "none")[0] == 0


def test_label_vectors_from_elsewhere_answer_in_the_place_of_prompts(
    command: Nshot, data: Path, tmp_path: Path
) -> None:
    assert command("embed", data, "--labelled", "-o", tmp_path / "v.npz")[0] == 0
    with np.load(tmp_path / "v.npz") as held:
        vectors, labels = held["vectors"], held["labels"]
    means = np.stack([vectors[labels == label].mean(axis=0) for label in LABELS])
    file = tmp_path / "rows.npz"
    np.savez(file, vectors=means, labels=np.array(LABELS))
    status, out, _ = command("evaluate", data, "--label-vectors", file)
    assert status == 0
    assert "18 images, 3 labels" in out
    status, out, _ = command("classify", data / "star", "--label-vectors", file, "--format", "jsonl")
    assert (status, out.count('"label": "star"') >= 4) == (0, True)
    np.savez(file, vectors=means)
    assert "which label" in command("classify", data, "--label-vectors", file)[2]
    np.savez(file, vectors=means[:, :5], labels=np.array(LABELS))
    assert command("classify", data, "--label-vectors", file)[0] == 2
    assert command("classify", data, "--label-vectors", file, "--labels", "star, fish")[0] == 2


def test_a_table_that_nshot_wrote_is_read_again_odd_names_and_all(
    command: Nshot, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("=sum.png", "two\nlines.png", "-dash.png")):
        shutil.copy(data / "star" / f"{number}.png", name)
    (tmp_path / "answers").mkdir()
    asked = ["=sum.png", "two\nlines.png", "./-dash.png", "data/heart/1.png", "data/fish/1.png"]
    written = ("classify", *asked, "--labels", ",".join(LABELS), "-o", "answers/answers.csv")
    assert command(*written)[0] == 0
    with Path("answers/answers.csv").open(newline="") as file:
        checked = [[row[0], row[1]] for row in csv.reader(file)]
    for table in ("here.csv", "answers/answers.csv"):
        with Path(table).open("w", newline="") as file:
            csv.writer(file).writerows(checked)
    status, out, err = command("evaluate", "here.csv")
    assert (status, "5 images, 3 labels" in out) == (0, True), err
    for name in ("=sum.png", "two\nlines.png", "-dash.png"):
        shutil.copy(name, tmp_path / "answers")
    status, out, err = command("evaluate", "answers/answers.csv")
    assert (status, "5 images, 3 labels" in out) == (0, True), err
    assert "relative to the working folder" in err


def test_no_command_writes_over_what_it_reads(command: Nshot, data: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("image,label\n" + "".join(f"data/{label}/0.png,{label}\n" for label in LABELS))
    before = table.read_bytes()
    (tmp_path / "doubts.csv").write_bytes(before)
    for arguments in (
        ("fit", table, "-o", table),
        ("calibrate", table, "-o", table),
        ("calibrate", table, "--report", table),
        ("embed", table, "-o", table),
        ("fit", data, "--labels-file", table, "-o", table),
        ("search", table, "--text", "a star", "-o", table),
        ("evaluate", data, "-o", data),
        ("evaluate", data, "--corrections", tmp_path / "doubts.csv", "-o", tmp_path),
    ):
        status, _, err = command(*arguments)
        assert (status, "read by this command" in err) == (2, True), (arguments, err)
    assert table.read_bytes() == before


def test_a_notebook_is_told_what_was_skipped_in_a_folder(data: Path) -> None:
    (data / "star" / "0.xmp").write_text("<x/>")
    (data / "star" / "clip.mp4").write_bytes(bytes(64))
    photos = load("sketchbook").embed(data)
    assert len(photos) == 18
    assert photos.remarks == ("skipped 2: 1 .xmp, 1 video",)
    assert "skipped 2" in repr(photos)
    labelled = load("sketchbook").embed(open_labelled(data))
    assert labelled.remarks == ("skipped 2: 1 .xmp, 1 video",)


def test_sort_lists_its_images_like_every_command(command: Nshot, data: Path, tmp_path: Path) -> None:
    (data / "star" / "0.xmp").write_text("<x/>")
    labels = ("--labels", ",".join(LABELS), "--reject", "off")
    status, _, err = command("sort", data, tmp_path / "sorted", *labels)
    assert (status, "skipped 1: 1 .xmp" in err) == (0, True)
    status, _, err = command("sort", data, tmp_path / "sorted", *labels, "--strict")
    assert (status, "0.xmp: no image, by its name" in err) == (1, True)
    table = tmp_path / "elsewhere" / "list.csv"
    table.parent.mkdir()
    table.write_text("image\nstar/1.png\nfish/1.png\n")
    status, out, _ = command("sort", table, tmp_path / "sorted", *labels, "--image-root", data)
    assert (status, "2 images would be sorted" in out) == (0, True)


def test_captions_in_the_place_of_labels_are_said(command: Nshot, data: Path) -> None:
    rows = [f"star/{number}.png,a red star seen from the side {number}" for number in range(6)]
    table = data / "captions.csv"
    table.write_text("\n".join(["image,caption", *rows]))
    status, _, err = command("evaluate", table)
    assert status == 0
    assert "look like captions" in err


def test_an_ending_that_search_does_not_write_is_refused(command: Nshot, data: Path, tmp_path: Path) -> None:
    for ending in (".json", ".tsv", ".xlsx"):
        status, _, err = command("search", data, "--text", "a star", "-o", tmp_path / f"hits{ending}")
        assert (status, "no format that is written here" in err) == (2, True), err
    assert command("search", data, "--text", "a star", "-o", tmp_path / "hits.txt")[0] == 0


def test_names_of_clusters_are_checked_like_labels(command: Nshot, data: Path) -> None:
    status, _, err = command("cluster", data, "-k", "2", "--names", "perro, gato")
    assert (status, "do not look English" in err) == (0, True)
    assert command("cluster", data, "-k", "2", "--names", "labels.txt, star")[0] == 2


def test_a_second_column_of_labels_is_said(data: Path) -> None:
    rows = [f"{label}/0.png,thing,{label}" for label in LABELS]
    (data / "two.csv").write_text("\n".join(["image,category,species", *rows]))
    (note,) = open_labelled(data / "two.csv").remarks.notes
    assert "column 'category'" in note
    assert "not 'species' (--label-column)" in note
