"""`exact` is bit for bit what transformers' PIL processor for CLIP makes, before it normalises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nshot.images.decode import decode
from nshot.images.preprocess import Preprocessor

pytestmark = pytest.mark.parity
pytest.importorskip("torch", reason="needs the [torch] extra")
clip = pytest.importorskip(
    "transformers.models.clip.image_processing_pil_clip", reason="needs the [torch] extra, transformers 5"
)

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos"
OLD: dict[str, Any] = {
    "size": 224,
    "crop_size": 224,
    "resample": 3,
    "do_center_crop": True,
    "do_resize": True,
}
SQUARE = {"height": 77, "width": 77}
CONFIGS: list[dict[str, Any]] = [
    OLD,
    {**OLD, "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}},
    {**OLD, "size": 336, "crop_size": 336},
    {**OLD, "crop_size": 225},
    {**OLD, "size": 256, "crop_size": {"height": 227, "width": 227}},
    {**OLD, "size": 100, "crop_size": 131},
    {**OLD, "size": {"height": 64, "width": 96}, "crop_size": 51},
    {**OLD, "size": SQUARE, "crop_size": 100},
    {**OLD, "size": SQUARE, "do_center_crop": False},
    {**OLD, "do_resize": False, "crop_size": 61},
    {},
    *({**OLD, "resample": resample} for resample in range(6)),
]
SIZES = [
    (640, 480),
    (480, 640),
    (1, 1),
    (1, 90),
    (90, 1),
    (3, 2),
    (900, 300),
    (301, 903),
    (224, 224),
    (223, 224),
]
SIZES += [(225, 224), (5, 700), (700, 5), (333, 517), (17, 19)]


def reference(config: dict[str, Any], image: Image.Image) -> Any:
    processor = clip.CLIPImageProcessorPil(**{**config, "do_rescale": False, "do_normalize": False})
    return processor(image, return_tensors="np")["pixel_values"][0]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_exact_equals_the_reference_for_every_form_of_config_and_size(config: dict[str, Any]) -> None:
    preprocess = Preprocessor.from_config(config)
    random = np.random.default_rng(0)
    for width, height in SIZES:
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        expected = reference(config, image)
        assert expected.dtype == np.uint8
        assert np.array_equal(preprocess(image), expected), (width, height)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the shared photographs are not here")
def test_exact_equals_the_reference_on_photographs() -> None:
    photos = sorted(path for path in PHOTOS.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[
        ::25
    ]
    assert photos
    preprocess = Preprocessor.from_config(OLD)
    for path in photos:
        image = decode(path.read_bytes()).image
        assert np.array_equal(preprocess(image), reference(OLD, image)), path
