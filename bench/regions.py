"""Where in an image: heatmaps against drawings that know where everything is, and what they cost.

    python bench/regions.py pointing            # the pointing game, on 2,000 drawings of the sketchbook
    python bench/regions.py cost --model ID     # processor time of vectors with and without patches
    python bench/regions.py tiles --count 300   # small things by tiles, and by the whole image
    python bench/regions.py large --image FILE  # memory that tiles of a large image take
    python bench/regions.py second --model FOLDER --count 100  # a detector's first and second question

The pointing game (Zhang et al. 2016): of each label that names something in a drawing, the hottest patch's
middle is a hit where it lies within the thing, give or take half a patch.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
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
    parser.add_argument("--image", help="a large image; without it, a TIFF of 20,000 x 20,000 is made")
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


def tiles(args: argparse.Namespace) -> None:
    """Things of which the square around them takes 1 % of the image, at 480 x 480 pixels.

    A label is found where its score is over the threshold; thresholds are set so that each way finds labels
    that are not there equally often.
    """
    clip = nshot.load(args.model, precision="f32")
    labels = [f"{colour} {shape}" for colour, shape in PAIRS]
    scenes = [_small(_FIRST_SEED + 10_000_000 + number) for number in range(args.count)]
    truth = np.array([labels.index(f"{s.things[0].colour} {s.things[0].shape}") for s in scenes])
    for background in ((), None):
        scores = {}
        inside = []
        for way, levels in (("whole image", 1), ("tiles", 3)):
            drawings = (draw(scene, 480) for scene in scenes)
            found = clip.locate(drawings, labels, levels=levels, threshold=0.0, background=background)
            rows = []
            for scene, located in zip(scenes, found, strict=True):
                assert isinstance(located, nshot.Located)
                by_label = {box.label: box for box in located.boxes}
                rows.append([by_label[label].score for label in labels])
                if levels > 1:
                    thing = scene.things[0]
                    x, y, width, height = by_label[f"{thing.colour} {thing.shape}"].box
                    inside.append(x <= thing.x * 480 <= x + width and y <= thing.y * 480 <= y + height)
            scores[way] = np.array(rows)
        print(f"background: {'everyday things' if background is None else 'none'}")
        for rate in (0.001, 0.01, 0.05):
            line = f"  false {rate:5.1%}:"
            for way, table in scores.items():
                present = table[np.arange(len(table)), truth]
                absent = np.ones(table.shape, bool)
                absent[np.arange(len(table)), truth] = False
                line += f"  {way} {(present > np.quantile(table[absent], 1 - rate)).mean():.3f}"
            print(line)
        print(f"  the best tile of the thing's own label holds its middle: {np.mean(inside):.3f}")


def _small(seed: int) -> Scene:
    scene, places = sample(seed, several=0), random.Random(seed + 1)
    x, y = places.uniform(0.08, 0.92), places.uniform(0.08, 0.92)
    return replace(scene, things=(replace(scene.things[0], x=x, y=y, radius=0.05),))


def second(args: argparse.Namespace) -> None:
    """Processor time of a detector's first question to images, and of a second one, each from its start."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for number in range(args.count):
            pixels = rng.integers(0, 256, (480, 640, 3), np.uint8)
            Image.fromarray(pixels).save(Path(folder) / f"{number:03}.jpg")
        time.sleep(2.5)  # a file changed just now is read again
        spent = []
        for labels in (["cat", "dog"], ["red bus", "bicycle", "tree"]):
            detector = nshot.load_detector(args.model, precision="f32", store=Path(folder) / "store.sqlite")
            detector.embed_texts("warm")
            begun, clock = time.process_time(), time.monotonic()
            found = sum(isinstance(each, nshot.Located) for each in detector.locate(folder, labels))
            spent.append((time.process_time() - begun, time.monotonic() - clock))
            print(f"{labels}: {found} images, {spent[-1][0]:.2f} s of processor time, {spent[-1][1]:.2f} s")
        ratios = [one / other for one, other in zip(*spent, strict=True)]
        print(f"the second question is {ratios[0]:.0f} times faster (by the clock {ratios[1]:.0f})")


def large(args: argparse.Namespace) -> None:
    """The process's peak of memory over tiles of one large image."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(args.image or Path(folder) / "large.tif")
        if args.image is None:
            _write_large(path)
        clip = nshot.load(args.model, precision="f32")
        clip.embed_texts("warm")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.process_time()
        (found,) = clip.locate(path, ["red star", "blue fish"], threshold=0.0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{path.name}: {found.size if isinstance(found, nshot.Located) else found}")
        print(f"peak {peak / 1e6:.2f} GB, before the image {before / 1e6:.2f} GB", end="")
        print(f", {time.process_time() - begun:.0f} s of processor time")


def _write_large(path: Path, side: int = 20_000) -> None:
    """A plain TIFF in one strip, of noise in coarse blocks, written without holding it."""
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 142), (277, 3, 1, 3), (278, 4, 1, side), (279, 4, 1, 3 * side * side)]
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(b"II*\0" + struct.pack("<IH", 8, len(tags)))
        file.write(b"".join(struct.pack("<HHII", *tag) for tag in tags))
        file.write(bytes(134 - file.tell()) + struct.pack("<4H", 8, 8, 8, 0))
        for _ in range(side // 100):
            row = rng.integers(0, 256, (1, side // 100, 3), np.uint8).repeat(100, 1)
            file.write(row.repeat(100, 0).tobytes())


def _processor(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


_MEASUREMENTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "pointing": pointing,
    "cost": cost,
    "tiles": tiles,
    "large": large,
    "second": second,
}


if __name__ == "__main__":
    main()
