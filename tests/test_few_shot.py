from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import recorded
from numpy.typing import NDArray

from nshot.classifier.classifier import Classifier
from nshot.errors import LabelError, RequestError
from nshot.few_shot import fit, with_labels
from nshot.few_shot.candidates import Prompts, trust
from nshot.few_shot.choose import knowledge
from nshot.few_shot.descent import minimise
from nshot.few_shot.gaussian import discriminant
from nshot.few_shot.heads import Shown
from nshot.few_shot.logistic import plain_probe, pulled_probe

LABELS = ["ant", "bee", "cat", "dog"]


def blobs(
    per_label: int, seed: int = 0, noise: float = 0.06, labels: list[str] = LABELS
) -> tuple[NDArray[np.float32], list[str]]:
    """Vectors about a direction a label, which all share a common part as images' vectors do."""
    generator = np.random.default_rng(seed)
    centres = np.eye(16)[: len(LABELS)] * 0.25 + np.eye(16)[15]
    of = [label for label in labels for _ in range(per_label)]
    rows = np.stack([centres[LABELS.index(label)] for label in of])
    return (rows + noise * generator.standard_normal(rows.shape)).astype(np.float32), of


def words(labels: list[str] = LABELS, shift: int = 0) -> Classifier:
    """Prompts that are right about the blobs, or with a shift wrong about every one."""
    rows = np.roll(np.eye(16)[: len(LABELS)] + 0.5 * np.eye(16)[14], shift, axis=0)
    return Classifier(labels, rows[[LABELS.index(label) for label in labels]], scale=30.0, space="f")


def accuracy(classifier: Classifier, per_label: int = 100, labels: list[str] = LABELS) -> float:
    vectors, of = blobs(per_label, seed=99, labels=labels)
    return recorded.accuracy(classifier, vectors, of)


def test_the_least_point_of_a_convex_function_is_found() -> None:
    def bowl(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        away = point - np.arange(5.0)
        return float(np.logaddexp(away, -away).sum()), np.tanh(away)

    assert np.allclose(minimise(bowl, np.full(5, 9.0)), np.arange(5.0), atol=1e-5)


@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_a_plain_probe_gives_the_probabilities_of_scikit_learns_logistic_regression(strength: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    vectors, of = blobs(8, noise=0.2)
    rows = vectors.astype(np.float64)
    targets = np.array([LABELS.index(label) for label in of])
    theirs = linear_model.LogisticRegression(C=strength, tol=1e-8, max_iter=1000).fit(rows, targets)
    [mine] = plain_probe(Shown.of(rows, targets), 4, strengths=[strength], tolerance=1e-7)
    logits = mine.logits(rows)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(shares, theirs.predict_proba(rows), atol=1e-4)


def test_a_stronger_pull_stays_nearer_to_the_prompts_and_a_strength_does_not_depend_on_its_neighbours() -> (
    None
):
    vectors, of = blobs(8, noise=0.2)
    rows, targets = vectors.astype(np.float64), np.array([LABELS.index(label) for label in of])
    start = words(shift=1).matrix.astype(np.float64) * 30
    heads = pulled_probe(Shown.of(rows, targets), start, pulls=[0.1, 1000.0, 3.0])
    away = [float(np.linalg.norm(head.weights - start)) for head in heads]
    assert away[1] < away[2] < away[0]
    [alone] = pulled_probe(Shown.of(rows, targets), start, pulls=[3.0], tolerance=1e-6)
    assert np.allclose(alone.weights, heads[2].weights, atol=0.01)


def test_what_a_pulled_probe_gains_sums_to_zero_and_leaves_a_label_without_examples_alone() -> None:
    vectors, of = blobs(5, labels=LABELS[:3])
    targets = np.array([LABELS.index(label) for label in of])
    start = words().matrix.astype(np.float64) * 30
    [head] = pulled_probe(Shown.of(vectors, targets), start, pulls=[1.0], tolerance=1e-6)
    assert np.array_equal(head.weights[3], start[3])
    assert np.allclose((head.weights - start).sum(axis=0), 0.0, atol=1e-4)


def test_the_share_of_a_label_among_the_examples_is_not_taken_for_its_share_in_the_world() -> None:
    few, of_few = blobs(2, labels=["ant"], noise=0.15)
    many, of_many = blobs(60, labels=["bee"], noise=0.15)
    fitted = fit(
        np.vstack([few, many]), of_few + of_many, words(["ant", "bee"]), method="pulled", strength=1.0
    )
    vectors, _ = blobs(200, seed=5, labels=["ant", "bee"], noise=0.15)
    named = np.bincount(fitted.classifier.logits(vectors).argmax(axis=1))
    assert 150 <= named[0] <= 250


def test_the_gaussian_is_the_bayes_rule_of_its_own_model() -> None:
    generator = np.random.default_rng(0)
    mixing = generator.standard_normal((6, 6))
    means = generator.standard_normal((3, 6)) * 2
    targets = np.repeat(np.arange(3), 4000)
    vectors = means[targets] + generator.standard_normal((len(targets), 6)) @ mixing
    [head] = discriminant(Shown.of(vectors, targets), np.zeros((3, 6)), strengths=[1.0])
    precision = np.linalg.inv(mixing.T @ mixing)
    truth = vectors @ (precision @ means.T) - 0.5 * np.einsum("kd,de,ke->k", means, precision, means)
    assert np.mean(head.logits(vectors).argmax(axis=1) == truth.argmax(axis=1)) > 0.995


def test_prompts_that_are_wrong_about_the_examples_lose_their_say() -> None:
    vectors, of = blobs(5)
    rows, targets = vectors.astype(np.float64), np.array([LABELS.index(label) for label in of])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    right, wrong = (Prompts(words(shift=s).matrix.astype(np.float64), np.ones(4, bool), 30.0) for s in (0, 1))
    assert trust(Shown.of(rows, targets), right) == 30.0
    assert trust(Shown.of(rows, targets), wrong) < 6.0


def test_examples_overrule_wrong_prompts() -> None:
    vectors, of = blobs(8)
    assert accuracy(words(shift=1)) < 0.2
    fitted = fit(vectors, of, words(shift=1))
    assert accuracy(fitted.classifier) > 0.95
    assert "the prompts name 0 of 32 examples" in fitted.reason
    assert fitted.zero_shot is None


def test_prompts_that_know_nothing_are_left_out_and_what_remains_is_the_fit_without_prompts() -> None:
    for per_label in (1, 4):
        vectors, of = blobs(per_label, noise=0.15)
        alone, useless = fit(vectors, of, labels=LABELS), fit(vectors, of, words(shift=1))
        assert np.array_equal(alone.classifier.matrix, useless.classifier.matrix)
        assert np.array_equal(alone.classifier.scale, useless.classifier.scale)


def test_of_two_labels_a_few_wrong_answers_do_not_cost_the_prompts_their_say() -> None:
    rows = np.eye(16)[:2] + 0.5 * np.eye(16)[14]
    two = Prompts(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.ones(2, bool), 30.0)
    evidence, _, hits, asked = knowledge(Shown.of(np.eye(16)[[1, 1]], [0, 1]), two)
    assert (hits, asked) == (1, 2)
    assert -2 < evidence < 0
    vectors, of = np.eye(16)[[1, 1]] + 0.1 * np.eye(16)[[2, 3]], ["ant", "bee"]
    assert fit(vectors, of, words(["ant", "bee"])).method == "pulled"
    evidence, _, hits, asked = knowledge(Shown.of(np.eye(16)[[1, 0] * 9], [0, 1] * 9), two)
    assert (hits, asked) == (0, 18)
    assert evidence < -2


def test_an_example_given_twice_weighs_what_a_weight_of_two_does_and_order_changes_nothing() -> None:
    vectors, of = blobs(6, noise=0.3)
    weights = np.random.default_rng(0).integers(0, 4, len(of))
    weights[::6] = 1
    often = np.repeat(np.arange(len(of)), weights)
    shuffled = np.random.default_rng(1).permutation(often)
    for prompts in (words(), None):
        weighed = fit(vectors, of, prompts, weights=weights).classifier
        for rows in (often, shuffled):
            again = fit(vectors[rows], [of[i] for i in rows], prompts, labels=weighed.labels).classifier
            assert np.array_equal(weighed.matrix, again.matrix)
            assert np.array_equal(weighed.scale, again.scale)
    with pytest.raises(RequestError, match="weights are 24 numbers"):
        fit(vectors, of, weights=-weights)


def test_common_labels_do_not_outvote_rare_ones() -> None:
    few, of_few = blobs(1, labels=["ant", "bee"], noise=0.15)
    many, of_many = blobs(24, labels=["cat", "dog"], noise=0.15)
    fitted = fit(np.vstack([few, many]), of_few + of_many, words()).classifier
    vectors, of = blobs(100, seed=7, labels=["ant", "bee"], noise=0.15)
    zero = recorded.accuracy(words(), vectors, of)
    assert recorded.accuracy(fitted, vectors, of) >= zero - 0.03


def test_one_example_per_label_follows_a_fixed_rule() -> None:
    vectors, of = blobs(1)
    fitted = fit(vectors, of, words())
    assert (fitted.method, fitted.strength, fitted.trials) == ("pulled", 0.5, ())


def test_a_label_without_an_example_answers_from_its_prompt() -> None:
    vectors, of = blobs(8, labels=LABELS[:3])
    fitted = fit(vectors, of, words())
    assert fitted.examples == {"ant": 8, "bee": 8, "cat": 8, "dog": 0}
    assert accuracy(fitted.classifier, labels=["dog"]) > 0.9
    assert accuracy(fitted.classifier, labels=LABELS[:3]) > 0.95


def test_a_label_is_added_to_a_fitted_classifier_by_its_prompt() -> None:
    vectors, of = blobs(8, labels=LABELS[:3])
    fitted = fit(vectors, of, words(LABELS[:3])).classifier
    opened = with_labels(fitted, words(LABELS[3:]))
    assert opened.labels == tuple(LABELS)
    assert accuracy(opened, labels=["dog"]) > 0.9
    assert accuracy(opened, labels=LABELS[:3]) > 0.95
    with pytest.raises(LabelError, match="already: 'ant'"):
        with_labels(fitted, words(["ant", "dog"]))
    with pytest.raises(RequestError, match="two models"):
        with_labels(fitted, Classifier(["dog"], np.ones((1, 16)), 30.0, space="other"))


def test_a_label_without_a_prompt_is_known_by_its_examples() -> None:
    vectors, of = blobs(4)
    fitted = fit(vectors, of, words(LABELS[:3]))
    assert fitted.classifier.labels == tuple(LABELS)
    assert accuracy(fitted.classifier) > 0.95


def test_examples_are_enough_without_any_prompt() -> None:
    vectors, of = blobs(4)
    fitted = fit(vectors, of, space="g")
    assert accuracy(fitted.classifier) > 0.95
    assert fitted.zero_shot is None
    assert fitted.classifier.space == "g"


def test_the_order_of_the_labels_is_the_callers() -> None:
    vectors, of = blobs(3)
    assert fit(vectors, of, words(), labels=LABELS[::-1]).classifier.labels == tuple(LABELS[::-1])


def test_the_same_examples_and_seed_give_the_same_classifier() -> None:
    vectors, of = blobs(5, noise=0.2)
    one, other = (fit(vectors, of, words(), seed=3).classifier for _ in range(2))
    assert np.array_equal(one.matrix, other.matrix)
    assert np.array_equal(one.scale, other.scale)


@pytest.mark.parametrize("method", ["zero-shot", "probe", "pulled", "gaussian"])
def test_a_method_can_be_asked_for(method: str) -> None:
    vectors, of = blobs(5)
    fitted = fit(vectors, of, words(), method=method)  # type: ignore[arg-type]
    assert (fitted.method, fitted.reason) == (method, "asked for")
    assert accuracy(fitted.classifier) > 0.9


def test_requests_that_cannot_be_met_say_what_is_missing() -> None:
    vectors, of = blobs(2)
    with pytest.raises(LabelError, match="neither an example nor a prompt: 'emu'"):
        fit(vectors, of, words(), labels=[*LABELS, "emu"])
    with pytest.raises(LabelError, match="not asked for: 'dog'"):
        fit(vectors, of, words(), labels=LABELS[:3])
    with pytest.raises(LabelError, match="two labels"):
        fit(vectors[:2], of[:2])
    with pytest.raises(RequestError, match="of two models"):
        fit(vectors[:, :8], of, words())
    with pytest.raises(RequestError, match="starts from prompts"):
        fit(vectors, of, method="pulled")
    with pytest.raises(RequestError, match="an example of every label"):
        fit(vectors[:4], of[:4], words(), method="probe")
    with pytest.raises(RequestError, match="method must be"):
        fit(vectors, of, words(), method="magic")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="strength"):
        fit(vectors, of, words(), method="pulled", strength=-1.0)
    with pytest.raises(RequestError, match="a vector and a label each"):
        fit(vectors, of[:-1], words())


def run(check: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)


def test_fitting_needs_no_scikit_learn() -> None:
    done = run(
        "import sys; sys.modules['sklearn'] = sys.modules['scipy'] = None\n"
        "import numpy as np\nfrom nshot.few_shot import fit\n"
        "f = fit(np.random.default_rng(0).normal(size=(12, 8)), list('abc') * 4)\n"
        "print(f.classifier.labels)"
    )
    assert done.stdout.strip() == "('a', 'b', 'c')", done.stderr


@recorded.needed
@pytest.mark.parametrize(("shots", "gain"), [(1, 0.0), (4, 0.005), (16, 0.01)])
def test_on_real_vectors_examples_buy_what_was_promised(shots: int, gain: float) -> None:
    vectors, labels = recorded.cifar10()
    zero = recorded.prompts(recorded.NAMES)
    gains = []
    for seed in range(5):
        shown, rest = recorded.draw(labels, shots, seed)
        of_rest = [labels[i] for i in rest]
        fitted = fit(vectors[shown], [labels[i] for i in shown], zero)
        gains.append(
            recorded.accuracy(fitted.classifier, vectors[rest], of_rest)
            - recorded.accuracy(zero, vectors[rest], of_rest)
        )
    assert np.mean(gains) >= gain
    assert min(gains) >= -0.025


@recorded.needed
def test_on_real_vectors_a_label_without_examples_answers_and_costs_the_others_little() -> None:
    vectors, labels = recorded.cifar10()
    zero = recorded.prompts(recorded.NAMES)
    shown = [i for i in recorded.draw(labels, 8, seed=0)[0] if labels[i] != "truck"]
    rest = [i for i in range(len(labels)) if i not in shown]
    without = [name for name in recorded.NAMES if name != "truck"]
    closed = fit(vectors[shown], [labels[i] for i in shown], zero_of(zero, without)).classifier
    opened = fit(vectors[shown], [labels[i] for i in shown], zero).classifier
    old = [i for i in rest if labels[i] != "truck"]
    new = [i for i in rest if labels[i] == "truck"]
    of_old = [labels[i] for i in old]
    before, after = (recorded.accuracy(c, vectors[old], of_old) for c in (closed, opened))
    assert after > before - 0.01
    answered = recorded.accuracy(opened, vectors[new], ["truck"] * len(new))
    assert answered > recorded.accuracy(zero, vectors[new], ["truck"] * len(new)) - 0.05


def zero_of(classifier: Classifier, labels: list[str]) -> Classifier:
    rows = [classifier.labels.index(label) for label in labels]
    return Classifier(labels, classifier.matrix[rows], scale=classifier.scale[rows])


def test_many_examples_are_learnt_from_block_by_block_as_few_are_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors, of = blobs(600, noise=0.2)
    once = [fit(vectors, of, start, seed=1) for start in (None, words(), words(shift=1))]
    monkeypatch.setattr("nshot.few_shot.heads._AT_ONCE", 256 * 16)
    for first, prompts in zip(once, (None, words(), words(shift=1)), strict=True):
        second = fit(vectors, of, prompts, seed=1)
        assert second.candidate == first.candidate
        assert [trial.right for trial in second.trials] == [trial.right for trial in first.trials]
        assert np.allclose(second.classifier.matrix, first.classifier.matrix, atol=2e-3)
        assert np.allclose(second.classifier.scale, first.classifier.scale, rtol=1e-2)
        assert np.allclose(second.classifier.scores(vectors), first.classifier.scores(vectors), atol=2e-3)


@pytest.mark.parametrize("alike", [0, 5, 70])
def test_examples_are_put_in_order_and_merged_however_alike_they_begin(alike: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 80)).astype(np.float32)
    rows[:, :alike] = 0.5
    rows = np.concatenate([rows, rows[rng.integers(0, 400, 200)]])
    targets = np.concatenate([np.arange(400) % 2, np.zeros(200, int)])
    weights = rng.uniform(0.5, 2.0, 600)
    shown = Shown(rows, targets, weights).merged()
    keys = [np.array([target, *row], np.float64).tobytes() for target, row in zip(targets, rows, strict=True)]
    expected: dict[bytes, float] = {}
    for key, weight in zip(keys, weights.tolist(), strict=True):
        expected[key] = expected.get(key, 0.0) + weight
    made = [
        np.array([t, *row], np.float64).tobytes() for t, row in zip(shown.targets, shown.vectors, strict=True)
    ]
    assert made == sorted(expected)
    assert np.allclose(shown.weights, [expected[key] for key in made])


_PEAK = """
import resource, sys
import numpy as np
import nshot.few_shot.fitting as fitting
import nshot.few_shot.heads as heads
from nshot.few_shot.growth import growth
heads._AT_ONCE, fitting._MANY = 2**18, 2**20
rng = np.random.default_rng(0)
count = int(sys.argv[1])
rows = rng.standard_normal((count, 256), dtype=np.float32)
rows += 3 * np.eye(256, dtype=np.float32)[np.arange(count) % 4]
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
of = [f"label {row % 4}" for row in range(count)]
found = fitting.fit(rows, of)
assert growth(rows, of, found) is not None
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_learning_from_many_examples_takes_few_copies_of_them() -> None:
    peaks = []
    for count in (2_000, 12_000):
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(count)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # no buffers of more threads
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 4 * 12_000 * 256 * 4, peaks
