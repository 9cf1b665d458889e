"""Heatmaps: where the evidence for a label is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_checkpoint
from layouts import OPEN_CLIP_TINY, tiny_open_clip, tiny_siglip
from PIL import Image

import nshot
from nshot import encoders
from nshot.cli import run
from nshot.errors import LabelError, RequestError
from nshot.images.preprocess import Preprocessor
from nshot.models.checkpoint import find
from nshot.regions.files import DrawnFolder
from nshot.regions.heatmaps import Heatmap, evidence_of
from nshot.sketchbook import PAIRS, Scene, draw, sample

AVERAGED = OPEN_CLIP_TINY | {"vision_cfg": OPEN_CLIP_TINY["vision_cfg"] | {"pool_type": "avg"}}
CLIPA = OPEN_CLIP_TINY | {"vision_cfg": AVERAGED["vision_cfg"] | {"final_ln_after_pool": True}}
PERCEPTION = OPEN_CLIP_TINY | {
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": "vit_pe_core_tiny_patch16_384",
        "timm_pool": "map",
        "timm_proj": None,
    }
}
MOBILE = OPEN_CLIP_TINY | {
    "vision_cfg": {
        "image_size": 64,
        "timm_model_name": "fastvit_mci0",
        "timm_pool": "avg",
        "timm_proj": None,
    }
}
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "CLIP": tiny_checkpoint,
    "SigLIP": tiny_siglip,
    "open_clip": tiny_open_clip,
    "a mean of patches": lambda folder: tiny_open_clip(folder, model=AVERAGED),
    "CLIPA": lambda folder: tiny_open_clip(folder, model=CLIPA),
    "the Perception Encoder": lambda folder: tiny_open_clip(folder, model=PERCEPTION),
    "MobileCLIP": lambda folder: tiny_open_clip(folder, model=MOBILE),
}

LABELS = [f"{colour} {shape}" for colour, shape in PAIRS]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> nshot.Model:
    return nshot.load("sketchbook", precision="f32")


def scenes(count: int) -> list[Scene]:
    """Drawings of two or three things, far from those of training."""
    return [sample(9_700_000_000_000 + number, several=1.0) for number in range(count)]


def first(heatmaps: object) -> Heatmap:
    found = next(iter(heatmaps))  # type: ignore[call-overload]
    assert isinstance(found, Heatmap)
    return found


def drawn_box(box: tuple[int, int, int, int], size: tuple[int, int]) -> Image.Image:
    """A red star somewhere on a large white image."""
    image = Image.new("RGB", size, "white")
    scene = sample(9_700_000_000_001, several=0, pairs=[("red", "star")], styles=("flat",))
    image.paste(draw(scene, box[2]).resize(box[2:]), box[:2])
    return image


# --- the vectors ------------------------------------------------------------------------------------------


def test_the_image_s_vector_is_the_same_bit_for_bit_with_patches(clip: nshot.Model) -> None:
    pixels = np.stack([np.asarray(draw(scene)).transpose(2, 0, 1) for scene in scenes(33)])
    vectors, patches = clip.encoder.encode_patches(pixels)
    np.testing.assert_array_equal(vectors, clip.encoder.encode_images(pixels))
    assert patches.shape == (33, 36, 128)
    np.testing.assert_allclose(np.linalg.norm(patches, axis=2), 1, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_patches_and_keeps_its_vectors(family: str, tmp_path: Path) -> None:
    checkpoint = find(FAMILIES[family](tmp_path / "model"))
    encoder, tower = encoders.load(checkpoint, precision="f32"), checkpoint.config.vision
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, *2 * [tower.image_size]), np.uint8)
    vectors, patches = encoder.encode_patches(pixels)
    np.testing.assert_array_equal(vectors, encoder.encode_images(pixels))
    assert patches.shape == (3, tower.grid**2, encoder.dimension)
    assert 0 < tower.seen <= 1


def test_the_things_named_are_pointed_at(clip: nshot.Model) -> None:
    hits = things = 0
    all_scenes = scenes(60)
    found = clip.heatmaps([draw(scene) for scene in all_scenes], LABELS)
    for scene, heatmap in zip(all_scenes, found, strict=True):
        assert isinstance(heatmap, Heatmap)
        for name in {f"{thing.colour} {thing.shape}" for thing in scene.things}:
            x, y = (place / 48 for place in heatmap.peak(name))
            alike = [thing for thing in scene.things if f"{thing.colour} {thing.shape}" == name]
            hits += any(np.hypot(x - t.x, y - t.y) <= t.radius + 0.5 / 6 for t in alike)
            things += 1
    assert hits / things > 0.7  # 0.21 by chance; measured on 2,000 by bench/regions.py


# --- places -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["own", "pad", "squash"])
def test_places_are_in_pixels_of_the_upright_image(fit: str, tmp_path: Path) -> None:
    image = drawn_box((190, 100, 120, 120), (360, 280))
    turned = image.transpose(Image.Transpose.ROTATE_90)  # and its EXIF block turns it back
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    clip = nshot.load("sketchbook", fit=fit)  # type: ignore[arg-type]
    heatmap = first(clip.heatmaps(tmp_path / "turned.jpg", LABELS))
    assert heatmap.size == (360, 280)
    x, y = heatmap.peak("red star")
    assert 170 <= x <= 330
    assert 80 <= y <= 240
    assert heatmap.overlay().size == (360, 280)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (37, 911)])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_the_part_that_becomes_the_square_is_told(fit: str, size: tuple[int, int]) -> None:
    preprocessor = Preprocessor.from_config({"size": 48, "crop_size": 48}, fit=fit)  # type: ignore[arg-type]
    ramp = np.zeros((size[1], size[0], 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, size[0]).round()[None]
    ramp[..., 1] = np.linspace(0, 255, size[1]).round()[:, None]
    square = preprocessor(Image.fromarray(ramp)).astype(float)
    left, top, right, bottom = preprocessor.seen(size)
    for channel, low, high, whole in ((0, left, right, size[0]), (1, top, bottom, size[1])):
        place = low + (24 + 0.5) * (high - low) / 48  # of the square's middle, in the image
        assert abs(square[channel, 24, 24] - 255 * (place - 0.5) / (whole - 1)) < 8


# --- evidence ---------------------------------------------------------------------------------------------


def test_evidence_is_the_odds_against_the_other_labels(clip: nshot.Model) -> None:
    classifier = nshot.zero_shot(clip, LABELS[:5])
    patches = np.random.default_rng(0).standard_normal((7, 128)).astype(np.float32)
    logits = classifier.logits(patches)
    evidence = evidence_of(classifier, patches)
    for label in range(5):
        others = np.delete(logits, label, axis=1)
        odds = np.exp(logits[:, label]) / np.exp(others).sum(axis=1)
        np.testing.assert_allclose(evidence[label], np.log(odds), atol=1e-4)


def test_one_label_alone_has_a_heatmap(clip: nshot.Model) -> None:
    heatmap = first(clip.heatmaps(drawn_box((300, 20, 200, 200), (500, 240)), ["red star"]))
    heat = heatmap.of()
    assert (heat.min(), heat.max()) == (0, 1)


def test_a_blank_image_has_a_heatmap_without_a_warning(clip: nshot.Model) -> None:
    heatmap = first(clip.heatmaps(Image.new("RGB", (50, 70)), LABELS[:3]))
    assert np.isfinite(heatmap.evidence).all()
    assert heatmap.notes  # one colour only


def test_a_label_that_is_not_asked_is_named(clip: nshot.Model) -> None:
    heatmap = first(clip.heatmaps(Image.new("RGB", (50, 70), "red"), LABELS[:3]))
    with pytest.raises(LabelError, match="'lamp' is not one of the labels"):
        heatmap.of("lamp")


def test_answers_are_those_of_classify_and_failures_stay_in_their_places(
    clip: nshot.Model, photos: Path
) -> None:
    (photos / "03.jpg").write_bytes(b"\xff\xd8\xff nothing")
    plain = list(clip.classify(photos, LABELS[:4]))
    for answer, heatmap in zip(plain, clip.heatmaps(photos, LABELS[:4]), strict=True):
        if isinstance(answer, nshot.Failure):
            assert heatmap == answer
        else:
            assert isinstance(heatmap, Heatmap)
            assert heatmap.answer == answer
            assert heatmap.label == answer.label


def test_vectors_have_no_heatmaps(clip: nshot.Model, photos: Path) -> None:
    with pytest.raises(RequestError, match="is a vector"):
        next(iter(clip.heatmaps(clip.embed(photos), LABELS)))


def test_a_heatmap_shows_itself_in_a_notebook(clip: nshot.Model) -> None:
    heatmap = first(clip.heatmaps(drawn_box((0, 0, 90, 90), (90, 90)), LABELS[:3]))
    assert Image.open(io.BytesIO(heatmap._repr_png_())).size == (90, 90)
    assert "6 x 6 patches" in repr(heatmap)


# --- the command line -------------------------------------------------------------------------------------


ASK = ("--model", "sketchbook", "--no-store", "-q")


def test_classify_writes_a_drawing_per_image_and_the_same_answers(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["classify", str(photos), "--labels", "red star, blue fish", "--format", "jsonl", *ASK]
    assert run(common) == 0
    plain = capsys.readouterr().out
    assert run([*common, "--heatmaps", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == plain
    files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert [path.name for path in files] == [f"{path.name}.heatmap.jpg" for path in sorted(photos.iterdir())]
    with Image.open(files[0]) as image, Image.open(photos / "00.jpg") as own:
        assert image.size == own.size


def test_heatmaps_of_a_tree_are_of_its_leaves(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "tree.json").write_text(
        '{"thing": {"star": ["red star"], "fish": ["blue fish", "red fish"]}}'
    )
    out = tmp_path / "out"
    tree = ("--tree", str(tmp_path / "tree.json"))
    assert run(["classify", str(photos), *tree, *ASK, "--heatmaps", str(out)]) == 0
    assert len(list(out.rglob("*.jpg"))) == 12


def test_what_heatmaps_do_not_go_with_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["classify", str(photos), "--labels", "red star, blue fish", *ASK]
    assert run([*common, "--adapt", "--heatmaps", str(tmp_path / "out")]) == 2
    assert "--heatmaps does not go with --adapt" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run([*common, "--heatmaps", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err


def test_drawings_stay_in_their_folder_and_apart_from_each_other(tmp_path: Path) -> None:
    folder = DrawnFolder(tmp_path, "heatmap")
    names = [
        folder.name(name) for name in ("../../a/b.jpg", "a/b.jpg", "/a/b.jpg", "C:\\x\\y?.png", "", "..")
    ]
    assert names == [
        "a/b.jpg.heatmap.jpg",
        "a/b.jpg-2.heatmap.jpg",
        "a/b.jpg-3.heatmap.jpg",
        "C_/x/y_.png.heatmap.jpg",
        "image.heatmap.jpg",
        "image-2.heatmap.jpg",
    ]


def test_a_tiny_model_s_patches_are_told_in_rows_from_the_upper_left(tmp_path: Path) -> None:
    clip = nshot.load(tiny_checkpoint(tmp_path))
    pixels = np.full((1, 3, 32, 32), 120, np.uint8)
    changed = pixels.copy()
    changed[:, :, :16, 16:] = 250  # the second patch of the first row
    _, before = clip.encoder.encode_patches(pixels)
    _, after = clip.encoder.encode_patches(changed)
    assert abs(after - before)[0].max(axis=1).argmax() == 1
