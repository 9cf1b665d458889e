"""The methods that `fit` chooses among, with the strengths that it tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from nshot.few_shot.cache import linear_cache
from nshot.few_shot.gaussian import discriminant
from nshot.few_shot.heads import Array, Head, Targets, log_loss
from nshot.few_shot.logistic import TOLERANCE, plain_probe, pulled_probe

Method: TypeAlias = Literal["zero-shot", "probe", "pulled", "gaussian", "cache"]
METHODS: tuple[Method, ...] = get_args(Method)

STRENGTHS: dict[Method, tuple[float, ...]] = {
    "zero-shot": (1.0,),
    "probe": (1.0, 10.0, 100.0),
    "pulled": (10.0, 3.0, 1.0, 0.3, 0.1, 0.03),
    "gaussian": (0.01, 0.03, 0.1, 0.3, 1.0),
    "cache": (1.0, 3.0, 10.0),
}
DEFAULT_PULL = 3.0
KEEPING_PULL = 1.0  # the weakest at which a label without examples still holds its own against the others

_DOUBT = 4.0  # nats that it takes at most to give up the prompts altogether


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method and its strength: C of the probe, the pull, the Gaussian's or the cache's share."""

    method: Method
    strength: float

    def __str__(self) -> str:
        return self.method if self.method == "zero-shot" else f"{self.method} {self.strength:g}"


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """What is known without examples: a row a label.

    Attributes:
        rows: float64[labels, d], unit rows; for a label without a prompt the others' mean, or zeros.
        known: bool[labels], whether a label has a prompt.
        scale: the checkpoint's logit scale.
    """

    rows: Array
    known: NDArray[np.bool_]
    scale: float


def candidates(prompts: Prompts, *, complete: bool) -> list[Candidate]:
    """Everything to try. With labels that have no example, only what keeps the prompts' answers comparable.

    Args:
        prompts: the rows to start from.
        complete: whether every label has an example.
    """
    tried = [Candidate(method, strength) for method in METHODS for strength in STRENGTHS[method]]
    if not prompts.known.any():
        return [c for c in tried if c.method in ("probe", "gaussian")]
    if not complete:
        return [
            c
            for c in tried
            if c.method == "zero-shot" or (c.method == "pulled" and c.strength >= KEEPING_PULL)
        ]
    return tried


def train(
    vectors: Array,
    targets: Targets,
    prompts: Prompts,
    wanted: Sequence[Candidate],
    *,
    complete: bool,
    tolerance: float = TOLERANCE,
) -> list[Head]:
    """The wanted heads, trained on these examples; in the order wanted.

    Args:
        vectors: float64[n, d].
        targets: int[n], rows of the prompts.
        prompts: the rows to start from.
        wanted: what to train.
        complete: whether every label has an example. Where one has none, the prompts keep their scale.
        tolerance: of the iterative ones.
    """
    labels = len(prompts.rows)
    start = prompts.rows * prompts.scale
    trusted = prompts.rows * (trust(vectors, targets, prompts) if complete else prompts.scale)
    heads: dict[Candidate, Head] = {}
    for method in METHODS:
        mine = [c for c in wanted if c.method == method]
        strengths = [c.strength for c in mine]
        if not mine:
            continue
        if method == "zero-shot":
            trained = [Head(start, np.zeros(labels))]
        elif method == "probe":
            trained = plain_probe(vectors, targets, labels, strengths=strengths, tolerance=tolerance)
        elif method == "pulled":
            trained = pulled_probe(
                vectors, targets, trusted, pulls=strengths, known=prompts.known, tolerance=tolerance
            )
        elif method == "gaussian":
            trained = discriminant(vectors, targets, start, strengths=strengths)
        else:
            trained = linear_cache(vectors, targets, start, strengths=strengths)
        heads.update(zip(mine, trained, strict=True))
    return [heads[c] for c in wanted]


def trust(vectors: Array, targets: Targets, prompts: Prompts) -> float:
    """The logit scale, between 0 and the checkpoint's own, at which the prompts explain the examples best.

    One number, so that even one example a label can tell it: prompts that are wrong about the examples, and
    sure of it, lose their say, and a head starts from nearer to nothing. Minimises the cross-entropy plus
    ``doubt * (1 - s)^2 / 2`` over the share s of the scale.
    """
    if not prompts.known.any():
        return 0.0
    cosines = vectors @ prompts.rows.T
    shares = np.linspace(0.0, 1.0, 21)
    costs = [
        log_loss(share * prompts.scale * cosines, targets).sum() + 0.5 * _DOUBT * (1 - share) ** 2
        for share in shares
    ]
    return float(shares[int(np.argmin(costs))]) * prompts.scale
