"""Large images are resized by a library that is compiled on the spot: with Pillow's bytes, or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from nshot.images import resample
from nshot.images.decode import upright
from nshot.images.prepare import prepare
from nshot.images.preprocess import Preprocessor
from nshot.types import DEFAULT_LIMITS

CLIP = {"size": 224, "crop_size": 224}
SIGLIP = {"size": {"height": 224, "width": 224}, "resample": 2, "do_center_crop": False}


@pytest.fixture(params=[1, 2], ids=["AVX2", "VNNI"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image counts as large, and the library is there, in each form that this processor has."""
    library = resample._library()
    if library is None:
        pytest.skip("no C compiler, or no processor with AVX2")
    if request.param == 2 and not library.vnni:
        pytest.skip("no processor with AVX-512 VNNI, or a compiler that does not know it")
    own = resample._Passes.of

    def limited(loaded: Any, able: int) -> resample._Passes:
        return own(loaded, min(able, request.param))

    monkeypatch.setattr(resample._Passes, "of", limited)
    monkeypatch.setattr(resample, "_found", [])
    monkeypatch.setattr(resample, "LARGE", 1)


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing has been compiled yet; the cache folder."""
    monkeypatch.setattr(resample, "_found", [])
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path))
    return tmp_path


def noise(width: int, height: int, seed: int = 0, contrast: bool = False) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(np.where(values > 127, np.uint8(255), np.uint8(0)) if contrast else values)


def with_pillow(image: Image.Image, make: Preprocessor) -> Any:
    """The reference, in a few lines of Pillow alone."""
    if make.fit == "squash" or not make.crop:
        return np.asarray(image.resize((make.size, make.size), make.resample)).transpose(2, 0, 1)
    width, height = image.size
    edge = make.edge
    assert isinstance(edge, int)
    size = (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)
    left, top = (size[0] - make.size) // 2, (size[1] - make.size) // 2
    kept = image.resize(size, make.resample).crop((left, top, left + make.size, top + make.size))
    return np.asarray(kept).transpose(2, 0, 1)


@pytest.mark.parametrize("seed", range(8))
def test_any_size_box_crop_and_turn_gives_pillows_bytes(compiled: None, seed: int) -> None:
    random = np.random.default_rng(seed)
    done = 0
    for number in range(300):
        width, height = (int(np.exp(random.uniform(0, np.log(500)))) for _ in range(2))
        image = noise(width, height, number, contrast=bool(number % 3))
        turn = int(random.integers(1, 9))
        turned = upright(image, turn)
        size = int(random.integers(1, 300)), int(random.integers(1, 300))
        box: resample.Box = (0, 0, *turned.size)
        if number % 2:
            x, y = (np.sort(random.uniform(0, edge, 2)).astype(np.float32) for edge in turned.size)
            if x[0] == x[1] or y[0] == y[1]:
                continue
            box = (float(x[0]), float(y[0]), float(x[1]), float(y[1]))
        (left, right), (top, bottom) = (np.sort(random.choice(edge + 1, 2, replace=False)) for edge in size)
        keep = int(left), int(top), int(right), int(bottom)
        filter = Image.Resampling.BICUBIC if number % 5 else Image.Resampling.BILINEAR
        found = resample.resized(image, size, filter, box, keep, turn)
        if found is not None:
            expected = np.asarray(turned.resize(size, filter, box).crop(keep))
            np.testing.assert_array_equal(found, expected)
            done += 1
    assert done > 50


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(
    "config", [CLIP, SIGLIP, {**CLIP, "size": 336, "crop_size": 300, "crop_rounds": True}]
)
def test_a_preprocessor_gives_the_same_square_with_and_without_the_library(
    compiled: None, config: Any, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    inner = resample._resized

    def counted(*given: Any) -> Any:
        used.append(given)
        return inner(*given)

    monkeypatch.setattr(resample, "_resized", counted)
    makers = [
        Preprocessor.from_config(config, fit=fit, decode=decode)
        for fit in ("own", "crop", "pad", "squash")
        for decode in ("exact", "fast")
    ]
    images = [
        noise(*size) for size in ((640, 480), (480, 640), (301, 900), (97, 60), (1000, 333), (1200, 1100))
    ]
    ours = [make(image, turn) for make in makers for image in images]
    assert len(used) > len(ours) / 2
    monkeypatch.setattr(resample, "_library", lambda: None)
    theirs = [make(image, turn) for make in makers for image in images]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("config", [CLIP, SIGLIP])
@pytest.mark.parametrize("turn", [None, *range(10)])
def test_a_large_photograph_becomes_what_pillow_alone_makes_of_it(
    compiled: None, config: Any, turn: int | None
) -> None:
    make = Preprocessor.from_config(config)
    image = noise(61, 47).resize((730, 560), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    kinds = [
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("WEBP", "RGB"),
        ("TIFF", "RGB"),
    ]
    for kind, mode in kinds if turn in (None, 6) else kinds[:1]:
        file = io.BytesIO()
        image.convert(mode).save(file, kind, exif=exif)
        expected = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        found = prepare(file.getvalue(), make, DEFAULT_LIMITS)
        np.testing.assert_array_equal(found.pixels, with_pillow(expected, make), err_msg=f"{kind} {mode}")
        assert found.size == expected.size


def test_memory_with_gaps_between_rows_is_copied(compiled: None) -> None:
    image = noise(333, 250)
    expected = resample.resized(image, (99, 77), 3, (0, 0, 333, 250), (0, 0, 99, 77))
    before = Image.core.get_alignment()  # type: ignore[attr-defined]
    Image.core.set_alignment(64)  # type: ignore[attr-defined]
    try:
        found = resample.resized(image.copy(), (99, 77), 3, (0, 0, 333, 250), (0, 0, 99, 77))
    finally:
        Image.core.set_alignment(before)  # type: ignore[attr-defined]
    assert expected is not None
    assert found is not None
    np.testing.assert_array_equal(found, expected)


def test_small_images_other_modes_and_other_filters_are_left_to_pillow() -> None:
    whole, kept = (0, 0, 30, 20), (0, 0, 9, 6)
    assert resample.resized(noise(30, 20), (9, 6), 3, whole, kept) is None
    large = Image.new("L", (1000, 1000))
    assert resample.resized(large, (9, 9), 3, (0, 0, 1000, 1000), (0, 0, 9, 9)) is None
    assert resample.resized(large.convert("RGB"), (9, 9), 1, (0, 0, 1000, 1000), (0, 0, 9, 9)) is None


@pytest.mark.parametrize("compiler", ["", "there-is-no-such-compiler", "false"])
def test_without_a_compiler_that_works_pillow_resizes(
    forgotten: Path, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSHOT_COMPILER", compiler)
    make, image = Preprocessor.from_config(CLIP), noise(1000, 800)
    np.testing.assert_array_equal(make(image), with_pillow(image, make))
    assert resample._library() is None
    assert resample.in_use().endswith("compiler)" if compiler != "false" else "failed: exit status 1)")
    assert not [path for path in forgotten.rglob("*") if path.is_file()]


def test_the_library_is_compiled_once_and_kept_in_the_cache_folder(
    compiled: None, forgotten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resample._library() is not None
    (kept,) = (path for path in forgotten.rglob("*") if path.is_file())
    assert kept.name.startswith("passes-")
    monkeypatch.setattr(resample, "_found", [])
    monkeypatch.setenv("NSHOT_COMPILER", "")
    assert resample._library() is not None


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_library_that_others_may_write_is_not_run(
    compiled: None, forgotten: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resample._library() is not None
    (kept,) = (path for path in forgotten.rglob("*") if path.is_file())
    (kept if what == "file" else kept.parent).chmod(0o777)
    monkeypatch.setattr(resample, "_found", [])
    assert resample._library() is None


@pytest.mark.parametrize("left", [0, 3000, 12000])
def test_a_library_that_a_power_cut_left_in_part_is_compiled_anew(
    compiled: None, forgotten: Path, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resample._library() is not None
    (kept,) = (path for path in forgotten.rglob("*") if path.is_file())
    whole = kept.read_bytes()
    kept.unlink()  # what is loaded stays as it is
    kept.write_bytes(whole[:left])
    monkeypatch.setattr(resample, "_found", [])
    assert resample._library() is not None
    assert resample._whole(kept)
    kept.unlink()
    kept.write_bytes(whole[:left])
    monkeypatch.setattr(resample, "_found", [])
    monkeypatch.setenv("NSHOT_COMPILER", "")
    assert resample._library() is None


NOTHING_OF_OURS = "echo 'int able(void){return 1;}' | cc -x c -shared -fPIC -o $2 -"


@pytest.mark.parametrize("makes", ["head -c 20000 /dev/zero > $2", ":", NOTHING_OF_OURS])
def test_a_compiler_that_makes_something_else_leaves_the_work_to_pillow(
    forgotten: Path, tmp_path_factory: pytest.TempPathFactory, makes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path_factory.mktemp("bin") / "cc"
    compiler.write_text(f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n{makes}\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("NSHOT_COMPILER", str(compiler))
    make, image = Preprocessor.from_config(CLIP), noise(1000, 800)
    np.testing.assert_array_equal(make(image), with_pillow(image, make))
    assert resample.in_use().startswith("Pillow")


def test_a_pillow_that_resizes_in_another_way_keeps_its_own(
    compiled: None, forgotten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resize = Image.Image.resize

    def columns_first(self: Image.Image, size: Any, resample: Any = None, **more: Any) -> Image.Image:
        return resize(resize(self, (self.width, size[1]), resample), size, resample)

    monkeypatch.setattr(Image.Image, "resize", columns_first)
    assert resample._library() is None
