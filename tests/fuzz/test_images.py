"""Image bytes through every decoder: a small sample of each format, damaged, is an image or one line."""

from __future__ import annotations

import io
import random
import struct
import zlib
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from fuzz.attack import attack
from fuzz.damage import mutated
from nshot.images.cost import cost
from nshot.images.prepare import load
from nshot.images.windows import open_bands
from nshot.types import Limits

LIMITS = Limits(max_bytes=2**20, max_pixels=10**7)


def samples() -> dict[str, bytes]:
    """A few hundred bytes of each format and of each way to store it."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    alpha, grey, palette = rgb.convert("RGBA"), rgb.convert("L"), rgb.convert("P")
    deep = Image.fromarray(rng.integers(0, 65535, (9, 12), np.uint16))
    frames = [rgb, grey.convert("RGB")]
    exif = Image.Exif()
    exif[0x0112] = 6
    made: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (rgb, "JPEG", {"exif": exif}),
        "jpeg, progressive": (rgb, "JPEG", {"progressive": True}),
        "jpeg, CMYK": (rgb.convert("CMYK"), "JPEG", {}),
        "png": (alpha, "PNG", {}),
        "png, palette": (palette, "PNG", {"transparency": 3}),
        "png, 16 bits": (deep, "PNG", {}),
        "png, animated": (rgb, "PNG", {"save_all": True, "append_images": frames}),
        "gif": (palette, "GIF", {"save_all": True, "append_images": [grey, palette]}),
        "bmp": (rgb, "BMP", {}),
        "bmp, palette": (palette, "BMP", {}),
        "tiff": (rgb, "TIFF", {}),
        "tiff, pages": (rgb, "TIFF", {"save_all": True, "append_images": frames, "compression": "tiff_lzw"}),
        "tiff, deflate": (grey, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff, packbits": (rgb, "TIFF", {"compression": "packbits"}),
        "tiff, jpeg": (rgb, "TIFF", {"compression": "jpeg"}),
        "tiff, fax": (grey.convert("1"), "TIFF", {"compression": "group4"}),
        "tiff, float": (grey.convert("F"), "TIFF", {}),
        "tiff, 16 bits": (deep, "TIFF", {}),
        "ppm": (rgb, "PPM", {}),
        "pgm, 16 bits": (deep.convert("I"), "PPM", {}),
        "ico": (alpha, "ICO", {"sizes": [(8, 8)]}),
        "icns": (alpha.resize((16, 16)), "ICNS", {}),
        "dds": (alpha, "DDS", {}),
        "qoi": (rgb, "QOI", {}),
        "sgi": (rgb, "SGI", {}),
        "pcx": (rgb, "PCX", {}),
        "dib": (rgb, "DIB", {}),
        "tga": (rgb, "TGA", {"compression": "tga_rle"}),
    }
    if features.check("webp"):
        made["webp"] = (rgb, "WEBP", {"quality": 50})
        made["webp, lossless"] = (alpha, "WEBP", {"lossless": True})
        made["webp, animated"] = (rgb, "WEBP", {"save_all": True, "append_images": frames})
    if features.check("jpg_2000"):
        made["jpeg 2000"] = (rgb, "JPEG2000", {})
        made["jpeg 2000, stream"] = (grey, "JPEG2000", {"no_jp2": True})
    if features.check("avif"):
        made["avif"] = (rgb, "AVIF", {})
    found: dict[str, bytes] = {}
    for name, (image, form, told) in made.items():
        buffer = io.BytesIO()
        image.save(buffer, form, **told)
        found[name] = buffer.getvalue()
    if find_spec("pillow_heif"):
        from pillow_heif import from_pillow

        buffer = io.BytesIO()
        from_pillow(rgb.resize((64, 64))).save(buffer, quality=50)
        found["heif"] = buffer.getvalue()
    found["psd"] = psd(rng.integers(0, 256, (3, 9, 12), np.uint8))
    found["ppm, plain"] = b"P3\n# a note\n3 2\n255\n" + b" ".join(b"%d" % n for n in range(18))
    found["bmp, run lengths"] = found["bmp, palette"][:30] + struct.pack("<I", 1) + found["bmp, palette"][34:]
    found["jpeg xl"] = b"\xff\x0a" + found["png"][:40]
    found["camera raw"] = b"FUJIFILMCCD-RAW " + bytes(100)
    found["text"] = b"<html><body>not found</body></html>"
    return found


def psd(planes: Any) -> bytes:
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, planes.shape[1], planes.shape[2], 8, 3)
    return head + bytes(12) + struct.pack(">H", 0) + bytes(planes.tobytes())


SAMPLES = samples()


def changed(name: str, source: random.Random) -> bytes:
    data = mutated(SAMPLES[name], source, others=(SAMPLES["jpeg"], SAMPLES["tiff"]))
    if name.startswith("png") and source.randrange(3):  # checksums that are right, or nothing is looked at
        return with_checksums(data)
    return data


def with_checksums(data: bytes) -> bytes:
    found, place = data[:8], 8
    while place + 12 <= len(data):
        length = min(int.from_bytes(data[place : place + 4], "big"), len(data) - place - 12)
        chunk = data[place + 4 : place + 8 + length]
        found += length.to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        place += 12 + length
    return found


GROUPS = sorted({name.split(",")[0] for name in SAMPLES})


@pytest.mark.parametrize("form", GROUPS)
def test_images(form: str) -> None:
    """As classify decodes them: in a thread, or in a process of its own."""
    names = [name for name in SAMPLES if name.split(",")[0] == form]

    def read(data: bytes) -> None:
        image = load(data, limits=LIMITS, side=16).image
        assert image.mode == "RGB"
        assert max(image.size) <= 16

    attack(f"images, {form}", lambda source: changed(source.choice(names), source), read, short=20)


def test_what_an_image_costs_is_told_of_any_bytes() -> None:
    names = sorted(SAMPLES)

    def read(data: bytes) -> None:
        assert (cost(data, LIMITS, 224).size or 0) >= 0

    attack("costs of images", lambda source: changed(source.choice(names), source), read, short=200)


def in_bands() -> dict[str, bytes]:
    """What is read in bands, in every way to store it."""
    rng = np.random.default_rng(1)
    rgb = Image.fromarray(rng.integers(0, 256, (40, 24, 3), np.uint8))
    found = {"ppm": b"P6\n# a note\n24 40\n255\n" + rgb.tobytes()}
    for name, image, told in (
        ("jpeg", rgb, {"format": "JPEG"}),
        ("strips", rgb, {"format": "TIFF", "tiffinfo": {278: 7}}),
        ("one strip", rgb, {"format": "TIFF", "tiffinfo": {278: 40}}),
        ("packed", rgb.convert("L"), {"format": "TIFF", "compression": "tiff_lzw", "tiffinfo": {278: 9}}),
        ("jpeg strips", rgb, {"format": "TIFF", "compression": "jpeg", "tiffinfo": {278: 16}}),
        ("big", rgb, {"format": "TIFF", "big_tiff": True, "tiffinfo": {278: 7}}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, **told)
        found[name] = buffer.getvalue()
    return found | {"tiles": tiled(rng.integers(0, 256, (3, 2, 16, 16), np.uint8))}


def tiled(tiles: Any) -> bytes:
    """A grey TIFF of 24 x 40 pixels in tiles of 16 x 16, which Pillow does not write."""
    rows, columns, side, _ = tiles.shape
    count = rows * columns
    after = 8 + 2 + 12 * 9 + 4
    places = [after + 8 * count + side * side * number for number in range(count)]
    tags = [(256, 4, 1, 24), (257, 4, 1, 40), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(322, 4, 1, side), (323, 4, 1, side), (324, 4, count, after), (325, 4, count, after + 4 * count)]
    told = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    numbers = struct.pack(f"<{2 * count}I", *places, *[side * side] * count)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + told + bytes(4) + numbers + bytes(tiles.tobytes())


def test_large_images_in_bands(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones, taken for large ones; bands that are read fill the image, or one line says why not."""
    monkeypatch.setattr("nshot.images.windows.LARGE", 1)
    path = room / "x"
    wholes = in_bands()
    for name, data in wholes.items():
        path.write_bytes(data)
        bands = open_bands(str(path), 4, LIMITS)
        assert bands is not None, name
        assert sum(band.height for band in bands.read()) == round(bands.size[1] * bands.scale), name

    def read(data: bytes) -> None:
        path.write_bytes(data)
        bands = open_bands(str(path), 4, LIMITS)
        if bands is not None:
            for band in islice(bands.read(), 50):
                assert band.mode == "RGB"

    def made(source: random.Random) -> bytes:
        whole = wholes[source.choice(sorted(wholes))]
        return mutated(whole, source, others=(wholes["tiles"], wholes["big"]))

    attack("large images in bands", made, read, short=80, peak=2**30)
