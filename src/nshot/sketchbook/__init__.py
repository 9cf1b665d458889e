"""A small world of drawings and captions, made from a seed: what the shipped checkpoint knows, all of it.

Twelve shapes in twelve colours, four textures, five styles, one to three objects. Three things are never in
training, by rule: a seventh of the colour-shape pairs, the pixelated style, and a few things (a cup, a key, a
mushroom, an umbrella) that only examples will teach.
"""

from __future__ import annotations

from nshot.sketchbook.captions import caption
from nshot.sketchbook.drawing import SIZE, draw
from nshot.sketchbook.exhibition import Exhibit, exhibition
from nshot.sketchbook.scenes import Scene, Thing, sample
from nshot.sketchbook.words import (
    COLOURS,
    HELD_OUT_PAIRS,
    HELD_OUT_STYLE,
    NEW_SHAPES,
    PAIRS,
    SEEN_PAIRS,
    SEEN_STYLES,
    SHAPES,
    STYLE_PHRASES,
    STYLES,
)

__all__ = [
    "COLOURS",
    "HELD_OUT_PAIRS",
    "HELD_OUT_STYLE",
    "NEW_SHAPES",
    "PAIRS",
    "SEEN_PAIRS",
    "SEEN_STYLES",
    "SHAPES",
    "SIZE",
    "STYLES",
    "STYLE_PHRASES",
    "Exhibit",
    "Scene",
    "Thing",
    "caption",
    "draw",
    "exhibition",
    "sample",
]
