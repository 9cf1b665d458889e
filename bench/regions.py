"""Where in an image: heatmaps against drawings that know where everything is, and what they cost.

    python bench/regions.py pointing            # the pointing game, on 2,000 drawings of the sketchbook
    python bench/regions.py cost --model ID     # processor time of vectors with and without patches

The pointing game (Zhang et al. 2016): of each label that names something in a drawing, the hottest patch's
middle is a hit where it lies within the thing, give or take half a patch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import nshot
from nshot.regions.heatmaps import Heatmap
from nshot.sketchbook import PAIRS, SIZE, Scene, draw, sample

_FIRST_SEED = 9_800_000_000_000  # far from those of training, tests and the other measurements


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=sorted(_MEASUREMENTS))
    parser.add_argument("--model", default="sketchbook")
    parser.add_argument("--count", type=int, default=2000, help="drawings")
    args = parser.parse_args()
    _MEASUREMENTS[args.what](args)


def pointing(args: argparse.Namespace) -> None:
    """The pointing game, with several things per drawing, whose names may repeat or not."""
    clip = nshot.load(args.model, precision="f32")
    labels = [f"{colour} {shape}" for colour, shape in PAIRS]
    scenes = [sample(_FIRST_SEED + number, several=1.0) for number in range(args.count)]
    hits: dict[str, list[bool]] = {"all": [], "named once": []}
    chance = []
    drawings = (draw(scene) for scene in scenes)
    for scene, heatmap in zip(scenes, clip.heatmaps(drawings, labels), strict=True):
        assert isinstance(heatmap, Heatmap)
        side = heatmap.evidence.shape[1]
        for name, count in _names(scene).items():
            x, y = heatmap.peak(name)
            hit = _within(scene, name, x / SIZE, y / SIZE, 0.5 / side)
            hits["all"] += [hit] * count
            hits["named once"] += [hit] * (count == 1)
            middles = (np.arange(side) + 0.5) / side
            chance += [np.mean([_within(scene, name, a, b, 0.5 / side) for a in middles for b in middles])]
    for what, found in hits.items():
        print(f"{what:12} {len(found):5} things, hit {np.mean(found):.3f}")
    print(f"by chance          {np.mean(chance):.3f}")


def _names(scene: Scene) -> dict[str, int]:
    names = [f"{thing.colour} {thing.shape}" for thing in scene.things]
    return {name: names.count(name) for name in names}


def _within(scene: Scene, name: str, x: float, y: float, also: float) -> bool:
    return any(
        float(np.hypot(x - thing.x, y - thing.y)) <= thing.radius + also
        for thing in scene.things
        if f"{thing.colour} {thing.shape}" == name
    )


def cost(args: argparse.Namespace) -> None:
    """Processor time of the same images, alternately with and without patches: the median of the ratios."""
    clip = nshot.load(args.model, precision="f32")
    side = clip.preprocessor.size
    pixels = np.random.default_rng(0).integers(0, 256, (64 if side < 100 else 16, 3, side, side), np.uint8)
    vectors, _ = clip.encoder.encode_patches(pixels)
    same = bool((clip.encoder.encode_images(pixels) == vectors).all())
    ratios = []
    for _ in range(9):
        plain = _processor(lambda: clip.encoder.encode_images(pixels))
        ratios.append(_processor(lambda: clip.encoder.encode_patches(pixels)) / plain)
    print(f"{args.model}: {np.median(ratios) - 1:+.1%} processor time; vectors bit for bit the same: {same}")


def _processor(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


_MEASUREMENTS: dict[str, Callable[[argparse.Namespace], None]] = {"pointing": pointing, "cost": cost}


if __name__ == "__main__":
    main()
