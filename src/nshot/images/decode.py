"""Bytes -> an upright RGB image and what was done to get it, or an ImageError that says what is wrong.

Pillow decodes; this module is the border where everything it can raise becomes one of nshot's errors. What
Pillow merely warns of goes the way of every warning; the command line keeps it off the screen.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from nshot import extras
from nshot.errors import ImageError, ImageTooLarge, MissingExtra, UndecodableImage
from nshot.images import colour, formats
from nshot.images.quick import quicken
from nshot.types import DEFAULT_LIMITS, Limits

__all__ = ["Decoded", "Limits", "decode", "opened", "upright"]

T = TypeVar("T")

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

_MOST_FRAMES = 2**17  # of a GIF, whose frames have to be walked through to be counted
_MOST_TRIED = 16  # frames or pages looked at for one that is not blank

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow also logs; without a handler of the host's, Python would print that on stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """An image and what was done to get it.

    Attributes:
        image: mode RGB, at least 1 x 1; upright, unless it was asked for as it is in the file.
        notes: what a person should know of it, a short sentence each: "scaled from a range: 0 to 4095". What
            comes before the colon says the kind, and is the same for all images of that kind.
        size: width and height as they are in the file, before turning it upright and shrinking it.
        turn: the EXIF orientation that makes ``image`` upright: 1 where it is.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    turn: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the image once it is upright."""
        return self.image.size[::-1] if self.turn >= 5 else self.image.size

    @property
    def changed(self) -> bool:
        """Whether version 1 of the recipe (see ``Preprocessor.fingerprint``) gave other pixels for it."""
        return any(note.startswith(_NEW) for note in self.notes)


def decode(
    data: bytes, *, limits: Limits = DEFAULT_LIMITS, draft: int | None = None, turn: bool = True
) -> Decoded:
    """Decode one image; safe to call from several threads at once, and Pillow works without the GIL.

    The EXIF orientation is applied, and a broken EXIF block ignored. Transparency is laid on white. Colours
    with a profile of another space are converted to sRGB; a profile that is sRGB, by whatever name, changes
    no pixel. Values of more than 8 bits are scaled down by the bits that are used (8, 10, 12, 14 or 16),
    floating point by its range. Of an animation or a multi-page file the first image is taken that is not
    blank. HEIF, JPEG XL and the previews of camera raw files need the extra ``nshot[formats]``.

    Args:
        data: the encoded image.
        limits: the size limits, checked before decoding.
        draft: let the JPEG decoder shrink by 2, 4 or 8 while it decodes, as long as both edges stay at least
            this many pixels. Other formats are decoded in full.
        turn: turn it upright; else ``Decoded.turn`` tells how to. A large image is better turned small.

    Returns:
        The image, and notes on what was done that is not plain decoding.

    Raises:
        ImageTooLarge: more bytes or pixels than the limits.
        UndecodableImage: empty, damaged, truncated, or no image at all; the message tells which.
    """
    return _bordered(data, limits, lambda: _decode(data, limits, draft, turn))


def opened(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> tuple[tuple[int, int], str]:
    """Width and height of the upright image, and when it was taken, as its EXIF block has it ("": not said).

    Raises:
        ImageError: as for ``decode``; the pixels are not looked at.
    """

    def told() -> tuple[tuple[int, int], str]:
        image = _opened(data, limits, [])
        _check_size(image, data, limits)
        size, taken, turned = image.size, None, False
        with suppress(Exception):  # a broken EXIF block says nothing
            exif = image.getexif()
            turned = int(exif.get(_ORIENTATION, 1)) in (5, 6, 7, 8)
            taken = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
            taken = taken or exif.get(ExifTags.Base.DateTime)
        return size[::-1] if turned else size, taken if isinstance(taken, str) else ""

    return _bordered(data, limits, told)


def _bordered(data: bytes, limits: Limits, work: Callable[[], T]) -> T:
    """What the work gives, or the ImageError that its error means."""
    if not data:
        raise UndecodableImage("the file is empty")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"{len(data):,} bytes, more than the limit of {limits.max_bytes:,}")
    try:
        return work()
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise UndecodableImage(formats.describe(data)) from error
    except Image.DecompressionBombError as error:
        raise ImageTooLarge("more pixels than Pillow agrees to decode") from error
    except MemoryError as error:
        raise ImageTooLarge("not enough memory to decode it") from error
    except (
        Exception
    ) as error:  # plugins raise whatever their parsing runs into: struct.error, ZeroDivisionError ...
        reason = " ".join(str(error).split())[:120]
        raise UndecodableImage(f"damaged, or not supported ({reason or type(error).__name__})") from error


def _decode(data: bytes, limits: Limits, draft: int | None, turn: bool) -> Decoded:
    notes: list[str] = []
    image = _opened(data, limits, notes)
    _check_size(image, data, limits)
    size = image.size
    if draft is not None and image.format == "JPEG":
        image.draft("RGB", (draft, draft))
    deep = _is_deep(image)
    image.load()
    _check_size(image, data, limits)  # an ICO's header may lie about the image inside
    if deep and colour.looks_empty(image):
        image = colour.fill_range(image, _lower_bytes(data), notes)
    first = list(notes)
    orientation = _orientation(image)
    left = 1 if turn else orientation
    rgb = colour.to_rgb(upright(image, orientation) if turn else image, first)
    if not image.info.get("icc_profile") and (space := _space_without_profile(image, data)):
        first.append(f"colours taken for sRGB: {space}, but there is no colour profile to convert them by")
    count = _count(image, data)
    if count > 1:
        rgb, left = _first_of(image, rgb, left, first, count, data, limits)
    if colour.is_flat(rgb):
        first.append("one colour only: there is nothing to see in it")
    return Decoded(rgb, tuple(first), size, left)


def _opened(data: bytes, limits: Limits, notes: list[str]) -> Image.Image:
    """The image, not yet decoded where its format allows that."""
    needs = formats.needs(data)
    if needs is not None:
        try:
            return _OPENERS[needs](data, limits, notes)
        except MissingExtra as error:
            name = {"HEIF": "a HEIC image", "JPEG XL": "a JPEG XL image"}.get(needs)
            name = name or f"a camera raw file ({formats.raw_kind(data)})"
            raise UndecodableImage(f"{name}: {error}") from error
    allowed = (*_FORMATS, "TGA") if data.endswith(_TGA_FOOTER) else _FORMATS
    image: Image.Image = Image.open(io.BytesIO(data), formats=allowed)
    quicken(image)
    return image


def _open_heif(data: bytes, limits: Limits, notes: list[str]) -> Image.Image:
    opened: Image.Image = extras.pillow_heif().HeifImageFile(io.BytesIO(data))
    held = getattr(opened, "n_frames", 1)
    if held > 1:
        notes.append(f"several images in one file: the primary one of {held} is used")
    return opened


def _open_jpegxl(data: bytes, limits: Limits, notes: list[str]) -> Image.Image:
    decoder = extras.imagecodecs()
    size = formats.jpegxl_size(data)
    if size is not None and size[0] * size[1] > limits.max_pixels:
        raise _too_many_pixels(*size, limits)
    values = decoder.jpegxl_decode(data)
    if values.ndim == 4:
        notes.append(_FRAMES.format(1, len(values)))
        values = values[0]
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.dtype.kind == "f":
        values = np.rint(np.nan_to_num(values).clip(0, 1) * 255).astype(np.uint8)
    elif values.dtype == np.uint16 and values.ndim == 3:
        values = np.asarray((values.astype(np.uint32) * 2 + 257) // 514, np.uint8)
    if values.ndim == 3 and values.shape[2] == 2:
        return Image.fromarray(values, "LA")
    return Image.fromarray(values)


def _open_raw(data: bytes, limits: Limits, notes: list[str]) -> Image.Image:
    library = extras.rawpy()
    kind = formats.raw_kind(data)
    try:
        with library.imread(io.BytesIO(data)) as raw:
            turn = {3: 3, 5: 8, 6: 6}.get(raw.sizes.flip, 1)
            thumb = raw.extract_thumb()
    except library.LibRawError as error:
        raise UndecodableImage(f"a camera raw file ({kind}) without a preview that can be read") from error
    if thumb.format == library.ThumbFormat.JPEG:
        image: Image.Image = Image.open(io.BytesIO(thumb.data), formats=("JPEG",))
    else:
        image = Image.fromarray(thumb.data)
    _check_size(image, data, limits)
    if _ORIENTATION not in image.getexif():
        image.getexif()[_ORIENTATION] = turn
    notes.append(f"camera raw ({kind}): its preview of {image.width} x {image.height} pixels is used")
    return image


_OPENERS = {"HEIF": _open_heif, "JPEG XL": _open_jpegxl, "raw": _open_raw}
_ORIENTATION = 0x0112

# the notes that tell of pixels which version 1 of the recipe made otherwise
_NEW = (
    "scaled from",
    "white is zero",
    "colours converted",
    "alpha channel",
    "laid on black",
    "several",
    "camera",
)
_FRAMES = "several frames: frame {} of {} is used"


# More than one image in a file


def _count(image: Image.Image, data: bytes) -> int:
    """How many frames or pages; layers, and the sizes of an icon, are not counted."""
    if image.format == "TIFF":
        return formats.pages(data)
    if image.format == "GIF" and data.count(b",") > _MOST_FRAMES:  # an upper bound, and counting takes time
        return 1
    if image.format in ("GIF", "PNG", "WEBP", "AVIF"):
        return int(getattr(image, "n_frames", 1))
    return 1


def _first_of(
    image: Image.Image, rgb: Image.Image, turn: int, notes: list[str], count: int, data: bytes, limits: Limits
) -> tuple[Image.Image, int]:
    """The first image of several that is not blank, or else the first; and how it is still to be turned."""
    form = "several pages: page {} of {} is used" if image.format == "TIFF" else _FRAMES
    if not colour.is_flat(rgb):
        notes.append(form.format(1, count))
        return rgb, turn
    rgb = rgb.copy()  # going on to another frame draws over this one
    for number in range(1, min(count, _MOST_TRIED)):
        try:
            image.seek(number)
            _check_size(image, data, limits)
            image.load()
        except Exception:  # a damaged file further on: the first image is fine all the same
            break
        others: list[str] = []
        other = colour.to_rgb(upright(image, _orientation(image)), others)
        if not colour.is_flat(other):
            notes[:] = [*others, form.format(number + 1, count) + ", the first that is not blank"]
            return other, 1
    notes.append(f"{form.format(1, count)}, and it is blank")
    return rgb, turn


# 16 bits per channel, of which Pillow keeps the upper 8


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("RGB", "RGBA") and any(";16" in name for name in _raw_modes(image))


def _raw_modes(image: Image.Image) -> list[str]:
    modes = []
    for tile in getattr(image, "tile", ()):
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        modes += [arg for arg in args[:1] if isinstance(arg, str)]
    return modes


def _lower_bytes(data: bytes) -> Image.Image | None:
    """The image once more, read in the other byte order: its lower bytes in the place of the upper ones."""
    image: Any = Image.open(io.BytesIO(data), formats=("PNG", "TIFF"))
    turned = []
    for tile in image.tile:
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if not isinstance(args[0], str) or ";16" not in args[0]:
            return None
        order = args[0][-1]
        other = "B" if order == "L" or (order == "N" and sys.byteorder == "little") else "L"
        name = args[0][:-1] + other
        turned.append(tile._replace(args=(name, *args[1:]) if isinstance(tile[3], tuple) else name))
    image.tile = turned
    try:
        image.load()
    except ValueError:  # this decoder knows only one order
        return None
    lower: Image.Image = image
    return lower


def _check_size(image: Image.Image, data: bytes, limits: Limits) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UndecodableImage(f"the image is empty ({width} x {height} pixels)")
    if width * height > limits.max_pixels:
        raise _too_many_pixels(width, height, limits)
    pieces = len(getattr(image, "tile", ()))
    if pieces > _MAX_PIECES:
        raise ImageTooLarge(f"stored in {pieces:,} pieces, more than the limit of {_MAX_PIECES:,}")
    if image.info.get("progressive"):
        scans = data.count(b"\xff\xda")
        if width * height * scans > _MAX_SCANNED_PIXELS:
            raise ImageTooLarge(f"{scans:,} scans of {width} x {height} pixels")


def _too_many_pixels(width: int, height: int, limits: Limits) -> ImageTooLarge:
    return ImageTooLarge(
        f"{width} x {height} pixels, more than the limit of {limits.max_pixels:,}; scale it down first"
    )


_PRIMARIES = {1: "BT.709", 9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_CURVES = {13: "", 16: " PQ (HDR)", 18: " HLG (HDR)"}


def _space_without_profile(image: Image.Image, data: bytes) -> str | None:
    """What the file says of its colour space in other ways than a profile, where that is not sRGB."""
    if image.format == "PNG" and (place := data.find(b"cICP", 0, max(data.find(b"IDAT"), 0))) > 0:
        primaries, curve = data[place + 4 : place + 6]
        if (primaries, curve) not in ((1, 13), (1, 1), (1, 6)):
            named = _PRIMARIES.get(primaries, f"primaries {primaries}") + _CURVES.get(curve, "")
            return f"its cICP chunk says {named}"
    try:
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif) if len(exif) else {}
        wide = details.get(ExifTags.Base.ColorSpace)
        if wide == 2:
            return "EXIF says Adobe RGB"
        if wide == 0xFFFF and str(exif.get_ifd(ExifTags.IFD.Interop).get(1)).startswith("R03"):
            return "EXIF says Adobe RGB"
    except Exception:  # a broken EXIF block says nothing
        return None
    return None


def _orientation(image: Image.Image) -> int:
    """What its EXIF block says, 1 to 8."""
    try:
        turn = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block: the pixels are fine all the same
        return 1
    return turn if turn in _UPRIGHT else 1


def upright(image: Image.Image, turn: int) -> Image.Image:
    """The image turned by an EXIF orientation, 1 to 8."""
    if turn not in _UPRIGHT:
        return image
    turned = image.transpose(_UPRIGHT[turn])
    if tags := getattr(image, "tag_v2", None):
        turned.tag_v2 = tags  # type: ignore[attr-defined]
    return turned
