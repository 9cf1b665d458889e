"""Duplicates: three kinds, groups that do not chain, and the best of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nshot
from nshot import search
from nshot.embeddings import Embeddings
from nshot.errors import RequestError
from nshot.search.duplicates import _stars
from nshot.search.hashing import alike_in_colour, equal_bits, picture
from nshot.types import Floats
from nshot.unit import normalize


def scenery(seed: int, size: int = 160) -> Image.Image:
    """Something with the spectrum of a photograph: noise at every scale, the coarse the stronger."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size, 3))
    for side in (3, 5, 9, 17, 33):
        grain = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        total += np.asarray(grain.resize((size, size), Image.Resampling.BICUBIC), float) / side
    total -= total.min()
    return Image.fromarray((255 * total / total.max()).astype(np.uint8))


@pytest.fixture(scope="module")
def clip() -> nshot.Model:
    return nshot.load("sketchbook")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures; of the first a byte-equal copy, a small JPEG, a crop as WebP, and a grey one."""
    top = tmp_path / "photos"
    top.mkdir()
    for seed in range(6):
        scenery(seed).save(top / f"{seed}.png")
    first = scenery(0)
    (top / "0 again.png").write_bytes((top / "0.png").read_bytes())
    first.resize((80, 80)).save(top / "0 small.jpg", quality=60)
    first.crop((4, 2, 156, 154)).save(top / "0 crop.webp", quality=80)
    first.convert("L").save(top / "0 grey.png")
    return top


def names(group: search.Group) -> list[str]:
    return [Path(name).name for name in group.sources]


def test_the_same_bytes_and_the_same_picture_are_kept_apart(clip: nshot.Model, folder: Path) -> None:
    found = nshot.duplicates(clip.embed(folder), embedder=clip)
    (same,), (copy,) = found.of("same"), found.of("copy")
    assert sorted(names(same)) == ["0 again.png", "0.png"]
    assert sorted(names(copy)) == ["0 again.png", "0 crop.webp", "0 grey.png", "0 small.jpg"]
    assert Path(copy.best).name == "0 again.png"  # the largest in colour
    assert copy.sources[0] == copy.best
    assert set(copy.to_dict()) == {"group", "kind", "best", "sources"}


def test_how_far_to_trust_copies_is_measured_on_the_images_themselves(
    clip: nshot.Model, folder: Path
) -> None:
    measured = nshot.duplicates(clip.embed(folder), embedder=clip).measured
    assert measured.recall is not None
    assert measured.recall > 0.95
    assert set(measured.recalls) >= {"half the size", "cropped by 5 %"}
    assert measured.false_rate == 0.0


def test_duplicates_are_found_without_the_model_as_well(clip: nshot.Model, folder: Path) -> None:
    found = nshot.duplicates(clip.embed(folder))
    assert len(found.of("copy")[0].sources) == 4


def test_vectors_without_files_are_compared_alone() -> None:
    rows = normalize(np.random.default_rng(0).standard_normal((5, 16)))
    found = nshot.duplicates(Embeddings.of([*rows, rows[2]]))
    assert [(group.kind, group.sources) for group in found] == [("scene", ("[2]", "[5]"))]


def test_a_file_that_was_named_twice_is_no_duplicate_of_itself(clip: nshot.Model, folder: Path) -> None:
    one = folder / "1.png"
    assert not nshot.duplicates(clip.embed([one, one])).of("same")


def test_members_of_an_archive_are_compared_from_a_second_listing(
    clip: nshot.Model, folder: Path, tmp_path: Path
) -> None:
    import zipfile

    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    found = nshot.duplicates(clip.embed(path), embedder=clip, pictures=clip.sources([path]))
    assert len(found.of("copy")[0].sources) == 4


def test_groups_do_not_chain() -> None:
    chain = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    groups = _stars([0, 1, 2, 3, 4], chain, 5)
    assert groups == [[0, 1], [2, 3]]
    for best, *members in groups:
        assert all([best, member] in chain.tolist() for member in members)


def test_two_colours_of_one_thing_are_no_copies() -> None:
    grey = np.asarray(scenery(0).convert("L"), np.float32)[..., None]
    red, blue = (
        Image.fromarray((grey * np.array(tint)).astype(np.uint8)) for tint in ([1, 0.3, 0.3], [0.3, 0.3, 1])
    )
    one, two = picture(red), picture(blue)
    assert equal_bits(one.bits[None], two.bits[None])[0] > 0.9
    assert not alike_in_colour(one.tints[None], two.tints[None])[0]


def slide(seed: int) -> Image.Image:
    """A slide of one talk: the same bar and margin, other lines."""
    from PIL import ImageDraw

    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (240, 136), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 240, 22), fill=(20, 90, 150))
    for line in range(int(rng.integers(3, 6))):
        width = int(rng.integers(90, 200))
        draw.rectangle((16, 32 + 20 * line, 16 + width, 40 + 20 * line), fill=(40, 40, 40))
    return image


def test_slides_of_one_layout_are_not_taken_for_each_other(clip: nshot.Model, tmp_path: Path) -> None:
    for seed in range(60):
        slide(seed).save(tmp_path / f"{seed}.png")
    slide(0).resize((120, 68)).save(tmp_path / "0 small.png")
    found = nshot.duplicates(clip.embed(tmp_path), embedder=clip)
    wrong = [names(group) for group in found.of("copy") if "0.png" not in names(group)]
    assert len(wrong) <= 1
    assert found.measured.bits > 0.85  # at 0.80, dozens of them would be


def test_no_decoy_among_few_pairs_is_not_told_as_certainty() -> None:
    few, many = (search.Measured(0.8, 0.9, 0.9, 1.0, {}, found, 0, 100, False) for found in (3, 3000))
    assert few.false_rate == many.false_rate == 0
    assert few.at_most > 0.9
    assert many.at_most == pytest.approx(0.001, rel=0.02)


def test_plain_images_are_not_taken_for_each_other(clip: nshot.Model, tmp_path: Path) -> None:
    for shade in (10, 120, 250):
        Image.new("RGB", (50, 50), (shade, shade, shade)).save(tmp_path / f"{shade}.png")
    assert not nshot.duplicates(clip.embed(tmp_path), embedder=clip).of("copy")


def test_an_image_that_is_gone_is_told_and_the_others_are_compared(clip: nshot.Model, folder: Path) -> None:
    photos = clip.embed(folder)
    (folder / "3.png").unlink()
    (folder / "4.png").write_bytes(b"rubbish")
    found = nshot.duplicates(photos, embedder=clip)
    assert len(found.of("copy")[0].sources) == 4
    assert [Path(failure.source).name for failure in found.failures] == ["4.png"]


def test_a_scene_outside_of_the_cosines_is_refused() -> None:
    with pytest.raises(RequestError, match="between 0 and 1"):
        nshot.duplicates(Embeddings.of(np.eye(3)), scene=2)


# Where there should be none


def rows(count: int, seed: int = 0) -> Floats:
    return normalize(np.random.default_rng(seed).standard_normal((count, 24)))


def test_a_test_image_that_was_trained_on_is_told() -> None:
    train, test = rows(30), rows(10, seed=1)
    test[4] = train[11]
    (pair,) = search.across(Embeddings.of(train), Embeddings.of(test))
    assert (pair.first, pair.second, pair.labels) == ("[11]", "[4]", ("train", "test"))


def test_one_picture_under_two_labels_is_told_and_under_one_is_not() -> None:
    vectors = rows(6)
    vectors[3], vectors[5] = vectors[0], vectors[1]
    found = search.across(Embeddings.of(vectors, ["cat", "cat", "dog", "dog", "dog", "cat"]))
    assert [(pair.first, pair.second, pair.labels) for pair in found] == [("[0]", "[3]", ("cat", "dog"))]


def test_across_labels_needs_labels() -> None:
    with pytest.raises(RequestError, match="no labels"):
        search.across(Embeddings.of(rows(3)))
