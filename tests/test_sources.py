"""Sources: whatever a person names is listed in order, and what cannot be read fails by itself."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import shutil
import struct
import sys
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Iterable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nshot.errors import (
    ImageError,
    ImageTooLarge,
    MissingExtra,
    SourceError,
    UndecodableImage,
    UnreadableImage,
)
from nshot.images import tables
from nshot.images.decode import decode
from nshot.images.sources import Source, expand
from nshot.types import Limits


def listed(*specs: str | Path, **options: Any) -> list[Source]:
    return list(expand(specs, **options))


def names(sources: Iterable[Source], under: Path | None = None) -> list[str]:
    return [source.name if under is None else os.path.relpath(source.name, under) for source in sources]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "photos"
    for name in ("b.jpg", "a.jpg", "sub/c.tif", "sub/deep/d", ".hidden.jpg", ".git/e.jpg"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() if "." in name else b"\0")
    return top


def test_a_file_is_named_as_typed_and_read_when_asked(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"data")
    (source,) = listed(tmp_path / "a.jpg")
    name = str(tmp_path / "a.jpg")
    assert (source.name, source.path, source.read()) == (name, name, b"data")


def test_a_folder_is_listed_in_order_whatever_the_extensions_and_without_what_is_hidden(tree: Path) -> None:
    assert names(listed(tree), tree) == ["a.jpg", "b.jpg", "sub/c.tif", "sub/deep/d"]


def test_a_dot_in_front_of_a_name_is_kept_as_typed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert names(listed("./sub", ".")) == [
        "./sub/c.tif",
        "./sub/deep/d",
        "./a.jpg",
        "./b.jpg",
        "./sub/c.tif",
        "./sub/deep/d",
    ]


def test_a_loop_of_links_ends_and_a_linked_folder_is_followed(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.jpg").touch()
    (tree / "linked").symlink_to(outside)
    for name in ("loop1", "loop2", "sub/loop3"):
        (tree / name).symlink_to(tree)
    (tree / "self").symlink_to("self")
    found = names(listed(tree), tree)
    assert found == ["a.jpg", "b.jpg", "linked/x.jpg", "self", "sub/c.tif", "sub/deep/d"]
    assert names(listed(f"{tree}/**/*.jpg"), tree) == ["a.jpg", "b.jpg", "linked/x.jpg"]


def test_a_folder_deeper_than_pythons_stack_is_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    deep = "d/" * 400
    os.makedirs(deep)  # noqa: PTH103
    Path(deep, "x.jpg").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    try:
        assert names(listed("d")) == [f"{deep}x.jpg"]
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_read_fails_alone(tree: Path) -> None:
    (tree / "sub").chmod(0)
    try:
        *good, bad = listed(tree)
        assert len(good) == 2
        with pytest.raises(UnreadableImage, match="cannot be listed"):
            bad.read()
    finally:
        (tree / "sub").chmod(0o755)


def test_a_folder_that_cannot_be_listed_fails_alone(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(folder: str) -> Any:
        if folder.endswith("deep/"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    *good, bad = listed(tree)
    assert names(good, tree) == ["a.jpg", "b.jpg", "sub/c.tif"]
    with pytest.raises(UnreadableImage, match="cannot be listed: permission denied"):
        bad.read()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_never_opened(tree: Path) -> None:
    os.mkfifo(tree / "a.pipe")
    pipe = next(source for source in listed(tree) if source.name.endswith(".pipe"))
    with pytest.raises(UnreadableImage, match="not a regular file"):
        pipe.read()
    with pytest.raises(SourceError, match="not a regular file"):
        listed(tree / "a.pipe")


@pytest.mark.parametrize("name", ["nothing.jpg", "nothing*.jpg", "nothing/**", "nul\0byte"])
def test_what_names_nothing_is_said_before_anything_is_listed(tree: Path, name: str) -> None:
    with pytest.raises(SourceError, match=r"nothing|null"):
        expand([tree, tree / name])


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no files"):
        expand([tmp_path])


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("[b]*", ["b.jpg"]),
        ("*", ["a.jpg", "b.jpg", "sub/c.tif", "sub/deep/d"]),
        ("**", ["a.jpg", "b.jpg", "sub/c.tif", "sub/deep/d"]),
        ("**/*.jpg", ["a.jpg", "b.jpg"]),
        ("**/d*/**", ["sub/deep/d"]),
        ("s*/**/?", ["sub/deep/d"]),
        ("**/**/c.*", ["sub/c.tif"]),
    ],
)
def test_a_pattern_lists_what_a_shell_would(tree: Path, pattern: str, found: list[str]) -> None:
    assert names(listed(f"{tree}/{pattern}"), tree) == found


def test_a_pattern_may_be_relative(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert names(listed("**/*.tif", "*.jpg")) == ["sub/c.tif", "a.jpg", "b.jpg"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].jpg").write_bytes(b"brackets")
    (source,) = listed(tmp_path / "a[1].jpg")
    assert source.read() == b"brackets"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (b"a.jpg\nb c.jpg\n", ["a.jpg", "b c.jpg"]),
        (b"a.jpg\r\n\r\n  \nb.jpg", ["a.jpg", "b.jpg"]),
        (b"\xef\xbb\xbfa.jpg\n", ["a.jpg"]),
        (b"a\nb.jpg\0c.jpg\0", ["a\nb.jpg", "c.jpg"]),
        (b"\xff\xfe.jpg\n", ["\udcff\udcfe.jpg"]),
        (b"one", ["one"]),
        (b"", []),
    ],
)
def test_a_list_on_stdin_is_split_by_what_it_holds(given: bytes, found: list[str]) -> None:
    assert names(listed("-", stdin=io.BytesIO(given))) == found


def test_a_list_is_split_the_same_however_it_arrives() -> None:
    class Drip(io.RawIOBase):
        left = b"\xef\xbb\xbfone.jpg\ntwo.jpg\n\nthree.jpg"

        def read(self, size: int = -1) -> bytes:
            head, self.left = self.left[:3], self.left[3:]
            return head

    assert names(listed("-", stdin=Drip())) == ["one.jpg", "two.jpg", "three.jpg"]


def test_a_name_with_odd_bytes_is_read(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff\xe9.jpg"
    try:
        Path(os.fsdecode(odd)).write_bytes(b"odd")
    except OSError:
        pytest.skip("this file system takes no such names")
    (source,) = listed("-", stdin=io.BytesIO(odd + b"\n"))
    assert source.read() == b"odd"
    (source,) = listed(tmp_path)
    assert os.fsencode(source.name) == odd


def test_a_list_names_missing_files_and_folders_which_fail_alone(tree: Path) -> None:
    given = f"{tree}/nothing.jpg\n{tree}/sub\n{tree}/a.jpg\n".encode()
    missing, folder, good = listed("-", stdin=io.BytesIO(given))
    with pytest.raises(UnreadableImage, match="no such file"):
        missing.read()
    with pytest.raises(UnreadableImage, match="a folder"):
        folder.read()
    assert good.read() == b"a.jpg"


@pytest.mark.parametrize("kind", ["gz", "tar", "zip", "pdf", "noise"])
def test_what_is_piped_and_is_no_list_is_one_failure(kind: str) -> None:
    data = bytes(range(1, 9)) * 200 + b"\n" + b"\x02\n" * 100
    if kind == "gz":
        data = gzip.compress(data)
    elif kind == "tar":
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
        data = buffer.getvalue()
    elif kind in ("zip", "pdf"):
        data = (b"PK\x03\x04" if kind == "zip" else b"%PDF-1.7\n") + data
    (source,) = listed("-", stdin=io.BytesIO(data))
    with pytest.raises(UndecodableImage, match="'-' takes one image, or a name for each line"):
        source.read()


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TIFF", "WEBP", "JPEG2000"])
def test_an_image_of_any_format_with_a_signature_may_be_piped(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (10, 10, 10)).save(buffer, kind)
    (source,) = listed("-", stdin=io.BytesIO(buffer.getvalue()))
    assert source.read() == buffer.getvalue()


def test_one_image_piped_in_place_of_a_list_is_read() -> None:
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        buffer = io.BytesIO()
        Image.new("RGB", (300, 300), "red").save(buffer, kind)
        (source,) = listed("-", stdin=io.BytesIO(buffer.getvalue()))
        assert (source.name, source.read()) == ("-", buffer.getvalue())


def test_a_list_whose_names_begin_like_images_is_a_list() -> None:
    for name in ("BMW.jpg", "GIF89a.gif", "MM", "II*", "qoif/1.png"):
        assert names(listed("-", stdin=io.BytesIO(f"{name}\nb.jpg\n".encode()))) == [name, "b.jpg"]


def test_a_name_too_long_for_any_system_fails_alone(tree: Path) -> None:
    given = f"{tree}/a.jpg\n".encode() + b"x" * 3_000_000 + f"\n{tree}/a.jpg\n".encode()
    good, long, again = listed("-", stdin=io.BytesIO(given))
    assert good.read() == again.read() == b"a.jpg"
    assert len(long.name) < 100
    with pytest.raises(UnreadableImage, match="a name of more than"):
        long.read()


def test_a_file_over_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(1001))
    with pytest.raises(ImageTooLarge, match="1,000 bytes"):
        listed(tmp_path / "big", limits=Limits(max_bytes=1000))[0].read()
    assert len(listed(tmp_path / "big", limits=Limits(max_bytes=1001))[0].read()) == 1001


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, members: dict[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


MEMBERS = {"in/b.jpg": b"bbb", "a.jpg": b"aaa", "in/.DS_Store": b"x", "__MACOSX/._a.jpg": b"x"}


def test_a_zip_gives_its_members_in_its_order(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.ZIP", {"dir/": b"", **MEMBERS})
    sources = listed(path)
    assert names(sources) == [f"{path}/in/b.jpg", f"{path}/a.jpg"]
    assert [source.read() for source in sources] == [b"bbb", b"aaa"]
    assert sources[0].path is None


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.bz2", "w:bz2"), (".txz", "w:xz")],
)
def test_a_tar_gives_its_members_in_its_order(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tarred(tmp_path / f"x{suffix}", {"./in/b.jpg": b"bbb", **MEMBERS}, mode)
    sources = listed(path)
    assert names(sources) == [f"{path}/in/b.jpg", f"{path}/in/b.jpg", f"{path}/a.jpg"]
    assert [source.read() for source in sources] == [b"bbb", b"bbb", b"aaa"]


def test_a_member_that_is_a_bomb_fails_alone(tmp_path: Path) -> None:
    members = {"a.png": b"ok", "bomb": bytes(5_000_000), "b.png": b"ok"}
    limits = Limits(max_bytes=10_000)
    for path in (zipped(tmp_path / "x.zip", members), tarred(tmp_path / "x.tar.gz", members, "w:gz")):
        first, bomb, last = listed(path, limits=limits)
        assert first.read() == last.read() == b"ok"
        with pytest.raises(ImageTooLarge, match="unpacked"):
            bomb.read()


def test_a_zip_member_that_lies_about_its_size_is_stopped(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"bomb": bytes(5_000_000)})
    path.write_bytes(path.read_bytes().replace((5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(ImageError):
        listed(path, limits=Limits(max_bytes=10_000))[0].read()


def test_an_encrypted_and_a_damaged_member_fail_alone(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a": bytes(range(256)) * 9, "b.png": b"fine"})
    data = bytearray(path.read_bytes())
    damaged = bytearray(data)
    damaged[60:70] = b"\xff" * 10
    path.write_bytes(damaged)
    bad, good = listed(path)
    with pytest.raises(UnreadableImage, match="damaged"):
        bad.read()
    assert good.read() == b"fine"
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1
    path.write_bytes(data)
    bad, good = listed(path)
    with pytest.raises(UnreadableImage, match="encrypted"):
        bad.read()
    assert good.read() == b"fine"


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz"])
@pytest.mark.parametrize(
    "data", [b"", b"not an archive at all", b"\x1f\x8b\x08garbage", b"\xfd7zXZ\x00garbage"]
)
def test_what_is_no_archive_is_said_at_once(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match="archive that can be read"):
        expand([tmp_path / name])


def test_a_tar_that_breaks_off_gives_what_came_before_and_a_failure(tmp_path: Path) -> None:
    whole = tarred(tmp_path / "x.tar", {"a": bytes(600), "b": bytes(600)}).read_bytes()
    for cut in (1600, 2300):  # inside the second header, inside the second file
        (tmp_path / "x.tar").write_bytes(whole[:cut])
        good, bad = listed(tmp_path / "x.tar")
        assert good.read() == bytes(600)
        with pytest.raises(UnreadableImage, match=r"damaged after a|cut off within it"):
            bad.read()
    broken = bytearray(whole)
    broken[1536 + 150] ^= 255  # in the second header's checksum
    (tmp_path / "x.tar").write_bytes(broken)
    good, bad = listed(tmp_path / "x.tar")
    with pytest.raises(UnreadableImage, match="damaged after a"):
        bad.read()


def test_a_tar_header_that_unpacks_to_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 200_000_000
    with gzip.open(tmp_path / "x.tgz", "wb", 1) as file:
        file.write(tarfile.TarInfo("first").tobuf())
        file.write(info.tobuf())
        for _ in range(200):
            file.write(bytes(1_000_000))
    tracemalloc.start()
    sources = listed(tmp_path / "x.tgz", limits=Limits(max_bytes=10_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
    assert len(sources) == 2
    with pytest.raises(UnreadableImage, match="header of 200,"):
        sources[-1].read()


def test_links_and_devices_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("x")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    sources = listed(tmp_path / "x.tar")
    assert len(sources) == 4
    for source in sources:
        with pytest.raises(UnreadableImage, match="link or a device"):
            source.read()


def test_memory_does_not_grow_with_a_tar(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", {f"{number:05}": bytes(2000) for number in range(3000)})
    tracemalloc.start()
    sources = expand([path])
    for source in islice(sources, 100):
        source.read()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    assert sum(len(source.read()) for source in sources) == 2900 * 2000
    grown = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert grown < 200_000


def test_a_csv_names_images_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"aaa")
    (tmp_path / "t.csv").write_text(
        "label, Filename ,other\ncat,a.jpg,1\ndog,,2\n\nbird,b.jpg,3\n", "utf-8-sig"
    )
    good, empty, missing = listed(tmp_path / "t.csv")
    assert (good.name, good.read()) == (str(tmp_path / "a.jpg"), b"aaa")
    with pytest.raises(UnreadableImage, match="names no image"):
        empty.read()
    with pytest.raises(UnreadableImage, match="no such file"):
        missing.read()


@pytest.mark.parametrize(("name", "text"), [("t.csv", "a;path\n1;x.jpg\n"), ("t.tsv", "a\tpath\n1\tx.jpg\n")])
def test_a_table_may_be_separated_otherwise(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "x.jpg").touch()
    assert names(listed(tmp_path / name), tmp_path) == ["x.jpg"]


def test_the_column_can_be_named_and_a_missing_one_names_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("nr,where\n1,x.jpg\n")
    (tmp_path / "x.jpg").touch()
    assert names(listed(tmp_path / "t.csv", image_column="where"), tmp_path) == ["x.jpg"]
    with pytest.raises(SourceError, match=r"'image'.*nr, where"):
        expand([tmp_path / "t.csv"], image_column="image")
    with pytest.raises(SourceError, match="nr, where"):
        expand([tmp_path / "t.csv"])


def test_a_table_without_one_image_that_is_there_says_what_helps(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.csv").write_text("path,label\nx.jpg,cat\ny.jpg,dog\n")
    with pytest.raises(SourceError, match=r"column 'path'.*'x\.jpg'.*--image-root"):
        expand([tmp_path / "t.csv"])


def test_a_parquet_file_gives_paths_bytes_or_the_hubs_pairs(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the [data] extra")
    import pyarrow.parquet as pq

    (tmp_path / "a.jpg").write_bytes(b"aaa")
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"label": [1, 2], "image_path": ["a.jpg", None]}), path)
    good, empty = listed(path)
    assert (good.name, good.read()) == (str(tmp_path / "a.jpg"), b"aaa")
    with pytest.raises(UnreadableImage, match="names no image"):
        empty.read()
    pq.write_table(pa.table({"image": [b"123", bytes(1001)]}), path)
    good, large = listed(path, limits=Limits(max_bytes=1000))
    assert (good.name, good.read()) == (f"{path}[0]", b"123")
    with pytest.raises(ImageTooLarge):
        large.read()
    pairs = [{"bytes": b"123", "path": "x.jpg"}, {"bytes": None, "path": "a.jpg"}, None]
    pq.write_table(pa.table({"image": pairs}), path)
    held, named, empty = listed(path)
    assert (held.name, held.read(), named.read()) == (f"{path}[0]", b"123", b"aaa")
    pq.write_table(pa.table({"image": [1, 2]}), path)
    with pytest.raises(SourceError, match="int64, not paths or bytes"):
        expand([path])
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match="not a Parquet file"):
        expand([path])


def test_a_parquet_file_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r'pip install "nshot\[data\]"'):
        expand([tmp_path / "t.parquet"])


def test_a_url_is_a_source_and_private_ones_are_refused() -> None:
    (source,) = listed("http://127.0.0.1:9/a.jpg")
    assert (source.name, source.path) == ("http://127.0.0.1:9/a.jpg", None)
    with pytest.raises(ImageError, match="not a public address"):
        source.read()


def test_bytes_images_and_arrays_are_sources() -> None:
    assert Source.of(b"abc", name="[0]").read() == b"abc"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for image in (pixels, Image.fromarray(pixels)):
        assert np.array_equal(np.asarray(decode(Source.of(image).read()).image), pixels)
    assert decode(Source.of(np.zeros((2, 3), np.uint8)).read()).image.size == (3, 2)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"]
)
def test_an_image_of_any_mode_is_a_source(mode: str) -> None:
    assert decode(Source.of(Image.new(mode, (6, 4))).read()).image.size == (6, 4)


def test_an_images_orientation_goes_along() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4), "red").save(buffer, "JPEG", exif=exif)
    assert decode(Source.of(Image.open(buffer)).read()).image.size == (4, 6)


@pytest.mark.parametrize("thing", [np.full((3, 3), 2.0), np.zeros((5, 5, 5), np.uint8), 7, None])
def test_what_is_no_image_is_said(thing: object) -> None:
    with pytest.raises(UndecodableImage):
        Source.of(thing).read()


def test_entries_of_a_zip_that_share_bytes_fail(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a": b"\0first" * 100, "b": b"\0second" * 100, "c": b"\0third"})
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 42 : directory + 46] = content[directory + 46 + 1 + 42 :][:4]  # a begins where b does
    path.write_bytes(content)
    a, b, c = listed(path)
    for shared in (a, b):
        with pytest.raises(UnreadableImage, match="shares bytes"):
            shared.read()
    assert c.read() == b"\0third"


def test_a_tar_whose_header_would_take_minutes_to_search_ends_at_once(tmp_path: Path) -> None:
    header = tarfile.TarInfo("a")
    header.type, header.size = tarfile.XHDTYPE, 500_000
    (tmp_path / "x.tar").write_bytes(tarfile.TarInfo("f").tobuf() + header.tobuf() + b"1" * 500_224)
    _, bad = listed(tmp_path / "x.tar")
    with pytest.raises(UnreadableImage, match="extended header"):
        bad.read()


def test_an_xz_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**29}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    (tmp_path / "x.tar.xz").write_bytes(lzma.compress(buffer.getvalue(), filters=filters))
    with pytest.raises(SourceError, match=r"[Mm]emory"):
        listed(tmp_path / "x.tar.xz")
    (tmp_path / "x.tar.xz").write_bytes(lzma.compress(buffer.getvalue(), preset=9) * 2)
    assert names(listed(tmp_path / "x.tar.xz")) == [f"{tmp_path}/x.tar.xz/a"]


def test_the_members_of_a_tar_are_read_when_they_are_held(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", {"a.jpg": b"one", "b.jpg": b"two"})
    sources = expand([path])
    first = next(sources)
    assert (first.expected(), first.read()) == (3, b"one")
    second = next(sources)
    assert list(sources) == []
    assert second.read() == b"two"  # held when the archive went on


def test_a_line_longer_than_any_row_is_one_failed_row(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "x.csv").write_text("image,label\na.jpg,cat\n" + "b" * 40_000_000 + "\na.jpg,dog\n")
    good, long, again = listed(tmp_path / "x.csv")
    assert good.read() == again.read() == b"x"
    assert len(long.name) < 300
    with pytest.raises(UnreadableImage):
        long.read()


def test_a_table_wrong_in_every_line_is_read_in_the_time_of_its_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    spent = []
    for count in (2_000, 8_000):
        (tmp_path / "x.csv").write_text("image,label\n" + '"a.jpg,cat\n' * count)
        begun = time.process_time()
        assert len(listed(tmp_path / "x.csv")) == count
        spent.append(time.process_time() - begun)
    assert spent[1] < 12 * spent[0] + 0.5


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_odd_cells_of_a_parquet_file_fail_alone(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "a.jpg").write_bytes(b"x")
    names = pa.array([b"a.jpg", b"\xff\xfe.jpg", b"a.jpg"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, names.buffers())
    parquet.write_table(pa.table({"image": text}), tmp_path / "x.parquet")
    good, odd, again = listed(tmp_path / "x.parquet")
    assert good.read() == again.read() == b"x"
    with pytest.raises(UnreadableImage, match="no such file"):
        odd.read()
    for kind, value in ((pa.int64(), 7), (pa.list_(pa.uint8()), [1, 2, 3])):
        pair = pa.struct([("bytes", kind), ("path", pa.string())])
        rows = [{"bytes": None, "path": "a.jpg"}, {"bytes": value, "path": "a.jpg"}]
        parquet.write_table(pa.table({"image": pa.array(rows, pair)}), tmp_path / "x.parquet")
        good, odd = listed(tmp_path / "x.parquet")
        assert good.read() == b"x"
        with pytest.raises(UnreadableImage):
            odd.read()


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_a_parquet_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    column = pa.array([bytes(2**27)], pa.binary())
    parquet.write_table(pa.table({"image": column}), tmp_path / "x.parquet", compression="zstd")
    with pytest.raises(SourceError, match="unpacks from"):
        listed(tmp_path / "x.parquet")


def test_lines_of_json_are_read_one_by_one_however_many(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("w") as file:
        for number in range(100_000):
            file.write(json.dumps({"image": f"{number}.jpg", "label": "cat", "about": "x" * 100}) + "\n")
    tracemalloc.start()
    try:
        table = tables.open_table(path, memory=1)
        count = sum(1 for _ in table.rows("image", "label"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (count, table.columns) == (100_000, ("image", "label", "about"))
    assert peak < path.stat().st_size / 5


@pytest.mark.parametrize(
    "text", ["[" + "[]," * 10**6 + "[]]", "<annotations>" + "<image/>" * 10**6 + "</annotations>"]
)
def test_json_and_xml_that_would_fill_the_memory_are_refused_before_they_are_read(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / ("x.json" if text.startswith("[") else "x.xml")
    path.write_text(text)
    with pytest.raises(SourceError, match=r"MB of memory.*--memory"):
        list(expand([path], limits=Limits(memory=50_000_000)))


def test_a_zip_directory_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 1_400_000
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(directory), 0, 0)
    path = tmp_path / "x.zip"
    path.write_bytes(directory + end)
    with pytest.raises(SourceError, match="1,400,000 members"):
        list(expand([path]))


def test_what_goes_or_changes_while_it_is_listed_fails_in_its_place(tmp_path: Path) -> None:
    def outcome(source: Source) -> str:
        try:
            source.read()
        except ImageError as error:
            return str(error)
        return "read"

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    image = buffer.getvalue()
    folder, archive, table = tmp_path / "photos", tmp_path / "x.zip", tmp_path / "x.jsonl"
    folder.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(50):
            (folder / f"{number:02}.png").write_bytes(image)
            file.writestr(f"{number:02}.png", image)
    table.write_text('{"image": "photos/00.png"}\n' * 5000)
    of_folder, of_archive, of_table = (expand([path]) for path in (folder, archive, table))
    first = [outcome(next(each)) for each in (of_folder, of_archive, of_table)]
    shutil.rmtree(folder)
    archive.write_bytes(b"")
    table.write_text("")
    assert first == ["read"] * 3
    assert {outcome(source) for source in of_folder} == {"no such file"}
    # a small archive may have been read ahead
    assert all(found == "read" or "damaged in the archive" in found for found in map(outcome, of_archive))
    assert all(outcome(source) != "read" for source in of_table)  # what is left in memory, cut off at its end


def test_zip64_is_read_and_a_zip_within_a_zip_is_not_opened(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("a.png", b"x")
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", allowZip64=True) as file:
        file.writestr("in.zip", inner.getvalue())
        with file.open("b.png", "w", force_zip64=True) as member:
            member.write(b"x")
        for number in range(66_000):  # more than the old directory can count
            file.writestr(f".hidden/{number}", b"")
    assert [source.name for source in listed(path)] == [f"{path}/b.png"]
    named = {source.name.rsplit("/", 1)[1]: source for source in listed(path, strict=True)}
    assert named["b.png"].read() == b"x"
    with pytest.raises(UndecodableImage, match="archive"):
        named["in.zip"].read()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_a_list_names_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, a device, and what the system shows as an empty file, which may never end."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "list.csv").write_text("image\nempty.png\npipe.png\n/dev/zero\n")
    names = f"{tmp_path}/empty.png\n{tmp_path}/pipe.png\n/dev/zero\n".encode()
    listed = [*expand(["-"], stdin=io.BytesIO(names)), *expand([tmp_path / "list.csv"])]

    def opened(path: Path, *_: object) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(Path, "open", opened)
    for empty, *others in (listed[:3], listed[3:]):
        assert empty.read() == b""
        for other in others:
            with pytest.raises(UnreadableImage, match=r"not a regular file|no such file"):
                other.read()
