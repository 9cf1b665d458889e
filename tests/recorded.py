"""Real vectors of CLIP ViT-B/32 that stand beside the repository on some machines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nshot.classifier.classifier import Classifier

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "recorded"
NAMES = ["airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "boat", "truck"]

needed = pytest.mark.skipif(not FOLDER.is_dir(), reason="the recorded vectors are not on this machine")


def cifar10() -> tuple[NDArray[np.float32], list[str]]:
    """300 vectors and their labels, of NAMES."""
    with np.load(FOLDER / "cifar10_vitb32.npz") as data:
        return data["image_embeds"], [NAMES[label] for label in data["labels"]]


def prompts(names: list[str], bank: str = "o365") -> Classifier:
    """A zero-shot classifier of these names, from the text bank."""
    with np.load(FOLDER / "text_bank_vitb32.npz") as data:
        for other in (bank, "lvis", "oid", "coco"):
            known = dict(zip(map(str.lower, data[f"{other}_names"]), data[f"{other}_embeds"], strict=True))
            if all(name in known for name in names):
                return Classifier(names, [known[name] for name in names], scale=100.0)
    raise LookupError(names)


def draw(labels: list[str], shots: int, seed: int) -> tuple[list[int], list[int]]:
    """Rows of so many examples a label, and all the others; a label keeps one for the others at least."""
    generator = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in sorted(set(labels)):
        rows = generator.permutation([i for i, each in enumerate(labels) if each == label])
        chosen += rows[: min(shots, len(rows) - 1)].tolist()
    return chosen, sorted(set(range(len(labels))) - set(chosen))


def accuracy(classifier: Classifier, vectors: NDArray[np.float32], labels: list[str]) -> float:
    """Share of the vectors that get their label."""
    best = classifier.logits(vectors).argmax(axis=1)
    return float(np.mean([classifier.labels[k] == label for k, label in zip(best, labels, strict=True)]))
