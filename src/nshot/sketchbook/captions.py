"""A scene in words: many forms, synonyms, and each attribute named or left out."""

from __future__ import annotations

import random

from nshot.sketchbook.scenes import Scene, Thing
from nshot.sketchbook.words import COLOUR_WORDS, PLAIN_PHRASES, SHAPE_WORDS, STYLE_PHRASES, TEXTURE_WORDS

_NUMBERS = {2: ("two", "a pair of"), 3: ("three",)}
_IRREGULAR = {
    "fish": "fish",
    "little fish": "little fish",
    "box": "boxes",
    "cross": "crosses",
    "plus": "pluses",
}


def caption(scene: Scene, seed: int, *, full: bool = False) -> str:
    """A caption of the scene: the same scene and seed give the same words.

    Args:
        scene: what the image shows.
        seed: chooses the form, the synonyms and what is left out.
        full: name everything that the words can tell (style, size, texture, place, background).
    """
    rng = random.Random(seed)
    text = _subject(scene, rng, full)
    if (full or rng.random() < 0.2) and scene.style in ("flat", "sketch", "pixelated"):
        text += f" on a {scene.background} background"
    named = full or rng.random() < 0.6
    text = rng.choice(STYLE_PHRASES[scene.style] if named else PLAIN_PHRASES).format(text)
    return text + "." if rng.random() < 0.3 else text


def plural(noun: str) -> str:
    """The plural of one of the sketchbook's nouns."""
    return _IRREGULAR.get(noun) or noun + "s"


def with_article(words: str) -> str:
    """``words`` after "a" or "an"."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _subject(scene: Scene, rng: random.Random, full: bool) -> str:
    first = scene.things[0]
    if len(scene.things) == 1:
        words = _describe(first, rng, full)
        text = rng.choice(("{a}", "{a}", "{a}", "the {}", "{}", "one {}")).format(
            words, a=with_article(words)
        )
        return text + (_place(first, rng) if full or rng.random() < 0.15 else "")
    if all((thing.colour, thing.shape) == (first.colour, first.shape) for thing in scene.things[1:]):
        return f"{rng.choice(_NUMBERS[len(scene.things)])} {_describe(first, rng, full, many=True)}"
    things = [with_article(_describe(thing, rng, full)) for thing in scene.things]
    if len(things) == 2:
        return f"{things[0]} {_between(scene.things, rng, full)} {things[1]}"
    return f"{things[0]}, {things[1]} and {things[2]}"


def _describe(thing: Thing, rng: random.Random, full: bool, *, many: bool = False) -> str:
    """Size, texture, colour, noun: at least one of the last two."""
    words = []
    if (full or rng.random() < 0.2) and not many and not 0.27 < thing.radius < 0.36:
        words.append(
            rng.choice(("small", "tiny", "little") if thing.radius < 0.3 else ("big", "large", "huge"))
        )
    if (full and thing.texture != "plain") or rng.random() < (0.1 if thing.texture == "plain" else 0.4):
        words.append(rng.choice(TEXTURE_WORDS[thing.texture]))
    what = 0.5 if full else rng.random()
    if what >= 0.25:
        words.append(_word(thing.colour, COLOUR_WORDS, rng))
    noun = _word(thing.shape, SHAPE_WORDS, rng) if what < 0.94 else rng.choice(("thing", "shape", "object"))
    return " ".join([*words, plural(noun) if many else noun])


def _word(name: str, synonyms: dict[str, tuple[str, ...]], rng: random.Random) -> str:
    others = synonyms[name]
    return rng.choice(others) if others and rng.random() < 0.3 else name


def _place(thing: Thing, rng: random.Random) -> str:
    side = "left" if thing.x < 0.42 else "right" if thing.x > 0.58 else ""
    level = "top" if thing.y < 0.42 else "bottom" if thing.y > 0.58 else ""
    if side and level:
        return f" at the {level} {side}"
    if side:
        return f" on the {side}"
    return f" at the {level}" if level else rng.choice((" in the middle", " in the centre"))


def _between(things: tuple[Thing, ...], rng: random.Random, full: bool) -> str:
    if not full and rng.random() < 0.5:
        return rng.choice(("and", "with"))
    first, second = things
    if abs(first.x - second.x) > abs(first.y - second.y):
        return "to the left of" if first.x < second.x else "to the right of"
    return "above" if first.y < second.y else "below"
