"""Names of the parts of a data set: what is learnt from, what is chosen by, what is measured on."""

from __future__ import annotations

import re

_PARTS = {
    "train": "train training trn tr learn learning",
    "val": "val valid validation validate dev development eval evaluation",
    "test": "test testing tst holdout heldout",
}
_PART = {word: part for part, words in _PARTS.items() for word in words.split()}
_BESIDE = frozenset(
    [
        "set",
        "sets",
        "dir",
        "data",
        "dataset",
        "images",
        "imgs",
        "image",
        "img",
        "split",
        "splits",
        "folder",
        "folders",
        "seg",
        "samples",
        "part",
        "subset",
        "the",
        "out",
        "held",
    ]
)


def part_of(name: str) -> str | None:
    """The part that a name such as "Training Set", "valid" or "val2017" stands for: train, val or test."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    if words[:2] == ["held", "out"]:
        return "test"
    named = [_PART[word] for word in words if word in _PART]
    if not named or len(set(named)) > 1:
        return None
    return named[0] if all(word in _PART or word in _BESIDE for word in words) else None
