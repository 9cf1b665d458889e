"""Vectors and targets in, figures out: sums done by hand, and recorded vectors of the real model."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nshot.classifier.classifier import Classifier
from nshot.datasets.labelled import Columns, LabelledSet, open_labelled
from nshot.embeddings import Embeddings
from nshot.errors import LabelError, RequestError
from nshot.evaluation import files as evaluation_files
from nshot.evaluation import page as evaluation_page
from nshot.evaluation.evaluation import (
    BARE,
    CANDIDATES,
    Evaluation,
    compare,
    evaluate,
    prompt_ways,
)
from nshot.labels.prompts import DEFAULT_TEMPLATE
from nshot.types import Activation, Embedded, Failure, Floats, Limits
from nshot.unit import normalize

RECORDED = Path(__file__).parents[1].parent / "shared" / "data" / "recorded"
LABELS = ("cat", "dog", "owl")


def some_images(
    labels: Sequence[Sequence[str]],
    vectors: Sequence[Sequence[float]],
    *,
    multi: bool = False,
    domains: Sequence[str | None] | None = None,
) -> Embeddings:
    n = len(labels)
    images = Embeddings.of(
        vectors,
        [tuple(own) for own in labels],
        sources=[f"{i}.jpg" for i in range(n)],
        domains=domains,
        classes=LABELS,
    )
    return replace(images, multi=multi)


CLASSIFIER = Classifier(LABELS, np.eye(3), scale=10.0)
CAT, DOG, OWL = [1, 0.1, 0], [0.1, 1, 0], [0, 0.1, 1]


def small(**options: object) -> Evaluation:
    """Four images, three right; the last one is a dog that is answered cat."""
    images = some_images(
        [["cat"], ["dog"], ["owl"], ["dog"]],
        [CAT, DOG, OWL, CAT],
        domains=["photo", "photo", "sketch", "sketch"],
    )
    return evaluate(CLASSIFIER, images, **options)  # type: ignore[arg-type]


def test_the_figures_of_four_images_are_those_of_ones_own_sum() -> None:
    e = small()
    assert e.figures["top_1"] == 0.75
    assert e.figures["top_5"] == 1.0
    assert e.figures["mean_per_class_recall"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert e.right.tolist() == [True, True, True, False]
    assert e.mistakes(5) == [3]
    assert set(e.unsure(5)) == {0, 1, 2}
    assert e.place.tolist() == [0, 0, 0, 1]
    assert e.confusion is not None
    assert e.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert [(d.name, d.images, d.value) for d in e.domains] == [("photo", 2, 1.0), ("sketch", 2, 0.5)]


def test_chance_and_the_majority_class_are_what_a_fool_would_get() -> None:
    chance, majority = small().rivals
    assert (chance.name, majority.name) == ("chance", "majority class")
    assert (chance.value, majority.value) == pytest.approx((1 / 3, 0.5))


def test_a_label_that_the_classifier_does_not_have_is_named_with_its_image() -> None:
    with pytest.raises(LabelError, match=r"0\.jpg is labelled 'fox'"):
        evaluate(CLASSIFIER, some_images([["fox"]], [CAT]))


def test_labels_without_images_are_distractors() -> None:
    e = evaluate(CLASSIFIER, some_images([["cat"], ["cat"]], [CAT, OWL]))
    assert e.figures["top_1"] == 0.5
    assert e.figures["mean_per_class_recall"] == 0.5


def test_of_several_labels_any_is_right_and_average_precision_ranks_images() -> None:
    images = some_images([["cat", "dog"], ["owl"], [], ["dog"]], [CAT, OWL, OWL, DOG], multi=True)
    e = evaluate(CLASSIFIER, images)
    assert e.figures["top_1"] == 1.0  # the unlabelled image is not asked
    assert e.average_precisions is not None
    np.testing.assert_allclose(e.average_precisions[:2], [1.0, (1 + 2 / 4) / 2], atol=0.3)
    assert e.figures["mean_average_precision"] == pytest.approx(np.mean(e.average_precisions))
    assert e.confusion is None
    assert e.own.tolist()[2] == -1
    assert evaluation_page.write(e, {})


def test_a_template_is_chosen_on_images_that_do_not_report_it() -> None:
    """Of many useless prompts the best looks good on its own images; cross-validation is not fooled."""
    best, expected = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        labels = [[LABELS[k]] for k in rng.integers(3, size=60)]
        images = some_images(labels, rng.normal(size=(60, 8)).tolist())
        prompts = {f"way {i}": Classifier(LABELS, rng.normal(size=(3, 8)), scale=1.0) for i in range(50)}
        e = evaluate(prompts["way 0"], images, prompts)
        assert e.chosen is not None
        best.append(max(rival.value for rival in e.rivals))
        expected.append(e.chosen.value)
    assert np.mean(best) > 0.45  # looks like skill
    assert np.mean(expected) == pytest.approx(1 / 3, abs=0.05)  # is luck


def test_a_gain_is_counted_from_the_reference_image_by_image() -> None:
    worse = Classifier(LABELS, np.roll(np.eye(3), 1, axis=0), scale=10.0)
    e = small(prompts={"good": CLASSIFIER, "bad": worse})
    good, bad = e.rivals[2:]
    assert (good.gain, good.gain_interval) == (0, (0, 0))
    assert bad.gain == pytest.approx(bad.value - good.value)
    assert bad.gain_interval is not None
    assert bad.gain_interval.low <= -0.5 <= bad.gain_interval.high
    assert e.chosen is not None
    assert e.chosen.name == "good"


def test_the_same_seed_gives_the_same_report() -> None:
    first, second = (evaluation_files.to_dict(small(seed=4)) for _ in range(2))
    assert first == second


def test_models_are_compared_on_the_images_that_both_answered() -> None:
    one = small()
    fewer = some_images([["cat"], ["owl"]], [CAT, CAT])
    other = evaluate(CLASSIFIER, replace(fewer, positions=np.array([0, 2])))
    first, second = compare(["one", "other"], [one, other])
    assert (first.value, second.value) == (1.0, 0.5)
    assert second.gain == -0.5


class Words:
    """A stand-in model that remembers what it was asked."""

    name = "stand-in"
    space = "words"
    logit_scale = 100.0
    logit_bias = 0.0
    activation: Activation = "softmax"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        self.asked += texts
        return normalize(np.random.default_rng(len(texts)).normal(size=(len(texts), 8)))


def test_the_ways_to_prompt_are_the_default_the_bare_name_each_template_and_all() -> None:
    words = Words()
    ways = prompt_ways(words, ["cat", "dog"], ["a sketch of a {}", "a toy {}"])
    assert list(ways) == [
        DEFAULT_TEMPLATE,
        BARE,
        "a sketch of a {}",
        "a toy {}",
        "all 2 templates together",
    ]
    assert {"cat", "a photo of a dog", "a toy cat"} <= set(words.asked)
    assert list(prompt_ways(words, ["cat"]))[:2] == [DEFAULT_TEMPLATE, BARE]
    assert len(prompt_ways(words, ["cat"])) == len(CANDIDATES) + 2
    assert len(prompt_ways(words, ["cat"], [DEFAULT_TEMPLATE])) == 2


# From images to files


@pytest.fixture
def labelled(tmp_path: Path) -> LabelledSet:
    for number, label in enumerate(["cat", "cat", "dog", "owl"]):
        path = tmp_path / "data" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (60 * number, 0, 0)).save(path)
    (tmp_path / "data" / "owl" / "broken.png").write_bytes(b"no image")
    return open_labelled(tmp_path / "data")


def collect(labelled: LabelledSet) -> Embeddings:
    """Embedded by a stand-in model, as a model would."""

    def embed() -> Iterator[Embedded | Failure]:
        for source in labelled:
            if "broken" in source.name:
                yield Failure(source.name, "UndecodableImage", "broken <b>", source.labels)
            else:
                vector = {"0": CAT, "1": DOG, "2": DOG, "3": OWL}[Path(source.name).stem]
                yield Embedded(source.name, normalize([vector])[0], source.labels, source.domain)

    return Embeddings.collect(embed(), dimension=3, classes=labelled.classes, multi=labelled.multi)


def test_an_image_that_fails_is_counted_apart(labelled: LabelledSet) -> None:
    images = collect(labelled)
    assert len(images) == 4
    assert [Path(failure.source).name for failure in images.failures.values()] == ["broken.png"]
    assert images.classes == LABELS
    assert images.labels == (("cat",), ("cat",), ("dog",), ("owl",))


def test_images_without_labels_cannot_be_evaluated_and_are_told_why() -> None:
    with pytest.raises(RequestError, match="needs labelled images"):
        evaluate(CLASSIFIER, Embeddings.of([CAT]))


def test_every_image_is_a_row_and_every_number_is_json(labelled: LabelledSet, tmp_path: Path) -> None:
    e = evaluate(CLASSIFIER, collect(labelled))
    evaluation_files.write_json(tmp_path / "report.json", evaluation_files.to_dict(e))
    content = json.loads(
        (tmp_path / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name)
    )
    assert content["figures"]["top_1"] == 0.75
    assert content["failed"] == 1
    assert [row["label"] for row in content["per_class"]] == list(LABELS)
    assert content["confusion"] == [[0, 0, 1], [0, 1, 1], [1, 1, 1], [2, 2, 1]]
    assert content["most_confused"] == [{"own": "cat", "answered": "dog", "images": 1}]
    evaluation_files.write_predictions(tmp_path / "p.csv", e)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["own"], row["label"], row["right"], row["own_place"]) for row in rows] == [
        ("cat", "cat", "True", "1"),
        ("cat", "dog", "False", "2"),
        ("dog", "dog", "True", "1"),
        ("owl", "owl", "True", "1"),
        ("", "", "", ""),
    ]
    assert float(rows[0]["score"]) == pytest.approx(e.confidence[0])
    assert not list(tmp_path.glob("*.part"))


def test_parquet_holds_the_same_rows_as_csv(labelled: LabelledSet, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    e = evaluate(CLASSIFIER, collect(labelled))
    evaluation_files.write_predictions(tmp_path / "p.parquet", e)
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == list(evaluation_files.COLUMNS)
    assert list(zip(*table.to_pydict().values(), strict=True)) == list(evaluation_files.rows(e))


def test_the_page_shows_the_mistaken_images_and_escapes_what_came_from_outside(
    labelled: LabelledSet,
) -> None:
    e = evaluate(CLASSIFIER, collect(labelled), {"<i>way</i>": CLASSIFIER})
    thumbs = evaluation_page.thumbnails(labelled, e, Limits())
    assert set(thumbs) == {0, 1, 2, 3}
    html = evaluation_page.write(e, {"data": "<u>data</u>", "seed": 0}, thumbs=thumbs)
    assert html.count("data:image/jpeg") == len(e.mistakes(99)) + len(e.unsure(99)) + len(e.suspects)
    assert "75.0 %" in html
    for markup in ("<i>way", "<u>data", "broken <b>"):
        assert markup not in html
    assert "answered dog" in html


def test_an_image_that_is_gone_leaves_its_card(labelled: LabelledSet) -> None:
    e = evaluate(CLASSIFIER, collect(labelled))
    Path(e.images.sources[1]).unlink()
    Path(e.images.sources[2]).write_bytes(b"no image any more")
    assert 2 not in evaluation_page.thumbnails(labelled, e, Limits())


def test_images_out_of_a_table_find_their_way_to_the_page(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "0.png")
    (tmp_path / "t.csv").write_text("path,kind\n0.png,cat\n0.png,owl\n")
    data = open_labelled(tmp_path / "t.csv", columns=Columns(label="kind"))
    e = evaluate(Classifier(("cat", "owl"), [[1, 0, 0], [0, 0, 1]], scale=10.0), collect(data))
    assert set(evaluation_page.thumbnails(data, e, Limits())) == {0, 1}


@pytest.mark.skipif(not RECORDED.is_dir(), reason="needs ../shared/data/recorded")
def test_recorded_cifar_vectors_score_exactly_what_the_plain_product_does() -> None:
    cifar, bank = np.load(RECORDED / "cifar10_vitb32.npz"), np.load(RECORDED / "text_bank_vitb32.npz")
    names = ["airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "boat", "truck"]
    rows = [str(name).lower() for name in bank["oid_names"]]
    matrix = bank["oid_embeds"][[rows.index(name) for name in names]].astype(np.float64)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    plain = (cifar["image_embeds"].astype(np.float64) @ matrix.T).argmax(axis=1) == cifar["labels"]
    labels = [[names[k]] for k in cifar["labels"]]
    images = some_images(labels, cifar["image_embeds"])
    e = evaluate(Classifier(names, matrix, scale=100.0), images)
    assert e.figures["top_1"] == plain.mean()
    np.testing.assert_array_equal(e.right, plain)
