"""What examples buy, measured: the figures of docs/few-shot.md, on recorded vectors of CLIP ViT-B/32.

    python bench/few_shot.py            # all
    python bench/few_shot.py gains next # some

The vectors are looked for beside the repository; scikit-learn is needed for the comparison with it.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from recorded import NAMES, accuracy, cifar10, draw, prompts

from nshot.classifier.classifier import Classifier
from nshot.few_shot import adapt, fit, select
from nshot.few_shot.cache import cache_logits
from nshot.few_shot.curve import ALL, PROBE, curve
from nshot.few_shot.logistic import plain_probe

DRAWS = 5


def gains() -> None:
    """Mean gain over zero-shot on the rest, and the worst draw, in points."""
    vectors, labels = cifar10()
    zero = prompts(NAMES)
    print("shots  zero-shot   fit    mean gain  worst draw   published cache (alpha 1)   chosen")
    for shots in (1, 2, 4, 8, 16):
        found, cached, base, chosen = [], [], [], []
        for seed in range(DRAWS):
            shown, rest = draw(labels, shots, seed)
            of = [labels[i] for i in rest]
            fitted = fit(vectors[shown], [labels[i] for i in shown], zero)
            base.append(accuracy(zero, vectors[rest], of))
            found.append(accuracy(fitted.classifier, vectors[rest], of))
            chosen.append(str(fitted.candidate))
            targets = np.array([NAMES.index(labels[i]) for i in shown])
            start = zero.matrix.astype(np.float64) * 100
            rows = vectors.astype(np.float64)
            logits = cache_logits(rows[rest], rows[shown], targets, start, strength=1.0)
            cached.append(np.mean([NAMES[k] == label for k, label in zip(logits.argmax(1), of, strict=True)]))
        gain = 100 * (np.array(found) - base)
        print(
            f"{shots:5}  {np.mean(base):9.3f}  {np.mean(found):.3f}  {gain.mean():+9.2f}  {gain.min():+10.2f}"
            f"{100 * (np.mean(cached) - np.mean(base)):+28.2f}   {', '.join(chosen)}"
        )


def probe() -> None:
    """The plain probe against scikit-learn's on the same draws."""
    from sklearn.linear_model import LogisticRegression

    vectors, labels = cifar10()
    rows = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    targets = np.array([NAMES.index(label) for label in labels])
    for strength in (0.316, 1.0, 10.0):
        for shots in (1, 4, 16):
            apart = []
            for seed in range(DRAWS):
                shown, rest = draw(labels, shots, seed)
                theirs = LogisticRegression(C=strength, max_iter=1000).fit(rows[shown], targets[shown])
                [mine] = plain_probe(rows[shown], targets[shown], 10, strengths=[strength])
                answers = mine.logits(rows[rest]).argmax(axis=1)
                apart.append(np.mean(answers == targets[rest]) - theirs.score(rows[rest], targets[rest]))
            print(
                f"C={strength:<6} {shots:2} shots: largest difference {100 * np.abs(apart).max():.2f} points"
            )


def estimator() -> None:
    """scikit-learn's own checks of the estimator."""
    from sklearn.utils.estimator_checks import check_estimator

    from nshot.few_shot.sklearn import FewShotClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(FewShotClassifier(), on_fail=None)
    print({status: sum(r["status"] == status for r in results) for status in ("passed", "failed", "skipped")})


def speed() -> None:
    """The curve on 10,000 made-up vectors, 6 shot counts, 5 draws."""
    for labels in (10, 100):
        generator = np.random.default_rng(0)
        words = generator.standard_normal((labels, 512)) / 512**0.5
        common = generator.standard_normal(512) / 512**0.5
        targets = np.arange(10_000) % labels
        vectors = common + 0.25 * words[targets] + 0.05 * generator.standard_normal((10_000, 512))
        names = [f"label {i}" for i in range(labels)]
        noise = 0.04 * generator.standard_normal(words.shape)
        zero = Classifier(names, words + 0.3 * common + noise, scale=100.0)
        begun = time.perf_counter()
        points = curve(vectors, [names[i] for i in targets], zero, shots=(1, 2, 4, 8, 16, ALL))
        took = time.perf_counter() - begun
        best = {p.shots: round(p.mean, 3) for p in points if p.method == "nshot"}
        plain = {p.shots: round(p.mean, 3) for p in points if p.method == PROBE}
        print(f"{labels} labels: {took:.1f} s; nshot {best}; plain probe {plain}")


def adapting() -> None:
    """--adapt on all recorded images, no label used; the gain with a paired bootstrap interval."""
    vectors, labels = cifar10()
    zero = prompts(NAMES)
    adapted = adapt(vectors, zero)
    of = np.array([NAMES.index(label) for label in labels])
    gain = (adapted.classifier.logits(vectors).argmax(1) == of).astype(float) - (
        zero.logits(vectors).argmax(1) == of
    )
    resampled = gain[np.random.default_rng(0).integers(0, len(gain), (10_000, len(gain)))].mean(axis=1)
    low, high = np.quantile(resampled, (0.025, 0.975))
    print(
        f"{adapted.reason}: gain {100 * gain.mean():+.2f} points (95 % {100 * low:+.2f} to {100 * high:+.2f})"
    )


def added() -> None:
    """Each label in turn without an example: its own accuracy, and what the others lose to it."""
    vectors, labels = cifar10()
    zero = prompts(NAMES)
    print("label      from its prompt  zero-shot    others lose")
    for new in NAMES:
        shown = [i for i in draw(labels, 8, 0)[0] if labels[i] != new]
        rest = sorted(set(range(len(labels))) - set(shown))
        others = [name for name in NAMES if name != new]
        rows = [NAMES.index(name) for name in others]
        of_shown = [labels[i] for i in shown]
        closed = fit(vectors[shown], of_shown, Classifier(others, zero.matrix[rows], 100.0)).classifier
        opened = fit(vectors[shown], of_shown, zero).classifier
        old = [i for i in rest if labels[i] != new]
        mine = [i for i in rest if labels[i] == new]
        lost = accuracy(closed, vectors[old], [labels[i] for i in old]) - accuracy(
            opened, vectors[old], [labels[i] for i in old]
        )
        lost_zero = accuracy(
            Classifier(others, zero.matrix[rows], 100.0), vectors[old], [labels[i] for i in old]
        ) - accuracy(zero, vectors[old], [labels[i] for i in old])
        own, before = (accuracy(c, vectors[mine], [new] * len(mine)) for c in (opened, zero))
        print(
            f"{new:9}  {own:15.3f}  {before:9.3f}  {100 * lost:+10.2f} "
            f"(zero-shot itself {100 * lost_zero:+.2f})"
        )


def following() -> None:
    """`next` against a random choice: 20 runs of `pulled`, batches of ten, 120 images held out."""
    vectors, labels = cifar10()
    zero = prompts(NAMES)
    chosen: dict[int, list[float]] = {}
    random: dict[int, list[float]] = {}
    each: list[float] = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(labels))
        rest, pool = order[:120].tolist(), order[120:].tolist()
        of_rest = [labels[i] for i in rest]

        def score(rows: list[int], rest: list[int] = rest, of_rest: list[str] = of_rest) -> float:
            if not rows:
                return accuracy(zero, vectors[rest], of_rest)
            fitted = fit(vectors[rows], [labels[i] for i in rows], zero, method="pulled")
            return accuracy(fitted.classifier, vectors[rest], of_rest)

        have: list[int] = []
        current = zero
        for count in range(0, 90, 10):
            chosen.setdefault(count, []).append(score(have))
            random.setdefault(count, []).append(score(pool[:count]))
            if have:
                current = fit(vectors[have], [labels[i] for i in have], zero, method="pulled").classifier
            left = [i for i in pool if i not in have]
            picked = select(vectors[left], current, 10, labelled=vectors[have] if have else None)
            have += [left[i] for i in picked]
        eight = [i for name in NAMES for i in [j for j in pool if labels[j] == name][:8]]
        each.append(score(eight))
    print("labels ", *(f"{count:6}" for count in chosen))
    print("next   ", *(f"{np.mean(v):6.3f}" for v in chosen.values()))
    print("random ", *(f"{np.mean(v):6.3f}" for v in random.values()))
    target = float(np.mean(each))
    needed = next((count for count, v in chosen.items() if np.mean(v) >= target), None)
    print(f"a random choice of 8 a label (80 labels): {target:.3f}; next reaches it with {needed} labels")


PARTS: dict[str, Callable[[], None]] = {
    "gains": gains,
    "probe": probe,
    "estimator": estimator,
    "speed": speed,
    "adapt": adapting,
    "added": added,
    "next": following,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        print(f"\n{name}: {PARTS[name].__doc__}")
        PARTS[name]()
