"""What examples buy, measured: the figures of docs/few-shot.md, on recorded vectors of real images.

    python bench/few_shot.py            # all
    python bench/few_shot.py gains next # some

The vectors are looked for beside the repository; scikit-learn is needed for the comparison with it.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import recorded
from recorded import NAMES, LabelledSet, accuracy, cifar10, draw, prompts

from nshot.classifier.classifier import Classifier
from nshot.few_shot import adapt, fit, select
from nshot.few_shot.curve import ALL, PROBE, curve
from nshot.few_shot.heads import Shown
from nshot.few_shot.logistic import plain_probe
from nshot.metrics import paired_gain

DRAWS = 20
REGIMES = ("1", "2", "4", "8", "16", "geometric", "alternating")

Rows = NDArray[np.intp]


def shots(sizes: NDArray[np.intp], regime: str) -> NDArray[np.intp]:
    """Examples of each label: 1, 2, 4, 8, 16 in turn, 1 and 24 in turn, or the same for all.

    A quarter of every label's images, and one at least, is left to measure on.
    """
    turns = {"geometric": [1, 2, 4, 8, 16], "alternating": [1, 24]}.get(regime) or [int(regime)]
    wanted = np.resize(turns, len(sizes))
    counts: NDArray[np.intp] = np.minimum(wanted, np.maximum(1, sizes - np.maximum(1, sizes // 4)))
    return counts


def split(targets: NDArray[np.intp], regime: str, seed: int) -> tuple[Rows, Rows]:
    """Rows to show and rows to measure on."""
    generator = np.random.default_rng(seed)
    counts = shots(np.bincount(targets), regime)
    shown = np.concatenate(
        [generator.permutation(np.flatnonzero(targets == k))[:count] for k, count in enumerate(counts)]
    )
    return shown, np.setdiff1d(np.arange(len(targets)), shown)


def right(classifier: Classifier, data: LabelledSet, rows: Rows) -> NDArray[np.bool_]:
    """Which of the rows get their label; the classifier may have its labels in another order."""
    place = np.array([data.labels.index(label) for label in classifier.labels])
    return np.asarray(place[classifier.logits(data.vectors[rows]).argmax(axis=1)] == data.targets[rows])


def tip_adapter(data: LabelledSet, shown: Rows, rest: Rows) -> NDArray[np.bool_]:
    """Tip-Adapter's cache as published (Zhang et al. 2022): alpha 1, beta 5.5, nothing trained."""
    assert data.prompts is not None
    queries, keys = data.vectors[rest], data.vectors[shown]
    affinity = np.exp(-5.5 * (1.0 - queries @ keys.T))
    logits = 100.0 * queries @ data.prompts.T + affinity @ np.eye(len(data.labels))[data.targets[shown]]
    return np.asarray(logits.argmax(axis=1) == data.targets[rest])


def fitted(data: LabelledSet, shown: Rows, prompts: Classifier | None) -> Classifier:
    """What `fit` makes of these examples."""
    return fit(data.vectors[shown], [data.labels[k] for k in data.targets[shown]], prompts).classifier


def gains() -> None:
    """Gain over zero-shot in points, every set with prompts, 20 draws; and draws significantly below it."""
    named = {name: data for name, data in recorded.sets().items() if data.prompts is not None}
    mean: dict[str, list[float]] = {regime: [] for regime in REGIMES}
    below: dict[str, list[bool]] = {regime: [] for regime in REGIMES}
    cache: dict[str, list[float]] = {regime: [] for regime in REGIMES}
    print(f"{'':17} zero-shot" + "".join(f"{regime:>12}" for regime in REGIMES))
    for name, data in named.items():
        cells, bases = [], []
        for regime in REGIMES:
            found = []
            for seed in range(DRAWS):
                shown, rest = split(data.targets, regime, seed)
                base = right(data.zero, data, rest).astype(float)
                gain = right(fitted(data, shown, data.zero), data, rest) - base
                found.append(gain.mean())
                below[regime].append(gain.mean() < -2 * gain.std() / len(gain) ** 0.5)
                cache[regime].append(tip_adapter(data, shown, rest).mean() - base.mean())
                bases.append(base.mean())
            mean[regime].append(float(np.mean(found)))
            cells.append(f"{100 * np.mean(found):+12.1f}")
        print(f"{name:17} {100 * np.mean(bases):9.1f}" + "".join(cells), flush=True)
    print(f"{'mean of the sets':27}" + "".join(f"{100 * np.mean(mean[r]):+12.1f}" for r in REGIMES))
    print(f"{'Tip-Adapter, untrained':27}" + "".join(f"{100 * np.mean(cache[r]):+12.1f}" for r in REGIMES))
    print(f"{'draws below zero-shot, %':27}" + "".join(f"{100 * np.mean(below[r]):12.1f}" for r in REGIMES))


def pairs() -> None:
    """The same for two labels: the likest pairs by their prompts and as many others, 10 draws."""
    regimes = ("1", "2", "4", "8", "16", "alternating")
    mean: dict[str, list[float]] = {regime: [] for regime in regimes}
    below: dict[str, list[bool]] = {regime: [] for regime in regimes}
    for data in recorded.sets(least=6).values():
        if data.prompts is None:
            continue
        likeness = data.prompts @ data.prompts.T
        every = sorted(combinations(range(len(data.labels)), 2), key=lambda pair: -likeness[pair])
        chosen = every[:4] + [every[i] for i in np.random.default_rng(0).permutation(len(every))[:4]]
        for pair in chosen:
            rows = np.isin(data.targets, pair)
            two = LabelledSet(
                data.vectors[rows],
                (data.targets[rows] == pair[1]).astype(np.intp),
                [data.labels[k] for k in pair],
                data.prompts[list(pair)],
            )
            for regime, seed in product(regimes, range(10)):
                shown, rest = split(two.targets, regime, seed)
                gain = right(fitted(two, shown, two.zero), two, rest) - right(two.zero, two, rest).astype(
                    float
                )
                mean[regime].append(gain.mean())
                below[regime].append(gain.mean() < -2 * gain.std() / len(gain) ** 0.5)
    print(f"{'':27}" + "".join(f"{regime:>12}" for regime in regimes))
    print(f"{'mean gain':27}" + "".join(f"{100 * np.mean(mean[r]):+12.1f}" for r in regimes))
    print(f"{'draws below zero-shot, %':27}" + "".join(f"{100 * np.mean(below[r]):12.1f}" for r in regimes))


def useless() -> None:
    """Prompts that know nothing (unrelated words; prompts almost equal), against fits without prompts."""
    from sklearn.linear_model import LogisticRegression

    print(f"{'shots':6}{'prompts':11}{'zero-shot':>10}{'fit':>8}{'fit alone':>11}{'scikit-learn, C=1':>19}")
    for regime, kind in product(("1", "2", "4"), ("unrelated", "equal")):
        rows = []
        for data in recorded.sets(least=4).values():
            if data.vectors.shape[1] != 512 or len(data.labels) > 25:
                continue
            noise = np.random.default_rng(1).normal(size=(len(data.labels), 512))
            words = recorded.unrelated(len(data.labels)) if kind == "unrelated" else None
            words = recorded.unit(recorded.unrelated(1) + 5e-5 * noise) if words is None else words
            zero = Classifier(data.labels, words, scale=100.0)
            for seed in range(10):
                shown, rest = split(data.targets, regime, seed)
                probe = LogisticRegression(max_iter=1000).fit(data.vectors[shown], data.targets[shown])
                rows.append(
                    (
                        right(zero, data, rest).mean(),
                        right(fitted(data, shown, zero), data, rest).mean(),
                        right(fitted(data, shown, None), data, rest).mean(),
                        probe.score(data.vectors[rest], data.targets[rest]),
                    )
                )
        base, found, alone, peer = 100 * np.mean(rows, axis=0)
        print(f"{regime:6}{kind:11}{base:10.1f}{found:8.1f}{alone:11.1f}{peer:19.1f}")


def probe() -> None:
    """The plain probe against scikit-learn's on the same draws."""
    from sklearn.linear_model import LogisticRegression

    data = recorded.sets()["cifar10"]
    for strength, regime in product((0.316, 1.0, 10.0), ("1", "4", "16")):
        apart = []
        for seed in range(5):
            shown, rest = split(data.targets, regime, seed)
            theirs = LogisticRegression(C=strength, max_iter=1000).fit(
                data.vectors[shown], data.targets[shown]
            )
            [mine] = plain_probe(Shown.of(data.vectors[shown], data.targets[shown]), 10, strengths=[strength])
            answers = mine.logits(data.vectors[rest]).argmax(axis=1)
            apart.append(
                np.mean(answers == data.targets[rest]) - theirs.score(data.vectors[rest], data.targets[rest])
            )
        print(f"C={strength:<6} {regime:2} shots: largest difference {100 * np.abs(apart).max():.2f} points")


def estimator() -> None:
    """scikit-learn's own checks of the estimator."""
    from sklearn.utils.estimator_checks import check_estimator

    from nshot.few_shot.sklearn import FewShotClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(FewShotClassifier(), on_fail=None)
    print({status: sum(r["status"] == status for r in results) for status in ("passed", "failed", "skipped")})


def speed() -> None:
    """The curve on 10,000 made-up vectors, 6 shot counts, 5 draws: processor seconds."""
    for labels in (10, 100):
        generator = np.random.default_rng(0)
        words = generator.standard_normal((labels, 512)) / 512**0.5
        common = generator.standard_normal(512) / 512**0.5
        targets = np.arange(10_000) % labels
        vectors = common + 0.25 * words[targets] + 0.05 * generator.standard_normal((10_000, 512))
        names = [f"label {i}" for i in range(labels)]
        noise = 0.04 * generator.standard_normal(words.shape)
        zero = Classifier(names, words + 0.3 * common + noise, scale=100.0)
        begun = time.process_time()
        points = curve(vectors, [names[i] for i in targets], zero, shots=(1, 2, 4, 8, 16, ALL))
        took = time.process_time() - begun
        best = {p.shots: round(p.mean, 3) for p in points if p.method == "nshot"}
        plain = {p.shots: round(p.mean, 3) for p in points if p.method == PROBE}
        print(f"{labels} labels: {took:.1f} s; nshot {best}; plain probe {plain}")


def adapting() -> None:
    """--adapt on all recorded images, no label used; the gain with a paired interval."""
    vectors, labels = cifar10()
    zero = prompts(NAMES)
    adapted = adapt(vectors, zero)
    of = np.array([NAMES.index(label) for label in labels])
    after, before = (c.logits(vectors).argmax(1) == of for c in (adapted.classifier, zero))
    low, high = paired_gain(after, before)
    gain = after.mean() - before.mean()
    print(f"{adapted.reason}: gain {100 * gain:+.2f} points (95 % {100 * low:+.2f} to {100 * high:+.2f})")


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


def following_everywhere() -> None:
    """`next` on every set with prompts, 60 labels in batches of ten: accuracy with 30 and with 60."""
    for name, data in recorded.sets().items():
        if data.prompts is None or len(data.targets) < 120:
            continue
        rows: list[list[float]] = []
        for seed in range(10):
            order = np.random.default_rng(seed).permutation(len(data.targets))[:400]
            rest, pool = np.split(order, [int(0.4 * len(order))])
            row = []
            for chosen in (True, False):
                have, current = np.empty(0, np.intp), data.zero
                for step in range(6):
                    left = np.setdiff1d(pool, have)
                    seen = data.vectors[have] if len(have) else None
                    picked = select(data.vectors[left], current, 10, labelled=seen)
                    have = np.append(have, left[picked]) if chosen else pool[: 10 * (step + 1)]
                    current = fit(
                        data.vectors[have],
                        [data.labels[k] for k in data.targets[have]],
                        data.zero,
                        method="pulled",
                    ).classifier
                    if step in (2, 5):
                        row.append(right(current, data, rest).mean())
            rows.append(row)
        a, b, c, d = 100 * np.mean(rows, axis=0)
        print(f"{name:20} next {a:5.1f} {b:5.1f}   random {c:5.1f} {d:5.1f}")


PARTS: dict[str, Callable[[], None]] = {
    "gains": gains,
    "pairs": pairs,
    "useless": useless,
    "probe": probe,
    "estimator": estimator,
    "speed": speed,
    "adapt": adapting,
    "added": added,
    "next": following,
    "next-everywhere": following_everywhere,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        print(f"\n{name}: {PARTS[name].__doc__}")
        PARTS[name]()
