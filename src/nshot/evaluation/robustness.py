"""How classifiers fare on other images than those they were measured on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.errors import LabelError
from nshot.labels.prompts import spoken
from nshot.metrics import wilson


@dataclass(frozen=True, slots=True)
class Tally:
    """One classifier under one condition.

    Attributes:
        right: images named rightly under the condition.
        asked: of how many.
        base_right: images of the base set named rightly, among the same labels.
        base_asked: of how many.
    """

    right: int
    asked: int
    base_right: int
    base_asked: int

    @property
    def accuracy(self) -> float:
        """Under the condition, in [0, 1]; nan without images."""
        return self.right / self.asked if self.asked else math.nan

    @property
    def base(self) -> float:
        """On the base set, in [0, 1]; nan without images."""
        return self.base_right / self.base_asked if self.base_asked else math.nan

    @property
    def relative(self) -> float:
        """Relative robustness: the share of the base accuracy that is left; nan where there was none."""
        return self.accuracy / self.base if self.base_right else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        low, high = wilson(self.right, self.asked)
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Condition:
    """What was done to the images, or which others were taken.

    Attributes:
        name: the corruption's family, or the other set's name.
        kind: "base", "domain" or "corruption".
        strength: of a corruption, 1 to 5; 0 otherwise.
        labels: the labels that were answered among: those that base and condition share.
        tallies: a classifier's name -> its tally.
    """

    name: str
    kind: str
    strength: int
    labels: tuple[str, ...]
    tallies: Mapping[str, Tally]

    def effective(self, name: str, reference: str) -> float:
        """Effective robustness over the reference: accuracy above what its base accuracy would make one
        expect.

        After Taori et al. 2020. They draw the line of expectation through many models; here it goes through
        chance and the reference: a reference diluted with random answers to a base accuracy x would reach
        chance + (x - chance) * (shifted - chance) / (base - chance). nan where the reference is no better
        than chance.
        """
        other, chance = self.tallies[reference], 1 / len(self.labels)
        if not other.base > chance:
            return math.nan
        slope = (other.accuracy - chance) / (other.base - chance)
        mine = self.tallies[name]
        return mine.accuracy - (chance + (mine.base - chance) * slope)

    def to_dict(self, reference: str) -> dict[str, Any]:
        """Counts, and the figures that follow from them, as JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "strength": self.strength,
            "labels": list(self.labels),
            "classifiers": {
                name: {
                    "right": tally.right,
                    "asked": tally.asked,
                    "base_right": tally.base_right,
                    "base_asked": tally.base_asked,
                    "accuracy": _figure(tally.accuracy),
                    "interval": [_figure(end) for end in tally.interval],
                    "relative": _figure(tally.relative),
                    "effective": _figure(self.effective(name, reference)),
                }
                for name, tally in self.tallies.items()
            },
        }


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Every classifier's logits for the same images, and their labels.

    Attributes:
        logits: a classifier's name -> float[n, labels].
        targets: int[n], columns of the logits.
    """

    logits: Mapping[str, NDArray[Any]]
    targets: NDArray[np.intp]

    def right(self, columns: Sequence[int]) -> tuple[dict[str, int], int]:
        """Each classifier's right answers among these columns, and of how many images."""
        among = np.asarray(columns, dtype=np.intp)
        rows = np.flatnonzero(np.isin(self.targets, among))
        found = {
            name: int((among[logits[rows][:, among].argmax(axis=1)] == self.targets[rows]).sum())
            if len(rows)
            else 0
            for name, logits in self.logits.items()
        }
        return found, len(rows)


def condition(
    name: str, kind: str, labels: Sequence[str], base: Answers, shifted: Answers, *, strength: int = 0
) -> Condition:
    """Compare on the labels that both sets hold; with fewer labels to choose from, the base is measured anew.

    Args:
        name: of the condition.
        kind: "base", "domain" or "corruption".
        labels: names of the logits' columns.
        base: answers on the base set.
        shifted: answers under the condition.
        strength: of a corruption.

    Raises:
        LabelError: they share fewer than two labels.
    """
    shared = sorted(set(base.targets.tolist()) & set(shifted.targets.tolist()))
    if len(shared) < 2:
        raise LabelError(f"{name} shares fewer than two labels with the base set: {', '.join(labels)}")
    base_right, base_asked = base.right(shared)
    right, asked = shifted.right(shared)
    tallies = {each: Tally(right[each], asked, base_right[each], base_asked) for each in base.logits}
    return Condition(name, kind, strength, tuple(labels[i] for i in shared), tallies)


def match(labels: Sequence[str], others: Sequence[str]) -> dict[str, int]:
    """Another set's class names -> places among the labels: equal but for case, underscores and CamelCase."""
    places = {spoken(label).casefold(): i for i, label in enumerate(labels)}
    return {other: places[key] for other in others if (key := spoken(other).casefold()) in places}


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else value
