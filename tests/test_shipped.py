"""The model that comes with nshot: small, whole, offline, and able to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nshot
from nshot import sketchbook
from nshot.models.checkpoint import BUILT_IN, find

FOLDER = BUILT_IN["sketchbook"]


@pytest.fixture(scope="module")
def clip() -> nshot.Embedder:
    return nshot.load("sketchbook", precision="f32")


def test_it_is_at_most_eight_megabytes_and_four_million_float16_weights() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8 * 2**20
    assert (FOLDER / "model.safetensors").stat().st_size <= 2 * 4_000_000
    assert sum(tensor.size for tensor in find("sketchbook").tensors().values()) <= 4_000_000


def test_a_folder_of_that_name_is_reached_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sketchbook").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find("sketchbook").folder == FOLDER
    with pytest.raises(nshot.NshotError):
        find("./sketchbook")


def test_it_reads_any_text_and_spells_what_it_has_not_met(clip: nshot.Embedder) -> None:
    vectors = clip.embed_texts(["a red star", "A  RED\\tstar", "un café à l'œuvre: 42 日本語 🦊", ""])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[2] < 0.99


def test_it_tells_the_exhibition_apart(clip: nshot.Embedder) -> None:
    exhibits = sketchbook.exhibition()
    labels = [f"{colour} {shape}" for colour, shape in sketchbook.PAIRS]
    classifier = nshot.zero_shot(clip, labels, templates=["a picture of a {}"])
    answers = classifier.predict(clip.embed_images([sketchbook.draw(each.scene) for each in exhibits]))
    right = [
        isinstance(answer, nshot.Prediction) and answer.label == exhibit.label
        for answer, exhibit in zip(answers, exhibits, strict=True)
    ]
    assert sum(right) >= 16  # of 24, among 144 labels: a floor far below the card's figures, far above chance


def test_a_template_that_names_the_style_sees_the_style(clip: nshot.Embedder) -> None:
    styles = {
        phrases[0]: style for style, phrases in sketchbook.STYLE_PHRASES.items() if style != "pixelated"
    }
    prompts = clip.embed_texts([phrase.replace("{}", "a red star") for phrase in styles])
    scenes = [
        sketchbook.sample(number, styles=(style,), pairs=[("red", "star")], several=0)
        for number, style in enumerate(styles.values())
    ]
    vectors = [
        each.vector
        for each in clip.embed_images(map(sketchbook.draw, scenes))
        if isinstance(each, nshot.Embedded)
    ]
    assert (np.stack(vectors) @ prompts.T).argmax(axis=1).tolist() == [0, 1, 2, 3]
