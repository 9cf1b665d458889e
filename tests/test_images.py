"""Decoding: every mode becomes upright RGB on white, and what is no image says what it is."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nshot.errors import ImageTooLarge, UndecodableImage
from nshot.images.decode import Limits, decode


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colour(data: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = decode(data).image
    assert image.mode == "RGB"
    value = image.getpixel(at)
    assert isinstance(value, tuple)
    return value


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation: int) -> None:
    upright = Image.new("RGB", (24, 16), "white")
    upright.paste("red", (0, 0, 8, 8))
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turned = upright.transpose(stored[orientation]) if orientation in stored else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        image = decode(encoded(turned, kind, exif=exif, **options)).image
        assert image.tobytes() == upright.tobytes(), kind


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's word on it goes its own way
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_a_broken_exif_block_is_ignored(exif: bytes) -> None:
    assert decode(encoded(Image.new("RGB", (6, 4)), "JPEG", exif=exif)).image.size == (6, 4)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_transparency_is_laid_on_white_and_hides_the_colour_below(mode: str) -> None:
    black = (0, 0) if mode == "LA" else (0, 0, 0, 0)
    image = Image.new("LA" if mode == "LA" else "RGBA", (2, 2), black)
    kind = "TIFF" if mode == "PA" else "PNG"
    assert colour(encoded(image, kind)) == (255, 255, 255)


def test_half_transparent_black_is_middle_grey() -> None:
    assert colour(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))) == (127, 127, 127)


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 7, 7)), ("P", 7)])
def test_a_transparent_colour_of_a_png_is_laid_on_white(mode: str, key: Any) -> None:
    image = Image.new("L", (2, 1), 7)
    image.putpixel((1, 0), 9)
    if mode == "P":
        image = image.copy()
        image = Image.frombytes("P", (2, 1), image.tobytes())
        image.putpalette([value for value in range(256) for _ in range(3)])
    data = encoded(image.convert(mode) if mode == "RGB" else image, transparency=key)
    assert (colour(data, (0, 0)), colour(data, (1, 0))) == ((255, 255, 255), (9, 9, 9))


def test_a_palette_gives_its_colours() -> None:
    image = Image.new("P", (2, 2), 3)
    image.putpalette([0] * 9 + [10, 20, 30])
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        assert colour(encoded(image, kind)) == (10, 20, 30)


@pytest.mark.parametrize(
    ("mode", "value", "grey"),
    [("1", 1, 255), ("L", 77, 77), ("I;16", 0, 0), ("I;16", 257 * 77, 77), ("I;16", 65535, 255)],
)
def test_grey_keeps_its_brightness_whatever_its_depth(mode: str, value: int, grey: int) -> None:
    for kind in ("PNG", "TIFF"):
        assert colour(encoded(Image.new(mode, (2, 2), value), kind)) == (grey,) * 3


@pytest.mark.parametrize(
    ("values", "greys"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 51.0, 255.0], [0, 51, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), float("inf"), 1.0], [0, 0, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_floating_point_grey_is_scaled_by_its_range(values: list[float], greys: list[int]) -> None:
    data = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert [colour(data, (column, 0))[0] for column in range(3)] == greys


def test_cmyk_and_lab_become_the_colours_that_they_mean() -> None:
    red = (0, 255, 255, 0)
    for kind in ("TIFF", "JPEG"):
        r, g, b = colour(encoded(Image.new("CMYK", (8, 8), red), kind))
        assert r > 250
        assert max(g, b) < 5
    assert colour(encoded(Image.new("LAB", (2, 2), (255, 128, 128)), "TIFF")) == pytest.approx(
        (255,) * 3, abs=2
    )


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), name) for name in ("red", "blue")]
    r, _, b = colour(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert r > 240
    assert b < 15


def test_draft_shrinks_a_jpeg_while_decoding_but_never_below_the_edge_asked_for() -> None:
    data = encoded(Image.new("RGB", (1600, 1000)), "JPEG")
    assert decode(data, draft=448).image.size == (800, 500)
    assert decode(data, draft=500).image.size == (800, 500)
    assert decode(data, draft=501).image.size == (1600, 1000)
    assert decode(data).image.size == (1600, 1000)
    assert decode(encoded(Image.new("RGB", (1600, 1000))), draft=100).image.size == (1600, 1000)


def test_too_many_pixels_are_refused_from_the_header() -> None:
    with pytest.raises(ImageTooLarge, match=r"50000 x 50000|more pixels"):
        decode(png_header(50_000, 50_000))
    with pytest.raises(ImageTooLarge, match=r"20 x 10 pixels, more than the limit of 199"):
        decode(png_header(20, 10), limits=Limits(max_pixels=199))


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(ImageTooLarge, match="limit of 10"):
        decode(bytes(11), limits=Limits(max_bytes=10))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b"  \n<html>", "HTML page"),
        (b"just words\n", "text"),
        (b"<svg xmlns='...'>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04" + bytes(30), "zip archive"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
        (b"\0\0\0\x18ftypisom" + bytes(16), "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"\x1aE\xdf\xa3" + bytes(20), "video"),
        (b"\xff\xd8\xff" + bytes(20), "JPEG image is damaged|damaged"),
        (bytes(64), "not an image in any format"),
    ],
)
def test_what_is_no_image_says_what_it_is(data: bytes, message: str) -> None:
    with pytest.raises(UndecodableImage, match=message):
        decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_a_truncated_image_is_a_failure_and_never_a_grey_half(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert decode(data).image.size == (64, 64)
    for part in (0.3, 0.6, 0.9):
        with pytest.raises(UndecodableImage):
            decode(data[: int(len(data) * part)])


def test_anything_that_a_plugin_raises_is_an_undecodable_image(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("RGB", (4, 4)))
    for error in (
        struct.error("x"),
        SyntaxError("x"),
        ZeroDivisionError(),
        RecursionError(),
        OverflowError(),
        KeyError(1),
    ):

        def fail(*_arguments: Any, raised: Exception = error, **_options: Any) -> None:
            raise raised

        monkeypatch.setattr(Image, "open", fail)
        with pytest.raises(UndecodableImage) as caught:
            decode(data)
        assert caught.value.__cause__ is error
        assert len(str(caught.value)) < 200


def warning_tiff() -> bytes:
    """A TIFF with a tag whose data lies outside of the file, at which Pillow warns."""
    data = bytearray(encoded(Image.new("L", (4, 4)), "TIFF", tiffinfo={305: "software" * 9}))
    place = data.index(struct.pack("<HH", 305, 2))
    data[place + 8 : place + 12] = (10**6).to_bytes(4, "little")
    return bytes(data)


def test_decoding_leaves_the_processs_warning_filters_alone() -> None:
    data = warning_tiff()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            assert {each.image.size for each in pool.map(decode, [data] * 20)} == {(4, 4)}
        assert warnings.filters == before
        assert caught, "Pillow's warnings go the way of every warning"


def test_pillows_log_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("PIL.TiffImagePlugin").error("not for the user")
    assert capfd.readouterr().err == ""
