"""Real vectors of CLIP ViT-B/32 that stand beside the repository on some machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

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
    """Rows of so many examples per label, and all the others; a label keeps one for the others at least."""
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


class LabelledSet(NamedTuple):
    """Real vectors with labels, and prompts where the text bank has words for them.

    Attributes:
        vectors: float64[n, d], unit rows.
        targets: int[n].
        labels: the k names.
        prompts: float64[k, d], unit rows; None without.
    """

    vectors: NDArray[np.float64]
    targets: NDArray[np.intp]
    labels: list[str]
    prompts: NDArray[np.float64] | None

    @property
    def zero(self) -> Classifier:
        """The prompts as a zero-shot classifier."""
        assert self.prompts is not None
        return Classifier(self.labels, self.prompts, scale=100.0)


SETS = FOLDER.parent / "recorded2"
_BANKS = ("o365", "lvis", "oid", "coco", "imagenet_a", "cifar100_photo")
_WORDS = {  # what the bank calls it, where that differs from the label by more than case and a plural
    "automobile": "car", "ship": "boat", "omelette": "omelet", "tshirts": "t-shirt", "jeans": "jean",
    "sandals": "sandal (type of shoe)", "flip flops": "flip-flop (sandal)", "formal shoes": "leather shoes",
    "sports shoes": "sneakers", "heels": "high heels", "leggings": "legging (clothing)",
    "caps": "cap (headwear)", "watches": "watch",
}  # fmt: skip
_UNNAMED = {"casual shoes", "tops", "flats", "kurtas", "kurtis", "track pants", "apple pie", "paella"}
_UNRELATED = """
    ladder violin candle hammer pillow bridge camel spoon drum carpet onion tent helmet clock pencil broom
    anchor feather mirror kite lemon sofa wheel balloon umbrella fork zebra
""".split()  # noqa: SIM905


def bank() -> dict[str, NDArray[np.float64]]:
    """Text vectors by lower-case name."""
    known: dict[str, NDArray[np.float64]] = {}
    with np.load(FOLDER / "text_bank_vitb32.npz") as data:
        for source in _BANKS:
            rows = data[f"{source}_embeds"].astype(np.float64)
            for name, row in zip(data[f"{source.split('_')[0]}_names"], rows, strict=True):
                for synonym in str(name).lower().replace("_", " ").split(", "):
                    known.setdefault(synonym, row)
    return known


def unit(rows: Any) -> NDArray[np.float64]:
    """Rows of length 1."""
    wide = np.asarray(rows, np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def unrelated(labels: int, seed: int = 0) -> NDArray[np.float64]:
    """Prompts that have nothing to do with any set: float64[labels, 512]."""
    known = bank()
    words = np.random.default_rng(seed).permutation([word for word in _UNRELATED if word in known])
    return unit([known[word] for word in words[:labels]])


def sets(*, least: int = 3) -> dict[str, LabelledSet]:
    """Every recorded set with one label per image, by name.

    Args:
        least: labels with fewer images are left out.
    """
    known = bank()
    found = {}

    def add(name: str, vectors: Any, targets: Any, labels: Any, prompts: Any = None) -> None:
        targets = np.asarray(targets, np.intp)
        counts = np.bincount(targets[targets >= 0], minlength=len(labels))
        kept = [k for k, n in enumerate(counts) if n >= least and (prompts is None or prompts[k] is not None)]
        rows = np.isin(targets, kept)
        found[name] = LabelledSet(
            unit(vectors)[rows],
            np.searchsorted(kept, targets[rows]),
            [str(labels[k]) for k in kept],
            None if prompts is None else unit([prompts[k] for k in kept]),
        )

    def word(label: str) -> NDArray[np.float64] | None:
        plain = label.lower().replace("_", " ")
        tries = (_WORDS.get(plain, plain), plain, plain.removesuffix("s"), plain + "s")
        return None if plain in _UNNAMED else next((known[name] for name in tries if name in known), None)

    with np.load(FOLDER / "cifar10_vitb32.npz") as data:
        add("cifar10", data["image_embeds"], data["labels"], NAMES, [word(name) for name in NAMES])
    for path in sorted(SETS.glob("*.npz")):
        name = path.stem.removesuffix("_vitb32")
        with np.load(path) as data:
            if "image_embeds" not in data or "labels" not in data:
                continue
            vectors, targets, labels = data["image_embeds"], data["labels"], data["classes"]
            if name == "fashion_marqo":  # its captions, averaged, are the prompts
                texts = unit(data["text_embeds"])
                add(name, vectors, targets, labels, [texts[targets == k].mean(0) for k in range(len(labels))])
            elif name in ("food10_train", "food10_test", "animals84", "mixed111", "fashion"):
                add(name, vectors, targets, labels, [word(str(label)) for label in labels])
            else:
                add(name, vectors, targets, labels)
            if name == "products":
                subs, places = np.unique(data["subcategory"], return_inverse=True)
                add("products, kinds", vectors, places, subs, [word(str(sub)) for sub in subs])
            if name in ("food10_train", "fashion"):
                add(f"{name}, all labels", vectors, targets, labels)
    return found
