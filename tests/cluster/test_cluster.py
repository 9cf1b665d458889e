"""Shards over two Ray nodes on this machine: complete, no duplicates, the same bytes, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from two_nodes import Nodes, driver, environment

pytestmark = pytest.mark.cluster
pytest.importorskip("ray", reason='a cluster needs Ray: pip install "nshot[ray]", or make cluster')
pq = pytest.importorskip("pyarrow.parquet")

SHARDS, SIZE = 40, 25
KILLS = int(os.environ.get("NSHOT_KILLS", "3"))  # of workers, of nodes, of drivers


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def photos(home: Path) -> Path:
    """A thousand images, of which two cannot be decoded."""
    folder = home / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(SHARDS * SIZE):
        pixels = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.jpg", quality=90)
    for number in (7, 333):
        (folder / f"{number:04}.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def nodes(home: Path) -> Iterator[Nodes]:
    patch = pytest.MonkeyPatch()
    for name, value in environment(home).items():
        patch.setenv(name, value)
    found = Nodes(environment(home))
    try:
        yield found
    finally:
        found.stop()
        patch.undo()


def arguments(photos: Path, folder: Path, *more: str) -> list[str]:
    kept = ["--shard-size", str(SIZE), "--model", "sketchbook", "--precision", "f32", "--no-store", "--quiet"]
    return ["embed", str(photos), "-o", f"{folder}/", *kept, *more]


@pytest.fixture(scope="module")
def alone(home: Path, photos: Path, nodes: Nodes) -> Path:
    """What one process without Ray makes."""
    folder = home / "alone"
    done = subprocess.run([sys.executable, "-m", "nshot", *arguments(photos, folder)], check=False)
    assert done.returncode == 1
    return folder


def same(first: Path, second: Path) -> None:
    assert {path.name: path.read_bytes() for path in first.iterdir()} == {
        path.name: path.read_bytes() for path in second.iterdir()
    }


def parts(folder: Path) -> int:
    return len(list(folder.glob("part-*.parquet")))


def _run(
    nodes: Nodes, photos: Path, folder: Path, during: Callable[[subprocess.Popen[str]], Any] | None = None
) -> int:
    with driver(arguments(photos, folder, "--ray", nodes.address)) as process:
        if during is not None:
            during(process)
        out, error = process.communicate(timeout=200)
        assert process.returncode in (1, -9), out + error
        return process.returncode


def _wait(process: subprocess.Popen[str], until: Callable[[], bool], seconds: float = 100) -> bool:
    """Wait for something while the driver runs; whether it came."""
    for _ in range(int(seconds / 0.02)):
        if until():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    raise AssertionError("it did not come in time")


def test_two_nodes_make_what_one_process_makes(nodes: Nodes, photos: Path, home: Path, alone: Path) -> None:
    assert _run(nodes, photos, home / "two") == 1
    same(home / "two", alone)


def test_a_worker_may_be_killed_again_and_again(nodes: Nodes, photos: Path, home: Path, alone: Path) -> None:
    folder, killed = home / "workers", []

    def kill(process: subprocess.Popen[str]) -> None:
        for number in range(KILLS):
            if not _wait(process, lambda: parts(folder) > 6 * number):  # noqa: B023
                return
            if _wait(process, nodes.kill_worker):
                killed.append(number)

    _run(nodes, photos, folder, kill)
    assert len(killed) == KILLS
    same(folder, alone)


def test_a_node_whose_cores_another_job_holds_keeps_nobody_waiting(
    nodes: Nodes, photos: Path, home: Path, alone: Path
) -> None:
    code = (
        "import sys, ray\n"
        "from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On\n"
        f"ray.init(address={nodes.address!r}, logging_level='ERROR')\n"
        "class Holder:\n"
        "    def here(self): return 0\n"
        "node = next(each['NodeID'] for each in ray.nodes() if each['Alive'])\n"
        "on = On(node, soft=False)\n"
        "held = ray.remote(Holder).options(num_cpus=1, scheduling_strategy=on).remote()\n"
        "ray.get(held.here.remote())\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert any(line == "held\n" for line in holder.stdout)
        assert _run(nodes, photos, home / "held") == 1
        assert holder.poll() is None
    finally:
        holder.communicate("", timeout=60)
    same(home / "held", alone)


def test_a_node_may_be_killed_and_another_come(nodes: Nodes, photos: Path, home: Path, alone: Path) -> None:
    killed = []
    for number in range(KILLS):
        folder = home / f"node-{number}"

        def kill(process: subprocess.Popen[str], folder: Path = folder, number: int = number) -> None:
            if _wait(process, lambda: parts(folder) > 4 * number):
                nodes.kill_second()
                killed.append(number)

        _run(nodes, photos, folder, kill)
        same(folder, alone)
        nodes.settle()
    assert len(killed) == KILLS


def test_the_driver_may_be_killed_and_started_again(
    nodes: Nodes, photos: Path, home: Path, alone: Path
) -> None:
    folder, killed = home / "drivers", []
    for number in range(KILLS):

        def kill(process: subprocess.Popen[str], number: int = number) -> None:
            if _wait(process, lambda: parts(folder) > 6 * number):
                process.kill()
                killed.append(number)

        _run(nodes, photos, folder, kill)
    _run(nodes, photos, folder)
    assert len(killed) == KILLS
    same(folder, alone)


def test_a_folder_of_vectors_is_asked_on_two_nodes(nodes: Nodes, home: Path, alone: Path) -> None:
    ask = ["classify", str(alone), "--labels", "cat, dog, tree", "--model", "sketchbook"]
    ask += ["--precision", "f32", "--no-store", "--quiet", "-o"]
    for folder, more in (("here", []), ("there", ["--ray", nodes.address])):
        done = subprocess.run(
            [sys.executable, "-m", "nshot", *ask, f"{home / folder}/", *more], check=False, timeout=120
        )
        assert done.returncode == 1  # of two images
    tables = [
        [row for path in sorted((home / folder).iterdir()) for row in pq.read_table(path).to_pylist()]
        for folder in ("here", "there")
    ]
    assert len(tables[0]) == SHARDS * SIZE
    for first, second in zip(*tables, strict=True):
        assert first["source"] == second["source"]
        assert first["label"] == second["label"]
        assert first["score"] == pytest.approx(second["score"], abs=1e-6)


def test_what_a_worker_finds_wrong_is_said(nodes: Nodes, photos: Path, home: Path) -> None:
    folder = home / "gone"
    plan = [*arguments(photos, folder), "--plan-only"]
    assert subprocess.run([sys.executable, "-m", "nshot", *plan], check=False).returncode == 0
    code = (
        "import sys; from nshot.distributed import ray; from nshot.errors import RequestError\n"
        f"ray.start({nodes.address!r})\n"
        "what = {'folder': '/nowhere', 'model': {'model': 'sketchbook'}, 'again': False}\n"
        "job = ray.Job(ray.embedding, what)\n"
        "try: list(ray.run(job, range(3)))\n"
        "except RequestError as error: print(error); sys.exit(2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "use a shared folder" in done.stdout


def test_a_driver_that_is_no_part_of_the_cluster_gets_the_same(
    nodes: Nodes, photos: Path, home: Path, alone: Path
) -> None:
    pytest.importorskip("grpc", reason='ray:// needs grpcio: pip install "nshot[ray]"')
    with driver(arguments(photos, home / "client", "--ray", nodes.client)) as process:
        out, error = process.communicate(timeout=200)
        assert process.returncode == 1, out + error
    same(home / "client", alone)


def test_ctrl_c_is_one_line_and_the_next_run_goes_on(
    nodes: Nodes, photos: Path, home: Path, alone: Path
) -> None:
    folder = home / "interrupted"
    with driver(arguments(photos, folder, "--ray", nodes.address)) as process:
        assert _wait(process, lambda: parts(folder) > 4)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error.strip()) == (130, "", "nshot: interrupted")
    assert parts(folder) < SHARDS
    _run(nodes, photos, folder)
    same(folder, alone)


def _told(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_gpu_of_the_cluster_has_a_worker_of_its_own(
    nodes: Nodes, photos: Path, home: Path, alone: Path
) -> None:
    met = home / "met"
    met.mkdir()
    code = (
        "import json, sys; from nshot.distributed import ray, run; from two_nodes import seen\n"
        f"ray.start({nodes.address!r})\n"
        f"job = ray.Job(seen, {{'folder': {str(met)!r}, 'workers': 2}}, gpu=True)\n"
        "found = ray.run(job, range(12))\n"
        "print(json.dumps(sorted(found)))\n"
    )
    with nodes.with_gpus(2):
        found = json.loads(_told(code))
        assert {tuple(ids) for ids, _, _ in found} == {(0,), (1,)}
        assert all([str(each) for each in ids] == visible.split(",") for ids, visible, _ in found)
        assert {cores for *_, cores in found} == {1}
        # and where the model runs on the CPU all the same, every node takes part and none asks for a GPU
        assert _run(nodes, photos, home / "gpus") == 1
        same(home / "gpus", alone)


def test_a_gpu_that_no_node_has_is_said(nodes: Nodes, photos: Path, home: Path) -> None:
    command = arguments(photos, home / "cuda", "--ray", nodes.address, "--device", "cuda")
    with driver(command) as process:
        _, error = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "has a GPU: leave out --device cuda" in error


def test_a_cluster_that_is_not_there_is_said(nodes: Nodes, photos: Path, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nshot", *arguments(photos, home / "none", "--ray", "127.0.0.1:1")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "no Ray cluster at 127.0.0.1:1" in done.stderr
