"""Ten simulated people who correct images of the sketchbook: how many corrections reach what fit reaches
with eight examples per label chosen at random?

    python bench/people.py

A person has a new set of words, four of which the sketchbook's training never saw, and 600 images. They take
eight at a time of those that the page offers, say the right label, fit, and look again. The accuracy is on
images held out. Beside them: people who take eight at random, or the least sure (nshot next); and fit on
eight random examples per label, the mean of ten draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import nshot
from nshot import sketchbook
from nshot.few_shot import fit, select
from nshot.server.session.learning import cover
from nshot.types import Floats

LABELS = [*sketchbook.NEW_SHAPES, "circle", "star", "heart", "house"]
PER_LABEL, HELD_OUT, STEP, MOST, IMAGES = 120, 60, 8, 160, 600


class Study:
    """The images, and what is measured on them."""

    def __init__(self) -> None:
        clip = nshot.load("sketchbook")
        drawn, labels = [], []
        for number, label in enumerate(LABELS):
            pairs = [(colour, label) for colour in sketchbook.COLOURS]
            for k in range(PER_LABEL + HELD_OUT):
                scene = sketchbook.sample(9_900_000_000 + 1000 * number + k, pairs=pairs, several=0)
                drawn.append(sketchbook.draw(scene, 96))
                labels.append(label)
        self.vectors: Floats = clip.embed(drawn).vectors
        self.own = np.array(labels)
        self.held = np.arange(len(labels)) % (PER_LABEL + HELD_OUT) >= PER_LABEL
        self.pool = np.flatnonzero(~self.held)
        self.zero = nshot.zero_shot(clip, LABELS, ["a drawing of a {}"])

    def accuracy(self, classifier: nshot.Classifier) -> float:
        """On the images held out."""
        best = classifier.logits(self.vectors[self.held]).argmax(axis=1)
        return float((np.array(classifier.labels)[best] == self.own[self.held]).mean())

    def fitted(self, rows: NDArray[np.intp]) -> nshot.Classifier:
        """What these corrections teach."""
        return fit(self.vectors[rows], self.own[rows].tolist(), self.zero, labels=LABELS).classifier

    def eight_each(self, seed: int) -> float:
        """Accuracy from eight random examples per label."""
        generator = np.random.default_rng(seed)
        of = [self.pool[self.own[self.pool] == label] for label in LABELS]
        return self.accuracy(
            self.fitted(np.concatenate([generator.choice(each, 8, replace=False) for each in of]))
        )

    def corrections(self, person: int, offered: str, goal: float) -> int:
        """How many a person makes until the goal is reached."""
        generator = np.random.default_rng(1000 + person)
        left = np.sort(generator.choice(self.pool, IMAGES, replace=False))
        classifier, chosen = self.zero, np.zeros(0, dtype=np.intp)
        while len(chosen) < MOST:
            if offered == "the page's":
                logits = np.sort(classifier.logits(self.vectors[left]), axis=1)
                unsure = np.clip(1 - (logits[:, -1] - logits[:, -2]) / 5, 0, 1).astype(np.float32)
                picked = cover(self.vectors[left], unsure, STEP, self.vectors[chosen])
            elif offered == "the least sure":
                known = self.vectors[chosen] if len(chosen) else None
                picked = select(self.vectors[left], classifier, STEP, labelled=known)
            else:
                picked = generator.choice(len(left), STEP, replace=False)
            chosen, left = np.concatenate([chosen, left[picked]]), np.delete(left, picked)
            classifier = self.fitted(chosen)
            if self.accuracy(classifier) >= goal:
                break
        return len(chosen)


def main() -> None:
    """Print the figures."""
    study = Study()
    print(f"{len(LABELS)} labels; zero-shot: {study.accuracy(study.zero):.3f}")
    draws = [study.eight_each(seed) for seed in range(10)]
    goal = float(np.mean(draws))
    spread = f"{min(draws):.3f} to {max(draws):.3f}"
    print(f"fit on 8 random examples per label, {8 * len(LABELS)} in all: {goal:.3f} ({spread})")
    for offered in ("the page's", "random", "the least sure"):
        needed = [study.corrections(person, offered, goal) for person in range(10)]
        mean, most = np.mean(needed), f"{min(needed)} to {max(needed)}"
        print(f"corrections of {offered} images until that is reached: mean {mean:.0f}, {most}: {needed}")


if __name__ == "__main__":
    main()
