"""By a file's name: is it an image, or what an operating system, a camera or another program left behind?

Nothing is opened to find out, but files whose name says nothing: those that hold plain text are no images.
"""

# Names stay as they were typed, odd bytes included: pathlib would rewrite them.
# ruff: noqa: PTH119, PTH122, PTH123

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

IMAGES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jpe", ".jfif", ".jp2", ".ppm"),
    *(".pgm", ".tga", ".avif", ".heic", ".heif", ".jxl"),
)
"""Endings of image files, the likeliest first: what a table's name without its ending is completed with."""

_CLAIMS = frozenset(IMAGES) | frozenset(
    [
        ".j2k",
        ".jpx",
        ".pbm",
        ".pnm",
        ".pfm",
        ".pcx",
        ".ico",
        ".icns",
        ".cur",
        ".dds",
        ".psd",
        ".psb",
        ".svg",
        ".eps",
        ".xbm",
        ".xpm",
        ".sgi",
        ".rgb",
        ".im",
        ".hif",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".orf",
        ".rw2",
        ".raf",
        ".srw",
        ".pef",
        ".raw",
        ".dcm",
        ".exr",
        ".hdr",
        ".apng",
        ".qoi",
        ".fits",
        ".dib",
        ".emf",
        ".wmf",
        ".blp",
        ".ftex",
        ".gbr",
        ".mpo",
        ".msp",
        ".pcd",
        ".pixar",
        ".ras",
        ".wal",
    ]
)

_GROUPS = {
    "video": ".mp4 .mov .avi .mkv .webm .m4v .mpg .mpeg .wmv .flv .3gp .mts .m2ts .ogv .vob .insv .lrv",
    "audio": ".mp3 .wav .flac .m4a .aac .ogg .opus .wma .aiff .mid",
    "archives": ".zip .tar .gz .tgz .bz2 .tbz .tbz2 .xz .txz .7z .rar .zst .iso .dmg .jar",
    "documents": ".doc .docx .xls .xlsx .xlsm .ods .odt .odp .ppt .pptx .rtf .pages .numbers .key .pdf .epub",
}
_OTHERS = (
    ".xmp .thm .aae .json .jsonl .ndjson .txt .csv .tsv .xml .yaml .yml .md .rst .html .htm .css .js .ini "
    ".log .toml .cfg .conf .py .pyc .ipynb .r .m .mat .sh .bat .ps1 .c .h .cpp .java .url .lnk .webloc "
    ".desktop .tex .parquet .arrow .feather .npy .npz .pkl .pickle .pt .pth .ckpt .safetensors .onnx .h5 "
    ".hdf5 .tfrecord .sqlite .db .db-wal .db-shm .mdb .bak .tmp .part .crdownload .download .lock .exe "
    ".dll .msi .apk .app .pp3 .dop .on1 .cos .lrcat .lrprev .picasa .ctg .idx .srt .vtt .gpx .kml .kmz "
    ".nmea .eml .msg .ics .vcf "
    ".cls .nshot .sha256 .md5 .sfv .torrent .woff .ttf .otf"
)
_KIND = {ending: ending for ending in _OTHERS.split()} | {
    ending: group for group, endings in _GROUPS.items() for ending in endings.split()
}
_LEFTOVERS = {
    name.lower(): name
    for name in (
        *(
            "Thumbs.db",
            "ehthumbs.db",
            "desktop.ini",
            "autorun.inf",
            "Icon\r",
            "Picasa.ini",
            "ZbThumbnail.info",
        ),
        *("pspbrwse.jbf", "folder.htt"),
    )
}
_FOLDERS = frozenset(
    [
        "__macosx",
        "@eadir",
        "$recycle.bin",
        "recycler",
        "lost+found",
        "__pycache__",
        ".trash",
        "#recycle",
        "@__thumb",
        "node_modules",
    ]
) | {"system volume information", "icloud drive"}
_PEEK = 4096


def left_behind(folder: str) -> bool:
    """Whether a folder of this name was left by an operating system or a device, and is nobody's images."""
    return folder.startswith(".") or folder.lower() in _FOLDERS


def no_image(name: str) -> str | None:
    """What a file plainly is, where it is no image, as a kind to count; None: an image, or not known.

    Args:
        name: a file's name, with or without its folder.
    """
    base = os.path.basename(name)
    lower = base.lower()
    if lower in _LEFTOVERS:
        return _LEFTOVERS[lower].strip()
    if base.startswith("._"):
        return "._ files"
    return _KIND.get(os.path.splitext(lower)[1])


def is_text(path: str) -> bool:
    """Whether a file whose name says nothing holds plain text; its beginning is read."""
    if is_image_name(path):
        return False
    try:
        if not os.path.isfile(path):  # noqa: PTH113
            return False
        with open(path, "rb") as file:
            return is_plain_text(file.read(_PEEK))
    except (OSError, ValueError):
        return False


def kind_of(path: str) -> str | None:
    """What a file plainly is, where it is no image; one whose name says nothing is looked into."""
    return no_image(path) or ("text" if is_text(path) else None)


def is_plain_text(data: bytes) -> bool:
    """Whether bytes begin like plain text, and not like a format of images that is written in text."""
    start = data[:_PEEK]
    if not start or any(byte < 9 or 13 < byte < 27 for byte in start):
        return False
    try:
        start[: max(len(start) - 3, 1)].decode("utf-8")  # the beginning may end inside of a letter
    except UnicodeDecodeError:
        return False
    return not start.lstrip().startswith((b"<svg", b"<?xml", b"P1", b"P2", b"P3", b"version https://git-lfs"))


_SIGNATURES = (
    *((0, b"\xff\xd8\xff"), (0, b"\x89PNG\r\n"), (0, b"GIF87a"), (0, b"GIF89a"), (8, b"WEBP"), (4, b"jP  ")),
    *((0, b"II*\x00"), (0, b"MM\x00*"), (4, b"ftyp"), (0, b"\xff\x4f\xff\x51"), (0, b"BM"), (0, b"qoif")),
    *((0, b"\0\0\1\0"), (0, b"8BPS"), (0, b"DDS "), (0, b"icns")),
)


def is_image(data: bytes) -> bool:
    """Whether bytes begin as an image does, and not as a list of names."""
    signed = any(data.startswith(signature, place) for place, signature in _SIGNATURES)
    binary = any(0 < byte < 9 or 13 < byte < 32 or byte > 126 for byte in data[:8])
    return (signed and (binary or b"\0\0" in data[:32])) or _PLAIN_MAP.match(data) is not None


_PLAIN_MAP = re.compile(rb"P[1-6]\s+(#[^\n]*\n\s*)*\d{1,9}\s+\d{1,9}\s")
_HOLDERS = (
    *((0, b"\x1f\x8b", "gzip"), (0, b"PK\x03\x04", "a zip archive"), (257, b"ustar", "a tar archive")),
    *((0, b"BZh", "bzip2"), (0, b"\xfd7zXZ\x00", "xz"), (0, b"\x28\xb5\x2f\xfd", "zstd")),
    *((0, b"PAR1", "Parquet"), (0, b"%PDF", "a PDF"), (0, b"\x93NUMPY", "an array")),
)


def no_list(data: bytes) -> str | None:
    """What bytes are that are plainly no list of names; None: they may be one."""
    for place, signature, kind in _HOLDERS:
        if data.startswith(signature, place):
            return kind
    start = data[:_PEEK]
    odd = sum(0 < byte < 9 or 13 < byte < 27 for byte in start)  # a name may hold one
    return "binary data" if odd > 3 and odd > len(start) / 50 else None


def is_image_name(name: str) -> bool:
    """Whether a name ends as the names of images do."""
    return os.path.splitext(name.strip().lower())[1] in _CLAIMS


@dataclass(slots=True)
class Skipped:
    """What a listing passed over since it is no image, counted by kind.

    Attributes:
        kinds: how many of each kind.
    """

    kinds: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return self.kinds.total()

    def __str__(self) -> str:
        """Such as "skipped 31: 12 .xmp, 9 video, 8 .json, 2 Thumbs.db"; empty where nothing was."""
        if not self.kinds:
            return ""
        named = ", ".join(f"{count:,} {kind}" for kind, count in _ordered(self.kinds.items()))
        return f"skipped {len(self):,}: {named}"


def _ordered(counts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted(counts, key=lambda pair: (-pair[1], pair[0]))
