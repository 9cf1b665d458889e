"""A folder of vectors under attack: two runs at once, damage, changes, Ctrl-C; and how that is told."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from object_stores import FaultyStore, forget, use
from PIL import Image

import nshot
from nshot.cli import run
from nshot.distributed.plan import Plan
from nshot.distributed.report import Progress
from nshot.distributed.run import Request, planned
from nshot.distributed.shards import Summary
from nshot.errors import RequestError
from nshot.objects import open_folder, stores

pytest.importorskip("pyarrow.parquet")
pytest.importorskip("obstore", reason="object stores need obstore")

SOURCE = str(Path(nshot.__file__).parents[1])


def embed(tiny: Path, *arguments: str | Path) -> int:
    return run(["embed", *map(str, arguments), "--model", str(tiny), "--no-store"])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Two hundred small images."""
    folder = tmp_path / "many"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(200):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture
def store(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """The twelve photos below photos/ in a store."""
    faulty = FaultyStore()
    for path in sorted(photos.iterdir()):
        faulty.objects[f"photos/{path.name}"] = path.read_bytes()
    with faulty.serving() as endpoint:
        use(monkeypatch, endpoint)
        yield faulty
    forget()


def command(tiny: Path, source: Path | str, output: Path, *more: str) -> list[str]:
    own = ["--shard-size", "4", "--model", str(tiny), "--no-store", *more]
    return [sys.executable, "-m", "nshot", "embed", str(source), "-o", f"{output}/", *own]


def started(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        env=os.environ | {"PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_runs_into_one_folder_at_once_make_one_folder(tiny: Path, many: Path, tmp_path: Path) -> None:
    assert embed(tiny, many, "-o", tmp_path / "alone", "--shard-size", "4") == 0
    runs = [started(command(tiny, many, tmp_path / "both")) for _ in range(2)]
    for each in runs:
        out, error = each.communicate(timeout=120)
        assert each.returncode == 0, error
        assert out == f"200 vectors: {tmp_path}/both/\n"
    assert files(tmp_path / "both") == files(tmp_path / "alone")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there are no signals of this kind here")
def test_ctrl_c_is_one_line_and_the_next_run_goes_on(tiny: Path, many: Path, tmp_path: Path) -> None:
    for attempt in range(5):  # a run that is over before it hears is tried again
        folder = tmp_path / f"v{attempt}"
        process = started(command(tiny, many, folder))
        while not list(folder.glob("part-*")) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
        if process.returncode:
            break
    assert (process.returncode, out, error.strip()) == (130, "", "nshot: interrupted")
    assert all(re.fullmatch(r"manifest\.parquet|part-\d{5}\.parquet", path.name) for path in folder.iterdir())
    assert embed(tiny, many, "-o", folder, "--shard-size", "4") == 0
    assert embed(tiny, many, "-o", tmp_path / "alone", "--shard-size", "4") == 0
    assert files(folder) == files(tmp_path / "alone")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there are no signals of this kind here")
@pytest.mark.parametrize("hangs", ["reads", "lists"])
def test_ctrl_c_is_heard_while_a_store_hangs(
    hangs: str, tiny: Path, store: FaultyStore, tmp_path: Path
) -> None:
    """It is given up after half a minute: whoever interrupts does not wait for that."""
    if hangs == "reads":
        store.faults = dict.fromkeys(store.objects, lambda _: "hang")
    else:
        store.names = lambda *_: ["late"] * store.let_go.wait(60)
    process = started(command(tiny, "s3://bucket/photos/", tmp_path / "v"))
    while not (store.asked.total() or (store.lists and hangs == "lists")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=15)
    assert (process.returncode, out, error.strip()) == (130, "", "nshot: interrupted")


def test_a_draft_of_a_process_with_our_own_number_goes(tiny: Path, photos: Path, tmp_path: Path) -> None:
    """As in a container, whose process has the same number when it is started again."""
    folder = tmp_path / "v"
    assert embed(tiny, photos, "-o", folder, "--shard-size", "5", "--plan-only") == 0
    host = socket.gethostname().replace(".", "-")[:40]
    (folder / f".part-00001.parquet.{host}.{os.getpid()}.abc123.part").write_bytes(b"half")
    assert embed(tiny, photos, "-o", folder, "--shard-size", "5") == 0
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    with open_folder(folder).drafting("x") as first:  # and never one that is being written here
        with open_folder(folder).drafting("x"):
            pass
        assert first.exists()


def test_an_object_that_changed_since_the_plan_is_read_as_it_is_now(
    tiny: Path, store: FaultyStore, tmp_path: Path
) -> None:
    own = ["--model", str(tiny), "--store", str(tmp_path / "store")]
    arguments = ["embed", "s3://bucket/photos/", "-o", str(tmp_path / "v"), "--shard-size", "5"]
    assert run(["embed", "s3://bucket/photos/", "-o", str(tmp_path / "before.npz"), *own]) == 0
    assert run([*arguments, *own, "--plan-only"]) == 0
    store.objects["photos/00.jpg"] = store.objects["photos/03.jpg"]
    del store.objects["photos/01.png"]
    assert run([*arguments, "--model", str(tiny), "--no-store"]) == 1
    found = nshot.open(tmp_path / "v")
    assert isinstance(found, nshot.Embeddings)
    assert [each.message for each in found.failures.values()] == ["no such object"]
    assert np.array_equal(found.vectors[0], found.vectors[2])
    # and nothing of it is taken for what it was, or the other way round
    assert run(["embed", "s3://bucket/photos/", "-o", str(tmp_path / "after.npz"), *own]) == 0
    before, after = nshot.open(tmp_path / "before.npz"), nshot.open(tmp_path / "after.npz")
    assert isinstance(before, nshot.Embeddings)
    assert isinstance(after, nshot.Embeddings)
    assert not np.array_equal(before.vectors[0], after.vectors[0])
    assert np.array_equal(after.vectors[0], found.vectors[0])


def test_a_plan_whose_listing_was_cut_off_is_none_and_the_next_run_finishes_it(
    tiny: Path, store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nshot.distributed.plan as module

    monkeypatch.setattr(module, "_PIECE", 5)
    monkeypatch.setattr(stores, "_PAGE", 4)
    monkeypatch.setattr(stores, "_PATIENCE", 1)
    forget()
    store.page = 4
    store.cut_lists = lambda page: page >= 3
    model, request = nshot.load(tiny), Request(["s3://bucket/photos/"], shard_size=5)
    with pytest.raises(nshot.NshotError, match="cannot be listed"):
        planned(tmp_path / "v", request, model)
    assert Plan.open(open_folder(tmp_path / "v")) is None
    assert run(["shards", "status", str(tmp_path / "v")]) == 2
    store.cut_lists = lambda _: False
    plan = planned(tmp_path / "v", request, model)
    assert [entry.source for _, found in plan.entries(range(plan.shards)) for entry in found] == [
        f"s3://bucket/{key}" for key in sorted(store.objects)
    ]


def test_a_plan_of_one_precision_is_refused_by_machines_of_another(
    tiny: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nshot import encoders

    folder, request = tmp_path / "v", Request([str(photos)], shard_size=5)
    plan = planned(folder, request, nshot.load(tiny, precision="f32"))
    assert plan.meta["precision"] == "f32"

    class Other:
        """A machine that computes in bf16."""

        def __init__(self, encoder: encoders.Encoder) -> None:
            self._encoder = encoder
            self.precision = "bf16"
            self.fingerprint = f"{encoder.fingerprint} in bf16"

        def __getattr__(self, name: str) -> object:
            return getattr(self._encoder, name)

    load = encoders.load
    monkeypatch.setattr(encoders, "load", lambda *args, **kept: Other(load(*args, **kept)))
    with pytest.raises(RequestError, match=r"planned in f32 on cpu, and here the model works in bf16 on cpu"):
        planned(folder, request, nshot.load(tiny))


def test_a_tar_that_is_cut_off_gives_what_comes_before_and_says_so(
    tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.add(path, path.name)
    (tmp_path / "b.tar").write_bytes((tmp_path / "a.tar").read_bytes())
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: len(data) * 2 // 3])
    assert embed(tiny, f"{tmp_path}/*.tar", "-o", f"{tmp_path}/v/") == 1
    found = nshot.open(tmp_path / "v")
    assert isinstance(found, nshot.Embeddings)
    names = [Path(name).parent.name for name in found.sources]
    assert names.count("b.tar") == 12
    assert 0 < names.count("a.tar") < 12
    assert found.failures
    assert run(["shards", "verify", str(tmp_path / "v")]) == 0


@pytest.fixture
def whole(tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The twelve photos in shards of five."""
    assert embed(tiny, photos, "-o", f"{tmp_path}/whole/", "--shard-size", "5") == 0
    capsys.readouterr()
    return tmp_path / "whole"


def lines(capsys: pytest.CaptureFixture[str], folder: Path) -> list[str]:
    """What was printed, with the folder as a person's would be called; no line is wider than a terminal."""
    said = capsys.readouterr().out.replace(str(folder), "vectors").splitlines()
    assert max(map(len, said)) <= 80
    return said


def test_status_and_verify_of_a_whole_folder_are_few_lines(
    whole: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["shards", "status", str(whole)]) == 0
    assert [line.partition(" ")[0] for line in lines(capsys, whole)] == [
        *("complete:", "model", "planned", "done", "failed"),
    ]
    assert run(["shards", "verify", str(whole)]) == 0
    assert lines(capsys, whole) == ["3 of 3 shards are whole: vectors/"]


def test_each_kind_of_damage_is_a_line_that_names_the_file_and_the_next_run_mends_it(
    whole: Path, tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = files(whole)
    cut = made["part-00000.parquet"]
    (whole / "part-00000.parquet").write_bytes(cut[: len(cut) // 2])
    (whole / "part-00001.parquet").unlink()
    (whole / "part-00007.parquet").write_bytes(b"foreign")
    (whole / "notes.txt").write_text("a person's own")
    assert run(["shards", "status", str(whole)]) == 1
    told = lines(capsys, whole)
    assert told[0] == "not complete: vectors/"
    assert "missing    2 shards: 0-1" in told
    assert run(["shards", "verify", str(whole)]) == 1
    told = lines(capsys, whole)
    assert told[0] == "part-00000.parquet: it is damaged: cut off, or not Parquet"
    assert told[1:] == [
        "part-00001.parquet: it is missing",
        "part-00007.parquet: it belongs to no shard of this plan",
        "1 of 3 shards are whole: vectors/",
    ]
    assert embed(tiny, photos, "-o", whole, "--shard-size", "5") == 0
    assert {name: data for name, data in files(whole).items() if name in made} == made
    capsys.readouterr()
    flipped = bytearray(cut)
    flipped[200] ^= 1  # in a vector, where the file's own structure does not show it
    (whole / "part-00000.parquet").write_bytes(flipped)
    assert run(["shards", "verify", str(whole), "--remove"]) == 1
    assert lines(capsys, whole)[0] == "part-00000.parquet: its content is not what was written"
    assert embed(tiny, photos, "-o", whole, "--shard-size", "5") == 0
    assert {name: data for name, data in files(whole).items() if name in made} == made


def test_what_was_there_before_counts_as_done_and_not_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    progress = Progress(3000, said.append, terminal=True)
    progress.shard(Summary(0, 2000, 0, made=False))
    progress.count(500, {"FetchError": 2})
    assert (progress._bar.n, progress._bar.initial) == (2500, 2000)
    progress.close()
    assert "2 FetchError" in capsys.readouterr().err
    progress = Progress(3000, said.append, terminal=False)
    progress.shard(Summary(0, 2000, 0, made=False))
    progress._begun = progress._told = time.monotonic() - 100
    progress.count(500, {"FetchError": 2})
    assert said == [
        "2,500 of 3,000 images, 5 per second, 1 min 40 s left, 2 failed (2 FetchError)",
    ]


def test_a_manifest_of_another_plan_or_none_is_said(
    whole: Path, tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(tiny, photos, "-o", tmp_path / "other", "--shard-size", "4", "--plan-only") == 0
    own = (whole / "manifest.parquet").read_bytes()
    (whole / "manifest.parquet").write_bytes((tmp_path / "other" / "manifest.parquet").read_bytes())
    capsys.readouterr()
    assert run(["shards", "verify", str(whole)]) == 1
    told = lines(capsys, whole)
    assert told == [f"part-0000{number}.parquet: it belongs to another plan" for number in range(3)] + [
        "0 of 3 shards are whole: vectors/"
    ]
    for content, said in ((b"no plan", "manifest.parquet is damaged"), (own[:-5], "is damaged")):
        (whole / "manifest.parquet").write_bytes(content)
        for ask in ("status", "verify"):
            assert run(["shards", ask, str(whole)]) == 2
            assert said in capsys.readouterr().err
    (whole / "manifest.parquet").unlink()
    assert run(["shards", "status", str(whole)]) == 2
    assert "holds no manifest.parquet" in capsys.readouterr().err
    assert embed(tiny, photos, "-o", whole, "--shard-size", "5") == 2
    assert "holds part-00000.parquet and no manifest.parquet" in capsys.readouterr().err
