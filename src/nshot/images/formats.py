"""What bytes are, by their first ones: a format that an extra reads, or no image, by name."""

from __future__ import annotations

import struct

# What people hand over in place of an image: (offset, signature, what it is).
_OTHERS = (
    (
        0,
        b"version https://git-lfs.github.com/",
        "a Git LFS pointer: fetch the file it stands for (git lfs pull)",
    ),
    (0, b"../.git/annex/objects/", "a git-annex pointer; fetch its file first (git annex get)"),
    (0, b"/annex/objects/", "a git-annex pointer; fetch its file first (git annex get)"),
    (128, b"DICM", "a DICOM file; export it as PNG first (dcmj2pnm and pydicom can)"),
    (0, b"v/1\x01", "an OpenEXR image; convert it to PNG first"),
    (0, b"#?RADIANCE", "a Radiance HDR image; convert it to PNG first"),
    (0, b"#?RGBE", "a Radiance HDR image; convert it to PNG first"),
    (0, b"8BPS\x00\x02", "a Photoshop PSB, the large form of PSD; save it as PSD or PNG first"),
    (0, b"gimp xcf", "a GIMP XCF file; export it as PNG first"),
    (0, b"SIMPLE  =", "a FITS image; convert it to PNG first"),
    (0, b"\x89HDF", "an HDF5 file; export its images first"),
    (0, b"AT&TFORM", "a DjVu document; extract its images first"),
    (0, b"II\xbc", "a JPEG XR image; convert it to PNG first"),
    (0, b"BPG\xfb", "a BPG image; convert it to PNG first"),
    (0, b"FLIF", "a FLIF image; convert it to PNG first"),
    (0, b"\xabKTX", "a KTX texture; convert it to PNG first"),
    (0, b"%PDF", "a PDF; extract its images first"),
    (0, b"PK\x03\x04", "a zip archive; give it as a source of its own, named .zip, to read its members"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "a gzip file; unpack it first"),
    (0, b"BZh", "a bzip2 file; unpack it first"),
    (0, b"\xfd7zXZ\x00", "an xz file; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (0, b"Rar!", "a RAR archive; unpack it first"),
    (257, b"ustar", "a tar archive; give it as a source of its own, named .tar, to read its members"),
    (0, b"PAR1", "a Parquet file; give it as a source of its own, named .parquet, to read its rows"),
    (0, b"SQLite format 3", "a database"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"%!PS", "PostScript, which takes an outside program to render; convert it to PNG first"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript, which takes an outside program to render; convert it to PNG first"),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF drawing; convert it to PNG first"),
    (40, b" EMF", "an EMF drawing; convert it to PNG first"),
    (0, b"\x1aE\xdf\xa3", "a video; extract frames first"),
    (0, b"\x00\x00\x01\xba", "a video; extract frames first"),
    (0, b"\x00\x00\x01\xb3", "a video; extract frames first"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a video; extract frames first"),
    (4, b"moov", "a video; extract frames first"),
    (4, b"mdat", "a video; extract frames first"),
    (4, b"wide", "a video; extract frames first"),
    (0, b"OggS", "audio or video; extract frames first"),
    (0, b"FLV\x01", "a video; extract frames first"),
    (0, b"ID3", "audio"),
    (0, b"fLaC", "audio"),
    (0, b"\xd0\xcf\x11\xe0", "an office document; extract its images first"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
)

# The other way about: the signature promises an image that nshot reads, yet it does not open.
_IMAGES = (
    (0, b"\xff\xd8", "JPEG"),
    (0, b"\x89PNG", "PNG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "PSD"),
    (0, b"DDS ", "DDS"),
)

# Camera raw files that are no TIFF, or one with a mark of their own.
_RAWS = (
    (8, b"CR\x02", "Canon CR2"),
    (4, b"ftypcrx ", "Canon CR3"),
    (6, b"HEAPCCDR", "Canon CRW"),
    (0, b"FUJIFILMCCD-RAW", "Fujifilm RAF"),
    (0, b"IIRO", "Olympus ORF"),
    (0, b"IIRS", "Olympus ORF"),
    (0, b"MMOR", "Olympus ORF"),
    (0, b"IIU\x00", "Panasonic RW2"),
    (0, b"\x00MRM", "Minolta MRW"),
    (0, b"FOVb", "Sigma X3F"),
)

_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"jpeg", b"jpgs"}
_AVIF = {b"avif", b"avis"}
_STILL = {b"mif1", b"msf1", b"mif2", b"miaf", b"MiHB", b"MiHE"}

_DNG_VERSION, _MAKE, _SUBFILE, _SUB_IFDS, _PHOTOMETRIC = 50706, 271, 254, 330, 262
_CFA, _LINEAR_RAW = 32803, 34892


def needs(data: bytes) -> str | None:
    """Which of the formats that take an extra these bytes are: "HEIF", "JPEG XL", "raw", or None."""
    if data.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")):
        return "JPEG XL"
    if raw_kind(data) is not None:
        return "raw"
    brands = _brands(data)
    if brands and not brands & _AVIF and (brands & _HEIF or brands <= _STILL):
        return "HEIF"
    return None


def raw_kind(data: bytes) -> str | None:
    """The name of a camera's raw format, for what is one; those that are TIFF are told by their tags."""
    for offset, signature, name in _RAWS:
        if data.startswith(signature, offset):
            return name
    tags = tiff_tags(data)
    if _DNG_VERSION in tags:
        return "DNG"
    make = tags.get(_MAKE, b"")
    if tags.get(_PHOTOMETRIC) in (_CFA, _LINEAR_RAW) or (
        _SUB_IFDS in tags and tags.get(_SUBFILE) == 1 and isinstance(make, bytes) and make.strip()
    ):
        maker = make.decode("ascii", "replace").split()[0].title() if isinstance(make, bytes) and make else ""
        return {"Nikon": "Nikon NEF", "Sony": "Sony ARW", "Pentax": "Pentax PEF"}.get(maker, "camera raw")
    return None


def tiff_tags(data: bytes) -> dict[int, int | bytes]:
    """The numbers (the first of several) and texts of a TIFF's first directory; empty for what is no TIFF."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return {}
    tags: dict[int, int | bytes] = {}
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    if start + 2 > len(data):
        return {}
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for entry in range(start + 2, min(start + 2 + 12 * min(count, 512), len(data) - 11), 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, entry)
        if kind == 3:
            (place,) = struct.unpack_from(f"{order}I", data, entry + 8)
            at = entry + 8 if number <= 2 else min(place, len(data) - 2)
            (tags[tag],) = struct.unpack_from(f"{order}H", data, at)
        elif kind in (4, 13):
            (tags[tag],) = struct.unpack_from(f"{order}I", data, entry + 8)
        elif kind in (1, 2):
            (place,) = struct.unpack_from(f"{order}I", data, entry + 8)
            at = entry + 8 if number <= 4 else place
            tags[tag] = data[at : at + min(number, 64)].split(b"\0")[0]
    return tags


def pages(data: bytes, most: int = 1000) -> int:
    """How many images a TIFF says it holds, at most so many; 1 for what is no TIFF, or a damaged one.

    Pillow's own count is quadratic in a file that points to many.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(data[:4])
    if order is None:
        return 1
    found, seen = 0, set()
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    while at and at not in seen and at + 6 <= len(data) and found < most:
        seen.add(at)
        found += 1
        (count,) = struct.unpack_from(f"{order}H", data, at)
        after = at + 2 + 12 * count
        if after + 4 > len(data):
            break
        (at,) = struct.unpack_from(f"{order}I", data, after)
    return max(found, 1)


def jpegxl_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as a JPEG XL's header says; None where it cannot be found.

    The header is a stream of bits, the lowest of each byte first (ISO/IEC 18181-1, SizeHeader).
    """
    start = 0 if data.startswith(b"\xff\x0a") else -1
    at = 0
    while start < 0 and at + 16 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        if kind in (b"jxlc", b"jxlp"):
            start = at + head + (4 if kind == b"jxlp" else 0)
        elif length < head:
            return None
        at += length
    if start < 0 or data[start : start + 2] != b"\xff\x0a":
        return None
    bits = int.from_bytes(data[start + 2 : start + 18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    def edge(small: int) -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height = edge(small)
    ratio = take(3)
    if ratio == 0:
        return edge(small), height
    across, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * across // down, height


def describe(data: bytes) -> str:
    """What bytes are that Pillow does not know."""
    for offset, signature, name in _OTHERS:
        if data.startswith(signature, offset):
            return f"not an image: {name}"
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return _describe_tiff(data)
    for offset, signature, name in _IMAGES:
        if data.startswith(signature, offset):
            return f"the {name} image is damaged: its header cannot be read"
    if brands := _brands(data):
        if brands & _AVIF:
            return "the AVIF image is damaged: its header cannot be read"
        if brands & _HEIF or brands <= _STILL:
            return "the HEIC image is damaged: its header cannot be read"
        return "not an image: a video; extract frames first"
    if data.startswith(b"RIFF"):
        return "not an image: audio or video; extract frames first"
    if data[:1] == b"G" and data[188:189] == b"G" and data[376:377] == b"G":
        return "not an image: a video; extract frames first"
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "an SVG drawing, which nshot does not render; convert it to PNG first"
    if head.startswith((b"<!doctype html", b"<html")):
        return "not an image: an HTML page (a download page or an error in the image's place?)"
    if b"\x00" not in data[:1024] and not any(byte < 9 for byte in data[:1024]):
        return "not an image: text"
    return "not an image in any format that nshot reads"


def _describe_tiff(data: bytes) -> str:
    tags = tiff_tags(data)
    photometric, bits = tags.get(_PHOTOMETRIC), tags.get(258)
    if photometric is None:
        return "the TIFF image is damaged: its header cannot be read"
    kinds = {2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB"}
    kind = kinds.get(photometric if isinstance(photometric, int) else -1, f"photometric {photometric!r}")
    return (
        f"a TIFF of a kind that nshot does not read ({kind}, {tags.get(277, 1)!r} samples per pixel of "
        f"{bits!r} bits, compression {tags.get(259, 1)!r}); convert it to PNG first"
    )


def _brands(data: bytes) -> set[bytes]:
    """The brands of an ISO media file (HEIF, AVIF, MP4, QuickTime ...), the major one among them."""
    if data[4:8] != b"ftyp" or len(data) < 12:
        return set()
    size = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[at : at + 4] for at in range(16, size - 3, 4))}
