"""The container file: what it promises, and, where Docker runs, that it keeps it."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.request
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_container_runs_without_root_and_keeps_models_in_a_volume() -> None:
    lines = (ROOT / "Containerfile").read_text().splitlines()
    assert lines.index("USER 10001") < next(
        k for k, line in enumerate(lines) if line.startswith("ENTRYPOINT")
    )
    assert "VOLUME /models" in lines
    assert not any("NSHOT_TOKEN" in line for line in lines if not line.startswith("#"))


def test_the_container_is_built_and_gets_ready_on_a_read_only_root() -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("docker is installed, but no daemon answers")
    name = f"nshot-test-{uuid.uuid4().hex[:8]}"
    docker("build", "-t", name, "-f", str(ROOT / "Containerfile"), str(ROOT))
    hardened = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "-e", "NSHOT_TOKEN=secret")
    docker("run", "-d", "--name", name, *hardened, "-p", "127.0.0.1::7860", name, "--model", "sketchbook")
    try:
        address = docker("port", name, "7860").splitlines()[0]
        status = 0
        for _ in range(120):
            with suppress(OSError), urllib.request.urlopen(f"http://{address}/ready", timeout=10) as answer:
                status = answer.status
                break
            time.sleep(1)
        assert status == 200
        assert docker("exec", name, "id", "-u") == "10001"
        docker("stop", "-t", "40", name)
        assert docker("inspect", "-f", "{{.State.ExitCode}}", name) == "0"
    finally:
        docker("rm", "-f", name)
        docker("rmi", "-f", name)
