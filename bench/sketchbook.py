"""What the sketchbook's model knows: every bar of its card, measured on drawings it has never seen.

    python bench/sketchbook.py                      # the shipped checkpoint, without torch
    python bench/sketchbook.py --model FOLDER
    make parity's python bench/sketchbook.py --precision bf16

Seeds here are far from those of training, and the same in every run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

import nshot
from nshot.encoders import Precision
from nshot.sketchbook import (
    COLOURS,
    HELD_OUT_PAIRS,
    HELD_OUT_STYLE,
    PAIRS,
    SEEN_PAIRS,
    SEEN_STYLES,
    SHAPES,
    STYLE_PHRASES,
    Scene,
    caption,
    draw,
    sample,
)
from nshot.types import Floats

_FIRST_SEED = 9_000_000_000_000
NAMED = "a picture of a {}"
TEMPLATES = (
    "{}",
    NAMED,
    *(phrase.replace("{}", "a {}") for each in SEEN_STYLES for phrase in STYLE_PHRASES[each]),
)
COLOUR_TEMPLATES = ("a {} thing", "a {} shape", "a picture of a {} object")

Bar = tuple[str, float, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sketchbook")
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--each", type=int, default=1000, help="images of each style")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    begun = time.perf_counter()
    bars = Measurement(args.model, args.precision, args.each).bars()
    if args.json:
        print(
            json.dumps(
                {what: {"figure": round(figure, 4), "bar": bar} for what, figure, bar in bars}, indent=1
            )
        )
        return
    width = max(len(what) for what, _, _ in bars)
    for what, figure, bar in bars:
        print(f"{what:{width}}  {figure:7.3f}  {bar}")
    seconds = time.perf_counter() - begun
    print(f"{args.model}, {args.precision}, {args.each} images of each style, {seconds:.0f} s")


class Measurement:
    """One model's figures."""

    def __init__(self, model: str, precision: Precision, each: int) -> None:
        self.clip = nshot.load(model, precision=precision)
        self.each = each

    def bars(self) -> list[Bar]:
        """(what, figure, bar), in the order of the card."""
        held = {style: self.scenes(style, HELD_OUT_PAIRS, place) for place, style in enumerate(SEEN_STYLES)}
        seen = {style: self.scenes(style, SEEN_PAIRS, 10 + place) for place, style in enumerate(SEEN_STYLES)}
        strange = self.scenes(HELD_OUT_STYLE, PAIRS, 20)
        vectors = {id(each): self.vectors(each) for each in (*held.values(), *seen.values(), strange)}

        def score(sets: Iterable[list[Scene]], kind: str, templates: Sequence[str] = (NAMED,)) -> float:
            classifier = nshot.zero_shot(self.clip, LABELS[kind], templates=templates)
            right = [
                classifier.logits(vectors[id(scenes)]).argmax(axis=1) == answers(scenes, kind)
                for scenes in sets
            ]
            return float(np.mean(np.concatenate(right)))

        bars: list[Bar] = [
            ("held-out pairs, 144 pairs as labels", score(held.values(), "pair"), ">= 0.90"),
            ("held-out pairs, shape alone", score(held.values(), "shape"), ">= 0.93"),
            ("held-out pairs, colour alone", score(held.values(), "colour", COLOUR_TEMPLATES), ">= 0.95"),
            ("seen pairs, 144 pairs as labels", score(seen.values(), "pair"), ""),
            ("seen pairs, shape alone", score(seen.values(), "shape"), ""),
        ]
        bars += [(f"held-out pairs, {style}", score([held[style]], "pair"), "") for style in SEEN_STYLES]
        both = [*held.values(), *seen.values()]
        usual = score(both, "shape")
        strange_shape = score([strange], "shape")
        bars += [
            (f"{HELD_OUT_STYLE} (held-out style), shape alone", strange_shape, ">= 0.75"),
            ("  the drop from the styles seen", usual - strange_shape, ""),
            (f"{HELD_OUT_STYLE}, 144 pairs as labels", score([strange], "pair"), ""),
        ]
        named = np.mean(
            [score([held[s]], "pair", [STYLE_PHRASES[s][0].replace("{}", "a {}")]) for s in SEEN_STYLES]
        )
        single = {template: score(held.values(), "pair", [template]) for template in TEMPLATES}
        best = max(single, key=lambda template: single[template])
        ensemble = score(held.values(), "pair", TEMPLATES)
        bars += [
            ("held-out pairs, the bare name", single["{}"], ""),
            ("held-out pairs, the template names the style", float(named), f"> {single['{}']:.3f}"),
            (f"held-out pairs, best single template ({best})", single[best], ""),
            (f"held-out pairs, ensemble of {len(TEMPLATES)}", ensemble, f">= {single[best] - 0.005:.3f}"),
        ]
        one, five = self.retrieval()
        bars += [("text to image, 500 drawings, recall@1", one, ">= 0.5")]
        bars += [("text to image, 500 drawings, recall@5", five, ">= 0.85")]
        return bars

    def scenes(self, style: str, pairs: Sequence[tuple[str, str]], place: int) -> list[Scene]:
        """Single objects in one style."""
        first = _FIRST_SEED + place * 1_000_000
        return [sample(first + i, styles=(style,), pairs=pairs, several=0) for i in range(self.each)]

    def vectors(self, scenes: Sequence[Scene]) -> Floats:
        """Drawn, preprocessed and embedded as any image is."""
        found = list(self.clip.embed_images([draw(scene) for scene in scenes]))
        return np.stack([each.vector for each in found if isinstance(each, nshot.Embedded)])

    def retrieval(self, count: int = 500) -> tuple[float, float]:
        """recall@1 and recall@5 of full, distinct captions among as many drawings of all kinds."""
        chosen: dict[str, Scene] = {}
        number = _FIRST_SEED + 50_000_000
        while len(chosen) < count:
            scene = sample(number, pairs=PAIRS)
            chosen.setdefault(caption(scene, number, full=True), scene)
            number += 1
        texts = self.clip.embed_texts(list(chosen))
        nearest = np.argsort(-texts @ self.vectors(list(chosen.values())).T, axis=1)
        right = nearest[:, :5] == np.arange(count)[:, None]
        return float(right[:, 0].mean()), float(right.any(axis=1).mean())


LABELS = {
    "pair": [f"{colour} {shape}" for colour, shape in PAIRS],
    "shape": list(SHAPES),
    "colour": list(COLOURS),
}


def answers(scenes: Sequence[Scene], kind: str) -> NDArray[np.int64]:
    """The number of each scene's own label."""
    labels = {label: number for number, label in enumerate(LABELS[kind])}
    things = [scene.things[0] for scene in scenes]
    names = {"pair": "{0.colour} {0.shape}", "shape": "{0.shape}", "colour": "{0.colour}"}
    return np.array([labels[names[kind].format(thing)] for thing in things])


if __name__ == "__main__":
    main()
