"""Archives whose headers say something else, whose packed bytes are damaged, or that lie in one another."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fuzz.attack import attack, one_line
from fuzz.damage import mutated, mutated_text
from nshot.errors import NshotError
from nshot.images.sources import expand
from nshot.types import Limits

LIMITS = Limits(max_bytes=2**20)
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, 1, mtime=0),
    ".bz2": lambda data: bz2.compress(data, 1),
    ".xz": lambda data: lzma.compress(data, preset=0),
}


def image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "JPEG")
    return buffer.getvalue()


IMAGE = image()


def read_sources(path: Path) -> None:
    """List a table or an archive, and read what it lists."""
    for source in expand([path], limits=LIMITS):
        try:
            source.read()
        except NshotError as error:
            one_line(error)


def name_of_member(source: random.Random) -> str:
    return source.choice(
        (
            *(
                "a.jpg",
                "b.png",
                "folder/c.jpg",
                "ü.jpg",
                "x" * 150 + ".jpg",
                "../../d.jpg",
                "/e.jpg",
                ".hidden.jpg",
            ),
            *(
                "notes.txt",
                "f",
                "",
                "./g.jpg",
                "a\nb.jpg",
                "h.jpg/",
                "\x1b[2J.jpg",
                "i\0j.jpg",
                "inner.zip",
                "inner.tar",
            ),
            *("日本.jpg", "C:\\k.jpg", " ", "__MACOSX/._a.jpg", "y" * 5000 + ".jpg", "a.JPG", "a.jpg"),
        )
    )


def content_of_member(source: random.Random) -> bytes:
    return source.choice((IMAGE, IMAGE, IMAGE, b"", b"text\n", bytes(3000), ZIPPED, IMAGE[:100], IMAGE * 30))


def zip_of(source: random.Random) -> bytes:
    """A small zip archive, some of its fields not as they should be."""
    body, directory, count = bytearray(), bytearray(), source.choice((1, 1, 2, 3))
    odd = source.randrange(8)
    for _ in range(count):
        name = name_of_member(source).encode("utf-8", "surrogateescape")
        data = content_of_member(source)
        method = source.choice((0, 8, 8, 12, 14, 93, 9, 99))
        held = data
        if method == 8:
            packer = zlib.compressobj(1, zlib.DEFLATED, -15)
            held = packer.compress(data) + packer.flush()
        elif method == 12:
            held = bz2.compress(data, 1)
        elif method == 14:
            held = b"\x09\x04\x05\x00\x5d\x00\x00\x04\x00" + lzma.compress(
                data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 2**18}]
            )
        extra = source.choice(
            (b"", b"", struct.pack("<HHQQ", 1, 16, len(data), len(held)), b"up\x08\0\1abcdefg")
        )
        flags = source.choice((0, 0x800, 0x800, 8, 1, 0x41))
        fields = [flags, method, zlib.crc32(data), len(held), len(data)]
        told = list(fields)
        if odd == 0:
            told[source.randrange(5)] = source.choice((0, 1, 0xFFFF, len(data) + 1, 2**31))
        sizes = [
            0xFFFFFFFF if value >= 2**32 or (extra[:1] == b"\1" and place > 2) else value
            for place, value in enumerate(told)
        ]
        local = struct.pack(
            "<HHHHHIIIHH", 20, flags, method & 0xFFFF, 0, 0x21, *fields[2:], len(name), len(extra)
        )
        offset = len(body)
        body += b"PK\x03\x04" + local + name + extra + held
        if odd == 1:
            offset = source.choice((0, offset + 1, 2**31, 2**32 - 1))
        comment = source.choice((b"", b"", b"note", b"PK\x05\x06" + bytes(18)))
        directory += (
            b"PK\x01\x02"
            + struct.pack(
                "<HHHHHHIIIHHHHHII",
                *(
                    source.choice((20, 63, 0x31E)),
                    source.choice((20, 45, 63, 200)),
                    sizes[0] & 0xFFFF,
                    sizes[1] & 0xFFFF,
                ),
                *(0, 0x21, sizes[2], sizes[3], sizes[4], len(name), len(extra), len(comment), 0, 0),
                *(source.choice((0, 0o100644 << 16, 0o120777 << 16, 0x10)), offset),
            )
            + name
            + extra
            + comment
        )
    start = len(body)
    if source.randrange(6) == 0:  # zip64
        directory += b""
        record = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(directory), start)
        tail = b"PK\x06\x06" + record + b"PK\x06\x07" + struct.pack("<IQI", 0, start + len(directory), 1)
        end = [0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF]
    else:
        tail, end = b"", [0, 0, count, count, len(directory), start]
    if odd == 2:
        end[source.randrange(6)] = source.choice((0, 1, 7, 0xFFFF))
    remark = source.choice((b"", b"", b"a comment", b"PK\x05\x06" + bytes(18)))
    return bytes(
        body + directory + tail + b"PK\x05\x06" + struct.pack("<HHHHIIH", *end, len(remark)) + remark
    )


ZIPPED = b""
ZIPPED = zip_of(random.Random(1))


def header(source: random.Random, name: bytes, size: int, kind: bytes) -> bytearray:
    """A tar's header of a member; its checksum is right, whatever else is not."""
    block = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)[:512])
    block[:100] = name[:100].ljust(100, b"\0")
    block[124:136] = b"%011o\0" % size
    block[156:157] = kind
    match source.randrange(14):
        case 0:
            block[124:136] = source.choice(
                (
                    b"\x80" + bytes(3) + (2**62).to_bytes(8, "big"),
                    b"\xff" * 12,
                    b"77777777777\0",
                    b"-0000000001\0",
                    b"            ",
                    b"9" * 12,
                    bytes(12),
                    b"\x80" + b"\xff" * 11,
                )
            )
        case 1:
            place, length = source.choice(((100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8)))
            block[place : place + length] = source.choice(
                (b"\xff" * length, b"z" * length, b"\x80" + b"\xff" * (length - 1))
            )
        case 2:
            block[257:265] = source.choice((b"ustar  \0", b"ustar\x0000", b"xxxxxxxx", bytes(8)))
        case 3:
            block[345:500] = source.choice((b"prefix", b"\xff" * 155, b"../..")).ljust(155, b"\0")
        case 4:
            block[157:257] = source.choice((b"a.jpg", b"/etc/passwd", b"..", b"\xff" * 100)).ljust(100, b"\0")
        case 5:
            block[source.randrange(512)] = source.randrange(256)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


def pax(source: random.Random) -> bytes:
    """Records of an extended header: ``length key=value``, not all of them as they should be."""
    records = b""
    for _ in range(source.choice((1, 2, 5))):
        key, value = source.choice(
            (
                *(
                    (b"path", b"long/" * 40 + b"z.jpg"),
                    (b"size", b"5"),
                    (b"size", b"99999999999999999999"),
                    (b"size", b"-1"),
                ),
                *(
                    (b"GNU.sparse.major", b"1"),
                    (b"GNU.sparse.map", b"0,5,9,9"),
                    (b"GNU.sparse.size", b"8" * 25),
                ),
                *(
                    (b"GNU.sparse.realsize", b"4"),
                    (b"GNU.sparse.minor", b"0"),
                    (b"GNU.sparse.name", b"s.jpg"),
                ),
                *(
                    (b"mtime", b"1e999"),
                    (b"uid", b"x"),
                    (b"hdrcharset", b"BINARY"),
                    (b"path", b"\xff\xfe.jpg"),
                    (b"", b""),
                ),
                *(
                    (b"linkpath", b"a"),
                    (b"path", b""),
                    (b"mtime", b"nan"),
                    (b"size", b"1_0"),
                    (b"GNU.sparse.numblocks", b"9"),
                ),
            )
        )
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + len(str(len(body) + 2))
        records += (
            source.choice((b"%d" % length, b"%d" % length, b"%d" % length, b"0", b"999", b"-3", b"1" * 30))
            + body
        )
    return records


def tar_of(source: random.Random) -> bytes:
    """A small tar archive, some of its headers not as they should be."""
    data = bytearray()
    for _ in range(source.choice((1, 2, 3))):
        name = name_of_member(source).encode()
        if source.randrange(3) == 0:
            kind = source.choice((b"x", b"x", b"g", b"L", b"K", b"X"))
            more = pax(source) if kind in b"xgX" else name * source.choice((1, 1, 3)) + b"\0"
            data += header(source, b"././@LongLink", len(more), kind) + more + bytes(-len(more) % 512)
        kind = source.choice(
            (b"0", b"0", b"0", b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"D", b"M", b"V")
        )
        held = content_of_member(source)[:2000] if source.randrange(4) else b""
        block = header(source, name, len(held), kind)
        data += block
        if kind == b"S" and source.randrange(2):
            data[-512 + 386 : -512 + 410] = b"00000000000\0" + source.choice(
                (b"00000000777\0", b"77777777777\0")
            )
        data += held + bytes(-len(held) % 512)
    return bytes(data + bytes(source.choice((0, 512, 1024, 1024, 10240))))


def damaged_zip(source: random.Random) -> bytes:
    whole = zip_of(source)
    return whole if source.randrange(3) == 0 else mutated(whole, source, others=(IMAGE, ZIPPED))


@pytest.mark.parametrize("part", ["whole", "damaged"])
def test_zip_archives(part: str, room: Path) -> None:
    path = room / "x.zip"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_sources(path)

    attack(f"zip, {part}", zip_of if part == "whole" else damaged_zip, read, short=150)


@pytest.mark.parametrize("ending", PACKED)
def test_tar_archives(ending: str, room: Path) -> None:
    path = room / f"x.tar{ending}"
    pack = PACKED[ending]

    def made(source: random.Random) -> bytes:
        data = tar_of(source)
        if source.randrange(3) == 0:
            data = mutated(data, source, others=(ZIPPED,))
        data = pack(data)
        return mutated(data, source, others=(pack(IMAGE),)) if ending and source.randrange(2) else data

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_sources(path)

    attack(f"tar{ending}", made, read, short=100)


def labelled_tar(source: random.Random) -> bytes:
    """A few images, and what WebDataset lays beside them, not all of it as it should be."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(source.choice((2, 4))):
            for name, held in (
                (source.choice((f"{number}.jpg", f"cat/{number}.jpg", "dog/a/b.jpg", "a.jpg")), IMAGE),
                (f"{number}.{source.choice(('cls', 'json', 'txt', 'npy', 'cls.txt'))}", said_beside(source)),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(held)
                archive.addfile(info, io.BytesIO(held))
    return buffer.getvalue() if source.randrange(3) else mutated(buffer.getvalue(), source)


def said_beside(source: random.Random) -> bytes:
    """The label of an image."""
    told = source.choice(
        (
            *[b"0", b"1", b"1", b"1"],
            b"3",
            b"cat",
            b'{"label": 1}',
            b'{"label": ["a", "b"]}',
            b"9" * 400,
            b"[" * 5000,
            b"1e999",
            b"",
            b"\xff",
            b"\x93NUMPY\x01\0\x46\0{'descr': '<i8', 'fortran_order': False, 'shape': (), }".ljust(80)
            + bytes(8),
            b"-1",
            b"Infinity",
            b"1" * 5000,
            b"\xc2\xb2",
        )
    )
    return told if source.randrange(2) else mutated(told, source)


def read_labelled(path: Path) -> None:
    from nshot.datasets.labelled import open_labelled

    for source in open_labelled(path, limits=LIMITS):
        try:
            source.read()
        except NshotError as error:
            one_line(error)


def test_what_an_archive_of_labelled_images_says(room: Path) -> None:
    """The same as labels: folders in it, a table in it, and what WebDataset lays beside an image."""
    path = room / "x.tar"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_labelled(path)

    attack("tar of labelled images", labelled_tar, read, short=60)


def test_folders_in_the_layout_of_benchmarks(room: Path) -> None:
    """A number of shards, the shards, the names of classes, and templates, each as a file of its own."""
    wholes = {
        "test/nshards.txt": b"2\n",
        "classnames.txt": b"red cat\nblue dog\n",
        "dataset_type.txt": b"multilabel\n",
        "zeroshot_classification_templates.txt": b"a photo of a {c}.\n",
    }
    (room / "test").mkdir()

    def made(source: random.Random) -> dict[str, bytes]:
        files = {**wholes, "test/0.tar": labelled_tar(source), "test/1.tar": labelled_tar(source)}
        name = source.choice(sorted(wholes))
        files[name] = mutated_text(files[name], source)
        if source.randrange(4) == 0:
            files["test/nshards.txt"] = source.choice(
                (b"0", b"-1", b"9" * 9, b"9" * 30, b"9" * 5000, b"\xc2\xb2", b"1.5", b"\xd9\xa1")
            )
        if source.randrange(2):
            files["dataset_type.txt"] = b"multiclass"
        return files

    def read(files: dict[str, bytes]) -> None:
        for name, data in files.items():
            (room / name).write_bytes(data)
        read_labelled(room)

    attack("folders of benchmarks", made, read, short=40)


def test_a_gzip_bomb_and_its_kin_take_little_memory(room: Path) -> None:
    bomb = zlib.compressobj(9, wbits=31)
    zeros = bytes(2**20)
    packed = b"".join(bomb.compress(zeros) for _ in range(300)) + bomb.flush()
    path = room / "x.tar.gz"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_sources(path)

    attack("gzip bomb", lambda _: packed, read, short=1, long=1, peak=2**26)
