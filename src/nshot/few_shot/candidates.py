"""The methods that `fit` chooses among, with the strengths that it tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from nshot.few_shot.gaussian import discriminant
from nshot.few_shot.heads import Array, Head, Shown, log_loss
from nshot.few_shot.logistic import TOLERANCE, plain_probe, pulled_probe

Method: TypeAlias = Literal["zero-shot", "probe", "pulled", "gaussian"]
METHODS: tuple[Method, ...] = get_args(Method)

STRENGTHS: dict[Method, tuple[float, ...]] = {
    "zero-shot": (1.0,),
    "probe": (1.0, 10.0, 100.0),
    "pulled": (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03),
    "gaussian": (0.01, 0.03, 0.1, 0.3, 1.0),
}
KEEPING_PULL = 1.0  # the weakest at which a label without examples still holds its own against the others

_DOUBT = 4.0  # nats that it takes at most to give up the prompts altogether


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method and its strength: C of the probe, the pull, the Gaussian's share."""

    method: Method
    strength: float

    def __str__(self) -> str:
        return self.method if self.method == "zero-shot" else f"{self.method} {self.strength:g}"


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """What is known without examples: one row per label.

    Attributes:
        rows: float64[labels, d], unit rows; for a label without a prompt the others' mean, or zeros.
        known: bool[labels], whether a label has a prompt.
        scale: the checkpoint's logit scale.
    """

    rows: Array
    known: NDArray[np.bool_]
    scale: float

    @classmethod
    def none(cls, labels: int, dimension: int) -> Prompts:
        """No prompt for any label."""
        return cls(np.zeros((labels, dimension)), np.zeros(labels, dtype=bool), 0.0)


def candidates(prompts: Prompts, *, complete: bool) -> list[Candidate]:
    """Everything to try: what keeps the prompts where there are any, else what needs none.

    Args:
        prompts: the rows to start from.
        complete: whether every label has an example. Where one has none, only what keeps the answers
            comparable with its prompt's is tried.
    """
    methods: tuple[Method, ...] = ("zero-shot", "pulled") if prompts.known.any() else ("probe", "gaussian")
    return [
        Candidate(method, strength)
        for method in methods
        for strength in STRENGTHS[method]
        if complete or method != "pulled" or strength >= KEEPING_PULL
    ]


def train(
    shown: Shown,
    prompts: Prompts,
    wanted: Sequence[Candidate],
    *,
    complete: bool,
    tolerance: float = TOLERANCE,
) -> list[Head]:
    """The wanted heads, trained on these examples; in the order wanted.

    Args:
        shown: the examples.
        prompts: the rows to start from.
        wanted: what to train.
        complete: whether every label has an example. Where one has none, the prompts keep their scale.
        tolerance: of the iterative ones.
    """
    labels = len(prompts.rows)
    start = prompts.rows * prompts.scale
    trusted = prompts.rows * (trust(shown, prompts) if complete else prompts.scale)
    heads: dict[Candidate, Head] = {}
    for method in METHODS:
        mine = [c for c in wanted if c.method == method]
        strengths = [c.strength for c in mine]
        if not mine:
            continue
        if method == "zero-shot":
            trained = [Head(start, np.zeros(labels))]
        elif method == "probe":
            trained = plain_probe(shown, labels, strengths=strengths, tolerance=tolerance)
        elif method == "pulled":
            trained = pulled_probe(shown, trusted, pulls=strengths, known=prompts.known, tolerance=tolerance)
        else:
            trained = discriminant(shown, start, strengths=strengths)
        heads.update(zip(mine, trained, strict=True))
    return [heads[c] for c in wanted]


def trust(shown: Shown, prompts: Prompts) -> float:
    """The logit scale, between 0 and the checkpoint's own, at which the prompts explain the examples best.

    One number, so that even one example per label can tell it: prompts that are wrong about the examples,
    and sure of it, lose their say, and a head starts from nearer to nothing. Minimises the cross-entropy
    plus ``doubt * (1 - s)^2 / 2`` over the share s of the scale.
    """
    if not prompts.known.any():
        return 0.0
    shares = np.linspace(0.0, 1.0, 21)
    costs = np.zeros(len(shares))
    for block in shown.blocks(len(prompts.rows)):
        cosines, targets = shown.wide(block) @ prompts.rows.T, shown.targets[block]
        costs += [
            shown.weights[block] @ log_loss(share * prompts.scale * cosines, targets) for share in shares
        ]
    costs += 0.5 * _DOUBT * (1 - shares) ** 2
    return float(shares[int(np.argmin(costs))]) * prompts.scale
