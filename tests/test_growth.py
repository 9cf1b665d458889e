"""Whether more images would help a fitted classifier, and what fine-tuning would cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nshot
from nshot.cli import run
from nshot.few_shot.fitting import fit
from nshot.few_shot.growth import fine_tuning_cost, growth
from nshot.sketchbook import draw, sample


def clouds(each: int, noise: float, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Vectors around five centres; unlike noise in every direction takes examples to see through."""
    rng = np.random.default_rng(seed)
    labels = [f"label {number}" for number in range(5) for _ in range(each)]
    centres = np.repeat(rng.standard_normal((5, 64)), each, axis=0)
    return centres + noise * rng.standard_normal((5 * each, 64)), labels


def test_more_images_help_where_half_of_them_do_worse_and_not_where_they_do_as_well() -> None:
    vectors, labels = clouds(40, 5.0)
    found = growth(vectors, labels, fit(vectors, labels))
    assert found is not None
    assert found.grows
    assert found.half < found.whole
    vectors, labels = clouds(200, 1.0)
    found = growth(vectors, labels, fit(vectors, labels))
    assert found is not None
    assert not found.grows
    assert found.images == 1000


def test_a_label_with_few_images_needs_more_of_them_and_nothing_is_measured() -> None:
    vectors, labels = clouds(19, 1.0)
    assert growth(vectors, labels, fit(vectors, labels)) is None


def test_the_cost_grows_with_images_and_labels() -> None:
    model = nshot.load("sketchbook")
    few, many = (fine_tuning_cost(model, count, ["a cat", "a dog"]) for count in (1000, 10_000))
    assert many.text == pytest.approx(10 * few.text, rel=0.8)
    assert many.whole > 3 * few.whole
    assert few.whole > few.text > 0


@pytest.mark.parametrize(("each", "said"), [(8, None), (24, "with half of the images")])
def test_fit_says_what_more_images_would_bring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], each: int, said: str | None
) -> None:
    for label in ("cup", "key", "mushroom"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(each):
            scene = sample(10**9 + number, pairs=[("red", label)], several=0)
            draw(scene).save(tmp_path / "data" / label / f"{number}.png")
    asked = ["fit", str(tmp_path / "data"), "--model", "sketchbook", "-o", str(tmp_path / "c.nshot")]
    assert run(asked) == 0
    told = capsys.readouterr().out
    assert (said in told) if said else "with half" not in told
    if said:
        assert run([*asked, "--quiet"]) == 0
        assert said not in capsys.readouterr().out
