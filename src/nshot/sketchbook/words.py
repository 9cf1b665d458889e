"""What the sketchbook's world is made of, the words for it, and the three things that training never sees."""

from __future__ import annotations

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 36, 40),
    "orange": (245, 133, 24),
    "yellow": (248, 218, 48),
    "lime": (160, 224, 52),
    "green": (28, 132, 62),
    "turquoise": (52, 196, 190),
    "blue": (38, 84, 214),
    "purple": (128, 48, 176),
    "pink": (248, 140, 190),
    "brown": (126, 76, 40),
    "grey": (128, 128, 130),
    "white": (246, 246, 242),
}
SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "heart",
    "crescent",
    "arrow",
    "cross",
    "ring",
    "house",
    "tree",
    "fish",
)
TEXTURES = ("plain", "striped", "dotted", "checkered")
STYLES = ("flat", "photo", "chalk", "sketch", "pixelated")

HELD_OUT_STYLE = "pixelated"
"""The style that is never in training, neither drawn nor named."""

NEW_SHAPES = ("cup", "key", "mushroom", "umbrella")
"""Things that are never in training, neither drawn nor named: only examples teach them."""

SEEN_STYLES = tuple(style for style in STYLES if style != HELD_OUT_STYLE)


def is_held_out(colour: str, shape: str) -> bool:
    """Whether training never sees this pair.

    One pair in seven, spread so that every colour and every shape is met in training with at least
    ten others, and is held out at least once.
    """
    return (3 * list(COLOURS).index(colour) + SHAPES.index(shape)) % 7 == 5


PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
HELD_OUT_PAIRS = tuple(pair for pair in PAIRS if is_held_out(*pair))
SEEN_PAIRS = tuple(pair for pair in PAIRS if not is_held_out(*pair))

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet"),
    "orange": ("tangerine",),
    "yellow": ("golden", "lemon yellow"),
    "lime": ("lime green", "yellow-green"),
    "green": ("dark green", "emerald"),
    "turquoise": ("teal", "cyan"),
    "blue": ("royal blue", "cobalt"),
    "purple": ("violet",),
    "pink": ("rosy", "light pink"),
    "brown": ("chocolate brown", "chestnut"),
    "grey": ("gray", "silver"),
    "white": ("ivory", "snow white"),
}
"""Synonyms of each colour; the first word of all is the colour's own name."""

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("disc", "disk", "round dot"),
    "square": ("box", "block"),
    "triangle": ("wedge",),
    "star": ("five-pointed star",),
    "heart": ("love heart",),
    "crescent": ("crescent moon", "moon"),
    "arrow": ("pointer",),
    "cross": ("plus sign", "plus"),
    "ring": ("hoop", "doughnut"),
    "house": ("home", "cottage"),
    "tree": ("pine tree", "fir"),
    "fish": ("little fish",),
    "cup": ("mug",),
    "key": (),
    "mushroom": ("toadstool",),
    "umbrella": ("parasol",),
}
TEXTURE_WORDS: dict[str, tuple[str, ...]] = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted", "polka-dot"),
    "checkered": ("checkered", "chequered", "checked"),
}
STYLE_PHRASES: dict[str, tuple[str, ...]] = {
    "flat": ("a flat icon of {}", "clip art of {}", "a flat illustration of {}", "a cartoon of {}"),
    "photo": ("a photo of {}", "a photograph of {}", "a blurry photo of {}", "a grainy photo of {}"),
    "chalk": ("a chalk drawing of {}", "{} in chalk", "{} drawn in chalk on a blackboard", "chalk art of {}"),
    "sketch": ("a sketch of {}", "an outline of {}", "a pencil sketch of {}", "a line drawing of {}"),
    "pixelated": ("pixel art of {}", "a pixelated picture of {}", "an 8-bit sprite of {}"),
}
"""Templates that name a style; the first is the one to use where one is wanted."""

PLAIN_PHRASES = (
    "{}",
    "a picture of {}",
    "an image of {}",
    "look at {}",
    "a view of {}",
    "a good picture of {}",
    "one can see {}",
)
"""Templates that name no style."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "black": (14, 14, 16),
    "cream": (246, 236, 208),
    "pale blue": (196, 220, 244),
    "pale green": (204, 234, 204),
    "pale pink": (248, 216, 222),
    "light grey": (206, 206, 208),
    "dark blue": (24, 34, 78),
}
