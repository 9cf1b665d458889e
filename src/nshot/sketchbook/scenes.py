"""A scene: everything that a drawing shows, before it is drawn or put into words."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from nshot.sketchbook.words import BACKGROUNDS, COLOURS, SEEN_PAIRS, SEEN_STYLES, TEXTURES

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: its place and radius are shares of the image's width, its angle is in degrees."""

    colour: str
    shape: str
    texture: str
    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a drawing shows; ``seed`` settles what words cannot tell (grain, light, wobble)."""

    style: str
    things: tuple[Thing, ...]
    background: str
    seed: int


def sample(
    seed: int,
    *,
    styles: Sequence[str] = SEEN_STYLES,
    pairs: Sequence[Pair] = SEEN_PAIRS,
    several: float = 0.25,
) -> Scene:
    """A scene drawn at random: the same seed and arguments give the same scene.

    Args:
        seed: any integer.
        styles: the styles to choose from; without it, those that training sees.
        pairs: the (colour, shape) pairs to choose from; without it, those that training sees.
        several: the share of scenes with more than one object.
    """
    rng = random.Random(seed)
    style = rng.choice(styles)
    if rng.random() >= several:
        radius = rng.uniform(0.2, 0.44)
        room = max(0.0, 0.5 - radius) + 0.03
        spots = [(0.5 + rng.uniform(-room, room), 0.5 + rng.uniform(-room, room), radius)]
    else:
        spots = _spots(rng)
    same = rng.random() < 0.4
    first = rng.choice(pairs)
    texture = _texture(rng)
    things = []
    for i, (x, y, radius) in enumerate(spots):
        if i and not same:
            first, texture = rng.choice(pairs), _texture(rng)
        turn = rng.choice((0, 90, 180, 270)) if first[1] == "arrow" else 0
        things.append(Thing(*first, texture, x, y, radius, turn + rng.uniform(-18, 18)))
    return Scene(style, tuple(things), _background(rng, style, things), rng.getrandbits(32))


def _spots(rng: random.Random) -> list[tuple[float, float, float]]:
    """Places for two or three objects that do not cover each other."""
    count = rng.choice((2, 2, 3))
    across = rng.random() < 0.6
    spots = []
    for i in range(count):
        radius = rng.uniform(0.16, 0.24) if count == 2 else rng.uniform(0.13, 0.17)
        along = (i + 0.5) / count + rng.uniform(-0.02, 0.02)
        beside = 0.5 + rng.uniform(-1, 1) * (0.46 - radius)
        spots.append((along, beside, radius) if across else (beside, along, radius))
    return spots


def _texture(rng: random.Random) -> str:
    return "plain" if rng.random() < 0.5 else rng.choice(TEXTURES[1:])


def _background(rng: random.Random, style: str, things: Sequence[Thing]) -> str:
    """A background that every object stands out from; chalk has its board, and pencil its paper."""
    if style == "chalk":
        return "black"
    names = ["white", "cream", "light grey"] if style == "sketch" else list(BACKGROUNDS)
    rng.shuffle(names)

    def contrast(name: str) -> float:
        return min(math.dist(BACKGROUNDS[name], COLOURS[thing.colour]) for thing in things)

    return next((name for name in names if contrast(name) > 110), max(names, key=contrast))
