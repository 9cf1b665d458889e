"""How far decisions can be believed, on recorded vectors of OpenAI's ViT-B/32: the tables of docs/trust.md.

    python bench/decisions.py [--data FOLDER] [--json]
    python bench/decisions.py --every [calibration] [sets] [labels] [intervals]

The recorded vectors are no part of the project; FOLDER holds cifar10_vitb32.npz, text_bank_vitb32.npz,
photos50_vitb32.npz and flickr8k_vitb32.npz. Needs numpy alone, and takes half a minute. With --every, the
tables over every recorded set; peers stand beside them where they are installed (pip install cleanlab mapie).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import combinations, product
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import recorded
from recorded import LabelledSet

from nshot.classifier.classifier import Classifier
from nshot.decision import (
    EVERYDAY,
    RULES,
    Decision,
    Rejection,
    default_rejection,
    fit_calibration,
    fit_conformal,
    fit_decision,
)
from nshot.decision.background import unlike
from nshot.decision.conformal import Kind
from nshot.decision.softmax import activate
from nshot.evaluation import label_errors
from nshot.metrics import (
    auroc,
    average_precision,
    brier,
    fpr_at_tpr,
    nll,
    per_class,
    reliability,
    share,
    wilson,
)
from nshot.unit import normalize

NAMES = "airplane car bird cat deer dog frog horse boat truck".split()  # noqa: SIM905
SCALE = 100.0
KINDS: tuple[Kind, ...] = ("least", "adaptive")
DATA = Path(__file__).parents[2] / "shared" / "data" / "recorded"

Array = NDArray[Any]


class Task(NamedTuple):
    """A classifier, images that show one of its labels, and images that show none."""

    classifier: Classifier
    known: Array
    unknown: Array


class Recorded:
    """The recorded vectors, as the tasks need them."""

    def __init__(self, folder: Path) -> None:
        cifar = np.load(folder / "cifar10_vitb32.npz")
        self.images, self.targets = normalize(cifar["image_embeds"]), cifar["labels"].astype(int)
        photos = np.load(folder / "photos50_vitb32.npz")
        self.photos = normalize(photos["image_embeds"])
        number = np.array([int(name.split(".")[0]) for name in photos["files"]])
        # the files are in this order: ten animals, ten people, a car, two boats, a train, a robot
        kinds = ((10, "dog"), (20, "cat"), (40, "person"), (42, "car"), (46, "boat"), (48, "train"))
        self.shows = np.array([next((kind for end, kind in kinds if n <= end), "robot") for n in number])
        self.flickr = np.load(folder / "flickr8k_vitb32.npz")
        bank = np.load(folder / "text_bank_vitb32.npz")
        self._texts: dict[str, Array] = {}
        for name in ("lvis", "o365", "oid", "coco"):
            for text, row in zip(bank[f"{name}_names"], bank[f"{name}_embeds"], strict=True):
                self._texts.setdefault(str(text).lower().replace("_", " "), row.astype(np.float32))
        self.background = self.text(EVERYDAY)

    def text(self, names: Any) -> Array:
        """Rows of the text bank."""
        return normalize(np.array([self._texts[name] for name in names]))

    def classifier(self, names: Any) -> Classifier:
        """Zero-shot over these names."""
        return Classifier(list(names), self.text(names), SCALE)


def calibration(data: Recorded, draws: int = 20) -> dict[str, float]:
    """Scores as they are and calibrated, on the half of the images that was not fitted on."""
    logits = data.classifier(NAMES).logits(data.images)
    rows = []
    for half, rest in _halves(len(logits), draws):
        fitted = fit_calibration(logits[half], data.targets[half])
        row = [fitted.temperature]
        for scores in (activate(logits[rest], "softmax"), activate(fitted.apply(logits[rest]), "softmax")):
            y = data.targets[rest]
            error = reliability(scores.max(axis=1), scores.argmax(axis=1) == y).error
            row += [nll(scores, y), error, brier(scores, y)]
        rows.append(row)
    names = ["temperature", "nll", "ece", "brier", "nll calibrated", "ece calibrated", "brier calibrated"]
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def sets(data: Recorded, coverage: float, *, randomized: bool, draws: int = 200) -> dict[str, float]:
    """How often sets hold the right label, on images that neither they nor the temperature learnt from."""
    logits = data.classifier(NAMES).logits(data.images)
    rows: list[list[float]] = []
    for half, rest in _halves(len(logits), draws):
        fitted = fit_calibration(logits[half], data.targets[half])
        chance = activate(fitted.apply(logits), "softmax")
        made = fit_conformal(chance[half], data.images[half], data.targets[half], randomized=randomized)
        found = made.sets(chance[rest], data.images[rest], coverage)
        held = share([own in labels for own, labels in zip(data.targets[rest], found, strict=True)])
        sizes = [len(labels) for labels in found]
        rows.append([held, float(np.mean(sizes)), share([not size for size in sizes])])
    return dict(zip(("covered", "size", "empty"), np.mean(rows, axis=0).tolist(), strict=True))


def tasks(data: Recorded) -> Iterator[tuple[str, list[Task]]]:
    """Images of the labels against images of none of them."""
    x, y = data.images, data.targets
    ten = data.classifier(NAMES)
    outside = np.isin(data.shows, ["person", "train", "robot"])
    flickr = normalize(data.flickr["image_embeds"])
    yield "ten names: CIFAR-10 against 12 photographs of none of them", [Task(ten, x, data.photos[outside])]
    yield (
        "ten names: 13 photographs of them against 12 of none",
        [Task(ten, data.photos[~outside], data.photos[outside])],
    )
    yield "ten names: CIFAR-10 against all 25 photographs (13 do show one)", [Task(ten, x, data.photos)]
    yield "ten names: CIFAR-10 against Flickr scenes (some do show one)", [Task(ten, x, flickr)]
    rng = np.random.default_rng(0)
    for count in (2, 5, 8):
        drawn = [np.sort(rng.choice(10, count, replace=False)) for _ in range(20)]
        yield (
            f"{count} of the ten names: the others held out",
            [
                Task(data.classifier([NAMES[k] for k in some]), x[np.isin(y, some)], x[~np.isin(y, some)])
                for some in drawn
            ],
        )
    yield (
        "9 of the ten names: the other held out",
        [Task(data.classifier([n for n in NAMES if n != NAMES[k]]), x[y != k], x[y == k]) for k in range(10)],
    )
    pairs = list(combinations(("dog", "cat", "person", "boat"), 2))
    yield (
        "pairs of labels on the 25 photographs",
        [
            Task(data.classifier(pair), data.photos[inside], data.photos[~inside])
            for pair in pairs
            for inside in [np.isin(data.shows, pair)]
        ],
    )


def rejection(data: Recorded) -> list[dict[str, Any]]:
    """AUROC and FPR at 95 % TPR of every rule, and what the default threshold does, by task."""
    table = []
    for name, some in tasks(data):
        row: dict[str, Any] = {"task": name}
        for rule in RULES:
            evidence = [_evidence(data, rule, task) for task in some]
            row[rule] = (
                float(np.mean([auroc(known, unknown) for known, unknown in evidence])),
                float(np.mean([fpr_at_tpr(known, unknown) for known, unknown in evidence])),
            )
        default = [default_rejection(task.classifier.matrix, data.background) for task in some]
        row["default"] = tuple(
            float(
                np.mean(
                    [
                        share(rule.evidence(task.classifier.compare(getattr(task, which))) >= rule.threshold)
                        for rule, task in zip(default, some, strict=True)
                    ]
                )
            )
            for which in ("known", "unknown")
        )
        table.append(row)
    return table


def search(data: Recorded) -> float:
    """Recall@1 of text to image over the Flickr vectors: the same product, the images as rows."""
    photographs = Classifier([str(k) for k in data.flickr["image_ids"]], data.flickr["image_embeds"], SCALE)
    best = photographs.cosines(data.flickr["text_embeds"]).argmax(axis=1)
    return share(best == data.flickr["caption_image"])


def _evidence(data: Recorded, rule: Any, task: Task) -> tuple[Array, Array]:
    background = unlike(data.background, task.classifier.matrix) if rule == "background" else None
    asked = Rejection(rule, 0.0, background)
    compare = task.classifier.compare
    return asked.evidence(compare(task.known)), asked.evidence(compare(task.unknown))


def _halves(n: int, draws: int) -> Iterator[tuple[Array, Array]]:
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(n)
        yield order[: n // 2], order[n // 2 :]


# Over every recorded set


def every_calibration() -> None:
    """What `calibrate` changes on the other half, ten splits of each set; then with a tenth of them wrong."""
    print(
        f"{'':20}{'NLL':>9}{'ECE':>8}{'Brier':>8}{'used':>7}{'':9}{'NLL':>9}{'ECE':>8}{'Brier':>8}{'used':>7}"
    )
    for name, data in _prompted():
        cells = ""
        for wrong in (0.0, 0.1):
            rows = []
            for draw, (half, rest) in enumerate(_halves(len(data.targets), 10)):
                rng, given = np.random.default_rng(draw), data.targets[half].copy()
                flipped = rng.random(len(half)) < wrong
                given[flipped] = rng.integers(0, len(data.labels), flipped.sum())
                zero, y = data.zero, data.targets[rest]
                images = zero.compare(data.vectors[half])
                decision, _ = fit_decision(images, given, zero.matrix, reject=None, seed=draw)
                logits = zero.logits(data.vectors[rest])
                raw, final = Decision().scores(logits, "softmax"), decision.scores(logits, "softmax")
                before, after = (
                    (nll(p, y), reliability(p.max(1), p.argmax(1) == y).error, brier(p, y))
                    for p in (raw, final)
                )
                rows.append([*np.subtract(after, before), decision.calibrated])
            change = np.mean(rows, axis=0)
            cells += "".join(f"{v:+{w}.3f}" for v, w in zip(change[:3], (9, 8, 8), strict=True))
            cells += f"{100 * change[3]:5.0f} %{'':9}"
        print(f"{name:20}{cells}")


def every_sets() -> None:
    """Sets at .9 and .95 on the other half, 100 splits: coverage and mean size, and plain LAC's (MAPIE's)."""
    print(f"{'':20}{'':6}{'nshot':>16}{'adaptive':>16}{'plain LAC':>16}")
    for name, data in _prompted():
        logits = data.zero.logits(data.vectors)
        for coverage in (0.9, 0.95):
            rows = []
            for half, rest in _halves(len(logits), 100):
                chance = activate(fit_calibration(logits[half], data.targets[half]).apply(logits), "softmax")
                y, row = data.targets[rest], []
                for kind in KINDS:
                    made = fit_conformal(chance[half], data.vectors[half], data.targets[half], kind=kind)
                    found = made.sets(chance[rest], data.vectors[rest], coverage)
                    row += [
                        share([t in s for t, s in zip(y, found, strict=True)]),
                        np.mean([*map(len, found)]),
                    ]
                plain = _lac(chance[half], data.targets[half], chance[rest], coverage)
                rows.append([*row, plain[np.arange(len(y)), y].mean(), plain.sum(1).mean()])
            cells = np.mean(rows, axis=0)
            told = "".join(f"{cells[i]:9.3f}{cells[i + 1]:7.2f}" for i in (0, 2, 4))
            print(f"{name:20}{coverage:<6g}{told}")


def _lac(chance: Array, targets: Array, asked: Array, coverage: float) -> Array:
    """Plain LAC's sets, bool[n, labels]: by MAPIE where it is installed."""
    try:
        if len(targets) <= 1 / (1 - coverage):  # MAPIE refuses so few
            raise ImportError
        from mapie.classification import SplitConformalClassifier
        from sklearn.base import BaseEstimator, ClassifierMixin
    except ImportError:
        own = np.sort(1 - chance[np.arange(len(chance)), targets])
        rank = int(np.ceil((len(own) + 1) * coverage - 1e-9))
        return np.asarray(1 - asked <= (own[rank - 1] if rank <= len(own) else np.inf))

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """Hands back the probabilities that it is shown."""

        classes_ = np.arange(chance.shape[1])
        is_fitted_ = True

        def fit(self, *_: Any) -> Any:
            return self

        def predict_proba(self, shown: Array) -> Array:
            return shown

        def predict(self, shown: Array) -> Array:
            return np.asarray(shown.argmax(axis=1))

    split = SplitConformalClassifier(Given(), confidence_level=coverage, conformity_score="lac", prefit=True)
    return np.asarray(split.conformalize(chance, targets).predict_set(asked)[1][:, :, 0])


def every_label_errors() -> None:
    """Average precision of "labels in doubt" where labels were swapped, and cleanlab's at the same length."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        find_label_issues = None
    print(f"{'':22}{'nshot':>8}{'classifier alone':>18}{'':4}found in as many as cleanlab's: nshot, cleanlab")
    for rate, likely in product((0.05, 0.1), (False, True)):
        rows = []
        for _, data in _prompted():
            if round(rate * len(data.targets)) < 15:
                continue
            for draw in range(5):
                given, wrong = _swapped(data, rate, likely, draw)
                scores = data.zero.scores(data.vectors)
                row = []
                for vectors in (data.vectors, None):
                    found = label_errors.find(scores, given, vectors, seed=draw)
                    place = np.full(len(given), -float(len(given)))
                    place[[s.row for s in found]] = -np.arange(len(found))
                    row.append(average_precision(place, wrong))
                if find_label_issues is not None:
                    chance = label_errors.probabilities(scores, given, data.vectors, seed=draw)
                    theirs = find_label_issues(
                        given, chance, filter_by="both", return_indices_ranked_by="self_confidence", n_jobs=1
                    )
                    ours = [s.row for s in label_errors.find(scores, given, data.vectors, seed=draw)]
                    row += [wrong[ours[: len(theirs)]].sum() / wrong.sum(), wrong[theirs].sum() / wrong.sum()]
                rows.append(row)
        cells = np.mean(rows, axis=0)
        print(
            f"{'likely' if likely else 'any'} label, {100 * rate:2.0f} %".ljust(22),
            *(f"{c:10.3f}" for c in cells),
        )


def _swapped(data: LabelledSet, rate: float, likely: bool, seed: int) -> tuple[Array, Array]:
    """Labels of which a share is wrong, and which: any other label, or the one whose images are likest."""
    rng, k = np.random.default_rng(seed), len(data.labels)
    means = normalize([data.vectors[data.targets == j].mean(axis=0) for j in range(k)])
    likest = (means @ means.T - 2 * np.eye(k)).argmax(axis=1)
    given, wrong = data.targets.copy(), np.zeros(len(data.targets), dtype=bool)
    wrong[rng.choice(len(given), round(rate * len(given)), replace=False)] = True
    given[wrong] = likest[given[wrong]] if likely else (given[wrong] + rng.integers(1, k, wrong.sum())) % k
    return given, wrong


def every_interval() -> None:
    """How often an interval of 95 % holds the true share, counted over every outcome."""
    for n, p in product((10, 30, 100), (0.5, 0.9, 0.98)):
        right = np.arange(n + 1)
        chance = np.array([comb(n, k) * p**k * (1 - p) ** (n - k) for k in right])
        low, high = wilson(right, n).T
        print(f"n {n:3}  share {p:<4}  {chance[(low <= p) & (p <= high)].sum():.3f}")
    print("F1 of the first of four classes, 4,000 draws each")
    generator = np.random.default_rng(0)
    for n, p in product((10, 30, 100), (0.5, 0.7, 0.9)):
        # n images of each class; a wrong answer is any of the other three; F1 over endless images is p
        rows = generator.multinomial(
            n, [[p if i == j else (1 - p) / 3 for j in range(4)] for i in range(4)], (4000, 4)
        )
        found = [per_class(matrix).f1_interval[0] for matrix in rows]
        print(f"n {n:3}  F1 {p:<4}  {np.mean([low <= p <= high for low, high in found]):.3f}")


def _prompted() -> Iterator[tuple[str, LabelledSet]]:
    for name, data in recorded.sets().items():
        if data.prompts is not None:
            yield name, data


EVERY = {
    "calibration": every_calibration,
    "sets": every_sets,
    "labels": every_label_errors,
    "intervals": every_interval,
}


def measure(data: Recorded) -> dict[str, Any]:
    """Every figure."""
    return {
        "accuracy": share(data.classifier(NAMES).logits(data.images).argmax(axis=1) == data.targets),
        "calibration": calibration(data),
        "sets": {
            f"{coverage:g}, {'exact coverage' if randomized else 'never empty'}": sets(
                data, coverage, randomized=randomized
            )
            for coverage in (0.8, 0.9, 0.95)
            for randomized in (True, False)
        },
        "rejection": rejection(data),
        "search recall@1": search(data),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--every", nargs="*", choices=list(EVERY))
    given = parser.parse_args()
    if given.every is not None:
        for name in given.every or EVERY:
            print(f"\n{name}: {EVERY[name].__doc__}")
            EVERY[name]()
        return
    figures = measure(Recorded(given.data))
    if given.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"accuracy {figures['accuracy']:.3f}   search recall@1 {figures['search recall@1']:.3f}")
    print("calibration  " + "  ".join(f"{k} {v:.3f}" for k, v in figures["calibration"].items()))
    for name, row in figures["sets"].items():
        print(f"sets {name:22}  " + "  ".join(f"{k} {v:.3f}" for k, v in row.items()))
    print(f"\n{'AUROC / FPR at 95 % TPR':66}" + "".join(f"{rule:>14}" for rule in RULES), "  best - default")
    for row in figures["rejection"]:
        best = max(row[rule][0] for rule in RULES)
        cells = "".join(f"  {row[rule][0]:.3f}/{row[rule][1]:.3f}"[:14].rjust(14) for rule in RULES)
        print(f"{row['task']:66}{cells}   {best - row['background'][0]:+.3f}")
    print("\ndefault threshold: share answered of images of the labels, and of the others")
    for row in figures["rejection"]:
        print(f"{row['task']:66}  {row['default'][0]:.3f}  {row['default'][1]:.3f}")


if __name__ == "__main__":
    main()
