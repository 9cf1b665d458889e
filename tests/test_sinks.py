"""Sinks: whole records, in order, whatever interrupts the run."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from answers import answer
from PIL import Image

from nshot.atomic import check_output
from nshot.errors import MissingExtra, OutputError, RequestError
from nshot.output.sinks import Record, format_by_name, open_sink
from nshot.output.sinks.table import cells_of
from nshot.paths import spelled, unspelled
from nshot.types import Failure, LabelScore, Prediction

RESUMABLE = ["jsonl", "json", "csv", "tsv", "parquet"]


RUN = """
import sys
sys.path.insert(0, sys.argv[4])
from answers import answer
from nshot.output.sinks import open_sink
path, format, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_sink(format, path, top_k=2, resume=True, request="r") as sink:
    done = sink.answered.copy()
    print("begun", flush=True)
    for n in range(count):
        record = answer(n)
        if done[record.source]:
            done[record.source] -= 1
        else:
            sink.write(record)
"""


def run(path: Path, format: str, records: list[Record], **options: Any) -> None:
    with open_sink(format, path, top_k=2, **options) as sink:
        for record in records:
            sink.write(record)


def interrupted(path: Path, format: str, records: list[Record], **options: Any) -> None:
    """A run that is stopped by Ctrl-C after these records."""
    with suppress(KeyboardInterrupt), open_sink(format, path, top_k=2, **options) as sink:
        for record in records:
            sink.write(record)
        raise KeyboardInterrupt


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(
        csv.DictReader(
            io.StringIO(path.read_text(encoding="utf-8"), newline=""),
            delimiter="\t" if path.suffix == ".tsv" else ",",
        )
    )


def as_written(record: Record) -> dict[str, Any]:
    """A record as JSON has it: six decimals, names spelled."""
    held: dict[str, Any] = rounded(record.to_dict())
    held["source"] = spelled(held["source"])
    if "error" in held:
        held["error"]["message"] = spelled(held["error"]["message"])
    return held


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def beside(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


# formats


def test_a_jsonl_record_is_the_records_dict_with_six_decimals(tmp_path: Path) -> None:
    records = [answer(n) for n in range(40)]
    records.append(Prediction("one label", (LabelScore('katze "🐈"', 1.0, -0.123456789),), None))
    run(tmp_path / "out.jsonl", "jsonl", records)
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    read = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert read == [as_written(record) for record in records]
    assert [list(record) for record in read] == [list(record.to_dict()) for record in records]
    assert "猫" in lines[0]


def test_a_csv_row_has_every_label_in_columns_of_its_own(tmp_path: Path) -> None:
    run(tmp_path / "out.csv", "csv", [answer(n) for n in range(8)])
    rows = rows_of(tmp_path / "out.csv")
    assert list(rows[0]) == [
        *("source", "label", "score", "cosine", "margin"),
        *("label_2", "score_2", "cosine_2", "notes", "error_type", "error_message"),
    ]
    assert list(rows[3].values()) == [
        *(r'a\x0ab, "c" 3.jpg', "cat", "0.225000", "0.300000", "0.100000"),
        *("hot, dog", "0.180000", "0.200000", "", "", ""),
    ]
    assert list(rows[4].values())[:5] == ["猫 4.jpg", "", "", "", ""]
    assert rows[4]["error_type"] == "UndecodableImage"
    assert rows[4]["error_message"] == r'猫 4.jpg: not a\x0aimage, "really"'


def test_a_csv_row_keeps_its_columns_where_there_are_fewer_labels_or_no_margin(tmp_path: Path) -> None:
    run(tmp_path / "out.csv", "csv", [Prediction("a", (LabelScore("cat", 1, 0.3),), None)])
    (row,) = rows_of(tmp_path / "out.csv")
    assert (row["margin"], row["label_2"], row["error_message"]) == ("", "", "")


def test_parquet_holds_the_same_numbers_and_is_typed(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    records = [answer(n) for n in range(8)]
    run(tmp_path / "out.parquet", "parquet", records)
    assert beside(tmp_path / "out.parquet") == ["out.parquet"]
    table = parquet.read_table(tmp_path / "out.parquet")
    columns = ["source", "label", "score", "cosine", "margin", "predictions", "notes"]
    columns += ["error_type", "error_message"]
    assert table.schema.names == columns
    for row, record in zip(table.to_pylist(), records, strict=True):
        expected = as_written(record)
        error = expected.pop("error", {"type": None, "message": None})
        assert row == dict.fromkeys(columns) | expected | {
            "error_type": error["type"],
            "error_message": error["message"],
        }


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    for format in RESUMABLE:
        path = tmp_path / f"out.{format}"
        interrupted(path, format, [answer(0, source=name), answer(4, source=name)])
        assert open_sink(format, path, top_k=2, resume=True).answered == {name: 2}
    assert (
        json.loads((tmp_path / "out.jsonl").read_bytes().decode().splitlines()[0])["source"] == r"caf\xe9.jpg"
    )
    assert rows_of(tmp_path / "out.csv")[0]["source"] == r"caf\xe9.jpg"


def test_a_number_that_json_cannot_hold_is_refused_and_nothing_of_it_written(tmp_path: Path) -> None:
    for format in ("jsonl", "csv"):
        path = tmp_path / f"out.{format}"
        sink = open_sink(format, path, top_k=1)
        with pytest.raises(ValueError, match="not a finite number: nan"):
            sink.write(Prediction("a", (LabelScore("cat", float("nan"), 0.1),), None))
        assert not path.exists()


# resuming


@pytest.mark.parametrize("format", RESUMABLE)
def test_killed_at_five_moments_and_resumed_the_output_equals_an_uninterrupted_runs(
    tmp_path: Path, format: str
) -> None:
    count = 20_000
    run(tmp_path / f"whole.{format}", format, [answer(n) for n in range(count)], request="r")
    path = tmp_path / f"out.{format}"
    command = [sys.executable, "-c", RUN, str(path), format, str(count), str(Path(__file__).parent)]
    kills = 0
    for delay in (0.0, 0.01, 0.03, 0.06, 0.1):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 3
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert path.read_bytes() == (tmp_path / f"whole.{format}").read_bytes()
    assert beside(path) == [path.name, f"whole.{format}"]


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_torn_at_any_byte_it_goes_on_from_the_last_whole_record(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # hundreds of times, it takes a while
    records = [answer(n) for n in range(3, 5)]
    path, note = tmp_path / f"out.{format}", tmp_path / f"out.{format}.run"
    run(path, format, records, request="r")
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        note.write_text("r")
        with open_sink(format, path, top_k=2, resume=True, request="r") as sink:
            left = sink.answered.copy()
            assert left.total() == len(records) or length < len(whole)
            for record in records:
                if left[record.source]:
                    left[record.source] -= 1
                else:
                    sink.write(record)
        assert path.read_bytes() == whole, length
        assert not note.exists()


@pytest.mark.parametrize("format", RESUMABLE)
def test_an_interrupt_leaves_valid_output_and_a_note_and_resuming_counts_what_is_there(
    tmp_path: Path, format: str
) -> None:
    records = [answer(n) for n in range(20)]
    run(tmp_path / f"whole.{format}", format, [*records, *records], request="r")
    path = tmp_path / f"out.{format}"
    interrupted(path, format, [*records, *records[:5]], request="r")
    assert path.stat().st_size
    assert (tmp_path / f"{path.name}.run").read_text() == "r"
    with open_sink(format, path, top_k=2, resume=True, request="r") as sink:
        assert sink.answered == Counter([record.source for record in [*records, *records[:5]]])
        assert sink.failed == 5
        for record in records[5:]:
            sink.write(record)
        assert sink.failed == 8
    assert path.read_bytes() == (tmp_path / f"whole.{format}").read_bytes()
    assert beside(path) == [path.name, f"whole.{format}"]


@pytest.mark.parametrize("format", RESUMABLE)
def test_another_request_does_not_go_on_with_an_unfinished_output(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"out.{format}"
    interrupted(path, format, [answer(0)], request="cats")
    before = path.read_bytes()
    with pytest.raises(OutputError, match=rf"out\.{format}.* was begun with another request"):
        open_sink(format, path, top_k=2, resume=True, request="dogs")
    assert path.read_bytes() == before
    run(path, format, [answer(1)], request="dogs")
    assert beside(path) == [path.name]


@pytest.mark.parametrize("format", RESUMABLE)
def test_resuming_a_finished_output_changes_nothing_or_appends(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"out.{format}"
    run(path, format, [answer(n) for n in range(6)])
    before = path.read_bytes()
    run(path, format, [], resume=True)
    assert path.read_bytes() == before
    run(path, format, [answer(6)], resume=True)
    run(tmp_path / f"whole.{format}", format, [answer(n) for n in range(7)])
    assert path.read_bytes() == (tmp_path / f"whole.{format}").read_bytes()


@pytest.mark.parametrize("format", RESUMABLE)
def test_a_finished_output_among_other_labels_is_not_gone_on_with(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"out.{format}"
    records = [answer(n) for n in range(6)]
    run(path, format, records)
    before = path.read_bytes()
    labels = {told.label for each in records if isinstance(each, Prediction) for told in each.predictions}
    missing = sorted(labels)[0]
    with pytest.raises(OutputError, match=rf"out\.{format} holds answers for other labels \({missing!r}\)"):
        open_sink(format, path, top_k=2, resume=True, labels=labels - {missing} | {"another"})
    assert path.read_bytes() == before
    run(path, format, [], resume=True, labels=labels | {"another"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("format", RESUMABLE)
def test_a_finished_output_of_another_model_is_not_gone_on_with(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"out.{format}"
    run(path, format, [answer(0), answer(4)], request="of one model")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="holds answers of another request"):
        open_sink(format, path, top_k=2, resume=True, request="another model")
    assert path.read_bytes() == before
    run(path, format, [answer(1)], request="of one model", resume=True)
    run(tmp_path / "whole", format, [answer(0), answer(4), answer(1)], request="of one model")
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("format", [*RESUMABLE, "table"])
def test_two_runs_on_one_output_are_refused_and_neither_hurts_the_other(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"out.{format}"
    with open_sink(format, path, top_k=2) as first:
        first.write(answer(0))
        for resume in (False, format != "table"):
            with pytest.raises(OutputError, match=r"another nshot is writing .*out"):
                open_sink(format, path, top_k=2, resume=resume)
        first.write(answer(1))
    assert beside(path) == [path.name]
    run(tmp_path / "whole", format, [answer(0), answer(1)])
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_lock_that_a_kill_left_behind_locks_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "out.csv.lock").touch()
    run(tmp_path / "out.csv", "csv", [answer(0)])
    assert beside(tmp_path / "out.csv") == ["out.csv"]


@pytest.mark.parametrize("format", RESUMABLE)
def test_notes_are_written_and_a_name_has_one_spelling_everywhere(tmp_path: Path, format: str) -> None:
    name = "\x1b[31m=a\n\x9b2J\u202e" + os.fsdecode(b"\xff") + r" \x1b.jpg"
    path = tmp_path / f"out.{format}"
    noted = replace(answer(0, source=name), notes=("one colour only: x", "another"))
    run(path, format, [noted, answer(4, source=name)])
    if format == "parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        sources, notes = [row["source"] for row in table], table[0]["notes"]
    elif format in ("csv", "tsv"):
        rows = rows_of(path)
        sources, notes = [row["source"] for row in rows], rows[0]["notes"].split("; ")
    else:
        text = path.read_bytes().decode()
        read = json.loads(text) if format == "json" else [json.loads(line) for line in text.splitlines()]
        sources, notes = [row["source"] for row in read], read[0]["notes"]
    assert sources == [spelled(name)] * 2
    assert unspelled(sources[0]) == name
    assert notes == ["one colour only: x", "another"]
    if format != "parquet":
        assert path.read_text().replace("\t", " ").replace("\n", "").isprintable()
    assert open_sink(format, path, top_k=2, resume=True).answered == {name: 2}


@pytest.mark.parametrize("format", ["csv", "tsv"])
@pytest.mark.parametrize("name", ["=1+1", "+1", "-2+3", "@SUM(A1)", "'=1", "''=1", "'", "＝1", "plain"])
def test_no_cell_is_a_formula_and_the_name_comes_back(tmp_path: Path, format: str, name: str) -> None:
    path = tmp_path / f"out.{format}"
    label = LabelScore(name, 1.0, -0.25)
    run(path, format, [Prediction(name, (label,), None)])
    (row,) = rows_of(path)
    assert row["source"][0] not in "=+-@＝"
    assert row["label"][0] not in "=+-@＝"
    assert row["cosine"] == "-0.250000"
    assert open_sink(format, path, top_k=2, resume=True, labels=[name]).answered == {name: 1}


def test_the_name_of_the_output_says_the_format_or_is_refused(tmp_path: Path) -> None:
    for name, format in (
        *(("a.JSONL", "jsonl"), ("a.json", "json"), ("a.csv", "csv"), ("a.tsv", "tsv")),
        *(("a.parquet", "parquet"), ("a.txt", "table"), ("/dev/null", "table")),
    ):
        assert format_by_name(name) == format
    for name, reason in (
        *(("a.xlsx", r"writes no \.xlsx; name it \.csv"), ("a.jpg", r"the ending \.jpg says no format")),
        *(("a", "without an ending"), ("a.jsonl.bak", r"\.bak says no format")),
    ):
        with pytest.raises(OutputError, match=reason):
            format_by_name(tmp_path / name)


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("image\n")
    (tmp_path / "link.csv").symlink_to(table)
    for name in ("table.csv", "link.csv"):
        with pytest.raises(OutputError, match="is read by this command too"):
            check_output(tmp_path / name, ["http://x.org/a.jpg", "photos/*.jpg", None, table])
    assert check_output(tmp_path / "new.csv", [table]) == Path(os.path.realpath(tmp_path / "new.csv"))


@pytest.mark.parametrize("format", RESUMABLE)
def test_resuming_where_nothing_is_begins(tmp_path: Path, format: str) -> None:
    run(tmp_path / "a", format, [answer(0)], resume=True)
    run(tmp_path / "b", format, [answer(0)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("format", RESUMABLE)
@pytest.mark.parametrize(
    "content",
    [b"my notes", b"my\nnotes\n", b'{"source": 1}\n', b"[1]\n", b'{"source": "a", "predictions": 3}\n'],
)
def test_a_file_of_somebody_elses_is_not_resumed_and_stays(
    tmp_path: Path, format: str, content: bytes
) -> None:
    path = tmp_path / f"out.{format}"
    path.write_bytes(content)
    with pytest.raises(OutputError, match=rf"out\.{format}"):
        open_sink(format, path, top_k=2, resume=True)
    assert path.read_bytes() == content


def test_a_csv_of_other_columns_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path / "out.csv", "csv", [answer(0)])
    with pytest.raises(OutputError, match="other columns"):
        open_sink("csv", tmp_path / "out.csv", top_k=3, resume=True)


# where answers go


@pytest.mark.parametrize("format", [*RESUMABLE, "table"])
def test_an_existing_output_stays_until_the_first_answer_and_is_then_replaced(
    tmp_path: Path, format: str
) -> None:
    path = tmp_path / "out"
    path.write_text("old" * 1000)
    path.chmod(0o640)
    interrupted(path, format, [])
    assert path.read_text() == "old" * 1000
    assert beside(path) == ["out"]
    run(path, format, [answer(0)])
    run(tmp_path / "fresh", format, [answer(0)])
    assert path.read_bytes() == (tmp_path / "fresh").read_bytes()


@pytest.mark.parametrize("format", [*RESUMABLE, "table"])
def test_a_place_that_cannot_be_written_is_an_error_before_any_answer(tmp_path: Path, format: str) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "missing" / "out", "there is no folder .*missing"),
        (tmp_path / "file" / "out", "there is no folder .*file"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(OutputError, match=reason):
            open_sink(format, path, top_k=2)


def test_requests_that_make_no_sense_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for format, output, options, reason in (
        ("xml", None, {}, "there are table, jsonl, json, csv, tsv, parquet"),
        ("jsonl", None, {"resume": True}, "name it with -o"),
        ("table", tmp_path / "out", {"resume": True}, "a table cannot be resumed"),
        ("jsonl", Path("/dev/null"), {"resume": True}, "not a regular file"),
        ("parquet", None, {}, "needs a file"),
        ("parquet", Path("/dev/null"), {}, "not a regular file"),
    ):
        with pytest.raises(RequestError, match=reason):
            open_sink(format, output, top_k=1, **options)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r'pip install "nshot\[data\]"'):
        open_sink("parquet", tmp_path / "out.parquet", top_k=1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_is_an_output_error() -> None:
    with pytest.raises(OutputError, match=r"/dev/full: No space left"):
        run(Path("/dev/full"), "jsonl", [answer(0)])
    with Path("/dev/full").open("wb", buffering=0) as stream:
        sink = open_sink("table", top_k=1, stream=stream)
        with pytest.raises(OutputError, match=r"standard output: No space left"):
            sink.write(answer(0))


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "gif", "tif"])
def test_no_output_takes_the_place_of_an_image(tmp_path: Path, kind: str) -> None:
    """``-o photos/a.png``, beside a folder that is read, would destroy what is read."""
    path = tmp_path / f"a.{kind}"
    Image.new("RGB", (8, 8)).save(path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="is an image, which would be lost"):
        check_output(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("format", RESUMABLE)
def test_a_disk_that_fills_up_keeps_whole_records_and_the_run_goes_on_later(
    tmp_path: Path, format: str
) -> None:
    records = [answer(n) for n in range(2000)]
    run(tmp_path / f"whole.{format}", format, records)
    path = tmp_path / f"out.{format}"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_001, limit[1]))
    try:
        with pytest.raises(OutputError, match=rf"cannot write .*out\.{format}.*: File too large"):
            run(path, format, records)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    left = tmp_path / f"{path.name}.journal" if format in ("parquet", "json") else path
    assert left.read_bytes().endswith(b"\n")
    with open_sink(format, path, top_k=2, resume=True) as sink:
        kept = sink.answered.total()
        assert 100 < kept < 2000
        for record in records[kept:]:
            sink.write(record)
    assert path.read_bytes() == (tmp_path / f"whole.{format}").read_bytes()


def test_a_reader_that_goes_away_is_a_broken_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as stream:
        sink = open_sink("jsonl", top_k=1, stream=stream)
        with pytest.raises(BrokenPipeError):
            sink.write(answer(0))
        sink.close(complete=False)


def test_answers_that_come_slowly_are_not_held_back(tmp_path: Path) -> None:
    stream = io.BytesIO()
    sink = open_sink("jsonl", top_k=1, stream=stream)
    sink.write(answer(0))
    assert stream.getvalue().count(b"\n") == 1
    time.sleep(0.25)
    sink.write(answer(1))
    assert stream.getvalue().count(b"\n") == 2
    sink.write(answer(2))
    sink.flush()
    assert stream.getvalue().count(b"\n") == 3


def test_an_output_that_is_a_link_is_written_through(tmp_path: Path) -> None:
    for format in RESUMABLE:
        link = tmp_path / f"link.{format}"
        link.symlink_to(tmp_path / f"real.{format}")
        run(link, format, [answer(0)])
        assert link.is_symlink()
        assert (tmp_path / f"real.{format}").stat().st_size > 50


def test_an_empty_run_is_an_output_without_records(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", "jsonl", [])
    run(tmp_path / "out.csv", "csv", [])
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert rows_of(tmp_path / "out.csv") == []
    assert (tmp_path / "out.csv").read_bytes().startswith(b"source,label")


# the table


@pytest.fixture
def table() -> Callable[..., list[str]]:
    def lines(*records: Record, **options: Any) -> list[str]:
        stream = io.BytesIO()
        with open_sink("table", top_k=2, stream=stream, **options) as sink:
            for record in records:
                sink.write(record)
        return stream.getvalue().decode().splitlines()

    return lines


def test_a_table_fits_its_width_whatever_the_names_are(table: Callable[..., list[str]]) -> None:
    names = [
        "a",
        "x" * 300,
        "写真/" * 60 + "猫.jpg",
        "👩‍👩‍👧❤️" * 40,
        "é" * 100,
        "\u0301" * 50 + "a\t\n\x1b[31m" * 40,
    ]
    records = [answer(n, source=name) for name in names for n in (0, 4)]
    records += [Prediction("a", (LabelScore(name, 1.0, -0.5),), None) for name in names]
    for width in (40, 80, 81, 200):
        assert max(cells_of(line) for line in table(*records, width=width)) <= width


def test_a_table_shows_numbers_apart_and_further_labels_below(table: Callable[..., list[str]]) -> None:
    head, first, second = table(answer(0, source="photos/cat.jpg"), width=80)
    assert head.split() == ["source", "label", "score", "cosine", "margin"]
    assert first.split() == ["photos/cat.jpg", "cat", "0.9000", "0.3000", "0.1000"]
    assert second.split() == ["hot,", "dog", "0.4500", "0.2000"]
    assert first.index("0.9000") == second.index("0.4500")
    assert head.rindex("score") + 5 == first.index("0.9000") + 6


def test_a_table_shows_a_dash_where_there_is_no_margin(table: Callable[..., list[str]]) -> None:
    assert table(Prediction("a", (LabelScore("cat", 1.0, 0.3),), None))[1].split()[-1] == "—"


def test_a_long_path_is_shortened_in_the_middle(table: Callable[..., list[str]]) -> None:
    line = table(answer(0, source="/home/someone/" + "deep/" * 30 + "cat.jpg"), width=80)[1]
    assert line.startswith("/home/some")
    assert "…" in line
    assert "deep/cat.jpg  cat" in line


def test_the_columns_a_text_takes_are_those_of_a_terminal() -> None:
    texts = {"abc": 3, "猫.jpg": 6, "é": 1, "e\u0301": 1, "🐈": 2, "❤️": 2, "ｱ": 1, "한글": 4}
    assert {text: cells_of(text) for text in texts} == texts


def test_wide_characters_keep_the_columns_straight(table: Callable[..., list[str]]) -> None:
    for name in ("a.jpg", "猫猫猫.jpg", "e\u0301te\u0301.jpg", "❤️🐈.jpg", "写真" * 50):
        line = table(answer(0, source=name), width=80)[1]
        assert cells_of(line[: line.index("0.9000")]) == 80 - 9 - 9 - 6, name


def test_what_a_terminal_would_act_on_is_escaped(table: Callable[..., list[str]]) -> None:
    name = "a\x1b[2J\r\n\u202egpj.exe\u2028" + os.fsdecode(b"\xe9")
    lines = table(answer(0, source=name), answer(4, source=name), width=200)
    assert r"a\x1b[2J\x0d\x0a\u202egpj.exe\u2028\xe9  " in lines[1]
    assert all(line.isprintable() for line in lines)


def test_a_failure_is_red_and_told_in_full(table: Callable[..., list[str]]) -> None:
    failure = Failure(
        "a.jpg", "FetchError", "no answer from the server within ten seconds: " + "try again " * 9
    )
    for color in (True, False):
        _, *lines = table(failure, width=60, color=color)
        assert [line.count("\x1b[31m") for line in lines] == [int(color)] * len(lines)
        told = " ".join(line.replace("\x1b[31m", "").replace("\x1b[0m", "").strip() for line in lines)
        assert " ".join(told.split()) == f"a.jpg FetchError: {failure.message.strip()}"


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    def colored(stream: io.BytesIO) -> bool:
        with open_sink("table", top_k=1, stream=stream) as sink:
            sink.write(answer(4))
        return b"\x1b[31m" in stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colored(Terminal())
    assert not colored(io.BytesIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not colored(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colored(Terminal())


def test_the_width_is_the_terminals_or_eighty(
    table: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert len(table(answer(0))[0]) == 80
    monkeypatch.setenv("COLUMNS", "120")
    assert len(table(answer(0))[0]) == 120
