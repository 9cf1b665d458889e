"""A scene as an image: anti-aliased, in one of the five styles."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from nshot.sketchbook.scenes import Scene, Thing
from nshot.sketchbook.shapes import parts
from nshot.sketchbook.words import BACKGROUNDS, COLOURS

SIZE = 48
"""The side, in pixels, of the images that the shipped checkpoint was trained on."""

_FINE = 3  # each pixel is drawn as 3x3 and averaged
_EDGE = [0] * 70 + [255] * 116 + [0] * 70  # of a blurred mask, what is neither well inside nor well outside

Plane = NDArray[np.float32]


def draw(scene: Scene, size: int = SIZE) -> Image.Image:
    """The scene as an RGB image of ``size`` x ``size`` pixels: the same scene gives the same pixels."""
    rng = np.random.default_rng(scene.seed)
    if scene.style == "pixelated":
        blocks = int(rng.integers(15, 20))
        small = _flat(scene, rng, blocks)
        return _image(small).resize((size, size), Image.Resampling.NEAREST)
    return _image(_STYLES[scene.style](scene, rng, size))


def _image(canvas: Plane) -> Image.Image:
    return Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))


def _mask(thing: Thing, size: int, rng: np.random.Generator | None = None) -> Image.Image:
    """Where the thing is, ``_FINE`` times finer than the image. With ``rng`` the hand wobbles."""
    fine = size * _FINE
    mask = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(mask)
    turn = math.radians(thing.angle)
    cos, sin = thing.radius * math.cos(turn), thing.radius * math.sin(turn)
    wobble = (0.0, 0.0, 0.0, 0.0) if rng is None else tuple(rng.uniform(-0.06, 0.06, 4).tolist())
    for filled, points in parts(thing.shape):
        outline = []
        for px, py in points:
            qx = px + wobble[0] * py + wobble[1] * math.sin(3 * py)
            qy = py + wobble[2] * px + wobble[3] * math.sin(3 * px)
            outline.append(((thing.x + cos * qx - sin * qy) * fine, (thing.y + sin * qx + cos * qy) * fine))
        pen.polygon(outline, fill=255 if filled else 0)
    return mask


def _plane(mask: Image.Image) -> Plane:
    """The fine mask at the image's own size, float32 in [0, 1], with a last axis for the colours."""
    plane: Plane = np.asarray(mask.reduce(_FINE), dtype=np.float32)[..., None] * np.float32(1 / 255)
    return plane


def _edge(mask: Image.Image, width: float) -> Plane:
    """A line of about ``width`` pixels along the mask's border."""
    return _plane(mask.filter(ImageFilter.BoxBlur(width * _FINE)).point(_EDGE))


def _pattern(thing: Thing, size: int, rng: np.random.Generator) -> Plane:
    """The texture over the whole image: 1 where the second colour goes."""
    if thing.texture == "plain":
        return np.zeros((size, size, 1), np.float32)
    step = np.float32(thing.radius * size * rng.uniform(0.36, 0.48))
    fine = (np.arange(size * 2, dtype=np.float32) + 0.5) / 2 - thing.x * size
    tall = (np.arange(size * 2, dtype=np.float32) + 0.5) / 2 - thing.y * size
    turn = float(rng.uniform(-0.3, 0.3)) + (math.pi / 4 if rng.random() < 0.3 else 0.0)
    u = (math.cos(turn) * fine[None, :] + math.sin(turn) * tall[:, None]) / step
    if thing.texture == "striped":
        marks = (u % 1.0) < 0.45
    else:
        v = (math.cos(turn) * tall[:, None] - math.sin(turn) * fine[None, :]) / step
        if thing.texture == "dotted":
            marks = (u % 1.0 - 0.5) ** 2 + (v % 1.0 - 0.5) ** 2 < 0.085
        else:
            marks = (np.floor(u * 1.3) + np.floor(v * 1.3)) % 2 < 1
    plane: Plane = marks.reshape(size, 2, size, 2).mean(axis=(1, 3), dtype=np.float32)[..., None]
    return plane


def _tint(thing: Thing, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """The thing's colour, a little varied, and the shade of it that its texture is drawn in."""
    colour = np.array(COLOURS[thing.colour], np.float32) + rng.uniform(-12, 12, 3).astype(np.float32)
    if thing.texture == "plain":
        return colour, colour
    pale = rng.random() < 0.5 and thing.colour not in ("white", "yellow", "pink", "lime")
    return colour, colour + 0.55 * (np.float32(255 if pale else 0) - colour)


def _ground(scene: Scene, rng: np.random.Generator, size: int) -> Plane:
    """The background: plain, fading, or ruled like an exercise book."""
    colour = np.array(BACKGROUNDS[scene.background], np.float32) + rng.uniform(-6, 6, 3).astype(np.float32)
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = colour
    kind = rng.random()
    if kind < 0.3:
        canvas += _slope(rng, size) * np.float32(rng.uniform(10, 40))
    elif kind < 0.45:
        step, line = max(3, round(size * rng.uniform(0.12, 0.2))), np.float32(rng.choice((-24, 24)))
        canvas[::step] += line
        canvas[:, ::step] += line
    return canvas


def _slope(rng: np.random.Generator, size: int) -> Plane:
    """A plane that rises from -1 to 1 in some direction."""
    turn = rng.uniform(0, 2 * math.pi)
    line = np.linspace(-0.7, 0.7, size, dtype=np.float32)
    slope = np.float32(math.cos(turn)) * line[None, :] + np.float32(math.sin(turn)) * line[:, None]
    return slope[..., None]


def _noise(rng: np.random.Generator, size: int, channels: int = 1) -> Plane:
    return rng.standard_normal((size, size, channels), dtype=np.float32)


def _flat(scene: Scene, rng: np.random.Generator, size: int) -> Plane:
    canvas = _ground(scene, rng, size)
    for thing in scene.things:
        colour, second = _tint(thing, rng)
        mask = _mask(thing, size)
        canvas += _plane(mask) * (colour + _pattern(thing, size, rng) * (second - colour) - canvas)
        if rng.random() < 0.3:
            canvas *= 1 - 0.7 * _edge(mask, 0.02 * size)
    return canvas


def _photo(scene: Scene, rng: np.random.Generator, size: int) -> Plane:
    """Light from one side, a soft shadow, grain, a lens out of focus, and no clean background."""
    canvas = _ground(scene, rng, size)
    canvas += _slope(rng, size) * rng.uniform(-30, 30, 3).astype(np.float32)
    light = 1 + _slope(rng, size) * np.float32(rng.uniform(0.1, 0.35))
    shift = [round(size * _FINE * rng.uniform(0.02, 0.07)) * int(rng.choice((-1, 1))) for _ in range(2)]
    for thing in scene.things:
        colour, second = _tint(thing, rng)
        mask = _mask(thing, size)
        shadow = Image.new("L", mask.size)
        shadow.paste(mask, (shift[0], shift[1]))
        canvas *= 1 - 0.5 * _plane(shadow.filter(ImageFilter.BoxBlur(0.03 * size * _FINE)))
        surface = (colour + _pattern(thing, size, rng) * (second - colour)) * light
        canvas += _plane(mask) * (surface - canvas)
    canvas *= rng.uniform(0.8, 1.12) * rng.uniform(0.95, 1.05, 3).astype(np.float32)
    blurred = _image(canvas).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.024) * size))
    return np.asarray(blurred, np.float32) + _noise(rng, size, 3) * np.float32(rng.uniform(3, 13))


def _chalk(scene: Scene, rng: np.random.Generator, size: int) -> Plane:
    """Strokes that the board's grain shows through, on black that was wiped before."""
    canvas = np.full((size, size, 3), rng.uniform(10, 34), np.float32)
    canvas += _slope(rng, size) * np.float32(8) + _noise(rng, size) * 3
    for thing in scene.things:
        colour, _ = _tint(thing, rng)
        mask = _mask(thing, size, rng)
        grain = np.clip(0.75 + 0.3 * _noise(rng, size), 0.1, 1)
        fill = rng.uniform(0.15, 0.5)
        inside = _plane(mask) * np.maximum(np.float32(fill), 0.9 * _pattern(thing, size, rng))
        alpha = np.maximum(_edge(mask, 0.025 * size), inside) * grain
        canvas += alpha * (colour - canvas)
    return canvas


def _sketch(scene: Scene, rng: np.random.Generator, size: int) -> Plane:
    """A coloured pencil's outline on paper, gone over twice; textures are drawn lightly inside."""
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = np.array(BACKGROUNDS[scene.background], np.float32)
    pale = any(thing.colour in ("white", "yellow") for thing in scene.things)
    canvas *= np.float32(rng.uniform(0.5, 0.7) if pale or rng.random() < 0.15 else rng.uniform(0.92, 1))
    canvas += _noise(rng, size) * np.float32(2.5)
    for thing in scene.things:
        colour, _ = _tint(thing, rng)
        mask = _mask(thing, size, rng)
        again = _mask(thing, size, rng)
        line = np.maximum(_edge(mask, 0.022 * size), 0.7 * _edge(again, 0.016 * size))
        inside = _plane(mask) * 0.6 * _pattern(thing, size, rng)
        canvas += np.maximum(line, inside) * (colour - canvas)
    return canvas


_STYLES: dict[str, Callable[[Scene, np.random.Generator, int], Plane]] = {
    "flat": _flat,
    "photo": _photo,
    "chalk": _chalk,
    "sketch": _sketch,
}
