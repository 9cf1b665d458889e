"""Bytes -> an upright RGB image, or an ImageError that says what is wrong with them.

Pillow decodes; this module is the border where everything it can raise or warn becomes one of nshot's errors.
Colour profiles are ignored, as CLIP's own processors ignore them.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from nshot.errors import ImageError, ImageTooLarge, UndecodableImage
from nshot.types import DEFAULT_LIMITS, Limits, Pixels

__all__ = ["Limits", "decode"]

# An allow-list, most usual first. Left out are the plugins that start outside programs (EPS starts
# Ghostscript), that only the operating system can render (WMF, EMF), that know a format's name but cannot
# decode it (BUFR, GRIB, HDF5, MPEG), and the rare formats without a firm signature: a source is known by its
# content, and those take noise for images. MPO, the two-image JPEG of some cameras, is opened as JPEG.
_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"),
    *("ICO", "ICNS", "PSD", "DDS", "QOI", "SGI", "PCX", "DIB"),
)
_TGA_FOOTER = b"TRUEVISION-XFILE.\x00"

# A progressive JPEG is decoded once per scan, and an empty scan costs a few bytes: minutes of work can hide
# in kilobytes. Real encoders write about ten scans; this bounds scans x pixels.
_MAX_SCANNED_PIXELS = 2**32

# Pillow starts a decoder for each strip or tile, and a small TIFF can point a million times at one byte.
_MAX_PIECES = 2**16

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What people hand over in place of an image: (offset, signature, what it is).
_OTHERS = (
    (0, b"%PDF", "a PDF; extract its images first"),
    (0, b"PK\x03\x04", "a zip archive; give it as a source of its own, named .zip, to read its members"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "a gzip file; unpack it first"),
    (0, b"BZh", "a bzip2 file; unpack it first"),
    (0, b"\xfd7zXZ\x00", "an xz file; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (0, b"Rar!", "a RAR archive; unpack it first"),
    (257, b"ustar", "a tar archive; give it as a source of its own, named .tar, to read its members"),
    (0, b"PAR1", "a Parquet file; give it as a source of its own, named .parquet, to read its rows"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"%!PS", "PostScript, which takes an outside program to render; convert it to PNG first"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript, which takes an outside program to render; convert it to PNG first"),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF drawing; convert it to PNG first"),
    (40, b" EMF", "an EMF drawing; convert it to PNG first"),
    (0, b"\x1aE\xdf\xa3", "a video; extract frames first"),
    (0, b"\x00\x00\x01\xba", "a video; extract frames first"),
    (0, b"\x00\x00\x01\xb3", "a video; extract frames first"),
    (0, b"OggS", "audio or video; extract frames first"),
    (0, b"FLV\x01", "a video; extract frames first"),
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
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"BM", "BMP"),
    (4, b"ftypavi", "AVIF"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "PSD"),
    (0, b"DDS ", "DDS"),
)

# Pillow also logs; without a handler of the host's, Python would print that on stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def decode(data: bytes, *, limits: Limits = DEFAULT_LIMITS, draft: int | None = None) -> Image.Image:
    """Decode one image; safe to call from several threads at once, and Pillow works without the GIL.

    The EXIF orientation is applied (and a broken EXIF block ignored), transparency is laid on white, 16-bit
    grey is scaled down (n / 257) and not cut off, wider grey and floating point by their range, and of an
    animation or a multi-page file the first frame is taken.

    Args:
        data: the encoded image.
        limits: the size limits, checked before decoding.
        draft: let the JPEG decoder shrink by 2, 4 or 8 while it decodes, as long as both edges stay at least
            this many pixels. Other formats are decoded in full.

    Returns:
        The image, mode RGB, at least 1 x 1.

    Raises:
        ImageTooLarge: more bytes or pixels than the limits.
        UndecodableImage: empty, damaged, truncated, or no image at all; the message tells which.
    """
    if not data:
        raise UndecodableImage("the file is empty")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"{len(data):,} bytes, more than the limit of {limits.max_bytes:,}")
    formats = (*_FORMATS, "TGA") if data.endswith(_TGA_FOOTER) else _FORMATS
    try:
        with _quiet_pillow():
            image: Image.Image = Image.open(io.BytesIO(data), formats=formats)
            _check_size(image, data, limits)
            if draft is not None:
                image.draft("RGB", (draft, draft))
            image.load()
            _check_size(image, data, limits)  # an ICO's header may lie about the image inside
            return _rgb(_upright(image))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise UndecodableImage(_describe(data)) from error
    except Image.DecompressionBombError as error:
        raise ImageTooLarge("more pixels than Pillow agrees to decode") from error
    except MemoryError as error:
        raise ImageTooLarge("not enough memory to decode it") from error
    except (
        Exception
    ) as error:  # plugins raise whatever their parsing runs into: struct.error, ZeroDivisionError ...
        reason = " ".join(str(error).split())[:120]
        raise UndecodableImage(f"damaged, or not supported ({reason or type(error).__name__})") from error


class _Inside(threading.local):
    """Answers a warnings filter's question whether it applies: yes in a thread that is inside Pillow."""

    active = False

    def match(self, _module: str) -> bool:
        return self.active


_inside = _Inside()
_QUIET: Any = ("ignore", None, Warning, _inside, 0)  # a filter as warnings.filterwarnings() makes it
_filters_lock = threading.Lock()


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Ignore warnings in this thread: what is wrong with an image its record says, or it does not matter.

    warnings.catch_warnings() would swap the filters of the whole process, under the feet of other threads.
    So one filter stays in the list, in front, and asks which thread it is; the host's own stay as they are.
    """
    if warnings.filters[:1] != [_QUIET]:
        with _filters_lock:
            others = [item for item in warnings.filters if item is not _QUIET]
            warnings.filters[:] = [_QUIET, *others]  # type: ignore[index]
    _inside.active = True
    try:
        yield
    finally:
        _inside.active = False


def _check_size(image: Image.Image, data: bytes, limits: Limits) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UndecodableImage(f"the image is empty ({width} x {height} pixels)")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"{width} x {height} pixels, more than the limit of {limits.max_pixels:,}; scale it down first"
        )
    pieces = len(getattr(image, "tile", ()))
    if pieces > _MAX_PIECES:
        raise ImageTooLarge(f"stored in {pieces:,} pieces, more than the limit of {_MAX_PIECES:,}")
    if image.info.get("progressive"):
        scans = data.count(b"\xff\xda")
        if width * height * scans > _MAX_SCANNED_PIXELS:
            raise ImageTooLarge(f"{scans:,} scans of {width} x {height} pixels")


def _upright(image: Image.Image) -> Image.Image:
    try:
        method = _UPRIGHT.get(int(image.getexif().get(0x0112, 1)))
    except Exception:  # a broken EXIF block: the pixels are fine all the same
        return image
    return image if method is None else image.transpose(method)


def _rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;"):
        return Image.fromarray(_grey8(image)).convert("RGB")
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        assert converted is not None  # only an in-place conversion returns None
        return converted
    if image.has_transparency_data:
        if mode == "La":  # Pillow undoes the premultiplication in one step only
            image = image.convert("LA")
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", layer.size, "white")
        white.paste(layer, mask=layer)
        return white
    return image.convert("RGB") if mode != "RGB" else image


def _grey8(image: Image.Image) -> Pixels:
    """16-bit, 32-bit and floating point grey -> uint8[h,w].

    convert("RGB") would saturate: everything over 255 turns white.
    """
    values = np.asarray(image)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return np.asarray((values.astype(np.uint32) * 2 + 257) // 514, np.uint8)  # n / 257, rounded
    grey = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    if low >= 0:  # the usual ranges keep their black and white; anything else is stretched
        usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        low, high = 0.0, next((top for top in usual if high <= top), high)
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.asarray(np.rint((grey - low) * scale).clip(0, 255), np.uint8)


def _describe(data: bytes) -> str:
    """What bytes are that Pillow does not know."""
    for offset, signature, name in _IMAGES:
        if data.startswith(signature, offset):
            return f"the {name} image is damaged: its header cannot be read"
    for offset, signature, name in _OTHERS:
        if data.startswith(signature, offset):
            return f"not an image: {name}"
    if data[4:8] == b"ftyp":
        if data[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"):
            return "a HEIC image, which nshot does not read; convert it to JPEG first (pillow-heif can)"
        return "not an image: a video; extract frames first"
    if data.startswith(b"RIFF"):
        return "not an image: audio or video; extract frames first"
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "an SVG drawing, which nshot does not render; convert it to PNG first"
    if head.startswith((b"<!doctype html", b"<html")):
        return "not an image: an HTML page (a download page or an error in the image's place?)"
    if b"\x00" not in data[:1024] and not any(byte < 9 for byte in data[:1024]):
        return "not an image: text"
    return "not an image in any format that nshot reads"
