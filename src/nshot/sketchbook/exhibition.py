"""Two dozen drawings that training never saw anything like: for the demo, and to look at."""

from __future__ import annotations

from dataclasses import dataclass

from nshot.sketchbook.scenes import Scene, sample
from nshot.sketchbook.words import HELD_OUT_PAIRS, HELD_OUT_STYLE, PAIRS, SEEN_STYLES

_FIRST_SEED = 8_000_000_000_000  # far from every seed of training and of the measurements


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A drawing and what is new in it.

    Attributes:
        scene: what ``draw`` draws.
        label: the right answer, such as "red star".
        novelty: "pair" where training never saw this colour on this shape, "style" where it never saw the
            style.
    """

    scene: Scene
    label: str
    novelty: str


def exhibition() -> list[Exhibit]:
    """Sixteen held-out pairs in the styles that training sees, and eight drawings in the style it does not.

    One object each; always the same two dozen.
    """
    exhibits = []
    for number in range(24):
        known = number < 16
        style = SEEN_STYLES[number % len(SEEN_STYLES)] if known else HELD_OUT_STYLE
        pairs = HELD_OUT_PAIRS[number : number + 1] if known else PAIRS
        scene = sample(_FIRST_SEED + number, styles=(style,), pairs=pairs, several=0)
        thing = scene.things[0]
        exhibits.append(Exhibit(scene, f"{thing.colour} {thing.shape}", "pair" if known else "style"))
    return exhibits
