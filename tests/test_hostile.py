"""Broken, truncated and crafted files: each ends in an image or one ImageError, and soon.

A quick sample of what was run at length; the seed makes a failure repeat.
"""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nshot.errors import ImageError, ImageTooLarge
from nshot.images.decode import decode
from nshot.images.preprocess import Preprocessor

HOSTILE = Path(__file__).parents[1].parent / "shared" / "data" / "hostile"
SECONDS = 10.0  # of processor time: the bound for any one file

preprocess = Preprocessor.from_config({})


def outcome(data: bytes) -> str:
    start = time.thread_time()
    try:
        assert preprocess(decode(data).image).shape == (3, 224, 224)
        result = "picture"
    except ImageError as error:
        message = str(error)
        assert 0 < len(message) < 300
        assert "\n" not in message
        result = type(error).__name__
    assert time.thread_time() - start < SECONDS
    return result


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def samples() -> dict[str, bytes]:
    gradient = np.add.outer(np.arange(43), np.arange(61)).astype(np.uint8)
    grey = Image.fromarray(gradient)
    rgb = Image.merge("RGB", (grey, grey.rotate(180), grey))
    found = {
        f"{kind} RGB": encoded(rgb, kind)
        for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "QOI", "SGI")
    }
    found |= {f"{kind} palette": encoded(rgb.convert("P"), kind) for kind in ("PNG", "GIF", "BMP", "PCX")}
    found |= {
        f"{kind} alpha": encoded(rgb.convert("RGBA"), kind) for kind in ("PNG", "WEBP", "TIFF", "ICO", "ICNS")
    }
    found |= {
        f"TIFF {name}": encoded(rgb, "TIFF", compression=name)
        for name in ("tiff_lzw", "tiff_deflate", "jpeg")
    }
    found["JPEG progressive"] = encoded(rgb, "JPEG", progressive=True)
    found["JPEG CMYK"] = encoded(rgb.convert("CMYK"), "JPEG")
    found["TIFF F"] = encoded(grey.convert("F"), "TIFF")
    return found


SAMPLES = samples()


def mutated(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    match source.randrange(4):
        case 0:
            return data[: source.randrange(len(data))]
        case 1:
            for _ in range(source.choice((1, 4, 32))):
                changed[source.randrange(min(len(data), source.choice((64, 10**9))))] ^= (
                    1 << source.randrange(8)
                )
        case 2:
            place = source.randrange(min(len(data), 512))
            changed[place : place + 4] = source.choice(
                (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
            )
        case 3:
            place = source.randrange(len(data))
            del changed[place : place + source.randrange(1, 100)]
    return bytes(changed)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_mutated_image_ends_in_an_image_or_a_failure(name: str) -> None:
    assert outcome(SAMPLES[name]) == "picture"
    source = random.Random(name)
    for _ in range(15):
        outcome(mutated(SAMPLES[name], source))


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="the shared hostile files are not here")
def test_every_hostile_file_is_accounted_for() -> None:
    files = [path for path in sorted(HOSTILE.rglob("*")) if path.is_file()]
    results = [outcome(path.read_bytes()) for path in files]
    assert len(results) == len(files) > 100
    assert results.count("picture") > len(files) // 2


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height if width * height < 10**6 else 0)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + rows + chunk(b"IEND", b"")


def tiff(width: int, height: int, *tags: tuple[int, int | bytes]) -> bytes:
    """A grey TIFF of 32-bit tags; bytes are an array that lies behind the directory."""
    given: dict[int, int | bytes] = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, **dict(tags)}
    directory, behind = struct.pack("<H", len(given)), b""
    end = 8 + 2 + 12 * len(given) + 4
    for tag, value in sorted(given.items()):
        if isinstance(value, bytes):
            directory += struct.pack("<HHII", tag, 4, len(value) // 4, end + len(behind))
            behind += value
        else:
            directory += struct.pack("<HHII", tag, 4, 1, value)
    return b"II*\0\x08\0\0\0" + directory + bytes(4) + behind


def many_scans(width: int, height: int, scans: int) -> bytes:
    data = encoded(Image.new("RGB", (width, height)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + data[-2:]


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    text = zlib.compress(bytes(20_000_000), 9)
    one = struct.pack("<I", 8)
    gif = bytearray(encoded(Image.new("P", (1, 1)), "GIF"))
    gif[6:10] = b"\xff" * 4
    bombs = {
        "wide header": png(50_000, 50_000),
        "text": png(4, 4, chunk(b"zTXt", b"k\0\0" + text)),
        "profile": png(4, 4, chunk(b"iCCP", b"k\0\0" + text)),
        "screen": bytes(gif),
        "tiles": tiff(400, 400, (322, 1), (323, 1), (324, one * 160_000), (325, one * 160_000)),
        "tile table": tiff(60_000, 60_000, (322, 1), (323, 1), (324, 8), (325, 1)),
        "scans": many_scans(1000, 1000, 5000),
    }
    results = {name: outcome(data) for name, data in bombs.items()}
    assert "picture" not in results.values(), results
    for name in ("tiles", "scans", "screen", "wide header"):
        assert results[name] == ImageTooLarge.__name__


def test_directories_that_lead_in_a_circle_end() -> None:
    looped = bytearray(tiff(4, 4, (273, 8), (278, 4), (279, 16)))
    looped[-4:] = (8).to_bytes(4, "little")
    assert outcome(bytes(looped)) == "picture"
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIIHHIII", 2, 0x0112, 3, 1, 6, 0x8769, 4, 1, 8, 8)
    assert decode(encoded(Image.new("RGB", (8, 4)), "JPEG", exif=exif)).image.size == (4, 8)
