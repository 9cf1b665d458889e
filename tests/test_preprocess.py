"""Preprocessing: what the config says, in both of its forms; the fits; a fingerprint of all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from nshot.errors import CheckpointError, RequestError
from nshot.images.preprocess import Preprocessor

OLD: dict[str, Any] = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "resample": 3,
    "size": 224,
}
NEW = {**OLD, "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}


def image(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_old_and_the_new_form_and_no_config_at_all_mean_the_same() -> None:
    old, new, none = (Preprocessor.from_config(config) for config in (OLD, NEW, {}))
    assert old == new == none
    assert old.fingerprint == new.fingerprint


def test_the_models_own_size_stands_in_for_a_missing_one() -> None:
    assert Preprocessor.from_config({}, size=336)(noise(500, 400)).shape == (3, 336, 336)
    assert Preprocessor.from_config(OLD, size=336).size == 224


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("decode", ["exact", "fast"])
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2), (300, 100), (224, 224), (640, 480)])
def test_any_image_becomes_one_contiguous_square_of_bytes(
    fit: Any, decode: Any, size: tuple[int, int]
) -> None:
    pixels = Preprocessor.from_config(OLD, fit=fit, decode=decode)(noise(*size))
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("size", [(65500, 1), (1, 65500)])
def test_a_strip_of_one_pixel_takes_no_gigabytes(size: tuple[int, int]) -> None:
    pixels = Preprocessor.from_config(OLD)(image(*size))
    middle = np.asarray(image(*size))[size[1] // 2, size[0] // 2]
    assert np.abs(pixels.reshape(3, -1).mean(1) - middle).max() < 2


def test_resizing_only_what_is_kept_gives_nearly_the_pixels_of_cropping_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import nshot.images.preprocess

    exact = Preprocessor.from_config(OLD)
    sizes = [(640, 480), (100, 301), (7, 60)]
    images = [noise(9, 9).resize(size, Image.Resampling.BICUBIC) for size in sizes]
    whole = [exact(each).astype(int) for each in images]
    monkeypatch.setattr(nshot.images.preprocess, "_MAX_RESIZED", 0)
    for each, expected in zip(images, whole, strict=True):
        assert np.abs(exact(each) - expected).mean() < 0.05


def test_the_crop_takes_the_middle_and_pads_a_small_image_with_black() -> None:
    plain = Preprocessor.from_config({**OLD, "do_resize": False, "crop_size": 5})
    pixels = np.asarray(noise(8, 6))
    assert np.array_equal(plain(noise(8, 6)), pixels[0:5, 1:6].transpose(2, 0, 1))
    small = plain(Image.new("RGB", (2, 5), "white"))
    assert np.array_equal(small[0].any(0), [False, False, True, True, False])


def test_padding_keeps_all_of_the_image_between_bars_of_the_mean() -> None:
    pixels = Preprocessor.from_config(OLD, fit="pad")(Image.new("RGB", (300, 100), "white"))
    assert pixels[:, 0, 0].tolist() == [123, 117, 104]
    assert (pixels[:, 75:149] == 255).all()
    assert (pixels[0, :74] == 123).all()
    assert (pixels[0, 150:] == 123).all()


def test_squashing_keeps_all_of_the_image() -> None:
    pixels = Preprocessor.from_config(OLD, fit="squash")(image(900, 300)).astype(int)
    assert pixels[0, :, 0].max() <= 3
    assert pixels[0, :, -1].min() >= 252


def test_fast_is_near_exact_on_a_large_image_and_asks_for_a_draft_of_twice_the_size() -> None:
    smooth = noise(40, 30).resize((1600, 1200), Image.Resampling.BICUBIC)
    for fit in ("crop", "pad", "squash"):
        exact, fast = (Preprocessor.from_config(OLD, decode=decode, fit=fit) for decode in ("exact", "fast"))
        assert np.abs(exact(smooth).astype(int) - fast(smooth)).mean() < 1
        assert (exact.draft, fast.draft) == (None, 448)
    assert Preprocessor.from_config({**OLD, "size": 256}, decode="fast").draft == 512


def test_the_fingerprint_changes_with_whatever_changes_a_pixel() -> None:
    variants = [
        Preprocessor.from_config({**OLD, **change}, decode=decode, fit=fit)
        for change in (
            {},
            {"size": 256},
            {"crop_size": 200},
            {"resample": 2},
            {"size": {"height": 224, "width": 224}},
        )
        for decode in ("exact", "fast")
        for fit in ("crop", "pad", "squash")
    ]
    variants.append(Preprocessor.from_config({**OLD, "image_mean": [0.5, 0.5, 0.5]}, fit="pad"))
    variants.append(
        Preprocessor.from_config({**OLD, "do_center_crop": False, "size": {"height": 224, "width": 224}})
    )
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert Preprocessor.from_config(dict(OLD)).fingerprint == Preprocessor.from_config(OLD).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"do_center_crop": False},
        {"crop_size": {"height": 224, "width": 200}},
        {"size": {"longest_edge": 224}},
        {"size": "224"},
        {"size": 0},
        {"resample": 9},
    ],
)
def test_a_config_that_gives_no_square_of_one_size_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError):
        Preprocessor.from_config({**OLD, **change})


def test_an_unknown_fit_or_decode_is_refused() -> None:
    with pytest.raises(RequestError, match="crop, pad or squash"):
        Preprocessor.from_config(OLD, fit="stretch")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="exact or fast"):
        Preprocessor.from_config(OLD, decode="quick")  # type: ignore[arg-type]
