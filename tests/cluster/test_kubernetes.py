"""The recipes for Kubernetes, as far as they run without one: schemas, and what their containers run."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_stores import FaultyStore
from PIL import Image
from recipes import blocks, changed, shell
from two_nodes import free_ports

pytestmark = pytest.mark.cluster
pytest.importorskip("ray", reason='a cluster needs Ray: pip install "nshot[ray]", or make cluster')
pytest.importorskip("obstore", reason="object stores need obstore")
yaml = pytest.importorskip("yaml")

IMAGES, JOBS = 120, 4
SMALL = "--precision f32 --model sketchbook --shard-size 10"


def manifest(kind: str) -> str:
    """The text of the manifest in docs/scale.md."""
    (text,) = [block for block in blocks("yaml") if f"kind: {kind}\n" in block]
    return text


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kubernetes")


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[FaultyStore, str]]:
    """A bucket of images, one of which cannot be decoded."""
    found = FaultyStore()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        held = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(held, "PNG")
        found.objects[f"photos/{number:04}.png"] = held.getvalue()
    found.objects["photos/0007.png"] = b"no image"
    with found.serving() as endpoint:
        yield found, endpoint


@pytest.fixture(scope="module")
def inside(home: Path, store: tuple[FaultyStore, str]) -> dict[str, str]:
    """The environment of a container: the programs of its image, and a service account's credentials."""
    own = shell(home, nshot="nshot", ray="ray.scripts.scripts")
    own |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    return own | {"AWS_ENDPOINT_URL": store[1]}


@pytest.fixture(scope="module")
def alone(store: tuple[FaultyStore, str], inside: Mapping[str, str]) -> dict[str, bytes]:
    """What one process makes: name -> bytes."""
    command = f"nshot embed s3://bucket/photos/ -o s3://bucket/alone/ --quiet {SMALL}"
    assert subprocess.run(command, shell=True, env=dict(inside), check=False).returncode == 1
    return made(store[0], "alone")


def made(store: FaultyStore, folder: str) -> dict[str, bytes]:
    return {
        key.removeprefix(f"{folder}/"): data
        for key, data in store.objects.items()
        if key.startswith(f"{folder}/")
    }


def test_the_manifests_fit_kubernetes_schemas() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="schemas: pip install kubernetes-validate")
    version = validate.latest_version()
    job = yaml.safe_load(manifest("Job"))
    validate.validate(job, version, strict=True)
    spec = yaml.safe_load(manifest("RayJob"))["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x"},
            "spec": group["template"]["spec"],
        }
        validate.validate(pod, version, strict=True)
    job["spec"]["completion"] = 3  # a word that is not Kubernetes'
    with pytest.raises(validate.ValidationError):
        validate.validate(job, version, strict=True)


def test_the_indexed_jobs_command_makes_what_one_process_makes_whatever_is_killed(
    store: tuple[FaultyStore, str], inside: Mapping[str, str], alone: Mapping[str, bytes]
) -> None:
    text = changed(
        manifest("Job"), {"16": str(JOBS), "--precision f32": SMALL, "bucket/vectors/": "bucket/job/"}
    )
    spec = yaml.safe_load(text)["spec"]
    assert spec["completions"] == JOBS
    (container,) = spec["template"]["spec"]["containers"]

    def pod(index: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            container["command"],
            env=dict(inside) | {"JOB_COMPLETION_INDEX": str(index)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    pods = [pod(index) for index in range(JOBS)]
    _until(lambda: any(key.startswith("job/part-") for key in store[0].objects), pods[0])
    os.killpg(pods[1].pid, signal.SIGKILL)  # a spot machine is taken away
    ended = [each.wait(240) for each in pods]
    assert [ended[index] for index in (0, 2, 3)] == [0, 0, 0]  # also where an image failed
    assert pod(1).wait(240) == 0  # restartPolicy: OnFailure
    assert made(store[0], "job") == alone


def _until(there: Any, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, "it did not come in time"
        assert process.poll() is None
        time.sleep(0.05)


def start_command(group: Mapping[str, Any], own: Mapping[str, str]) -> str:
    """What the operator has a group's container run: ``ray start`` with its parameters and its own."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    said = {"num-cpus": limits["cpu"], "block": "true"} | dict(own) | group["rayStartParams"]
    words = [f"--{name}" if value == "true" else f"--{name}={value}" for name, value in sorted(said.items())]
    return " ".join(["ulimit -n 65536; ray start", *words])


@contextmanager
def running(command: str, inside: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["/bin/bash", "-c", "--", command],
            env=dict(inside),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
                process.wait(15)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def test_the_rayjobs_entrypoint_runs_on_a_head_and_a_worker_started_as_the_operator_does(
    store: tuple[FaultyStore, str], inside: Mapping[str, str], alone: Mapping[str, bytes], home: Path
) -> None:
    pytest.importorskip("aiohttp", reason='a RayJob needs the dashboard: pip install "ray[default]"')
    text = changed(manifest("RayJob"), {"--precision f32": SMALL, "bucket/vectors/": "bucket/rayjob/"})
    spec = yaml.safe_load(text)["spec"]
    cluster = spec["rayClusterSpec"]
    ports = free_ports(11)
    gcs, dashboard = ports[:2]
    agents = ["metrics-export-port", "dashboard-agent-listen-port", "runtime-env-agent-port"]
    agents.append("dashboard-agent-grpc-port")
    kept = {"object-store-memory": str(100 * 2**20), "node-ip-address": "127.0.0.1"}
    head = kept | {
        "head": "true",
        "port": str(gcs),
        "dashboard-host": "0.0.0.0",
        "dashboard-port": str(dashboard),
    }
    head |= {"ray-client-server-port": str(ports[2])}
    head |= {name: str(port) for name, port in zip(agents, ports[3:7], strict=True)}
    worker = kept | {"address": f"127.0.0.1:{gcs}"}
    worker |= {name: str(port) for name, port in zip(agents, ports[7:11], strict=True)}
    group = changed_cpus(cluster["workerGroupSpecs"][0])
    inside = dict(inside) | {"RAY_ADDRESS": f"127.0.0.1:{gcs}"}
    address = f"http://127.0.0.1:{dashboard}"
    with (
        running(start_command(cluster["headGroupSpec"], head), inside, home / "head.log") as first,
        running(start_command(group, worker), inside, home / "worker.log") as second,
    ):
        _until(lambda: healthy(address), first)
        # the operator writes the entrypoint into a script of bash, as it stands
        submit = (
            f"ray job submit --address {address} --submission-id embed-1 -- {spec['entrypoint'].strip()} ;"
        )
        done = subprocess.run(
            ["/bin/bash", "-ce", "--", submit],
            env=inside,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert second.poll() is None
    said = done.stdout + done.stderr
    assert done.returncode == 0, said + (home / "head.log").read_text()[-2000:]
    assert f"{IMAGES - 1} vectors: s3://bucket/rayjob/" in said
    assert made(store[0], "rayjob") == alone


def healthy(address: str) -> bool:
    """Whether the dashboard answers the operator's probe."""
    try:
        with urllib.request.urlopen(f"{address}/api/gcs_healthz", timeout=2) as answer:
            return b"success" in answer.read()
    except OSError:
        return False


def changed_cpus(group: dict[str, Any]) -> dict[str, Any]:
    """A group whose workers have one core, as there are few here."""
    (container,) = group["template"]["spec"]["containers"]
    container["resources"]["limits"]["cpu"] = "1"
    return group
