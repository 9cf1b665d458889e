"""Small files that unpack to gigabytes are answered up to where that shows, and then refused."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from nshot.datasets.labelled import open_labelled
from nshot.errors import ImageError, ImageTooLarge, UnreadableImage
from nshot.images import archives, bombs, in_tables
from nshot.images.archives import tar_members
from nshot.images.sources import expand
from nshot.types import Limits

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def _zeros(path: Path, sizes: list[int]) -> None:
    """An archive of members of zeros, packed as its name says."""
    kinds: dict[str, Any] = {".tar": "w", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for number, size in enumerate(sizes):
                zipped.writestr(f"{number}.png", bytes(size))
        return
    with tarfile.open(path, kinds[path.suffix]) as tarred:
        for number, size in enumerate(sizes):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = size
            tarred.addfile(member, io.BytesIO(bytes(size)))


@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("passed_over", [False, True])
def test_the_rest_of_an_archive_that_is_a_bomb_is_one_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, passed_over: bool
) -> None:
    """It begins with images that are answered; members too large to be read are unpacked, too."""
    monkeypatch.setattr(bombs, "_FLOOR", 2**21)
    monkeypatch.setattr(archives, "_STEP", 2**19)
    path = tmp_path / f"images.{ending}"
    _zeros(path, [2**18] * 40)
    found = list(expand([path], limits=Limits(max_bytes=2**17 if passed_over else 2**20)))
    assert len(found) in range(8, 20)
    for source in found[:6]:
        if passed_over:
            with pytest.raises(ImageTooLarge):
                source.read()
    with pytest.raises(UnreadableImage, match=r"the rest is not read: .* to a folder and name that"):
        found[-1].read()
    assert str(path) in found[-1].name


def test_what_is_not_packed_may_be_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bombs, "_FLOOR", 2**20)
    _zeros(tmp_path / "images.tar", [2**18] * 40)
    assert len(list(expand([tmp_path / "images.tar"]))) == 40


def test_packed_photographs_are_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are images without compression that shrink to a thirtieth."""
    monkeypatch.setattr(bombs, "_FLOOR", 2**18)
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as tarred:
        for number in range(40):
            member = tarfile.TarInfo(f"{number}.bmp")
            member.size = 2**16
            tarred.addfile(member, io.BytesIO(os.urandom(2**11) + bytes(2**16 - 2**11)))
    assert len(list(expand([tmp_path / "images.tar.gz"]))) == 40


def test_rows_that_share_one_image_are_a_bomb_and_rows_that_share_a_name_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(bombs, "_FLOOR", 2**22)
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"image": [os.urandom(2**16)] * 1000, "label": ["a" * 4000] * 1000}), path)
    found = list(expand([path], keep_columns=True))
    assert len(found) in range(100, 120)
    with pytest.raises(UnreadableImage, match="the rest is not read"):
        found[-1].read()
    pq.write_table(pa.table({"image": ["photo.png"] * 9000, "label": ["a" * 4000] * 9000}), path)
    (tmp_path / "photo.png").write_bytes(b"")
    assert len(list(expand([path], keep_columns=True))) == 9000


def test_rows_that_name_nothing_are_not_more_than_the_bytes_of_their_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(in_tables, "_EMPTY", 10)
    (tmp_path / "photo.png").write_bytes(PNG)
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"image": ["photo.png"] + [None] * 9000}), path)
    first, *empty, last = expand([path])
    assert first.read() == PNG
    assert len(empty) == path.stat().st_size < 2000
    with pytest.raises(UnreadableImage, match="rows name no image, more than the file has bytes; the rest"):
        last.read()
    (tmp_path / "table.csv").write_text("image,label\nphoto.png,a\n" + ",b\n" * 900)
    assert len(list(expand([tmp_path / "table.csv"]))) == 901


def test_a_map_of_holes_is_not_kept(tmp_path: Path) -> None:
    """Its pieces, 21 in each half kilobyte, would take a hundred times that."""
    header = bytearray(tarfile.TarInfo("holes.png").tobuf(tarfile.GNU_FORMAT))
    header[156:157], header[482:483] = b"S", b"\1"
    header[483:495] = b"%011o\0" % 200_000_000
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    piece = b"00000000001\0" * 42
    path = tmp_path / "a.tar"
    path.write_bytes(
        bytes(header) + (piece + b"\1" + bytes(7)) * 3000 + piece + bytes(8) + bytes(header)[:482]
    )
    tracemalloc.start()
    holes, damage = tar_members(path, 2**28)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    with pytest.raises(ImageError, match="a file with holes"):
        holes()
    with pytest.raises(ImageError, match="damaged after"):
        damage()


def _labelled(path: Path, names: list[str], cut: str) -> None:
    """A tar archive that ends within a member, or before it where the name ends in a slash."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tarred:
        for name in names:
            data = b"square" if name.endswith((".cls", ".txt")) else PNG
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tarred.addfile(member, io.BytesIO(data))
    whole = buffer.getvalue()
    at = whole.index(cut.rstrip("/").encode())
    path.write_bytes(whole[:at] + b"no header" * 60 if cut.endswith("/") else whole[: at + 514])


@pytest.mark.parametrize("beside", ["txt", "cls"])
@pytest.mark.parametrize("cut", ["b/4.png", "b/4.png/", "b/3.BESIDE", "b/3.BESIDE/"])
def test_what_is_lost_of_a_damaged_archive_of_labelled_images_is_a_failure(
    tmp_path: Path, beside: str, cut: str
) -> None:
    """Wherever it ends: within an image, before one, or within a file beside the images."""
    path = tmp_path / "set.tar"
    names = [f"{'ab'[n > 2]}/{n}.{ending}" for n in range(8) for ending in ("png", beside)]
    _labelled(path, names, cut.replace("BESIDE", beside))
    for images in (expand([path]), open_labelled(path)):
        read, failed = [], []
        for source in images:
            try:
                read.append(source.read())
            except UnreadableImage as error:
                failed.append(str(error))
        assert read in ([PNG] * 4, [PNG] * 3)  # where its label is lost, an image counts as unlabelled
        assert len(failed) == 1
        assert "the archive is" in failed[0]
