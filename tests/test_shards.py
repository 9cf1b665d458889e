"""A folder of vectors: planned once, made in shards by any number of processes, whole whatever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

import nshot
from nshot.cli import run
from nshot.distributed.plan import Plan
from nshot.distributed.run import Request, make_shards, planned
from nshot.distributed.shards import shards_of, status, verify
from nshot.embeddings import part_writer, parts
from nshot.embeddings.part_writer import Width
from nshot.embeddings.parts import Parts
from nshot.embeddings.stored import stored
from nshot.errors import OutputError, RequestError, SourceError
from nshot.objects import open_folder
from nshot.types import Embedded, Failure

pa = pytest.importorskip("pyarrow", reason="parts are Parquet: they need pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def embed(tiny: Path, *arguments: str | Path) -> int:
    return run(["embed", *map(str, arguments), "--model", str(tiny), "--no-store"])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def whole(tiny: Path, photos: Path, tmp_path: Path) -> Path:
    """The twelve photos in shards of five."""
    folder = tmp_path / "whole"
    assert embed(tiny, photos, "-o", f"{folder}/", "--shard-size", "5") == 0
    return folder


def test_a_folder_holds_a_plan_and_parts_and_nothing_half_written(whole: Path, photos: Path) -> None:
    assert [path.name for path in sorted(whole.iterdir())] == [
        "manifest.parquet",
        *(f"part-0000{number}.parquet" for number in range(3)),
    ]
    table = pq.read_table(whole / "part-00000.parquet")
    assert table.column_names[:2] == ["source", "embedding"]
    assert "error" in table.column_names
    assert table.schema.field("embedding").type == pa.list_(
        pa.field("element", pa.float32(), nullable=False), 24
    )
    assert table.column("source").to_pylist() == [str(path) for path in sorted(photos.iterdir())[:5]]


def test_a_folder_gives_what_one_file_gives(tiny: Path, photos: Path, whole: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"no image")
    assert embed(tiny, photos, "-o", tmp_path / "one.npz") == 1
    folder = tmp_path / "with-bad"
    assert embed(tiny, photos, "-o", f"{folder}/", "--shard-size", "5") == 1
    one, many = nshot.open(tmp_path / "one.npz"), nshot.open(folder)
    assert isinstance(one, nshot.Embeddings)
    assert isinstance(many, nshot.Embeddings)
    assert one.sources == many.sources
    assert np.array_equal(one.vectors, many.vectors)
    assert one.failures == many.failures
    assert one.recipe == many.recipe
    assert one.digests == many.digests


def test_jobs_of_any_number_make_the_same_bytes(
    tiny: Path, photos: Path, whole: Path, tmp_path: Path
) -> None:
    for jobs in (2, 3):
        folder = tmp_path / f"by-{jobs}"
        for job in range(jobs):
            embed(tiny, photos, "-o", folder, "--shard-size", "5", "--shard", f"{job + 1}/{jobs}")
        assert files(folder) == files(whole)


def test_shards_are_shared_out_without_a_rest_or_a_double() -> None:
    for jobs in (1, 3, 16):
        for first in (0, 1):
            parts = [shards_of(f"{first + job}/{jobs}", 50) for job in range(jobs)]
            assert sorted(number for part in parts for number in part) == list(range(50))
    for wrong in ("4/3", "a/3", "3", "1/0", "-1/3"):
        with pytest.raises(RequestError, match="--shard is I/N"):
            shards_of(wrong, 50)


def test_what_is_there_is_not_made_again(tiny: Path, photos: Path, whole: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in whole.iterdir()}
    (whole / "part-00001.parquet").unlink()
    assert embed(tiny, photos, "-o", whole, "--shard-size", "5") == 0
    after = {path.name: path.stat().st_mtime_ns for path in whole.iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["part-00001.parquet"]


def test_a_plan_is_not_mixed_with_another(
    tiny: Path, photos: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(whole)
    assert embed(tiny, photos, "-o", whole, "--shard-size", "4") == 2
    assert "shard_size: 5, now 4" in capsys.readouterr().err
    assert embed(tiny, photos / "00.jpg", "-o", whole, "--shard-size", "5") == 2
    assert files(whole) == before
    assert embed(tiny, photos, "-o", tmp_path / "one.npz", "--shard", "1/2") == 2
    assert "is a file" in capsys.readouterr().err


def test_another_model_or_precision_is_refused(photos: Path, whole: Path, tmp_path: Path, tiny: Path) -> None:
    from checkpoints import tiny_checkpoint

    other = tiny_checkpoint(tmp_path / "other", seed=1)
    request = Request([str(photos)], shard_size=5)
    with pytest.raises(RequestError, match="other weights"):
        planned(whole, request, nshot.load(other))
    squashed = nshot.load(tiny, fit="squash")
    with pytest.raises(RequestError, match="other preprocessing"):
        planned(whole, request, squashed)
    plan = Plan.open(open_folder(whole))
    assert plan is not None
    lied = Plan(plan.folder, {**plan.meta, "encoder": "of another processor", "precision": "f16"})
    with pytest.raises(RequestError, match="planned in f16 on cpu"):
        list(make_shards(lied, nshot.load(tiny)))


def test_status_and_verify_say_what_is_missing_or_damaged(
    tiny: Path, photos: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["shards", "status", str(whole)]) == 0
    assert "complete" in capsys.readouterr().out
    assert run(["shards", "verify", str(whole)]) == 0
    assert "3 of 3 shards are whole" in capsys.readouterr().out
    (whole / "part-00002.parquet").unlink()
    part = whole / "part-00001.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 4] ^= 1
    part.write_bytes(data)
    (whole / "part-00000.parquet").write_bytes((whole / "part-00000.parquet").read_bytes()[:-9])
    assert run(["shards", "status", str(whole)]) == 1
    assert "missing    2 shards: 0, 2" in capsys.readouterr().out
    assert run(["shards", "verify", str(whole), "--remove"]) == 1
    said = capsys.readouterr().out
    assert "part-00000.parquet: it is damaged" in said
    assert "part-00001.parquet: it" in said
    assert "part-00002.parquet: it is missing" in said
    assert embed(tiny, photos, "-o", whole, "--shard-size", "5") == 0
    assert run(["shards", "verify", str(whole)]) == 0
    assert run(["shards", "status", str(photos)]) == 2
    assert "no manifest.parquet" in capsys.readouterr().err


def test_a_bad_image_is_a_record_and_can_be_tried_again(tiny: Path, photos: Path, tmp_path: Path) -> None:
    image = (photos / "03.jpg").read_bytes()
    (photos / "03.jpg").write_bytes(b"not yet")
    folder = tmp_path / "v"
    assert embed(tiny, photos, "-o", folder, "--shard-size", "5") == 1
    table = pq.read_table(folder / "part-00000.parquet").to_pylist()
    assert table[3]["embedding"] is None
    assert table[3]["error"].startswith("UndecodableImage: ")
    (photos / "03.jpg").write_bytes(image)
    assert embed(tiny, photos, "-o", folder, "--shard-size", "5") == 1  # what was planned is done
    assert embed(tiny, photos, "-o", folder, "--shard-size", "5", "--again") == 0
    assert pq.read_table(folder / "part-00000.parquet").column("error").null_count == 5


def test_a_bad_archive_is_a_failed_shard_and_stops_no_other(
    tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "tars"
    shards.mkdir()
    for number in range(3):
        with tarfile.open(shards / f"{number}.tar", "w") as archive:
            for path in sorted(photos.iterdir())[4 * number : 4 * number + 4]:
                archive.add(path, path.name)
    (shards / "1.tar").write_bytes(b"no archive")
    folder = tmp_path / "v"
    assert embed(tiny, f"{shards}/*.tar", "-o", f"{folder}/") == 1
    assert [len(pq.read_table(path)) for path in sorted(folder.glob("part-*"))] == [4, 1, 4]
    assert run(["shards", "status", str(folder)]) == 1
    said = capsys.readouterr().out
    assert "not read   part-00001.parquet" in said
    assert "planned    3 files of images in 3 shards" in said
    assert "done       9 images in 3 shards" in said
    assert run(["shards", "status", str(folder), "--failed"]) == 1
    assert f"{shards}/1.tar: UnreadableImage: " in capsys.readouterr().out
    assert run(["shards", "verify", str(folder)]) == 0
    sources = nshot.open(folder).sources  # type: ignore[union-attr]
    assert sources[0] == f"{shards}/0.tar/00.jpg"


def test_a_table_of_names_and_one_of_bytes_are_planned(tiny: Path, photos: Path, tmp_path: Path) -> None:
    names = [path.name for path in sorted(photos.iterdir())]
    (photos / "list.csv").write_text("image\n" + "\n".join([*names, "gone.jpg"]) + "\n")
    assert embed(tiny, photos / "list.csv", "-o", tmp_path / "named/", "--shard-size", "5") == 1
    named = nshot.open(tmp_path / "named")
    assert isinstance(named, nshot.Embeddings)
    assert len(named) == 12
    assert named.failures[12].source == str(photos / "gone.jpg")
    pq.write_table(
        pa.table({"image": [(photos / name).read_bytes() for name in names]}), photos / "b.parquet"
    )
    assert embed(tiny, photos / "b.parquet", "-o", tmp_path / "bytes/", "--shard-size", "5") == 0
    held = nshot.open(tmp_path / "bytes")
    assert isinstance(held, nshot.Embeddings)
    assert np.array_equal(held.vectors, named.vectors)


def test_labels_go_along(tiny: Path, photos: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(photos.iterdir())):
        label = photos / ("cat", "dog")[number % 2]
        label.mkdir(exist_ok=True)
        path.rename(label / path.name)
    folder = tmp_path / "v"
    assert embed(tiny, photos, "-o", folder, "--labelled", "--shard-size", "5") == 0
    read = nshot.open(folder)
    assert isinstance(read, nshot.Embeddings)
    assert read.classes == ("cat", "dog")
    assert read.label == ("cat",) * 6 + ("dog",) * 6
    assert pq.read_table(folder / "part-00000.parquet").column("labels")[0].as_py() == ["cat"]


def test_commands_take_a_folder_as_they_take_a_file(
    tiny: Path, photos: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(tiny), "--no-store"]
    assert embed(tiny, photos, "-o", tmp_path / "one.npz") == 0
    for command in (
        ["classify", "--labels", "cat, dog", "--format", "jsonl"],
        ["search", "--text", "a red car", "--format", "jsonl"],
        ["duplicates", "--format", "jsonl"],
    ):
        answers = []
        for source in (whole, tmp_path / "one.npz"):
            capsys.readouterr()
            run([command[0], str(source), *command[1:], *model])
            answers.append(capsys.readouterr().out)
        assert answers[0] == answers[1] != ""


def test_a_shard_that_is_not_there_is_a_failure_and_not_a_silence(
    tiny: Path, photos: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (whole / "part-00001.parquet").unlink()
    (whole / "part-00002.parquet").write_bytes(b"PAR1")
    ask = ["classify", str(whole), "--labels", "cat, dog", "--model", str(tiny), "--no-store", "--format"]
    assert run([*ask, "jsonl"]) == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["error"]["type"] for record in records[5:]] == ["MissingShard", "DamagedShard"]
    assert "run nshot embed again" in records[5]["error"]["message"]


def test_half_precision_takes_half_the_space(tiny: Path, photos: Path, whole: Path, tmp_path: Path) -> None:
    assert embed(tiny, photos, "-o", tmp_path / "half", "--half", "--shard-size", "5") == 0
    full, half = stored([Parts(whole)]), stored([Parts(tmp_path / "half")])
    assert np.abs(np.einsum("ij,ij->i", full.vectors, half.vectors) - 1).max() < 1e-5
    assert np.abs(np.linalg.norm(half.vectors, axis=1) - 1).max() < 1e-6
    kept = pq.read_schema(tmp_path / "half" / "part-00000.parquet").field("embedding").type
    assert kept.value_type == pa.float16()


def test_relative_names_are_found_from_another_folder(
    tiny: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = nshot.load(tiny)
    plan = planned("v", Request(["photos"], shard_size=5), model)
    monkeypatch.chdir(photos)
    plan = Plan(open_folder(tmp_path / "v"), plan.meta)
    assert sum(summary.failed for summary in make_shards(plan, model)) == 0
    assert stored([Parts(tmp_path / "v")]).sources[0] == "photos/00.jpg"


def test_a_listing_that_is_cut_off_goes_on(
    tiny: Path, photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nshot.distributed.plan as module

    monkeypatch.setattr(module, "_PIECE", 2)
    model, request = nshot.load(tiny), Request([str(photos)], shard_size=5)
    listed: list[int] = []

    def told(count: int) -> None:
        listed.append(count)
        if count == 6:
            raise KeyboardInterrupt

    folder = tmp_path / "v"
    with pytest.raises(KeyboardInterrupt):
        planned(folder, request, model, told=told)
    assert not (folder / "manifest.parquet").exists()
    planned(folder, request, model, told=listed.append)
    assert listed == [0, 2, 4, 6, 6, 8, 10, 12]
    assert [path.name for path in folder.iterdir()] == ["manifest.parquet"]
    first, second = (pq.read_table(each / "manifest.parquet") for each in (whole, folder))
    assert first.to_pylist() == second.to_pylist()


def test_of_two_plans_made_at_once_the_first_stands(tiny: Path, photos: Path, tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "v", make=True)
    with folder.drafting("manifest.parquet", over=False) as late:
        with folder.drafting("manifest.parquet", over=False) as early:
            early.write_bytes(b"early")
        late.write_bytes(b"late")
    assert files(tmp_path / "v") == {"manifest.parquet": b"early"}


def test_of_two_that_list_at_once_the_later_takes_the_plan_of_the_other(
    tiny: Path, photos: Path, tmp_path: Path
) -> None:
    model, request = nshot.load(tiny), Request([str(photos)], shard_size=5)
    begun: list[int] = []

    def told(_: object) -> None:
        if len(begun) < 2:  # when the listing is done: the other is quicker, and puts it away
            begun.append(0)
            if len(begun) == 2:
                planned(tmp_path / "v", request, model)

    plan = planned(tmp_path / "v", request, model, told=told)
    assert sorted(files(tmp_path / "v")) == ["manifest.parquet"]
    assert sum(len(each) for _, each in plan.entries(range(plan.shards))) == 12


def test_a_full_disk_or_an_interrupt_leaves_whole_shards(
    tiny: Path, photos: Path, whole: Path, tmp_path: Path
) -> None:
    model = nshot.load(tiny)
    plan = planned(tmp_path / "v", Request([str(photos)], shard_size=5), model)
    seen: list[object] = []

    def told(item: object) -> None:
        seen.append(item)
        if len(seen) == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(make_shards(plan, model, told=told))
    assert sorted(files(tmp_path / "v")) == ["manifest.parquet", "part-00000.parquet"]
    assert status(plan).missing == (1, 2)
    list(make_shards(plan, model))
    assert status(plan).complete


def test_a_folder_that_cannot_be_written_is_said(tiny: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="a folder is needed"):
        open_folder(tmp_path / "file", make=True)
    assert embed(tiny, photos, "-o", f"{tmp_path}/file/", "--shard", "1/2") == 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_draft_of_the_plan_that_a_killed_process_left_goes_with_the_next_run(
    tiny: Path, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "vectors"
    assert embed(tiny, photos, "-o", f"{folder}/") == 0
    made = files(folder)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname().replace(".", "-")[:40]
    (folder / f".manifest.parquet.{host}.{ended.pid}.abc123.part").write_bytes(b"a draft")
    assert embed(tiny, photos, "-o", f"{folder}/") == 0
    assert files(folder) == made


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_kill_9_at_any_time_and_again_gives_the_same(tiny: Path, tmp_path: Path) -> None:
    photos = tmp_path / "many"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(120):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(photos / f"{number:03}.png")
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    assert embed(tiny, photos, "-o", clean, "--shard-size", "4") == 0
    chance = random.Random(0)
    command = [sys.executable, "-m", "nshot", "embed", str(photos), "-o", str(killed), "--shard-size", "4"]
    command += ["--model", str(tiny), "--no-store"]
    begun = time.monotonic()
    done = _run(command)
    took = time.monotonic() - begun
    assert done == 0
    for _ in range(2):  # many more in bench/scale.py
        for path in killed.iterdir():
            path.unlink()
        for share in sorted(chance.random() for _ in range(3)):
            _run(command, kill_after=share * took)
        assert _run(command) == 0
        assert files(killed) == files(clean)
    plan = Plan.open(open_folder(killed))
    assert plan is not None
    assert [fault for _, fault in verify(plan) if fault] == []


def _run(command: Sequence[str], kill_after: float | None = None) -> int:
    source = str(Path(nshot.__file__).parents[1])
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": source}, stdout=subprocess.DEVNULL)
    try:
        return process.wait(kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def test_a_folder_of_answers_holds_what_a_file_of_answers_holds(
    tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "04.jpg").write_bytes(b"no image")
    assert embed(tiny, photos, "-o", tmp_path / "v", "--shard-size", "5") == 1
    ask = ["classify", str(tmp_path / "v"), "--labels", "cat, dog, bus, bird", "--model", str(tiny)]
    ask += ["--no-store", "--top-k", "3", "-o"]
    assert run([*ask, str(tmp_path / "one.parquet")]) == 1
    assert run([*ask, f"{tmp_path}/many/"]) == 1
    one = pq.read_table(tmp_path / "one.parquet").to_pylist()
    parts = sorted((tmp_path / "many").iterdir())
    many = [row for path in parts for row in pq.read_table(path).to_pylist()]
    assert [path.name for path in parts] == [f"part-0000{number}.parquet" for number in range(3)]
    assert len(one) == len(many)
    for a, b in zip(one, many, strict=True):
        for key in ("source", "label", "error_type", "error_message", "notes"):
            assert a[key] == b[key]
        for key in ("score", "cosine", "margin"):
            assert a[key] == pytest.approx(b[key], abs=2e-6)
        assert [p["label"] for p in a["predictions"] or ()] == [p["label"] for p in b["predictions"] or ()]
    before = files(tmp_path / "many")
    (tmp_path / "many" / "part-00001.parquet").unlink()
    capsys.readouterr()
    assert run([*ask, f"{tmp_path}/many/"]) == 1
    assert "2 shards were answered before" in capsys.readouterr().err
    assert files(tmp_path / "many") == before
    other = [each if each != "cat, dog, bus, bird" else "cat, dog" for each in ask]
    assert run([*other, f"{tmp_path}/many/"]) == 2
    assert "answers to something else" in capsys.readouterr().err
    assert run([*ask, str(tmp_path / "v")]) == 2
    (tmp_path / "v" / "part-00002.parquet").unlink()
    assert run([*ask, f"{tmp_path}/fewer/"]) == 1
    assert "1 shards not read" in capsys.readouterr().err


def test_what_is_embedded_again_is_answered_again(tiny: Path, photos: Path, tmp_path: Path) -> None:
    image = (photos / "03.jpg").read_bytes()
    (photos / "03.jpg").write_bytes(b"not yet")
    vectors, answers = tmp_path / "v", tmp_path / "answers"
    ask = ["classify", str(vectors), "--labels", "cat, dog", "--model", str(tiny), "--no-store"]
    assert embed(tiny, photos, "-o", vectors, "--shard-size", "5") == 1
    assert run([*ask, "-o", f"{answers}/"]) == 1
    (photos / "03.jpg").write_bytes(image)
    assert embed(tiny, photos, "-o", vectors, "--shard-size", "5", "--again") == 0
    before = (answers / "part-00001.parquet").stat().st_mtime_ns
    assert run([*ask, "-o", f"{answers}/"]) == 0
    assert pq.read_table(answers / "part-00000.parquet").column("label").null_count == 0
    assert (answers / "part-00001.parquet").stat().st_mtime_ns == before


def test_many_vectors_asked_at_once_are_answered_as_one_by_one() -> None:
    from nshot.classifier import bulk
    from nshot.classifier.classifier import Classifier

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((700, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    matrix = rng.standard_normal((40, 32))
    matrix[7] = matrix[3]  # a tie, which the labels' order decides
    matrix[9] = matrix[5] + 1e-7
    names = [f"l{number}" for number in range(40)]
    ways: list[tuple[Any, Any, Literal["softmax", "sigmoid"]]] = [
        (100.0, 0.0, "softmax"),
        (10.0, -5.0, "sigmoid"),
        (rng.uniform(5, 50, 40), rng.normal(size=40), "softmax"),
    ]
    for scale, bias, kind in ways:
        classifier = Classifier(names, matrix, scale, bias, kind)
        for top_k in (1, 5, 99):
            answers = bulk.ask(classifier, vectors, top_k)
            for row, expected in enumerate(classifier.predict(vectors, top_k=top_k)):
                assert [names[place] for place in answers.labels[row]] == [
                    told.label for told in expected.predictions
                ]
                assert answers.scores[row] == pytest.approx(
                    [told.score for told in expected.predictions], abs=3e-6
                )
                assert answers.margins[row] == pytest.approx(expected.margin, abs=1e-6)
    alone = bulk.ask(Classifier(["l"], matrix[:1], 100.0), vectors, 5)
    assert np.isnan(alone.margins).all()
    assert (alone.scores == 1).all()


def test_a_large_folder_is_searched_on_disk_as_in_memory(
    tiny: Path, photos: Path, whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import nshot.cli.search as command

    ask = [
        "search",
        str(whole),
        "--text",
        "a red car",
        "--model",
        str(tiny),
        "--no-store",
        "--format",
        "jsonl",
    ]
    assert run(ask) == 0
    plain = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    monkeypatch.setattr(command, "_INDEXED", 1)
    for _ in range(2):  # made, then found
        assert run(ask) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [hit["source"] for hit in found] == [hit["source"] for hit in plain]
    index = whole.with_name("whole.index")
    made = (index / "index.json").stat().st_mtime_ns
    assert run([*ask, "--like", str(photos / "03.jpg")]) == 0
    assert (index / "index.json").stat().st_mtime_ns == made
    (whole / "part-00001.parquet").unlink()
    assert run(ask) == 2
    assert "1 shards of" in capsys.readouterr().err


def test_a_folder_with_labels_is_evaluated_and_learnt_from(
    tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, path in enumerate(sorted(photos.iterdir())):
        label = photos / ("cat", "dog")[number % 2]
        label.mkdir(exist_ok=True)
        path.rename(label / path.name)
    assert embed(tiny, photos, "-o", tmp_path / "v", "--labelled", "--shard-size", "5") == 0
    assert embed(tiny, photos, "-o", tmp_path / "one.npz", "--labelled") == 0
    told = []
    for source in ("v", "one.npz"):
        capsys.readouterr()
        assert run(["evaluate", str(tmp_path / source), "--model", str(tiny), "--no-store"]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert "12 images, 2 labels" in told[0]
    assert run(["fit", str(tmp_path / "v"), "--model", str(tiny), "-o", str(tmp_path / "c.nshot")]) == 0


@pytest.mark.parametrize("width", ["float32", "float16"])
@pytest.mark.parametrize("failed", [False, True])
def test_vectors_are_read_as_pyarrow_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: Width, failed: bool
) -> None:
    monkeypatch.setattr(part_writer, "ROWS", 64)
    path = tmp_path / parts.part_name(0)
    vectors = np.random.default_rng(0).standard_normal((150, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    writer = part_writer.PartWriter(path, dimension=24, width=width, labelled=False, meta={"nshot": 1})
    for number, vector in enumerate(vectors):
        bad = failed and number == 70
        writer.write(Failure(str(number), "Bad", "no image") if bad else Embedded(str(number), vector))
    writer.finish()
    column = pq.read_table(path).column("embedding")
    expected = np.array([row for row in column.to_pylist() if row is not None], np.float32)

    blocks = list(Parts(tmp_path).blocks(0))

    assert [len(block.there) for block in blocks] == [64, 64, 22]
    assert np.concatenate([block.there for block in blocks]).sum() == 150 - failed
    read = np.concatenate([block.vectors for block in blocks])
    assert np.allclose(read, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6, rtol=0)
    mapped = [isinstance(block.vectors.base, np.memmap) for block in blocks]
    assert width == "float16" or mapped == [not failed] * 3


def test_a_part_whose_names_are_numbers_is_damaged_however_its_vectors_lie(tmp_path: Path) -> None:
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False), 4)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.eye(4, dtype=np.float32).ravel()), type=kind)
    for said in ({}, {"page": "one", "failed": 0}):
        schema = pa.schema(
            [("source", pa.int64()), ("embedding", kind)], {"nshot": json.dumps({"nshot": 1, **said})}
        )
        table = pa.Table.from_arrays([pa.array(range(4)), vectors], schema=schema)
        pq.write_table(table, tmp_path / parts.part_name(0), compression="none", use_dictionary=False)

        (record,) = Parts(tmp_path).records()

        assert isinstance(record, Failure)
        assert "its column source holds int64" in record.message


@pytest.mark.parametrize("column", ["source", "labels", "domain"])
def test_a_part_whose_text_is_no_utf8_is_damaged(tmp_path: Path, column: str) -> None:
    """Pyarrow reads it, and notices only when the text is used: it was a traceback."""
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], "<i4")), pa.py_buffer(b"a\x80")]
    )
    held = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), bad) if column == "labels" else bad
    columns = {"source": pa.array(["a", "b"]), "embedding": [[1.0, 0.0]] * 2} | {column: held}
    table = pa.table(columns).replace_schema_metadata({"nshot": json.dumps({"nshot": 1})})
    pq.write_table(table, tmp_path / parts.part_name(0))

    with pytest.raises(SourceError, match=r"damaged.*UTF8"):
        next(Parts(tmp_path).blocks(0))
    with pytest.raises(SourceError, match=r"damaged.*UTF8"):
        Parts(tmp_path).column(parts.part_name(0), 0, column)
    (record,) = Parts(tmp_path).records()
    assert isinstance(record, Failure)
