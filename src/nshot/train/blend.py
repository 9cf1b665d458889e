"""The weights between two models: what fine-tuning won, with what it cost given back.

Wortsman et al., "Robust fine-tuning of zero-shot models" (2022).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Weights = Mapping[str, Tensor]


def blend(before: Weights, after: Weights, share: float) -> dict[str, Tensor]:
    """``(1 - share) * before + share * after`` for every weight; ``share`` 0 is before, 1 is after."""
    return {name: weight + share * (after[name] - weight) for name, weight in before.items()}
