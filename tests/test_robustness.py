from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from nshot.errors import LabelError, RequestError
from nshot.evaluation.corruptions import FAMILIES, STRENGTHS, corrupt
from nshot.evaluation.robustness import Answers, Condition, Tally, condition, match
from nshot.evaluation.robustness_page import write


def image() -> Image.Image:
    across, down = np.meshgrid(np.arange(160), np.arange(120))
    pixels = np.stack([across * 1.5, down * 2, 127 + 60 * np.sin(across / 3) * np.sin(down / 3)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_corruption_grows_with_its_strength_and_is_the_same_for_the_same_seed(family: str) -> None:
    original = image()
    away = []
    for strength in STRENGTHS:
        worse = corrupt(original, family, strength, seed=1)
        assert worse.size == original.size
        assert worse.mode == "RGB"
        assert worse.tobytes() == corrupt(original, family, strength, seed=1).tobytes()
        away.append(np.abs(np.asarray(worse, float) - np.asarray(original, float)).mean())
    assert 0 < away[0] < away[-1]
    if family != "occlusion":  # a larger square at another place may hide less
        assert away == sorted(away)


@pytest.mark.parametrize("family", ["noise", "occlusion"])
def test_another_seed_gives_another_corruption(family: str) -> None:
    one, other = (corrupt(image(), family, 3, seed=seed).tobytes() for seed in (1, 2))
    assert one != other


def test_a_tiny_image_survives_every_corruption() -> None:
    for family in FAMILIES:
        assert corrupt(Image.new("RGB", (1, 1)), family, 5).size == (1, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_strength_means_the_same_for_a_large_image_as_for_a_small_one(family: str) -> None:
    small = image().resize((224, 224), Image.Resampling.BICUBIC)
    large = small.resize((896, 896), Image.Resampling.BICUBIC)

    def harm(original: Image.Image) -> float:
        seen = np.asarray(original.resize((224, 224), Image.Resampling.BICUBIC), np.float64)
        worse = corrupt(original, family, 3, seed=4).resize((224, 224), Image.Resampling.BICUBIC)
        return float(np.sqrt(np.mean((np.asarray(worse, np.float64) - seen) ** 2)))

    assert harm(large) == pytest.approx(harm(small), rel=0.1)


def test_a_turned_image_has_no_corners_of_another_colour() -> None:
    red = Image.new("RGB", (60, 40), (250, 40, 40))
    for strength in STRENGTHS:
        assert corrupt(red, "rotation", strength).getcolors() == [(2400, (250, 40, 40))]
    half = Image.new("RGB", (61, 61), "white")
    half.paste((0, 0, 0), (0, 0, 61, 30))
    turned = np.asarray(corrupt(half, "rotation", 5))  # by 90 degrees
    assert np.ptp(turned.mean(axis=(0, 2))) > 200
    assert np.ptp(turned.mean(axis=(1, 2))) < 5


def test_an_unknown_corruption_is_refused() -> None:
    with pytest.raises(RequestError, match="fog"):
        corrupt(image(), "fog", 1)
    with pytest.raises(RequestError, match="6"):
        corrupt(image(), "blur", 6)


def answers(said: dict[str, list[int]], targets: list[int]) -> Answers:
    return Answers({name: np.eye(3)[each] for name, each in said.items()}, np.array(targets))


def test_figures_follow_from_the_counts() -> None:
    base = answers({"a": [0, 0, 1, 1], "b": [0, 0, 1, 1]}, [0, 0, 1, 1])
    moved = answers({"a": [0, 0, 1, 0], "b": [0, 1, 0, 1]}, [0, 0, 1, 1])
    found = condition("sketch", "domain", ["x", "y", "z"], base, moved)
    assert found.labels == ("x", "y")
    assert found.tallies["a"] == Tally(right=3, asked=4, base_right=4, base_asked=4)
    assert found.tallies["a"].relative == 0.75
    assert found.effective("b", "b") == 0.0
    assert found.effective("a", "b") == pytest.approx(0.25)
    told = found.to_dict("b")
    assert told["classifiers"]["a"]["accuracy"] == 3 / 4
    assert told["classifiers"]["a"]["effective"] == pytest.approx(0.25)


def test_on_a_subset_of_the_labels_the_base_is_measured_anew() -> None:
    base = answers({"a": [2, 0, 1, 2]}, [0, 0, 1, 2])
    moved = answers({"a": [0, 1]}, [0, 1])
    found = condition("r", "domain", ["x", "y", "z"], base, moved)
    # image 0 said z, which is no answer any more: the best of the two labels left is x
    assert found.tallies["a"] == Tally(right=2, asked=2, base_right=3, base_asked=3)


def test_sets_without_two_labels_in_common_cannot_be_compared() -> None:
    base = answers({"a": [0, 1]}, [0, 1])
    with pytest.raises(LabelError, match="fewer than two labels"):
        condition("r", "domain", ["x", "y", "z"], base, answers({"a": [2]}, [2]))


def test_class_names_match_but_for_case_and_underscores() -> None:
    assert match(["hot dog", "cat"], ["Hot_Dog", "CAT", "bird"]) == {"Hot_Dog": 0, "CAT": 1}


def test_nothing_is_made_of_no_images_or_a_reference_at_chance() -> None:
    nothing = Tally(0, 0, 0, 0)
    assert math.isnan(nothing.accuracy)
    assert math.isnan(nothing.relative)
    blind = Condition("c", "domain", 0, ("x", "y"), {"a": Tally(1, 2, 2, 2), "b": Tally(1, 2, 1, 2)})
    assert math.isnan(blind.effective("a", "b"))
    assert blind.to_dict("b")["classifiers"]["a"]["effective"] is None


def test_the_page_shows_every_condition_and_escapes_names() -> None:
    tallies = {"a": Tally(3, 4, 4, 4), "b": Tally(2, 4, 4, 4)}
    shown = [
        Condition("photos", "base", 0, ("x", "y"), tallies),
        Condition("<sketch>", "domain", 0, ("x", "y"), tallies),
        *(Condition("blur", "corruption", s, ("x", "y"), tallies) for s in STRENGTHS),
    ]
    html = write(shown, {"data": "photos"}, reference="b")
    assert "&lt;sketch&gt;" in html
    assert "<sketch>" not in html
    assert "+25.0" in html
    assert html.count('role="img"') == 1  # one chart, for one corruption
    assert "radius, % of the shorter side" in html
    assert "2 (0.8)" in html
