"""Every command of the tutorial runs, in its order, in one shell, against a stand-in for the Hub."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hub_server import hub_server
from PIL import Image

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "photos"
NAMES = (
    *("tench", "English springer", "cassette player", "chain saw", "church"),
    *("French horn", "garbage truck", "gas pump", "golf ball", "parachute"),
)


SHIPPED = (Path(str(files("nshot"))) / "sketchbook" / "checkpoint" / "model.safetensors").is_file()


def blocks(kind: str) -> list[str]:
    """The commands: "sh" of the path with the Hub, "bash" of the one without."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)


def images(count: int) -> list[bytes]:
    """Photographs where there are some, drawn noise where not."""
    files = sorted(SHARED.rglob("*.jpg"))[:: max(1, len(list(SHARED.rglob("*.jpg"))) // count)]
    if len(files) >= count:
        return [file.read_bytes() for file in files[:count]]
    rng = np.random.default_rng(0)
    held = []
    for _ in range(count):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(buffer, "JPEG")
        held.append(buffer.getvalue())
    return held


def imagenette(folder: Path) -> None:
    """As the Hub's copy has it: shards of config and split, the names of the labels in the schema."""
    shard = folder / "320px" / "validation" / "0000.parquet"
    shard.parent.mkdir(parents=True)
    content = images(30)
    table = pa.table(
        {
            "image": [{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(content)],
            "label": [n % 10 for n in range(len(content))],
        }
    )
    features = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    held = json.dumps({"info": {"features": features}}).encode()
    pq.write_table(table.replace_schema_metadata({b"huggingface": held}), shard)


def machine(top: Path, model: Path) -> dict[str, str]:
    """A person's machine: their images, and an `nshot` whose default model is the one at hand."""
    work = top / "work"
    for number, data in enumerate(images(6)):
        for path in (
            work / "photos" / f"{number}.jpg",
            work / "photos-by-class" / NAMES[number % 3] / f"{number}.jpg",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    (work / "first.jpg").write_bytes(images(1)[0])
    command = top / "bin" / "nshot"
    command.parent.mkdir()
    python, chosen = shlex.quote(sys.executable), shlex.quote(str(model))
    command.write_text(
        "#!/bin/sh\n"
        f'case "$*" in store*|*--model*) ;; *) set -- "$@" --model {chosen} ;; esac\n'
        f'exec {python} -m nshot "$@"\n'
    )
    interpreter = command.parent / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    interpreter.chmod(command.stat().st_mode)
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return os.environ | {
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HF_HOME": str(top / "hf"),
        "NSHOT_CACHE": str(top / "cache"),
        "NO_PROXY": "127.0.0.1",
    }


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the tutorial's commands are for a POSIX shell")
def test_every_command_of_the_tutorial_runs(tmp_path: Path, tiny: Path) -> None:
    found = blocks("sh")
    assert len(found) >= 8
    imagenette(tmp_path / "converted")
    with hub_server() as hub:
        hub.models["datasets/frgfm/imagenette"] = {"refs/convert/parquet": tmp_path / "converted"}
        environment = machine(tmp_path, tiny) | {"HF_ENDPOINT": hub.endpoint}
        work = tmp_path / "work"
        # one process for all: a command that fails ends it, and the marks say which
        script = "set -e\n" + "\n".join(f"echo '== block {n}'\n{block}" for n, block in enumerate(found))
        ran = subprocess.run(["sh", "-c", script], cwd=work, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, f"{ran.stdout[-1500:]}\n{ran.stderr[-1500:]}"
    said = dict(zip(range(len(found)), re.split(r"== block \d+\n", ran.stdout)[1:], strict=True))
    assert any("tench" in text for text in said.values())
    assert "30 images, 10 labels" in ran.stdout
    assert "an English springer" in ran.stderr or "a photo of a English springer" in ran.stderr
    for report in ("report", "my-report"):
        assert (work / report / "index.html").is_file()
    content = json.loads((work / "report" / "report.json").read_text())
    assert content["labels"] == list(NAMES)
    assert content["run"]["split"] == "validation"
    assert content["against"][-1]["name"] == "all 3 templates together"
    assert len((work / "answers.csv").read_text().splitlines()) == 7
    assert np.load(work / "vectors.npz")["vectors"].shape[0] == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the tutorial's commands are for a POSIX shell")
@pytest.mark.skipif(not SHIPPED, reason="needs the shipped checkpoint")
def test_the_path_without_a_network_runs_without_one(tmp_path: Path, tiny: Path) -> None:
    (script,) = blocks("bash")
    environment = machine(tmp_path, tiny) | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    work = tmp_path / "work"
    ran = subprocess.run(
        ["sh", "-c", "set -e\n" + script], cwd=work, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, f"{ran.stdout[-1500:]}\n{ran.stderr[-1500:]}"
    content = json.loads((work / "sketchbook-report" / "report.json").read_text())
    assert content["images"] == 24
    assert content["figures"]["top_1"] > 0.5
