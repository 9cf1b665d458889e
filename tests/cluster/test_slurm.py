"""The recipe for a Slurm array, run under Slurm."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from recipes import blocks, changed, made_photos, shell
from slurm import Slurm, missing, slurm

pytestmark = pytest.mark.cluster
pytest.importorskip("pyarrow.parquet")

IMAGES, TASKS = 400, 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slurm")


@pytest.fixture(scope="module")
def photos(home: Path) -> Path:
    """Four hundred images."""
    return made_photos(home / "photos", IMAGES)


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[Slurm]:
    if (why := missing()) is not None:
        pytest.skip(why)
    own = shell(home, nshot="nshot")
    try:
        with slurm(home / "slurm", own) as found:
            yield found
    except RuntimeError as error:
        pytest.skip(str(error))


def script(home: Path, photos: Path, vectors: Path) -> Path:
    """The script of docs/scale.md, with four tasks in place of sixteen and a small model."""
    (text,) = [block for block in blocks("bash") if "#SBATCH --array" in block]
    text = changed(
        text,
        {
            "--array=0-15": f"--array=0-{TASKS - 1}",
            "--cpus-per-task=16": "--cpus-per-task=1",
            "/16": f"/{TASKS}",
            "/data/photos/": f"{photos}/",
            "/data/vectors/": f"{vectors}/",
            "--precision f32": "--precision f32 --model sketchbook --shard-size 10",
        },
    )
    path = home / "array.sh"
    path.write_text(text)
    return path


def embed(photos: Path, vectors: Path, *more: str) -> None:
    own = ["embed", f"{photos}/", "-o", f"{vectors}/", "--precision", "f32", "--model", "sketchbook"]
    command = [sys.executable, "-m", "nshot", *own, "--shard-size", "10", "--no-store", "--quiet", *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def alone(cluster: Slurm, home: Path, photos: Path) -> Path:
    """What one process makes."""
    embed(photos, home / "alone")
    return home / "alone"


def test_an_array_of_jobs_makes_what_one_process_makes_also_where_tasks_are_killed(
    cluster: Slurm, home: Path, photos: Path, alone: Path
) -> None:
    vectors = home / "vectors"
    embed(photos, vectors, "--plan-only")
    job = cluster.submit(script(home, photos, vectors))
    while len(list(vectors.glob("part-*.parquet"))) < 3:
        assert cluster.tasks(job), cluster.logs()
        time.sleep(0.02)
    running = cluster.tasks(job, "running")
    cancelled, requeued = running[0], running[-1]
    assert cancelled != requeued
    cluster.tell("scancel", "--signal=KILL", "--full", f"{job}_{cancelled}")
    cluster.requeue(job, requeued)  # as after a node was lost
    ended = cluster.ended(job)
    assert len(ended) == TASKS
    assert ended.pop(cancelled) != "COMPLETED"
    assert set(ended.values()) == {"COMPLETED"}, cluster.logs()
    assert len(held(vectors)) < len(held(alone))
    shards = [sys.executable, "-m", "nshot", "shards", "status", str(vectors)]
    told = subprocess.run(shards, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "not complete" in told.stdout
    again = cluster.submit(script(home, photos, vectors), f"--array={cancelled}")
    assert cluster.ended(again) == {cancelled: "COMPLETED"}, cluster.logs()
    assert held(vectors) == held(alone)


def test_all_tasks_may_begin_at_once_without_a_plan(
    cluster: Slurm, home: Path, photos: Path, alone: Path
) -> None:
    vectors = home / "unplanned"
    job = cluster.submit(script(home, photos, vectors))
    assert set(cluster.ended(job).values()) == {"COMPLETED"}, cluster.logs()
    found, wanted = held(vectors), held(alone)
    del (
        found["manifest.parquet"],
        wanted["manifest.parquet"],
    )  # it tells in which folder the command was given
    assert found == wanted
