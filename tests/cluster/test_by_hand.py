"""The recipe for two machines by hand, typed on two machines within this one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Host, missing, two_hosts
from recipes import DOCS, changed, made_photos, shell

pytestmark = pytest.mark.cluster
pytest.importorskip("ray", reason='a cluster needs Ray: pip install "nshot[ray]", or make cluster')
pytest.importorskip("pyarrow.parquet")

IMAGES = 400
SMALL = "--precision f32 --model sketchbook --shard-size 10 --no-store"
# Fixed ports: an agent that is slow to say its own, on a busy machine, ends its node.
PORTS = (
    "--num-cpus 1 --object-store-memory 100000000 --metrics-export-port 8081 --runtime-env-agent-port 8082 "
    "--dashboard-agent-grpc-port 8083 --dashboard-agent-listen-port 8084"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hand")


@pytest.fixture(scope="module")
def photos(home: Path) -> Path:
    """Four hundred images, in a folder that both machines see."""
    return made_photos(home / "photos", IMAGES)


@pytest.fixture(scope="module")
def machines(home: Path) -> Iterator[tuple[Host, Host]]:
    if (why := missing()) is not None:
        pytest.skip(why)
    own = shell(home, nshot="nshot", ray="ray.scripts.scripts")
    own["GRPC_DNS_RESOLVER"] = "native"  # there is no server of names, which gRPC by itself waits for
    try:
        with two_hosts(home / "hosts", own) as found:
            yield found
    except RuntimeError as error:
        pytest.skip(f"no machines within this one: {error}")


def typed(photos: Path, vectors: Path) -> dict[str, str]:
    """The commands of docs/scale.md, in their order, by what each of them is known by."""
    part = DOCS.read_text(encoding="utf-8").partition("### Two machines by hand")[2].partition("\n### ")[0]
    lines = [line.partition(" #")[0].strip() for line in re.findall(r"^    (.*)$", part, re.MULTILINE)]
    assert len(lines) == 6
    changes = {"s3://bucket/photos/": f"{photos}/", "s3://bucket/vectors/": f"{vectors}/"}
    commands = [changed(line, changes) + f" {SMALL}" if "nshot" in line else line for line in lines]
    commands = [f"{line} {PORTS}" if line.startswith("ray start") else line for line in commands]
    return dict(zip(("plan", "first", "second", "head", "joins", "ray"), commands, strict=True))


def held(folder: Path) -> dict[str, bytes]:
    """All but the draft of a machine that lost its power, whose name begins with a dot: it goes in a day."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def alone(machines: tuple[Host, Host], home: Path, photos: Path) -> Path:
    """What one process makes."""
    status, out = machines[0].do(f"nshot embed {photos}/ -o {home}/alone/ {SMALL}")
    assert status == 0, out
    return home / "alone"


def test_two_machines_share_the_shards_out_by_hand(
    machines: tuple[Host, Host], home: Path, photos: Path, alone: Path
) -> None:
    first, _ = machines
    commands = typed(photos, home / "by-hand")
    status, out = first.do(commands["plan"])
    assert (status, f"{IMAGES} images in" in out) == (0, True), out
    begun = [(machine, machine.begin(commands[machine.name])) for machine in machines]
    for machine, process in begun:
        status, out = machine.end(process)
        assert status == 0, out
        assert f"{IMAGES // 2} vectors" in out
    assert held(home / "by-hand") == held(alone)


def test_a_ray_cluster_of_two_machines_goes_on_when_one_loses_its_power(
    machines: tuple[Host, Host], home: Path, photos: Path, alone: Path
) -> None:
    first, second = machines
    commands = typed(photos, home / "by-ray")
    for machine, what in ((first, "head"), (second, "joins")):
        status, out = machine.do(commands[what])
        assert status == 0, out
    status, out = first.do(commands["ray"])
    assert status == 0, out
    assert held(home / "by-ray") == held(alone)
    commands = typed(photos, home / "by-one")
    process = first.begin(commands["ray"])
    while len(list((home / "by-one").glob("part-*"))) < 6:
        assert process.poll() is None, first.end(process)
        time.sleep(0.02)
    second.off()
    status, out = first.end(process, 250)
    assert status == 0, out
    assert held(home / "by-one") == held(alone)
