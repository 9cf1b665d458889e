"""What else there is in the world: the labels that "none of these" is compared with.

Their vectors are those of any labels: ``nshot.zero_shot(clip, EVERYDAY).matrix``.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nshot.types import Floats
from nshot.unit import normalize

# Every one of these words was there when the default threshold was measured (bench/decisions.py).
EVERYDAY = tuple(
    word.strip()
    for word in """
        person, man, woman, dog, cat, bird, fish, horse, cow, sheep, pig, chicken, duck, rabbit, mouse,
        elephant, bear, lion, monkey, snake, turtle, frog, spider, butterfly, bee, tree, flower, mushroom,
        apple, banana, orange, bread, cake, pizza, sandwich, salad, soup, egg, cheese, ice cream, coffee,
        wine, bottle, cup, plate, bowl, knife, fork, spoon, car, bus, truck, train, bicycle, motorcycle,
        airplane, helicopter, boat, ship, house, tower, door, window, stairs, street light, traffic sign,
        flag, chair, table, couch, bed, lamp, pillow, curtain, carpet, mirror, clock, vase, candle, book,
        newspaper, poster, picture frame, pen, scissors, box, basket, backpack, suitcase, umbrella, shirt,
        dress, trousers, jacket, hat, shoe, boot, glove, belt, tie, glasses, watch, necklace, ring, laptop,
        keyboard, telephone, television, camera, remote, microphone, headphones, hammer, screwdriver,
        ladder, wheel, guitar, piano, drum, violin, trumpet, ball, balloon, doll, teddy bear, toy, kite,
        skateboard, surfboard, ski, tent, sink, toilet, bathtub, refrigerator, oven, toothbrush, towel,
        broom, mask
    """.split(",")  # noqa: SIM905
)

_TOO_NEAR = 2.5  # standard deviations over a label's mean cosine with the background


def unlike(background: ArrayLike, matrix: ArrayLike) -> Floats:
    """The background without what a label means itself: float[n, d], float[labels, d] -> float32[m, d]."""
    kept: Floats = normalize(background)[apart(background, matrix)]
    return kept


def apart(background: ArrayLike, matrix: ArrayLike) -> NDArray[np.bool_]:
    """Which of the background's labels mean none of the labels: float[n, d], float[labels, d] -> bool[n].

    "man" must not stand against the label "person". How near two texts are depends on the model and on the
    template, so nearness is measured against the label's own cosines with the rest of the background.
    """
    rows = normalize(background)
    cosines = rows.astype(np.float64) @ normalize(matrix).astype(np.float64).T
    spread = np.maximum(cosines.std(axis=0), 1e-12)
    nearness = ((cosines - cosines.mean(axis=0)) / spread).max(axis=1)
    found: NDArray[np.bool_] = nearness < _TOO_NEAR
    return found


def packed(rows: Floats) -> dict[str, Any]:
    """Vectors as a decision's JSON holds them: float[n, d] as base64 of little-endian float32."""
    data = np.ascontiguousarray(rows, dtype="<f4").tobytes()
    return {"rows": len(rows), "float32": base64.b64encode(data).decode("ascii")}


def unpacked(held: dict[str, Any]) -> Floats:
    """What ``packed`` made: float32[n, d]."""
    data = np.frombuffer(base64.b64decode(held["float32"], validate=True), "<f4")
    rows: Floats = data.astype(np.float32).reshape(held["rows"], -1)
    return rows
