"""Labelled images, many in a file: Parquet, webdataset and zip, on disk and in a store, asked and planned."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from object_stores import FaultyStore, forget, use

import nshot
from nshot.cli import run
from nshot.distributed.plan import Plan
from nshot.objects import open_folder

pytest.importorskip("obstore", reason="object stores need obstore")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

LABELS = ("cat", "dog")


def parquet(paths: list[Path], first: int) -> bytes:
    """A shard as data sets on the Hub have them: a struct of bytes and a name, and a label."""
    rows = [
        {"image": {"bytes": path.read_bytes(), "path": path.name}, "label": LABELS[(first + number) % 2]}
        for number, path in enumerate(paths)
    ]
    held = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), held)
    return held.getvalue()


def tar(paths: list[Path], first: int) -> bytes:
    """A shard of webdataset: 00.jpg with 00.cls."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for number, path in enumerate(paths):
            said = LABELS[(first + number) % 2].encode()
            for name, content in ((path.name, path.read_bytes()), (f"{path.stem}.cls", said)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


def zipped(paths: list[Path]) -> bytes:
    """An archive with a folder per label."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for number, path in enumerate(paths):
            archive.writestr(f"{LABELS[number % 2]}/{path.name}", path.read_bytes())
    return held.getvalue()


@pytest.fixture
def store(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """The twelve photos with labels, in each kind of file, in a store and below tmp_path/disk."""
    paths = sorted(photos.iterdir())
    faulty = FaultyStore()
    faulty.objects |= {
        "table/data/train-00000-of-00002.parquet": parquet(paths[:4], 0),
        "table/data/train-00001-of-00002.parquet": parquet(paths[4:8], 4),
        "table/data/test-00000-of-00001.parquet": parquet(paths[8:], 8),
        "one.parquet": parquet(paths, 0),
        "wds/0000.tar": tar(paths[:6], 0),
        "wds/0001.tar": tar(paths[6:], 6),
        "set.zip": zipped(paths),
        "several/a/train/0000.parquet": parquet(paths[:6], 0),
        "several/b/train/0000.parquet": parquet(paths[6:], 6),
    }
    for key, data in faulty.objects.items():
        path = tmp_path / "disk" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with faulty.serving() as endpoint:
        use(monkeypatch, endpoint)
        yield faulty
    forget()


def labelled(spec: str, **options: str) -> list[tuple[str, tuple[str, ...] | None]]:
    return [(source.name, source.labels) for source in nshot.open_labelled(spec, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["table/", "one.parquet", "wds/", "wds/0001.tar", "set.zip"])
def test_files_of_many_images_are_evaluated_and_learnt_from_in_a_store_as_on_disk(
    place: str, store: FaultyStore, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told, found = [], []
    for number, root in enumerate((f"{tmp_path}/disk/", "s3://bucket/")):
        found.append([(name.removeprefix(root), labels) for name, labels in labelled(root + place)])
        capsys.readouterr()
        model = ["--model", str(tiny), "--no-store", "--quiet"]
        assert run(["evaluate", root + place, *model]) == 0
        told.append(capsys.readouterr().out)
        assert run(["fit", root + place, "-o", str(tmp_path / f"{number}.nshot"), *model]) == 0
    assert found[0] == found[1]
    assert len(found[0]) in (4, 6, 12)
    assert told[0] == told[1]
    first, second = (nshot.open(tmp_path / f"{number}.nshot") for number in (0, 1))
    assert np.array_equal(first.matrix, second.matrix)  # type: ignore[union-attr]


def test_parts_and_configurations_in_a_store_are_chosen_as_on_disk(
    store: FaultyStore, tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for root in (f"{tmp_path}/disk/", "s3://bucket/"):
        assert len(labelled(f"{root}table/")) == 4  # the part to measure on
        assert len(labelled(f"{root}table/", split="train")) == 8
        assert len(labelled(f"{root}several/", config="b")) == 6
        for options, said in (
            ({"split": "val"}, "has no part 'val'"),
            ({}, "choose with --config, one of: a, b"),
        ):
            with pytest.raises(nshot.NshotError, match=said):
                labelled(f"{root}{'table' if options else 'several'}/", **options)
    assert run(["evaluate", "s3://bucket/table/", "--model", str(tiny), "--no-store"]) == 0
    assert "images are those of 'test' in s3://bucket/table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "shards", "images"),
    [("table/", 1, 4), ("one.parquet", 1, 12), ("wds/", 2, 12), ("wds/0001.tar", 1, 6), ("set.zip", 1, 12)],
)
def test_a_plan_of_labelled_files_has_a_shard_per_file_and_keeps_the_labels(
    place: str, shards: int, images: int, store: FaultyStore, tiny: Path, tmp_path: Path
) -> None:
    for number, root in enumerate((f"{tmp_path}/disk/", "s3://bucket/")):
        one, many = tmp_path / f"{number}.npz", tmp_path / f"{number}"
        own = ["--labelled", "--model", str(tiny), "--no-store", "--quiet"]
        assert run(["embed", root + place, "-o", str(one), *own]) == 0
        assert run(["embed", root + place, "-o", f"{many}/", *own]) == 0
        plan = Plan.open(open_folder(many))
        assert plan is not None
        assert plan.shards == shards
        first, second = nshot.open(one), nshot.open(many)
        assert isinstance(first, nshot.Embeddings)
        assert isinstance(second, nshot.Embeddings)
        assert len(first) == len(second) == images
        assert first.labels == second.labels
        assert np.array_equal(first.vectors, second.vectors)
        assert run(["shards", "verify", str(many)]) == 0
        assert run(["evaluate", str(many), "--model", str(tiny), "--no-store"]) == 0


def test_of_labelled_files_one_that_is_damaged_is_a_failed_shard_that_says_so(
    store: FaultyStore, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["embed", "s3://bucket/wds/", "--labelled", "-o", f"{tmp_path}/v/", "--model", str(tiny)]
    assert run([*command, "--no-store", "--plan-only"]) == 0
    whole = store.objects["wds/0001.tar"]
    store.objects["wds/0001.tar"] = b"no archive"
    assert run([*command, "--no-store"]) == 1
    assert "not read: part-00001.parquet: s3://bucket/wds/0001.tar" in capsys.readouterr().err
    assert len(nshot.open(tmp_path / "v")) == 6  # type: ignore[arg-type]
    store.objects["wds/0001.tar"] = whole
    assert run([*command, "--no-store", "--again"]) == 0
    assert len(nshot.open(tmp_path / "v")) == 12  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["wds/0000.tar", "wds/0001.tar"])
def test_of_webdataset_shards_one_that_is_no_archive_stops_no_other_before_there_is_a_plan(
    bad: str, store: FaultyStore, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.objects[bad] = b"no archive"
    own = ["--model", str(tiny), "--no-store"]
    assert run(["embed", "s3://bucket/wds/", "--labelled", "-o", f"{tmp_path}/v/", *own]) == 1
    assert f"s3://bucket/{bad} is not a tar archive" in capsys.readouterr().err
    assert len(nshot.open(tmp_path / "v")) == 6  # type: ignore[arg-type]
    assert run(["evaluate", "s3://bucket/wds/", *own]) == 1
    assert "6 images" in capsys.readouterr().out
