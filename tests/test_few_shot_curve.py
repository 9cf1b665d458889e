from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
import recorded
from numpy.typing import NDArray

from nshot.classifier.classifier import Classifier
from nshot.errors import LabelError, RequestError
from nshot.evaluation.curve_chart import draw
from nshot.few_shot import adapt, select
from nshot.few_shot.curve import ALL, NSHOT, PROBE, TUNED, ZERO_SHOT, curve

LABELS = ["ant", "bee", "cat"]
PROMPTS = Classifier(LABELS, np.eye(12)[:3] + 0.6 * np.eye(12)[11], scale=30.0)


def blobs(per_label: int, seed: int = 0, noise: float = 0.12) -> tuple[NDArray[np.float64], list[str]]:
    generator = np.random.default_rng(seed)
    of = np.repeat(np.arange(3), per_label)
    rows = np.eye(12)[11] + 0.3 * np.eye(12)[of] + noise * generator.standard_normal((len(of), 12))
    return rows, [LABELS[i] for i in of]


def test_a_curve_has_a_point_for_every_method_and_number_of_examples() -> None:
    vectors, labels = blobs(12)
    points = curve(vectors, labels, PROMPTS, shots=(0, 1, 4, ALL), draws=2)
    assert [(p.method, p.shots) for p in points] == [
        (ZERO_SHOT, 0),
        *((method, shots) for method in (PROBE, TUNED, NSHOT) for shots in (1, 4, ALL)),
    ]
    assert [p.examples for p in points if p.method == PROBE] == [3, 12, 24]
    assert all(len(p.accuracies) == 2 and p.low <= p.mean <= p.high for p in points)


def test_examples_are_never_measured_on() -> None:
    """Labels at random: nothing can be learnt, so whoever sees the answers gives itself away."""
    generator = np.random.default_rng(0)
    vectors, labels = generator.normal(size=(300, 12)), generator.choice(LABELS, 300).tolist()
    points = curve(vectors, labels, PROMPTS, shots=(ALL,), draws=3)
    assert all(0.2 < p.mean < 0.47 for p in points)


def test_the_plain_probe_is_scikit_learns_default() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    from nshot.few_shot.heads import Shown
    from nshot.few_shot.logistic import plain_probe

    vectors, labels = blobs(40, noise=0.3)
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    targets = np.array([LABELS.index(label) for label in labels])
    shown = np.arange(len(targets)) % 3 == 0
    theirs = (
        linear_model.LogisticRegression(max_iter=1000).fit(rows[shown], targets[shown]).predict(rows[~shown])
    )
    [head] = plain_probe(Shown.of(rows[shown], targets[shown]), 3)
    assert np.mean(head.logits(rows[~shown]).argmax(axis=1) == theirs) >= 0.99


def test_other_features_get_a_probe_on_the_same_draws() -> None:
    vectors, labels = blobs(10)
    perfect = np.eye(3)[[LABELS.index(label) for label in labels]]
    points = curve(vectors, labels, PROMPTS, shots=(4,), draws=2, others={"oracle": perfect})
    assert next(p.mean for p in points if p.method == "oracle") == 1.0


def test_the_same_seed_gives_the_same_curve() -> None:
    vectors, labels = blobs(10)
    one, other, third = (
        [p.accuracies for p in curve(vectors, labels, PROMPTS, shots=(2,), draws=3, seed=s)]
        for s in (5, 5, 6)
    )
    assert one == other != third


def test_a_curve_that_cannot_be_drawn_says_why() -> None:
    vectors, labels = blobs(4)
    with pytest.raises(RequestError, match="whole numbers or 'all'"):
        curve(vectors, labels, PROMPTS, shots=(-1,))
    with pytest.raises(RequestError, match="held-out share"):
        curve(vectors, labels, PROMPTS, held_out=1.0)
    with pytest.raises(LabelError, match="no prompt for 'dog'"):
        curve(vectors, ["dog", *labels[1:]], PROMPTS)
    with pytest.raises(RequestError, match="nothing to measure on"):
        curve(vectors[[0, 4, 8]], LABELS, PROMPTS)


def test_the_figure_is_one_svg_that_names_every_method_and_escapes_titles() -> None:
    vectors, labels = blobs(9)
    text = draw(curve(vectors, labels, PROMPTS, shots=(1, ALL), draws=2), "a < b & c")
    tree = ElementTree.fromstring(text)
    words = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0] == "a < b & c"
    assert {ZERO_SHOT, PROBE, TUNED, NSHOT, "1", "all"} <= set(words)
    assert "href" not in text


def test_adapting_moves_toward_the_images_and_says_how_many_answers_changed() -> None:
    vectors, labels = blobs(60, noise=0.06)
    tilted = Classifier(LABELS, PROMPTS.matrix + 0.25 * np.eye(12)[0], scale=30.0)
    adapted = adapt(vectors, tilted)
    assert adapted.used
    before, after = (tilted.logits(vectors).argmax(axis=1), adapted.classifier.logits(vectors).argmax(axis=1))
    assert adapted.changed == np.sum(before != after)
    right = np.array([LABELS.index(label) for label in labels])
    assert np.mean(after == right) >= np.mean(before == right)


def test_adapting_is_refused_where_it_would_do_harm() -> None:
    vectors, _ = blobs(60)
    few = adapt(vectors[::10], PROMPTS)
    assert not few.used
    assert few.classifier is PROMPTS
    assert "too few" in few.reason
    absent = adapt(vectors[:120], PROMPTS)
    assert not absent.used
    assert "'cat'" in absent.reason


@recorded.needed
def test_on_real_vectors_adapting_is_not_below_zero_shot() -> None:
    vectors, labels = recorded.cifar10()
    zero = recorded.prompts(recorded.NAMES)
    adapted = adapt(vectors, zero)
    assert adapted.used
    assert recorded.accuracy(adapted.classifier, vectors, labels) >= recorded.accuracy(zero, vectors, labels)


def test_the_images_to_label_next_are_unsure_and_unlike_each_other() -> None:
    sure, _ = blobs(20, noise=0.01)
    between = np.eye(12)[11] + 0.15 * (np.eye(12)[0] + np.eye(12)[1])
    aside = np.eye(12)[11] + 0.15 * (np.eye(12)[1] + np.eye(12)[2])
    rows = np.vstack([sure, between, between, aside])
    chosen = select(rows, PROMPTS, 2).tolist()
    assert set(chosen) in ({60, 62}, {61, 62})
    assert set(select(rows, PROMPTS, 1, labelled=[between]).tolist()) == {62}
    assert sorted(select(rows, PROMPTS, 999).tolist()) == list(range(63))
    with pytest.raises(RequestError):
        select(rows, PROMPTS, 0)
