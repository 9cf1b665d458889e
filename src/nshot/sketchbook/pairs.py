"""Many drawings with captions, drawn once and kept on disk: what ``nshot train sketchbook`` trains on."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nshot.sketchbook.captions import caption
from nshot.sketchbook.drawing import SIZE, draw
from nshot.sketchbook.scenes import sample

_CHUNK = 2000
_VERSION = 1  # of the drawings: raise it where a seed gives another image


def drawings(folder: Path, count: int, seed: int = 0, *, workers: int | None = None) -> NDArray[np.uint8]:
    """``count`` drawings of training's scenes as uint8[count, 3, SIZE, SIZE], memory-mapped.

    They are drawn at the first call (about 500 a second and core) and read from ``folder`` afterwards.
    Drawing ``i`` shows the scene ``scene_seed(seed, i)``.
    """
    path = folder / f"sketchbook-v{_VERSION}-{SIZE}px-{count}-{seed}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        fresh = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (count, 3, SIZE, SIZE))
        starts = range(0, count, _CHUNK)
        with ProcessPoolExecutor(workers) as pool:
            mapped = map if workers == 1 else pool.map  # a pool starts its processes when it is first asked
            for start, chunk in zip(starts, mapped(_chunk, starts, repeat(count), repeat(seed)), strict=True):
                fresh[start : start + len(chunk)] = chunk
        fresh.flush()
        unfinished.replace(path)
    array: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return array


def scene_seed(seed: int, index: int) -> int:
    """The seed of a collection's scene: no two collections share one."""
    return seed * 1_000_000_007 + index


def captions(count: int, seed: int = 0, *, variants: int = 4) -> list[list[str]]:
    """``variants`` captions for each of the drawings, differently worded."""
    texts = []
    for index in range(count):
        number = scene_seed(seed, index)
        scene = sample(number)
        texts.append([caption(scene, number * variants + i) for i in range(variants)])
    return texts


def _chunk(start: int, count: int, seed: int) -> NDArray[np.uint8]:
    numbers = (scene_seed(seed, index) for index in range(start, min(start + _CHUNK, count)))
    return np.stack([np.asarray(draw(sample(number))).transpose(2, 0, 1) for number in numbers])
