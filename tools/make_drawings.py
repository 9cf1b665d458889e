"""Write tests/fixtures/drawings.npz: what the sketchbook's model makes of 216 drawings, and of their labels.

    python tools/make_drawings.py

The tests of the few-shot promises learn from these vectors, so that they run where no other data is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL.Image import Image

import nshot
from nshot import sketchbook

LABELS = ("circle", "square", "triangle", "star", "heart", "crescent", "arrow", "ring", "tree")
EACH = 24


def main() -> None:
    """Draw, embed, write."""
    clip = nshot.load("sketchbook")
    images: list[Image] = []
    targets: list[int] = []
    seed = 0
    for target, label in enumerate(LABELS):
        wanted = len(images) + EACH
        while len(images) < wanted:
            scene = sketchbook.sample(seed, styles=sketchbook.STYLES, several=0.4)
            seed += 1
            if scene.things[0].shape == label:
                images.append(sketchbook.draw(scene))
                targets.append(target)
    embedded = clip.embed(images)
    prompts = nshot.zero_shot(clip, list(LABELS), templates=["{}"])
    path = Path(__file__).parents[1] / "tests" / "fixtures" / "drawings.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        vectors=embedded.vectors.astype(np.float16),
        targets=np.array(targets, np.int16),
        labels=np.array(LABELS),
        prompts=prompts.matrix.astype(np.float16),
        scale=np.float32(prompts.scale.max()),
    )
    right = np.mean(prompts.logits(embedded.vectors).argmax(axis=1) == targets)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, zero-shot {right:.3f}")


if __name__ == "__main__":
    main()
