"""Images that are there twice, as `nshot fit` and `nshot evaluate` tell them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_search import some

from nshot import search
from nshot.cli import run
from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.sketchbook import drawing, scenes, words

MODEL = ("--model", "sketchbook", "--no-store")


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Drawings by shape in train/ and test/; one of train is in test too, and one under two labels."""
    top = tmp_path / "data"
    for number in range(24):
        scene = scenes.sample(9_100_000 + number, pairs=words.PAIRS, several=0)
        folder = top / ("train" if number < 16 else "test") / scene.things[0].shape
        folder.mkdir(parents=True, exist_ok=True)
        drawing.draw(scene, 96).save(folder / f"{number:02}.png")
    first, *others = sorted((top / "train").rglob("*.png"))
    other = next(file for file in others if file.parent != first.parent)
    (other.parent / "twin.png").write_bytes(first.read_bytes())
    shared = next(file for file in others if file.parent.name == other.parent.name)
    target = top / "test" / shared.parent.name
    target.mkdir(parents=True, exist_ok=True)
    (target / "seen.png").write_bytes(shared.read_bytes())
    return top


def test_fit_tells_one_image_under_two_labels(
    split: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["fit", str(split / "train"), "-o", str(tmp_path / "a.nshot"), *MODEL]) == 0
    said = capfd.readouterr().err
    assert "alike but labelled otherwise" in said
    assert "twin.png (" in said


def test_fit_tells_examples_that_are_in_the_test_part(
    split: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["fit", str(split), "-o", str(tmp_path / "a.nshot"), *MODEL]) == 0
    said = capfd.readouterr().err
    assert f"WARNING: 1 image is in the test part of {split} too" in said


def test_fit_tells_examples_that_are_in_other_test_data(
    split: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = ["fit", str(split / "train"), "--test", str(split / "test"), "-o", str(tmp_path / "a.nshot")]
    assert run([*asked, *MODEL]) == 0
    said = capfd.readouterr().err
    assert "WARNING:" in said
    assert f"in {split / 'test'} too" in said
    assert run([*asked, "--journal", str(split), *MODEL]) == 2
    assert "leave out --test" in capfd.readouterr().err


def test_evaluate_tells_what_was_learnt_from(split: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = ["evaluate", str(split / "test"), "--training", str(split / "train"), *MODEL]
    assert run(asked) == 0
    assert f"in {split / 'train'} too" in capfd.readouterr().err


def test_copies_are_found_within_a_set_and_between_two() -> None:
    one, two = some(40), some(30, seed=1)
    one[7], two[3] = one[2], one[5]
    inside = search.copies(Embeddings.of(one))
    between = search.copies(Embeddings.of(one), Embeddings.of(two))
    assert [(each.row, each.other) for each in inside] == [(2, 7)]
    assert [(each.row, each.other) for each in between] == [(5, 3)]


def test_vectors_that_are_all_alike_say_nothing() -> None:
    assert search.copies(Embeddings.of(np.ones((30, 4)))) == []


def test_sets_of_two_models_are_not_compared() -> None:
    with pytest.raises(RequestError, match="different models"):
        search.copies(Embeddings.of(some(3, 8)), Embeddings.of(some(3, 16)))
