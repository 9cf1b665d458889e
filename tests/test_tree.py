"""A tree of labels: the answer is the deepest node that the evidence allows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from recorded import FOLDER, needed

import nshot
from nshot.classifier.tree import Placing
from nshot.cli import run
from nshot.decision.rollup import Ancestors, threshold_for
from nshot.errors import LabelError, RequestError
from nshot.labels.tree import Tree, read_tree
from nshot.sketchbook import SHAPES, draw, sample

ANIMALS = [("animal", "dog", "beagle"), ("animal", "dog", "poodle"), ("animal", "cat"), ("car",)]


@pytest.mark.parametrize(
    "text",
    [
        '{"animal": {"dog": {"beagle": {}, "poodle": null}, "cat": {}}, "car": []}',
        '{"animal": [{"dog": ["beagle", "poodle"]}, "cat"], "car": {}}',
        "animal/dog/beagle\nanimal/dog/poodle\n\nanimal/cat\ncar\n",
        "animal,dog,beagle\nanimal,dog,poodle\nanimal,cat,\ncar,,\n",
        '{"edges": [["a", "d"], ["d", "b"], ["d", "p"], ["a", "c"]], "leaves": ["b", "p", "c", "car"],'
        ' "labels": {"a": "animal", "d": "dog", "b": "beagle", "p": "poodle", "c": "cat"}}',
    ],
)
def test_a_tree_is_read_from_json_paths_columns_and_edges(text: str, tmp_path: Path) -> None:
    (tmp_path / "tree").write_text(text)
    assert list(read_tree(tmp_path / "tree").paths) == ANIMALS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"bird": ["crane"], "machine": ["crane"]}', "'crane' is in two branches, bird/crane and machine"),
        ("a/b\na/b\n", "'b' is given twice"),
        ('{"a": ["b", "b"]}', "'b' is given twice"),
        ('{"a": ["b"], "a": ["c"]}', "given twice in one place: 'a'"),
        ('{"a": 3}', "no tree of labels at a"),
        ("{}", "no tree of labels at the top"),
        ("a//b\n", "an empty label"),
        ("", "at least one label"),
        ('{"edges": [["a", "b"], ["b", "a"]], "leaves": ["a"]}', "circle"),
        ('{"edges": [["a", "c"], ["b", "c"]], "leaves": ["c"]}', "below both"),
    ],
)
def test_what_is_no_tree_is_refused_with_the_label(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "tree").write_text(text)
    with pytest.raises(LabelError, match=told):
        read_tree(tmp_path / "tree")


def test_an_answer_is_the_common_ancestor_of_what_it_may_be() -> None:
    nodes = Ancestors(Tree(ANIMALS).paths)
    shares = np.array([[0.9, 0.1, 0, 0], [0.5, 0.4, 0.1, 0], [0.4, 0.1, 0.4, 0.1], [0.4, 0, 0.1, 0.5]])
    leaf, depth = nodes.answers(shares, 0.65)
    assert leaf.tolist() == [0, 0, 0, 3]
    assert depth.tolist() == [3, 2, 1, 0]  # beagle; dog; animal; nothing above a beagle and a car
    # the first: right at once; the second: at "dog", when poodle comes in; the last: never before the top
    spans = [(0, 1), (1, 2), (1, 2), (0, 1)]
    assert np.allclose(nodes.scores(shares, spans), [0.0, 0.6, 0.6, 0.6])


def test_answers_only_grow_with_the_threshold_and_hold_the_truth_from_their_score_on() -> None:
    rng = np.random.default_rng(0)
    paths = [(f"a{i // 6}", f"b{i // 3}", f"c{i}") for i in range(18)]
    nodes = Ancestors(paths)
    shares = rng.dirichlet(np.full(18, 0.3), 200)
    truth = rng.integers(0, 18, 200)
    scores = nodes.scores(shares, np.stack([truth, truth + 1], axis=1))
    for threshold in (0.0, 0.5, 0.8, 0.9, 0.97, 0.99):
        first, end = nodes.span(*nodes.answers(shares, threshold))
        held = (first <= truth) & (truth < end)
        assert (held == (scores <= threshold + 1e-12)).all()


@needed
def test_coverage_on_recorded_vectors_is_what_was_asked() -> None:
    from recorded import NAMES, cifar10, prompts

    tree = read_tree(FOLDER.parent / "taxonomies" / "cifar10_wordnet.json")
    vectors, names = cifar10()
    zero = prompts(NAMES)
    labels = ["ship" if name == "boat" else name for name in NAMES]
    classifier = nshot.Classifier(labels, zero.matrix, zero.scale)
    images = nshot.Embeddings.of(vectors, ["ship" if name == "boat" else name for name in names])
    covered = []
    for seed in range(20):
        rows = np.random.default_rng(seed).permutation(len(names))
        learnt, others = images[rows[:150].tolist()], images[rows[150:].tolist()]
        assert isinstance(learnt, nshot.Embeddings)
        assert isinstance(others, nshot.Embeddings)
        placed = nshot.TreeClassifier(classifier, tree).calibrated(learnt, 0.95)
        for answer, label in zip(placed.predict(others), others.label, strict=True):
            assert isinstance(answer, nshot.Placed)
            first, end = tree.spans[answer.label] if answer.label else (0, len(tree.leaves))
            covered.append(first <= tree.leaves.index(label) < end)
    assert 0.94 <= np.mean(covered) <= 0.97


def _classifier(seed: int = 0) -> tuple[nshot.TreeClassifier, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    labels = [path[-1] for path in ANIMALS]
    own = nshot.Classifier(labels[::-1], rng.normal(size=(4, 8)), scale=10.0)
    return nshot.TreeClassifier(own, Tree(ANIMALS)), rng.normal(size=(60, 8))


def test_a_saved_tree_answers_the_same_and_says_its_coverage(tmp_path: Path) -> None:
    asked, vectors = _classifier()
    labels = ["beagle", "dog", "cat", "car"] * 15  # an inner node may be the truth
    sure = asked.calibrated(nshot.Embeddings.of(vectors, labels), 0.8)
    sure.save(tmp_path / "t.nshot")
    again = nshot.open(tmp_path / "t.nshot")
    assert isinstance(again, nshot.TreeClassifier)
    assert again.predict(vectors) == sure.predict(vectors)
    told = sure.predict(vectors)[0].to_dict()
    assert told["coverage"] == 0.8
    assert told["depth"] == len(told["path"])
    assert told["label"] == (told["path"][-1] if told["path"] else None)
    assert asked.predict(vectors)[0].to_dict()["coverage"] is None
    with pytest.raises(RequestError, match="holds a tree"):
        nshot.Classifier.open(tmp_path / "t.nshot")


def test_a_coverage_that_the_images_cannot_guarantee_is_refused_with_their_number() -> None:
    asked, vectors = _classifier()
    with pytest.raises(RequestError, match="needs at least 99 labelled images, and there are 60"):
        asked.calibrated(nshot.Embeddings.of(vectors, ["cat"] * 60), 0.99)
    assert threshold_for([0.1], 0.9) == np.inf
    with pytest.raises(RequestError, match="between 0 and 1"):
        nshot.TreeClassifier(asked.classifier, asked.tree, Placing((0.1,), 1.5))


def test_calibrate_and_classify_take_a_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet

    monkeypatch.chdir(tmp_path)
    Path("tree.json").write_text(json.dumps({"round": ["circle", "ring", "crescent", "heart"], "other": [
        name for name in SHAPES if name not in ("circle", "ring", "crescent", "heart")]}))  # fmt: skip
    rows = [["image", "label"]]
    for number in range(40):
        scene = sample(9_300_000_000_000 + number, several=0)
        draw(scene).save(f"{number}.png")
        rows.append([f"{number}.png", scene.things[0].shape])
    Path("t.csv").write_text("\n".join(map(",".join, rows)))
    ask = ["classify", "t.csv", "--model", "sketchbook"]
    assert run([*ask, "--tree", "tree.json", "--format", "jsonl"]) == 0
    told = capsys.readouterr()
    assert "not calibrated" in told.err
    assert json.loads(told.out.splitlines()[0])["coverage"] is None
    calibrate = ["calibrate", "t.csv", "--tree", "tree.json", "--coverage", "0.9", "-q"]
    assert run([*calibrate, "--model", "sketchbook", "-o", "t.nshot"]) == 0
    for name in ("o.jsonl", "o.csv", "o.parquet", "o.txt"):
        assert run([*ask, "--classifier", "t.nshot", "-q", "-o", name]) == 0
    lines = [json.loads(line) for line in Path("o.jsonl").read_text().splitlines()]
    cells = list(csv.DictReader(Path("o.csv").read_text().splitlines()))
    table = pyarrow.parquet.read_table("o.parquet").to_pylist()
    for line, cell, row in zip(lines, cells, table, strict=True):
        assert line["label"] == cell["label"] == row["label"]
        assert line["path"] == cell["path"].split("/") == row["path"]
        assert line["depth"] == int(cell["depth"]) == row["depth"]
        assert line["score"] == float(cell["score"]) == row["score"]
        assert line["coverage"] == 0.9
    assert "round/" in Path("o.txt").read_text()
