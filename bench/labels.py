"""A tree of labels on recorded vectors of OpenAI's ViT-B/32, and five facets of drawings: docs/labels.md.

    python bench/labels.py            # the tree
    python bench/labels.py --facets   # 1,000 drawings, the shipped checkpoint
    python bench/labels.py --several  # micrographs with several tags each; drawings without examples
    python bench/labels.py --inner    # what the prompts of inner nodes bring
    python bench/labels.py --speed    # a tree of 2,000 labels against the labels alone, 100,000 vectors

The recorded vectors are no part of the project. Needs numpy alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import recorded

import nshot
from nshot.classifier.several import several_zero_shot
from nshot.classifier.tree import UNCALIBRATED, Placing
from nshot.decision import several
from nshot.decision.rollup import Ancestors, threshold_for
from nshot.decision.softmax import Reals, activate
from nshot.embeddings import Embeddings
from nshot.labels.facets import ready_facets
from nshot.labels.tree import Tree, read_tree
from nshot.metrics import average_precisions, per_label
from nshot.sketchbook import COLOURS, SEEN_STYLES, SHAPES, Scene, draw, sample
from nshot.sketchbook.words import BACKGROUNDS, TEXTURES
from nshot.unit import normalize

_SPLITS = 100
_READY = {"style": "drawing style"}
Rows: TypeAlias = NDArray[np.intp]
Answered: TypeAlias = tuple[Rows, Rows]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--facets", action="store_true", help="five facets of drawings instead")
    parser.add_argument("--several", action="store_true", help="several labels per image instead")
    parser.add_argument("--inner", action="store_true", help="the prompts of inner nodes instead")
    parser.add_argument("--speed", action="store_true", help="processor time instead")
    given = parser.parse_args()
    parts = {"facets": _facets, "several": _several, "inner": _inner, "speed": _speed}
    if asked := [run for name, run in parts.items() if getattr(given, name)]:
        for run in asked:
            run()
        return
    print("set          asked   covered  depth   roll-up: covered  depth   set's ancestor: covered  depth")
    for coverage in (0.95, 0.98):
        _row("CIFAR-10", *_cifar(), coverage)
    tree, vectors, targets = _products()
    _row("products", tree, None, targets, 0.9, vectors)


def _several() -> None:
    """Macro F1 of thresholds per label, shrunk, against one tuned threshold and unshrunk ones; mAP."""
    with np.load(recorded.FOLDER.parent / "recorded2" / "micrographs_vitb32.npz") as data:
        vectors, tags = normalize(data["image_embeds"]), data["tag_matrix"]
        names = [str(name) for name in data["tag_names"]]
    labels = [tuple(name for name, own in zip(names, row, strict=True) if own) for row in tags]
    images = Embeddings.of(vectors, labels=labels)
    rows = []
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(vectors))
        shown, rest = order[: len(order) // 2].tolist(), order[len(order) // 2 :]
        classifier = nshot.fit(images[shown], multi=True, seed=seed)
        place = [names.index(label) for label in classifier.labels]
        learnt, truth = tags[shown][:, place], tags[rest][:, place]
        known = np.flatnonzero((learnt.sum(axis=0) >= 2) & truth.any(axis=0))
        evidence = classifier.logits(vectors[rest])[:, known]
        held = classifier.report.evidence[:, known]
        shrunk = several.fit_thresholds(held, learnt[:, known])
        single = several.common_threshold(held, learnt[:, known])
        own = [several.own_threshold(held[:, k], learnt[:, known[k]]) for k in range(len(known))]
        scores = [per_label(evidence >= at, truth[:, known]).f1.mean() for at in (shrunk, single, own, 0.0)]
        rows.append([*scores, np.mean(average_precisions(evidence, truth[:, known]))])
    table = np.array(rows)
    print("micrographs, 20 splits    shrunk   one tuned   unshrunk   at score 0.5    mAP")
    print("macro F1, mean         " + "".join(f"{value:10.3f}" for value in table.mean(axis=0)))
    gain = table[:, 0] - table[:, 1]
    print(
        f"shrunk over one tuned: {gain.mean():+.3f}, standard deviation {gain.std():.3f}, "
        f"better in {(gain > 0).sum()} of 20"
    )
    clip = nshot.load("sketchbook", precision="f32")
    scenes = [sample(500_000 + number) for number in range(400)]
    tagged = [{w for t in s.things for w in (t.colour, t.shape, t.texture)} for s in scenes]
    drawn = clip.embed([draw(scene, 48) for scene in scenes]).with_labels([sorted(own) for own in tagged])
    words = list(drawn.classes)
    plain, each = nshot.zero_shot(clip, words), several_zero_shot(clip, words)
    truth = np.array([[word in own for word in words] for own in tagged])
    evidence = each.logits(drawn.vectors)
    ways = {
        "cosine": plain.cosines(drawn.vectors),
        "softmax over the labels": np.log(plain.scores(drawn.vectors)),
        "labels and background": evidence,
    }
    for name, scored in ways.items():
        print(f"drawings, mAP by {name}: {np.mean(average_precisions(scored, truth)):.3f}")
    assert each.decision is not None
    assert each.decision.several is not None
    told = per_label(each.decision.several.shown(evidence), truth).f1.mean()
    print(
        f"drawings, mean F1 at the threshold of no examples: {told:.3f}, cross-validated thresholds: "
        f"{per_label(several.held_out(evidence, truth), truth).f1.mean():.3f}"
    )


def _facets() -> None:
    """Each facet's accuracy together and alone, and the processor time of five against that of one."""
    truths: dict[str, tuple[Sequence[str], Callable[[Scene], str]]] = {
        "shape": (SHAPES, lambda scene: scene.things[0].shape),
        "colour": (list(COLOURS), lambda scene: scene.things[0].colour),
        "texture": (TEXTURES, lambda scene: scene.things[0].texture),
        "style": (SEEN_STYLES, lambda scene: scene.style),
        "background": (list(BACKGROUNDS), lambda scene: scene.background),
    }
    clip = nshot.load("sketchbook", precision="f32")
    scenes = [sample(9_400_000_000_000 + number, several=0) for number in range(1000)]
    images = [draw(scene) for scene in scenes]
    five = nshot.Facets.zero_shot(clip, {name: list(labels) for name, (labels, _) in truths.items()})
    one = nshot.Facets({"shape": five["shape"]})
    list(one.stream(clip.embed_images(images)))  # warm
    ratios = []
    for _ in range(5):
        times = []
        for asked in (one, five):
            begun = time.process_time()
            together = list(asked.stream(clip.embed_images(images)))
            times.append(time.process_time() - begun)
        ratios.append(times[1] / times[0])
    print(f"processor time of five facets against one, median of 5: {np.median(ratios):.3f}")
    embedded = clip.embed(images)
    for name, (_, truth) in truths.items():
        single = [answer.label for answer in five[name].predict(embedded)]
        both = [each.facets[name].label for each in together if isinstance(each, nshot.Faceted)]
        right = [
            np.mean([a == truth(s) for a, s in zip(told, scenes, strict=True)]) for told in (both, single)
        ]
        ready = nshot.Facets.zero_shot(clip, {name: ready_facets()[_READY.get(name, name)]})[name]
        told = np.mean([a.label == truth(s) for a, s in zip(ready.predict(embedded), scenes, strict=True)])
        print(f"{name:12} together {right[0]:.3f}   alone {right[1]:.3f}   the ready facet {told:.3f}")


def _inner() -> None:
    """The leaves' loss, coverage and depth by how much the prompts of inner nodes count."""
    known, sets = recorded.bank(), recorded.sets()
    ways: dict[str, dict[str, tuple[str, ...]]] = {
        "cifar10": {
            **dict.fromkeys(("car", "truck"), ("vehicle", "land vehicle")),
            **dict.fromkeys(("deer", "horse"), ("animal", "mammal")),
            **dict.fromkeys(("cat", "dog"), ("animal", "mammal", "carnivore")),
            **dict.fromkeys(("bird", "frog"), ("animal",)),
            "airplane": ("vehicle", "aircraft"),
            "boat": ("vehicle", "watercraft"),
        },
        "fashion": {
            **dict.fromkeys(
                ("Sandals", "Flip Flops", "Formal Shoes", "Sports Shoes", "Heels"), ("footwear",)
            ),
            **dict.fromkeys(("Watches", "Handbags", "Caps"), ("jewelry",)),
            **dict.fromkeys(("Jeans", "Trousers", "Leggings"), ("clothes", "trousers")),
            **dict.fromkeys(("Tshirts", "Shirts", "Sweaters"), ("clothes", "shirt")),
        },
    }
    # two inner nodes are called as a leaf's prompt is: only their names differ from it
    spoken = {"trousers (all)": "trousers", "shirt (all)": "shirt"}
    print("set       weight   loss   uncalibrated: right  depth   at .9: covered  depth")
    for name, above in ways.items():
        given = sets[name]
        tree = Tree([(*(f"{node} (all)" for node in above[label]), label) for label in given.labels])
        assert given.prompts is not None
        zero = nshot.Classifier(given.labels, given.prompts, scale=100.0)
        words = {node: spoken.get(node, node.removesuffix(" (all)")) for node in tree.inner}
        words = {node: word for node, word in words.items() if word in known}
        inner = nshot.Classifier(list(words), [known[word] for word in words.values()], scale=100.0)
        own = np.array([tree.leaves.index(label) for label in given.labels])[given.targets]
        spans, nodes, every = np.stack([own, own + 1], axis=1), Ancestors(tree.paths), np.arange(len(own))
        for weight in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
            asked = nshot.TreeClassifier(zero, tree, Placing((0.0,), 0.5, weight), inner=inner)
            p = asked.shares(given.vectors)
            loss = -np.log(p[every, own]).mean()
            right, deep = _measured(nodes, own, every, *nodes.answers(p, UNCALIBRATED))
            figures = []
            for seed in range(_SPLITS):
                rng = np.random.default_rng(seed)
                fit, test = np.array_split(rng.permutation(len(own)), 2)
                limit = threshold_for(nodes.scores(p[fit], spans[fit]), 0.9, rng.random(len(test)))
                figures.append(_measured(nodes, own, test, *nodes.answers(p[test], limit)))
            covered, depth = np.mean(figures, axis=0)
            print(
                f"{name:9} {weight:6.1f} {loss:6.3f} {right:21.3f} {deep:6.3f} {covered:16.3f} {depth:6.3f}"
            )


def _speed() -> None:
    """Processor time of answering 100,000 vectors: 2,000 labels alone, and with a tree over them."""
    rng = np.random.default_rng(0)
    tree = Tree([("all", f"a{k // 100}", f"b{k // 10}", f"c{k}") for k in range(2000)])
    flat = nshot.Classifier(tree.leaves, rng.normal(size=(2000, 512)), scale=100.0)
    inner = nshot.Classifier(tree.inner, rng.normal(size=(len(tree.inner), 512)), scale=100.0)
    vectors = Embeddings.of(normalize(rng.normal(size=(100_000, 512))))

    def seconds(asked: nshot.Classifier | nshot.TreeClassifier) -> float:
        begun = time.process_time()
        assert sum(1 for _ in asked.stream(vectors.records())) == len(vectors)
        return time.process_time() - begun

    trees = {
        "leaves alone": nshot.TreeClassifier(flat, tree),
        "inner nodes too": nshot.TreeClassifier(flat, tree, inner=inner),
    }
    for name, asked in trees.items():
        before, with_tree, after = seconds(flat), seconds(asked), seconds(flat)
        speed = (before + after) / 2 / with_tree
        print(f"{name:16} flat {before:.1f} and {after:.1f} s, tree {with_tree:.1f} s: {100 * speed:.0f} %")


def _cifar() -> tuple[Tree, NDArray[np.float64], NDArray[np.intp]]:
    tree = read_tree(recorded.FOLDER.parent / "taxonomies" / "cifar10_wordnet.json")
    vectors, names = recorded.cifar10()
    known = {"boat": "ship"}
    classifier = recorded.prompts(recorded.NAMES)
    place = [tree.leaves.index(known.get(name, name)) for name in recorded.NAMES]
    shares = np.empty((len(vectors), 10))
    shares[:, place] = classifier.scores(vectors)
    return tree, shares, np.array([tree.leaves.index(known.get(name, name)) for name in names])


def _products() -> tuple[Tree, NDArray[np.float64], NDArray[np.intp]]:
    with np.load(recorded.SETS / "products_vitb32.npz") as data:
        vectors = recorded.unit(data["image_embeds"])
        tops = [str(data["classes"][k]) for k in data["labels"]]
        names = [(top, f"{top}: {sub}") for top, sub in zip(tops, data["subcategory"], strict=True)]
    counts = {name: names.count(name) for name in names}
    kept = [row for row, name in enumerate(names) if counts[name] >= 4]
    tree = Tree([("product", *name) for name in sorted({names[row] for row in kept})])
    targets = np.array([tree.leaves.index(names[row][-1]) for row in kept])
    return tree, vectors[kept], targets


def _row(
    name: str,
    tree: Tree,
    shares: NDArray[np.float64] | None,
    targets: NDArray[np.intp],
    coverage: float,
    vectors: NDArray[np.float64] | None = None,
) -> None:
    nodes, figures = Ancestors(tree.paths), []
    for seed in range(_SPLITS):
        rng = np.random.default_rng(seed)
        own, rows, on = shares, rng.permutation(len(targets)), targets
        if vectors is not None:  # two examples of each label are learnt from
            learnt = np.concatenate(
                [rng.permutation(np.flatnonzero(targets == k))[:2] for k in range(len(tree.leaves))]
            )
            rest = np.setdiff1d(np.arange(len(targets)), learnt)
            means = recorded.unit(
                [vectors[learnt][targets[learnt] == k].mean(0) for k in range(len(tree.leaves))]
            )
            own, on = activate(30.0 * vectors[rest] @ means.T, "softmax"), targets[rest]
            rows = rng.permutation(len(rest))
        assert own is not None
        half = len(rows) // 2
        fit, test = rows[:half], rows[half:]
        figures.append(
            [
                *_measured(nodes, on, test, *_ours(nodes, own, on, fit, test, coverage)),
                *_measured(nodes, on, test, *_roll_up(nodes, own, on, fit, test, coverage)),
                *_measured(nodes, on, test, *_of_set(nodes, own, on, fit, test, coverage)),
            ]
        )
    a, b, c, d, e, f = np.mean(figures, axis=0)
    print(f"{name:12} {coverage:5.2f} {a:9.4f} {b:6.3f} {c:17.4f} {d:6.3f} {e:24.4f} {f:6.3f}")


def _ours(nodes: Ancestors, p: Reals, y: Rows, fit: Rows, test: Rows, coverage: float) -> Answered:
    spans = np.stack([y[fit], y[fit] + 1], axis=1)
    drawn = np.random.default_rng(int(test[0])).random(len(test))
    return nodes.answers(p[test], threshold_for(nodes.scores(p[fit], spans), coverage, drawn))


def _roll_up(nodes: Ancestors, p: Reals, y: Rows, fit: Rows, test: Rows, coverage: float) -> Answered:
    """The first node above the best leaf whose leaves' scores add up to a calibrated threshold."""

    def deepest(leaf: int) -> int:
        return int(nodes.common(leaf, leaf))

    def masses(share: Reals) -> tuple[int, list[tuple[float, int, int]]]:
        best = int(share.argmax())
        spans = [nodes.span(best, level) for level in range(deepest(best), -1, -1)]
        return best, [(float(share[a:b].sum()), int(a), int(b)) for a, b in spans]

    scores = []
    for share, own in zip(p[fit], y[fit], strict=True):
        _, ways = masses(share)
        held = next(n for n, (_, a, b) in enumerate(ways) if a <= own < b)
        scores.append(0.0 if held == 0 else max(mass for mass, _, _ in ways[:held]))
    limit = threshold_for(scores, coverage)
    best, depths = [], []
    for share in p[test]:
        leaf, ways = masses(share)
        climbed = next((n for n, (mass, _, _) in enumerate(ways) if mass > limit), len(ways) - 1)
        best.append(leaf)
        depths.append(deepest(leaf) - climbed)
    return np.array(best), np.array(depths)


def _of_set(nodes: Ancestors, p: Reals, y: Rows, fit: Rows, test: Rows, coverage: float) -> Answered:
    """The ancestor of a set that is calibrated to hold the leaf itself."""
    return nodes.answers(p[test], threshold_for(1 - p[fit, y[fit]], coverage))


def _measured(nodes: Ancestors, y: Rows, test: Rows, best: Rows, depth: Rows) -> tuple[float, float]:
    first, end = nodes.span(best, depth)
    return float(((first <= y[test]) & (y[test] < end)).mean()), float(depth.mean())


if __name__ == "__main__":
    main()
