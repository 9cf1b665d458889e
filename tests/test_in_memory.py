"""Whatever holds an image or a list of images in memory, by the rule that the module states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nshot
from nshot.errors import RequestError
from nshot.types import Embedded, Failure

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def clip(tiny: Path) -> nshot.Embedder:
    return nshot.load(tiny, precision="f32")


class Tensor:
    """What a torch tensor shows of itself, without torch."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, f"torch.{array.dtype}"

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self._array, dtype=dtype, copy=copy)


class Column(list[Any]):
    """What a column of a DataFrame shows of itself."""

    iloc = None
    ndim = 1

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(list(self), dtype=object)


def one(clip: nshot.Embedder, image: Any) -> np.ndarray[Any, Any]:
    (record,) = clip.embed_images(image)
    assert isinstance(record, Embedded), record
    return record.vector


@pytest.mark.parametrize(
    "form",
    [
        PIXELS.transpose(2, 0, 1),
        PIXELS / 255.0,
        (PIXELS / 255.0).astype(np.float32).transpose(2, 0, 1),
        Tensor(PIXELS.transpose(2, 0, 1)),
        Tensor((PIXELS / 255.0).astype(np.float32).transpose(2, 0, 1)),
        Image.fromarray(PIXELS),
    ],
    ids=["channels first", "float", "float, channels first", "tensor", "float tensor", "PIL"],
)
def test_every_form_of_the_same_pixels_gives_the_same_vector(clip: nshot.Embedder, form: Any) -> None:
    assert np.array_equal(one(clip, form), one(clip, PIXELS))


def test_a_batch_and_a_list_of_its_images_are_the_same(clip: nshot.Embedder) -> None:
    batch = np.stack([PIXELS, PIXELS[::-1], PIXELS[:, ::-1]])
    listed = clip.embed(list(batch))
    forms: list[Any] = [batch, batch.transpose(0, 3, 1, 2), Tensor(batch), batch / 255.0]
    for form in forms:
        assert np.array_equal(clip.embed(form).vectors, listed.vectors)


def test_a_column_of_paths_and_an_array_of_paths_are_lists_of_paths(
    clip: nshot.Embedder, photos: Path
) -> None:
    paths = sorted(map(str, photos.iterdir()))
    expected = clip.embed(paths)
    assert expected.sources == tuple(paths)
    for form in (Column(paths), np.array(paths), np.array(paths, dtype=object), iter(paths), tuple(paths)):
        assert np.array_equal(clip.embed(form).vectors, expected.vectors)


def test_a_table_or_a_mapping_says_to_pass_one_column(clip: nshot.Embedder) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    with pytest.raises(RequestError, match="pass one column"):
        clip.embed({"path": ["a.jpg"]})
    with pytest.raises(RequestError, match="pass one column"):
        clip.embed(pandas.DataFrame({"path": ["a.jpg"]}))
    assert clip.embed(pandas.Series(["not-there.jpg"])).failures[0].source == "not-there.jpg"


@pytest.mark.parametrize("axes", [(2,), (2, 2, 2, 2, 2)])
def test_an_array_of_other_axes_says_what_to_give(clip: nshot.Embedder, axes: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match="neither one image nor a batch"):
        clip.embed(np.zeros(axes, np.uint8))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (PIXELS / 255.0 * 2 - 1, "0 for black to 1 for white"),
        (np.full((4, 4, 3), np.nan), "0 for black to 1 for white"),
        (PIXELS.astype(np.int64), "uint8 from 0 to 255"),
        (np.zeros((4, 4, 7), np.uint8), "is not an image"),
        (np.zeros((0, 4, 3), np.uint8), "is not an image"),
    ],
    ids=["normalised", "not numbers", "integers", "seven channels", "empty"],
)
def test_an_array_outside_of_the_rule_is_a_failure_that_states_it(
    clip: nshot.Embedder, array: np.ndarray[Any, Any], said: str
) -> None:
    first, second = clip.embed_images([array, PIXELS])
    assert isinstance(first, Failure)
    assert said in first.message
    assert isinstance(second, Embedded)


def test_what_is_no_image_at_all_is_refused_by_its_type(clip: nshot.Embedder) -> None:
    with pytest.raises(RequestError, match="int is not an image"):
        clip.embed(7)  # type: ignore[arg-type]


def test_one_text_is_one_text(clip: nshot.Embedder) -> None:
    assert clip.embed_texts("a cat").shape == (1, clip.dimension)
    assert np.array_equal(clip.embed_texts("a cat"), clip.embed_texts(["a cat"]))


def test_embeddings_pass_through_unless_they_are_of_another_model(clip: nshot.Embedder, photos: Path) -> None:
    found = clip.embed(photos)
    assert len(found) == 12
    assert np.array_equal(clip.embed(found).vectors, found.vectors)
    from dataclasses import replace

    assert found.recipe is not None
    foreign = replace(found, recipe=replace(found.recipe, space="another"), model="other/clip")
    with pytest.raises(RequestError, match="were made by other/clip"):
        clip.embed(foreign)
