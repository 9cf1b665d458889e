"""The decoders in numpy give the pixels that Pillow's own give, of whole files and of damaged ones."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest
from PIL import Image

from fuzz.attack import rounds
from nshot.images.quick import quicken


def outcome(data: bytes, *, quick: bool) -> object:
    image = Image.open(io.BytesIO(data))
    if quick:
        before = [tile.codec_name for tile in image.tile]
        quicken(image)
        after = [tile.codec_name for tile in image.tile]
        assert (before == after) == (before == ["raw"])
    try:
        return image.mode, image.size, np.asarray(image).tobytes()
    except (OSError, ValueError):
        return "refused"


def agree(data: bytes) -> None:
    assert outcome(data, quick=True) == outcome(data, quick=False), data[:200]


def pixels(source: random.Random, bands: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Noise, flat areas and gradients: what reaches every way to store a pixel."""
    shape = source.randrange(1, 40), source.randrange(1, 40), bands
    rng = np.random.default_rng(source.randrange(2**32))
    step = source.choice((1, 9, 40))
    some = [
        rng.integers(0, 256, shape),
        rng.integers(0, 3, shape) * source.choice((1, 20, 80)),
        np.cumsum(rng.integers(-step, step + 1, shape), 1) % 256,
    ]
    return source.choice(some).astype(np.uint8)


def spoiled(data: bytes, header: int, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(source.choice((0, 1, 5))):
        changed[source.randrange(header, len(changed))] = source.randrange(256)
    if source.randrange(3) == 0:
        del changed[source.randrange(header, len(changed)) :]
    return bytes(changed)


def test_qoi() -> None:
    for seed in range(rounds(150, 20_000)):
        source = random.Random(seed)
        values = pixels(source, source.choice((3, 4)))
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "QOI")
        data = buffer.getvalue()
        image = Image.open(io.BytesIO(data))
        quicken(image)
        assert np.array_equal(np.asarray(image), values), seed
        agree(spoiled(data, 14, source))


@pytest.mark.parametrize("magic", ["P1", "P2", "P3", "P5", "P6"])
def test_ppm(magic: str) -> None:
    for seed in range(rounds(60, 10_000)):
        source = random.Random(seed)
        most = 1 if magic == "P1" else source.choice((1, 7, 100, 254, 256, 1000, 65534))
        values = (pixels(source, 3 if magic in ("P3", "P6") else 1) / 255 * most).astype(int)
        head = f"{magic}\n{values.shape[1]} {values.shape[0]}\n" + ("" if magic == "P1" else f"{most}\n")
        if magic in ("P5", "P6"):
            body = values.astype(">u2" if most > 255 else "u1").tobytes()
        else:
            between = source.choice((" ", "\n", "\t \r\n", " # hi 3\n", "\x0b"))
            body = (between.join(map(str, values.ravel())) + source.choice(("", "\n"))).encode()
        agree(head.encode() + body)
        if magic not in ("P1", "P2", "P3"):
            agree(spoiled(head.encode() + body, len(head), source))
            continue
        changed = bytearray(body)
        changed[source.randrange(len(changed))] = source.choice(b"#\n 0123456789x")
        agree(head.encode() + changed)


def test_comments_and_numbers_may_lie_across_any_place() -> None:
    values = list(range(200)) * 60
    for length in (2**20 - 30, 2**20 - 2, 2**20 - 1, 2**20, 2**20 + 1, 2**21 + 5):
        text = "#" + "c" * (length - 40) + "\n" + " ".join(map(str, values))
        agree(b"P2 120 100 255\n" + text.encode())
        agree(b"P2 120 100 255\n" + b" " * (length - 40) + text[-60_000:].lstrip("c#\n").encode())


def test_dds_that_is_not_compressed() -> None:
    kinds = [
        (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        (24, (0xFF0000, 0xFF00, 0xFF, 0)),
        (16, (0xF800, 0x7E0, 0x1F, 0)),
        (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
        (8, (0xE0, 0x1C, 3, 0)),
        (32, (0x3FF, 0xFFC00, 0x3FF00000, 0xC0000000)),
        (32, (0, 0xFF, 0xA0, 1)),
    ]
    for seed in range(rounds(60, 10_000)):
        source = random.Random(seed)
        bits, masks = source.choice(kinds)
        values = pixels(source, bits // 8)
        header = struct.pack("<7I", 124, 0x100F, *values.shape[:2], 0, 0, 0) + bytes(44)
        header += struct.pack("<8I", 32, 0x41 if masks[3] else 0x40, 0, bits, *masks) + bytes(20)
        data = b"DDS " + header + values.tobytes()
        agree(data)
        agree(data[: len(data) - source.randrange(1, bits // 8 + 1)])
