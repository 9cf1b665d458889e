"""Models of the Hub, end to end against a stand-in server."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_checkpoint
from hub_server import Hub, commit_of, hub_server
from huggingface_hub import constants

from nshot.errors import NshotError
from nshot.models import checkpoint
from nshot.models import hub as hub_module

MODEL = "somebody/tiny-clip"
DEFAULT = "openai/clip-vit-base-patch32"

Answer = dict[str, Any]


def answer_to(request: Answer) -> Answer:
    """What came of ``checkpoint.find``, as JSON would hold it."""
    try:
        found = checkpoint.find(**request)
        answer: Answer = {
            "revision": found.revision,
            "weights": [str(path) for path in found.weights],
            "scale": found.logit_scale,
            "digest": found.digest,
        }
    except NshotError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    return answer


class Machine:
    """A person's machine: its own caches, and a Hub to talk to."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.environment = {
            "HF_HOME": str(home / "hf"),
            "NSHOT_CACHE": str(home / "nshot"),
            "HF_ENDPOINT": endpoint,
            "NO_PROXY": "127.0.0.1",
        }

    def find(self, *requests: str | Answer, **environment: str) -> list[Answer]:
        """What ``checkpoint.find`` gives for each request."""
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE"))]:
                patch.delenv(name)
            for name, value in (self.environment | environment).items():
                patch.setenv(name, value)
            sleep = time.sleep  # the client's pauses between retries
            patch.setattr(time, "sleep", lambda seconds: sleep(seconds / 100))
            importlib.reload(constants)  # where the client reads the environment
            patch.setattr(
                constants, "DOWNLOAD_CHUNK_SIZE", 100_000
            )  # what is lost when a download breaks off
            answers = [answer_to({"model": ask} if isinstance(ask, str) else ask) for ask in requests]
        importlib.reload(constants)
        return answers

    def find_anew(self, model: str, **environment: str) -> Answer:
        """The same in a new process, as a user starts it: also says whether the client was imported."""
        code = (
            "import json, sys; from test_hub import answer_to; answer = answer_to({'model': sys.argv[1]}); "
        )
        code += "answer['client'] = 'huggingface_hub.file_download' in sys.modules; print(json.dumps(answer))"
        here = {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code, model],
            env=os.environ | here | self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stderr == ""
        answer: Answer = json.loads(done.stdout)
        return answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("served") / "safetensors")
    for other in ("README.md", "tf_model.h5", "flax_model.msgpack", "pytorch_model.bin"):
        (folder / other).write_bytes(b"of no use here")
    return folder


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    with hub_server() as hub:
        hub.models[MODEL] = {"main": folder}
        yield hub


@pytest.fixture
def machine(tmp_path: Path, hub: Hub) -> Machine:
    return Machine(tmp_path, hub.endpoint)


def test_a_model_is_downloaded_once_and_then_found_without_the_network(hub: Hub, machine: Machine) -> None:
    first = machine.find_anew(MODEL)
    assert first["scale"] == pytest.approx(100, rel=1e-3)
    assert first["revision"] == commit_of(MODEL, "main")
    needed = {"config.json", "preprocessor_config.json", "model.safetensors"}
    needed |= {"tokenizer.json", "tokenizer_config.json"}
    assert hub.downloaded == needed

    hub.asked.clear()
    second = machine.find_anew(MODEL)
    offline = machine.find_anew(MODEL, HF_HUB_OFFLINE="1")
    assert hub.asked == []
    assert second["weights"] == offline["weights"] == first["weights"]
    assert second["digest"] == first["digest"]
    assert first["client"]
    assert not second["client"], "the client is slow to import and not needed for a cached model"


def test_the_download_is_drawn_on_request(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    machine.find({"model": MODEL, "progress": True}, TQDM_POSITION="-1")  # as on a terminal
    drawn = capfd.readouterr().err
    assert "model.safetensors" in drawn
    assert "100%" in drawn
    assert "config.json" not in drawn


def test_the_cache_stands_where_the_environment_says(machine: Machine, tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "elsewhere")
    [answer] = machine.find(MODEL, HF_HUB_CACHE=elsewhere)
    assert answer["weights"][0].startswith(elsewhere)
    [again] = machine.find(MODEL, HF_HUB_CACHE=elsewhere, HF_HUB_OFFLINE="1")
    assert again["weights"] == answer["weights"]


def test_revisions_are_branches_tags_references_and_commits(
    hub: Hub, machine: Machine, tmp_path: Path
) -> None:
    other = tiny_checkpoint(tmp_path / "other", logit_scale=2.0)
    hub.models[MODEL] |= {"v2": other, "refs/pr/7": other}
    commit = commit_of(MODEL, "v2")
    revisions = [{"model": MODEL, "revision": revision} for revision in ("v2", "refs/pr/7", commit)]
    for answer in machine.find(*revisions):
        assert answer["scale"] == pytest.approx(7.389, rel=1e-3)
    [cached] = machine.find({"model": MODEL, "revision": "refs/pr/7"}, HF_HUB_OFFLINE="1")
    assert cached["revision"] == commit_of(MODEL, "refs/pr/7")


def test_shards_and_pickled_weights_come_from_the_hub_too(hub: Hub, machine: Machine, tmp_path: Path) -> None:
    hub.models["a/sharded"] = {"main": tiny_checkpoint(tmp_path / "sharded", format="sharded")}
    hub.models["a/pickled"] = {"main": tiny_checkpoint(tmp_path / "pickled", format="bin")}
    sharded, pickled = machine.find("a/sharded", "a/pickled")
    assert len(sharded["weights"]) == 2
    assert pickled["weights"][0].endswith("pytorch_model.bin")
    assert sharded["scale"] == pickled["scale"] == pytest.approx(100, rel=1e-3)


class TestPinnedConversion:
    """The default model has no safetensors on main: they stand elsewhere, and must be the known ones."""

    @pytest.fixture
    def weights(self, hub: Hub, folder: Path, tmp_path: Path) -> Path:
        main = tmp_path / "main"
        shutil.copytree(folder, main, ignore=shutil.ignore_patterns("*.safetensors"))
        hub.models[DEFAULT] = {"main": main, "refs/pr/15": folder}
        return folder / "model.safetensors"

    @pytest.fixture
    def pinned(self, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The served weights' digest in place of the real one, which random weights cannot have."""
        pin = hub_module.Pin("refs/pr/15", hashlib.sha256(weights.read_bytes()).hexdigest())
        monkeypatch.setitem(hub_module.PINS, DEFAULT, pin)

    @pytest.mark.usefixtures("pinned")
    def test_it_is_taken_where_its_digest_is_right(self, hub: Hub, machine: Machine) -> None:
        [answer] = machine.find(DEFAULT)
        assert commit_of(DEFAULT, "refs/pr/15") in answer["weights"][0]
        assert answer["revision"] == commit_of(DEFAULT, "main")
        assert "pytorch_model.bin" not in hub.downloaded
        [again] = machine.find(DEFAULT, HF_HUB_OFFLINE="1")
        assert again["weights"] == answer["weights"]

    @pytest.mark.usefixtures("weights")
    def test_other_bytes_are_refused_and_not_kept(self, machine: Machine) -> None:
        [answer] = machine.find(DEFAULT)
        assert answer["error"] == "CorruptCheckpoint"
        assert "model.safetensors" in answer["message"]
        [again] = machine.find(DEFAULT, HF_HUB_OFFLINE="1")
        assert again["error"] == "HubUnavailable"

    @pytest.mark.usefixtures("pinned")
    def test_a_cached_copy_that_was_changed_is_fetched_again(self, hub: Hub, machine: Machine) -> None:
        [first] = machine.find(DEFAULT)
        blob = Path(first["weights"][0]).resolve()
        blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
        hub.asked.clear()
        [second] = machine.find(DEFAULT)
        assert second["digest"] == first["digest"]
        assert "model.safetensors" in hub.downloaded


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub: Hub, machine: Machine) -> None:
    hub.breaks["model.safetensors"] = [300_000]
    [answer] = machine.find(MODEL)
    assert answer["scale"] == pytest.approx(100, rel=1e-3)
    ranges = [asked for method, file, asked in hub.asked if method == "GET" and file == "model.safetensors"]
    assert ranges == [None, "bytes=300000-"]


def test_a_download_that_keeps_breaking_off_is_said_and_can_be_tried_again(
    hub: Hub, machine: Machine
) -> None:
    hub.breaks["model.safetensors"] = [0] * 50
    [answer] = machine.find(MODEL)
    assert answer["error"] == "HubUnavailable"
    assert "model.safetensors" in answer["message"]
    hub.breaks.clear()
    [again] = machine.find(MODEL)
    assert again["scale"] == pytest.approx(100, rel=1e-3)


def test_a_download_with_other_bytes_than_announced_is_said_and_can_be_tried_again(
    hub: Hub, machine: Machine
) -> None:
    hub.corrupted.add("model.safetensors")
    [answer] = machine.find(MODEL)
    assert answer["error"] == "CorruptCheckpoint"
    assert "model.safetensors" in answer["message"]
    hub.corrupted.clear()
    [again] = machine.find(MODEL)
    assert again["scale"] == pytest.approx(100, rel=1e-3)


def test_what_the_hub_does_not_have_is_said(hub: Hub, machine: Machine, tmp_path: Path) -> None:
    hub.models |= {"a/gated": hub.models[MODEL], "an/empty-one": {"main": tmp_path}}
    hub.gated.add("a/gated")
    answers = machine.find(
        "somebody/typo", {"model": MODEL, "revision": "typo"}, "a/gated", "an/empty-one", "not a name"
    )
    assert {answer["error"] for answer in answers} == {"CheckpointNotFound"}
    repository, revision, gated, empty, invalid = (answer["message"] for answer in answers)
    assert "no model somebody/typo" in repository
    assert "HF_TOKEN" in repository
    assert "no revision typo" in revision
    assert "accept its terms" in gated
    assert "no config.json" in empty
    assert "neither a folder nor a name" in invalid


def test_a_private_model_comes_with_its_token(hub: Hub, machine: Machine) -> None:
    hub.tokens[MODEL] = "hf_secret"
    assert machine.find(MODEL)[0]["error"] == "CheckpointNotFound"
    assert machine.find(MODEL, HF_TOKEN="hf_secret")[0]["scale"] == pytest.approx(100, rel=1e-3)


def test_another_architecture_is_refused_before_its_weights_are_fetched(
    hub: Hub, machine: Machine, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "blip")
    (folder / "config.json").write_text(json.dumps({"architectures": ["BlipModel"], "model_type": "blip"}))
    hub.models["owner/blip"] = {"main": folder}
    [answer] = machine.find("owner/blip")
    assert answer["error"] == "UnsupportedArchitecture"
    assert "BlipModel" in answer["message"]
    assert hub.downloaded == {"config.json"}


def test_without_network_and_cache_the_error_is_quick_and_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as reserved:  # bound and not listening: connections are refused
        reserved.bind(("127.0.0.1", 0))
        machine = Machine(tmp_path, f"http://127.0.0.1:{reserved.getsockname()[1]}")
        answers = {
            "network": machine.find_anew(MODEL),
            "HF_HUB_OFFLINE": machine.find_anew(MODEL, HF_HUB_OFFLINE="1"),
        }
    for advice, answer in answers.items():
        assert answer["error"] == "HubUnavailable"
        assert f"{MODEL} is not cached" in answer["message"]
        assert advice in answer["message"]


def test_a_hub_that_never_answers_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = Machine(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}").find_anew(MODEL)
    assert answer["error"] == "HubUnavailable"


def test_a_hub_that_fails_is_said(hub: Hub, machine: Machine) -> None:
    hub.failing = True
    [answer] = machine.find(MODEL)
    assert answer["error"] == "HubUnavailable"
    assert "500" in answer["message"]


def test_an_endpoint_that_is_none_is_said(machine: Machine) -> None:
    [answer] = machine.find(MODEL, HF_ENDPOINT="hub.example")
    assert answer["error"] == "HubUnavailable"
    assert "hub.example" in answer["message"]


def test_a_download_under_way_tells_how_much_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert hub_module.under_way(MODEL) is None
    blobs = tmp_path / "models--somebody--tiny-clip" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "whole").write_bytes(b"x" * 10)
    assert hub_module.under_way(MODEL) is None
    (blobs / "abc.incomplete").write_bytes(b"x" * 12_345)
    assert hub_module.under_way(MODEL) == 12_345
