"""Decided answers in every format: what is answered, and a probability only where it is one."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from nshot.output.sinks import open_sink
from nshot.types import Answer, Decided, Failure, LabelScore

BEST = (LabelScore("cat", 0.75, 0.25), LabelScore("dog", 0.25, 0.2))


def answers(calibrated: bool = True) -> list[Decided]:
    told: list[tuple[Answer, tuple[str, ...]]] = [
        ("label", ("cat",)), ("none", ()), ("unsure", ()), ("set", ("cat", "dog")), ("set", ()),
    ]  # fmt: skip
    return [
        Decided(f"{n}.jpg", BEST, 0.05, kind, labels, calibrated) for n, (kind, labels) in enumerate(told)
    ]


def written(format: str, calibrated: bool = True) -> str:
    stream = io.BytesIO()
    with open_sink(format, top_k=2, stream=stream, width=80, decided=True, calibrated=calibrated) as sink:
        for answer in answers(calibrated):
            sink.write(answer)
        sink.write(Failure("bad.jpg", "UndecodableImage", "not an image"))
    return stream.getvalue().decode()


@pytest.mark.parametrize("calibrated", [True, False])
def test_jsonl_is_what_to_dict_says(calibrated: bool) -> None:
    lines = [json.loads(line) for line in written("jsonl", calibrated).splitlines()]
    assert lines[:-1] == [answer.to_dict() for answer in answers(calibrated)]
    assert [list(line) for line in lines[:-1]] == [list(answer.to_dict()) for answer in answers(calibrated)]
    assert ("score" in lines[0]) is not calibrated


def test_csv_tells_the_answer_and_the_best_label_apart() -> None:
    rows = list(csv.DictReader(io.StringIO(written("csv"))))
    assert [(r["label"], r["answer"], r["labels"], r["best"]) for r in rows[:-1]] == [
        ("cat", "label", "cat", "cat"),
        ("", "none", "", "cat"),
        ("", "unsure", "", "cat"),
        ("", "set", "cat; dog", "cat"),
        ("", "set", "", "cat"),
    ]
    assert {r["probability"] for r in rows[:-1]} == {"0.750000"}
    assert (rows[0]["label_2"], rows[0]["probability_2"], rows[0]["margin"]) == (
        "dog",
        "0.250000",
        "0.050000",
    )
    assert rows[-1]["error_type"] == "UndecodableImage"


def test_a_table_says_it_in_words() -> None:
    lines = written("table").splitlines()
    assert "prob." in lines[0]
    shown = "\n".join(lines)
    for words in ("none of these", "unsure (cat?)", "{cat, dog}", "{}"):
        assert words in shown
    assert max(map(len, lines[:-1])) <= 80


def test_parquet_holds_the_answer_and_can_be_resumed(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "out.parquet"
    for part in (slice(0, 3), slice(3, 5)):
        with open_sink(
            "parquet", path, top_k=2, resume=part.start > 0, request="r", decided=True, calibrated=True
        ) as sink:
            for answer in answers()[part]:
                sink.write(answer)
    rows = parquet.read_table(path).to_pylist()
    assert [row["answer"] for row in rows] == ["label", "none", "unsure", "set", "set"]
    assert [row["labels"] for row in rows] == [["cat"], [], [], ["cat", "dog"], []]
    assert rows[0]["probability"] == rows[0]["predictions"][0]["probability"] == 0.75
    assert rows[1]["label"] is None
