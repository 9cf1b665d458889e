"""A classifier is a labelled matrix: cosines, scores and order, whatever made the matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nshot.classifier.classifier import Classifier
from nshot.errors import LabelError, RequestError
from nshot.types import Embedded, Failure, Prediction

RECORDED = Path(__file__).parents[1].parent / "shared" / "data" / "recorded"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def answers(classifier: Classifier, vectors: np.ndarray, **options: int) -> list[Prediction]:
    predictions = classifier.predict(vectors, **options)
    assert all(isinstance(prediction, Prediction) for prediction in predictions)
    return predictions  # type: ignore[return-value]


def test_the_best_label_wins_and_the_rest_follow_in_order() -> None:
    classifier = Classifier(["left", "up", "right"], [[-1, 0], [0, 1], [1, 0]], scale=10.0)
    (answer,) = answers(classifier, np.array([0.8, 0.6]))
    assert [p.label for p in answer.predictions] == ["right", "up", "left"]
    assert [round(p.cosine, 6) for p in answer.predictions] == [0.8, 0.6, -0.8]
    assert answer.margin == pytest.approx(0.2)
    assert answer.score == pytest.approx(np.exp(8) / (np.exp(8) + np.exp(6) + np.exp(-8)))


def test_rows_are_normalised_along_the_features_so_other_labels_change_no_cosine(
    rng: np.random.Generator,
) -> None:
    matrix, vectors = rng.normal(size=(7, 16)) * 5, rng.normal(size=(20, 16))
    few = Classifier(list("abc"), matrix[:3], scale=100.0).cosines(vectors)
    many = Classifier(list("abcdefg"), matrix, scale=100.0).cosines(vectors)
    np.testing.assert_array_equal(few, many[:, :3])


def test_an_answer_does_not_depend_on_how_many_were_asked_with_it(rng: np.random.Generator) -> None:
    classifier = Classifier([str(i) for i in range(30)], rng.normal(size=(30, 64)), scale=50.0)
    vectors = rng.normal(size=(700, 64)).astype(np.float32)
    together = answers(classifier, vectors)
    for row in (0, 1, 511, 512, 699):
        (alone,) = answers(classifier, vectors[row])
        assert alone.predictions == together[row].predictions


def test_scores_sum_to_one_under_softmax_and_stand_alone_under_sigmoid(rng: np.random.Generator) -> None:
    matrix, vectors = rng.normal(size=(5, 8)), rng.normal(size=(9, 8))
    softmax = Classifier(list("abcde"), matrix, scale=100.0).scores(vectors)
    np.testing.assert_allclose(softmax.sum(axis=1), 1.0)
    two, one = (
        Classifier(list("abcde")[:n], matrix[:n], scale=10.0, bias=-3.0, activation="sigmoid").scores(vectors)
        for n in (2, 1)
    )
    np.testing.assert_allclose(two[:, :1], one)


def test_a_large_scale_overflows_nothing() -> None:
    for activation in ("softmax", "sigmoid"):
        scores = Classifier(["a", "b"], [[1, 0], [-1, 0]], scale=1e6, activation=activation).scores([[1, 0]])
        np.testing.assert_array_equal(scores, [[1.0, 0.0]])


def test_top_k_tells_so_many_and_the_margin_stays() -> None:
    classifier = Classifier(["a", "b", "c"], np.eye(3), scale=1.0)
    (answer,) = answers(classifier, np.array([0.9, 0.3, 0.1]), top_k=1)
    assert len(answer.predictions) == 1
    assert answer.margin is not None
    assert answer.margin > 0
    assert len(answers(classifier, np.array([0.9, 0.3, 0.1]), top_k=99)[0].predictions) == 3


def test_a_single_label_has_no_margin() -> None:
    (answer,) = answers(Classifier(["only"], [[1.0, 0.0]], scale=100.0), np.array([1.0, 1.0]))
    assert answer.margin is None
    assert answer.score == 1.0


def test_equal_rows_keep_the_labels_order() -> None:
    (answer,) = answers(Classifier(["z", "a"], [[1, 1], [1, 1]], scale=1.0), np.array([1.0, 0.0]))
    assert answer.label == "z"


def test_a_stream_keeps_its_order_and_its_failures() -> None:
    classifier = Classifier(["a", "b"], np.eye(2), scale=1.0)
    broken = Failure("two.jpg", "UndecodableImage", "damaged")
    one, three = (Embedded(n, np.eye(2, dtype=np.float32)[i]) for i, n in enumerate(("one.jpg", "three.jpg")))
    items: list[Embedded | Failure] = [one, broken, three]
    for given in (items, iter(items)):
        first, second, third = classifier.predict(given)
        assert (first.source, first.label) == ("one.jpg", "a")
        assert second is broken
        assert (third.source, third.label) == ("three.jpg", "b")
    assert classifier.predict(iter([])) == []


def test_one_scale_a_label_expresses_a_linear_probe(rng: np.random.Generator) -> None:
    weights, bias = rng.normal(size=(4, 6)), rng.normal(size=4)
    vectors = rng.normal(size=(5, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    probe = Classifier(list("abcd"), weights, scale=np.linalg.norm(weights, axis=1), bias=bias)
    np.testing.assert_allclose(probe.logits(vectors), vectors @ weights.T + bias, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "matrix", "error", "names"),
    [
        ([], np.empty((0, 2)), LabelError, "at least one"),
        (["cat", "dog", "cat"], np.eye(3), LabelError, "'cat'"),
        (["cat", "dog"], np.eye(3), RequestError, "2 labels"),
        (["cat", "dog"], [[1, 0], [0, 0]], RequestError, "'dog'"),
        (["cat", "dog"], [[np.nan, 0], [0, 1]], RequestError, "'cat'"),
    ],
)
def test_what_is_no_labelled_matrix_is_refused_by_name(
    labels: list[str], matrix: np.ndarray, error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        Classifier(labels, matrix, scale=1.0)


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(RequestError, match="another model"):
        Classifier(["a"], [[1, 0]], scale=1.0).predict(np.eye(3))


@pytest.mark.skipif(
    not RECORDED.exists(), reason="recorded CLIP vectors are not here (../shared/data/recorded)"
)
def test_recorded_cifar10_vectors_score_as_the_plain_product_does() -> None:
    bank = np.load(RECORDED / "text_bank_vitb32.npz")
    images = np.load(RECORDED / "cifar10_vitb32.npz")
    names = ["airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "boat", "truck"]
    known = [str(name) for name in bank["lvis_names"]]
    lookup = {name.split("_(")[0].replace("_", " "): row for row, name in reversed(list(enumerate(known)))}
    oid = {str(name).lower(): row for row, name in enumerate(bank["oid_names"])}
    rows = np.stack(
        [bank["oid_embeds"][oid[n]] if n in oid else bank["lvis_embeds"][lookup[n]] for n in names]
    )
    classifier = Classifier(names, rows, scale=100.0)
    told = [
        names.index(answer.predictions[0].label) for answer in answers(classifier, images["image_embeds"])
    ]
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    plain = np.argmax(images["image_embeds"] @ unit.T, axis=1)
    np.testing.assert_array_equal(told, plain)
    assert np.mean(told == images["labels"]) == pytest.approx(0.9, abs=0.02)


def test_a_cosine_is_the_same_however_many_images_are_compared_at_once() -> None:
    rng = np.random.default_rng(0)
    asked = Classifier([f"label {k}" for k in range(12)], rng.normal(size=(12, 256)), scale=100.0)
    vectors = rng.normal(size=(300, 256)).astype(np.float32)  # more than are multiplied in one part
    together = asked.cosines(vectors)
    for size in (1, 7, 85, 299):
        alone = [asked.cosines(vectors[start : start + size]) for start in range(0, 300, size)]
        assert (np.concatenate(alone) == together).all()
