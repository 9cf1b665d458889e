"""A decoded image of any mode -> RGB in sRGB, on white; and what was done to get there.

Pillow's own ``convert("RGB")`` loses images: 16-bit grey turns white, transparency shows hidden colours,
colour profiles are dropped. Each function here returns the image and adds its notes to a list.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from nshot.types import Pixels

# A profile whose colours lie no further than this from sRGB's (of 255, in any channel) is sRGB under another
# name: no pixel is changed. Display P3, the nearest space in wide use, is 50 off.
_SAME = 6

# Grey levels that differ less than this are one colour to whoever looks at them.
_FLAT = 2

_LEVELS = (8, 10, 12, 14)  # bits that cameras and scanners put into 16
_DARK = 16  # a 16-bit image whose brightest value is below this is black, not an image of 4 bits

_LARGEST_PROFILE = 2**23  # bytes; those of printing presses take half of it

_PHOTOMETRIC, _BITS_PER_SAMPLE = 262, 258


def is_flat(image: Image.Image) -> bool:
    """Whether an image of 8 bits per channel is of one colour only."""
    width, height = image.size
    first = image.getpixel((0, 0))
    some = [image.getpixel((width * x // 8, height * y // 8)) for x, y in ((4, 4), (2, 6), (7, 3), (5, 1))]
    bands = [np.ptp(band) for band in np.array([first, *some]).reshape(5, -1).T]
    if max(bands) > _FLAT:  # most images are told by five of their pixels
        return False
    extrema: Any = image.getextrema()
    return all(high - low <= _FLAT for low, high in (extrema if image.mode != "L" else (extrema,)))


def to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """The image in mode RGB, profiles converted to sRGB, laid on white where it is transparent."""
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return _converted(image, *profiles, "RGB")
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        gray = Image.fromarray(_grey8(image, notes))
        return _profiled(gray, image.info, notes).convert("RGB")
    if image.mode == "CMYK":
        return _profiled(image, image.info, notes).convert("RGB")
    if image.has_transparency_data:
        if image.mode == "La":  # Pillow undoes the premultiplication in one step only
            image = image.convert("LA")
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        return _on_white(layer, image.info, notes)
    if image.mode in ("1", "L"):
        return _profiled(image, image.info, notes).convert("RGB")
    return _profiled(image if image.mode == "RGB" else image.convert("RGB"), image.info, notes)


def _on_white(layer: Image.Image, info: dict[Any, Any], notes: list[str]) -> Image.Image:
    """Transparency laid on white, as a page would show it, unless that leaves nothing to see."""
    alpha = layer.getchannel("A")
    opaque = layer.convert("RGB")
    if alpha.getextrema() == (0, 0):
        if not is_flat(opaque):
            notes.append("alpha channel ignored: it is zero everywhere, over colours that are there")
            return _profiled(opaque, info, notes)
        notes.append("transparent everywhere")
    colours = _profiled(opaque, info, notes)
    laid = Image.new("RGB", layer.size, "white")
    laid.paste(colours, mask=alpha)
    if is_flat(laid) and not is_flat(alpha):
        black = Image.new("RGB", layer.size, "black")
        black.paste(colours, mask=alpha)
        if not is_flat(black):
            notes.append(
                "laid on black: it is white on a transparent ground, so on white there is nothing to see"
            )
            return black
    return laid


# Range


def _grey8(image: Image.Image, notes: list[str]) -> Pixels:
    """16-bit, 32-bit and floating point grey -> uint8[h,w], by the range that the values are in."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    inverted = tags.get(_PHOTOMETRIC) == 0
    if inverted:
        notes.append("white is zero: inverted")
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        bits = _bits(values, tags, notes)
        top = 2**bits - 1
        wide = values.astype(np.uint32)
        if inverted:
            wide = top - wide.clip(max=top)
        return np.asarray((wide * 510 + top) // (2 * top), np.uint8)  # n * 255 / top, rounded
    grey = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    if low >= 0:  # the usual ranges keep their black and white; anything else is stretched
        whole = image.mode != "F"
        usual = [255.0, *(2.0**bits - 1 for bits in _LEVELS[1:]), 65535.0] if whole else [1.0, 255.0, 65535.0]
        low, top = 0.0, next((top for top in usual if high <= top), high)
        if top not in ((255.0, 65535.0) if whole else (1.0, 255.0, 65535.0)):
            notes.append(_scaled(low, top))
        high = top
    else:
        notes.append(_scaled(low, high))
    scale = 255.0 / (high - low) if high > low else 0.0
    eight = np.rint((grey - low) * scale).clip(0, 255)
    return np.asarray(255 - eight if inverted else eight, np.uint8)


def _bits(values: Any, tags: Any, notes: list[str]) -> int:
    """How many bits of 16 the values use: as the file says, else as few as hold the brightest."""
    said = tags.get(_BITS_PER_SAMPLE, (16,))
    if said[0] in _LEVELS:
        notes.append(_scaled(0, 2 ** said[0] - 1))
        return int(said[0])
    high = int(values.max())
    bits = next((bits for bits in _LEVELS if high < 2**bits), 16) if high >= _DARK else 16
    if bits < 16:
        notes.append(_scaled(0, 2**bits - 1))
    return bits


def _scaled(low: float, high: float) -> str:
    return f"scaled from a range: {low:g} to {high:g}"


def fill_range(high: Image.Image, low: Image.Image | None, notes: list[str]) -> Image.Image:
    """A colour image of 16 bits per channel in which the upper bits are empty, scaled by the bits it uses.

    Args:
        high: the upper bytes, which is all that Pillow keeps.
        low: the lower bytes, the image decoded a second time; None if that cannot be.
        notes: what was done is added here.
    """
    if low is None or low.size != high.size or low.mode != high.mode:
        return high
    wide = (np.asarray(high).astype(np.uint32) << 8) | np.asarray(low)
    colours = wide[..., :3]
    brightest = int(colours.max())
    bits = next((bits for bits in _LEVELS if brightest < 2**bits), 16)
    if bits == 16 or brightest < _DARK:
        return high
    notes.append(_scaled(0, 2**bits - 1))
    top = 2**bits - 1
    eight = np.asarray(high).copy()
    eight[..., :3] = (colours * 510 + top) // (2 * top)
    scaled = Image.fromarray(eight, high.mode if high.mode in ("RGB", "RGBA") else None)
    scaled.info = high.info
    return scaled


def looks_empty(image: Image.Image) -> bool:
    """Whether the upper two bits of each colour are empty, as where 14 bits or fewer stand in 16."""
    if image.mode not in ("RGB", "RGBA"):
        return False
    extrema: Any = image.getextrema()
    return bool(max(high for _, high in extrema[:3]) < 64)


# Profiles


def _profiled(image: Image.Image, info: dict[Any, Any], notes: list[str]) -> Image.Image:
    """The image in sRGB: converted where its profile is of another space, else as it is."""
    data = info.get("icc_profile")
    if not data:
        return _gamma(image, info, notes)
    space, name, same = _profile(bytes(data)) if len(data) <= _LARGEST_PROFILE else ("", "", False)
    wanted = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
    if wanted is None or (wanted == "CMYK") != (image.mode == "CMYK"):
        notes.append("colour profile ignored: it is broken, or not one for this image")
        return image
    if same:
        return image
    if image.mode == "1":
        image = image.convert("L")
    if wanted == "L" and image.mode == "RGB":  # a grey image that was stored or expanded as colour
        red, green, blue = image.split()
        if red.tobytes() != green.tobytes() or red.tobytes() != blue.tobytes():
            notes.append("colour profile ignored: it is broken, or not one for this image")
            return image
        image = red
    source = image if image.mode == wanted else image.convert(wanted)
    try:
        converted: Image.Image | None = ImageCms.applyTransform(source, _transform(bytes(data), wanted))
    except (ImageCms.PyCMSError, ValueError, OSError):
        converted = None
    if converted is None:
        notes.append("colour profile ignored: it is broken, or not one for this image")
        return image
    notes.append(f"colours converted to sRGB: from {name}")
    return converted


@lru_cache(maxsize=16)
def _profile(data: bytes) -> tuple[str, str, bool]:
    """A profile's colour space, its name, and whether it is sRGB; the space is empty if it is broken."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = str(opened.profile.xcolor_space)
        told = opened.profile.profile_description or "a profile without a name"
        name = " ".join("".join(char if char.isprintable() else " " for char in told).split())[:60]
        return space, name or "a profile without a name", _is_srgb(data, space)
    except Exception:  # lcms raises what it likes for a broken one: OSError, PyCMSError, TypeError ...
        return "", "", False


def _is_srgb(data: bytes, space: str) -> bool:
    """Whether colours come out as they went in. Names say too little: there is a "linear sRGB"."""
    if space not in ("RGB ", "GRAY"):
        return False
    if space == "GRAY":
        ramp = np.arange(0, 256, 5, dtype=np.uint8)
        probe, mode = Image.fromarray(ramp[None, :]), "L"
        expected = np.repeat(ramp[None, :, None], 3, axis=2)
    else:
        levels = np.arange(0, 256, 51, dtype=np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        probe, mode, expected = Image.fromarray(grid), "RGB", grid
    converted = ImageCms.applyTransform(probe, _transform(data, mode))
    assert converted is not None
    off = np.abs(np.asarray(converted).astype(int) - expected)
    return int(off.max()) <= _SAME


@lru_cache(maxsize=16)
def _transform(data: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(data)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _converted(image: Image.Image, source: Any, target: Any, mode: str) -> Image.Image:
    converted = ImageCms.profileToProfile(image, source, target, outputMode=mode)
    assert converted is not None  # only an in-place conversion returns None
    return converted


def _gamma(image: Image.Image, info: dict[Any, Any], notes: list[str]) -> Image.Image:
    """A PNG that says its gamma and has no profile, as renderers write linear light."""
    gamma = info.get("gamma")
    if "srgb" in info or not isinstance(gamma, float) or not 0.05 <= gamma <= 4:
        return image
    if abs(gamma - 1 / 2.2) < 0.05 or image.mode not in ("L", "RGB"):
        return image
    curve = [round(255 * (level / 255) ** (1 / (2.2 * gamma))) for level in range(256)]
    notes.append(f"colours converted to sRGB: from gamma {gamma:g}")
    return image.point(curve * len(image.getbands()))
