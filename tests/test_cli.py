"""The command line as a person meets it: what goes where, and what the exit status tells."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nshot.cli import COMMANDS, run

Nshot = Callable[..., tuple[int, str, str]]
Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def nshot(tiny: Path, capfd: pytest.CaptureFixture[str]) -> Nshot:
    """Runs a command on the tiny model: exit status, stdout, stderr."""

    def call(command: str, *arguments: object) -> tuple[int, str, str]:
        model = ["--model", str(tiny)] if command in ("classify", "embed", "doctor") else []
        status = run([command, *map(str, arguments), *model])
        out, err = capfd.readouterr()
        return status, out, err

    return call


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def spawn(tiny: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `nshot classify` in a process of its own, with a list on its standard input."""
    started = []

    def start(listing: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "nshot",
            "classify",
            "-",
            "--labels",
            "cat, dog",
            "--model",
            str(tiny),
        ]
        with listing.open() as stdin:
            child = subprocess.Popen(
                [*command, *map(str, arguments)],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **options,
            )
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


def listed(photos: Path, times: int = 1, separator: str = "\n") -> Path:
    """A file that lists the images so many times."""
    listing = photos.parent / "list.txt"
    listing.write_text(separator.join(str(path) for path in sorted(photos.iterdir()) * times))
    return listing


def test_a_jsonl_record_is_what_scripts_rely_on(nshot: Nshot, photos: Path) -> None:
    status, out, err = nshot("classify", photos, "--labels", "cat, dog, hot dog", "--format", "jsonl")
    assert status == 0, err
    answers = records(out)
    assert [answer["source"] for answer in answers] == [str(path) for path in sorted(photos.iterdir())]
    for answer in answers:
        assert set(answer) - {"notes"} == {"source", "label", "score", "cosine", "margin", "predictions"}
        told = answer["predictions"]
        assert {p["label"] for p in told} == {"cat", "dog", "hot dog"}
        assert (answer["label"], answer["score"], answer["cosine"]) == (
            told[0]["label"],
            told[0]["score"],
            told[0]["cosine"],
        )
        assert sum(p["score"] for p in told) == pytest.approx(1, abs=1e-5)
        assert answer["margin"] == pytest.approx(told[0]["cosine"] - told[1]["cosine"], abs=2e-6)


def test_the_default_is_a_table_that_fits_80_columns(nshot: Nshot, photos: Path) -> None:
    status, out, _ = nshot("classify", photos, "--labels", "cat, dog")
    assert status == 0
    assert "\x1b" not in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert sum(path.name in out for path in photos.iterdir()) == 12


def test_csv_and_parquet_hold_the_same_answers(nshot: Nshot, photos: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    _, out, _ = nshot("classify", photos, "--labels", "cat, dog", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    status, out, _ = nshot("classify", photos, "--labels", "cat, dog", "-o", tmp_path / "out.parquet")
    assert (status, out) == (0, "")
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(r["source"], r["label"]) for r in rows] == [(r["source"], r["label"]) for r in table]


def test_a_failed_image_is_named_counted_and_exits_1(nshot: Nshot, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    status, out, err = nshot("classify", photos, "--labels", "cat, dog", "--format", "jsonl")
    assert status == 1
    (failure,) = [record for record in records(out) if "error" in record]
    assert list(failure) == ["source", "error"]
    assert list(failure["error"]) == ["type", "message"]
    assert "broken.jpg" in failure["source"]
    assert "broken.jpg" in err
    assert err.splitlines()[-1] == "nshot: 13 images, 12 answered, 1 failed"
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["photos"], "--labels"),
        (["photos", "--labels", "cat, cat"], "'cat' is given twice"),
        (["photos", "--labels", "cat,,dog"], "empty label"),
        (["photos", "--labels", "cat", "--labels-file", "x"], "one of the t"),
        (["photos", "--labels-file", "nowhere.txt"], "nowhere.txt"),
        (["photos", "--labels", "cat", "--template", "a photo"], "'a photo'"),
        (["nowhere", "--labels", "cat, dog"], "nowhere"),
        (["photos", "--labels", "cat", "--top-k", "0"], "--top-k"),
        (["photos", "--labels", "cat", "--fromat", "csv"], "--format"),
        (["photos", "--labels", "cat", "-o", "no/such/folder/x.jsonl"], "no/such/folder"),
        (["photos", "--labels", "cat", "--store", "s", "--no-store"], "exclude"),
        (["photos", "--labels", "cat", "--resume"], "-o"),
        ([], "SOURCE"),
    ],
)
def test_a_wrong_request_exits_2_says_why_and_answers_nothing(
    nshot: Nshot, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(photos.parent)
    status, out, err = nshot("classify", *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_an_empty_folder_is_a_wrong_request(nshot: Nshot, tmp_path: Path) -> None:
    status, _, err = nshot("classify", tmp_path, "--labels", "cat, dog")
    assert status == 2
    assert str(tmp_path) in err


def test_labels_of_programmers_are_said_as_they_are_written(nshot: Nshot, photos: Path) -> None:
    _, _, err = nshot("classify", photos, "--labels", "golden_retriever, HotDog")
    assert "'golden_retriever' as 'golden retriever', 'HotDog' as 'hot dog'" in err
    _, _, err = nshot("classify", photos, "--labels", "golden_retriever, HotDog", "-q")
    assert err == ""


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_names_come_from_standard_input(spawn: Spawn, photos: Path, separator: str) -> None:
    child = spawn(listed(photos, separator=separator), "--format", "jsonl")
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert len(records(out)) == 12


def test_vectors_are_a_source_and_give_the_same_answers(nshot: Nshot, photos: Path, tmp_path: Path) -> None:
    _, direct, _ = nshot("classify", photos, "--labels", "cat, dog", "--format", "jsonl")
    status, _, err = nshot("embed", photos, "-o", tmp_path / "v.npz")
    assert status == 0, err
    status, out, err = nshot("classify", tmp_path / "v.npz", "--labels", "cat, dog", "--format", "jsonl")
    assert status == 0, err
    assert records(out) == records(direct), "the same, what decoding said as well"


def test_vectors_of_another_model_are_refused(nshot: Nshot, photos: Path, tmp_path: Path) -> None:
    from checkpoints import tiny_checkpoint

    tiny_checkpoint(tmp_path / "other", seed=1)
    nshot("embed", photos, "-o", tmp_path / "v.npz")
    status = run(
        ["classify", str(tmp_path / "v.npz"), "--labels", "a, b", "--model", str(tmp_path / "other")]
    )
    assert status == 2


def test_resume_goes_on_where_a_run_was_killed(spawn: Spawn, photos: Path, tmp_path: Path) -> None:
    """Killed at several moments, then resumed: the same bytes as a run that nothing stopped."""
    listing = listed(photos, 200)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert spawn(listing, "--no-store", "-o", whole).wait(60) == 0
    kills = 0
    for delay in (0.0, 0.1, 0.2):
        child = spawn(listing, "--no-store", "-o", out, "--resume")
        answered = out.stat().st_size if out.exists() else 0
        while child.poll() is None and not (out.exists() and out.stat().st_size > answered):
            time.sleep(0.005)
        time.sleep(delay)
        child.kill()
        kills += child.wait() == -signal.SIGKILL
    last = spawn(listing, "--no-store", "-o", out, "--resume")
    _, err = last.communicate(timeout=60)
    assert last.returncode == 0, err
    assert out.read_bytes() == whole.read_bytes()
    assert kills, "no run was caught in the middle: the test proves nothing"


def test_resuming_with_other_labels_is_refused(nshot: Nshot, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    nshot("classify", photos, "--labels", "cat, dog", "-o", out)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:5]))
    status, _, _ = nshot("classify", photos, "--labels", "cat, dog", "-o", out, "--resume")
    assert status == 0
    assert out.read_text().splitlines(keepends=True) == lines


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_leaves_whole_records_and_exits_130(spawn: Spawn, photos: Path, tmp_path: Path) -> None:
    out, names = tmp_path / "out.jsonl", tmp_path / "names"
    os.mkfifo(names)
    listing = os.open(names, os.O_RDWR | os.O_NONBLOCK)  # stays open, so the list never ends by itself
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children ignore it
    child = spawn(names, "--no-store", "-o", out)
    signal.signal(signal.SIGINT, heard)
    more = listed(photos).read_bytes() + b"\n"
    while not (out.exists() and out.stat().st_size) and child.poll() is None:
        with suppress(BlockingIOError):  # full
            os.write(listing, more)
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    os.close(listing)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    assert records(out.read_text())


def test_a_reader_that_has_seen_enough_is_no_error(spawn: Spawn, photos: Path) -> None:
    child = spawn(listed(photos, 500), "--format", "jsonl", "-q")
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    child.wait(60)
    assert child.stderr.read() == ""


def test_store_says_what_it_holds_and_forgets(nshot: Nshot, photos: Path, tmp_path: Path) -> None:
    nshot("classify", photos, "--labels", "cat, dog", "--store", tmp_path / "s")
    status, out, _ = nshot("store", "info", "--store", tmp_path / "s")
    assert status == 0
    assert "12 of images, 2 of texts" in out
    nshot("store", "clear", "--store", tmp_path / "s")
    assert "0 of images, 0 of texts" in nshot("store", "info", "--store", tmp_path / "s")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(nshot: Nshot, shell: str) -> None:
    status, out, _ = nshot("completion", shell)
    assert status == 0
    assert "_NSHOT_COMPLETE" in out


@pytest.mark.parametrize("command", [*COMMANDS, ""])
def test_every_command_has_help_that_fits_a_terminal(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"] if command else ["--help"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("Usage: nshot")
    assert all(len(line) <= 100 for line in out.splitlines())


def test_without_a_terminal_nothing_is_coloured(spawn: Spawn, photos: Path) -> None:
    child = spawn(listed(photos), env={**os.environ, "FORCE_COLOR": "", "TERM": "xterm-256color"})
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "\x1b" not in out + err


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_the_columns_of_a_table_stay_beside_the_answers(
    nshot: Nshot, photos: Path, tmp_path: Path, format: str
) -> None:
    names = sorted(path.name for path in photos.iterdir())
    rows = [f"{number},photos/{name},=truth {number}" for number, name in enumerate([*names, "gone.jpg"])]
    (tmp_path / "table.csv").write_text("\n".join(["id,image,label", *rows]) + "\n")
    out = tmp_path / f"out.{format}"
    asked = ("classify", tmp_path / "table.csv", "--labels", "cat, dog", "--keep-columns", "-o", out)
    assert nshot(*asked)[0] == 1, "one image is gone"
    if format == "parquet":
        read = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    elif format in ("csv", "tsv"):
        with out.open(newline="") as file:
            read = list(csv.DictReader(file, delimiter="\t" if format == "tsv" else ","))
    else:
        read = json.loads(out.read_text()) if format == "json" else records(out.read_text())
    nested = format in ("jsonl", "json")
    told = [record["columns"] if nested else record for record in read]
    assert [each["id"] for each in told] == [str(number) for number in range(len(rows))]
    mark = "'" if format in ("csv", "tsv") else ""
    truth = [each["label" if nested else "input_label"] for each in told]
    assert truth == [f"{mark}=truth {number}" for number in range(len(rows))]
    before = out.read_bytes()
    assert nshot(*asked, "--resume")[0] == 1
    assert out.read_bytes() == before
