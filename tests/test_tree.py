"""A tree of labels: the answer is the deepest node that the evidence allows."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from recorded import FOLDER, needed

import nshot
from nshot.classifier.tree import Placing
from nshot.cli import run
from nshot.decision.rollup import Ancestors, Siblings, pooled, threshold_for
from nshot.decision.softmax import activate
from nshot.errors import LabelError, RequestError
from nshot.evaluation.placed import evaluate_tree
from nshot.labels.tree import Tree, read_tree
from nshot.server.session import Journal
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
        '[{"name": "animal", "children": [{"name": "dog", "id": "d", "children": [{"name": "beagle"},'
        ' {"name": "poodle", "parts": ["tail"]}]}, {"name": "cat"}]}, {"name": "car"}]',
        '{"source": "by hand", "leaves": ["beagle", "poodle", "cat", "car"], "nodes": {"car": {},'
        ' "beagle": {"parent": "dog"}, "poodle": {"parent": "dog"}, "dog": {"parent": "animal"},'
        ' "cat": {"parent": "animal"}, "animal": {"parent": null}}}',
        '{"parent": {"beagle": "dog", "poodle": "dog", "dog": "animal", "cat": "animal", "car": null}}',
        '{"labels": {"b": "beagle", "a": "animal"}, "tree": {"a": {"dog": ["b", "poodle"], "cat": {}},'
        ' "car": {}}}',
    ],
)
def test_a_tree_is_read_from_json_paths_columns_and_edges(text: str, tmp_path: Path) -> None:
    (tmp_path / "tree").write_text(text)
    assert list(read_tree(tmp_path / "tree").paths) == ANIMALS


def test_labels_may_be_called_as_the_keys_of_other_forms_are(tmp_path: Path) -> None:
    (tmp_path / "tree").write_text('{"tree": ["oak", "pine"], "labels": ["tag"], "nodes": {"knot": []}}')
    paths = read_tree(tmp_path / "tree").paths
    assert paths == (("tree", "oak"), ("tree", "pine"), ("labels", "tag"), ("nodes", "knot"))


def test_coco_categories_are_a_tree(tmp_path: Path) -> None:
    (tmp_path / "tree").write_text(
        '{"categories": [{"id": 1, "name": "person", "supercategory": "person"},'
        ' {"id": 2, "name": "dog", "supercategory": "animal"}]}'
    )
    assert read_tree(tmp_path / "tree").paths == (("person",), ("animal", "dog"))


@pytest.fixture
def wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A WordNet of our own, in the form that WordNet's files have: ids by word."""
    above = {"animal": None, "dog": "animal", "beagle": "dog", "crane": "animal", "machine": None}
    ids: dict[str, str] = {}
    text = "  1 A licence would stand here.\n"
    for word, parent in [*above.items(), ("crane", "machine")]:
        place = len(text.encode())
        ids[word if word not in ids else f"{word} 2"] = f"n{place:08d}"
        pointers = "000" if parent is None else f"001 @ {ids[parent][1:]} n 0000"
        text += f"{place:08d} 05 n 02 {word} 0 {word}_thing 0 {pointers} | what it is\n"
    folder = tmp_path / "wordnet"
    folder.mkdir()
    (folder / "data.noun").write_text(text)
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    return ids


def test_bare_ids_of_wordnet_are_named_in_every_form(wordnet: dict[str, str], tmp_path: Path) -> None:
    animal, dog, beagle, crane = (wordnet[word] for word in ("animal", "dog", "beagle", "crane"))
    file = tmp_path / "tree"
    for text in (
        f"{beagle}\n{crane}\n",  # a bare list brings WordNet's own tree
        json.dumps({animal: {dog: [beagle], crane: []}}),
        f"{animal},{dog},{beagle}\n{animal},{crane},\n",
        f"{animal}/{dog}/{beagle}\n{animal}/{crane}\n",
    ):
        file.write_text(text)
        tree = read_tree(file)
        assert tree.paths == (("animal", "dog", "beagle"), ("animal", "crane"))
        assert tree.find(beagle) == "beagle"
        assert tree.find("n99999999") is None
    file.write_text(f"{crane}\n{wordnet['crane 2']}\n")
    assert read_tree(file).leaves == ("crane", "crane thing")
    file.write_text("n00000003\n")
    with pytest.raises(LabelError, match="no noun 'n00000003'"):
        read_tree(file)


def test_without_a_wordnet_ids_are_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nshot.labels import wordnet

    monkeypatch.setattr(wordnet, "_folders", lambda environment: iter(()))
    (tmp_path / "tree").write_text("n02084071\n")
    with pytest.raises(LabelError, match="wordnet-base"):
        read_tree(tmp_path / "tree")


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
        ('{"a": ["b", 3]}', "at a has the name 3, which is a number"),
        ('{"a": ["b", null]}', "at a has the name null, which is no text"),
        ('{"a": ["b", ["c"]]}', "at a has the name .*, which is a list"),
        ('{"a": {"b": 0}}', "no tree of labels at a/b"),
        ('{"name": null, "children": ["a", "b"]}', "the name null"),
        ('{"name": "a", "children": [{"id": 7, "children": ["b"]}, "c"]}', "at a has the name 7"),
        ('{"edges": [[1, "b"], [1, "c"]]}', "the name 1, which is a number"),
        (
            '{"edges": [["a", "b"], ["a", "c"]], "labels": {"b": ["x"]}}',
            "at a has the name .*, which is a list",
        ),
        ('{"nodes": {"b": {"parent": "a", "name": 5}, "a": {"parent": null}}}', "at a has the name 5"),
        ('{"categories": [{"name": null}, {"name": "b"}]}', "the name null"),
        (
            '{"categories": [{"name": "b", "supercategory": {"x": 1}}]}',
            "at b has the name .*, which is an obj",
        ),
        ('{"tree": {"n1": {}, "n2": {}}, "labels": {"n1": {"en": "dog"}}}', "which is an object"),
    ],
)
def test_what_is_no_tree_is_refused_with_the_label(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "tree").write_text(text)
    with pytest.raises(LabelError, match=told) as refused:
        read_tree(tmp_path / "tree")
    assert str(tmp_path / "tree") in str(refused.value)


def test_a_tree_of_what_is_no_text_is_refused_by_its_name() -> None:
    with pytest.raises(LabelError, match="the label 3 is of type int, not a text"):
        Tree([("animal", "dog"), ("animal", 3)])  # type: ignore[list-item]


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


def test_a_few_images_give_the_coverage_that_was_asked_and_not_the_next_larger_one() -> None:
    scores = np.linspace(0.1, 0.9, 9)  # the 9th of them covers 0.9, the 8th 0.8
    drawn = threshold_for(scores, 0.85, np.random.default_rng(0).random(4000))
    assert set(drawn.tolist()) == {scores[7], scores[8]}
    assert np.mean(drawn == scores[8]) == pytest.approx(0.5, abs=0.03)
    assert threshold_for(scores, 0.85) == scores[8]


def test_the_prompt_of_an_inner_node_is_evidence_for_the_leaves_under_it(tmp_path: Path) -> None:
    tree = Tree([("animal", "dog"), ("animal", "cat"), ("vehicle", "car"), ("vehicle", "bus")])
    axes = np.eye(4)
    leaves = nshot.Classifier(tree.leaves, [axes[0], axes[1], axes[0], axes[2]], scale=20.0)
    inner = nshot.Classifier(["animal", "vehicle"], axes[[1, 3]], scale=20.0)
    image = np.array([[0.9, 0.0, 0.0, 0.4]])  # a dog or a car alike, and a vehicle
    alone, asked = nshot.TreeClassifier(leaves, tree), nshot.TreeClassifier(leaves, tree, inner=inner)
    assert alone.shares(image)[0, [0, 2]] == pytest.approx([0.5, 0.5], abs=1e-6)
    assert asked.shares(image)[0, 2] > 0.6
    rows = np.random.default_rng(0).normal(size=(40, 4)) * 0.1 + image
    learnt = asked.calibrated(nshot.Embeddings.of(rows, ["car"] * 40), 0.8)
    assert learnt.placing is not None
    assert learnt.placing.weight > 0.1  # calibration has found that the parent is to be believed
    learnt.save(tmp_path / "t.nshot")
    again = nshot.open(tmp_path / "t.nshot")
    assert isinstance(again, nshot.TreeClassifier)
    assert again.predict(rows) == learnt.predict(rows)
    with pytest.raises(LabelError, match="no inner nodes of the tree: 'dog'"):
        nshot.TreeClassifier(leaves, tree, inner=nshot.Classifier(["dog"], axes[:1], scale=1.0))


@pytest.mark.parametrize("placing", [Placing((0.1,), 0.5, float("inf")), Placing((float("nan"),), 0.5)])
def test_what_was_learnt_of_a_tree_is_numbers(placing: Placing) -> None:
    leaves = nshot.Classifier(["dog", "cat", "car"], np.eye(3, 4), scale=20.0)
    with pytest.raises(RequestError, match="numbers"):
        nshot.TreeClassifier(leaves, Tree([("animal", "dog"), ("animal", "cat"), ("car",)]), placing)


def test_pooling_by_parents_is_pooling_by_forks() -> None:
    paths = [*ANIMALS, ("animal", "bird", "owl"), ("bus",), ("animal", "fish", "shark", "hammerhead")]
    tree, rng = Tree(paths), np.random.default_rng(0)
    leaves, inner = rng.normal(size=(50, 7)) * 30, rng.normal(size=(50, len(tree.inner))) * 30
    siblings = Siblings(tree.paths, tree.inner)
    q = siblings.log_shares(leaves, inner)
    assert np.exp(q).sum(axis=1) == pytest.approx(1.0)
    for weight in (0.1, 0.5, 1.0):
        slow = pooled(activate(leaves, "softmax"), q, weight)
        assert siblings.shares(leaves, inner, weight) == pytest.approx(slow, abs=1e-12)
        far = siblings.shares(leaves * 100, inner * 100, weight)
        assert far.sum(axis=1) == pytest.approx(1.0)
    some = Siblings(tree.paths, tree.inner[:1])  # the others have no prompt: they share equally
    assert some.shares(leaves, inner[:, :1], 0.3).sum(axis=1) == pytest.approx(1.0)


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


def _exact() -> tuple[nshot.TreeClassifier, NDArray[np.float64]]:
    """A tree whose leaves lie on axes, so that every answer is known."""
    tree = Tree([*ANIMALS, ("bus",)], ranks=("genus", "species", "subspecies"))
    return nshot.TreeClassifier(nshot.Classifier(tree.leaves, np.eye(5), scale=100.0), tree), np.eye(5)


def test_figures_of_a_tree_tell_depth_distance_and_coverage() -> None:
    asked, axes = _exact()
    # answers: beagle, cat, car, car; own: beagle, beagle, car, bus; one more label is not in the tree
    images = nshot.Embeddings.of(axes[[0, 2, 3, 3, 0]], ["beagle", "beagle", "car", "bus", "whale"])
    found = evaluate_tree(asked, images)
    assert found.left_out == 1
    assert found.figures["covered"] == 0.5
    assert found.figures["distance"] == (0 + 3 + 0 + 2) / 4  # cat, animal, dog, beagle; car, all, bus
    assert found.figures["distance_of_wrong"] == 2.5
    assert found.figures["exact"] == 0.5
    assert found.figures["depth"] == (3 + 2 + 1 + 1) / 4
    first, second, third = found.levels
    assert (first.images, first.right, first.answers) == (4, 0.75, 2)
    assert (second.images, second.right, second.answers) == (2, 0.5, 1)
    assert (third.images, third.right, third.right_of_answers) == (2, 0.5, 1.0)
    covered, depth = [t.covered for t in found.curve], [t.depth for t in found.curve]
    assert covered == sorted(covered)
    assert depth == sorted(depth, reverse=True)


def test_a_rank_answers_at_that_level_always() -> None:
    asked, axes = _exact()
    told = asked.with_rank(asked.tree.rank("species")).predict(axes)
    assert [answer.label for answer in told] == ["dog", "dog", "cat", "car", "bus"]
    assert told[0].to_dict()["path"] == ["animal", "dog"]
    assert told[0].to_dict()["coverage"] is None
    with pytest.raises(LabelError, match="levels 1 to 3 or genus, species, subspecies, not '4'"):
        asked.tree.rank("4")
    with pytest.raises(LabelError, match="levels 1 to 3"):
        asked.tree.rank("9" * 5000)


def test_a_rank_sums_up_its_leaves_and_not_only_the_best_one() -> None:
    tree = Tree([("animal", "dog"), ("animal", "cat"), ("car",)])
    asked = nshot.TreeClassifier(nshot.Classifier(tree.leaves, np.eye(3), scale=1.0), tree)
    image = [[0.5, 0.5, 0.7]]
    assert asked.predict(image)[0].predictions[0].label == "car"
    assert asked.with_rank(1).predict(image)[0].label == "animal"


def test_a_table_of_taxa_names_its_ranks(tmp_path: Path) -> None:
    (tmp_path / "taxa.csv").write_text("Family,Genus\nCanidae,Canis\nCanidae,Vulpes\n")
    tree = read_tree(tmp_path / "taxa.csv")
    assert tree.leaves == ("Canis", "Vulpes")
    assert tree.rank("family") == 1


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


def test_fit_and_evaluate_take_a_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet

    monkeypatch.chdir(tmp_path)
    round_ones = ["circle", "ring", "crescent", "heart"]
    others = [name for name in SHAPES if name not in round_ones]
    Path("tree.json").write_text(json.dumps({"round": round_ones, "other": others}))
    rows = [["image", "label"]]
    for number in range(40):
        scene = sample(9_310_000_000_000 + number, several=0)
        draw(scene).save(f"{number}.png")
        rows.append([f"{number}.png", scene.things[0].shape])
    rows[-1][1] = "round" if rows[-1][1] in round_ones else "other"
    rows.append(["gone.png", "heart"])
    Path("t.csv").write_text("\n".join(map(",".join, rows)))
    ask = ["t.csv", "--model", "sketchbook"]
    assert run(["fit", *ask, "--tree", "tree.json", "-o", "f.nshot", "-q"]) == 1  # one image is gone
    fitted = nshot.open("f.nshot")
    assert isinstance(fitted, nshot.TreeClassifier)
    assert len(fitted.classifier.examples) == 39
    capsys.readouterr()
    assert run(["evaluate", *ask, "--classifier", "f.nshot", "-o", "report"]) == 1
    told = capsys.readouterr()
    assert "contain the truth" in told.out
    assert "gone.png" in told.err
    assert "fitted on 39 of the 40 images" in told.err
    report = json.loads(Path("report/report.json").read_text())
    assert report["images"] == 40
    assert [level["depth"] for level in report["levels"]] == [1, 2]
    page = Path("report/index.html").read_text()
    assert "How deep against how often right" in page
    assert page.count("data:image/jpeg;base64,") >= 4  # images by their answer
    assert "gone.png" in page
    table = pyarrow.parquet.read_table("report/predictions.parquet").to_pylist()
    assert len(table) == 41
    assert sum(row["covered"] is True for row in table) == round(40 * report["figures"]["covered"])
    assert run(["evaluate", *ask, "--tree", "tree.json", "--rank", "1", "-q"]) == 1
    assert "100.0 %" in capsys.readouterr().out
    assert run(["classify", *ask, "--rank", "1", "--labels", "cat, dog"]) == 2
    assert "--rank is a level of a tree" in capsys.readouterr().err
    calibrate = ["calibrate", *ask, "--classifier", "f.nshot", "--coverage", "0.9", "--report", "c.json"]
    assert run(calibrate) == 1
    assert "calibrate on images that it has not seen" in capsys.readouterr().err
    assert json.loads(Path("c.json").read_text())["images"] == 40
    assert run([*calibrate, "--none", "."]) == 2
    assert "leave out --none" in capsys.readouterr().err
    assert run(["classify", *ask, "--tree", "tree.json", "--multi"]) == 2
    assert "leave out --multi" in capsys.readouterr().err


def test_what_a_person_said_on_the_page_is_a_node_of_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A journal's words: a leaf, an inner node, none of these, and a label that the tree does not have."""
    monkeypatch.chdir(tmp_path)
    Path("tree.json").write_text(json.dumps({"round": ["circle", "ring"], "other": ["star", "square"]}))
    journal, said = Journal(tmp_path / "j.jsonl"), ["ring", "round", None, "cloud"]
    for number, label in enumerate(said):
        draw(sample(9_320_000_000_000 + number, several=0)).save(f"{number}.png")
        digest = hashlib.sha256(Path(f"{number}.png").read_bytes()).hexdigest()
        now = {"answer": "none"} if label is None else {"label": label}
        journal.append([{"id": str(number), "digests": [digest], "now": now}], by="ann")
    journal.close()
    Path("t.csv").write_text("image,id\n0.png,a\n1.png,b\n2.png,c\n3.png,d\n")
    ask = ["classify", "t.csv", "--tree", "tree.json", "--model", "sketchbook", "--format", "jsonl", "-q"]
    assert run([*ask, "--journal", "j.jsonl", "--keep-columns"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["path"] for each in records] == [["round", "ring"], ["round"], [], ["cloud"]]
    assert [each["label"] for each in records] == ["ring", "round", None, "cloud"]
    assert records[2]["answer"] == "none"
    assert any("does not have this label" in note for note in records[3]["notes"])
    assert [each["columns"]["id"] for each in records] == ["a", "b", "c", "d"]
    assert run([*ask[:-1], "--adapt"]) == 0
    assert "too few to adapt to" in capsys.readouterr().err
