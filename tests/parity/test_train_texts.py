"""The text tower fine-tuned on vectors: the same as `nshot train` does, and beside the probes of a curve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


import nshot  # noqa: E402
from nshot.cli import run as command_line  # noqa: E402
from nshot.errors import RequestError  # noqa: E402
from nshot.few_shot.curve import FINE_TUNED, NSHOT, curve  # noqa: E402
from nshot.sketchbook import NEW_SHAPES, draw, sample  # noqa: E402
from nshot.train import Options, train  # noqa: E402
from nshot.train.texts import TextTuner  # noqa: E402

PROMPTS = {"cup": ["a picture of a cup"], "key": ["a picture of a key"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two things that the sketchbook's model has never seen, twenty drawings each."""
    folder = tmp_path_factory.mktemp("new")
    for label in PROMPTS:
        assert label in NEW_SHAPES
        (folder / label).mkdir()
        for number in range(20):
            scene = sample(10**9 + number, styles=("flat",), pairs=[("red", label)], several=0)
            draw(scene).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def images(folder: Path) -> Any:
    return nshot.load("sketchbook").embed(nshot.open_labelled(folder))


def test_it_gives_the_labels_of_what_train_writes(tmp_path: Path, folder: Path, images: Any) -> None:
    options = Options(epochs=4, threads=1)
    found = TextTuner("sketchbook", PROMPTS, options)(images.vectors, images.label)
    train(
        folder,
        tmp_path / "m",
        start="sketchbook",
        options=options,
        templates=["a picture of a {}"],
        blend=0.5,
    )
    expected = nshot.load(tmp_path / "m").embed_texts([texts[0] for texts in PROMPTS.values()])
    assert np.abs(found - expected).max() < 2e-3


def test_each_training_begins_with_the_same_weights(images: Any) -> None:
    tuner = TextTuner("sketchbook", PROMPTS, Options(epochs=2, threads=1))
    first = tuner(images.vectors, images.label)
    assert tuner.seconds(images.vectors, images.label) > 0
    assert np.array_equal(first, tuner(images.vectors, images.label))
    with pytest.raises(RequestError, match="no prompt for 'cat'"):
        tuner(images.vectors, ["cat"] * len(images))


def test_a_curve_has_it_beside_the_probes_with_what_it_costs(images: Any) -> None:
    prompts = nshot.zero_shot(nshot.load("sketchbook"), list(PROMPTS), ["a picture of a {}"])
    tuner = TextTuner("sketchbook", PROMPTS, Options(epochs=2, threads=1))
    points = curve(images.vectors, images.label, prompts, shots=(0, 2, 8), draws=2, fine_tune=tuner)
    tuned = [point for point in points if point.method == FINE_TUNED]
    assert [point.shots for point in tuned] == [8]  # four images are too few
    assert len(tuned[0].accuracies) == len(tuned[0].seconds) == 2
    own = next(point for point in points if point.method == NSHOT and point.shots == 8)
    assert 0 < sum(own.seconds) < sum(tuned[0].seconds)


def test_the_command_shows_it_and_keeps_it(tmp_path: Path, folder: Path, capsys: Any) -> None:
    asked = ["curve", str(folder), "--model", "sketchbook", "--shots", "0,8", "--draws", "1", "--fine-tune"]
    assert command_line([*asked, "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "fine-tuned" in said
    assert "of processor time for 16 images" in said
    points = json.loads((tmp_path / "out" / "curve.json").read_text())["points"]
    assert any(point["method"] == FINE_TUNED and point["seconds"] for point in points)
