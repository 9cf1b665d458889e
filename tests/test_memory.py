"""What an image may take: memory and time, shared by all of a run, and a process that can be killed."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tarfile
import threading
import time
import weakref
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nshot
from nshot.errors import ImageTooLarge, UndecodableImage
from nshot.images import apart
from nshot.images.budget import Budget
from nshot.images.cost import _PIECE, Cost, _scans, cost
from nshot.images.decode import decode
from nshot.images.prepare import Preparing, Small, load, prepare
from nshot.images.preprocess import Preprocessor
from nshot.pipeline import Pipeline
from nshot.types import Failure, Limits

PREPROCESSOR = Preprocessor.from_config({})


def encoded(kind: str, size: tuple[int, int] = (61, 43), mode: str = "RGB", **options: object) -> bytes:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def preparing(**limits: float) -> Preparing:
    chosen = Limits(**limits)  # type: ignore[arg-type]
    return Preparing(PREPROCESSOR, chosen, Budget(chosen.memory))


def qoi_of_differences(width: int, height: int) -> bytes:
    """A loop in Python for each pixel."""
    return b"qoif" + struct.pack(">IIBB", width, height, 3, 0) + b"\x88\x12" * (width * height)


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "QOI", "JPEG2000", "ICO"]
)
def test_pixels_are_the_same_in_a_process_of_its_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(kind)
    here = prepare(data, PREPROCESSOR, Limits())
    monkeypatch.setattr("nshot.images.prepare.cost", lambda *_: Cost(10**8, alone=True))
    there, loaded = preparing()(data), load(data, side=40)
    assert np.array_equal(there.pixels, here.pixels)
    assert there[1:] == here[1:]
    decoded = decode(data)
    decoded.image.thumbnail((40, 40))
    assert np.array_equal(np.asarray(loaded.image), np.asarray(decoded.image))
    assert (loaded.notes, loaded.size) == (decoded.notes, decoded.size)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_small_image_comes_with_the_square_from_a_process_of_its_own_too(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encoded(kind, (300, 200), exif=turned)
    here = preparing()(data, Small(100))
    monkeypatch.setattr("nshot.images.prepare.cost", lambda *_: Cost(10**8, alone=True))
    there = preparing()(data, Small(100))
    expected = decode(data).image
    expected.thumbnail((100, 100))
    assert here.small is not None
    assert there.small is not None
    assert here.small.shape == (100, 67, 3)
    assert np.array_equal(there.small, here.small)
    assert np.abs(here.small - np.asarray(expected).astype(int)).max() <= 1  # made small first, then turned
    plain = prepare(data, PREPROCESSOR, Limits())
    for each in (here, there):
        assert np.array_equal(each.pixels, plain.pixels)
        assert each[1:4] == plain[1:4]
    assert preparing()(data, Small(100, least=300 * 200 + 1)).small is None


def test_usual_images_need_no_process_and_rare_ones_do() -> None:
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        assert not cost(encoded(kind), Limits()).alone
    for kind in ("PPM", "QOI", "JPEG2000", "ICO"):
        assert cost(encoded(kind), Limits()).alone


def test_what_lies_behind_the_end_of_a_png_is_no_part_of_it() -> None:
    whole = encoded("PNG")
    behind = whole + bytes(2_000_000)  # read as chunks these would be 160,000
    assert cost(behind, Limits()) == cost(whole, Limits())
    assert np.array_equal(preparing()(behind).pixels, preparing()(whole).pixels)


def test_the_scans_of_a_large_jpeg_are_all_counted() -> None:
    data = bytearray(3 * _PIECE + 7)
    for place in (5, _PIECE - 1, 2 * _PIECE, len(data) - 2):  # the first lies before where one looks
        data[place : place + 2] = b"\xff\xda"
    for place in (6, 7, 8, len(data) - 1):
        assert _scans(bytes(data), place) == bytes(data).count(b"\xff\xda", place)


def test_an_image_that_takes_too_long_is_killed_and_the_next_one_is_answered() -> None:
    slow = preparing(timeout=0.3)
    with pytest.raises(UndecodableImage, match=r"longer than 0\.3 s.*--timeout"):
        slow(qoi_of_differences(4000, 4000))
    assert slow(encoded("PPM")).pixels.shape == (3, 224, 224)


def test_what_a_try_took_of_the_processor_is_not_left_for_the_next() -> None:
    work, allowed = preparing()._preparation.apart, apart.Time(60.0)
    slow = qoi_of_differences(600, 600)
    apart.done(work, slow, 10**9, allowed)
    left = allowed.left
    assert left < 60
    apart.done(work, slow, 10**9, allowed)
    assert allowed.left < left


def test_an_image_that_takes_too_much_memory_is_a_failure_that_says_so() -> None:
    width = height = 11_000
    data = tiff_of_floats(width, height)
    with pytest.raises(ImageTooLarge, match="--memory"):
        preparing(memory=200_000_000)(data)


def test_a_jpeg_2000_that_wants_memory_is_not_called_damaged_before_it_has_all_there_is() -> None:
    buffer = io.BytesIO()
    Image.new("L", (5000, 5000)).save(buffer, "JPEG2000")
    assert preparing(memory=450_000_000)(buffer.getvalue()).pixels.shape == (3, 224, 224)


def tiff_of_floats(width: int, height: int) -> bytes:
    rows = zlib.compress(bytes(4 * width * height), 1)
    tags = {
        256: width,
        257: height,
        258: 32,
        259: 8,
        262: 1,
        273: 200,
        277: 1,
        278: height,
        279: len(rows),
        339: 3,
    }
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())
    )
    return (b"II*\0\x08\0\0\0" + directory + bytes(4)).ljust(200, b"\0") + rows


def bomb_of(kind: str) -> bytes:
    """Kilobytes or less that ask for gigabytes or minutes."""
    header = struct.pack(">IIBBBBB", 1, 10**8, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    baseline = encoded("JPEG", (2000, 2000))
    scan = baseline[baseline.index(b"\xff\xda") : -2]
    return {
        "webp": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + b"\xfe\x3f\0" * 2,
        "png of one column": b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + bytes(4),
        "jpeg of many scans": baseline[:-2] + scan[:400] * 2000 + b"\xff\xd9",
        "jpeg of fill bytes": b"\xff\xd8" + b"\xff" * 5_000_000 + baseline[2:],
        "jpeg of segments": b"\xff\xd8" + b"\xff\xe1\0\2" * 1_000_000 + baseline[2:],
        "png of chunks": b"\x89PNG\r\n\x1a\n" + chunk + (struct.pack(">I", 0) + b"abCd" + bytes(4)) * 500_000,
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "webp",
        "png of one column",
        "jpeg of many scans",
        "jpeg of fill bytes",
        "jpeg of segments",
        "png of chunks",
    ],
)
def test_a_bomb_ends_in_a_failure_and_takes_little_of_this_process(kind: str) -> None:
    with pytest.raises((ImageTooLarge, UndecodableImage)):
        preparing(memory=400_000_000, timeout=1.0)(bomb_of(kind))


def test_a_worker_that_dies_fails_its_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = preparing()
    prepared(encoded("PPM"))
    for worker in apart._ours().idle:
        worker.process.kill()
        worker.process.wait()
    assert prepared(encoded("PPM")).pixels.shape == (3, 224, 224)


def test_a_worker_ends_with_a_parent_that_was_killed() -> None:
    program = (
        "import sys, threading\n"
        "from nshot.images import apart\n"
        "from nshot.images.prepare import load\n"
        "load(sys.stdin.buffer.read(int(sys.argv[1])))\n"
        "print(apart._ours().idle[0].process.pid, flush=True)\n"
        "load(sys.stdin.buffer.read())\n"
    )
    small = encoded("QOI")
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(len(small))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin, parent.stdout:
        parent.stdin.write(small + qoi_of_differences(6000, 6000))
        worker = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists() or " Z " in Path(f"/proc/{worker}/stat").read_text():
            return
        time.sleep(0.05)
    os.kill(worker, 9)
    raise AssertionError("it went on")


def test_the_budget_is_never_exceeded_and_nobody_starves() -> None:
    budget = Budget(1000)
    taken, most, lock = 0, 0, threading.Lock()

    def work(size: int) -> None:
        nonlocal taken, most
        with budget.decoding(size):
            with lock:
                taken += size
                most = max(most, taken)
            with lock:
                taken -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in (700, 10, 400, 750, 3, 300) * 20]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert most <= 750
    with pytest.raises(ImageTooLarge, match="--memory"), budget.decoding(751):
        pass


def test_a_tar_of_large_members_is_read_no_further_than_the_budget_allows(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = tmp_path / "x.tar", encoded("JPEG")
    with tarfile.open(path, "w") as archive:
        for number in range(40):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 5_000_000
            archive.addfile(info, io.BytesIO(data.ljust(info.size, b"\0")))
    held: list[int] = []
    hold = Budget.hold

    def holding(budget: Budget, size: int) -> int:
        found = hold(budget, size)
        held.append(budget._encoded.total - budget._encoded._free)
        return found

    monkeypatch.setattr(Budget, "hold", holding)
    clip = nshot.load(tiny, limits=Limits(memory=60_000_000))
    answers = list(clip.embed_images(path))
    assert len(answers) == 40
    assert not any(isinstance(answer, Failure) for answer in answers)
    assert max(held) <= 15_000_000


def test_a_forked_process_has_workers_of_its_own() -> None:
    data = encoded("PPM")
    preparing()(data)
    child = os.fork()
    if child == 0:
        try:
            os._exit(preparing()(data).pixels.shape[1] - 220)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert preparing()(data).pixels.shape == (3, 224, 224)


def test_with_a_store_as_without_one_pixels_are_let_go_of_once_they_are_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[weakref.ref[object]] = []
    decode_slot = Pipeline._decode

    def watched(*args: object) -> object:
        pixels = decode_slot(*args)  # type: ignore[arg-type]
        prepared.append(weakref.ref(pixels))
        return pixels

    monkeypatch.setattr(Pipeline, "_decode", watched)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(160):
        (folder / f"{number:03}.png").write_bytes(encoded("PNG", (20 + number, 20)))
    clip = nshot.load("sketchbook", store=tmp_path / "store.sqlite")
    most = 0
    for _ in clip.embed_images(folder):
        most = max(most, sum(each() is not None for each in prepared))
    assert len(prepared) == 160
    # what is decoded ahead, what is being encoded in each stream, and one batch that waits
    assert most <= clip.batch_size * (2 * clip.encoder.streams + 3)


def test_a_webp_that_does_not_fit_says_so_and_is_not_called_damaged() -> None:
    """Its decoder says only that it could not be made."""
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(buffer, "WEBP", lossless=True, method=0, quality=0)
    with pytest.raises(ImageTooLarge, match="give more with --memory"):
        preparing(memory=120_000_000)(buffer.getvalue())
